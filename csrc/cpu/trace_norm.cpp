// Nuclear norm, its subgradient and its prox for batches of small matrices.
//
// With A the matrix whose columns are the short side of w and b = A·V from one-sided Jacobi,
// b_k = σ_k u_k: value = Σ σ_k, and any Σ h(σ_k) u_k v_kᵀ is Σ b_k (h/σ_k³) (b_kᵀA), without V. The
// columns of b are orthogonal relative to their own length, so the error stays near u·σ_1·(h/σ_k).
//
// Plan: a group of N matrices, one in each lane, is transposed into [column][row][N]; groups are
// handed to the threads. Traffic: w is read once, the result written once; a group lives in L2.
// Float lanes hold float32 and 16-bit values and proxes; double lanes hold float64 and every
// subgradient, whose u_k v_kᵀ have no error bound in σ_1/σ_k·2⁻²⁴ near the rank cut.
// Each matrix is scaled by the power of two that brings its largest entry into [½, 1): nothing over-
// or underflows, and f(2ᵏw) = 2ᵏf(w) to the bit.
#include "common/dispatch.h"
#include "common/jacobi.h"
#include "common/parallel.h"
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {

namespace {

constexpr int kTile = 16;  // elements transposed at once

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
  alignas(64) Source tile[N][kTile] = {};
  Real* out = reinterpret_cast<Real*>(group);
  int64_t i = 0, j = 0;
  for (int64_t first = 0; first < s.m * s.n; first += kTile) {
    const int64_t width = s.m * s.n - first < kTile ? s.m * s.n - first : kTile;
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

template <class T, class Real>
void store_group(const typename Jacobi<Real>::Vec* group, int64_t count, Shape s, T* w) {
  constexpr int N = Jacobi<Real>::N;
  using Target = typename Lane<T>::Real;
  using Vec = typename Lane<T>::Vec;
  alignas(64) Target tile[N][kTile] = {};
  const Real* in = reinterpret_cast<const Real*>(group);
  int64_t i = 0, j = 0;
  for (int64_t first = 0; first < s.m * s.n; first += kTile) {
    const int64_t width = s.m * s.n - first < kTile ? s.m * s.n - first : kTile;
    for (int64_t k = 0; k < width; ++k) {
      const Real* from = in + s.place(i, j) * N;
      for (int l = 0; l < N; ++l) tile[l][k] = Target(from[l]);
      if (++j == s.n) j = 0, ++i;
    }
    for (int64_t l = 0; l < count; ++l) {
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

// a_j ← Σ_k b_k weight_k (b_k·a_j) for the columns of a [q, p]; weight and c are [q].
template <class Vec>
void recombine(const Vec* b, const Vec* weight, int64_t p, int64_t q, Vec* a, Vec* c) {
  for (int64_t j = 0; j < q; ++j) {
    Vec* z = a + j * p;
    for (int64_t k = 0; k < q; ++k) c[k] = weight[k] * dot(b + k * p, z, p);
    for (int64_t i = 0; i < p; ++i) z[i] = Vec{};
    int64_t k = 0;
    for (; k + 4 <= q; k += 4) {
      const Vec *b0 = b + k * p, *b1 = b0 + p, *b2 = b1 + p, *b3 = b2 + p;
      const Vec c0 = c[k], c1 = c[k + 1], c2 = c[k + 2], c3 = c[k + 3];
      for (int64_t i = 0; i < p; ++i) {
        z[i] = (((z[i] + b0[i] * c0) + b1[i] * c1) + b2[i] * c2) + b3[i] * c3;
      }
    }
    for (; k < q; ++k) {
      for (int64_t i = 0; i < p; ++i) z[i] += b[k * p + i] * c[k];
    }
  }
}

// What a group needs: the matrices, their rotated columns and three vectors of length q.
template <class Real>
struct Group {
  using Vec = typename Jacobi<Real>::Vec;
  Vec *a, *b, *norm, *weight, *c;
  static int64_t size(Shape s) { return 2 * s.p * s.q + 3 * s.q; }
  Group(Vec* memory, Shape s)
      : a(memory), b(a + s.p * s.q), norm(b + s.p * s.q), weight(norm + s.q), c(weight + s.q) {}
};

// Calls body(group, first matrix, how many) for every group of N matrices.
template <class Real, class Body>
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
      body(group, g * N, B - g * N < N ? B - g * N : N);
    }
  });
}

template <class T, class Real>
void value(const T* w, int64_t B, Shape s, double* value, T* grad, int threads) {
  using Traits = Jacobi<Real>;
  using Vec = typename Traits::Vec;
  using Mask = typename Traits::Mask;
  const double eps = Jacobi<typename Lane<T>::Real>::kEps;
  const Real cut = Real(double(s.p) * eps);
  for_groups<Real>(B, s, threads, [&](Group<Real>& g, int64_t first, int64_t count) {
    const int64_t size = s.p * s.q;
    load_group<T, Real>(w + first * size, count, s, g.b);
    Scaling<Real> scaling;
    scaling.normalise(g.b, size);
    if (grad != nullptr) std::memcpy(g.a, g.b, size * sizeof(Vec));
    orthogonalise<Real>(g.b, s.p, s.q, g.norm);

    double sum[Traits::N] = {};
    Vec largest = {};
    for (int64_t k = 0; k < s.q; ++k) {
      const Vec sigma = root<Real>(g.norm[k]);
      for (int l = 0; l < Traits::N; ++l) sum[l] += double(sigma[l]);
      largest = select<Real>((Mask)(sigma > largest), sigma, largest);
    }
    for (int64_t l = 0; l < count; ++l) {
      value[first + l] = scaling.finite[l] ? __builtin_ldexp(sum[l], scaling.exponent[l])
                                           : __builtin_nan("");
    }
    if (grad == nullptr) return;
    for (int64_t k = 0; k < s.q; ++k) {
      const Vec sigma = root<Real>(g.norm[k]);
      const Mask in_rank = (Mask)(sigma > largest * cut) & (Mask)(g.norm[k] > Traits::kTiny);
      g.weight[k] = select<Real>(in_rank, Real(1) / (g.norm[k] * sigma), Vec{});
    }
    recombine(g.b, g.weight, s.p, s.q, g.a, g.c);
    store_group<T, Real>(g.a, count, s, grad + first * size);
  });
}

template <class T>
void prox(const T* w, const double* threshold, int64_t B, Shape s, T* out, int threads) {
  using Real = typename Lane<T>::Real;
  using Traits = Jacobi<Real>;
  using Vec = typename Traits::Vec;
  using Mask = typename Traits::Mask;
  for_groups<Real>(B, s, threads, [&](Group<Real>& g, int64_t first, int64_t count) {
    const int64_t size = s.p * s.q;
    load_group<T, Real>(w + first * size, count, s, g.a);
    Scaling<Real> scaling;
    scaling.normalise(g.a, size);
    std::memcpy(g.b, g.a, size * sizeof(Vec));
    orthogonalise<Real>(g.b, s.p, s.q, g.norm);

    Vec t = {};
    for (int64_t l = 0; l < count; ++l) {
      t[l] = Real(__builtin_ldexp(threshold[first + l], -scaling.exponent[l]));
    }
    for (int64_t k = 0; k < s.q; ++k) {
      const Vec sigma = root<Real>(g.norm[k]);
      const Mask active = (Mask)(sigma > t) & (Mask)(g.norm[k] > Traits::kTiny);
      g.weight[k] = select<Real>(active, (sigma - t) / (g.norm[k] * sigma), Vec{});
    }
    recombine(g.b, g.weight, s.p, s.q, g.a, g.c);
    scaling.apply(g.a, size, 1);
    for (int64_t l = 0; l < count; ++l) {
      if (scaling.finite[l]) continue;
      for (int64_t i = 0; i < size; ++i) g.a[i][l] = Real(__builtin_nan(""));
    }
    store_group<T, Real>(g.a, count, s, out + first * size);
  });
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void trace_norm_value(DType dtype, const void* w, int64_t B, int64_t m, int64_t n, double* value,
                      void* grad, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto run = grad == nullptr ? MTLFAST_ISA::value<T, typename Lane<T>::Real>
                                     : MTLFAST_ISA::value<T, double>;
    run(static_cast<const T*>(w), B, Shape(m, n), value, static_cast<T*>(grad), threads);
  });
}

void trace_norm_prox(DType dtype, const void* w, const double* threshold, int64_t B, int64_t m,
                     int64_t n, void* out, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    prox(static_cast<const T*>(w), threshold, B, Shape(m, n), static_cast<T*>(out), threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
