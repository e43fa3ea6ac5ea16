// Element types of W on the device: the arithmetic type of each, conversions, vectors of 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/launch.h"
#include "types.h"

namespace mtlfast {
namespace cuda {

template <class T>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};
template <class T>
using Real = typename RealOf<T>::type;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

__device__ __forceinline__ void narrow(float x, float* out) { *out = x; }
__device__ __forceinline__ void narrow(double x, double* out) { *out = x; }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(x);
}
__device__ __forceinline__ void narrow(float x, __half* out) { *out = __float2half_rn(x); }

// V elements that are loaded and stored in one instruction; p must be aligned to all of them.
template <class T, int V>
struct alignas(sizeof(T) * V) Vector {
  T x[V];

  static __device__ __forceinline__ Vector load(const T* p) {
    return *reinterpret_cast<const Vector*>(p);
  }
  __device__ __forceinline__ void store(T* p) const { *reinterpret_cast<Vector*>(p) = *this; }
};

template <class T>
constexpr int kWidest = 16 / int(sizeof(T));  // elements of the widest vector

template <class T>
inline bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

template <class T>
struct Type {
  using type = T;
};

// Calls body with the element type that a DType names.
template <class Body>
inline void with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::float32: body(Type<float>{}); break;
    case DType::float64: body(Type<double>{}); break;
    case DType::bfloat16: body(Type<__nv_bfloat16>{}); break;
    case DType::float16: body(Type<__half>{}); break;
  }
}

}  // namespace cuda
}  // namespace mtlfast
