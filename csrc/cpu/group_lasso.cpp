// Group lasso over the columns of W:  Σ_j ‖W_·j‖₂,  gradient W_·j/‖W_·j‖,  prox (1 − t/‖W_·j‖)₊ W_·j:
// the lengths of the columns, and a factor for each column.
//
// Plan     lengths: fixed blocks of rows and panels of columns, squares summed in double, blocks
//          added in their order. Short rows are taken several at a time as one long row. Where
//          squares of double leave its range, all columns are done again in scales of their own;
//          a column of zeros is told from one of tiny numbers while its block is in the cache.
// Traffic  lengths read W once; scaling reads W once and writes once, past the caches where the
//          result is too large for them.
// Bits     the cut depends on K and d alone, so any thread count gives the same bits.
#include "common/centered.h"
#include "common/dispatch.h"
#include "cpu/declare.h"
#include "kernels/group_lasso.h"

MTLFAST_DECLARE(MTLFAST_GROUP_LASSO)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int kStrip = 4;  // vectors whose columns' sums are held in registers, in double

using HalfF32 = float __attribute__((vector_size(32)));

MTLFAST_INLINE void to_double(F64 v, F64* out) { out[0] = v; }
MTLFAST_INLINE void to_double(F32 v, F64* out) {
  HalfF32 half[2];
  std::memcpy(half, &v, sizeof v);
  out[0] = __builtin_convertvector(half[0], F64);
  out[1] = __builtin_convertvector(half[1], F64);
}

// sum[j] += Σ_{i < rows} w[i·stride + j]² for NV vectors of columns, the last with `last` of them.
template <class T, int NV>
void add_squares(int vectors, const T* w, int64_t rows, int64_t stride, int64_t last, double* sum) {
  if constexpr (NV > 1) {
    if (vectors < NV) return add_squares<T, NV - 1>(vectors, w, rows, stride, last, sum);
  }
  constexpr int N = Lane<T>::N, W = N / 8;
  F64 s[NV * W] = {};
  for (int64_t i = 0; i < rows; ++i) {
    const T* p = w + i * stride;
    const T* ahead = p + (i + kRowsAhead < rows ? kRowsAhead : 0) * stride;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      __builtin_prefetch(ahead + v * N);
      F64 x[W];
      to_double(v == NV - 1 && last < N ? load_part(p + v * N, last) : Lane<T>::load(p + v * N), x);
      for (int h = 0; h < W; ++h) s[v * W + h] += x[h] * x[h];
    }
  }
  alignas(64) double part[NV * N];
  for (int v = 0; v < NV * W; ++v) store_raw(part + v * 8, s[v]);
  for (int64_t j = 0; j < (NV - 1) * N + last; ++j) sum[j] += part[j];
}

constexpr double kLeast = 0x1p-900, kMost = 0x1p1000;  // sums of squares in between are right

// Whether sums of squares over these columns of a block say what they should.
inline bool are_right(const double* w, int64_t rows, int64_t stride, int64_t columns,
                      const double* sum) {
  for (int64_t j = 0; j < columns; ++j) {
    if (sum[j] > kMost) return false;
    for (int64_t i = 0; i < rows && sum[j] < kLeast; ++i) {
      if (w[i * stride + j] != 0) return false;
    }
  }
  return true;
}

// out[j] = ‖w_·j‖₂ by way of the largest of each column.
void scaled_lengths(const double* w, int64_t K, int64_t d, double* out, int threads) {
  parallel_for_even(ceil_div(d, kPad), K * d, threads, [&](int64_t unit) {
    const int64_t first = unit * kPad, width = d - first < kPad ? d - first : kPad;
    double largest[kPad] = {}, scale[kPad], sum[kPad] = {};
    for (int64_t i = 0; i < K; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const double x = w[i * d + first + j], size = x < 0 ? -x : x;
        largest[j] = size > largest[j] ? size : largest[j];
      }
    }
    for (int64_t j = 0; j < width; ++j) {
      int exponent = 0;
      if (is_finite(largest[j])) __builtin_frexp(largest[j], &exponent);
      scale[j] = __builtin_ldexp(1.0, exponent < -1000 ? 1000 : -exponent);
    }
    for (int64_t i = 0; i < K; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const double x = w[i * d + first + j] * scale[j];
        sum[j] += x * x;
      }
    }
    for (int64_t j = 0; j < width; ++j) out[first + j] = __builtin_sqrt(sum[j]) / scale[j];
  });
}

