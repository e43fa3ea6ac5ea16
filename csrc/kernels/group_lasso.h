// Columns: their lengths, scaled.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// length[j] = ‖w_·j‖₂.
using column_lengths = void(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                            double* length /*[d]*/, int threads);

// out_ij = factor_j w_ij, plus nothing or out.  out may be w; factors are of W's arithmetic type.
using column_scale = void(DType, const void* w /*[K, d]*/, const void* factor /*[d]*/, int64_t K,
                          int64_t d, Plus, void* out /*[K, d]*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_GROUP_LASSO(X) X(column_lengths) X(column_scale)
