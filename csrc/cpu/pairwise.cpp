// Pairwise distance of all tasks:  Σ_{i≠j} ‖w_i − w_j‖² = 2K Σ_i ‖w_i − w̄‖²,  gradient 4K (w_i − w̄).
//
// Plan     W is cut into fixed blocks of rows (256 KiB; panels of 2048 columns where rows are
//          longer); each block gives its mean and centred square sum (common/centered.h), which are
//          merged in block order in double: Σ_b M_b + n_b ‖w̄_b − w̄‖².
// Traffic  value: reads W once.  affine (gradient, prox): reads W once, writes once.
// Bits     the cut depends on K and d alone, so any thread count gives the same bits. The mean is
//          kept as hi + lo: w − hi − lo is right to the last bits also when all rows nearly agree.
#include "common/centered.h"
#include "common/dispatch.h"
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kMergeColumns = 256;

struct Cut {
  int64_t fold, block_rows, blocks, panels;
  template <class T>
  static Cut of(int64_t K, int64_t d, Type<T>) {
    Cut cut;
    cut.fold = fold_rows<T>(d);
    const int64_t panel = d < kPanel ? d : kPanel;
    const int64_t rows = kBlock / panel > kBlockRows ? kBlock / panel : kBlockRows;
    cut.block_rows = ceil_div(rows, cut.fold) * cut.fold;
    cut.blocks = ceil_div(K, cut.block_rows);
    cut.panels = ceil_div(d, kPanel);
    return cut;
  }
};

template <class T>
void value(const T* w, int64_t K, int64_t d, double* value, typename Lane<T>::Real* mean,
           int threads) {
  const Cut cut = Cut::of(K, d, Type<T>{});
  Scratch<double> offset(cut.blocks * d);                // [blocks, d], block mean − row 0
  Scratch<double> squares(cut.blocks * cut.panels);      // [blocks, panels]
  parallel_for(cut.blocks * cut.panels, K * d, threads, [&](int64_t unit) {
    const int64_t b = unit / cut.panels, column = unit % cut.panels * kPanel;
    const int64_t begin = b * cut.block_rows;
    const int64_t rows = K - begin < cut.block_rows ? K - begin : cut.block_rows;
    const int64_t columns = d - column < kPanel ? d - column : kPanel;
    const DenseRows<T> row{w + begin * d + column, d};
    squares[unit] =
        block_moments<T>(row, rows, columns, cut.fold, w + column, offset.get() + b * d + column);
  });

  const int64_t merges = ceil_div(d, kMergeColumns);
  Scratch<double> between(merges);
  parallel_for(merges, cut.blocks * d, threads, [&](int64_t unit) {
    const int64_t column = unit * kMergeColumns;
    const int64_t columns = d - column < kMergeColumns ? d - column : kMergeColumns;
    double total[kMergeColumns] = {};
    const auto rows_of = [&](int64_t b) {
      return double(b + 1 < cut.blocks ? cut.block_rows : K - b * cut.block_rows);
    };
    for (int64_t b = 0; b < cut.blocks; ++b) {
      const double n = rows_of(b);
      for (int64_t j = 0; j < columns; ++j) total[j] += n * offset[b * d + column + j];
    }
    for (int64_t j = 0; j < columns; ++j) total[j] /= double(K);
    Sum sum;
    for (int64_t b = 0; b < cut.blocks; ++b) {
      double block = 0;
      for (int64_t j = 0; j < columns; ++j) {
        const double x = offset[b * d + column + j] - total[j];
        block += x * x;
      }
      sum.add(rows_of(b) * block);
    }
    between[unit] = cut.blocks > 1 ? sum.value() : 0.0;
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t k = column + j;
      split_mean(double(load_part(w + k, 1)[0]), total[j], mean + k, mean + d + k);
    }
  });

  Sum sum;
  for (int64_t unit = 0; unit < cut.blocks * cut.panels; ++unit) sum.add(squares[unit]);
  for (int64_t unit = 0; unit < merges; ++unit) sum.add(between[unit]);
  *value = 2.0 * double(K) * sum.value();
}

template <class T, bool ADD_MEAN>
void affine(const T* w, const typename Lane<T>::Real* mean, int64_t K, int64_t d, double scale,
            T* out, int threads) {
  using Real = typename Lane<T>::Real;
  const int64_t fold = d <= kPanel ? fold_rows<T>(d) : 1;
  const int64_t width = fold * d, long_rows = ceil_div(K, fold);
  const int64_t unit_rows = ceil_div(kBlock, width);
  parallel_for(ceil_div(long_rows, unit_rows), K * d, threads, [&](int64_t unit) {
    alignas(64) Real repeated[2][kPanel];
    const Real *hi = mean, *lo = mean + d;
    if (fold > 1) {
      for (int64_t j = 0; j < width; ++j) {
        repeated[0][j] = hi[j % d];
        repeated[1][j] = lo[j % d];
      }
      hi = repeated[0];
      lo = repeated[1];
    }
    const int64_t end = (unit + 1) * unit_rows < long_rows ? (unit + 1) * unit_rows : long_rows;
    for (int64_t i = unit * unit_rows; i < end; ++i) {
      const int64_t n = K * d - i * width < width ? K * d - i * width : width;
      affine_row<T, ADD_MEAN>(w + i * width, hi, lo, Real(scale), n, out + i * width);
    }
  });
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void pairwise_value(DType dtype, const void* w, int64_t K, int64_t d, double* value, void* mean,
                    int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    MTLFAST_ISA::value(static_cast<const T*>(w), K, d, value, static_cast<Real*>(mean), threads);
  });
}

void pairwise_affine(DType dtype, const void* w, const void* mean, int64_t K, int64_t d,
                     double scale, bool add_mean, void* out, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    const auto run = add_mean ? affine<T, true> : affine<T, false>;
    run(static_cast<const T*>(w), static_cast<const Real*>(mean), K, d, scale,
        static_cast<T*>(out), threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
