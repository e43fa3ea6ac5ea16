// Mean and centred square sum of rows, and the affine map around the mean: pairwise and groups.
//
// A square is never expanded about the origin: rows are shifted by a row c near the block's mean,
// Σ(w−c) and Σ(w−c)² are taken in one pass, and Σ(w−w̄)² = Σ(w−c)² − (Σ(w−c))²/n. Where c turns out
// to be far from the mean (the correction eats most of the sum) the block, still in cache, is read
// once more with c = w̄. Float sums run over at most 128 terms before they go to double.
#pragma once

#include "common/lanes.h"
#include "common/parallel.h"
#include "common/scalar.h"
#include "common/stream.h"
#include "types.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int64_t kPanel = 2048;     // columns of a work unit: its shift and sums stay in L1
constexpr int64_t kBlock = 1 << 16;  // elements of a block: it stays in L2
constexpr int64_t kBlockRows = 256;  // least rows of a block, bounds the memory for block means
constexpr int64_t kPad = 16;         // zeros behind the shift, so that a part vector adds nothing
constexpr int kStripVectors = 8;     // columns whose sums are held in registers
constexpr int64_t kRun = 64;         // rows summed in W's arithmetic type
constexpr int64_t kRowsAhead = 8;    // rows between the one prefetched and the one read

// How many short rows make one long row of at most a strip: whole vectors where possible.
template <class T>
inline int64_t fold_rows(int64_t d) {
  int64_t whole = Lane<T>::N;  // rows until the length is a multiple of N
  for (int64_t common = d; common % 2 == 0 && whole > 1; common /= 2) whole /= 2;
  const int64_t rows = kStripVectors * Lane<T>::N / d;
  return rows >= whole ? rows - rows % whole : (rows > 1 ? rows : 1);
}

// Rows of W, and those from `first` on, from `column` on. kFolds: whether they follow one another in
// memory, so that several short rows can be taken as a long one.
template <class T>
struct DenseRows {
  static constexpr bool kFolds = true;
  const T* w;
  int64_t stride;
  MTLFAST_INLINE const T* operator()(int64_t i) const { return w + i * stride; }
  DenseRows from(int64_t first, int64_t column) const {
    return {w + first * stride + column, stride};
  }
};

template <class T>
struct MemberRows {
  static constexpr bool kFolds = false;
  const T* w;
  int64_t stride;
  const int64_t* member;
  MTLFAST_INLINE const T* operator()(int64_t i) const { return w + member[i] * stride; }
  MemberRows from(int64_t first, int64_t column) const {
    return {w + column, stride, member + first};
  }
};

// Long rows [begin, end), of which i begins with row i·fold, in one strip of NV vectors, the last with
// `last` columns: sum[j] += Σ_i (row(i·fold)[j] − shift[j]), square_lanes[l] += Σ (…)² over the
// columns of lane l.
template <class T, int NV, bool PART, class Rows>
inline void add_strip(const Rows& row, int64_t fold, int64_t begin, int64_t end, int64_t column,
                      int64_t last, const typename Lane<T>::Real* shift, double* sum,
                      double* square_lanes) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  constexpr int N = Lanes::N;
  const int64_t step = Rows::kFolds ? fold : 1;
  Vec c[NV], s[NV], squares[4] = {};
  for (int v = 0; v < NV; ++v) {
    c[v] = load_raw<Vec>(shift + v * N);
    s[v] = Vec{};
  }
  for (int64_t i = begin; i < end; ++i) {
    const T* p = row(i * step) + column;
    const T* ahead = row((i + kRowsAhead < end ? i + kRowsAhead : i) * step) + column;
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      __builtin_prefetch(ahead + v * N);
      const Vec w = PART && v == NV - 1 ? load_part(p + v * N, last) : Lanes::load(p + v * N);
      const Vec x = w - c[v];
      s[v] += x;
      squares[v % 4] += x * x;
    }
  }
  const Vec all = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  for (int l = 0; l < N; ++l) square_lanes[l] += double(all[l]);
  typename Lanes::Real part[NV * N];
  for (int v = 0; v < NV; ++v) store_raw(part + v * N, s[v]);
  for (int j = 0; j < NV * N; ++j) sum[j] += double(part[j]);
}

template <class T, int NV, class Rows>
inline void add_strip(int vectors, const Rows& row, int64_t fold, int64_t begin, int64_t end,
                      int64_t column, int64_t last, const typename Lane<T>::Real* shift,
                      double* sum, double* square_lanes) {
  if constexpr (NV > 1) {
    if (vectors < NV) {
      return add_strip<T, NV - 1>(vectors, row, fold, begin, end, column, last, shift, sum,
                                  square_lanes);
    }
  }
  const auto add = last < Lane<T>::N ? add_strip<T, NV, true, Rows> : add_strip<T, NV, false, Rows>;
  add(row, fold, begin, end, column, last, shift, sum, square_lanes);
}

