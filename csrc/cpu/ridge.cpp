// Ridge:  Σ w²,  gradient 2w,  prox w/(1 + 2t): a sum of squares, and W times a number.
//
// Plan     W is n elements in a row, cut into fixed blocks; squares are summed in double, four sums of
//          eight lanes at a time, and blocks added in their order. Of double W they are squares of
//          √factor·w, which are in range wherever the result is.
// Traffic  reads W once, whether the sum, W times a number or both are wanted; writes once, past the
//          caches where the result is too large for them; added to what is there, it reads that too.
// Bits     the cut depends on n alone, so any thread count gives the same bits.
#include "common/centered.h"
#include "common/dispatch.h"
#include "cpu/declare.h"
#include "kernels/ridge.h"

MTLFAST_DECLARE(MTLFAST_RIDGE)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int kSums = 4;  // independent sums of eight lanes, so that additions overlap

template <class T>
constexpr int kHalves = Lane<T>::N / 8;  // vectors of double that a vector of T becomes

// What one call does to all elements.
template <class T>
struct Work {
  const T* w;
  T* out;                         // null: nothing is written
  typename Lane<T>::Real factor;  // out = factor·w
  double unit;                    // Σ (unit·w)² of double W
};

constexpr int64_t kAhead = 32;  // vectors between the one prefetched and the one read

template <class T, bool SUM, Plus PLUS, bool WRITE, bool STREAM>
MTLFAST_INLINE void vector_of(const Work<T>& work, int64_t j, int64_t n, F64* sum) {
  using Lanes = Lane<T>;
  using Vec = typename Lanes::Vec;
  const bool whole = n >= Lanes::N;
  const Vec w = whole ? Lanes::load(work.w + j) : load_part(work.w + j, n);
  if (SUM) {
    F64 x[kHalves<T>];
    widen_lanes(w, x);
    for (int h = 0; h < kHalves<T>; ++h) {
      const F64 y = sizeof(typename Lanes::Real) == sizeof(double) ? work.unit * x[h] : x[h];
      sum[h] += y * y;
    }
  }
  if (!WRITE) return;
  Vec y = work.factor * w;
  if (PLUS == Plus::out) y = (whole ? Lanes::load(work.out + j) : load_part(work.out + j, n)) + y;
  if (!whole) {
    store_part(work.out + j, y, n);
  } else {
    STREAM ? stream(work.out + j, y) : Lanes::store(work.out + j, y);
  }
}

// Elements [begin, end): the sum of squares, and what is written.
template <class T, bool SUM, Plus PLUS, bool WRITE, bool STREAM>
double block(const Work<T>& work, int64_t begin, int64_t end) {
  constexpr int N = Lane<T>::N, H = kHalves<T>;
  F64 sum[kSums] = {};
  int64_t j = begin;
  for (; j + kSums / H * N <= end; j += kSums / H * N) {
    for (int v = 0; v < kSums / H; ++v) {
      __builtin_prefetch(work.w + j + (v + kAhead) * N);
      vector_of<T, SUM, PLUS, WRITE, STREAM>(work, j + v * N, N, sum + v * H);
    }
  }
  for (; j < end; j += N) vector_of<T, SUM, PLUS, WRITE, STREAM>(work, j, end - j, sum);
  if (STREAM) stream_fence();
  return lane_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

template <class T, bool SUM, Plus PLUS, bool WRITE, bool STREAM>
double all_blocks(const Work<T>& work, int64_t n, int threads) {
  const int64_t blocks = ceil_div(n, kBlock);
  Scratch<double> parts(SUM ? blocks : 1);
  parallel_for_even(blocks, n, threads, [&](int64_t b) {
    const int64_t end = (b + 1) * kBlock < n ? (b + 1) * kBlock : n;
    const double part = block<T, SUM, PLUS, WRITE, STREAM>(work, b * kBlock, end);
    if (SUM) parts[b] = part;
  });
  Sum total;
  for (int64_t b = 0; SUM && b < blocks; ++b) total.add(parts[b]);
  return total.value();
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void ridge(DType dtype, const void* w, int64_t n, double factor, double* value, void* out,
           double scale, Plus plus, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    constexpr int64_t N = Lane<T>::N;
    const Work<T> work{static_cast<const T*>(w), static_cast<T*>(out), Real(scale),
                       __builtin_sqrt(factor)};
    const bool fresh = plus != Plus::out && out != w;
    const bool past = fresh && streams(out, n * int64_t(sizeof(T)), N * sizeof(T));
    const auto run = out == nullptr ? all_blocks<T, true, Plus::nothing, false, false>
                     : value == nullptr
                         ? (plus == Plus::out ? all_blocks<T, false, Plus::out, true, false>
                            : past            ? all_blocks<T, false, Plus::nothing, true, true>
                                              : all_blocks<T, false, Plus::nothing, true, false>)
                         : (plus == Plus::out ? all_blocks<T, true, Plus::out, true, false>
                            : past            ? all_blocks<T, true, Plus::nothing, true, true>
                                              : all_blocks<T, true, Plus::nothing, true, false>);
    const double sum = run(work, n, threads);
    if (value != nullptr) *value = sizeof(Real) == sizeof(double) ? sum : factor * sum;
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
