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
    const DenseRows<T> row{static_cast<const T*>(w), d};
    *value = 2.0 * double(K) *
             centred_squares<T>(row, K, d, fold_rows<T>(d), static_cast<Real*>(mean), threads);
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
