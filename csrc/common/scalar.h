// Scalar arithmetic that loops on the CPU and kernels on CUDA share.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MTLFAST_BOTH __host__ __device__ __forceinline__
#else
#define MTLFAST_BOTH inline __attribute__((always_inline))
#endif

namespace mtlfast {
namespace MTLFAST_ISA {

MTLFAST_BOTH constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// origin + offset as hi + lo in W's arithmetic type, correct beyond the last bit of hi.
template <class Real>
MTLFAST_BOTH void split_mean(double origin, double offset, Real* hi, Real* lo) {
  const double s = origin + offset, back = s - origin;
  const double error = (origin - (s - back)) + (offset - back);
  *hi = Real(s);
  *lo = Real((s - double(*hi)) + error);
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