// Returns whether the sums are right.
template <class T>
bool column_squares(const T* w, int64_t K, int64_t d, double* out, int threads) {
  constexpr int64_t N = Lane<T>::N;
  const int64_t fold = fold_rows<T>(d), panels = ceil_div(d, kPanel);
  const int64_t panel = panels > 1 ? kPanel : fold * d;  // columns of a long row
  const int64_t least = kBlock / panel > kBlockRows ? kBlock / panel : kBlockRows;
  const int64_t block_rows = least * fold, blocks = ceil_div(K, block_rows);
  Scratch<double> parts(blocks * d);
  Scratch<char> right(blocks * panels);
  parallel_for_even(blocks * panels, K * d, threads, [&](int64_t unit) {
    const int64_t b = unit / panels, column = unit % panels * kPanel;
    const int64_t count = b + 1 < blocks ? block_rows : K - b * block_rows;
    const int64_t width = fold > 1 ? panel : d - column < kPanel ? d - column : kPanel;
    const T* const rows = w + b * block_rows * d + column;
    double sum[kPanel] = {};
    right[unit] = 1;
    const auto add = [&](const T* first, int64_t long_rows, int64_t columns) {
      for (int64_t j = 0; j < columns; j += kStrip * N) {
        const int64_t left = columns - j < kStrip * N ? columns - j : kStrip * N;
        const int vectors = int(ceil_div(left, N));
        add_squares<T, kStrip>(vectors, first + j, long_rows, fold * d, left - (vectors - 1) * N,
                               sum + j);
        if constexpr (sizeof(T) == sizeof(double)) {
          right[unit] = right[unit] && are_right(first + j, long_rows, fold * d, left, sum + j);
        }
      }
    };
    add(rows, count / fold, width);
    if (count % fold > 0) add(rows + count / fold * fold * d, 1, count % fold * d);
    const int64_t columns = width / fold;
    double* const part = parts.get() + b * d + column;
    for (int64_t j = 0; j < columns; ++j) {
      part[j] = sum[j];
      for (int64_t f = 1; f < fold; ++f) part[j] += sum[f * columns + j];
    }
  });
  for (int64_t j = 0; j < d; ++j) out[j] = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t j = 0; j < d; ++j) out[j] += parts[b * d + j];
  }
  bool all = true;
  for (int64_t unit = 0; unit < blocks * panels; ++unit) all = all && right[unit];
  for (int64_t j = 0; j < d && all; ++j) all = !(out[j] > kMost);
  return all;
}

// Long rows [w, w + count) of `width` elements, each column with its factor.
template <class T, bool ADD, bool STREAM>
void scale_row(const T* w, const typename Lane<T>::Real* factor, int64_t width, T* out) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  int64_t j = 0;
  for (; j + Lanes::N <= width; j += Lanes::N) {
    const Vec y = Lanes::load(w + j) * load_raw<Vec>(factor + j);
    const Vec z = ADD ? Lanes::load(out + j) + y : y;
    STREAM ? stream(out + j, z) : Lanes::store(out + j, z);
  }
  if (j < width) {
    const int64_t n = width - j;
    const Vec y = load_part(w + j, n) * load_part(factor + j, n);
    store_part(out + j, ADD ? load_part(out + j, n) + y : y, n);
  }
}

template <class T, bool ADD, bool STREAM>
void scale_columns(const T* w, const typename Lane<T>::Real* factor, int64_t K, int64_t d, T* out,
                   int threads) {
  const int64_t fold = fold_rows<T>(d), width = fold * d, long_rows = ceil_div(K, fold);
  const int64_t unit_rows = ceil_div(kBlock, width);
  Scratch<typename Lane<T>::Real> repeated(width);
  for (int64_t j = 0; j < width; ++j) repeated[j] = factor[j % d];
  parallel_for_even(ceil_div(long_rows, unit_rows), K * d, threads, [&](int64_t unit) {
    const int64_t begin = unit * unit_rows;
    const int64_t end = begin + unit_rows < long_rows ? begin + unit_rows : long_rows;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = K * d - i * width < width ? K * d - i * width : width;
      scale_row<T, ADD, STREAM>(w + i * width, repeated.get(), n, out + i * width);
    }
    if (STREAM) stream_fence();
  });
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void column_lengths(DType dtype, const void* w, int64_t K, int64_t d, double* length, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const bool right = column_squares(static_cast<const T*>(w), K, d, length, threads);
    if constexpr (sizeof(T) == sizeof(double)) {
      if (!right) return scaled_lengths(static_cast<const T*>(w), K, d, length, threads);
    }
    for (int64_t j = 0; j < d; ++j) length[j] = __builtin_sqrt(length[j]);
  });
}

void column_scale(DType dtype, const void* w, const void* factor, int64_t K, int64_t d, Plus plus,
                  void* out, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    constexpr int64_t N = Lane<T>::N;
    const bool fresh = plus != Plus::out && out != w;
    const bool stream = fresh && fold_rows<T>(d) * d % N == 0 &&
                        streams(out, K * d * int64_t(sizeof(T)), N * sizeof(T));
    const auto run = plus == Plus::out ? scale_columns<T, true, false>
                     : stream          ? scale_columns<T, false, true>
                                       : scale_columns<T, false, false>;
    run(static_cast<const T*>(w), static_cast<const Real*>(factor), K, d, static_cast<T*>(out),
        threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
