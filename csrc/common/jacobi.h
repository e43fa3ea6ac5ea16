// Singular values of several matrices at once: one-sided Jacobi (Hestenes), a matrix in each lane.
//
// The columns of b are turned in pairs until they are orthogonal: b = A·V with b_k = σ_k u_k. V is
// not kept. Every lane is on its own: a lane whose pair is orthogonal already is turned by c = 1,
// s = 0, which is exact, and a lane that has converged stays as it is however long the others take.
// So the bits of a matrix do not depend on its neighbours. Columns below `tiny` (relative to entries
// of at most 1) are left alone: they are under the last bit of any result.
#pragma once

#include "common/lanes.h"
#include "common/rotation.h"
#include "interrupt.h"

namespace mtlfast {
namespace MTLFAST_ISA {

template <class Real>
struct Jacobi;

template <>
struct Jacobi<float> {
  using Vec = F32;
  using Mask = int32_t __attribute__((vector_size(64)));
  static constexpr int N = 16;
  static constexpr float kTol2 = 0x1p-44f;  // squared cosine that counts as orthogonal
  static constexpr float kTiny = 1e-18f;    // squared norm that counts as zero
  static constexpr float kEps = 0x1p-23f;
  static MTLFAST_INLINE float root(float x) { return __builtin_sqrtf(x); }
};

template <>
struct Jacobi<double> {
  using Vec = F64;
  using Mask = int64_t __attribute__((vector_size(64)));
  static constexpr int N = 8;
  static constexpr double kTol2 = kOrthogonal2;
  static constexpr double kTiny = kZero2;
  static constexpr double kEps = 0x1p-52;
  static MTLFAST_INLINE double root(double x) { return __builtin_sqrt(x); }
};

constexpr int64_t kLongColumns = 4096;  // from here on a pair is long: it may be interrupted
constexpr int64_t kColumns = 4;         // block of columns: 4×4 independent pairs, which stay in L1

template <class Real, class Mask = typename Jacobi<Real>::Mask, class Vec>
MTLFAST_INLINE Vec select(Mask mask, Vec yes, Vec no) {
  return (Vec)((mask & (Mask)yes) | (~mask & (Mask)no));
}

template <class Mask>
MTLFAST_INLINE bool any(Mask mask) {
  int64_t word[8], all = 0;
  std::memcpy(word, &mask, sizeof word);
  for (int64_t w : word) all |= w;
  return all != 0;
}

template <class Real, class Vec>
MTLFAST_INLINE Vec root(Vec v) {
  constexpr int N = Jacobi<Real>::N;
  alignas(64) Real lane[N];
  store_raw(lane, v);
  for (int l = 0; l < N; ++l) lane[l] = Jacobi<Real>::root(lane[l]);
  return load_raw<Vec>(lane);
}

template <class Vec>
MTLFAST_INLINE Vec dot(const Vec* x, const Vec* y, int64_t p) {
  Vec s[4] = {};
  int64_t i = 0;
  for (; i + 4 <= p; i += 4) {
    for (int r = 0; r < 4; ++r) s[r] += x[i + r] * y[i + r];
  }
  for (; i < p; ++i) s[0] += x[i] * y[i];
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// Makes columns x and y orthogonal; a and b are their squared norms. False when no lane turned.
template <class Real, class Vec = typename Jacobi<Real>::Vec>
MTLFAST_INLINE bool turn(Vec* x, Vec* y, Vec* a, Vec* b, int64_t p) {
  using Traits = Jacobi<Real>;
  using Mask = typename Traits::Mask;
  const Vec d = dot(x, y, p), old_a = *a, old_b = *b;
  const Mask turned = (Mask)(d * d > Traits::kTol2 * (old_a * old_b)) &
                      (Mask)(old_a > Traits::kTiny) & (Mask)(old_b > Traits::kTiny);
  if (!any(turned)) return false;

  const Vec gap = old_b - old_a, twice = d + d;
  const Mask falling = (Mask)(gap < Vec{});
  const Vec width = select<Real>(falling, -gap, gap) + root<Real>(gap * gap + twice * twice);
  const Vec tangent = select<Real>(turned, select<Real>(falling, -twice, twice) / width, Vec{});
  // c = 1/√(1+t²) without a bias: see find_rotation
  const Vec r = root<Real>(Real(1) + tangent * tangent), inverse = Real(1) / (r * (Real(1) + r));
  const Vec c = Real(1) - tangent * tangent * inverse, s = tangent * ((Real(1) + r) * inverse);
  for (int64_t i = 0; i < p; ++i) {
    const Vec xi = x[i], yi = y[i];
    x[i] = c * xi - s * yi;
    y[i] = s * xi + c * yi;
  }
  // the update cancels where a column nearly vanishes: there the norm is taken anew
  const Vec shift = tangent * d;
  Vec new_a = old_a - shift, new_b = old_b + shift;
  const Mask lost_a = (Mask)(new_a < old_a * Real(1.0 / 64));
  const Mask lost_b = (Mask)(new_b < old_b * Real(1.0 / 64));
  if (any(lost_a)) new_a = select<Real>(lost_a, dot(x, x, p), new_a);
  if (any(lost_b)) new_b = select<Real>(lost_b, dot(y, y, p), new_b);
  *a = new_a;
  *b = new_b;
  return true;
}

// Orthogonalises the q columns of b [q, p] in place; norm [q] receives their squared norms.
template <class Real, class Vec = typename Jacobi<Real>::Vec>
inline void orthogonalise(Vec* b, int64_t p, int64_t q, Vec* norm) {
  const auto pair = [&](int64_t j, int64_t k) __attribute__((always_inline)) {
    if (p >= kLongColumns) check_interrupt();
    return turn<Real>(b + j * p, b + k * p, norm + j, norm + k, p);
  };
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    for (int64_t k = 0; k < q; ++k) norm[k] = dot(b + k * p, b + k * p, p);
    bool turned = false;
    for (int64_t first = 0; first < q; first += kColumns) {
      const int64_t end = first + kColumns < q ? first + kColumns : q;
      for (int64_t j = first; j < end; ++j) {
        for (int64_t k = j + 1; k < end; ++k) turned |= pair(j, k);
      }
      for (int64_t second = end; second < q; second += kColumns) {
        for (int64_t step = 0; step < kColumns; ++step) {
          for (int64_t j = first; j < end; ++j) {
            const int64_t k = second + (j - first + step) % kColumns;
            if (k < q) turned |= pair(j, k);
          }
        }
      }
    }
    if (!turned) return;
  }
  for (int64_t k = 0; k < q; ++k) norm[k] = dot(b + k * p, b + k * p, p);
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
