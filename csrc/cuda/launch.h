// The one way to launch a kernel and to have shared memory.
//
//   MTLFAST_LAUNCH(kernel, blocks, threads, shared bytes, stream, arguments...)
//   MTLFAST_SHARED(type, name, count)         an array of the block
//   MTLFAST_DYNAMIC_SHARED(type, name)        the array whose bytes the launch names
//
// Behind these three, the text of a kernel is plain C++: a host compiler takes it as well, with the
// macros of the header that stands in for CUDA in the tests (tests/cuda_shim).
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/kernels.h"

namespace mtlfast {
namespace cuda {

// Blocks in the only dimension used; sizes are 64-bit up to here.
inline unsigned grid_size(int64_t blocks, const char* kernel) {
  if (blocks < 1 || blocks > 0x7fffffff) {
    throw std::runtime_error(std::string(kernel) + ": a grid of " + std::to_string(blocks) +
                             " blocks");
  }
  return unsigned(blocks);
}

}  // namespace cuda
}  // namespace mtlfast

#ifdef __CUDACC__

namespace mtlfast {
namespace cuda {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

constexpr int64_t kSharedUnasked = 48 << 10;  // bytes

// A kernel gets more shared memory than that where it has been asked for.
template <class Kernel>
inline void ask_for_shared(Kernel* kernel, int64_t bytes, const char* what) {
  if (bytes <= kSharedUnasked) return;
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
        what);
}

// The stream's device is the current one while this lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device == before_) return;
    check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = true;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace cuda
}  // namespace mtlfast

#define MTLFAST_LAUNCH(kernel, blocks, threads, shared, stream, ...)                         \
  do {                                                                                       \
    const ::mtlfast::cuda::DeviceGuard guard((stream).device);                               \
    ::mtlfast::cuda::ask_for_shared(kernel, shared, #kernel);                                \
    kernel<<<::mtlfast::cuda::grid_size(blocks, #kernel), unsigned(threads), size_t(shared), \
             static_cast<cudaStream_t>((stream).handle)>>>(__VA_ARGS__);                     \
    ::mtlfast::cuda::check(cudaGetLastError(), #kernel);                                     \
  } while (false)

#define MTLFAST_SHARED(type, name, count) __shared__ type name[count]

#define MTLFAST_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char mtlfast_shared[]; \
  type* const name = reinterpret_cast<type*>(mtlfast_shared)

#else
#include "cuda_shim.h"
#endif