// Over long rows [first, last): sum[j] += Σ_i (row(i·fold)[j] − shift[j]); returns
// Σ_ij (row(i·fold)[j] − shift[j])².  width ≤ kPanel; sum and shift have kPad elements more, zero in
// shift, of no meaning in sum.
template <class T, class Rows>
inline double shifted_moments(const Rows& row, int64_t fold, int64_t first, int64_t last,
                              int64_t width, const typename Lane<T>::Real* shift, double* sum) {
  constexpr int N = Lane<T>::N;
  double square_lanes[N] = {};
  for (int64_t begin = first; begin < last; begin += kRun) {
    const int64_t end = begin + kRun < last ? begin + kRun : last;
    for (int64_t j = 0; j < width; j += kStripVectors * N) {
      const int64_t columns = width - j < kStripVectors * N ? width - j : kStripVectors * N;
      const int vectors = int(ceil_div(columns, N));
      const int64_t used = columns - (vectors - 1) * N;
      add_strip<T, kStripVectors>(vectors, row, fold, begin, end, j, used, shift + j, sum + j,
                                  square_lanes);
    }
  }
  Sum total;
  for (double s : square_lanes) total.add(s);
  return total.value();
}

// out[j] = row[j] in W's arithmetic type.
template <class T>
inline void widen_row(const T* row, int64_t width, typename Lane<T>::Real* out) {
  constexpr int N = Lane<T>::N;
  int64_t j = 0;
  for (; j + N <= width; j += N) store_raw(out + j, Lane<T>::load(row + j));
  if (j < width) store_part(out + j, load_part(row + j, width - j), width - j);
}

// The mean of up to 8 rows, exact when they are equal: near enough to the mean of all to shift by.
template <class T, class Rows>
inline void sample_mean(const Rows& row, int64_t count, int64_t d, typename Lane<T>::Real* mean) {
  using Real = typename Lane<T>::Real;
  const int64_t samples = count < 8 ? count : 8;
  Real first[kPanel], sample[kPanel];
  widen_row<T>(row(0), d, first);
  for (int64_t j = 0; j < d; ++j) mean[j] = 0;
  for (int64_t k = 1; k < samples; ++k) {
    widen_row<T>(row(k * count / samples), d, sample);
    for (int64_t j = 0; j < d; ++j) mean[j] += sample[j] - first[j];
  }
  for (int64_t j = 0; j < d; ++j) mean[j] = first[j] + mean[j] / Real(samples);
}

// Σ_i ‖row(i) − mean‖² over count ≥ 1 rows of d ≤ kPanel columns; offset[j] = mean[j] − origin[j].
// fold is 1 unless the rows fold.
template <class T, class Rows>
inline double block_moments(const Rows& row, int64_t count, int64_t d, int64_t fold,
                            const typename Lane<T>::Real* origin, double* offset) {
  using Real = typename Lane<T>::Real;
  alignas(64) Real shift[kPanel + kPad];
  alignas(64) double sum[kPanel + kPad];
  if (!Rows::kFolds) fold = 1;
  const int64_t width = fold * d, full = count / fold, rest = count % fold;
  const double n = double(count);
  sample_mean<T>(row, count, d, shift);
  for (int attempt = 0;; ++attempt) {
    for (int64_t j = d; j < width; ++j) shift[j] = shift[j - d];
    for (int64_t j = 0; j < kPad; ++j) shift[width + j] = 0;
    for (int64_t j = 0; j < width + kPad; ++j) sum[j] = 0;
    double squares = full > 0 ? shifted_moments<T>(row, fold, 0, full, width, shift, sum) : 0.0;
    if (rest > 0) {
      for (int64_t j = 0; j < kPad; ++j) shift[rest * d + j] = 0;
      squares += shifted_moments<T>(row, fold, full, full + 1, rest * d, shift, sum);
    }
    for (int64_t f = 1; f < fold; ++f) {
      for (int64_t j = 0; j < d; ++j) sum[j] += sum[f * d + j];
    }
    double correction = 0;
    for (int64_t j = 0; j < d; ++j) {
      sum[j] /= n;
      correction += n * sum[j] * sum[j];
    }
    const double centred = squares - correction;
    if (squares <= 4 * centred || attempt == 1) {
      for (int64_t j = 0; j < d; ++j) offset[j] = (double(shift[j]) - double(origin[j])) + sum[j];
      if (squares == __builtin_inf()) return squares;  // not Inf − Inf
      return centred < 0 ? 0 : centred;
    }
    for (int64_t j = 0; j < d; ++j) shift[j] = Real(double(shift[j]) + sum[j]);
  }
}

