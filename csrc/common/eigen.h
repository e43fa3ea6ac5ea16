// Eigenvalues and eigenvectors of a symmetric matrix in double: Householder reduction to a
// tridiagonal matrix, then QL with implicit shifts (EISPACK's tred2 and imtql2, vectors in rows).
//
// Matrices are [n][ld], ld a multiple of 8 and at least n. Loops over columns run over vectors; the
// recurrence of the rotations is serial, and the machine overlaps it with applying them. Entries are
// 0 or within 1e±150, for squares are formed. Scaling a by a power of two scales the eigenvalues and
// changes nothing else, to the bit.
#pragma once

#include "common/lanes.h"

namespace mtlfast {
namespace MTLFAST_ISA {

class Eigen {
 public:
  int64_t n, ld;
  double* a;  // [n, ld] symmetric, both triangles; receives the eigenvectors in its rows
  double* q;  // [n, ld] scratch
  double* d;  // [ld] receives the eigenvalues, in no order

  static int64_t size(int64_t n, int64_t ld) { return 2 * n * ld + 6 * ld; }

  Eigen(int64_t n, int64_t ld, double* memory)
      : n(n), ld(ld), a(memory), q(a + n * ld), d(q + n * ld), e_(d + ld), tau_(e_ + ld),
        v_(tau_ + ld), w_(v_ + ld), p_(w_ + ld) {}

  void values() {
    reduce();
    ql(nullptr);
  }

  void vectors() {
    reduce();
    accumulate();
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) a[j * ld + i] = q[i * ld + j];
      for (int64_t j = n; j < ld; ++j) a[i * ld + j] = 0;
    }
    ql(a);
  }

 private:
  static constexpr int kMaxIterations = 60;  // per eigenvalue; 1 to 3 are needed
  double *e_, *tau_;                         // [ld] between i − 1 and i; the factor of reflector i
  double *v_, *w_, *p_;                      // [ld]

  static MTLFAST_INLINE F64 at(const double* p) { return load_raw<F64>(p); }
  static MTLFAST_INLINE double magnitude(double x) { return x < 0 ? -x : x; }

  static double inner(const double* x, const double* y, int64_t n) {
    F64 sum = {};
    for (int64_t c = 0; c < n; c += 8) sum += at(x + c) * at(y + c);
    return lane_sum(sum);
  }

  // The first i elements of x times scale, zeros up to the end of the row. out may be x.
  void take(const double* x, int64_t i, double scale, double* out) const {
    for (int64_t c = 0; c < ld; c += 8) {
      F64 part = {};
      if (c < i) part = at(x + c) * scale;
      if (c < i && i - c < 8) part = keep_first(part, i - c);
      store_raw(out + c, part);
    }
  }

  // For S vectors of columns from c: a −= v wᵀ + w vᵀ in rows k < i, and p = Σ_k u_k a_k of these.
  template <int S>
  MTLFAST_INLINE void strip(int64_t i, int64_t c, const double* u) {
    F64 vc[S], wc[S], sum[S] = {};
    for (int s = 0; s < S; ++s) {
      vc[s] = at(v_ + c + 8 * s);
      wc[s] = at(w_ + c + 8 * s);
    }
    for (int64_t k = 0; k < i; ++k) {
      double* row = a + k * ld + c;
      const double vk = v_[k], wk = w_[k], uk = u[k];
      for (int s = 0; s < S; ++s) {
        const F64 x = at(row + 8 * s) - (vk * wc[s] + wk * vc[s]);
        store_raw(row + 8 * s, x);
        sum[s] += uk * x;
      }
    }
    for (int s = 0; s < S; ++s) store_raw(p_ + c + 8 * s, sum[s]);
  }

  // a becomes the reflectors, that of step i in row i; d and e_ the tridiagonal matrix.
  // The update of a step waits for the next one, which passes over the matrix anyway.
  void reduce() {
    for (int64_t c = 0; c < ld; ++c) v_[c] = w_[c] = 0;
    for (int64_t i = n - 1; i > 0; --i) {
      double* row = a + i * ld;
      for (int64_t c = 0; c <= i; c += 8) {
        store_raw(row + c, at(row + c) - (v_[i] * at(w_ + c) + w_[i] * at(v_ + c)));
      }
      d[i] = row[i];
      take(row, i, 1, row);
      tau_[i] = reflector(row, i);
      int64_t c = 0;
      for (; c + 24 < i; c += 32) strip<4>(i, c, row);
      for (; c < i; c += 8) strip<1>(i, c, row);
      take(p_, i, tau_[i], p_);
      const double half = 0.5 * tau_[i] * inner(p_, row, i);
      for (c = 0; c < ld; c += 8) {
        store_raw(v_ + c, at(row + c));
        store_raw(w_ + c, at(p_ + c) - half * at(row + c));
      }
    }
    d[0] = a[0] - 2 * (v_[0] * w_[0]);
  }

