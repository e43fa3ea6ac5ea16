// Distance of the Gram matrix from a dense Ω:  Σ_ij (⟨w_i, w_j⟩ − ω_ij)²,  gradient in W
// 4 Σ_j r_ij w_j  with r = W Wᵀ − (Ω + Ωᵀ)/2.
//
// Two ways. Residuals: r is formed entry by entry; products of float32 values are exact in double and
// are summed in double, so it is right also near the optimum. Expanded: with S = (Ω + Ωᵀ)/2,
//   the value Σ_i (⟨w_i, W(WᵀW)_i⟩ − 2⟨w_i, (SW)_i⟩ + ‖ω_i‖²) and the gradient 4 (W(WᵀW) − SW),
// which costs half. It is kept only if in every block of kTile rows the sum is at least a quarter of
// its positive terms: then r is no smaller than half of what was added, and rounding has not grown
// more than it would have with residuals. A few tiles tell beforehand when that is hopeless.
//
// Plan     Both sum over tiles (I, J) with I ≤ J, by symmetry: a tile meets Ω_IJ and Ω_JI, which is
//          transposed into the cache, and adds to the gradient of both I and J. Tiles are dealt to a
//          fixed number of units, each with a gradient of its own.
// Traffic  reads Ω once, twice where the expanded form is given up; nothing of its size is made. 4 K²d operations in W's arithmetic type for
//          the gradient, and 2 K²d in double for residuals; register tiles from common/product.h.
// Bits     an element is summed in the order of its index, float sums run over one tile and go to
//          double; units are added in order. Which way is taken depends on the numbers alone.
#include "common/dispatch.h"
#include "cpu/gram_tiles.h"
#include "cpu/declare.h"
#include "kernels/gram.h"

MTLFAST_DECLARE(MTLFAST_GRAM)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kUnits = 8;         // at most
constexpr int64_t kExpanded = 512;    // tasks from which the expanded form is tried,
constexpr int64_t kExpandedDim = 8;   // if they are this many times their parameters,
constexpr int64_t kLargestDim = 512;  // of which there are no more than this
constexpr double kKept = 0.25;        // of the positive terms must be left
constexpr int64_t kSamples = 8;       // at most, of kSampled tiles one
constexpr int64_t kSampled = 64;

template <class T>
class Tiles {
 public:
  using Real = typename Lane<T>::Real;

  Tiles(const T* w, const T* omega, int64_t K, int64_t d, bool want_grad, int threads)
      : in_(w), omega_(omega), w_(w, K, d, threads), K_(K), count_(ceil_div(K, kTile)),
        pairs_(count_ * (count_ + 1) / 2), units_(pairs_ < kUnits ? pairs_ : kUnits),
        threads_(threads), want_grad_(want_grad), grads_(want_grad ? units_ * w_.rows * w_.ld : 0),
        blocks_(units_ * count_) {}

  double residual_form(Real* grad) {
    for_tiles([&](const Buffers& b, int64_t I, int64_t J) { return residuals(b, I, J); });
    Sum sum;
    for (int64_t I = 0; I < count_; ++I) sum.add(block(I));
    if (!want_grad_) return sum.value();
    parallel_for_even(count_, units_ * K_ * w_.ld, threads_, [&](int64_t I) {
      const Scratch<double> sums(kTile * w_.ld);
      collect(I, sums.get());
      store(I, sums.get(), grad);
    });
    return sum.value();
  }

  // False where the expanded form cancels; value and gradient are of no use then.
  bool expanded_form(double* value, Real* grad) {
    const bool worth = K_ >= kExpanded && K_ >= kExpandedDim * w_.d && w_.d <= kLargestDim;
    if (!worth || !want_grad_ || near_in_samples()) return false;
    for_tiles([&](const Buffers& b, int64_t I, int64_t J) {
      return copy_negated_mean(omega_, K_, I * kTile, J * kTile, I != J, b.matrix.get());
    });
    const Padded<Real> rows(in_, K_, w_.d, threads_);
    const GramMatrix<Real> gram(rows, threads_);
    Scratch<double> positive(count_), left(count_);
    parallel_for_even(count_, units_ * K_ * w_.ld, threads_, [&](int64_t I) {
      const Scratch<double> sums(kTile * w_.ld);
      collect(I, sums.get());
      const Terms terms = add_products(I, gram.get(), sums.get());
      positive[I] = terms.squared + block(I);
      left[I] = positive[I] + 2 * terms.mixed;
      store(I, sums.get(), grad);
    });
    Sum sum;
    for (int64_t I = 0; I < count_; ++I) {
      if (!(left[I] >= kKept * positive[I])) return false;
      sum.add(left[I]);
    }
    *value = sum.value();
    return *value - *value == 0;
  }

