// Graph-weighted distance for a dense A [K, K]:  Σ_{i<j} s_ij ‖w_i − w_j‖²,  s = A + Aᵀ,
// gradient 2 Σ_j s_ij (w_i − w_j);  and all distances ‖w_i − w_j‖².
//
// Plan     a block has kTile tasks and a panel of kPanel columns of W, and walks over all tasks in
//          tiles: s of the two tiles and the other's rows go to shared memory, from A's rows and,
//          for Aᵀ, from A's rows again. `dense_distances` has a pair of tiles for each block.
// Traffic  value and gradient read A twice for each panel of W's columns, coalesced both times; the
//          value alone half of that. No temporary of A's size.
// Bits     each row is summed in the order of the tasks, in W's arithmetic type within a tile, then
//          in double; no atomics.
#include "common/scalar.h"
#include "cuda/element.h"
#include "cuda/kernels.h"
#include "cuda/reduce.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr int kTile = 32;
constexpr int kPanel = 64;
constexpr int kParts = kThreads / kTile;   // threads of a task
constexpr int kColumns = kPanel / kParts;  // of a thread, kParts apart
constexpr int kPairs = kTile / kParts;     // of a thread

// s[r·(kTile + 1) + q] = a_ij + a_ji for i = first + r, j = other + q; zero for i = j and outside.
template <class R>
__device__ __forceinline__ void load_weights(const R* a, int64_t K, int64_t first, int64_t other,
                                             R* s) {
  const int r = int(threadIdx.x) / kParts, part = int(threadIdx.x) % kParts;
  for (int q = part; q < kTile; q += kParts) {
    const int64_t i = first + r, j = other + q;
    s[r * (kTile + 1) + q] = i < K && j < K && i != j ? a[i * K + j] : R(0);
  }
  __syncthreads();
  for (int q = part; q < kTile; q += kParts) {
    const int64_t i = first + q, j = other + r;
    if (i < K && j < K && i != j) s[q * (kTile + 1) + r] += a[j * K + i];
  }
}

