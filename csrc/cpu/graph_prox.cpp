// Prox of the graph-weighted distance:  (I + 4·step·L) X = W,  L the Laplacian of (A + Aᵀ)/2, that
// is  x_i + 2·step Σ_j s_ij (x_i − x_j) = w_i  with s = A + Aᵀ.
//
// Plan     conjugate gradients preconditioned by the diagonal, every column its own system, all
//          columns advanced by the same pass over the edges; double throughout. When the recurrence
//          says done, the true residual is formed from edge differences; if that is not there yet,
//          conjugate gradients start again from it.
// Traffic  an iteration reads every neighbour row once and five arrays [K, d] of double.
// Bits     dot products are kept per chunk of rows and added in chunk order.
#include "common/dispatch.h"
#include "common/edges.h"
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kMaxRestarts = 8;

bool is_finite(double x) { return x - x == 0; }

// The state of the d systems; a column is active until it is solved or found not to be finite.
class Solver {
 public:
  Solver(Graph graph, int64_t K, int64_t d, double step, int threads)
      : graph_(graph), edges_{graph.col, static_cast<const double*>(graph.weight), graph.row_ptr[K]},
        chunks_(graph.row_ptr, K, d), K_(K), d_(d), step_(step), threads_(threads), b(K * d),
        x(K * d), r_(K * d), p_(K * d), q_(K * d), diagonal_(K), partial_(chunks_.count * d),
        norm_(d), alpha_(d), beta_(d), rz_(d), dot_(d) {}

  // Loads W as right-hand side and first guess. False when the diagonal is not positive.
  template <class T>
  bool load(const T* w) {
    bool positive = true;
    for (int64_t i = 0; i < K_; ++i) {
      double degree = 0;
      for (int64_t k = graph_.row_ptr[i]; k < graph_.row_ptr[i + 1]; ++k) {
        degree += edges_.weight[k];
      }
      diagonal_[i] = 1 + 2 * step_ * degree;
      positive = positive && diagonal_[i] > 0;
    }
    for_rows([&](int64_t i, double* sum) {
      for (int64_t j = 0; j < d_; ++j) {
        const double v = double(load_part(w + i * d_ + j, 1)[0]);
        b[i * d_ + j] = x[i * d_ + j] = v;
        sum[j] += v * v;
      }
    });
    combine(norm_.get());
    return positive;
  }

  // r = b − (I + 4·step·L) x; returns max over columns of ‖r‖/‖b‖ (columns that are not finite apart).
  double true_residual() {
    for_edges(x.get(), [&](int64_t i, int64_t column, int64_t n, const double* lx, double* sum) {
      for (int64_t l = 0; l < n; ++l) {
        const int64_t k = i * d_ + column + l;
        const double r = (b[k] - x[k]) - 2 * step_ * lx[l];
        r_[k] = r;
        sum[column + l] += r * r;
      }
    });
    combine(dot_.get());
    return relative(dot_.get());
  }

  // Conjugate gradients from the residual in r; returns the iterations taken, sets *indefinite.
  int64_t iterate(double tol, int64_t max_iter, bool* indefinite) {
    precondition(nullptr);
    for (int64_t iteration = 1; iteration <= max_iter; ++iteration) {
      for_edges(p_.get(), [&](int64_t i, int64_t column, int64_t n, const double* lp, double* sum) {
        for (int64_t l = 0; l < n; ++l) {
          const int64_t k = i * d_ + column + l;
          q_[k] = p_[k] + 2 * step_ * lp[l];
          sum[column + l] += p_[k] * q_[k];
        }
      });
      combine(dot_.get());
      for (int64_t j = 0; j < d_; ++j) {
        if (rz_[j] > 0 && dot_[j] <= 0) {
          *indefinite = true;
          return iteration;
        }
        alpha_[j] = rz_[j] > 0 && dot_[j] > 0 ? rz_[j] / dot_[j] : 0;
      }
      for_rows([&](int64_t i, double* sum) {
        for (int64_t j = 0; j < d_; ++j) {
          const int64_t k = i * d_ + j;
          x[k] += alpha_[j] * p_[k];
          r_[k] -= alpha_[j] * q_[k];
          sum[j] += r_[k] * r_[k];
        }
      });
      combine(dot_.get());
      const double residual = relative(dot_.get());
      if (residual <= tol || !is_finite(residual)) return iteration;
      precondition(rz_.get());
    }
    return max_iter;
  }

