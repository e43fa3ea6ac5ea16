// A connected piece of a task graph as the right-hand side of graph_prox sees it: its rows of W, and
// column by column what is solved for, the deviation from the piece's mean in a scale of its own.
//
// The mean of the solution is that of W, so it need not be solved for; and where the edges are strong
// the deviation is small, so it is kept apart from the mean, relative to its own size.
#pragma once

#include "common/lanes.h"
#include "common/parallel.h"
#include "types.h"

namespace mtlfast {
namespace MTLFAST_ISA {

// The rows of a graph [first, first + n) whose columns are numbered from `first` on; row i is that of
// task member[i], or of task i.
struct Piece {
  int64_t n;
  const int64_t* row_ptr;  // [n + 1], into col and weight
  const int32_t* col;
  const double* weight;
  const int32_t* member;  // [n] or null

  Piece(const Graph& graph, int64_t first, int64_t n)
      : n(n), row_ptr(graph.row_ptr + first), col(graph.col),
        weight(static_cast<const double*>(graph.weight)),
        member(graph.order != nullptr ? graph.order + first : nullptr) {}
  int64_t edges() const { return row_ptr[n] - row_ptr[0]; }
  MTLFAST_INLINE int64_t task(int64_t i) const { return member != nullptr ? member[i] : i; }
};

// What the columns of W are multiplied by and what is taken off them.
struct Shift {
  Scratch<double> scale, back;  // [d], powers of two, one over the other
  Scratch<double> mean;         // [d], of the scaled column
  Scratch<double> norm;         // [d], ‖w‖² of the scaled column; not finite where W is not

  explicit Shift(int64_t d) : scale(d), back(d), mean(d), norm(d) {}

  // For a column of numbers up to `largest`, whose squares may leave the range.
  void fit(int64_t j, double largest) {
    constexpr double low = 0x1p-400, high = 0x1p400;
    const bool fits = (largest >= low && largest <= high) || largest == 0 || !is_finite(largest);
    int exponent = 0;
    if (!fits) __builtin_frexp(largest, &exponent);
    exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
    scale[j] = __builtin_ldexp(1.0, -exponent);
    back[j] = __builtin_ldexp(1.0, exponent);
  }
};

// out[0 .. n) = row[0 .. n) in double.
template <class T>
inline void widen_row(const T* row, int64_t n, double* out) {
  using Lanes = Lane<T>;
  constexpr int64_t N = Lanes::N;
  typename Lanes::Real part[N];
  int64_t j = 0;
  for (; j + N <= n; j += N) {
    store_raw(part, Lanes::load(row + j));
    for (int64_t l = 0; l < N; ++l) out[j + l] = double(part[l]);
  }
  if (j == n) return;
  store_raw(part, load_part(row + j, n - j));
  for (int64_t l = 0; j + l < n; ++l) out[j + l] = double(part[l]);
}

// sum += w,  squares += w², of w in its scale.
inline void moments_row(int64_t n, const double* __restrict scale, const double* __restrict w,
                        double* __restrict sum, double* __restrict squares) {
  for (int64_t j = 0; j < n; ++j) {
    const double x = w[j] * scale[j];
    sum[j] += x;
    squares[j] += x * x;
  }
}

inline void largest_row(int64_t n, const double* __restrict w, double* __restrict largest) {
  for (int64_t j = 0; j < n; ++j) {
    const double x = w[j] < 0 ? -w[j] : w[j];
    largest[j] = x > largest[j] ? x : largest[j];
  }
}

// w becomes its deviation from the mean, in its scale.
inline void deviate_row(int64_t n, const Shift& shift, double* __restrict w) {
  const double *const scale = shift.scale.get(), *const mean = shift.mean.get();
  for (int64_t j = 0; j < n; ++j) w[j] = w[j] * scale[j] - mean[j];
}

// out = y back in W's scale and type, NaN in a column that held NaN or Inf.
template <class T>
inline void restore_row(int64_t n, const Shift& shift, const double* y, T* out) {
  using Lanes = Lane<T>;
  constexpr int64_t N = Lanes::N;
  typename Lanes::Real part[N] = {};
  const double *const mean = shift.mean.get(), *const back = shift.back.get();
  const double* const norm = shift.norm.get();
  const auto restored = [&](int64_t j) {
    return typename Lanes::Real((mean[j] + y[j]) * back[j] + (norm[j] - norm[j]));
  };
  int64_t j = 0;
  for (; j + N <= n; j += N) {
    for (int64_t l = 0; l < N; ++l) part[l] = restored(j + l);
    Lanes::store(out + j, load_raw<typename Lanes::Vec>(part));
  }
  if (j == n) return;
  for (int64_t l = 0; j + l < n; ++l) part[l] = restored(j + l);
  store_part(out + j, load_raw<typename Lanes::Vec>(part), n - j);
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
