// Pairwise distances, and means.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// value = 2K Σ_i ‖w_i − w̄‖²;  mean = (hi, lo) with w̄ = hi + lo in W's arithmetic type.
using pairwise_value = void(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                            double* value /*[1]*/, void* mean /*[2, d]*/, int threads);

// The same value, and grad = 4K (w − w̄).
using pairwise_value_grad = void(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                                 double* value /*[1]*/, void* grad /*[K, d]*/, int threads);

// out = scale·(w − w̄), plus nothing, w̄ or out.  out may be w.
using pairwise_affine = void(DType, const void* w /*[K, d]*/, const void* mean /*[2, d]*/, int64_t K,
                             int64_t d, double scale, Plus, void* out /*[K, d]*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_PAIRWISE(X) X(pairwise_value) X(pairwise_value_grad) X(pairwise_affine)
