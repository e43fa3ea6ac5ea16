// Trace norms and their prox.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// For each of B matrices w_b = U diag(σ) Vᵀ, min(m, n) ≤ 64: value = Σ σ_i, and
// grad = Σ_{σ_i > rank cut} u_i v_iᵀ, left out when grad is null. A matrix that holds NaN or Inf
// has value NaN.
using trace_norm_value = void(DType, const void* w /*[B, m, n]*/, int64_t B, int64_t m, int64_t n,
                              double* value /*[B]*/, void* grad /*[B, m, n] or null*/, int threads);

// out_b = U diag((σ − threshold_b)₊) Vᵀ, NaN throughout for a matrix that holds NaN or Inf.
// out may be w.
using trace_norm_prox = void(DType, const void* w /*[B, m, n]*/, const double* threshold /*[B]*/,
                             int64_t B, int64_t m, int64_t n, void* out /*[B, m, n]*/, int threads);

// The same by Gram matrices, for float32 and 16-bit types and min(m, n) ≤ 256.
using trace_norm_gram_value = void(DType, const void* w /*[B, m, n]*/, int64_t B, int64_t m,
                                   int64_t n, double* value /*[B]*/,
                                   void* grad /*[B, m, n] or null*/, int threads);

// finite_b = 0 and nothing written for a matrix that holds NaN or Inf, else 1.  out may be w.
using trace_norm_gram_prox = void(DType, const void* w /*[B, m, n]*/,
                                  const double* threshold /*[B]*/, int64_t B, int64_t m, int64_t n,
                                  void* out /*[B, m, n]*/, int64_t* finite /*[B]*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_TRACE_NORM(X) \
  X(trace_norm_value) X(trace_norm_prox) X(trace_norm_gram_value) X(trace_norm_gram_prox)
