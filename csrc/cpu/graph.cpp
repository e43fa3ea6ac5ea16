// Graph-weighted distance:  Σ_ij A_ij ‖w_i − w_j‖² = Σ_{i<j} s_ij ‖w_i − w_j‖²,  s = A + Aᵀ,
// gradient 2 Σ_j s_ij (w_i − w_j);  and ∂/∂A_ij = ‖w_i − w_j‖² edge by edge.
//
// Plan     one owner per row of the symmetric CSR matrix, so no two threads write the same row;
//          rows in chunks of equal edges + 2·rows; value and gradient in one pass (common/edges.h).
//          In the order of graph.order, a neighbour's row is still in the cache (graph_order.cpp).
// Traffic  reads each neighbour row once per stored direction, writes the gradient once, past the
//          caches where it is too large for them, with what is affine in its own row. No temporary of
//          size E·d.
// Bits     each row is summed in the order of its columns, chunk values in chunk order.
#include "common/dispatch.h"
#include "common/edges.h"
#include "common/stream.h"
#include "cpu/declare.h"
#include "kernels/graph.h"

MTLFAST_DECLARE(MTLFAST_GRAPH)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kEdgeUnit = 1024;

enum class Output { store, stream, add };

// Columns of the affine part of a gradient.
template <class T>
struct AffinePart {
  using Real = typename Lane<T>::Real;
  const Real *hi, *lo;  // null without a mean
  Real pull, shrink;
  // In the order of pairwise_affine and ridge, one after the other.
  template <class Vec>
  MTLFAST_INLINE Vec add_to(Vec y, Vec w, Vec h, Vec l) const {
    if (hi != nullptr) y = y + pull * ((w - h) - l);
    return shrink != 0 ? y + shrink * w : y;
  }
};

// out[0 .. width) = scale·x, or += scale·x, plus the affine part of w when AFFINE.
template <class T, bool AFFINE, class Real>
MTLFAST_INLINE void put_scaled(const Real* x, Real scale, int64_t width, Output output, const T* w,
                               const AffinePart<T>& affine, int64_t column, T* out) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  if (!AFFINE && output == Output::store) return store_scaled(x, scale, width, out);
  const bool centred = AFFINE && affine.hi != nullptr;
  const Real *hi = centred ? affine.hi + column : nullptr,
             *lo = centred ? affine.lo + column : nullptr;
  int64_t l = 0;
  for (; l + Lanes::N <= width; l += Lanes::N) {
    Vec y = scale * load_raw<Vec>(x + l);
    if (output == Output::add) y = Lanes::load(out + l) + y;
    if (AFFINE) {
      const Vec h = centred ? load_raw<Vec>(hi + l) : Vec{},
                low = centred ? load_raw<Vec>(lo + l) : Vec{};
      y = affine.add_to(y, Lanes::load(w + l), h, low);
    }
    output == Output::stream ? stream(out + l, y) : Lanes::store(out + l, y);
  }
  if (l < width) {
    const int64_t n = width - l;
    Vec y = scale * load_raw<Vec>(x + l);
    if (output == Output::add) y = load_part(out + l, n) + y;
    if (AFFINE) {
      const Vec h = centred ? load_part(hi + l, n) : Vec{},
                low = centred ? load_part(lo + l, n) : Vec{};
      y = affine.add_to(y, load_part(w + l, n), h, low);
    }
    store_part(out + l, y, n);
  }
}

// The first lines of a row that is due soon.
template <class T>
MTLFAST_INLINE void prefetch_row(const T* w, int64_t i, int64_t d) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t j = 0; j < d && j < 4 * line; j += line) __builtin_prefetch(w + i * d + j);
}

template <class T, bool GRAD, bool AFFINE>
double value_and_gradient(const T* w, const Graph& graph, int64_t K, int64_t d, T* grad,
                          double scale, Plus plus, const AffinePart<T>& affine, int threads) {
  using Lanes = Lane<T>;
  using Real = typename Lanes::Real;
  const SparseEdges<Real> edges{graph.col, static_cast<const Real*>(graph.weight), graph.row_ptr[K]};
  const auto task_of = [&](int64_t p) { return graph.order != nullptr ? graph.order[p] : p; };
  const Output output =
      plus == Plus::out ? Output::add
      : d % Lanes::N == 0 && streams(grad, K * d * int64_t(sizeof(T)), Lanes::N * sizeof(T))
          ? Output::stream
          : Output::store;
  const RowChunks chunks(graph.row_ptr, K, d);
  Scratch<double> values(chunks.count);
  parallel_for(chunks.count, chunks.work(d), threads, [&](int64_t c) {
    alignas(64) Real row_grad[kPanelVectors * Lanes::N];
    double lanes[Lanes::N] = {};
    const int64_t end = chunks.first_row(c + 1);
    for (int64_t p = chunks.first_row(c); p < end; ++p) {
      const int64_t i = task_of(p);
      if (graph.order != nullptr) prefetch_row(w, task_of(p + 2 < end ? p + 2 : p), d);
      for (int64_t column = 0; column < d; column += kPanelVectors * Lanes::N) {
        const PanelView<T> view(w, K, d, column);
        add_edges<T, GRAD>(view, edges, i, graph.row_ptr[p], graph.row_ptr[p + 1], row_grad, lanes);
        if (GRAD) {
          put_scaled<T, AFFINE>(row_grad, Real(2 * scale), view.width, output, view.row(i), affine,
                                column, grad + i * d + column);
        }
      }
    }
    if (output == Output::stream) stream_fence();
    Sum sum;
    for (double v : lanes) sum.add(v);
    values[c] = sum.value();
  });
  Sum sum;
  for (int64_t c = 0; c < chunks.count; ++c) sum.add(values[c]);
  return sum.value();
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void graph_value(DType dtype, const void* w, Graph graph, int64_t K, int64_t d, double* value,
                 void* grad, double scale, Plus plus, Affine affine, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    const Real* mean = static_cast<const Real*>(affine.mean);
    const AffinePart<T> part{mean, mean == nullptr ? nullptr : mean + d, Real(affine.pull),
                             Real(affine.shrink)};
    const bool has_part = mean != nullptr || affine.shrink != 0;
    const auto run = grad == nullptr ? value_and_gradient<T, false, false>
                     : has_part      ? value_and_gradient<T, true, true>
                                     : value_and_gradient<T, true, false>;
    *value = run(static_cast<const T*>(w), graph, K, d, static_cast<T*>(grad), scale, plus, part,
                 threads);
  });
}

void edge_distance(DType dtype, const void* w, const int64_t* src, const int64_t* dst, int64_t E,
                   int64_t d, void* out, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    const T* rows = static_cast<const T*>(w);
    parallel_for(ceil_div(E, kEdgeUnit), E * d, threads, [&](int64_t unit) {
      const int64_t end = (unit + 1) * kEdgeUnit < E ? (unit + 1) * kEdgeUnit : E;
      for (int64_t e = unit * kEdgeUnit; e < end; ++e) {
        static_cast<Real*>(out)[e] =
            src[e] == dst[e] ? Real(0)
                             : Real(squared_distance(rows + src[e] * d, rows + dst[e] * d, d));
      }
    });
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
