// Pairwise distance of all tasks:  Σ_{i≠j} ‖w_i − w_j‖² = 2K Σ_i ‖w_i − w̄‖²,  gradient 4K (w_i − w̄).
//
// Plan     W is cut into fixed blocks of rows (256 KiB; panels of 2048 columns where rows are
//          longer); each block gives its mean and centred square sum (common/centered.h), which are
//          merged in block order in double: Σ_b M_b + n_b ‖w̄_b − w̄‖².
// Traffic  value: reads W once.  affine (gradient, prox): reads W once, writes once, past the caches
//          where the result is too large for them; added to what is there, it reads that as well.
// Bits     the cut depends on K and d alone, so any thread count gives the same bits. The mean is
//          kept as hi + lo: w − hi − lo is right to the last bits also when all rows nearly agree.
#include "common/centered.h"
#include "common/dispatch.h"
#include "cpu/declare.h"
#include "kernels/pairwise.h"

MTLFAST_DECLARE(MTLFAST_PAIRWISE)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

// `rows` consecutive long rows of NV whole vectors; the mean stays in registers.
template <class T, int NV, Plus PLUS, bool STREAM>
inline void affine_strip(const T* w, const typename Lane<T>::Real* hi,
                         const typename Lane<T>::Real* lo, typename Lane<T>::Real scale,
                         int64_t rows, T* out) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  constexpr int N = Lanes::N;
  Vec h[NV], l[NV];
  for (int v = 0; v < NV; ++v) {
    h[v] = load_raw<Vec>(hi + v * N);
    l[v] = load_raw<Vec>(lo + v * N);
  }
  for (int64_t i = 0; i < rows; ++i, w += NV * N, out += NV * N) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const Vec before = PLUS == Plus::out ? Lanes::load(out + v * N) : Vec{};
      const Vec y = affine_of<PLUS>(Lanes::load(w + v * N), h[v], l[v], scale, before);
      STREAM ? stream(out + v * N, y) : Lanes::store(out + v * N, y);
    }
  }
}

// Whole long rows by strips where they are of whole vectors; returns how many rows that were.
template <class T, int NV, Plus PLUS, bool STREAM>
inline int64_t affine_strips(const T* w, const typename Lane<T>::Real* hi,
                             const typename Lane<T>::Real* lo, typename Lane<T>::Real scale,
                             int64_t width, int64_t rows, T* out) {
  if constexpr (NV > 0) {
    if (width != NV * Lane<T>::N) {
      return affine_strips<T, NV - 1, PLUS, STREAM>(w, hi, lo, scale, width, rows, out);
    }
    affine_strip<T, NV, PLUS, STREAM>(w, hi, lo, scale, rows, out);
    return rows;
  }
  return 0;
}

template <class T, Plus PLUS, bool STREAM>
void affine(const T* w, const typename Lane<T>::Real* mean, int64_t K, int64_t d, double scale,
            T* out, int threads) {
  using Real = typename Lane<T>::Real;
  const int64_t fold = fold_rows<T>(d), width = fold * d, long_rows = ceil_div(K, fold);
  const int64_t unit_rows = ceil_div(kBlock, width);
  parallel_for_even(ceil_div(long_rows, unit_rows), K * d, threads, [&](int64_t unit) {
    alignas(64) Real repeated[2][kStripVectors * Lane<T>::N];
    const Real *hi = mean, *lo = mean + d;
    if (fold > 1) {
      for (int64_t f = 0; f < width; f += d) {
        for (int64_t j = 0; j < d; ++j) {
          repeated[0][f + j] = hi[j];
          repeated[1][f + j] = lo[j];
        }
      }
      hi = repeated[0];
      lo = repeated[1];
    }
    const int64_t begin = unit * unit_rows, whole = K / fold;
    const int64_t end = begin + unit_rows < long_rows ? begin + unit_rows : long_rows;
    // converting 16-bit numbers takes longer than reading the mean again
    constexpr int strips = sizeof(T) > 2 ? kStripVectors : 0;
    int64_t i = begin + affine_strips<T, strips, PLUS, STREAM>(
                            w + begin * width, hi, lo, Real(scale), width,
                            (end < whole ? end : whole) - begin, out + begin * width);
    for (; i < end; ++i) {
      const int64_t n = K * d - i * width < width ? K * d - i * width : width;
      affine_row<T, PLUS, STREAM>(w + i * width, hi, lo, Real(scale), n, out + i * width);
    }
    if (STREAM) stream_fence();
  });
}

template <class T, Plus PLUS>
void affine(const T* w, const typename Lane<T>::Real* mean, int64_t K, int64_t d, double scale,
            T* out, int threads) {
  constexpr int64_t N = Lane<T>::N;
  const bool fresh = PLUS != Plus::out && out != w;  // its lines are not in the cache anyway
  const bool stream = fresh && fold_rows<T>(d) * d % N == 0 &&
                      streams(out, K * d * int64_t(sizeof(T)), N * sizeof(T));
  const auto run = stream ? affine<T, PLUS, true> : affine<T, PLUS, false>;
  run(w, mean, K, d, scale, out, threads);
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

void pairwise_value_grad(DType dtype, const void* w, int64_t K, int64_t d, double* value,
                         void* grad, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    Scratch<Real> mean(2 * d);
    pairwise_value(dtype, w, K, d, value, mean.get(), threads);
    affine<T, Plus::nothing>(static_cast<const T*>(w), mean.get(), K, d, 4.0 * double(K),
                             static_cast<T*>(grad), threads);
  });
}

void pairwise_affine(DType dtype, const void* w, const void* mean, int64_t K, int64_t d,
                     double scale, Plus plus, void* out, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    const auto run = plus == Plus::nothing ? affine<T, Plus::nothing>
                     : plus == Plus::mean  ? affine<T, Plus::mean>
                                           : affine<T, Plus::out>;
    run(static_cast<const T*>(w), static_cast<const Real*>(mean), K, d, scale, static_cast<T*>(out),
        threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
