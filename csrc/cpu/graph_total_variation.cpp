// Total variation over a graph:  Σ_ij A_ij ‖w_i − w_j‖ = Σ_{i<j} s_ij ‖w_i − w_j‖,  s = A + Aᵀ,
// gradient Σ_j s_ij (w_i − w_j)/‖w_i − w_j‖, 0 for rows that coincide.
//
// Plan     one owner per row of the symmetric CSR matrix, as in graph.cpp; an edge's difference is held
//          until its length is known, then added to the gradient. Where squares leave the range of
//          W's arithmetic type, or weight over length does, the edge is done again in double and
//          in a scale of its own, so that a length of any size has a direction.
// Traffic  reads each neighbour row once per stored direction (the value alone: once per edge),
//          writes the gradient once.
// Bits     each row is summed in the order of its columns, chunk values in chunk order.
#include "common/dispatch.h"
#include "common/edges.h"
#include "cpu/declare.h"
#include "kernels/graph_total_variation.h"

MTLFAST_DECLARE(MTLFAST_GRAPH_TOTAL_VARIATION)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int kMost = 4;  // vectors of a row in registers

// The vectors of a row: in registers for NV > 0, else in memory that is given.
template <class Vec, int NV>
struct Held {
  Vec x[NV];
  explicit Held(Vec*) {}
  MTLFAST_INLINE Vec& operator[](int64_t v) { return x[v]; }
};

template <class Vec>
struct Held<Vec, 0> {
  Vec* x;
  explicit Held(Vec* memory) : x(memory) {}
  MTLFAST_INLINE Vec& operator[](int64_t v) { return x[v]; }
};

template <class T, int NV>
class Row {
 public:
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  using Real = typename Lanes::Real;
  static constexpr int64_t N = Lanes::N;

  Row(const T* w, int64_t K, int64_t d) : d_(d), end_(w + K * d) {}
  MTLFAST_INLINE int64_t count() const { return NV > 0 ? NV : ceil_div(d_, N); }
  // Lanes behind the row are zero.
  MTLFAST_INLINE Vec load(const T* row, int64_t v) const {
    const T* const p = row + v * N;
    const int64_t n = d_ - v * N;
    if (n >= N) return Lanes::load(p);
    return p + N <= end_ ? keep_first(Lanes::load(p), n) : load_part(p, n);
  }

  // x = w_i − w_j; returns Σ x².
  MTLFAST_INLINE double subtract(const T* wi, const T* wj, Held<Vec, NV>& x) const {
    double total = 0;
    Vec sum = {};
    for (int64_t v = 0; v < count(); ++v) {
      x[v] = load(wi, v) - load(wj, v);
      sum += x[v] * x[v];
      if (NV == 0 && v % 64 == 63) {
        total += lane_sum(sum);
        sum = Vec{};
      }
    }
    return total + lane_sum(sum);
  }

  MTLFAST_INLINE bool is_zero(Held<Vec, NV>& x) const {
    auto apart = x[0] != Vec{};
    for (int64_t v = 1; v < count(); ++v) apart |= x[v] != Vec{};
    for (int64_t l = 0; l < N; ++l) {
      if (apart[l]) return false;
    }
    return true;
  }

  // The same in double and in a scale of its own: x = weight·(w_i − w_j)/‖w_i − w_j‖, NaN where that is
  // not finite; returns weight·‖w_i − w_j‖.
  __attribute__((noinline, cold)) double direct(const T* wi, const T* wj, double weight,
                                                Held<Vec, NV>& x) const {
    const auto at = [](const T* row, int64_t j) { return double(load_part(row + j, 1)[0]); };
    double top = 0, largest = 0, naive = 0;
    const auto size = [](double x) { return x < 0 ? -x : x; };
    for (int64_t j = 0; j < d_; ++j) {
      const double a = size(at(wi, j)), b = size(at(wj, j));
      top = a > top ? a : top;
      top = b > top ? b : top;
    }
    const double less = top > 0x1p1000 ? 0x1p-10 : 1;  // differences and their sums are finite
    const auto difference = [&](int64_t j) { return less * at(wi, j) - less * at(wj, j); };
    for (int64_t j = 0; j < d_; ++j) {
      const double x = size(difference(j));
      largest = x > largest ? x : largest;
      naive += x * x;
    }
    const bool finite = is_finite(largest) && naive == naive;
    int exponent = 0;
    if (finite && largest > 0) __builtin_frexp(largest, &exponent);
    const double scale = __builtin_ldexp(1.0, exponent < -1000 ? 1000 : -exponent);
    double squares = 0;
    for (int64_t j = 0; j < d_; ++j) squares += scale * difference(j) * (scale * difference(j));
    const double length = finite ? __builtin_sqrt(squares) : naive;
    const double over = finite ? length : __builtin_nan("");
    alignas(64) Real part[N];
    for (int64_t v = 0; v < count(); ++v) {
      for (int64_t l = 0; l < N; ++l) {
        const int64_t j = v * N + l;
        part[l] = j < d_ ? Real(weight * (scale * difference(j) / over)) : Real(0);
      }
      x[v] = load_raw<Vec>(part);
    }
    return weight * length / scale / less;  // the length alone may be no number
  }

 private:
  int64_t d_;
  const T* end_;  // one past W's last element
};