 private:
  // Ω_IJ, its mirror image, and what is multiplied with W.
  struct Buffers {
    Scratch<Real> upper, lower, matrix;
    Buffers() : upper(kTile * kTile), lower(kTile * kTile), matrix(kTile * kTile) {}
  };

  // The first row of W whose gradient a unit adds to: the first of its tiles, in order of I, then J.
  int64_t first_row(int64_t u) const {
    int64_t I = 0;
    for (int64_t before = count_; before <= pairs_ * u / units_; before += count_ - I) ++I;
    return I * kTile;
  }

  // Calls make(buffers, I, J) for each tile, which leaves its matrix M in the buffers and returns its
  // share of the value; adds M·W_J to the sums of I and Mᵀ·W_I to those of J.
  template <class Make>
  void for_tiles(const Make& make) {
    parallel_for(units_, K_ * K_ * w_.d, threads_, [&](int64_t u) {
      const Buffers b;
      double *grad = grads_.get() + u * w_.rows * w_.ld, *blocks = blocks_.get() + u * count_;
      for (int64_t I = 0; I < count_; ++I) blocks[I] = 0;
      if (want_grad_) {
        for (int64_t k = first_row(u) * w_.ld; k < w_.rows * w_.ld; ++k) grad[k] = 0;
      }
      const int64_t begin = pairs_ * u / units_, end = pairs_ * (u + 1) / units_;
      int64_t index = 0;
      for (int64_t I = 0; I < count_ && index < end; ++I) {
        for (int64_t J = I; J < count_ && index < end; ++J, ++index) {
          if (index < begin) continue;
          check_interrupt();
          const double share = make(b, I, J);
          blocks[I] += 0.5 * share;
          blocks[J] += 0.5 * share;
          if (!want_grad_) continue;
          const int64_t next_I = J + 1 < count_ ? I : I + 1, next_J = J + 1 < count_ ? J + 1 : I + 1;
          add_rows(b.matrix.get(), J, grad + I * kTile * w_.ld, next_I, next_J);
          if (I != J) add_columns(b.matrix.get(), I, grad + J * kTile * w_.ld, next_J, next_I);
        }
      }
    });
  }

  // M = W_I W_Jᵀ − (upper + lower)/2; returns Σ r² over the tile and its mirror image.
  double residuals(const Buffers& b, int64_t I, int64_t J) const {
    const Real *upper = b.upper.get(), *lower = b.lower.get();
    copy_tile(omega_, K_, I * kTile, J * kTile, b.upper.get());
    copy_transposed(omega_, K_, I * kTile, J * kTile, b.lower.get());
    double lanes[8] = {};
    for (int64_t j = 0; j < kTile; j += kTileColumns) {
      const double* strip = w_.strips.get() + (J * kTile + j) * w_.d;
      F64 squares = {};
      for (int64_t i = 0; i < kTile; i += kTileRows) {
        F64 product[kTileRows][2];
        const double* rows = w_.wide.get() + (I * kTile + i) * w_.wide_ld;
        multiply<kTileRows, 2>(rows, w_.wide_ld, strip, kTileColumns, w_.d, product);
        for (int r = 0; r < kTileRows; ++r) {
          for (int v = 0; v < 2; ++v) {
            const int64_t at = (i + r) * kTile + j + 8 * v;
            const F64 one = product[r][v] - load_wide(upper + at);
            const F64 other = product[r][v] - load_wide(lower + at);
            squares += one * one;
            if (I != J) squares += other * other;
            store_narrow(b.matrix.get() + at, 0.5 * (one + other));
          }
        }
      }
      for (int l = 0; l < 8; ++l) lanes[l] += squares[l];
    }
    Sum sum;
    for (double x : lanes) sum.add(x);
    return sum.value();
  }

  // Whether some tiles, spread over the matrix, are as good as fitted.
  bool near_in_samples() const {
    const Buffers b;
    double residual = 0, wanted = 0;
    const int64_t share = ceil_div(pairs_, kSampled), samples = share < kSamples ? share : kSamples;
    for (int64_t k = 0; k < samples; ++k) {
      const int64_t i = count_ * k / samples, j = count_ * (3 * k % samples) / samples;
      const int64_t I = i < j ? i : j, J = i < j ? j : i;
      wanted += copy_negated_mean(omega_, K_, I * kTile, J * kTile, I != J, b.matrix.get());
      residual += residuals(b, I, J);
    }
    return !(residual >= kKept * wanted);
  }

  double block(int64_t I) const {
    double sum = 0;
    for (int64_t u = 0; u < units_; ++u) sum += blocks_[u * count_ + I];
    return sum;
  }

