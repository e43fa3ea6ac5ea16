// Prox of the graph-weighted distance:  (I + 4·step·L) X = W,  L the Laplacian of (A + Aᵀ)/2, that
// is  x_i + 2·step Σ_j s_ij (x_i − x_j) = w_i  with s = A + Aᵀ.
//
// Plan     every connected piece of the graph is a system of its own. Small ones are eliminated, a
//          thread for each (elimination.h), and so are others where that costs no more than a few
//          iterations. The rest go by conjugate gradients, one after the other, in panels of columns
//          (conjugate_gradients.h). Where these do not get there, a piece is eliminated after all,
//          its sparse part first (graph_elimination.cpp), if that does not cost much more.
// Bits     which way a piece goes is decided by its size, its weights and its W alone.
#include "common/dispatch.h"
#include "cpu/conjugate_gradients.h"
#include "cpu/elimination.h"
#include "cpu/declare.h"
#include "kernels/graph_prox.h"
#include "cpu/graph_elimination.h"

MTLFAST_DECLARE(MTLFAST_GRAPH_PROX)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kSmall = 64;          // tasks of a piece that is always eliminated
constexpr int64_t kMostDense = 2048;    // tasks of one that always may be, 32 MiB
constexpr double kLittleWork = 0x1p34;  // operations that are better than no answer: a few seconds
constexpr int64_t kUnitTasks = 256;     // of small pieces in a work unit
constexpr double kFewIterations = 8;    // what conjugate gradients take at least
constexpr int64_t kColumns = kPanelVectors * Lane<double>::N;

// Operations of the elimination of a piece as a dense system; columns are counted in whole vectors.
double dense_work(const Piece& piece, int64_t d) {
  const double n = double(piece.n), width = double(ceil_div(d, 8) * 8);
  return n * n * n / 6 + n * n * width;
}

// As many for an iteration of conjugate gradients, of which one takes about three times as long.
double iteration_work(const Piece& piece, int64_t d) {
  return 3 * (double(piece.edges()) + 10 * double(piece.n)) * double(ceil_div(d, 8) * 8);
}

// The factors of a piece: of all of it as a dense system, or of the core of a sparse elimination.
class Eliminated {
 public:
  Eliminated(const Piece& piece, double step, int threads)
      : Eliminated(piece, nullptr, piece.n, threads) {
    Scratch<double> excess(n_);
    for (int64_t k = 0; k < n_ * n_; ++k) factors_[k] = 0;
    for (int64_t i = 0; i < n_; ++i) {
      excess[i] = 1;
      for (int64_t k = piece.row_ptr[i]; k < piece.row_ptr[i + 1]; ++k) {
        const int32_t j = piece.col[k];
        if (j < i) factors_[i * n_ + j] += tie_of(step, piece.weight[k]);
      }
    }
    positive_ = eliminate(n_, factors_.get(), excess.get(), inverse_.get(), threads);
  }
  Eliminated(const Piece& piece, const GraphElimination& outer, int threads)
      : Eliminated(piece, &outer, outer.core_size(), threads) {
    Scratch<double> excess(core_);
    outer.fill_core(factors_.get(), excess.get());
    positive_ =
        outer.positive() && eliminate(core_, factors_.get(), excess.get(), inverse_.get(), threads);
  }
  bool positive() const { return positive_; }

  // Columns [column, d) of W [K, d].
  template <class T>
  void solve(const T* w, int64_t column, int64_t d, T* out) const {
    const int64_t panels = ceil_div(d - column, kColumns);
    parallel_for(panels, n_ * n_ * d, threads_, [&](int64_t p) {
      const int64_t from = column + p * kColumns;
      const int64_t width = d - from < kColumns ? d - from : kColumns;
      switch (ceil_div(width, 8)) {
        case 1: return solve_panel<1>(w + from, d, width, out + from);
        case 2: return solve_panel<2>(w + from, d, width, out + from);
        case 3: return solve_panel<3>(w + from, d, width, out + from);
        default: return solve_panel<4>(w + from, d, width, out + from);
      }
    });
  }

 private:
  Eliminated(const Piece& piece, const GraphElimination* outer, int64_t core, int threads)
      : piece_(piece), outer_(outer), n_(piece.n), core_(core), threads_(threads),
        factors_(core * core), inverse_(core) {}

  template <int NV, class T>
  void solve_panel(const T* w, int64_t stride, int64_t width, T* out) const {
    constexpr int64_t padded = 8 * NV;
    Scratch<double> b(n_ * padded);
    Shift shift(padded);
    double largest[padded] = {}, sum[padded] = {}, squares[padded] = {};
    for (int64_t i = 0; i < n_; ++i) {
      double* const row = b.get() + i * padded;
      widen_row(w + piece_.task(i) * stride, width, row);
      for (int64_t j = width; j < padded; ++j) row[j] = 0;
      largest_row(padded, row, largest);
    }
    for (int64_t j = 0; j < padded; ++j) shift.fit(j, largest[j]);
    for (int64_t i = 0; i < n_; ++i) {
      moments_row(padded, shift.scale.get(), b.get() + i * padded, sum, squares);
    }
    for (int64_t j = 0; j < padded; ++j) {
      shift.mean[j] = sum[j] / double(n_);
      shift.norm[j] = squares[j];
    }
    for (int64_t i = 0; i < n_; ++i) deviate_row(padded, shift, b.get() + i * padded);
    outer_ == nullptr ? substitute<NV>(n_, factors_.get(), inverse_.get(), b.get())
                      : substitute_all<NV>(b.get());
    for (int64_t i = 0; i < n_; ++i) {
      restore_row(width, shift, b.get() + i * padded, out + piece_.task(i) * stride);
    }
  }