// Whether Σ x² and weight over length are what they should be, in the arithmetic type.
template <class Real>
MTLFAST_INLINE bool in_range(double squares, double pull) {
  constexpr double most = sizeof(Real) == 4 ? 0x1p100 : 0x1p900;
  return squares <= most && squares >= 1 / most && pull <= most && pull >= 1 / most;
}

template <class T, int NV, bool GRAD>
double value_and_gradient(const T* w, const Graph& graph, int64_t K, int64_t d, T* grad,
                          double scale, bool add, int threads) {
  using Lanes = Lane<T>;
  using Real = typename Lanes::Real;
  using Vec = typename Lanes::Vec;
  constexpr int64_t N = Lanes::N;
  const Row<T, NV> row(w, K, d);
  const RowChunks chunks(graph.row_ptr, K, d);
  const Real* const weights = static_cast<const Real*>(graph.weight);
  const int64_t E = graph.row_ptr[K], vectors = row.count();
  // all memory is there before grad is written to; that of a chunk is little against its rows
  const int64_t held = NV > 0 ? 0 : 2 * vectors;
  const Scratch<double> values(chunks.count), totals(chunks.count * vectors * N);
  const Scratch<Vec> memory(chunks.count * held);
  parallel_for(chunks.count, chunks.work(d), threads, [&](int64_t c) {
    Held<Vec, NV> x(memory.get() + c * held), g(memory.get() + c * held + held / 2);
    for (int64_t v = 0; v < vectors; ++v) g[v] = Vec{};
    double* const total = totals.get() + c * vectors * N;
    Sum value;
    const int64_t end = chunks.first_row(c + 1);
    for (int64_t p = chunks.first_row(c); p < end; ++p) {
      const int64_t i = graph.order != nullptr ? graph.order[p] : p;
      const bool is_long = graph.row_ptr[p + 1] - graph.row_ptr[p] > kGradientRun;
      int64_t run = 0;
      const auto flush = [&] {
        for (int64_t v = 0; v < vectors; ++v) {
          for (int64_t l = 0; l < N; ++l) total[v * N + l] += double(g[v][l]);
          g[v] = Vec{};
        }
        run = 0;
      };
      if (GRAD) {
        for (int64_t v = 0; v < vectors; ++v) g[v] = Vec{};
        for (int64_t k = 0; k < vectors * N && is_long; ++k) total[k] = 0;
      }
      for (int64_t k = graph.row_ptr[p]; k < graph.row_ptr[p + 1]; ++k) {
        const T* const next = w + int64_t(graph.col[k + kPrefetch < E ? k + kPrefetch : k]) * d;
        for (int64_t v = 0; v < vectors && v < kMost; ++v) __builtin_prefetch(next + v * N);
        const int64_t j = graph.col[k];
        const double s = double(weights[k]);
        if (s == 0 || j == i || (!GRAD && j < i)) continue;
        const T *const wi = w + i * d, *const wj = w + j * d;
        const double squares = row.subtract(wi, wj, x), rough = __builtin_sqrt(squares);
        if (squares == 0 && row.is_zero(x)) continue;
        const double pull = s / rough;
        const bool fine = in_range<Real>(squares, pull < 0 ? -pull : pull);
        double weighted = s * rough;
        if (!fine) {  // x itself stays in registers
          Held<Vec, NV> y = x;
          weighted = row.direct(wi, wj, s, y);
          x = y;
        }
        if (j > i) value.add(weighted);
        if (!GRAD) continue;
        const Real factor = fine ? Real(pull) : Real(1);
        for (int64_t v = 0; v < vectors; ++v) g[v] += factor * x[v];
        if (is_long && ++run == kGradientRun) flush();
      }
      if (!GRAD) continue;
      if (is_long) flush();
      for (int64_t v = 0; v < vectors; ++v) {
        if (is_long) {
          for (int64_t l = 0; l < N; ++l) g[v][l] = Real(total[v * N + l]);
        }
        T* const out = grad + i * d + v * N;
        const int64_t n = d - v * N;
        Vec y = Real(scale) * g[v];
        if (add) y += n < N ? load_part(out, n) : Lanes::load(out);
        n < N ? store_part(out, y, n) : Lanes::store(out, y);
      }
    }
    values[c] = value.value();
  });
  Sum sum;
  for (int64_t c = 0; c < chunks.count; ++c) sum.add(values[c]);
  return sum.value();
}

template <class T, int NV>
double run(const T* w, const Graph& graph, int64_t K, int64_t d, T* grad, double scale, bool add,
           int threads) {
  if constexpr (NV > 0) {
    if (ceil_div(d, Lane<T>::N) < NV) {
      return run<T, NV - 1>(w, graph, K, d, grad, scale, add, threads);
    }
  }
  const auto kernel =
      grad != nullptr ? value_and_gradient<T, NV, true> : value_and_gradient<T, NV, false>;
  return kernel(w, graph, K, d, grad, scale, add, threads);
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void graph_total_variation(DType dtype, const void* w, Graph graph, int64_t K, int64_t d,
                           double* value, void* grad, double scale, Plus plus, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* const rows = static_cast<const T*>(w);
    T* const out = static_cast<T*>(grad);
    const bool add = plus == Plus::out;
    *value = ceil_div(d, Lane<T>::N) > kMost
                 ? run<T, 0>(rows, graph, K, d, out, scale, add, threads)
                 : run<T, kMost>(rows, graph, K, d, out, scale, add, threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
