// Sums over a block and over a grid, always in the same order.
#pragma once

#include "cuda/launch.h"
#include "cuda/rows.h"

namespace mtlfast {
namespace cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMaxWarps = 32;

// Σ x over the block, the same bits in every thread. All threads call; whole warps only.
__device__ __forceinline__ double block_sum(double x) {
  MTLFAST_SHARED(double, warp_sum, kMaxWarps);
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  if (threadIdx.x % kLanes == 0) warp_sum[threadIdx.x / kLanes] = x;
  __syncthreads();
  double total = 0;
  for (unsigned warp = 0; warp < blockDim.x / kLanes; ++warp) total += warp_sum[warp];
  __syncthreads();  // the next sum may overwrite warp_sum
  return total;
}

// Σ values[k] over k < count by one block; values may have been written by other blocks.
__device__ __forceinline__ double block_sum_of(const double* values, int64_t count) {
  double sum = 0;
  for (int64_t k = threadIdx.x; k < count; k += blockDim.x) sum += __ldcg(values + k);
  return block_sum(sum);
}

// value = scale·Σ values[k], by one block.
template <class R>
__global__ void sum_values(const double* values, int64_t count, double scale, R* value /*[1]*/) {
  const double total = block_sum_of(values, count);
  if (threadIdx.x == 0) *value = R(scale * total);
}

// True in the block that comes last of its grid: what the others wrote before is there to be read.
__device__ __forceinline__ bool is_last_block(unsigned* ticket /*[1], zero before the launch*/) {
  MTLFAST_SHARED(unsigned, drawn, 1);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) drawn[0] = atomicAdd(ticket, 1u);
  __syncthreads();
  return drawn[0] == gridDim.x - 1;
}

}  // namespace cuda
}  // namespace mtlfast
