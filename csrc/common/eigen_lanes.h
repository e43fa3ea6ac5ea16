// Eigenvalues and eigenvectors of several small symmetric matrices at once, a matrix in each lane:
// the algorithm of eigen.h, Householder's reduction and implicit QL, on vectors of eight doubles.
//
// Every lane is on its own: one that has converged is turned by c = 1, s = 0, which is exact, however
// long the others take. So the bits of a matrix do not depend on its neighbours. Entries are at
// most about 1, as those of a scaled Gram matrix are, for squares are formed.
#pragma once

#include "common/jacobi.h"

namespace mtlfast {
namespace MTLFAST_ISA {

#if defined(__AVX512F__)
constexpr int kDots = 4;  // rows and columns of a block of inner products in registers
#else
constexpr int kDots = 2;
#endif

// out(j, k, Σ_i x_j[i] y_k[i]) for rows j < J of x and k < K of y, `size` elements each; where
// `lower`, at least for k ≤ j. Each sum is taken in order, so its bits do not depend on kDots.
template <class Out>
MTLFAST_INLINE void inner_products(const F64* x, int64_t stride_x, int64_t J, const F64* y,
                                   int64_t stride_y, int64_t K, int64_t size, bool lower,
                                   const Out& out) {
  for (int64_t j = 0; j < J; j += kDots) {
    const int64_t end = lower && j + kDots < K ? j + kDots : K;
    for (int64_t k = 0; k < end; k += kDots) {
      const F64 *row[kDots], *column[kDots];  // those behind the last repeat it
      for (int i = 0; i < kDots; ++i) {
        row[i] = x + (j + i < J ? j + i : J - 1) * stride_x;
        column[i] = y + (k + i < K ? k + i : K - 1) * stride_y;
      }
      F64 sum[kDots][kDots] = {};
      for (int64_t i = 0; i < size; ++i) {
        for (int r = 0; r < kDots; ++r) {
          for (int c = 0; c < kDots; ++c) sum[r][c] += row[r][i] * column[c][i];
        }
      }
      for (int r = 0; r < kDots && j + r < J; ++r) {
        for (int c = 0; c < kDots && k + c < K; ++c) out(j + r, k + c, sum[r][c]);
      }
    }
  }
}

class EigenLanes {
 public:
  int64_t n;
  F64* a;  // [n, n] symmetric, of which the lower triangle is read; overwritten
  F64* q;  // [n, n] receives the eigenvectors in its columns
  F64* d;  // [n] receives the eigenvalues, in no order

  static int64_t size(int64_t n) { return 2 * n * n + 8 * n; }

  EigenLanes(int64_t n, F64* memory)
      : n(n), a(memory), q(a + n * n), d(q + n * n), e_(d + n), tau_(e_ + n), v_(tau_ + n),
        w_(v_ + n), p_(w_ + n), c_(p_ + n), s_(c_ + n) {}

  void solve(bool vectors) {
    reduce();
    if (vectors) accumulate();
    ql(vectors);
  }

 private:
  using Mask = Jacobi<double>::Mask;
  static constexpr int kMaxIterations = 60;  // per eigenvalue; 1 to 4 are needed
  static constexpr int kRows = 4;            // of q, turned together
  F64 *e_, *tau_;                            // [n] between i − 1 and i; the factor of reflector i
  F64 *v_, *w_, *p_;                         // [n]
  F64 *c_, *s_;                              // [n] rotations of a sweep

  static MTLFAST_INLINE F64 root(F64 x) { return MTLFAST_ISA::root<double>(x); }
  static MTLFAST_INLINE F64 magnitude(F64 x) { return x < F64{} ? -x : x; }
  static MTLFAST_INLINE bool any(Mask mask) { return MTLFAST_ISA::any(mask); }

  // Row i of a becomes the reflector of step i; d and e_ the tridiagonal matrix. The update of a step
  // waits for the next one, which passes over the matrix anyway.
  void reduce() {
    for (int64_t k = 0; k < n; ++k) v_[k] = w_[k] = F64{};
    for (int64_t i = n - 1; i > 0; --i) {
      F64* u = a + i * n;
      for (int64_t k = 0; k <= i; ++k) u[k] -= v_[i] * w_[k] + w_[i] * v_[k];
      d[i] = u[i];
      tau_[i] = reflector(u, i);
      for (int64_t j = 0; j < i; ++j) {
        F64* row = a + j * n;
        const F64 vj = v_[j], wj = w_[j], uj = u[j];
        F64 sum = {};
        for (int64_t k = 0; k < j; ++k) {
          const F64 x = row[k] - (vj * w_[k] + wj * v_[k]);
          row[k] = x;
          sum += x * u[k];
          p_[k] += x * uj;
        }
        row[j] -= vj * wj + wj * vj;
        p_[j] = sum + row[j] * uj;
      }
      F64 inner = {};
      for (int64_t k = 0; k < i; ++k) {
        p_[k] *= tau_[i];
        inner += p_[k] * u[k];
      }
      const F64 half = 0.5 * tau_[i] * inner;
      for (int64_t k = 0; k < i; ++k) {
        v_[k] = u[k];
        w_[k] = p_[k] - half * u[k];
      }
    }
    d[0] = a[0] - 2 * (v_[0] * w_[0]);
  }

  // x [i] becomes u with (1 − tau u uᵀ) x = e_[i] (0, …, 0, 1); returns tau.
  F64 reflector(F64* x, int64_t i) {
    const F64 last = x[i - 1], zero = {};
    F64 rest = {};
    for (int64_t k = 0; k < i - 1; ++k) rest += x[k] * x[k];
    const Mask plain = (Mask)(rest > zero);
    const F64 length = root(last * last + rest);
    e_[i] = plain ? (last > zero ? -length : length) : last;
    x[i - 1] = last - e_[i];
    if (any(~plain)) {
      for (int64_t k = 0; k < i; ++k) x[k] = plain ? x[k] : zero;
    }
    return plain ? 1 / (length * (length + magnitude(last))) : zero;
  }

