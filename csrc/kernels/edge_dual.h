// Steps of the dual variables of a total variation.
#pragma once

#include "types.h"

namespace mtlfast {
namespace signature {

// former_e = the projection of v + length_e (w_i − w_j) on the ball of radius scale·radius_e, where
// v = u_e + momentum (u_e − former_e), and out = Dᵀ former: (Dᵀ U)_i = Σ u_e that begin at i −
// Σ u_e that end there. former may be u; a null length is 1 throughout.
using edge_dual_step = void(const double* u /*[E, d]*/, double* former /*[E, d]*/,
                            const double* w /*[K, d]*/, Pairs, const double* radius /*[E]*/,
                            const double* length /*[E] or null*/, int64_t K, int64_t d,
                            double momentum, double scale, double* out /*[K, d]*/, int threads);

// out = Dᵀ u.
using edge_dual_adjoint = void(const double* u /*[E, d]*/, Pairs, int64_t K, int64_t d,
                               double* out /*[K, d]*/, int threads);

// value = Σ_e radius_e ‖w_i − w_j‖.
using edge_dual_value = void(const double* w /*[K, d]*/, Pairs, const double* radius /*[E]*/,
                             int64_t K, int64_t d, double* value /*[1]*/, int threads);

}  // namespace signature
}  // namespace mtlfast

#define MTLFAST_EDGE_DUAL(X) X(edge_dual_step) X(edge_dual_adjoint) X(edge_dual_value)
