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
#include "common/batch.h"
#include "cpu/declare.h"
#include "cpu/trace_norm_routes.h"
#include "kernels/trace_norm.h"

MTLFAST_DECLARE(MTLFAST_TRACE_NORM)

namespace mtlfast {
namespace MTLFAST_ISA {

namespace {

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

template <class T, class Real>
void value(const T* w, int64_t B, Shape s, double* value, T* grad, int threads) {
  using Traits = Jacobi<Real>;
  using Vec = typename Traits::Vec;
  using Mask = typename Traits::Mask;
  const double eps = Jacobi<typename Lane<T>::Real>::kEps;
  const Real cut = Real(double(s.p) * eps);
  for_groups<Real, Group>(B, s, threads, [&](Group<Real>& g, int64_t first, int64_t count) {
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
      value[first + l] =
          scaling.finite[l] ? __builtin_ldexp(sum[l], scaling.exponent[l]) : __builtin_nan("");
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
  for_groups<Real, Group>(B, s, threads, [&](Group<Real>& g, int64_t first, int64_t count) {
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

template <class T>
void marked_ones(DType dtype, const T* w, int64_t B, Shape s, const char* marked, double* value,
                 T* grad, int threads) {
  int64_t count = 0;
  for (int64_t b = 0; b < B; ++b) count += marked[b] != 0;
  if (count == 0) return;
  const int64_t size = s.p * s.q;
  const size_t bytes = size_t(size) * sizeof(T);
  Scratch<T> from(count * size), to(grad != nullptr ? count * size : 0);
  Scratch<double> norm(count);
  int64_t k = 0;
  for (int64_t b = 0; b < B; ++b) {
    if (marked[b]) std::memcpy(from.get() + size * k++, w + b * size, bytes);
  }
  trace_norm_value(dtype, from.get(), count, s.m, s.n, norm.get(),
                   grad != nullptr ? to.get() : nullptr, threads);
  k = 0;
  for (int64_t b = 0; b < B; ++b) {
    if (!marked[b]) continue;
    if (value != nullptr) value[b] = norm[k];
    if (grad != nullptr) std::memcpy(grad + b * size, to.get() + size * k, bytes);
    ++k;
  }
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

void trace_norm_marked(DType dtype, const void* w, int64_t B, int64_t m, int64_t n,
                       const char* marked, double* value, void* grad, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    marked_ones(dtype, static_cast<const T*>(w), B, Shape(m, n), marked, value,
                static_cast<T*>(grad), threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
