// Stands in for CUDA when a .cu file is compiled by a host compiler: same text, no GPU.
//
// A launch runs its blocks one after the other, each thread of a block as a fiber, in an order
// drawn from `seed`. A fiber runs until it meets others: at a barrier, or at a warp's exchange.
// Reported, as std::runtime_error out of the launch, are: a barrier or an exchange that is never
// passed, since a thread has returned or waits elsewhere; a lane that is read and takes no part;
// shared memory written past the end of an array. Shared memory begins as NaN. Under
// AddressSanitizer and UBSan an array ends where it ends and a vector must be aligned; under
// ThreadSanitizer a fiber is a thread and only what they meet at orders what they do.
//
// It sees nothing of nvcc's code generation, of weak memory order, of streams or of speed.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_types.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace cuda_shim {

struct Place {
  uint3 thread, block;
  dim3 threads, blocks;
};

enum class Meet { barrier, barrier_or, warp, any, ballot, shuffle };

void seed(uint64_t value);       // 0: threads and blocks in their natural order
void only_block(int64_t block);  // −1: all; else launches run this one alone, for huge grids
const Place& place();            // of the running thread
void launch(const char* kernel, int64_t blocks, int threads, int64_t shared,
            const std::function<void()>& body);

// The running thread waits for the others of its block, or for the lanes of mask; each gives a
// value and gets one back: the value of lane `source`, or all predicates together.
uint64_t meet(Meet, unsigned mask, uint64_t value, unsigned source);

// The block's array of this site (any address that names it); the same for all its threads.
void* shared_array(const void* site, int64_t bytes);
void* dynamic_shared();

template <class T>
T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = meet(Meet::shuffle, mask, bits, source);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned lane() { return place().thread.x % 32; }

}  // namespace cuda_shim

#define threadIdx (::cuda_shim::place().thread)
#define blockIdx (::cuda_shim::place().block)
#define blockDim (::cuda_shim::place().threads)
#define gridDim (::cuda_shim::place().blocks)

#define MTLFAST_LAUNCH(kernel, blocks, threads, shared, stream, ...)                               \
  ::cuda_shim::launch(#kernel, ::mtlfast::cuda::grid_size(blocks, #kernel), threads, shared, [&] { \
    (void)(stream);                                                                                \
    kernel(__VA_ARGS__);                                                                           \
  })

#define MTLFAST_SHARED(type, name, count) \
  static const char name##_site = 0;      \
  type* const name = static_cast<type*>(  \
      ::cuda_shim::shared_array(&name##_site, int64_t(sizeof(type)) * int64_t(count)))

#define MTLFAST_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::cuda_shim::dynamic_shared())

inline void __syncthreads() { cuda_shim::meet(cuda_shim::Meet::barrier, 0, 0, 0); }
inline int __syncthreads_or(int predicate) {
  return int(cuda_shim::meet(cuda_shim::Meet::barrier_or, 0, predicate != 0, 0));
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  cuda_shim::meet(cuda_shim::Meet::warp, mask, 0, 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return int(cuda_shim::meet(cuda_shim::Meet::any, mask, predicate != 0, 0));
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return unsigned(cuda_shim::meet(cuda_shim::Meet::ballot, mask, predicate != 0, 0));
}
inline int __all_sync(unsigned mask, int predicate) { return !__any_sync(mask, !predicate); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned lane = cuda_shim::lane(), first = lane / width * width;
  return cuda_shim::shuffle(mask, value, first + unsigned(source) % width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const unsigned lane = cuda_shim::lane(), source = lane ^ unsigned(bits);
  return cuda_shim::shuffle(mask, value, source / width <= lane / width ? source : lane);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
  const unsigned lane = cuda_shim::lane(), source = lane + step;
  return cuda_shim::shuffle(mask, value, source / width == lane / width ? source : lane);
}

template <class T>
T __ldcg(const T* p) {
  return *p;
}

inline void __threadfence() {}  // blocks take turns, and ThreadSanitizer has no fences
inline unsigned atomicAdd(unsigned* p, unsigned x) {
  return __atomic_fetch_add(p, x, __ATOMIC_ACQ_REL);
}
