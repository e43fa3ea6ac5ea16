// One row of each pass of conjugate gradients over the columns of a panel; the compiler turns these
// loops into vectors.
#pragma once

#include "common/lanes.h"

namespace mtlfast {
namespace MTLFAST_ISA {

// q = p + factor·lp;  dot += p·q, column by column.
inline void apply_row(int64_t n, double factor, const double* __restrict lp,
                      const double* __restrict p, double* __restrict q, double* __restrict dot) {
  for (int64_t j = 0; j < n; ++j) {
    q[j] = p[j] + factor * lp[j];
    dot[j] += p[j] * q[j];
  }
}

// r = b − y − factor·ly;  rr += r·r,  rz += r·r·inverse.
inline void residual_row(int64_t n, double factor, double inverse, const double* __restrict ly,
                         const double* __restrict b, const double* __restrict y,
                         double* __restrict r, double* __restrict rr, double* __restrict rz) {
  for (int64_t j = 0; j < n; ++j) {
    r[j] = (b[j] - y[j]) - factor * ly[j];
    rr[j] += r[j] * r[j];
    rz[j] += r[j] * (r[j] * inverse);
  }
}

// x += α p, from x = 0 where FIRST;  r −= α q;  rr += r·r,  rz += r·r·inverse.
template <bool FIRST>
inline void step_row(int64_t n, double inverse, const double* __restrict alpha,
                     const double* __restrict p, const double* __restrict q, double* __restrict x,
                     double* __restrict r, double* __restrict rr, double* __restrict rz) {
  for (int64_t j = 0; j < n; ++j) {
    const double step = alpha[j] * p[j];
    x[j] = FIRST ? step : x[j] + step;
    r[j] -= alpha[j] * q[j];
    rr[j] += r[j] * r[j];
    rz[j] += r[j] * (r[j] * inverse);
  }
}

// p = inverse·r + β p, from p = 0 where FIRST.
template <bool FIRST>
inline void direction_row(int64_t n, double inverse, const double* __restrict beta,
                          const double* __restrict r, double* __restrict p) {
  for (int64_t j = 0; j < n; ++j) p[j] = FIRST ? r[j] * inverse : r[j] * inverse + beta[j] * p[j];
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
