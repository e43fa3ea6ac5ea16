// Sums over the edges of one task, the inner loop of every graph kernel.
//
// For task i and a panel of up to four vectors of columns, held in registers:
//   gradient += Σ_j s_ij (w_i − w_j),   value += Σ_{j>i} s_ij ‖w_i − w_j‖².
// Squares are taken of differences, never expanded. Float sums go to double after at most
// kGradientRun (gradient) and kValueRun (value) edges. A zero weight is no edge: it is skipped, so
// that 0·Inf adds nothing.
#pragma once

#include "common/lanes.h"
#include "common/parallel.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int kPanelVectors = 4;
constexpr int64_t kGradientRun = 128;
constexpr int64_t kValueRun = 32;
constexpr int64_t kPrefetch = 8;  // edges ahead

// The edges of all rows of a sparse graph; k counts through row_ptr.
template <class Real>
struct SparseEdges {
  const int32_t* col;
  const Real* weight;
  int64_t count;
  MTLFAST_INLINE int64_t to(int64_t k) const { return col[k]; }
  MTLFAST_INLINE int64_t ahead(int64_t k) const {
    return col[k + kPrefetch < count ? k + kPrefetch : k];
  }
};

// Edges to the consecutive tasks first, first + 1, …
template <class Real>
struct RangeEdges {
  int64_t first;
  const Real* weight;
  MTLFAST_INLINE int64_t to(int64_t k) const { return first + k; }
  MTLFAST_INLINE int64_t ahead(int64_t k) const { return first + k; }
};

// Columns [column, column + width) of W [K, d]; the last vector may be partly used.
template <class T>
struct PanelView {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  const T* w;
  int64_t d, column, width;
  const T* end;  // one past W's last element

  PanelView(const T* w, int64_t K, int64_t d, int64_t column)
      : w(w), d(d), column(column), width(d - column), end(w + K * d) {
    if (width > kPanelVectors * Lanes::N) width = kPanelVectors * Lanes::N;
  }
  int vectors() const { return int(ceil_div(width, Lanes::N)); }
  MTLFAST_INLINE const T* row(int64_t i) const { return w + i * d + column; }
  // Vector v of a row; lanes behind the panel are zero when TAIL (v is then partly used).
  template <bool TAIL>
  MTLFAST_INLINE Vec load(const T* row, int v) const {
    const T* p = row + v * Lanes::N;
    if (!TAIL) return Lanes::load(p);
    const int64_t n = width - v * Lanes::N;
    return p + Lanes::N <= end ? keep_first(Lanes::load(p), n) : load_part(p, n);
  }
};

template <class T, int NV, bool TAIL, bool GRAD, class Edges>
inline void add_edges_of_panel(const PanelView<T>& view, const Edges& edges, int64_t i,
                               int64_t begin, int64_t end, typename Lane<T>::Real* grad,
                               double* value_lanes) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  using Real = typename Lanes::Real;
  constexpr int N = Lanes::N;
  const auto load = [&](const T* row, int v) __attribute__((always_inline)) {
    return TAIL && v == NV - 1 ? view.template load<true>(row, v)
                               : view.template load<false>(row, v);
  };
  Vec wi[NV], g[NV], q[NV];
  for (int v = 0; v < NV; ++v) {
    wi[v] = load(view.row(i), v);
    g[v] = q[v] = Vec{};
  }
  const bool is_long = end - begin > kGradientRun;
  double total[NV * N] = {};  // of the runs before the current one, when is_long
  int64_t gradient_run = 0, value_run = 0;
  const auto flush_value = [&]() __attribute__((always_inline)) {
    Vec all = q[0];
    for (int v = 1; v < NV; ++v) all += q[v];
    for (int l = 0; l < N; ++l) value_lanes[l] += double(all[l]);
    for (int v = 0; v < NV; ++v) q[v] = Vec{};
    value_run = 0;
  };
  for (int64_t k = begin; k < end; ++k) {
    const T* next = view.row(edges.ahead(k));
    for (int v = 0; v < NV; ++v) __builtin_prefetch(next + v * N);
    const int64_t j = edges.to(k);
    const Real s = edges.weight[k];
    const bool counts = j > i;
    if (s == 0 || j == i || (!GRAD && !counts)) continue;
    const T* row = view.row(j);
    for (int v = 0; v < NV; ++v) {
      const Vec x = wi[v] - load(row, v);
      const Vec sx = s * x;
      if (GRAD) g[v] += sx;
      if (counts) q[v] += sx * x;
    }
    if (counts && ++value_run == kValueRun) flush_value();
    if (GRAD && is_long && ++gradient_run == kGradientRun) {
      for (int v = 0; v < NV; ++v) {
        for (int l = 0; l < N; ++l) total[v * N + l] += double(g[v][l]);
        g[v] = Vec{};
      }
      gradient_run = 0;
    }
  }
  flush_value();
  if (GRAD) {
    for (int v = 0; v < NV; ++v) {
      if (is_long) {
        for (int l = 0; l < N; ++l) grad[v * N + l] = Real(total[v * N + l] + double(g[v][l]));
      } else {
        store_raw(grad + v * N, g[v]);
      }
    }
  }
}

