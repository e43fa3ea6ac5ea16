// Edges, pairs and ridge in one pass.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// value = ridge Σ_i ‖w_i‖² + pairs Σ_{i≠j} ‖w_i − w_j‖² + edges·½ Σ_ij s_ij ‖w_i − w_j‖²;  grad is its
// gradient times scale, plus nothing or what is there, left out when grad is null.
using quadratic = void(DType, const void* w /*[K, d]*/, Graph, int64_t K, int64_t d, double ridge,
                       double pairs, double edges, double* value /*[1]*/,
                       void* grad /*[K, d] or null*/, double scale, Plus, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_QUADRATIC(X) X(quadratic)
