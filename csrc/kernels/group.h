// Distances in groups, and their prox.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// Tasks member[ptr[g] .. ptr[g+1]) are linked all to all with weight 1 in both directions:
// value = Σ_g 2 n_g Σ_i ‖w_i − w̄_g‖²;  grad_i = 4·scale·n_g (w_i − w̄_g), left out when grad
// is null.
// Rows of tasks in no group are not written.
using group_value = void(DType, const void* w /*[K, d]*/, const int64_t* ptr /*[G + 1]*/,
                         const int64_t* member, int64_t G, int64_t d, double* value /*[1]*/,
                         void* grad /*[K, d] or null*/, double scale, int threads);

// out_i = w̄_g + (w_i − w̄_g) / (1 + 4 n_g step): the prox of group_value.  out may be w.
// Rows of tasks in no group are not written.
using group_prox = void(DType, const void* w /*[K, d]*/, const int64_t* ptr /*[G + 1]*/,
                        const int64_t* member, int64_t G, int64_t d, double step,
                        void* out /*[K, d]*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_GROUP(X) X(group_value) X(group_prox)