  template <class T>
  void store(T* out) {
    using Lanes = Lane<T>;
    for_rows([&](int64_t i, double*) {
      for (int64_t j = 0; j < d_; ++j) {
        const double nan = __builtin_nan("");
        const auto v = typename Lanes::Real(is_finite(norm_[j]) ? x[i * d_ + j] : nan);
        store_part(out + i * d_ + j, typename Lanes::Vec{} + v, 1);
      }
    });
  }

 private:
  // body(row, partial sums [d]) for all rows, in chunks.
  template <class Body>
  void for_rows(const Body& body) {
    parallel_for(chunks_.count, K_ * d_, threads_, [&](int64_t c) {
      double* sum = partial_.get() + c * d_;
      for (int64_t j = 0; j < d_; ++j) sum[j] = 0;
      const int64_t end = chunks_.first_row(c + 1);
      for (int64_t i = chunks_.first_row(c); i < end; ++i) body(i, sum);
    });
  }

  // body(row, first column, columns, Σ_j s_ij (v_i − v_j), partial sums [d]) for all rows and panels.
  template <class Body>
  void for_edges(const double* v, const Body& body) {
    parallel_for(chunks_.count, chunks_.work(d_), threads_, [&](int64_t c) {
      constexpr int64_t width = kPanelVectors * Lane<double>::N;
      alignas(64) double lv[width];
      double unused[Lane<double>::N] = {};
      double* sum = partial_.get() + c * d_;
      for (int64_t j = 0; j < d_; ++j) sum[j] = 0;
      const int64_t end = chunks_.first_row(c + 1);
      for (int64_t i = chunks_.first_row(c); i < end; ++i) {
        for (int64_t column = 0; column < d_; column += width) {
          const PanelView<double> view(v, K_, d_, column);
          add_edges<double, true>(view, edges_, i, graph_.row_ptr[i], graph_.row_ptr[i + 1], lv,
                                  unused);
          body(i, column, view.width, lv, sum);
        }
      }
    });
  }

  // total[j] = the partial sums of all chunks, in chunk order.
  void combine(double* total) {
    for (int64_t j = 0; j < d_; ++j) total[j] = 0;
    for (int64_t c = 0; c < chunks_.count; ++c) {
      for (int64_t j = 0; j < d_; ++j) total[j] += partial_[c * d_ + j];
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

  // z = r / diagonal, r·z, and p = z + β p (p = z when there is no previous r·z).
  void precondition(const double* previous) {
    for_rows([&](int64_t i, double* sum) {
      for (int64_t j = 0; j < d_; ++j) sum[j] += r_[i * d_ + j] * (r_[i * d_ + j] / diagonal_[i]);
    });
    combine(dot_.get());
    for (int64_t j = 0; j < d_; ++j) {
      beta_[j] = previous != nullptr && previous[j] > 0 ? dot_[j] / previous[j] : 0;
      rz_[j] = dot_[j];
    }
    for_rows([&](int64_t i, double*) {
      for (int64_t j = 0; j < d_; ++j) {
        const int64_t k = i * d_ + j;
        p_[k] = r_[k] / diagonal_[i] + (previous != nullptr ? beta_[j] * p_[k] : 0);
      }
    });
  }

  Graph graph_;
  SparseEdges<double> edges_;
  RowChunks chunks_;
  int64_t K_, d_;
  double step_;
  int threads_;
  Scratch<double> b, x, r_, p_, q_;       // [K, d]
  Scratch<double> diagonal_;              // [K]
  Scratch<double> partial_;               // [chunks, d]
  Scratch<double> norm_, alpha_, beta_, rz_, dot_;  // [d]; norm is ‖b‖²
};

}  // namespace

// ---------------------------------------------------------------------------------------------

void graph_prox(DType dtype, const void* w, Graph graph, int64_t K, int64_t d, double step,
                double tol, int64_t max_iter, void* out, int64_t* status, double* residual,
                int threads) {
  Solver solver(graph, K, d, step, threads);
  status[0] = 0;
  status[1] = 0;
  *residual = 0;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    bool indefinite = !solver.load(static_cast<const T*>(w));
    if (!indefinite) {
      *residual = solver.true_residual();
      for (int64_t restart = 0; restart < kMaxRestarts; ++restart) {
        if (*residual <= tol || !is_finite(*residual) || status[0] >= max_iter) break;
        status[0] += solver.iterate(tol, max_iter - status[0], &indefinite);
        if (indefinite) break;
        *residual = solver.true_residual();
      }
    }
    status[1] = indefinite;
    solver.store(static_cast<T*>(out));
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
