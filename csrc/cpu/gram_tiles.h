// What the dense Gram kernel reads: W with zeros around it, and tiles of Ω and of Ωᵀ.
#pragma once

#include "common/gram_matrix.h"

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kTile = 128;  // rows and columns of a tile of W Wᵀ

int64_t padded(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

// W with zeros behind its last row and column: as it is [rows][ld], in double [rows][wide_ld], and in
// double by strips of 16 tasks, [rows/16][d][16].
template <class Real>
struct Packed {
  int64_t K, d, rows, ld, wide_ld;
  Scratch<Real> w;
  Scratch<double> wide, strips;

  template <class T>
  Packed(const T* in, int64_t K, int64_t d, int threads)
      : K(K), d(d), rows(padded(K, kTile)), ld(padded(d, kTileVectors * Lane<T>::N)),
        wide_ld(padded(d, kTileColumns)), w(rows * ld), wide(rows * wide_ld), strips(rows * d) {
    parallel_for_even(rows / kTileColumns, rows * d, threads, [&](int64_t u) {
      double* strip = strips.get() + u * kTileColumns * d;
      for (int64_t c = 0; c < kTileColumns; ++c) {
        const int64_t i = u * kTileColumns + c;
        Real* row = w.get() + i * ld;
        for (int64_t j = 0; j < ld; ++j) row[j] = 0;
        if (i < K) {
          int64_t j = 0;
          for (; j + Lane<T>::N <= d; j += Lane<T>::N) {
            store_raw(row + j, Lane<T>::load(in + i * d + j));
          }
          if (j < d) store_part(row + j, load_part(in + i * d + j, d - j), d - j);
        }
        for (int64_t j = 0; j < wide_ld; ++j) wide[i * wide_ld + j] = double(row[j]);
        for (int64_t j = 0; j < d; ++j) strip[j * kTileColumns + c] = double(row[j]);
      }
    });
  }
};

MTLFAST_INLINE F64 squares(F64 x) { return x * x; }
MTLFAST_INLINE F64 squares(F32 x) {
  Half half[2];
  std::memcpy(half, &x, sizeof x);
  return squares(__builtin_convertvector(half[0], F64)) +
         squares(__builtin_convertvector(half[1], F64));
}

// Row i of Ω from column j on, N elements; zeros outside.
template <class T>
MTLFAST_INLINE typename Lane<T>::Vec load_row(const T* omega, int64_t K, int64_t i, int64_t j) {
  if (i >= K || j >= K) return typename Lane<T>::Vec{};
  const T* p = omega + i * K + j;
  return K - j >= Lane<T>::N ? Lane<T>::load(p) : load_part(p, K - j);
}

// Ω_IJ, rows from i and columns from j on.
template <class T, class Real>
void copy_tile(const T* omega, int64_t K, int64_t i, int64_t j, Real* out) {
  for (int64_t r = 0; r < kTile; ++r) {
    for (int64_t c = 0; c < kTile; c += Lane<T>::N) {
      store_raw(out + r * kTile + c, load_row(omega, K, i + r, j + c));
    }
  }
}

// The lanes of a and behind them those of b, by number.
template <int... pick, class V>
MTLFAST_INLINE V picked(V a, V b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, pick...);
#else  // g++ has that from 12 on
  constexpr decltype(a == b) lanes = {pick...};
  return __builtin_shuffle(a, b, lanes);
#endif
}

MTLFAST_INLINE F32 zip_low(F32 a, F32 b) {
  return picked<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
}
MTLFAST_INLINE F32 zip_high(F32 a, F32 b) {
  return picked<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b);
}
MTLFAST_INLINE F64 zip_low(F64 a, F64 b) { return picked<0, 8, 1, 9, 2, 10, 3, 11>(a, b); }
MTLFAST_INLINE F64 zip_high(F64 a, F64 b) { return picked<4, 12, 5, 13, 6, 14, 7, 15>(a, b); }

// Calls use(r, c, N elements of row r of the tile of Ωᵀ from column c on) square by square of N × N:
// zipping the two halves log2(N) times transposes.
template <class T, class Use>
MTLFAST_INLINE void for_transposed(const T* omega, int64_t K, int64_t i, int64_t j, const Use& use) {
  constexpr int N = Lane<T>::N;
  for (int64_t c = 0; c < kTile; c += N) {
    for (int64_t r = 0; r < kTile; r += N) {
      typename Lane<T>::Vec x[N], y[N];
      for (int k = 0; k < N; ++k) x[k] = load_row(omega, K, j + c + k, i + r);
      for (int round = 1; round < N; round *= 2) {
        for (int k = 0; k < N / 2; ++k) {
          y[2 * k] = zip_low(x[k], x[k + N / 2]);
          y[2 * k + 1] = zip_high(x[k], x[k + N / 2]);
        }
        for (int k = 0; k < N; ++k) x[k] = y[k];
      }
      for (int k = 0; k < N; ++k) use(r + k, c, x[k]);
    }
  }
}

// out = −(Ω + Ωᵀ)_IJ/2; returns Σ ω² over the tile and, if it is counted, its mirror image.
template <class T, class Real>
double copy_negated_mean(const T* omega, int64_t K, int64_t i, int64_t j, bool mirror, Real* out) {
  F64 sum = {}, mirrored = {};
  for_transposed(omega, K, i, j, [&](int64_t r, int64_t c, typename Lane<T>::Vec other) {
    const auto one = load_row(omega, K, i + r, j + c);
    sum += squares(one);
    mirrored += squares(other);
    store_raw(out + r * kTile + c, Real(-0.5) * (one + other));
  });
  return lane_sum(mirror ? sum + mirrored : sum);
}

template <class T, class Real>
void copy_transposed(const T* omega, int64_t K, int64_t i, int64_t j, Real* out) {
  for_transposed(omega, K, i, j, [&](int64_t r, int64_t c, typename Lane<T>::Vec x) {
    store_raw(out + r * kTile + c, x);
  });
}

}  // namespace
}  // namespace MTLFAST_ISA
}  // namespace mtlfast
