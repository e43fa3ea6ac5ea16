// Distances of a dense graph.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// The same as graph_value for a dense A [K, K] of W's arithmetic type; A_ij and A_ji both count.
using dense_graph_value = void(DType, const void* w /*[K, d]*/, const void* a /*[K, K]*/, int64_t K,
                               int64_t d, double* value /*[1]*/, void* grad /*[K, d] or null*/,
                               double scale, int threads);

// out[i, j] = ‖w_i − w_j‖² in W's arithmetic type.
using dense_distance = void(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                            void* out /*[K, K]*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_DENSE_GRAPH(X) X(dense_graph_value) X(dense_distance)
