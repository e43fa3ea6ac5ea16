// Distance of the Gram matrix from a dense Ω:  Σ_ij (⟨w_i, w_j⟩ − ω_ij)²,  gradient in W
// 4 Σ_j r_ij w_j  with r = W Wᵀ − (Ω + Ωᵀ)/2.
//
// The residual is formed entry by entry, never from an expanded square: products of float32 values
// are exact in double and are summed in double, so it is right also near the optimum.
//
// Plan     W Wᵀ is symmetric, so tiles (I, J) with I ≤ J are enough: a tile meets Ω_IJ and Ω_JI,
//          which is transposed into the cache, and adds to the gradient of both I and J. Tiles are
//          dealt to a fixed number of units, each with a gradient of its own.
// Traffic  reads Ω once; nothing of its size is made. 2 K²d operations in double for the residual
//          and 4 K²d in W's arithmetic type for the gradient, register tiles from common/product.h.
// Bits     an element is summed in the order of its index, float sums run over one tile and go to
//          double; units are added in order.
#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/product.h"
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kTile = 128;   // rows and columns of a tile of W Wᵀ
constexpr int64_t kUnits = 8;    // at most
constexpr int64_t kColumns = 16; // of the residual, in registers: two vectors of double

int64_t padded(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

// W with zeros behind its last row and column: as it is, in double, and in double by strips of 16
// tasks, [K/16][d][16].
template <class Real>
struct Packed {
  int64_t K, d, rows, ld;
  Scratch<Real> w;
  Scratch<double> wide, strips;

  template <class T>
  Packed(const T* in, int64_t K, int64_t d, int threads)
      : K(K), d(d), rows(padded(K, kTile)), ld(padded(d, kTileVectors * Lane<T>::N)), w(rows * ld),
        wide(rows * d), strips(rows * d) {
    parallel_for_even(rows / kColumns, rows * d, threads, [&](int64_t u) {
      double* strip = strips.get() + u * kColumns * d;
      for (int64_t c = 0; c < kColumns; ++c) {
        const int64_t i = u * kColumns + c;
        Real* row = w.get() + i * ld;
        for (int64_t j = 0; j < ld; ++j) row[j] = 0;
        if (i < K) {
          int64_t j = 0;
          for (; j + Lane<T>::N <= d; j += Lane<T>::N) {
            store_raw(row + j, Lane<T>::load(in + i * d + j));
          }
          if (j < d) store_part(row + j, load_part(in + i * d + j, d - j), d - j);
        }
        for (int64_t j = 0; j < d; ++j) wide[i * d + j] = strip[j * kColumns + c] = double(row[j]);
      }
    });
  }
};

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

MTLFAST_INLINE F32 zip_low(F32 a, F32 b) {
  constexpr U32 pick = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  return __builtin_shuffle(a, b, pick);
}
MTLFAST_INLINE F32 zip_high(F32 a, F32 b) {
  constexpr U32 pick = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return __builtin_shuffle(a, b, pick);
}
MTLFAST_INLINE F64 zip_low(F64 a, F64 b) {
  constexpr U64 pick = {0, 8, 1, 9, 2, 10, 3, 11};
  return __builtin_shuffle(a, b, pick);
}
MTLFAST_INLINE F64 zip_high(F64 a, F64 b) {
  constexpr U64 pick = {4, 12, 5, 13, 6, 14, 7, 15};
  return __builtin_shuffle(a, b, pick);
}

// The same of Ωᵀ, square by square of N × N: zipping the two halves log2(N) times transposes.
template <class T, class Real>
void copy_transposed(const T* omega, int64_t K, int64_t i, int64_t j, Real* out) {
  using Vec = typename Lane<T>::Vec;
  constexpr int N = Lane<T>::N;
  for (int64_t c = 0; c < kTile; c += N) {
    for (int64_t r = 0; r < kTile; r += N) {
      Vec x[N], y[N];
      for (int k = 0; k < N; ++k) x[k] = load_row(omega, K, j + c + k, i + r);
      for (int round = 1; round < N; round *= 2) {
        for (int k = 0; k < N / 2; ++k) {
          y[2 * k] = zip_low(x[k], x[k + N / 2]);
          y[2 * k + 1] = zip_high(x[k], x[k + N / 2]);
        }
        for (int k = 0; k < N; ++k) x[k] = y[k];
      }
      for (int k = 0; k < N; ++k) store_raw(out + (r + k) * kTile + c, x[k]);
    }
  }
}

template <class T>
class Tiles {
 public:
  using Real = typename Lane<T>::Real;

  Tiles(const T* w, const T* omega, int64_t K, int64_t d, bool want_grad, int threads)
      : omega_(omega), w_(w, K, d, threads), K_(K), count_(ceil_div(K, kTile)),
        pairs_(count_ * (count_ + 1) / 2), units_(pairs_ < kUnits ? pairs_ : kUnits),
        threads_(threads), want_grad_(want_grad),
        grads_(want_grad ? units_ * w_.rows * w_.ld : 0), values_(units_) {}

  double run() {
    parallel_for(units_, K_ * K_ * w_.d, threads_, [&](int64_t u) { values_[u] = unit(u); });
    Sum sum;
    for (int64_t u = 0; u < units_; ++u) sum.add(values_[u]);
    return sum.value();
  }

  // grad = 4 Σ_u of the units' gradients.
  void combine(Real* grad) {
    parallel_for_even(count_, units_ * K_ * w_.ld, threads_, [&](int64_t tile) {
      const int64_t begin = tile * kTile, end = begin + kTile < K_ ? begin + kTile : K_;
      int64_t units = 0;
      while (units < units_ && first_row(units) <= begin) ++units;
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < w_.d; ++j) {
          double sum = 0;
          for (int64_t u = 0; u < units; ++u) sum += grads_[(u * w_.rows + i) * w_.ld + j];
          grad[i * w_.d + j] = Real(4 * sum);
        }
      }
    });
  }

 private:
  // The first row of W whose gradient a unit adds to: the first of its tiles, in order of I, then J.
  int64_t first_row(int64_t u) const {
    int64_t I = 0;
    for (int64_t before = count_; before <= pairs_ * u / units_; before += count_ - I) ++I;
    return I * kTile;
  }

  double unit(int64_t u) {
    Scratch<Real> upper(kTile * kTile), lower(kTile * kTile), residual(kTile * kTile);
    double* grad = grads_.get() + u * w_.rows * w_.ld;
    if (want_grad_) {
      for (int64_t k = first_row(u) * w_.ld; k < w_.rows * w_.ld; ++k) grad[k] = 0;
    }
    const int64_t begin = pairs_ * u / units_, end = pairs_ * (u + 1) / units_;
    Sum sum;
    int64_t index = 0;
    for (int64_t I = 0; I < count_ && index < end; ++I) {
      for (int64_t J = I; J < count_ && index < end; ++J, ++index) {
        if (index < begin) continue;
        copy_tile(omega_, K_, I * kTile, J * kTile, upper.get());
        copy_transposed(omega_, K_, I * kTile, J * kTile, lower.get());
        sum.add(residuals(I, J, upper.get(), lower.get(), residual.get()));
        if (!want_grad_) continue;
        add_rows(residual.get(), J, grad + I * kTile * w_.ld);
        if (I != J) add_columns(residual.get(), I, grad + J * kTile * w_.ld);
      }
    }
    return sum.value();
  }

  // residual = W_I W_Jᵀ − (upper + lower)/2; returns what the tile and its mirror add to the value.
  double residuals(int64_t I, int64_t J, const Real* upper, const Real* lower,
                   Real* residual) {
    double lanes[8] = {};
    for (int64_t j = 0; j < kTile; j += kColumns) {
      const double* strip = w_.strips.get() + (J * kTile + j) * w_.d;
      F64 squares = {};
      for (int64_t i = 0; i < kTile; i += kTileRows) {
        F64 product[kTileRows][2];
        const double* rows = w_.wide.get() + (I * kTile + i) * w_.d;
        multiply<kTileRows, 2>(rows, w_.d, strip, kColumns, w_.d, product);
        for (int r = 0; r < kTileRows; ++r) {
          for (int v = 0; v < 2; ++v) {
            const int64_t at = (i + r) * kTile + j + 8 * v;
            const F64 one = product[r][v] - load_wide(upper + at);
            const F64 other = product[r][v] - load_wide(lower + at);
            squares += one * one;
            if (I != J) squares += other * other;
            store_narrow(residual + at, 0.5 * (one + other));
          }
        }
      }
      for (int l = 0; l < 8; ++l) lanes[l] += squares[l];
    }
    Sum sum;
    for (double x : lanes) sum.add(x);
    return sum.value();
  }

  // grad [kTile, ld] += residual · W_J.
  void add_rows(const Real* residual, int64_t J, double* grad) {
    constexpr int V = kTileVectors, N = Lane<Real>::N;
    for (int64_t column = 0; column < w_.ld; column += V * N) {
      const Real* b = w_.w.get() + J * kTile * w_.ld + column;
      for (int64_t i = 0; i < kTile; i += kTileRows) {
        typename Lane<Real>::Vec sum[kTileRows][V];
        multiply<kTileRows, V>(residual + i * kTile, kTile, b, w_.ld, kTile, sum);
        add(sum, grad + i * w_.ld + column);
      }
    }
  }

  // grad [kTile, ld] += residualᵀ · W_I.
  void add_columns(const Real* residual, int64_t I, double* grad) {
    constexpr int V = kTileVectors, N = Lane<Real>::N;
    for (int64_t column = 0; column < w_.ld; column += V * N) {
      const Real* b = w_.w.get() + I * kTile * w_.ld + column;
      for (int64_t j = 0; j < kTile; j += kTileRows) {
        alignas(64) Real part[kTileRows * V * N] = {};
        add_outer<kTileRows, V>(residual + j, kTile, b, w_.ld, kTile, part, V * N);
        typename Lane<Real>::Vec sum[kTileRows][V];
        std::memcpy(sum, part, sizeof part);
        add(sum, grad + j * w_.ld + column);
      }
    }
  }

  template <class Vec>
  void add(const Vec (*sum)[kTileVectors], double* grad) {
    constexpr int width = kTileVectors * Lane<Real>::N;
    for (int r = 0; r < kTileRows; ++r) {
      alignas(64) Real part[width];
      std::memcpy(part, sum[r], sizeof part);
      for (int l = 0; l < width; ++l) grad[r * w_.ld + l] += double(part[l]);
    }
  }

  const T* omega_;
  Packed<Real> w_;
  int64_t K_, count_, pairs_, units_;
  int threads_;
  bool want_grad_;
  Scratch<double> grads_;   // [units, rows, ld]
  Scratch<double> values_;  // [units]
};

}  // namespace

// ---------------------------------------------------------------------------------------------

void gram_dense(DType dtype, const void* w, const void* omega, int64_t K, int64_t d, double* value,
                void* grad, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    Tiles<T> tiles(static_cast<const T*>(w), static_cast<const T*>(omega), K, d, grad != nullptr,
                   threads);
    *value = tiles.run();
    if (grad != nullptr) tiles.combine(static_cast<typename Lane<T>::Real*>(grad));
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
