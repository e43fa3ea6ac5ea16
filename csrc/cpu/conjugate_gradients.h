// Conjugate gradients for a piece of a graph:  (I + 4·step·L) Y = B,  B = W − mean, preconditioned by the
// diagonal, every column its own system, the columns of a panel advanced by the same pass over the
// edges; double throughout. A panel is so narrow that the rows which are gathered stay in the last
// cache.
//
// Start    Y = B over the diagonal, whose residual is no larger than B however strong the edges are.
//          What rounding adds to Y on the way is then small against W, while the residual of a
//          rounded Y may be large: in it a difference of tightly tied tasks, of the last bit of Y,
//          is multiplied by the weight that ties them.
// Stop     where the recurrence has ‖r‖ ≤ tol·‖w‖, which for weights ≥ 0 bounds the error of Y but
//          for rounding, the matrix being ≥ I; then the true residual is formed from differences.
//          Where that is larger, the error itself is solved for, from 0 and in an array of its own:
//          its size is known as well as its residual is small, so an error ≤ tol·‖w‖ is an end.
// Traffic  an iteration reads every neighbour row once and passes ten times over an array [n, panel]
//          of double.
// Bits     dot products are kept per chunk of rows and added in chunk order.
#pragma once

#include <memory>

#include "common/edges.h"
#include "cpu/conjugate_rows.h"
#include "cpu/piece.h"
#include "cpu/graph_elimination.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int64_t kMaxRestarts = 8;
constexpr int64_t kGathered = 1 << 24;       // bytes that are gathered from: half of a last cache
constexpr double kLeastTolerance = 0x1p-50;  // relative to ‖w‖, no answer in double is nearer

inline int64_t panel_width(int64_t n, int64_t d) {
  constexpr int64_t widest = kPanelVectors * Lane<double>::N, narrowest = widest / 2;
  const int64_t width = n * widest * int64_t(sizeof(double)) > kGathered ? narrowest : widest;
  return d < width ? d : width;
}

// What came of the systems of a panel.
struct Solved {
  int64_t iterations = 0;
  bool indefinite = false, converged = false;
  double residual = 0;  // max over columns, relative to ‖w‖; or that of a solved error

  void add(const Solved& other) {
    iterations = other.iterations > iterations ? other.iterations : iterations;
    indefinite = indefinite || other.indefinite;
    if (other.residual > residual || !is_finite(other.residual)) residual = other.residual;
  }
};

// The state of the systems of one panel of at most d columns.
class ConjugateGradients {
 public:
  ConjugateGradients(const Piece& piece, int64_t d, double step, int threads)
      : piece_(piece), edges_{piece.col, piece.weight, piece.row_ptr[piece.n]},
        chunks_(piece.row_ptr, piece.n, d), n_(piece.n), d_(d), factor_(2 * step),
        threads_(threads), arrays_(4 * n_ * d), y_(arrays_.get()), r_(y_ + n_ * d), p_(r_ + n_ * d),
        q_(p_ + n_ * d), inverse_(n_), partial_(2 * chunks_.count * d), shift_(d), alpha_(d),
        beta_(d), rz_(d), dot_(d) {
    prepare(step);
  }

  // Columns [column, column + d) of W [K, stride]; d may shrink.
  template <class T>
  Solved solve(const T* w, int64_t stride, int64_t column, int64_t d, double tol, int64_t max_iter) {
    d_ = d;
    tol = tol > kLeastTolerance ? tol : kLeastTolerance;
    Solved solved;
    solved.indefinite = !has_positive_diagonal_;
    if (solved.indefinite) return solved;
    load(w + column, stride);
    for (int64_t restart = 0; !solved.indefinite; ++restart) {
      solved.residual = true_residual(w + column, stride);
      solved.converged = solved.residual <= tol;
      if (solved.converged || !is_finite(solved.residual)) break;
      if (solved.iterations >= max_iter || restart > kMaxRestarts) break;
      if (restart == 0) {
        iterate(y_, false, tol, max_iter, &solved);
        continue;
      }
      if (error_ == nullptr) error_.reset(new Scratch<double>(n_ * d_));
      const bool is_small = iterate(error_->get(), true, tol, max_iter, &solved);
      const double size = add(error_->get());
      solved.converged = is_small && is_nonnegative_ && size <= tol;
      if (solved.converged) {
        solved.residual = size;
        break;
      }
    }
    return solved;
  }

