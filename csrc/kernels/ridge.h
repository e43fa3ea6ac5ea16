// Squares of all entries.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// value = factor·Σ w²;  out = scale·w, plus nothing or out.  Either is left out when it is null;
// out may be w.
using ridge = void(DType, const void* w /*[n]*/, int64_t n, double factor,
                   double* value /*[1] or null*/, void* out /*[n] or null*/, double scale, Plus,
                   int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_RIDGE(X) X(ridge)
