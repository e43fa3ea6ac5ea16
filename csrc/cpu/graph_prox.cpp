// Prox of the graph-weighted distance:  (I + 4·step·L) X = W,  L the Laplacian of (A + Aᵀ)/2, that
// is  x_i + 2·step Σ_j s_ij (x_i − x_j) = w_i  with s = A + Aᵀ.
//
// Plan     conjugate gradients preconditioned by the diagonal, every column its own system, the
//          columns of a panel advanced by the same pass over the edges; double throughout. A panel is
//          so narrow that the rows which are gathered stay in the last cache. When the recurrence
//          says done, the true residual is formed from edge differences; if that is not there yet,
//          conjugate gradients start again from it.
// Traffic  an iteration reads every neighbour row once and passes ten times over an array [K, panel]
//          of double.
// Bits     dot products are kept per chunk of rows and added in chunk order.
#include "common/dispatch.h"
#include "common/edges.h"
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kMaxRestarts = 8;
constexpr int64_t kGathered = 1 << 24;  // bytes that are gathered from: half of a last cache

bool is_finite(double x) { return x - x == 0; }

int64_t panel_width(int64_t K, int64_t d) {
  constexpr int64_t widest = kPanelVectors * Lane<double>::N, narrowest = widest / 2;
  const int64_t width = K * widest * int64_t(sizeof(double)) > kGathered ? narrowest : widest;
  return d < width ? d : width;
}

// One row of each pass; the compiler turns these loops into vectors.

// q = p + factor·lp;  dot += p·q, column by column.
inline void apply_row(int64_t n, double factor, const double* __restrict lp,
                      const double* __restrict p, double* __restrict q, double* __restrict dot) {
  for (int64_t j = 0; j < n; ++j) {
    q[j] = p[j] + factor * lp[j];
    dot[j] += p[j] * q[j];
  }
}

// r = b − x − factor·lx;  rr += r·r.
inline void residual_row(int64_t n, double factor, const double* __restrict lx,
                         const double* __restrict b, const double* __restrict x,
                         double* __restrict r, double* __restrict rr) {
  for (int64_t j = 0; j < n; ++j) {
    r[j] = (b[j] - x[j]) - factor * lx[j];
    rr[j] += r[j] * r[j];
  }
}

// x += α p,  r −= α q;  rr += r·r.
inline void step_row(int64_t n, const double* __restrict alpha, const double* __restrict p,
                     const double* __restrict q, double* __restrict x, double* __restrict r,
                     double* __restrict rr) {
  for (int64_t j = 0; j < n; ++j) {
    x[j] += alpha[j] * p[j];
    r[j] -= alpha[j] * q[j];
    rr[j] += r[j] * r[j];
  }
}

// rz += r·r·inverse.
inline void weigh_row(int64_t n, double inverse, const double* __restrict r,
                      double* __restrict rz) {
  for (int64_t j = 0; j < n; ++j) rz[j] += r[j] * (r[j] * inverse);
}

// p = inverse·r + β p.
inline void direction_row(int64_t n, double inverse, const double* __restrict beta,
                          const double* __restrict r, double* __restrict p) {
  for (int64_t j = 0; j < n; ++j) p[j] = r[j] * inverse + beta[j] * p[j];
}

// The state of the systems of one panel of d columns, the first of them `column`, of W [K, stride].
class Solver {
 public:
  Solver(Graph graph, int64_t K, int64_t d, double step, int threads)
      : graph_(graph), edges_{graph.col, static_cast<const double*>(graph.weight), graph.row_ptr[K]},
        chunks_(graph.row_ptr, K, d), K_(K), d_(d), factor_(2 * step), threads_(threads),
        arrays_(5 * K * d), b_(arrays_.get()), x_(b_ + K * d), r_(x_ + K * d), p_(r_ + K * d),
        q_(p_ + K * d), inverse_(K), partial_(2 * chunks_.count * d),
        norm_(d), alpha_(d), beta_(d), rz_(d), dot_(d) {}

