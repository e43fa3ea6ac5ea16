// Mean and centred square sum of rows, and the affine map around the mean: pairwise and groups.
//
// A square is never expanded about the origin: rows are shifted by a row c near the block's mean,
// Σ(w−c) and Σ(w−c)² are taken in one pass, and Σ(w−w̄)² = Σ(w−c)² − (Σ(w−c))²/n. Where c turns out
// to be far from the mean (the correction eats most of the sum) the block, still in cache, is read
// once more with c = w̄. Float sums run over at most 128 terms before they go to double.
#pragma once

#include "common/lanes.h"
#include "common/parallel.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int64_t kPanel = 2048;      // columns handled at once: sums and shift stay in L1
constexpr int64_t kFoldWidth = 256;   // short rows are taken several at a time, up to this width
constexpr int64_t kBlock = 1 << 16;   // elements of a block: it stays in L2
constexpr int64_t kBlockRows = 256;   // least rows of a block, bounds the memory for block means
constexpr int64_t kPad = 16;          // zeros behind the shift, so that a part vector adds nothing

// How many short rows make one long row, whole vectors where possible.
template <class T>
inline int64_t fold_rows(int64_t d) {
  if (d >= kFoldWidth) return 1;
  int64_t whole = Lane<T>::N;  // rows until the length is a multiple of N
  for (int64_t common = d; common % 2 == 0 && whole > 1; common /= 2) whole /= 2;
  const int64_t rows = kFoldWidth / d;
  return rows >= whole ? rows - rows % whole : (rows > 1 ? rows : 1);
}

template <class T>
struct DenseRows {
  const T* w;
  int64_t stride;
  MTLFAST_INLINE const T* operator()(int64_t i) const { return w + i * stride; }
};

template <class T>
struct MemberRows {
  const T* w;
  int64_t stride;
  const int64_t* member;
  MTLFAST_INLINE const T* operator()(int64_t i) const { return w + member[i] * stride; }
};

// Adds R rows: part[j] += Σ_r (row_r[j] − shift[j]), squares[l] += Σ (…)² over the columns of lane l.
template <class T, int R>
MTLFAST_INLINE void add_rows(const T* const* row, int64_t width, const typename Lane<T>::Real* shift,
                             typename Lane<T>::Real* part, typename Lane<T>::Vec* squares) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  const auto column = [&](int64_t j, auto load) {
    const Vec c = load_raw<Vec>(shift + j);
    Vec x[R];
    for (int r = 0; r < R; ++r) {
      x[r] = load(row[r] + j) - c;
      squares[r] += x[r] * x[r];
    }
    Vec s = x[0];
    if (R == 4) s = (x[0] + x[1]) + (x[2] + x[3]);
    store_raw(part + j, load_raw<Vec>(part + j) + s);
  };
  int64_t j = 0;
  for (; j + Lanes::N <= width; j += Lanes::N) {
    column(j, [](const T* p) __attribute__((always_inline)) { return Lanes::load(p); });
  }
  if (j < width) {
    column(j, [&](const T* p) __attribute__((always_inline)) { return load_part(p, width - j); });
  }
}

// sum[j] += Σ_i (row(i)[j] − shift[j]); returns Σ_ij (row(i)[j] − shift[j])².  width ≤ kPanel.
template <class T, class Rows>
inline double shifted_moments(const Rows& row, int64_t count, int64_t width,
                              const typename Lane<T>::Real* shift, double* sum) {
  using Real = typename Lane<T>::Real;
  using Vec = typename Lane<T>::Vec;
  constexpr int N = Lane<T>::N;
  const int64_t batch = width >= 2048 ? 4 : (8192 / width > 64 ? 64 : 8192 / width / 4 * 4);
  alignas(64) Real part[kPanel + kPad];
  double square_lanes[N] = {};
  for (int64_t begin = 0; begin < count; begin += batch) {
    const int64_t end = begin + batch < count ? begin + batch : count;
    for (int64_t j = 0; j < width + kPad; ++j) part[j] = 0;
    Vec squares[4] = {};
    int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
      const T* const four[4] = {row(i), row(i + 1), row(i + 2), row(i + 3)};
      add_rows<T, 4>(four, width, shift, part, squares);
    }
    for (; i < end; ++i) {
      const T* const one[1] = {row(i)};
      add_rows<T, 1>(one, width, shift, part, squares);
    }
    const Vec all = (squares[0] + squares[1]) + (squares[2] + squares[3]);
    for (int l = 0; l < N; ++l) square_lanes[l] += double(all[l]);
    for (int64_t j = 0; j < width; ++j) sum[j] += double(part[j]);
  }
  Sum total;
  for (double s : square_lanes) total.add(s);
  return total.value();
}

