// Distances along edges.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// value = ½ Σ_ij s_ij ‖w_i − w_j‖²;  grad_i = 2·scale·Σ_j s_ij (w_i − w_j), plus nothing or what is
// there (Plus::out), plus the affine part; left out when grad is null.
using graph_value = void(DType, const void* w /*[K, d]*/, Graph, int64_t K, int64_t d,
                         double* value /*[1]*/, void* grad /*[K, d] or null*/, double scale, Plus,
                         Affine, int threads);

// out[e] = ‖w_src[e] − w_dst[e]‖² in W's arithmetic type.
using edge_distance = void(DType, const void* w /*[K, d]*/, const int64_t* src /*[E]*/,
                           const int64_t* dst /*[E]*/, int64_t E, int64_t d, void* out /*[E]*/,
                           int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_GRAPH(X) X(graph_value) X(edge_distance)