  // Inverts the diagonal. False when it is not positive.
  bool prepare() {
    bool positive = true;
    for (int64_t i = 0; i < K_; ++i) {
      double degree = 0;
      for (int64_t k = graph_.row_ptr[i]; k < graph_.row_ptr[i + 1]; ++k) {
        degree += edges_.weight[k];
      }
      const double diagonal = 1 + factor_ * degree;
      inverse_[i] = 1 / diagonal;
      positive = positive && diagonal > 0;
    }
    return positive;
  }

  // Loads columns [column, column + d) of W as right-hand side and first guess; d may shrink.
  template <class T>
  void load(const T* w, int64_t stride, int64_t column, int64_t d) {
    d_ = d;
    for_rows([&](int64_t i, double* sum, double*) {
      const T* row = w + i * stride + column;
      double *b = b_ + i * d_, *x = x_ + i * d_;
      for (int64_t j = 0; j < d_; ++j) {
        const double v = double(load_part(row + j, 1)[0]);
        b[j] = x[j] = v;
        sum[j] += v * v;
      }
    });
    combine(norm_.get(), 0);
  }

  // r = b − (I + 4·step·L) x; returns max over columns of ‖r‖/‖b‖ (columns that are not finite apart).
  double true_residual() {
    for_edges(x_, [&](int64_t k, int64_t n, const double* lx, double* sum) {
      residual_row(n, factor_, lx, b_ + k, x_ + k, r_ + k, sum);
    });
    combine(dot_.get(), 0);
    return relative(dot_.get());
  }

  // Conjugate gradients from the residual in r; returns the iterations taken, sets *indefinite.
  int64_t iterate(double tol, int64_t max_iter, bool* indefinite) {
    for_rows([&](int64_t i, double* sum, double*) {
      weigh_row(d_, inverse_[i], r_ + i * d_, sum);
      for (int64_t j = 0; j < d_; ++j) p_[i * d_ + j] = 0;
    });
    combine(rz_.get(), 0);
    for (int64_t j = 0; j < d_; ++j) beta_[j] = 0;
    for (int64_t iteration = 1; iteration <= max_iter; ++iteration) {
      for_rows([&](int64_t i, double*, double*) {
        direction_row(d_, inverse_[i], beta_.get(), r_ + i * d_, p_ + i * d_);
      });
      for_edges(p_, [&](int64_t k, int64_t n, const double* lp, double* sum) {
        apply_row(n, factor_, lp, p_ + k, q_ + k, sum);
      });
      combine(dot_.get(), 0);
      for (int64_t j = 0; j < d_; ++j) {
        if (rz_[j] > 0 && dot_[j] <= 0) {
          *indefinite = true;
          return iteration;
        }
        alpha_[j] = rz_[j] > 0 && dot_[j] > 0 ? rz_[j] / dot_[j] : 0;
      }
      for_rows([&](int64_t i, double* rr, double* rz) {
        const int64_t k = i * d_;
        step_row(d_, alpha_.get(), p_ + k, q_ + k, x_ + k, r_ + k, rr);
        weigh_row(d_, inverse_[i], r_ + k, rz);
      });
      combine(dot_.get(), 0);
      const double residual = relative(dot_.get());
      if (residual <= tol || !is_finite(residual)) return iteration;
      combine(dot_.get(), 1);
      for (int64_t j = 0; j < d_; ++j) {
        beta_[j] = rz_[j] > 0 ? dot_[j] / rz_[j] : 0;
        rz_[j] = dot_[j];
      }
    }
    return max_iter;
  }

  template <class T>
  void store(T* out, int64_t stride, int64_t column) {
    using Lanes = Lane<T>;
    const double nan = __builtin_nan("");
    for_rows([&](int64_t i, double*, double*) {
      T* row = out + i * stride + column;
      for (int64_t j = 0; j < d_; ++j) {
        const auto v = typename Lanes::Real(is_finite(norm_[j]) ? x_[i * d_ + j] : nan);
        store_part(row + j, typename Lanes::Vec{} + v, 1);
      }
    });
  }

