// The graph-weighted distance for a dense A [K, K]:  s_ij = A_ij + A_ji is formed tile by tile.
//
// Plan     kRows rows of tasks at a time against tiles of kTile tasks; one owner per row. A zero
//          s_ij is skipped.
// Traffic  reads A twice (by rows and by columns, in tiles), W once per kRows rows from cache.
// Bits     each row is summed in the order of its columns, strips of rows in their order.
#include "common/dispatch.h"
#include "common/edges.h"
#include "cpu/declare.h"
#include "kernels/dense_graph.h"

MTLFAST_DECLARE(MTLFAST_DENSE_GRAPH)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kRows = 16;
constexpr int64_t kTile = 64;

template <class T, bool GRAD>
double value_and_gradient(const T* w, const typename Lane<T>::Real* a, int64_t K, int64_t d,
                          T* grad, double scale, int threads) {
  using Lanes = Lane<T>;
  using Real = typename Lanes::Real;
  constexpr int64_t width = kPanelVectors * Lanes::N;
  const int64_t strips = ceil_div(K, kRows);
  Scratch<double> values(strips);
  parallel_for(strips, K * K * d, threads, [&](int64_t strip) {
    alignas(64) Real part[width];
    double total[kRows][width];
    double lanes[Lanes::N] = {};
    Real s[kRows][kTile];
    const int64_t first = strip * kRows, rows = K - first < kRows ? K - first : kRows;
    for (int64_t column = 0; column < d; column += width) {
      const PanelView<T> view(w, K, d, column);
      for (auto& row : total) {
        for (double& t : row) t = 0;
      }
      for (int64_t j = 0; j < K; j += kTile) {
        const int64_t n = K - j < kTile ? K - j : kTile;
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t k = 0; k < n; ++k) {
            s[r][k] = a[(first + r) * K + j + k] + a[(j + k) * K + first + r];
          }
        }
        for (int64_t r = 0; r < rows; ++r) {
          const RangeEdges<Real> edges{j, s[r]};
          add_edges<T, GRAD>(view, edges, first + r, 0, n, part, lanes);
          for (int64_t l = 0; GRAD && l < view.width; ++l) total[r][l] += double(part[l]);
        }
      }
      for (int64_t r = 0; GRAD && r < rows; ++r) {
        for (int64_t l = 0; l < width; ++l) part[l] = Real(total[r][l]);
        store_scaled(part, Real(2 * scale), view.width, grad + (first + r) * d + column);
      }
    }
    Sum sum;
    for (double v : lanes) sum.add(v);
    values[strip] = sum.value();
  });
  Sum sum;
  for (int64_t strip = 0; strip < strips; ++strip) sum.add(values[strip]);
  return sum.value();
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void dense_graph_value(DType dtype, const void* w, const void* a, int64_t K, int64_t d,
                       double* value, void* grad, double scale, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    const auto run = grad != nullptr ? value_and_gradient<T, true> : value_and_gradient<T, false>;
    *value = run(static_cast<const T*>(w), static_cast<const Real*>(a), K, d, static_cast<T*>(grad),
                 scale, threads);
  });
}

void dense_distance(DType dtype, const void* w, int64_t K, int64_t d, void* out, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    const T* rows = static_cast<const T*>(w);
    Real* distance = static_cast<Real*>(out);
    // the owner of row i writes (i, j) and (j, i) for all j > i: every entry has one writer
    parallel_for(K, K * K * d, threads, [&](int64_t i) {
      distance[i * K + i] = 0;
      for (int64_t j = i + 1; j < K; ++j) {
        const Real x = Real(squared_distance(rows + i * d, rows + j * d, d));
        distance[i * K + j] = distance[j * K + i] = x;
      }
    });
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