  template <class T>
  void store(T* out, int64_t stride, int64_t column) {
    for_rows([&](int64_t i, double*, double*) {
      restore_row(d_, shift_, y_ + i * d_, out + piece_.task(i) * stride + column);
    });
  }

 private:
  // Inverts the diagonal, and takes weights that are too large for squares for less.
  void prepare(double step) {
    double largest = 0;
    for (int64_t k = piece_.row_ptr[0]; k < edges_.count; ++k) {
      const double s = edges_.weight[k];
      largest = s > largest ? s : largest;
      is_nonnegative_ = is_nonnegative_ && s >= 0;
    }
    if (is_nonnegative_ && !(factor_ * largest <= kMostTied)) {
      tied_.reset(new Scratch<double>(edges_.count));
      for (int64_t k = piece_.row_ptr[0]; k < edges_.count; ++k) {
        (*tied_)[k] = tie_of(step, edges_.weight[k]);
      }
      edges_.weight = tied_->get();
      factor_ = 1;
    }
    for (int64_t i = 0; i < n_; ++i) {
      double degree = 0;
      for (int64_t k = piece_.row_ptr[i]; k < piece_.row_ptr[i + 1]; ++k) {
        degree += edges_.weight[k];
      }
      const double diagonal = 1 + factor_ * degree;
      inverse_[i] = 1 / diagonal;
      has_positive_diagonal_ = has_positive_diagonal_ && diagonal > 0;
    }
  }

  // Y = B over the diagonal.
  template <class T>
  void load(const T* w, int64_t stride) {
    const auto for_values = [&](const auto& body) {
      for_rows([&](int64_t i, double* sum, double* other) {
        alignas(64) double row[kPanelVectors * Lane<double>::N];
        widen_row(w + piece_.task(i) * stride, d_, row);
        body(i, row, sum, other);
      });
      combine(dot_.get(), 1);
    };
    const auto moments = [&](int64_t, const double* row, double* sum, double* squares) {
      moments_row(d_, shift_.scale.get(), row, sum, squares);
    };
    for (int64_t j = 0; j < d_; ++j) shift_.fit(j, 0);
    for_values(moments);
    constexpr double low = 0x1p-800, high = 0x1p800;
    bool in_range = true;
    for (int64_t j = 0; j < d_; ++j) in_range = in_range && dot_[j] >= low && dot_[j] <= high;
    if (sizeof(T) == sizeof(double) && !in_range) {  // no square of a float leaves it
      for_values([&](int64_t, const double* row, double* largest, double*) {
        largest_row(d_, row, largest);
      });
      for (int64_t j = 0; j < d_; ++j) {
        double largest = 0;
        for (int64_t c = 0; c < chunks_.count; ++c) {
          const double part = partial_[2 * c * d_ + j];
          largest = part > largest ? part : largest;
        }
        shift_.fit(j, largest);
      }
      for_values(moments);
    }
    combine(shift_.norm.get(), 1);
    combine(shift_.mean.get(), 0);
    for (int64_t j = 0; j < d_; ++j) shift_.mean[j] /= double(n_);
    for_values([&](int64_t i, double* row, double*, double*) {
      deviate_row(d_, shift_, row);
      for (int64_t j = 0; j < d_; ++j) y_[i * d_ + j] = row[j] * inverse_[i];
    });
  }

  // r = b − (I + 4·step·L) y, and what iterate begins with; returns max over columns of ‖r‖/‖w‖ (columns
  // that are not finite apart).
  template <class T>
  double true_residual(const T* w, int64_t stride) {
    for_edges(y_, [&](int64_t i, const double* ly, double* rr, double* rz) {
      alignas(64) double b[kPanelVectors * Lane<double>::N];
      widen_row(w + piece_.task(i) * stride, d_, b);
      deviate_row(d_, shift_, b);
      const int64_t k = i * d_;
      residual_row(d_, factor_, inverse_[i], ly, b, y_ + k, r_ + k, rr, rz);
    });
    combine(dot_.get(), 0);
    combine(rz_.get(), 1);
    return relative(dot_.get());
  }

  // y += error, which is left as it is; returns max over columns of ‖error‖/‖w‖.
  double add(const double* error) {
    for_rows([&](int64_t i, double* sum, double*) {
      for (int64_t j = 0; j < d_; ++j) {
        const double e = error[i * d_ + j];
        y_[i * d_ + j] += e;
        sum[j] += e * e;
      }
    });
    combine(dot_.get(), 0);
    return relative(dot_.get());
  }