 private:
  // body(row, sums [d], other sums [d]) for all rows, in chunks.
  template <class Body>
  void for_rows(const Body& body) {
    parallel_for(chunks_.count, K_ * d_, threads_, [&](int64_t c) {
      double* sum = partial_.get() + 2 * c * d_;
      for (int64_t j = 0; j < 2 * d_; ++j) sum[j] = 0;
      const int64_t end = chunks_.first_row(c + 1);
      for (int64_t i = chunks_.first_row(c); i < end; ++i) body(i, sum, sum + d_);
    });
  }

  // body(element, columns, Σ_j s_ij (v_i − v_j), sums) for all rows and strips of columns.
  template <class Body>
  void for_edges(const double* v, const Body& body) {
    parallel_for(chunks_.count, chunks_.work(d_), threads_, [&](int64_t c) {
      constexpr int64_t width = kPanelVectors * Lane<double>::N;
      alignas(64) double lv[width];
      double unused[Lane<double>::N] = {};
      double* sum = partial_.get() + 2 * c * d_;
      for (int64_t j = 0; j < d_; ++j) sum[j] = 0;
      const int64_t end = chunks_.first_row(c + 1);
      for (int64_t i = chunks_.first_row(c); i < end; ++i) {
        for (int64_t column = 0; column < d_; column += width) {
          const PanelView<double> view(v, K_, d_, column);
          add_edges<double, true>(view, edges_, i, graph_.row_ptr[i], graph_.row_ptr[i + 1], lv,
                                  unused);
          body(i * d_ + column, view.width, lv, sum + column);
        }
      }
    });
  }

  // total[j] = the sums of all chunks, in chunk order; the other sums for which = 1.
  void combine(double* total, int64_t which) {
    for (int64_t j = 0; j < d_; ++j) total[j] = 0;
    for (int64_t c = 0; c < chunks_.count; ++c) {
      for (int64_t j = 0; j < d_; ++j) total[j] += partial_[(2 * c + which) * d_ + j];
    }
  }

  double relative(const double* squares) const {
    double worst = 0;
    for (int64_t j = 0; j < d_; ++j) {
      if (!is_finite(norm_[j]) || norm_[j] == 0) continue;  // does not hold the others up
      const double ratio = squares[j] / norm_[j];
      if (!is_finite(ratio)) return __builtin_inf();  // the step overflows: no solution here
      if (ratio > worst) worst = ratio;
    }
    return __builtin_sqrt(worst);
  }

  Graph graph_;
  SparseEdges<double> edges_;
  RowChunks chunks_;
  int64_t K_, d_;
  double factor_;  // 2·step
  int threads_;
  Scratch<double> arrays_;
  double *b_, *x_, *r_, *p_, *q_;                   // [K, d]
  Scratch<double> inverse_;                         // [K], of the diagonal
  Scratch<double> partial_;                         // [chunks, 2, d]
  Scratch<double> norm_, alpha_, beta_, rz_, dot_;  // [d]; norm is ‖b‖²
};

}  // namespace

// ---------------------------------------------------------------------------------------------

void graph_prox(DType dtype, const void* w, Graph graph, int64_t K, int64_t d, double step,
                double tol, int64_t max_iter, void* out, int64_t* status, double* residual,
                int threads) {
  const int64_t width = panel_width(K, d);
  Solver solver(graph, K, width, step, threads);
  status[0] = 0;
  status[1] = !solver.prepare();
  *residual = 0;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for (int64_t column = 0; column < d && status[1] == 0; column += width) {
      solver.load(static_cast<const T*>(w), d, column, d - column < width ? d - column : width);
      bool indefinite = false;
      int64_t iterations = 0;
      double reached = solver.true_residual();
      for (int64_t restart = 0; restart < kMaxRestarts; ++restart) {
        if (reached <= tol || !is_finite(reached) || iterations >= max_iter) break;
        iterations += solver.iterate(tol, max_iter - iterations, &indefinite);
        if (indefinite) break;
        reached = solver.true_residual();
      }
      status[0] = iterations > status[0] ? iterations : status[0];
      status[1] = indefinite;
      *residual = reached > *residual || !is_finite(reached) ? reached : *residual;
      solver.store(static_cast<T*>(out), d, column);
    }
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
