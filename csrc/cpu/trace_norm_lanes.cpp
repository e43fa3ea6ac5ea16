// Nuclear norm, its subgradient and its prox for batches of small float32 and 16-bit matrices: the
// Gram matrices of trace_norm_gram.cpp, several at once.
//
// Plan: a group of eight matrices, one in each lane of double, is transposed into [column][row][8]
// and scaled by powers of two; groups are handed to the threads. G = AᵀA, its eigenvectors and
// A Σ (h/σ_k) v_k v_kᵀ are taken in double. Matrices whose spectrum the noise of G would show in go
// through the rotations of trace_norm.cpp afterwards, by the rules of trace_norm_gram.cpp.
// Traffic: w is read once, the result written once; a group lives in L2.
#include "common/batch.h"
#include "common/eigen_lanes.h"
#include "cpu/declare.h"
#include "cpu/trace_norm_routes.h"

namespace mtlfast {
namespace MTLFAST_ISA {

namespace {

constexpr double kGraded = 0x1p-12;  // σ_k/σ_1 below which a subgradient needs rotations

using Mask = Jacobi<double>::Mask;

template <class Real>
class Group {
  static_assert(sizeof(Real) == 8, "lanes are doubles");
  Shape s_;
  F64 *f_, *rows_;

 public:
  F64 *a, *sigma;  // [q, p] the columns of the matrices; [q] their singular values
  EigenLanes eigen;
  F64 largest, noise;  // σ_1, and how far σ² may be off

  static int64_t size(Shape s) {
    return s.p * s.q + s.q * s.q + s.q * kDots + s.q + EigenLanes::size(s.q);
  }

  Group(F64* memory, Shape s)
      : s_(s), f_(memory), rows_(f_ + s.q * s.q), a(rows_ + s.q * kDots), sigma(a + s.p * s.q),
        eigen(s.q, sigma + s.q) {}

  void solve(bool vectors) {
    const int64_t q = s_.q;
    inner_products(a, s_.p, q, a, s_.p, q, s_.p, true,
                   [&](int64_t j, int64_t k, F64 x) { eigen.a[j * q + k] = x; });
    eigen.solve(vectors);
    F64 top = {};
    for (int64_t k = 0; k < q; ++k) {
      const F64 square = eigen.d[k] > F64{} ? eigen.d[k] : F64{};
      sigma[k] = root<double>(square);
      top = square > top ? square : top;
    }
    largest = root<double>(top);
    noise = top * (0x1p-52 * double(s_.p + 1));
  }

  // Σ σ_k; `error` receives what the noise may do to it.
  F64 sum(F64* error) const {
    F64 total = {}, bound = {};
    const F64 half_noise = root<double>(noise);
    for (int64_t k = 0; k < s_.q; ++k) {
      const F64 x = eigen.d[k] > noise ? sigma[k] : F64{};
      total += x;
      bound += x > half_noise ? noise / x : half_noise;
    }
    *error = bound;
    return total;
  }

  // a ← A Σ_k weight(σ_k) v_k v_kᵀ.
  template <class Weight>
  void multiply(const Weight& weight) {
    const int64_t p = s_.p, q = s_.q;
    F64* weighted = eigen.a;
    for (int64_t k = 0; k < q; ++k) {
      const F64 h = weight(sigma[k]);
      for (int64_t j = 0; j < q; ++j) weighted[j * q + k] = h * eigen.q[j * q + k];
    }
    inner_products(weighted, q, q, eigen.q, q, q, q, true,
                   [&](int64_t j, int64_t k, F64 x) { f_[j * q + k] = f_[k * q + j] = x; });
    for (int64_t i = 0; i < p; i += kDots) {
      const int64_t count = p - i < kDots ? p - i : kDots;
      for (int64_t k = 0; k < q; ++k) {
        for (int64_t r = 0; r < count; ++r) rows_[r * q + k] = a[k * p + i + r];
      }
      inner_products(rows_, q, count, f_, q, q, q, false,
                     [&](int64_t r, int64_t k, F64 x) { a[k * p + i + r] = x; });
    }
  }
};

template <class T>
void value(DType dtype, const T* w, int64_t B, Shape s, double* value, T* grad, int threads) {
  const double cut = double(s.p) * 0x1p-23;
  const int64_t size = s.p * s.q;
  Scratch<char> uncertain(B), hard(B);
  for_groups<double, Group>(B, s, threads, [&](Group<double>& g, int64_t first, int64_t count) {
    load_group<T, double>(w + first * size, count, s, g.a);
    Scaling<double> scaling;
    scaling.normalise(g.a, size);
    g.solve(grad != nullptr);
    F64 error;
    const F64 total = g.sum(&error);
    for (int64_t l = 0; l < count; ++l) {
      value[first + l] =
          scaling.finite[l] ? __builtin_ldexp(total[l], scaling.exponent[l]) : __builtin_nan("");
      uncertain[first + l] = error[l] > 0x1p-21 * total[l];
    }
    if (grad == nullptr) return;
    Mask graded = {};
    for (int64_t k = 0; k < s.q; ++k) {
      graded |=
          (Mask)(g.sigma[k] > 0.5 * cut * g.largest) & (Mask)(g.sigma[k] < kGraded * g.largest);
    }
    for (int64_t l = 0; l < count; ++l) hard[first + l] = graded[l] != 0;
    g.multiply([&](F64 sigma) { return sigma > cut * g.largest ? 1 / sigma : F64{}; });
    store_group<T, double>(g.a, count, s, grad + first * size);
  });
  trace_norm_marked(dtype, w, B, s.m, s.n, uncertain.get(), value, nullptr, threads);
  if (grad == nullptr) return;
  trace_norm_marked(dtype, w, B, s.m, s.n, hard.get(), nullptr, grad, threads);
}

template <class T>
void prox(const T* w, const double* threshold, int64_t B, Shape s, T* out, int64_t* finite,
          int threads) {
  const int64_t size = s.p * s.q;
  for_groups<double, Group>(B, s, threads, [&](Group<double>& g, int64_t first, int64_t count) {
    load_group<T, double>(w + first * size, count, s, g.a);
    Scaling<double> scaling;
    scaling.normalise(g.a, size);
    g.solve(true);
    F64 t = {};
    for (int64_t l = 0; l < count; ++l) {
      t[l] = __builtin_ldexp(threshold[first + l], -scaling.exponent[l]);
      finite[first + l] = scaling.finite[l];
    }
    const F64 one = F64{} + 1;
    g.multiply([&](F64 sigma) { return t == F64{} ? one : (sigma > t ? one - t / sigma : F64{}); });
    scaling.apply(g.a, size, 1);
    store_group<T, double>(g.a, count, s, out + first * size, scaling.finite);
  });
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void trace_norm_lanes_value(DType dtype, const void* w, int64_t B, int64_t m, int64_t n,
                            double* value, void* grad, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) < 8) {
      MTLFAST_ISA::value(dtype, static_cast<const T*>(w), B, Shape(m, n), value,
                         static_cast<T*>(grad), threads);
    }
  });
}

void trace_norm_lanes_prox(DType dtype, const void* w, const double* threshold, int64_t B,
                           int64_t m, int64_t n, void* out, int64_t* finite, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) < 8) {
      prox(static_cast<const T*>(w), threshold, B, Shape(m, n), static_cast<T*>(out), finite,
           threads);
    }
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