  // x [i] becomes u with (1 − tau u uᵀ) x = e_[i] (0, …, 0, 1); returns tau.
  double reflector(double* x, int64_t i) {
    const double last = x[i - 1];
    x[i - 1] = 0;
    const double rest = inner(x, x, i);
    e_[i] = last;
    if (!(rest > 0)) {
      for (int64_t k = 0; k < i; ++k) x[k] = 0;
      return 0;
    }
    const double length = __builtin_sqrt(last * last + rest);
    e_[i] = last > 0 ? -length : length;
    x[i - 1] = last - e_[i];
    return 1 / (length * (length + magnitude(last)));
  }

  // For S vectors of columns from c: q ← (1 − tau u uᵀ) q in rows k < i.
  template <int S>
  MTLFAST_INLINE void reflect(int64_t i, int64_t c, const double* u) {
    F64 sum[S] = {};
    for (int64_t k = 0; k < i; ++k) {
      for (int s = 0; s < S; ++s) sum[s] += u[k] * at(q + k * ld + c + 8 * s);
    }
    for (int s = 0; s < S; ++s) sum[s] *= tau_[i];
    for (int64_t k = 0; k < i; ++k) {
      double* row = q + k * ld + c;
      for (int s = 0; s < S; ++s) store_raw(row + 8 * s, at(row + 8 * s) - u[k] * sum[s]);
    }
  }

  // q = H_{n−1} … H_1, the product of the reflectors.
  void accumulate() {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < ld; ++j) q[i * ld + j] = 0;
      q[i * ld + i] = 1;
    }
    for (int64_t i = 1; i < n; ++i) {
      if (tau_[i] == 0) continue;
      const double* u = a + i * ld;
      int64_t c = 0;
      for (; c + 24 < i; c += 32) reflect<4>(i, c, u);
      for (; c < i; c += 8) reflect<1>(i, c, u);
    }
  }

  // Rows x and x + ld of the vectors become c·x − s·y and s·x + c·y.
  MTLFAST_INLINE void rotate(double* x, double c, double s) const {
    double* y = x + ld;
    for (int64_t k = 0; k < ld; k += 8) {
      const F64 xk = at(x + k), yk = at(y + k);
      store_raw(x + k, c * xk - s * yk);
      store_raw(y + k, s * xk + c * yk);
    }
  }

  // An entry beside the diagonal that is below the rounding of its neighbours or of the matrix
  // counts as zero.
  void ql(double* z) {
    constexpr double eps = 0x1p-53;
    double norm = n > 0 ? magnitude(d[0]) : 0;
    for (int64_t i = 1; i < n; ++i) {
      e_[i - 1] = e_[i];
      const double size = magnitude(d[i]) + magnitude(e_[i]);
      norm = size > norm ? size : norm;
    }
    e_[n - 1] = 0;
    const double floor = norm * (0.5 * eps);
    for (int64_t l = 0; l < n; ++l) {
      for (int iteration = 0; iteration < kMaxIterations; ++iteration) {
        int64_t m = l;
        for (; m + 1 < n; ++m) {
          const double size = magnitude(e_[m]);
          if (size <= floor || size <= eps * (magnitude(d[m]) + magnitude(d[m + 1]))) break;
        }
        if (m == l) break;
        sweep(l, m, z);
      }
    }
  }

  void sweep(int64_t l, int64_t m, double* z) {
    double g = (d[l + 1] - d[l]) / (2 * e_[l]);
    double r = __builtin_sqrt(g * g + 1);
    g = d[m] - d[l] + e_[l] / (g + (g < 0 ? -r : r));
    double s = 1, c = 1, p = 0;
    for (int64_t i = m - 1; i >= l; --i) {
      const double f = s * e_[i], b = c * e_[i];
      const double square = f * f + g * g;
      if (square < 1e-290) {  // nothing is left to turn
        d[i + 1] -= p;
        e_[i + 1] = e_[m] = 0;
        return;
      }
      r = __builtin_sqrt(square);
      e_[i + 1] = r;
      const double inverse = r * (1 / square);  // the division does not wait for the root
      s = f * inverse;
      c = g * inverse;
      g = d[i + 1] - p;
      r = (d[i] - g) * s + 2 * (c * b);
      p = s * r;
      d[i + 1] = g + p;
      g = c * r - b;
      if (z != nullptr) rotate(z + i * ld, c, s);
    }
    d[l] -= p;
    e_[l] = g;
    e_[m] = 0;
  }
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
