// Tiles of a matrix product: J rows of a times V vectors of columns of b, in registers.
//
// Each element is the sum over k in order, mul and then add, so its bits do not depend on the tile
// that it falls into, nor on J and V, which follow the number of registers.
#pragma once

#include "common/lanes.h"

namespace mtlfast {
namespace MTLFAST_ISA {

#if defined(__AVX512F__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 2;
#endif
constexpr int kTileVectors = 2;

using Half = float __attribute__((vector_size(32)));

// Eight elements in double, and back.
MTLFAST_INLINE F64 load_wide(const double* p) { return load_raw<F64>(p); }
MTLFAST_INLINE F64 load_wide(const float* p) {
  return __builtin_convertvector(load_raw<Half>(p), F64);
}
MTLFAST_INLINE void store_narrow(double* p, F64 x) { store_raw(p, x); }
MTLFAST_INLINE void store_narrow(float* p, F64 x) {
  store_raw(p, __builtin_convertvector(x, Half));
}

// c [J, V vectors] += Σ_{r < rows} a[r, j] b[r, :] where a is [rows][lda]: the rows of aᵀb.
template <int J, int V, class Real>
MTLFAST_INLINE void add_outer(const Real* a, int64_t lda, const Real* b, int64_t ldb, int64_t rows,
                              Real* c, int64_t ldc) {
  using Vec = typename Lane<Real>::Vec;
  constexpr int N = Lane<Real>::N;
  Vec sum[J][V];
  for (int j = 0; j < J; ++j) {
    for (int v = 0; v < V; ++v) sum[j][v] = load_raw<Vec>(c + j * ldc + v * N);
  }
  for (int64_t r = 0; r < rows; ++r) {
    Vec x[V];
    for (int v = 0; v < V; ++v) x[v] = load_raw<Vec>(b + r * ldb + v * N);
    for (int j = 0; j < J; ++j) {
      for (int v = 0; v < V; ++v) sum[j][v] += a[r * lda + j] * x[v];
    }
  }
  for (int j = 0; j < J; ++j) {
    for (int v = 0; v < V; ++v) store_raw(c + j * ldc + v * N, sum[j][v]);
  }
}

// c [J, V vectors] = Σ_{k < depth} a[j, k] b[k, :] where a is [J][lda]: the rows of a b.
template <int J, int V, class Real>
MTLFAST_INLINE void multiply(const Real* a, int64_t lda, const Real* b, int64_t ldb, int64_t depth,
                             typename Lane<Real>::Vec (*c)[V]) {
  using Vec = typename Lane<Real>::Vec;
  constexpr int N = Lane<Real>::N;
  Vec sum[J][V] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vec x[V];
    for (int v = 0; v < V; ++v) x[v] = load_raw<Vec>(b + k * ldb + v * N);
    for (int j = 0; j < J; ++j) {
      for (int v = 0; v < V; ++v) sum[j][v] += a[j * lda + k] * x[v];
    }
  }
  for (int j = 0; j < J; ++j) {
    for (int v = 0; v < V; ++v) c[j][v] = sum[j][v];
  }
}

// The tiles of aᵀb that meet the upper triangle; a and b are [rows][ld], c is [ld][ld], ld a multiple
// of 16.
inline void add_upper(const double* a, const double* b, int64_t ld, int64_t rows, double* c) {
  constexpr int J = kTileRows, width = 8 * kTileVectors;
  for (int64_t k = 0; k < ld; k += width) {
    for (int64_t j = 0; j < k + width; j += J) {
      add_outer<J, kTileVectors>(a + j, ld, b + k, ld, rows, c + j * ld + k, ld);
    }
  }
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