  // q = H_{n−1} … H_1, the product of the reflectors.
  void accumulate() {
    for (int64_t k = 0; k < n * n; ++k) q[k] = F64{};
    for (int64_t i = 0; i < n; ++i) q[i * n + i] += 1;
    for (int64_t i = 1; i < n; ++i) {
      const F64* u = a + i * n;
      int64_t c = 0;
      for (; c + kRows <= i; c += kRows) reflect<kRows>(u, i, c);
      for (; c < i; ++c) reflect<1>(u, i, c);
    }
  }

  // Columns c to c + C of q ← (1 − tau u uᵀ) q.
  template <int C>
  MTLFAST_INLINE void reflect(const F64* u, int64_t i, int64_t c) {
    F64 sum[C] = {};
    for (int64_t k = 0; k < i; ++k) {
      for (int j = 0; j < C; ++j) sum[j] += u[k] * q[k * n + c + j];
    }
    for (int j = 0; j < C; ++j) sum[j] *= tau_[i];
    for (int64_t k = 0; k < i; ++k) {
      for (int j = 0; j < C; ++j) q[k * n + c + j] -= u[k] * sum[j];
    }
  }

  // An entry beside the diagonal that is below the rounding of its neighbours or of the matrix
  // counts as zero.
  void ql(bool vectors) {
    constexpr double eps = 0x1p-53;
    F64 norm = n > 0 ? magnitude(d[0]) : F64{};
    for (int64_t i = 1; i < n; ++i) {
      e_[i - 1] = e_[i];
      const F64 size = magnitude(d[i]) + magnitude(e_[i]);
      norm = size > norm ? size : norm;
    }
    if (n > 0) e_[n - 1] = F64{};
    const F64 floor = norm * (0.5 * eps);
    for (int64_t l = 0; l < n; ++l) {
      for (int iteration = 0; iteration < kMaxIterations; ++iteration) {
        // where the block that starts at l ends, in each lane
        Mask m = Mask{} + (n - 1);
        F64 dm = F64{} + d[n - 1];
        for (int64_t i = n - 2; i >= l; --i) {
          const F64 size = magnitude(e_[i]);
          const Mask cut =
              (Mask)(size <= floor) | (Mask)(size <= eps * (magnitude(d[i]) + magnitude(d[i + 1])));
          m = cut ? Mask{} + i : m;
          dm = cut ? d[i] : dm;
        }
        if (!any(m > Mask{} + l)) break;
        const int64_t top = sweep(l, m, dm);
        if (vectors) turn_columns(l, top);
      }
    }
  }

  // One step of QL on l … m of every lane with m > l; the rotations go to c_ and s_, the largest m
  // is returned.
  int64_t sweep(int64_t l, Mask m, F64 dm) {
    int64_t top = l;
    for (int lane = 0; lane < 8; ++lane) top = m[lane] > top ? m[lane] : top;
    const F64 zero = {};
    Mask active = m > Mask{} + l;
    F64 g = (d[l + 1] - d[l]) / (2 * e_[l]);
    F64 r = root(g * g + 1);
    g = dm - d[l] + e_[l] / (g + (g < zero ? -r : r));
    F64 s = zero + 1, c = s, p = {};
    for (int64_t i = top - 1; i >= l; --i) {
      const Mask in = active & (m > Mask{} + i);
      const F64 f = s * e_[i], b = c * e_[i], below = d[i + 1];
      const F64 square = f * f + g * g;
      const Mask lost = in & (Mask)(square < zero + 1e-290),
                 go = in & ~lost;  // nothing left to turn
      r = root(square);
      const F64 inverse = r * (1 / square);  // the division does not wait for the root
      s = go ? f * inverse : s;
      c = go ? g * inverse : c;
      const F64 next = below - p;
      const F64 step = (d[i] - next) * s + 2 * (c * b);
      e_[i + 1] = in ? (go ? r : zero) : e_[i + 1];
      p = go ? s * step : p;
      d[i + 1] = in ? (go ? next + p : next) : below;
      g = go ? c * step - b : g;
      c_[i] = go ? c : zero + 1;
      s_[i] = go ? s : zero;
      active &= ~lost;
    }
    d[l] = active ? d[l] - p : d[l];
    e_[l] = active ? g : e_[l];
    for (int64_t i = l; i <= top; ++i) {
      e_[i] = ((m > Mask{} + l) & (m == Mask{} + i)) ? zero : e_[i];
    }
    return top;
  }

  // The rotations of a sweep, from the last column to the first: a column is read and written once.
  void turn_columns(int64_t l, int64_t top) {
    int64_t k = 0;
    for (; k + kRows <= n; k += kRows) turn_rows<kRows>(q + k * n, l, top);
    for (; k < n; ++k) turn_rows<1>(q + k * n, l, top);
  }

  template <int R>
  MTLFAST_INLINE void turn_rows(F64* row, int64_t l, int64_t top) {
    F64 x[R];
    for (int r = 0; r < R; ++r) x[r] = row[r * n + top];
    for (int64_t i = top - 1; i >= l; --i) {
      const F64 c = c_[i], s = s_[i];
      for (int r = 0; r < R; ++r) {
        const F64 y = row[r * n + i];
        row[r * n + i + 1] = s * y + c * x[r];
        x[r] = c * y - s * x[r];
      }
    }
    for (int r = 0; r < R; ++r) row[r * n + l] = x[r];
  }
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
