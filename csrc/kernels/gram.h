// Gram distances.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// value = Σ_ij (⟨w_i, w_j⟩ − ω_ij)²;  grad = 2 (R + Rᵀ) W with R = W Wᵀ − Ω, in W's arithmetic type,
// left out when grad is null.
using gram_dense = void(DType, const void* w /*[K, d]*/, const void* omega /*[K, K]*/, int64_t K,
                        int64_t d, double* value /*[1]*/, void* grad /*[K, d] or null*/,
                        int threads);

// The same for a sparse Ω with ω_row(e)col(e) = values[e], no entry twice;  values_grad[e] =
// −2 (⟨w_row(e), w_col(e)⟩ − values[e]).  A gradient is left out when it is null.  E, K < 2³¹;
// values and gradients are of W's arithmetic type.
using gram_edges = void(DType, const void* w /*[K, d]*/, const int64_t* row /*[E]*/,
                        const int64_t* col /*[E]*/, const void* values /*[E]*/, int64_t K,
                        int64_t d, int64_t E, double* value /*[1]*/, void* grad /*[K, d] or null*/,
                        void* values_grad /*[E] or null*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_GRAM(X) X(gram_dense) X(gram_edges)