// scale·((w − hi) − lo), plus hi + lo, or plus before.
template <Plus PLUS, class Vec, class Real>
MTLFAST_INLINE Vec affine_of(Vec w, Vec hi, Vec lo, Real scale, Vec before) {
  const Vec y = scale * ((w - hi) - lo);
  return PLUS == Plus::mean ? hi + (lo + y) : PLUS == Plus::out ? before + y : y;
}

// out[j] = scale·((w[j] − hi[j]) − lo[j]), plus hi[j] + lo[j], or plus out[j].
template <class T, Plus PLUS, bool STREAM = false>
MTLFAST_INLINE void affine_row(const T* w, const typename Lane<T>::Real* hi,
                               const typename Lane<T>::Real* lo, typename Lane<T>::Real scale,
                               int64_t width, T* out) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  int64_t j = 0;
  for (; j + Lanes::N <= width; j += Lanes::N) {
    const Vec before = PLUS == Plus::out ? Lanes::load(out + j) : Vec{};
    const Vec h = load_raw<Vec>(hi + j), l = load_raw<Vec>(lo + j);
    const Vec y = affine_of<PLUS>(Lanes::load(w + j), h, l, scale, before);
    STREAM ? stream(out + j, y) : Lanes::store(out + j, y);
  }
  if (j < width) {
    const int64_t n = width - j;
    const Vec before = PLUS == Plus::out ? load_part(out + j, n) : Vec{};
    const Vec h = load_part(hi + j, n), l = load_part(lo + j, n);
    const Vec y = affine_of<PLUS>(load_part(w + j, n), h, l, scale, before);
    store_part(out + j, y, n);
  }
}

// ---------------------------------------------------------------------------------------------

constexpr int64_t kMergeColumns = 256;

// Σ_i ‖row(i) − w̄‖² over K ≥ 1 rows, and w̄ = mean[0] + mean[1]: fixed blocks, each read once,
// merged in block order in double, Σ_b M_b + n_b ‖w̄_b − w̄‖².  fold as in block_moments.
template <class T, class Rows>
inline double centred_squares(const Rows& row, int64_t K, int64_t d, int64_t fold,
                              typename Lane<T>::Real* mean /*[2, d]*/, int threads) {
  using Real = typename Lane<T>::Real;
  const int64_t panel = d < kPanel ? d : kPanel, panels = ceil_div(d, kPanel);
  const int64_t least = kBlock / panel > kBlockRows ? kBlock / panel : kBlockRows;
  const int64_t block_rows = ceil_div(least, fold) * fold;
  const int64_t blocks = ceil_div(K, block_rows);
  const auto rows_of = [&](int64_t b) { return b + 1 < blocks ? block_rows : K - b * block_rows; };
  Scratch<Real> origin(d);  // row 0
  widen_row<T>(row(0), d, origin.get());
  Scratch<double> offset(blocks * d);        // [blocks, d], block mean − row 0
  Scratch<double> squares(blocks * panels);  // [blocks, panels]
  parallel_for_even(blocks * panels, K * d, threads, [&](int64_t unit) {
    const int64_t b = unit / panels, column = unit % panels * kPanel;
    const int64_t columns = d - column < kPanel ? d - column : kPanel;
    squares[unit] = block_moments<T>(row.from(b * block_rows, column), rows_of(b), columns, fold,
                                     origin.get() + column, offset.get() + b * d + column);
  });

  const int64_t merges = ceil_div(d, kMergeColumns);
  Scratch<double> between(merges);
  parallel_for(merges, blocks * d, threads, [&](int64_t unit) {
    const int64_t column = unit * kMergeColumns;
    const int64_t columns = d - column < kMergeColumns ? d - column : kMergeColumns;
    double average[kMergeColumns] = {};
    for (int64_t b = 0; b < blocks; ++b) {
      const double n = double(rows_of(b));
      for (int64_t j = 0; j < columns; ++j) average[j] += n * offset[b * d + column + j];
    }
    for (int64_t j = 0; j < columns; ++j) average[j] /= double(K);
    Sum sum;
    for (int64_t b = 0; blocks > 1 && b < blocks; ++b) {
      double block = 0;
      for (int64_t j = 0; j < columns; ++j) {
        const double x = offset[b * d + column + j] - average[j];
        block += x * x;
      }
      sum.add(double(rows_of(b)) * block);
    }
    between[unit] = sum.value();
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t k = column + j;
      split_mean(double(origin[k]), average[j], mean + k, mean + d + k);
    }
  });

  Sum sum;
  for (int64_t unit = 0; unit < blocks * panels; ++unit) sum.add(squares[unit]);
  for (int64_t unit = 0; unit < merges; ++unit) sum.add(between[unit]);
  return sum.value();
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