  // sums [kTile, ld] = those of all units for the rows of block I.
  void collect(int64_t I, double* sums) const {
    int64_t units = 0;
    while (units < units_ && first_row(units) <= I * kTile) ++units;
    for (int64_t k = 0; k < kTile * w_.ld; ++k) {
      double sum = 0;
      for (int64_t u = 0; u < units; ++u) sum += grads_[(u * w_.rows + I * kTile) * w_.ld + k];
      sums[k] = sum;
    }
  }

  void store(int64_t I, const double* sums, Real* grad) const {
    const int64_t rows = K_ - I * kTile < kTile ? K_ - I * kTile : kTile;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < w_.d; ++j) {
        grad[(I * kTile + i) * w_.d + j] = Real(4 * sums[i * w_.ld + j]);
      }
    }
  }

  struct Terms {
    double squared, mixed;  // Σ ⟨w_i, W(WᵀW)_i⟩ and Σ ⟨w_i, sums_i⟩
  };

  // sums += W_I·(WᵀW).
  Terms add_products(int64_t I, const double* gram, double* sums) const {
    const int64_t ld = w_.wide_ld;
    F64 squared = {}, mixed = {};
    for (int64_t i = 0; i < kTile; i += kTileRows) {
      const double* rows = w_.wide.get() + (I * kTile + i) * ld;
      for (int64_t j = 0; j < ld; j += kTileColumns) {
        F64 product[kTileRows][2];
        multiply<kTileRows, 2>(rows, ld, gram + j, ld, ld, product);
        for (int r = 0; r < kTileRows; ++r) {
          for (int v = 0; v < 2; ++v) {
            const F64 w = load_raw<F64>(rows + r * ld + j + 8 * v);
            double* at = sums + (i + r) * w_.ld + j + 8 * v;
            const F64 sum = load_raw<F64>(at);
            squared += w * product[r][v];
            mixed += w * sum;
            store_raw(at, sum + product[r][v]);
          }
        }
      }
    }
    return {lane_sum(squared), lane_sum(mixed)};
  }

  // grad [kTile, ld] += matrix · W_J, while tile (next_I, next_J) of Ω comes from memory.
  void add_rows(const Real* matrix, int64_t J, double* grad, int64_t next_I, int64_t next_J) {
    constexpr int V = kTileVectors, N = Lane<Real>::N;
    for (int64_t column = 0; column < w_.ld; column += V * N) {
      const Real* b = w_.w.get() + J * kTile * w_.ld + column;
      for (int64_t i = 0; i < kTile; i += kTileRows) {
        if (column == 0) prefetch_rows(next_I * kTile + i, next_J * kTile);
        typename Lane<Real>::Vec sum[kTileRows][V];
        multiply<kTileRows, V>(matrix + i * kTile, kTile, b, w_.ld, kTile, sum);
        add(sum, grad + i * w_.ld + column);
      }
    }
  }

  // grad [kTile, ld] += matrixᵀ · W_I, in the same way.
  void add_columns(const Real* matrix, int64_t I, double* grad, int64_t next_I, int64_t next_J) {
    constexpr int V = kTileVectors, N = Lane<Real>::N;
    for (int64_t column = 0; column < w_.ld; column += V * N) {
      const Real* b = w_.w.get() + I * kTile * w_.ld + column;
      for (int64_t j = 0; j < kTile; j += kTileRows) {
        if (column == 0) prefetch_rows(next_I * kTile + j, next_J * kTile);
        alignas(64) Real part[kTileRows * V * N] = {};
        add_outer<kTileRows, V>(matrix + j, kTile, b, w_.ld, kTile, part, V * N);
        typename Lane<Real>::Vec sum[kTileRows][V];
        std::memcpy(sum, part, sizeof part);
        add(sum, grad + j * w_.ld + column);
      }
    }
  }

  void prefetch_rows(int64_t i, int64_t j) const {
    const int64_t end = K_ - j < kTile ? K_ : j + kTile;
    for (int64_t r = i; r < i + kTileRows && r < K_; ++r) {
      for (int64_t c = j; c < end; c += 64 / int64_t(sizeof(T))) {
        __builtin_prefetch(omega_ + r * K_ + c, 0, 2);
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

  const T *in_, *omega_;
  Packed<Real> w_;
  int64_t K_, count_, pairs_, units_;
  int threads_;
  bool want_grad_;
  Scratch<double> grads_;   // [units, rows, ld]
  Scratch<double> blocks_;  // [units, blocks of rows]: shares of the value
};

}  // namespace

// ---------------------------------------------------------------------------------------------

void gram_dense(DType dtype, const void* w, const void* omega, int64_t K, int64_t d, double* value,
                void* grad, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    Tiles<T> tiles(static_cast<const T*>(w), static_cast<const T*>(omega), K, d, grad != nullptr,
                   threads);
    auto* out = static_cast<typename Lane<T>::Real*>(grad);
    if (!tiles.expanded_form(value, out)) *value = tiles.residual_form(out);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
