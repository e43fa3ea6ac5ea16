// The prox of distances along edges.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// X with (I + 4·step·L) X = W, in double, L the Laplacian of (A + Aᵀ)/2. The rows of the graph are
// those of `count` connected pieces, one after the other, piece p from first[p] on, and columns are
// numbered within a piece; weight is in double.  status = (iterations, 1 when the matrix is not
// positive definite), residual = what bounds the error where all weights are ≥ 0: max over pieces
// and columns of ‖w − (I + 4·step·L)x‖ / ‖w‖, or of the size of a last correction.
using graph_prox = void(DType, const void* w /*[K, d]*/, Graph,
                        const int64_t* first /*[count + 1]*/, int64_t count, int64_t d, double step,
                        double tol, int64_t max_iter, void* out /*[K, d]*/, int64_t* status /*[2]*/,
                        double* residual /*[1]*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_GRAPH_PROX(X) X(graph_prox)
