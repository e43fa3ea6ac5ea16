// Elimination without subtraction:  e_i x_i + Σ_j c_ij (x_i − x_j) = b_i  for i < n, with c symmetric.
//
// Unknown k goes with the pivot p = e_k + Σ_{j<k} c_kj, and with f_i = c_ki / p its neighbours take over
// c_ij += f_i c_kj,  e_i += f_i e_k,  b_i += f_i b_k;  backwards x_k = b_k / p + Σ_{i<k} f_i x_i. The
// diagonal is never stored. For e > 0 and c ≥ 0 only positive numbers are added, multiplied and
// divided, so every factor, and every entry of the inverse, is right to a relative error O(n)·ε
// for any range of c; that is what a factorisation with the diagonal loses, in which e is the small
// difference of large numbers. With c of both signs it is the LDLᵀ factorisation, the matrix positive
// definite where every pivot is positive. (W. Grassmann, M. Taksar, D. Heyman, Regenerative analysis
// and steady state distributions for Markov chains, 1985.)
//
// Plan     pivots from the last to the first, in blocks, so that the rows before are read and
//          written once a block, in parallel. Factors are kept on both sides of the diagonal: rows
//          of them are read in both directions.
// Cost     n³/6 multiplications and additions, n² a column of b.
// Bits     every entry is a sum in the order of the pivots, whatever the block or the thread.
#pragma once

#include "common/lanes.h"
#include "common/parallel.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int64_t kPivots = 8;      // of a block
constexpr int64_t kPivotRows = 16;  // of a work unit

// In row i of a loop over rows that may be long: small systems have no row that checks.
inline void check_in_row(int64_t i) {
  if (i % 64 == 63) check_interrupt();
}

// to[j] += f·from[j] for j < n; the compiler turns it into vectors.
inline void add_row(int64_t n, double f, const double* __restrict from, double* __restrict to) {
  for (int64_t j = 0; j < n; ++j) to[j] += f * from[j];
}

inline double row_sum(int64_t n, const double* row) {
  F64 lanes = {};
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) lanes += load_raw<F64>(row + j);
  double sum = lane_sum(lanes);
  for (; j < n; ++j) sum += row[j];
  return sum;
}

// Row i takes over what the pivots [begin, end) leave it, end > begin > i.
inline void take_over(int64_t n, int64_t i, int64_t begin, int64_t end, const double* inverse,
                      double* c, double* excess) {
  double f[kPivots];
  double* const row = c + i * n;
  for (int64_t k = end - 1; k >= begin; --k) {
    f[k - begin] = c[k * n + i] * inverse[k];
    excess[i] += f[k - begin] * excess[k];
  }
  if (end - begin == kPivots) {
    const double* const last = c + (end - 1) * n;
    int64_t j = 0;
    for (; j + 8 <= i; j += 8) {
      F64 sum = load_raw<F64>(row + j);
#pragma GCC unroll 8
      for (int64_t p = 0; p < kPivots; ++p) {
        sum += f[kPivots - 1 - p] * load_raw<F64>(last - p * n + j);
      }
      store_raw(row + j, sum);
    }
    for (; j < i; ++j) {
      for (int64_t p = 0; p < kPivots; ++p) row[j] += f[kPivots - 1 - p] * last[j - p * n];
    }
  } else {
    for (int64_t k = end - 1; k >= begin; --k) add_row(i, f[k - begin], c + k * n, row);
  }
}

// c [n, n], of which the part below the diagonal is read, becomes the factors f_ki in both halves;
// excess [n] is used up; inverse [n] of the pivots. False when the matrix is not positive definite.
inline bool eliminate(int64_t n, double* c, double* excess, double* inverse, int threads) {
  bool positive = true;
  for (int64_t end = n; end > 0;) {
    const int64_t begin = end > kPivots ? end - kPivots : 0;
    for (int64_t k = end - 1; k >= begin; --k) {
      const double pivot = excess[k] + row_sum(k, c + k * n);
      positive = positive && pivot > 0;
      inverse[k] = 1 / pivot;
      for (int64_t i = begin; i < k; ++i) take_over(n, i, k, k + 1, inverse, c, excess);
    }
    parallel_for(ceil_div(begin, kPivotRows), begin * begin * kPivots, threads, [&](int64_t unit) {
      // long rows first: threads end together
      const int64_t last = begin - unit * kPivotRows;
      for (int64_t i = last - 1; i >= 0 && i >= last - kPivotRows; --i) {
        take_over(n, i, begin, end, inverse, c, excess);
      }
    });
    end = begin;
  }
  for (int64_t k = 0; k < n; ++k) {
    check_in_row(k);
    for (int64_t i = 0; i < k; ++i) c[k * n + i] = c[i * n + k] = c[k * n + i] * inverse[k];
  }
  return positive;
}

// b [n, 8·NV] becomes x.
template <int NV>
void substitute(int64_t n, const double* factors, const double* inverse, double* b) {
  constexpr int64_t width = 8 * NV;
  const auto sum_row = [&](int64_t i, int64_t from, int64_t to, double scale) {
    const double* const f = factors + i * n;
    F64 sum[NV];
    for (int v = 0; v < NV; ++v) sum[v] = scale * load_raw<F64>(b + i * width + 8 * v);
    for (int64_t k = from; k < to; ++k) {
      for (int v = 0; v < NV; ++v) sum[v] += f[k] * load_raw<F64>(b + k * width + 8 * v);
    }
    for (int v = 0; v < NV; ++v) store_raw(b + i * width + 8 * v, sum[v]);
  };
  for (int64_t i = n - 1; i >= 0; --i) {
    check_in_row(i);
    sum_row(i, i + 1, n, 1);
  }
  for (int64_t i = 0; i < n; ++i) {
    check_in_row(i);
    sum_row(i, 0, i, inverse[i]);
  }
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
