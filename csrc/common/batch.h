// Batches of small matrices, a matrix in each lane: a group of N matrices is transposed into
// [column][row][N], scaled, and handed to a thread.
#pragma once

#include "common/dispatch.h"
#include "common/jacobi.h"
#include "common/parallel.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int kTransposed = 16;  // elements transposed at once

// Matrices are [m, n] in memory and [q][p] in a group, q = min(m, n).
struct Shape {
  int64_t m, n, p, q;
  Shape(int64_t m, int64_t n) : m(m), n(n), p(m < n ? n : m), q(m < n ? m : n) {}
  // where the element after (i, j) of memory order goes
  MTLFAST_INLINE int64_t place(int64_t i, int64_t j) const { return m < n ? i * p + j : j * p + i; }
};

// Transposes `count` matrices into a group, a matrix in each lane; the other lanes are zero.
template <class T, class Real>
void load_group(const T* w, int64_t count, Shape s, typename Jacobi<Real>::Vec* group) {
  constexpr int N = Jacobi<Real>::N;
  using Source = typename Lane<T>::Real;
  alignas(64) Source tile[N][kTransposed] = {};
  Real* out = reinterpret_cast<Real*>(group);
  int64_t i = 0, j = 0;
  for (int64_t first = 0; first < s.m * s.n; first += kTransposed) {
    const int64_t width = s.m * s.n - first < kTransposed ? s.m * s.n - first : kTransposed;
    for (int64_t l = 0; l < count; ++l) {
      const T* from = w + l * s.m * s.n + first;
      for (int64_t k = 0; k < width; k += Lane<T>::N) {
        const bool whole = k + Lane<T>::N <= width;
        store_raw(tile[l] + k, whole ? Lane<T>::load(from + k) : load_part(from + k, width - k));
      }
    }
    for (int64_t k = 0; k < width; ++k) {
      Real* to = out + s.place(i, j) * N;
      for (int l = 0; l < N; ++l) to[l] = Real(tile[l][k]);
      if (++j == s.n) j = 0, ++i;
    }
  }
}

// The way back; a matrix that is not `wanted` is left as it is.
template <class T, class Real>
void store_group(const typename Jacobi<Real>::Vec* group, int64_t count, Shape s, T* w,
                 const bool* wanted = nullptr) {
  constexpr int N = Jacobi<Real>::N;
  using Target = typename Lane<T>::Real;
  using Vec = typename Lane<T>::Vec;
  alignas(64) Target tile[N][kTransposed] = {};
  const Real* in = reinterpret_cast<const Real*>(group);
  int64_t i = 0, j = 0;
  for (int64_t first = 0; first < s.m * s.n; first += kTransposed) {
    const int64_t width = s.m * s.n - first < kTransposed ? s.m * s.n - first : kTransposed;
    for (int64_t k = 0; k < width; ++k) {
      const Real* from = in + s.place(i, j) * N;
      for (int l = 0; l < N; ++l) tile[l][k] = Target(from[l]);
      if (++j == s.n) j = 0, ++i;
    }
    for (int64_t l = 0; l < count; ++l) {
      if (wanted != nullptr && !wanted[l]) continue;
      T* to = w + l * s.m * s.n + first;
      for (int64_t k = 0; k < width; k += Lane<T>::N) {
        const Vec v = load_raw<Vec>(tile[l] + k);
        if (k + Lane<T>::N <= width) Lane<T>::store(to + k, v);
        else store_part(to + k, v, width - k);
      }
    }
  }
}

template <class Real>
struct Scaling {
  using Vec = typename Jacobi<Real>::Vec;
  int exponent[Jacobi<Real>::N];
  bool finite[Jacobi<Real>::N];

  // v·2^(sign·exponent), in two steps: one factor alone may over- or underflow
  void apply(Vec* v, int64_t size, int sign) const {
    Vec first, second;
    for (int l = 0; l < Jacobi<Real>::N; ++l) {
      const int half = sign * exponent[l] / 2;
      first[l] = Real(__builtin_ldexp(1.0, half));
      second[l] = Real(__builtin_ldexp(1.0, sign * exponent[l] - half));
    }
    // adding 0 turns −0 into 0: an exact rotation then keeps every bit
    for (int64_t i = 0; i < size; ++i) v[i] = v[i] * first * second + Real(0);
  }

  // Finds the scale of every lane and brings the group to it; a lane that is not finite becomes 0.
  void normalise(Vec* v, int64_t size) {
    using Mask = typename Jacobi<Real>::Mask;
    Vec largest = {};
    Mask finite_lanes = ~Mask{};
    for (int64_t i = 0; i < size; ++i) {
      const Vec x = v[i], size_of_x = select<Real>((Mask)(x < Vec{}), -x, x);
      largest = select<Real>((Mask)(size_of_x > largest), size_of_x, largest);
      finite_lanes &= (Mask)(x - x == Vec{});
    }
    for (int l = 0; l < Jacobi<Real>::N; ++l) {
      finite[l] = finite_lanes[l] != 0;
      exponent[l] = 0;
      if (finite[l] && largest[l] > 0) __builtin_frexp(double(largest[l]), &exponent[l]);
    }
    if (any(~finite_lanes)) {
      for (int64_t i = 0; i < size; ++i) v[i] = select<Real>(finite_lanes, v[i], Vec{});
    }
    apply(v, size, -1);
  }
};

// Calls body(group, first matrix, how many) for every group of N matrices.
template <class Real, template <class> class Group, class Body>
void for_groups(int64_t B, Shape s, int threads, const Body& body) {
  constexpr int N = Jacobi<Real>::N;
  const int64_t groups = ceil_div(B, N);
  const int64_t workers = threads < groups ? (threads < 1 ? 1 : threads) : groups;
  using Vec = typename Jacobi<Real>::Vec;
  const int64_t stride = Group<Real>::size(s);
  Scratch<Vec> memory(workers * stride);
  int64_t next = 0;
  parallel_for(workers, B * s.p * s.q * s.q * 8, threads, [&](int64_t worker) {
    Group<Real> group(memory.get() + worker * stride, s);
    for (;;) {
      const int64_t g = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
      if (g >= groups) return;
      check_interrupt();
      body(group, g * N, B - g * N < N ? B - g * N : N);
    }
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
