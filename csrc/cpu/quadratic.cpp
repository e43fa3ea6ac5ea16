// A sum of squares of W, of the distances of all pairs, and of those over edges, in one pass over the
// edges:  ridge Σ ‖w_i‖² + pairs Σ_{i≠j} ‖w_i − w_j‖² + edges Σ_ij A_ij ‖w_i − w_j‖².
//
// Plan     the mean of the tasks first (pairwise.cpp), where pairs count; then the edges, and with a
//          row's share of them what is affine in the row itself (graph.cpp).
//          Σ ‖w_i‖² = Σ ‖w_i − w̄‖² + K ‖w̄‖² without another pass: nothing cancels there.
// Traffic  that of the edges, and one read of W more for the mean or for its squares.
// Bits     those of the parts, which no thread count changes; the gradient is that of the three
//          kernels one after the other, where W is no 16-bit type.
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/declare.h"
#include "kernels/graph.h"
#include "kernels/pairwise.h"
#include "kernels/quadratic.h"
#include "kernels/ridge.h"

MTLFAST_DECLARE(MTLFAST_GRAPH)
MTLFAST_DECLARE(MTLFAST_PAIRWISE)
MTLFAST_DECLARE(MTLFAST_QUADRATIC)
MTLFAST_DECLARE(MTLFAST_RIDGE)

namespace mtlfast {
namespace MTLFAST_ISA {

namespace {

// ridge Σ ‖w_i‖², by itself.
double of_squares(DType dtype, const void* w, int64_t n, double strength, int threads) {
  double value;
  ridge(dtype, w, n, strength, &value, nullptr, 0, Plus::nothing, threads);
  return value;
}

// Whether squares of W's arithmetic type, n of them with this sum, were in its range.
template <class Real>
bool in_range(double sum, int64_t n) {
  const double least = sizeof(Real) == sizeof(double) ? 1e-290 : 1e-30;
  return sum > least * double(n) && sum < __builtin_inf();
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void quadratic(DType dtype, const void* w, Graph graph, int64_t K, int64_t d, double ridge,
               double pairs, double edges, double* value, void* grad, double scale, Plus plus,
               int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    Affine affine;
    affine.shrink = 2 * ridge * scale;
    Scratch<Real> mean(pairs != 0 ? 2 * d : 1);
    double squares = 0;
    Sum total;
    if (pairs != 0) {
      double distance;  // 2K Σ ‖w_i − w̄‖²
      pairwise_value(dtype, w, K, d, &distance, mean.get(), threads);
      affine.mean = mean.get();
      affine.pull = 4.0 * double(K) * pairs * scale;
      total.add(pairs * distance);
      squares = distance / (2.0 * double(K));
      for (int64_t j = 0; j < d; ++j) {
        const double x = double(mean[j]) + double(mean[d + j]);
        squares += double(K) * x * x;
      }
    }
    if (ridge != 0) {
      const bool known = pairs != 0 && in_range<Real>(squares, K * d);
      total.add(known ? ridge * squares : of_squares(dtype, w, K * d, ridge, threads));
    }
    double distance;
    graph_value(dtype, w, graph, K, d, &distance, grad, edges * scale, plus, affine, threads);
    total.add(edges * distance);
    *value = total.value();
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