  // b [n, 8·NV] becomes x by way of the core.
  template <int NV>
  void substitute_all(double* b) const {
    constexpr int64_t width = 8 * NV;
    const GraphElimination& outer = *outer_;
    for (int64_t t = 0; t < outer.count(); ++t) {
      check_in_row(t);
      const double* const own = b + outer.order()[t] * width;
      for (int64_t e = outer.ptr()[t]; e < outer.ptr()[t + 1]; ++e) {
        add_row(width, outer.factor()[e], own, b + outer.col()[e] * width);
      }
    }
    Scratch<double> core(core_ * width);
    for (int64_t i = 0; i < core_; ++i) {
      std::memcpy(core.get() + i * width, b + outer.core()[i] * width, width * sizeof(double));
    }
    substitute<NV>(core_, factors_.get(), inverse_.get(), core.get());
    for (int64_t i = 0; i < core_; ++i) {
      std::memcpy(b + outer.core()[i] * width, core.get() + i * width, width * sizeof(double));
    }
    for (int64_t t = outer.count() - 1; t >= 0; --t) {
      check_in_row(t);
      double* const own = b + outer.order()[t] * width;
      for (int64_t j = 0; j < width; ++j) own[j] *= outer.inverse()[t];
      for (int64_t e = outer.ptr()[t]; e < outer.ptr()[t + 1]; ++e) {
        add_row(width, outer.factor()[e], b + outer.col()[e] * width, own);
      }
    }
  }

  const Piece piece_;
  const GraphElimination* outer_;
  int64_t n_, core_;
  int threads_;
  bool positive_;
  Scratch<double> factors_, inverse_;  // [core, core], [core]
};

// The pieces of a graph, from the first to the last.
struct Pieces {
  Graph graph;
  const int64_t* first;  // [count + 1]
  int64_t count;

  Piece operator[](int64_t p) const { return {graph, first[p], size(p)}; }
  int64_t size(int64_t p) const { return first[p + 1] - first[p]; }
  // The first piece that begins at row i or behind it.
  int64_t at(int64_t i) const {
    int64_t low = 0, high = count;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      first[middle] < i ? low = middle + 1 : high = middle;
    }
    return low;
  }
};

// Eliminates all small pieces; false where one of them is not positive definite.
template <class T>
bool solve_small(const Pieces& pieces, const T* w, int64_t d, double step, T* out, int threads) {
  const int64_t K = pieces.first[pieces.count], units = ceil_div(K, kUnitTasks);
  Scratch<char> positive(units);
  parallel_for(units, K * d, threads, [&](int64_t unit) {
    positive[unit] = 1;
    const int64_t end = pieces.at((unit + 1) * kUnitTasks);
    for (int64_t p = pieces.at(unit * kUnitTasks); p < end; ++p) {
      if (pieces.size(p) > kSmall) continue;
      const Piece piece = pieces[p];
      if (piece.n == 1) {
        std::memcpy(out + piece.task(0) * d, w + piece.task(0) * d, size_t(d) * sizeof(T));
        continue;
      }
      const Eliminated system(piece, step, 1);
      positive[unit] = positive[unit] && system.positive();
      system.solve(w, 0, d, out);
    }
  });
  bool all = true;
  for (int64_t unit = 0; unit < units; ++unit) all = all && positive[unit];
  return all;
}

// One piece that is not small.
template <class T>
Solved solve_large(const Piece& piece, const T* w, int64_t d, double step, double tol,
                   int64_t max_iter, T* out, int threads) {
  Solved worst;
  const double iteration = iteration_work(piece, d), dense = dense_work(piece, d);
  if (dense <= kFewIterations * iteration) {
    const Eliminated system(piece, step, threads);
    worst.indefinite = !system.positive();
    system.solve(w, 0, d, out);
    return worst;
  }
  const double equal = dense / iteration;
  const int64_t most = piece.n <= kMostDense && equal < double(max_iter) ? int64_t(equal) : max_iter;
  const int64_t width = panel_width(piece.n, d);
  ConjugateGradients system(piece, width, step, threads);
  for (int64_t column = 0; column < d; column += width) {
    const int64_t columns = d - column < width ? d - column : width;
    const Solved solved = system.solve(w, d, column, columns, tol, most);
    worst.add(solved);
    if (solved.converged) {
      system.store(out, d, column);
      continue;
    }
    if (solved.indefinite) return worst;
    // no more than has been spent so far, or little
    const double spent = iteration * double(worst.iterations);
    const double most_work = piece.n <= kMostDense ? 4 * dense
                             : spent > kLittleWork ? spent
                                                   : kLittleWork;
    const GraphElimination outer(piece.row_ptr, piece.col, piece.weight, piece.n, step, most_work);
    if (!outer.complete()) return worst;
    const Eliminated exact(piece, outer, threads);
    exact.solve(w, column, d, out);
    worst.indefinite = !exact.positive();
    worst.residual = 0;
    return worst;
  }
  return worst;
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void graph_prox(DType dtype, const void* w, Graph graph, const int64_t* first, int64_t count,
                int64_t d, double step, double tol, int64_t max_iter, void* out, int64_t* status,
                double* residual, int threads) {
  const Pieces pieces{graph, first, count};
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* const rows = static_cast<const T*>(w);
    T* const result = static_cast<T*>(out);
    Solved worst;
    worst.indefinite = !solve_small(pieces, rows, d, step, result, threads);
    for (int64_t p = 0; p < count && !worst.indefinite; ++p) {
      if (pieces.size(p) <= kSmall) continue;
      const Solved solved = solve_large(pieces[p], rows, d, step, tol, max_iter, result, threads);
      worst.add(solved);
    }
    status[0] = worst.iterations;
    status[1] = worst.indefinite;
    *residual = worst.residual;
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