// The edges [begin, end) of task i on one panel: grad [kPanelVectors·N] = Σ_j s_ij (w_i − w_j) in
// the arithmetic type (left alone unless GRAD), value_lanes [N] += the value's lanes.
template <class T, bool GRAD, class Edges>
inline void add_edges(const PanelView<T>& view, const Edges& edges, int64_t i, int64_t begin,
                      int64_t end, typename Lane<T>::Real* grad, double* value_lanes) {
  const bool tail = view.width % Lane<T>::N != 0;
#define MTLFAST_PANEL(NV)                                                                         \
  case NV:                                                                                        \
    tail ? add_edges_of_panel<T, NV, true, GRAD>(view, edges, i, begin, end, grad, value_lanes)   \
         : add_edges_of_panel<T, NV, false, GRAD>(view, edges, i, begin, end, grad, value_lanes); \
    break;
  switch (view.vectors()) {
    MTLFAST_PANEL(1)
    MTLFAST_PANEL(2)
    MTLFAST_PANEL(3)
    MTLFAST_PANEL(4)
  }
#undef MTLFAST_PANEL
}

// out[0 .. width) = scale·x, in W's element type.
template <class T, class Real>
MTLFAST_INLINE void store_scaled(const Real* x, Real scale, int64_t width, T* out) {
  constexpr int N = Lane<T>::N;
  int64_t l = 0;
  for (; l + N <= width; l += N) {
    Lane<T>::store(out + l, scale * load_raw<typename Lane<T>::Vec>(x + l));
  }
  if (l < width) store_part(out + l, scale * load_raw<typename Lane<T>::Vec>(x + l), width - l);
}

// Σ_j (a_j − b_j)² in double; float sums run over at most 64 terms.
template <class T>
inline double squared_distance(const T* a, const T* b, int64_t d) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  constexpr int64_t run = 64 * Lanes::N;
  double total = 0;
  for (int64_t begin = 0; begin < d; begin += run) {
    const int64_t end = begin + run < d ? begin + run : d;
    Vec sum = {};
    int64_t j = begin;
    for (; j + Lanes::N <= end; j += Lanes::N) {
      const Vec x = Lanes::load(a + j) - Lanes::load(b + j);
      sum += x * x;
    }
    if (j < end) {
      const Vec x = load_part(a + j, end - j) - load_part(b + j, end - j);
      sum += x * x;
    }
    total += lane_sum(sum);
  }
  return total;
}

// Rows in chunks of about equal work, edges + 2·rows: chunk c starts at row first_row(c).
struct RowChunks {
  const int64_t* row_ptr;  // [K + 1]
  int64_t K, unit, count;

  RowChunks(const int64_t* row_ptr, int64_t K, int64_t d) : row_ptr(row_ptr), K(K) {
    unit = (int64_t(1) << 18) / d;
    unit = unit < 256 ? 256 : unit > 65536 ? 65536 : unit;
    count = ceil_div(before(K), unit);
  }
  // The work of the rows before row i; row_ptr may be a part of a longer one.
  int64_t before(int64_t i) const { return row_ptr[i] - row_ptr[0] + 2 * i; }
  int64_t work(int64_t d) const { return before(K) * d; }
  int64_t first_row(int64_t c) const {
    int64_t low = 0, high = K;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (before(middle) < c * unit) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