// x[q·(width + 1) + c] = w_{first + q}[column + c], zero outside of W.
template <class T>
__device__ __forceinline__ void load_rows(const T* w, int64_t K, int64_t d, int64_t first,
                                          int64_t column, int width, Real<T>* x) {
  for (int e = int(threadIdx.x); e < kTile * width; e += kThreads) {
    const int q = e / width, c = e % width;
    const bool exists = first + q < K && column + c < d;
    x[q * (width + 1) + c] = exists ? widen(w[(first + q) * d + column + c]) : Real<T>(0);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_dense(const T* w /*[K, d]*/, const Real<T>* a /*[K, K]*/, int64_t K, int64_t d,
              int64_t panels, double scale, const Real<T>* upstream /*[1] or null*/, bool add,
              T* grad /*[K, d] or null*/, double* values /*[gridDim]*/) {
  using R = Real<T>;
  MTLFAST_SHARED(R, s, kTile * (kTile + 1));
  MTLFAST_SHARED(R, x, kTile * (kPanel + 1));
  const int r = int(threadIdx.x) / kParts, part = int(threadIdx.x) % kParts;
  const int64_t first = blockIdx.x / panels * kTile, column = blockIdx.x % panels * kPanel;
  const int64_t i = first + r;
  R center[kColumns];
  load_rows(w, K, d, first, column, kPanel, x);
  __syncthreads();
#pragma unroll
  for (int c = 0; c < kColumns; ++c) center[c] = x[r * (kPanel + 1) + part + c * kParts];
  double total[kColumns] = {}, value = 0;
  for (int64_t other = grad != nullptr ? 0 : first; other < K; other += kTile) {
    __syncthreads();  // all have read the tile before
    load_weights(a, K, first, other, s);
    load_rows(w, K, d, other, column, kPanel, x);
    __syncthreads();
    R g[kColumns] = {}, squares = 0;
    for (int q = 0; q < kTile; ++q) {
      const R weight = s[r * (kTile + 1) + q];
      if (weight == 0) continue;
      R own = 0;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const R y = center[c] - x[q * (kPanel + 1) + part + c * kParts];
        g[c] += weight * y;
        own += y * y;
      }
      if (other + q > i) squares += weight * own;
    }
    value += double(squares);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) total[c] += double(g[c]);
  }
  if (grad != nullptr && i < K) {
    const double factor = upstream != nullptr ? scale * double(*upstream) : scale;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int64_t j = column + part + c * kParts;
      if (j >= d) continue;
      const R y = R(factor * total[c]);
      narrow(add ? widen(grad[i * d + j]) + y : y, grad + i * d + j);
    }
  }
  const double sum = block_sum(value);
  if (threadIdx.x == 0) values[blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    dense_distances(const T* w /*[K, d]*/, int64_t K, int64_t d, int64_t tiles,
                    Real<T>* out /*[K, K]*/) {
  using R = Real<T>;
  MTLFAST_SHARED(R, x, kTile * (kTile + 1));
  MTLFAST_SHARED(R, y, kTile * (kTile + 1));
  const int r = int(threadIdx.x) / kParts, part = int(threadIdx.x) % kParts;
  const int64_t first = blockIdx.x / tiles * kTile, other = blockIdx.x % tiles * kTile;
  double total[kPairs] = {};
  for (int64_t column = 0; column < d; column += kTile) {
    __syncthreads();  // all have read the columns before
    load_rows(w, K, d, first, column, kTile, x);
    load_rows(w, K, d, other, column, kTile, y);
    __syncthreads();
    R squares[kPairs] = {};
    for (int c = 0; c < kTile; ++c) {
#pragma unroll
      for (int k = 0; k < kPairs; ++k) {
        const R z = x[r * (kTile + 1) + c] - y[(part + k * kParts) * (kTile + 1) + c];
        squares[k] += z * z;
      }
    }
#pragma unroll
    for (int k = 0; k < kPairs; ++k) total[k] += double(squares[k]);
  }
  const int64_t i = first + r;
#pragma unroll
  for (int k = 0; k < kPairs; ++k) {
    const int64_t j = other + part + k * kParts;
    if (i < K && j < K) out[i * K + j] = i == j ? R(0) : R(total[k]);
  }
}

int64_t sum_blocks_of(int64_t K, int64_t d) { return ceil_div(K, kTile) * ceil_div(d, kPanel); }

}  // namespace

// ---------------------------------------------------------------------------------------------

int64_t dense_graph_workspace(int64_t K, int64_t d) {
  return sum_blocks_of(K, d) * int64_t(sizeof(double));
}

void dense_graph_value(DType dtype, const void* w, const void* a, int64_t K, int64_t d,
                       double value_scale, void* value, void* grad, Scale scale, Plus plus,
                       void* workspace, Stream stream) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t blocks = sum_blocks_of(K, d);
    double* const values = static_cast<double*>(workspace);
    if (blocks > 0) {
      MTLFAST_LAUNCH(sum_dense<T>, blocks, kThreads, 0, stream, static_cast<const T*>(w),
                     static_cast<const Real<T>*>(a), K, d, ceil_div(d, kPanel), 2 * scale.factor,
                     static_cast<const Real<T>*>(scale.upstream), plus == Plus::out,
                     static_cast<T*>(grad), values);
    }
    MTLFAST_LAUNCH(sum_values<Real<T>>, 1, kThreads, 0, stream, values, blocks, value_scale,
                   static_cast<Real<T>*>(value));
  });
}

void dense_distance(DType dtype, const void* w, int64_t K, int64_t d, void* out, Stream stream) {
  if (K == 0) return;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t tiles = ceil_div(K, kTile);
    MTLFAST_LAUNCH(dense_distances<T>, tiles * tiles, kThreads, 0, stream, static_cast<const T*>(w),
                   K, d, tiles, static_cast<Real<T>*>(out));
  });
}

}  // namespace cuda
}  // namespace mtlfast
