// Groups of tasks linked all to all:  Σ_g Σ_{i≠j∈g} ‖w_i − w_j‖² = Σ_g 2 n_g Σ_i ‖w_i − w̄_g‖²,
// gradient 4 n_g (w_i − w̄_g),  prox w̄_g + (w_i − w̄_g)/(1 + 4 n_g t): pairwise, group by group.
//
// Plan     groups of up to kSmall tasks are done whole, many per work unit, their rows still in
//          cache when the gradient is written; larger ones one after the other, each in parallel.
// Traffic  reads each member row twice (the second time from cache in small groups), writes once.
// Bits     fixed units, fixed blocks within a large group (common/centered.h), sums in group order.
#include "common/centered.h"
#include "common/dispatch.h"
#include "common/edges.h"
#include "cpu/declare.h"
#include "kernels/group.h"

MTLFAST_DECLARE(MTLFAST_GROUP)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kSmall = 1024;

enum class Output { kNone, kGradient, kProx };

template <class T>
void write_rows(const T* w, const int64_t* member, int64_t begin, int64_t end, int64_t d,
                const typename Lane<T>::Real* hi, const typename Lane<T>::Real* lo, double scale,
                Output output, int64_t column, int64_t columns, T* out) {
  using Real = typename Lane<T>::Real;
  const auto affine =
      output == Output::kProx ? affine_row<T, Plus::mean> : affine_row<T, Plus::nothing>;
  for (int64_t k = begin; k < end; ++k) {
    const int64_t at = member[k] * d + column;
    affine(w + at, hi, lo, Real(scale), columns, out + at);
  }
}

// One small group: its value, and its rows of out.
template <class T>
double small_group(const T* w, const int64_t* member, int64_t n, int64_t d, double scale,
                   Output output, T* out) {
  using Real = typename Lane<T>::Real;
  double offset[kPanel];
  alignas(64) Real origin[kPanel], hi[kPanel], lo[kPanel];
  double squares = 0;
  for (int64_t column = 0; column < d; column += kPanel) {
    const int64_t columns = d - column < kPanel ? d - column : kPanel;
    const MemberRows<T> row{w + column, d, member};
    widen_row<T>(row(0), columns, origin);
    squares += block_moments<T>(row, n, columns, 1, origin, offset);
    if (output == Output::kNone) continue;
    for (int64_t j = 0; j < columns; ++j) {
      split_mean(double(origin[j]), offset[j], hi + j, lo + j);
    }
    write_rows(w, member, 0, n, d, hi, lo, scale, output, column, columns, out);
  }
  return squares;
}

template <class T>
double large_group(const T* w, const int64_t* member, int64_t n, int64_t d, double scale,
                   Output output, T* out, int threads) {
  using Real = typename Lane<T>::Real;
  Scratch<Real> mean(2 * d);
  const MemberRows<T> row{w, d, member};
  const double squares = centred_squares<T>(row, n, d, 1, mean.get(), threads);
  if (output != Output::kNone) {
    parallel_for(ceil_div(n, kSmall), n * d, threads, [&](int64_t unit) {
      const int64_t end = (unit + 1) * kSmall < n ? (unit + 1) * kSmall : n;
      write_rows(w, member, unit * kSmall, end, d, mean.get(), mean.get() + d, scale, output, 0, d,
                 out);
    });
  }
  return squares;
}

// scale_of(n) is the factor of (w_i − w̄_g) in a group of n tasks.
template <class T, class ScaleOf>
double all_groups(const T* w, const int64_t* ptr, const int64_t* member, int64_t G, int64_t d,
                  const ScaleOf& scale_of, Output output, T* out, int threads) {
  const RowChunks chunks(ptr, G, d);
  Scratch<double> values(chunks.count);
  parallel_for(chunks.count, chunks.work(d), threads, [&](int64_t c) {
    Sum sum;
    const int64_t end = chunks.first_row(c + 1);
    for (int64_t g = chunks.first_row(c); g < end; ++g) {
      const int64_t n = ptr[g + 1] - ptr[g];
      if (n < 2 || n > kSmall) continue;
      sum.add(2.0 * double(n) * small_group(w, member + ptr[g], n, d, scale_of(n), output, out));
    }
    values[c] = sum.value();
  });
  Sum sum;
  for (int64_t c = 0; c < chunks.count; ++c) sum.add(values[c]);
  for (int64_t g = 0; g < G; ++g) {
    const int64_t n = ptr[g + 1] - ptr[g];
    if (n <= kSmall) continue;
    sum.add(2.0 * double(n) *
            large_group(w, member + ptr[g], n, d, scale_of(n), output, out, threads));
  }
  return sum.value();
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void group_value(DType dtype, const void* w, const int64_t* ptr, const int64_t* member, int64_t G,
                 int64_t d, double* value, void* grad, double scale, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto scale_of = [&](int64_t n) { return 4.0 * scale * double(n); };
    *value = all_groups(static_cast<const T*>(w), ptr, member, G, d, scale_of,
                        grad != nullptr ? Output::kGradient : Output::kNone, static_cast<T*>(grad),
                        threads);
  });
}

void group_prox(DType dtype, const void* w, const int64_t* ptr, const int64_t* member, int64_t G,
                int64_t d, double step, void* out, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto scale_of = [&](int64_t n) { return 1.0 / (1.0 + 4.0 * double(n) * step); };
    all_groups(static_cast<const T*>(w), ptr, member, G, d, scale_of, Output::kProx,
               static_cast<T*>(out), threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