  // Adds what the residual in r asks for to x, which is 0 where fresh; true when the recurrence got to
  // tol.
  bool iterate(double* x, bool fresh, double tol, int64_t max_iter, Solved* solved) {
    for (bool first = true; solved->iterations < max_iter; first = false) {
      check_interrupt();
      ++solved->iterations;
      for_rows([&](int64_t i, double*, double*) {
        const int64_t k = i * d_;
        first ? direction_row<true>(d_, inverse_[i], beta_.get(), r_ + k, p_ + k)
              : direction_row<false>(d_, inverse_[i], beta_.get(), r_ + k, p_ + k);
      });
      for_edges(p_, [&](int64_t i, const double* lp, double* sum, double*) {
        apply_row(d_, factor_, lp, p_ + i * d_, q_ + i * d_, sum);
      });
      combine(dot_.get(), 0);
      for (int64_t j = 0; j < d_; ++j) {
        if (rz_[j] > 0 && dot_[j] <= 0) {
          solved->indefinite = true;
          return false;
        }
        alpha_[j] = rz_[j] > 0 && dot_[j] > 0 ? rz_[j] / dot_[j] : 0;
      }
      for_rows([&](int64_t i, double* rr, double* rz) {
        const int64_t k = i * d_;
        if (first && fresh) {
          step_row<true>(d_, inverse_[i], alpha_.get(), p_ + k, q_ + k, x + k, r_ + k, rr, rz);
        } else {
          step_row<false>(d_, inverse_[i], alpha_.get(), p_ + k, q_ + k, x + k, r_ + k, rr, rz);
        }
      });
      combine(dot_.get(), 0);
      const double residual = relative(dot_.get());
      if (residual <= tol) return true;
      if (!is_finite(residual)) return false;
      combine(dot_.get(), 1);
      for (int64_t j = 0; j < d_; ++j) {
        beta_[j] = rz_[j] > 0 ? dot_[j] / rz_[j] : 0;
        rz_[j] = dot_[j];
      }
    }
    return false;
  }

  // body(row, sums [d], other sums [d]) for all rows, in chunks.
  template <class Body>
  void for_rows(const Body& body) {
    parallel_for(chunks_.count, n_ * d_, threads_, [&](int64_t c) {
      double* sum = partial_.get() + 2 * c * d_;
      for (int64_t j = 0; j < 2 * d_; ++j) sum[j] = 0;
      const int64_t end = chunks_.first_row(c + 1);
      for (int64_t i = chunks_.first_row(c); i < end; ++i) body(i, sum, sum + d_);
    });
  }

  // body(row, Σ_j s_ij (v_i − v_j), sums [d], other sums [d]) for all rows, in chunks.
  template <class Body>
  void for_edges(const double* v, const Body& body) {
    const PanelView<double> view(v, n_, d_, 0);
    parallel_for(chunks_.count, chunks_.work(d_), threads_, [&](int64_t c) {
      alignas(64) double lv[kPanelVectors * Lane<double>::N];
      double unused[Lane<double>::N] = {};
      double* sum = partial_.get() + 2 * c * d_;
      for (int64_t j = 0; j < 2 * d_; ++j) sum[j] = 0;
      const int64_t end = chunks_.first_row(c + 1);
      for (int64_t i = chunks_.first_row(c); i < end; ++i) {
        add_edges<double, true>(view, edges_, i, piece_.row_ptr[i], piece_.row_ptr[i + 1], lv,
                                unused);
        body(i, lv, sum, sum + d_);
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
      const double norm = shift_.norm[j];
      if (!is_finite(norm) || norm == 0) continue;  // does not hold the others up
      const double ratio = squares[j] / norm;
      if (!is_finite(ratio)) return __builtin_inf();  // the step overflows: no solution here
      if (ratio > worst) worst = ratio;
    }
    return __builtin_sqrt(worst);
  }

  const Piece piece_;
  SparseEdges<double> edges_;
  RowChunks chunks_;
  int64_t n_, d_;
  double factor_;  // 2·step
  int threads_;
  bool has_positive_diagonal_ = true, is_nonnegative_ = true;
  Scratch<double> arrays_;
  double *y_, *r_, *p_, *q_;  // [n, d]
  Scratch<double> inverse_;   // [n], of the diagonal
  Scratch<double> partial_;   // [chunks, 2, d]
  Shift shift_;
  Scratch<double> alpha_, beta_, rz_, dot_;        // [d]
  std::unique_ptr<Scratch<double>> error_, tied_;  // [n, d]; [E], what weights were taken for
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