// Σ_i ‖row(i) − mean‖² over count ≥ 1 rows of d ≤ kPanel columns; offset[j] = mean[j] − origin[j].
// fold > 1 needs rows that follow one another in memory.
template <class T, class Rows>
inline double block_moments(const Rows& row, int64_t count, int64_t d, int64_t fold, const T* origin,
                            double* offset) {
  using Lanes = Lane<T>;
  using Real = typename Lanes::Real;
  alignas(64) Real shift[kPanel + kPad];
  alignas(64) double sum[kPanel + kPad];
  const int64_t width = fold * d, full = count / fold, rest = count % fold;
  const double n = double(count);
  const auto load_row = [&](int64_t i, int64_t j) { return load_part(row(i) + j, 1)[0]; };

  // start from the mean of 8 rows, exact when they are equal
  const int64_t samples = count < 8 ? count : 8;
  for (int64_t j = 0; j < d; ++j) shift[j] = 0;
  for (int64_t k = 1; k < samples; ++k) {
    for (int64_t j = 0; j < d; ++j) shift[j] += load_row(k * count / samples, j) - load_row(0, j);
  }
  for (int64_t j = 0; j < d; ++j) shift[j] = load_row(0, j) + shift[j] / Real(samples);

  for (int attempt = 0;; ++attempt) {
    for (int64_t j = d; j < width; ++j) shift[j] = shift[j - d];
    for (int64_t j = 0; j < kPad; ++j) shift[width + j] = 0;
    for (int64_t j = 0; j < width; ++j) sum[j] = 0;
    const auto long_row = [&](int64_t i) { return row(i * fold); };
    double squares = full > 0 ? shifted_moments<T>(long_row, full, width, shift, sum) : 0.0;
    if (rest > 0) {
      const auto last_row = [&](int64_t) { return row(full * fold); };
      for (int64_t j = 0; j < kPad; ++j) shift[rest * d + j] = 0;
      squares += shifted_moments<T>(last_row, 1, rest * d, shift, sum);
    }
    for (int64_t j = d; j < width; ++j) sum[j % d] += sum[j];
    Sum correction;
    for (int64_t j = 0; j < d; ++j) correction.add(sum[j] * (sum[j] / n));
    const double centred = squares - correction.value();
    if (squares <= 4 * centred || attempt == 1) {
      for (int64_t j = 0; j < d; ++j) {
        offset[j] = (double(shift[j]) - double(load_part(origin + j, 1)[0])) + sum[j] / n;
      }
      return centred < 0 ? 0 : centred;
    }
    for (int64_t j = 0; j < d; ++j) shift[j] = Real(double(shift[j]) + sum[j] / n);
  }
}

// origin + offset as hi + lo in W's arithmetic type, correct beyond the last bit of hi.
template <class Real>
MTLFAST_INLINE void split_mean(double origin, double offset, Real* hi, Real* lo) {
  const double s = origin + offset, back = s - origin;
  const double error = (origin - (s - back)) + (offset - back);
  *hi = Real(s);
  *lo = Real((s - double(*hi)) + error);
}

// out[j] = scale·((w[j] − hi[j]) − lo[j]), plus hi[j] + lo[j] when ADD_MEAN.
template <class T, bool ADD_MEAN>
MTLFAST_INLINE void affine_row(const T* w, const typename Lane<T>::Real* hi,
                               const typename Lane<T>::Real* lo, typename Lane<T>::Real scale,
                               int64_t width, T* out) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  const auto apply = [&](Vec x, Vec h, Vec l) __attribute__((always_inline)) {
    const Vec y = scale * ((x - h) - l);
    return ADD_MEAN ? h + (l + y) : y;
  };
  int64_t j = 0;
  for (; j + Lanes::N <= width; j += Lanes::N) {
    Lanes::store(out + j, apply(Lanes::load(w + j), load_raw<Vec>(hi + j), load_raw<Vec>(lo + j)));
  }
  if (j < width) {
    const int64_t n = width - j;
    store_part(out + j, apply(load_part(w + j, n), load_part(hi + j, n), load_part(lo + j, n)), n);
  }
}

// ---------------------------------------------------------------------------------------------

constexpr int64_t kMergeColumns = 256;

// Σ_i ‖row(i) − w̄‖² over K ≥ 1 rows, and w̄ = mean[0] + mean[1]: fixed blocks, each read once,
// merged in block order in double, Σ_b M_b + n_b ‖w̄_b − w̄‖².  fold as in block_moments.
template <class T, class Rows>
inline double centred_squares(const Rows& row, int64_t K, int64_t d, int64_t fold,
                              typename Lane<T>::Real* mean /*[2, d]*/, int threads) {
  const int64_t panel = d < kPanel ? d : kPanel, panels = ceil_div(d, kPanel);
  const int64_t least = kBlock / panel > kBlockRows ? kBlock / panel : kBlockRows;
  const int64_t block_rows = ceil_div(least, fold) * fold;
  const int64_t blocks = ceil_div(K, block_rows);
  const auto rows_of = [&](int64_t b) {
    return b + 1 < blocks ? block_rows : K - b * block_rows;
  };
  Scratch<double> offset(blocks * d);        // [blocks, d], block mean − row 0
  Scratch<double> squares(blocks * panels);  // [blocks, panels]
  parallel_for(blocks * panels, K * d, threads, [&](int64_t unit) {
    const int64_t b = unit / panels, column = unit % panels * kPanel;
    const int64_t columns = d - column < kPanel ? d - column : kPanel;
    const auto block_row = [&](int64_t i) { return row(b * block_rows + i) + column; };
    squares[unit] = block_moments<T>(block_row, rows_of(b), columns, fold, row(0) + column,
                                     offset.get() + b * d + column);
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
      split_mean(double(load_part(row(0) + k, 1)[0]), average[j], mean + k, mean + d + k);
    }
  });

  Sum sum;
  for (int64_t unit = 0; unit < blocks * panels; ++unit) sum.add(squares[unit]);
  for (int64_t unit = 0; unit < merges; ++unit) sum.add(between[unit]);
  return sum.value();
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
