// Lengths along edges.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// value = ½ Σ_ij s_ij ‖w_i − w_j‖;  grad_i = scale·Σ_j s_ij (w_i − w_j)/‖w_i − w_j‖, plus nothing or
// what is there (Plus::out), left out when grad is null.
using graph_total_variation = void(DType, const void* w /*[K, d]*/, Graph, int64_t K, int64_t d,
                                   double* value /*[1]*/, void* grad /*[K, d] or null*/,
                                   double scale, Plus, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_GRAPH_TOTAL_VARIATION(X) X(graph_total_variation)
