// WᵀW of a matrix with many rows, in double: fixed units of rows, added in order.
#pragma once

#include "common/parallel.h"
#include "common/product.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int64_t kTileColumns = 8 * kTileVectors;
constexpr int64_t kGramUnits = 32;                 // at most
constexpr int64_t kGramRows = 256;                 // of a unit, at least
constexpr int64_t kGramBlock = 128;                // columns of a block of WᵀW
constexpr int64_t kPanelRows = 32;                 // of W, in double, behind a block
constexpr int64_t kCheckedRows = 16 * kPanelRows;  // between two checks for an interrupt

// W in the arithmetic type with zeros behind its last column: [K][ld]. In huge pages, where W may
// not be: with small ones, nearly every row that is gathered misses the translation buffer.
template <class Real>
struct Padded {
  int64_t K, d, ld;
  Scratch<Real> w;

  template <class T>
  Padded(const T* in, int64_t K, int64_t d, int threads)
      : K(K), d(d), ld(ceil_div(d, kTileColumns) * kTileColumns), w(K * ld) {
    constexpr int N = Lane<T>::N;
    parallel_for_even(ceil_div(K, kGramRows), K * d, threads, [&](int64_t u) {
      const int64_t end = (u + 1) * kGramRows < K ? (u + 1) * kGramRows : K;
      for (int64_t i = u * kGramRows; i < end; ++i) {
        Real* out = w.get() + i * ld;
        int64_t j = 0;
        for (; j + N <= d; j += N) store_raw(out + j, Lane<T>::load(in + i * d + j));
        if (j < d) store_raw(out + j, load_part(in + i * d + j, d - j)), j += N;
        for (; j < ld; j += N) store_raw(out + j, typename Lane<T>::Vec{});
      }
    });
  }
  const Real* row(int64_t i) const { return w.get() + i * ld; }

  // Columns [column, column + width) of `rows` rows, in double: out [rows][width].
  void widen(int64_t first, int64_t rows, int64_t column, int64_t width, double* out) const {
    for (int64_t r = 0; r < rows; ++r) {
      const Real* in = row(first + r) + column;
      for (int64_t j = 0; j < width; j += 8) store_raw(out + r * width + j, load_wide(in + j));
    }
  }
};

// WᵀW [ld][ld].
template <class Real>
class GramMatrix {
 public:
  GramMatrix(const Padded<Real>& w, int threads) : w_(w), ld_(w.ld), sum_(ld_ * ld_) {
    int64_t rows = ceil_div(w.K, kGramUnits);
    if (rows < ld_) rows = ld_;  // so that the units' matrices are no larger than W
    if (rows < kGramRows) rows = kGramRows;
    const int64_t units = ceil_div(w.K, rows), square = ld_ * ld_;
    const Scratch<double> parts(units * square);
    parallel_for(units, w.K * square, threads, [&](int64_t u) {
      const int64_t end = (u + 1) * rows < w.K ? (u + 1) * rows : w.K;
      std::memset(parts.get() + u * square, 0, size_t(square) * sizeof(double));
      for (int64_t j = 0; j < ld_; j += kGramBlock) {
        for (int64_t k = j; k < ld_; k += kGramBlock) {
          add_block(j, k, u * rows, end, parts.get() + u * square);
        }
      }
    });
    parallel_for_even(ld_, units * square, threads, [&](int64_t j) {
      for (int64_t k = j; k < ld_; ++k) {
        double sum = 0;
        for (int64_t u = 0; u < units; ++u) sum += parts[u * square + j * ld_ + k];
        sum_[j * ld_ + k] = sum_[k * ld_ + j] = sum;
      }
    });
  }

  const double* get() const { return sum_.get(); }

  // ‖WᵀW‖²
  double square() const {
    Sum sum;
    for (int64_t j = 0; j < w_.d; ++j) {
      for (int64_t k = 0; k < w_.d; ++k) sum.add(sum_[j * ld_ + k] * sum_[j * ld_ + k]);
    }
    return sum.value();
  }

 private:
  // The columns of W from j on times those from k on; on the diagonal, the tiles that meet the
  // upper triangle.
  void add_block(int64_t j, int64_t k, int64_t begin, int64_t end, double* part) const {
    alignas(64) double left[kPanelRows * kGramBlock], right[kPanelRows * kGramBlock];
    const int64_t height = ld_ - j < kGramBlock ? ld_ - j : kGramBlock;
    const int64_t width = ld_ - k < kGramBlock ? ld_ - k : kGramBlock;
    const bool diagonal = j == k;
    for (int64_t i = begin; i < end; i += kPanelRows) {
      if ((i - begin) % kCheckedRows == 0) check_interrupt();
      const int64_t rows = end - i < kPanelRows ? end - i : kPanelRows;
      w_.widen(i, rows, j, height, left);
      if (!diagonal) w_.widen(i, rows, k, width, right);
      for (int64_t c = 0; c < width; c += kTileColumns) {
        const double* columns = (diagonal ? left : right) + c;
        for (int64_t r = 0; r < (diagonal ? c + kTileColumns : height); r += kTileRows) {
          add_outer<kTileRows, kTileVectors>(left + r, height, columns, width, rows,
                                             part + (j + r) * ld_ + k + c, ld_);
        }
      }
    }
  }

  const Padded<Real>& w_;
  int64_t ld_;
  Scratch<double> sum_;
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
