// Nuclear norm, its subgradient and its prox by the Gram matrix of the short side, for float32 and
// 16-bit matrices: G = AᵀA = V diag(σ²) Vᵀ, any Σ h(σ_k) u_k v_kᵀ = A Σ (h/σ_k) v_k v_kᵀ.
//
// Products of float32 values are exact in double, and G is summed in double: its noise of a few ulps
// of σ_1² is 1e-8·σ_1 in the smallest σ and less in all others, far below a float32 ulp of ‖W‖.
// The prox multiplies by a matrix of norm ≤ 1, in float32. A subgradient multiplies by Σ v_k v_kᵀ/σ_k:
// in float32 where that matrix has a condition of at most 4, else in double; where it is
// ill-conditioned the rotations of trace_norm.cpp take over.
//
// Plan: the long side is cut into fixed units, whose Gram matrices are added in order. One matrix
// shares its units among the threads, a batch its matrices; the bits are the same. Traffic: w is read
// once for G (units of it widened to double in L1) and once for the product, the result written once.
#include <deque>

#include "common/batch.h"
#include "common/eigen.h"
#include "common/product.h"
#include "cpu/declare.h"
#include "cpu/trace_norm_routes.h"
#include "kernels/trace_norm.h"

MTLFAST_DECLARE(MTLFAST_TRACE_NORM)

namespace mtlfast {
namespace MTLFAST_ISA {

namespace {

constexpr int64_t kSide = 256;       // the longest short side
constexpr int64_t kPanel = 4096;     // doubles of a panel, half of L1
constexpr int64_t kUnits = 32;       // of the Gram matrix, at most
constexpr int64_t kUnitRows = 256;   // at least
constexpr int64_t kApplyRows = 512;  // of the long side, at a time
constexpr int64_t kAlwaysLanes = 16, kLanesBatch = 6, kLanesSide = 48,
                  kLanesSize = 6144;  // see by_lanes
constexpr double kEven = 0x1p-2;      // σ_k/σ_1 above which a subgradient may be taken in float
constexpr double kGraded = 0x1p-12;   // σ_k/σ_1 below which a subgradient needs rotations

// Whether eight matrices at once are faster: a group takes as long for one as for eight, which does not
// matter where it is short, and should live in L2.
bool by_lanes(int64_t B, int64_t m, int64_t n) {
  const Shape s(m, n);
  if (s.q > kLanesSide || s.p * s.q > kLanesSize) return false;
  return s.q <= kAlwaysLanes || B >= kLanesBatch;
}

struct Sides {
  int64_t m, n, p, q, ld;  // p the long side, q the short one
  bool tall;
  Sides(int64_t m, int64_t n)
      : m(m), n(n), p(m < n ? n : m), q(m < n ? m : n), ld(ceil_div(q, 16) * 16), tall(m >= n) {}
  int64_t unit_rows() const {
    const int64_t rows = ceil_div(p, kUnits);
    return rows < kUnitRows ? kUnitRows : rows;
  }
  int64_t units() const { return ceil_div(p, unit_rows()); }
};

MTLFAST_INLINE void put(F32 x, float* out) { store_raw(out, x); }

MTLFAST_INLINE void put(F32 x, double* out) {
  alignas(64) float line[16];
  store_raw(line, x);
  store_raw(out, __builtin_convertvector(load_raw<Half>(line), F64));
  store_raw(out + 8, __builtin_convertvector(load_raw<Half>(line + 8), F64));
}

// Sixteen columns of a tile, in one vector or two, on their way out. A vector is not put together
// from halves in memory where it can be helped: the load would wait for both stores.
template <class T>
MTLFAST_INLINE void emit(const F32* x, T* out) {
  Lane<T>::store(out, *x);
}

MTLFAST_INLINE void emit(const F64* x, float* out) {
  store_raw(out, __builtin_convertvector(x[0], Half));
  store_raw(out + 8, __builtin_convertvector(x[1], Half));
}

template <class T>
MTLFAST_INLINE void emit(const F64* x, T* out) {
  alignas(64) float line[16];
  emit(x, line);
  Lane<T>::store(out, load_raw<F32>(line));
}

// Elements [0, size) as Real, then zeros up to `padded`, a multiple of 16.
template <class T, class Real>
MTLFAST_INLINE void convert(const T* in, int64_t size, int64_t padded, Real* out) {
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) put(Lane<T>::load(in + i), out + i);
  if (i < size) put(load_part(in + i, size - i), out + i), i += 16;
  for (; i < padded; i += 16) put(F32{}, out + i);
}

// Rows [first, first + count) of the tall form, as doubles: panel is [count][ld].
template <class T>
void pack(const T* w, const Sides& s, int64_t first, int64_t count, double* panel) {
  if (s.tall) {
    for (int64_t r = 0; r < count; ++r) {
      convert(w + (first + r) * s.q, s.q, s.ld, panel + r * s.ld);
    }
    return;
  }
  alignas(64) float row[kPanel / 16];
  for (int64_t k = 0; k < s.q; ++k) {
    convert(w + k * s.p + first, count, 0, row);
    for (int64_t r = 0; r < count; ++r) panel[r * s.ld + k] = row[r];
  }
  for (int64_t k = s.q; k < s.ld; ++k) {
    for (int64_t r = 0; r < count; ++r) panel[r * s.ld + k] = 0;
  }
}

// The upper tiles of the Gram matrix of one unit of rows.
template <class T>
void gram_unit(const T* w, const Sides& s, int64_t unit, double* gram) {
  alignas(64) double panel[kPanel];
  const int64_t begin = unit * s.unit_rows(), step = kPanel / s.ld;
  const int64_t end = begin + s.unit_rows() < s.p ? begin + s.unit_rows() : s.p;
  std::memset(gram, 0, size_t(s.ld * s.ld) * sizeof(double));
  for (int64_t r = begin; r < end; r += step) {
    check_interrupt();
    const int64_t count = end - r < step ? end - r : step;
    pack(w, s, r, count, panel);
    add_upper(panel, panel, s.ld, count, gram);
  }
}

// One matrix at a time; `threads` share its units.
template <class T>
class Spectrum {
 public:
  Spectrum(const Sides& s, int threads)
      : s_(s), threads_(threads), gram_(s.units() * s.ld * s.ld), memory_(Eigen::size(s.q, s.ld)),
        weight_(s.ld), factor_(s.ld * s.ld), narrow_(s.ld * s.ld), wide_(s.ld * s.ld),
        eigen(s.q, s.ld, memory_.get()) {}

 private:
  const Sides s_;
  const int threads_;
  Scratch<double> gram_, memory_, weight_, factor_;
  Scratch<float> narrow_;  // the factor of a product in float,
  Scratch<double> wide_;   // or in double

 public:
  Eigen eigen;
  double largest = 0, noise = 0;  // σ_1², and how far σ² may be off

  // Eigenvalues σ² and, if wanted, vectors; false for a matrix that is not finite.
  bool solve(const T* w, bool vectors) {
    const int64_t square = s_.ld * s_.ld;
    parallel_for(s_.units(), s_.p * s_.q * s_.q, threads_,
                 [&](int64_t u) { gram_unit(w, s_, u, gram_.get() + u * square); });
    for (int64_t j = 0; j < s_.q; ++j) {
      double* row = eigen.a + j * s_.ld;
      for (int64_t k = 0; k < s_.ld; ++k) row[k] = 0;
      for (int64_t u = 0; u < s_.units(); ++u) {
        const double* part = gram_.get() + u * square + j * s_.ld;
        for (int64_t k = j; k < s_.q; ++k) row[k] += part[k];
      }
      if (!(row[j] - row[j] == 0)) return false;
      for (int64_t k = 0; k < j; ++k) row[k] = eigen.a[k * s_.ld + j];
    }
    if (vectors) eigen.vectors();
    else eigen.values();
    largest = 0;
    for (int64_t k = 0; k < s_.q; ++k) largest = eigen.d[k] > largest ? eigen.d[k] : largest;
    noise = largest * (0x1p-52 * double(s_.unit_rows() + s_.units()));
    return true;
  }

  // Whether float holds sums of products with the matrix, also where they are large or tiny.
  bool in_float_range() const { return largest < 0x1p240 && largest > 0x1p-240; }

  double sigma(int64_t k) const {
    const double square = eigen.d[k];
    return square > 0 ? __builtin_sqrt(square) : 0;
  }

  // Σ σ_k; `error` receives what the noise may do to it.
  double sum(double* error) const {
    double total = 0, bound = 0;
    const double half_noise = __builtin_sqrt(noise);
    for (int64_t k = 0; k < s_.q; ++k) {
      const double x = eigen.d[k] > noise ? sigma(k) : 0;
      total += x;
      bound += x > half_noise ? noise / x : half_noise;
    }
    *error = bound;
    return total;
  }

  // Σ of the lengths of the columns of A·V, for spectra that the noise of G would show in.
  double sum_of_columns(const T* w) const {
    alignas(64) double panel[kPanel];
    const int64_t step = kPanel / s_.ld;
    double* square = weight_.get();
    for (int64_t k = 0; k < s_.q; ++k) square[k] = 0;
    for (int64_t r = 0; r < s_.p; r += step) {
      const int64_t count = s_.p - r < step ? s_.p - r : step;
      pack(w, s_, r, count, panel);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t k = 0; k < s_.q; ++k) {
          F64 x = {};
          for (int64_t c = 0; c < s_.ld; c += 8) {
            x += load_raw<F64>(panel + i * s_.ld + c) * load_raw<F64>(eigen.a + k * s_.ld + c);
          }
          const double y = lane_sum(x);
          square[k] += y * y;
        }
      }
    }
    double total = 0;
    for (int64_t k = 0; k < s_.q; ++k) total += __builtin_sqrt(square[k]);
    return total;
  }

  // out = A Σ_k weight_k v_k v_kᵀ, with the matrix and the product in Real. out may be w.
  template <class Real, class Weight>
  void product(const T* w, const Weight& weight, T* out) {
    double *f = factor_.get(), *scaled = eigen.q;
    int64_t kept = 0;  // vectors without weight are left out; the rows behind are not needed
    for (int64_t k = 0; k < s_.q; ++k) {
      const double h = weight(k);
      if (h == 0) continue;
      for (int64_t c = 0; c < s_.ld; c += 8) {
        const F64 x = load_raw<F64>(eigen.a + k * s_.ld + c);
        store_raw(eigen.a + kept * s_.ld + c, x);
        store_raw(scaled + kept * s_.ld + c, h * x);
      }
      ++kept;
    }
    std::memset(f, 0, size_t(s_.ld * s_.ld) * sizeof(double));
    add_upper(scaled, eigen.a, s_.ld, kept, f);
    Real* matrix;
    if constexpr (sizeof(Real) == sizeof(float)) matrix = narrow_.get();
    else matrix = wide_.get();
    for (int64_t j = 0; j < s_.ld; ++j) {
      for (int64_t k = 0; k < s_.ld; ++k) {
        matrix[j * s_.ld + k] = Real(j < k ? f[j * s_.ld + k] : f[k * s_.ld + j]);
      }
    }
    const int64_t units = ceil_div(s_.p, kApplyRows);
    parallel_for(units, s_.p * s_.q * s_.q, threads_, [&](int64_t u) {
      const int64_t first = u * kApplyRows;
      const int64_t end = first + kApplyRows < s_.p ? first + kApplyRows : s_.p;
      if (s_.tall) multiply_rows(w, matrix, first, end, out);
      else multiply_columns(w, matrix, first, end, out);
    });
  }

 private:
  // Columns of a tile, and one tile: rows of a times [V] vectors of columns of b, written to out.
  template <class Real>
  static constexpr int64_t kWidth = kTileVectors * Lane<Real>::N;

  template <int V, class Real>
  static MTLFAST_INLINE void tile(const Real* a, int64_t lda, const Real* b, int64_t ldb,
                                  int64_t depth, T* out, int64_t stride, int64_t rows,
                                  int64_t columns) {
    typename Lane<Real>::Vec sum[kTileRows][V];
    multiply<kTileRows, V>(a, lda, b, ldb, depth, sum);
    constexpr int one = 16 / Lane<Real>::N;
    for (int64_t j = 0; j < rows; ++j) {
      for (int v = 0; v < V; v += one) {
        T* to = out + j * stride + v * Lane<Real>::N;
        const int64_t left = columns - v * Lane<Real>::N;
        if (left >= 16) {
          emit(&sum[j][v], to);
        } else {
          T part[16];
          emit(&sum[j][v], part);
          for (int64_t l = 0; l < left; ++l) to[l] = part[l];
        }
      }
    }
  }

  template <class Real>
  static MTLFAST_INLINE void any_tile(const Real* a, int64_t lda, const Real* b, int64_t ldb,
                                      int64_t depth, T* out, int64_t stride, int64_t rows,
                                      int64_t columns) {
    constexpr int one = 16 / Lane<Real>::N;
    if (columns > 16) tile<kTileVectors>(a, lda, b, ldb, depth, out, stride, rows, columns);
    else tile<one>(a, lda, b, ldb, depth, out, stride, rows, columns);
  }

  template <class Real>
  void multiply_rows(const T* w, const Real* matrix, int64_t first, int64_t end, T* out) const {
    constexpr int64_t width = kWidth<Real>;
    alignas(64) Real rows[kTileRows * kSide];
    for (int64_t r = first; r < end; r += kTileRows) {
      const int64_t count = end - r < kTileRows ? end - r : kTileRows;
      for (int64_t j = 0; j < kTileRows; ++j) {
        const int64_t source = j < count ? j : 0;
        convert(w + (r + source) * s_.q, s_.q, s_.ld, rows + j * s_.ld);
      }
      for (int64_t c = 0; c < s_.q; c += width) {
        any_tile(rows, s_.ld, matrix + c, s_.ld, s_.q, out + r * s_.q + c, s_.q, count,
                 s_.q - c < width ? s_.q - c : width);
      }
    }
  }

  template <class Real>
  void multiply_columns(const T* w, const Real* matrix, int64_t first, int64_t end, T* out) const {
    constexpr int64_t width = kWidth<Real>;
    alignas(64) Real panel[kSide * width];
    for (int64_t c = first; c < end; c += width) {
      const int64_t count = end - c < width ? end - c : width;
      for (int64_t k = 0; k < s_.q; ++k) convert(w + k * s_.p + c, count, width, panel + k * width);
      for (int64_t j = 0; j < s_.q; j += kTileRows) {
        any_tile(matrix + j * s_.ld, s_.ld, panel, width, s_.q, out + j * s_.p + c, s_.p,
                 s_.q - j < kTileRows ? s_.q - j : kTileRows, count);
      }
    }
  }
};

// Calls body(spectrum, b) for every matrix. A batch shares its matrices among the threads. All memory is
// there before the first call: a prox may write over its input, which must not stop half-way.
template <class T, class Body>
void for_matrices(int64_t B, const Sides& s, int threads, const Body& body) {
  const bool share = B >= threads;
  const int64_t work = B * s.p * s.q * s.q;
  const int64_t workers = share && threads > 1 && work >= kSerialWork ? threads : 1;
  std::deque<Spectrum<T>> spectra;
  for (int64_t k = 0; k < workers; ++k) spectra.emplace_back(s, share ? 1 : threads);
  int64_t next = 0;
  parallel_for(workers, work, threads, [&](int64_t worker) {
    for (;;) {
      const int64_t b = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
      if (b >= B) return;
      check_interrupt();
      body(spectra[size_t(worker)], b);
    }
  });
}

template <class T>
void value(DType dtype, const T* w, int64_t B, Sides s, double* value, T* grad, int threads) {
  const double cut = double(s.p) * 0x1p-23;
  Scratch<char> hard(B);
  for_matrices<T>(B, s, threads, [&](Spectrum<T>& spectrum, int64_t b) {
    const T* matrix = w + b * s.p * s.q;
    hard[b] = 0;
    if (!spectrum.solve(matrix, grad != nullptr)) {
      value[b] = __builtin_nan("");
      return;
    }
    double error;
    value[b] = spectrum.sum(&error);
    if (error > 0x1p-21 * value[b]) {
      if (grad == nullptr) spectrum.solve(matrix, true);
      value[b] = spectrum.sum_of_columns(matrix);
    }
    if (grad == nullptr) return;
    const double largest = __builtin_sqrt(spectrum.largest);
    double smallest = 1;  // σ_k/σ_1
    for (int64_t k = 0; k < s.q; ++k) {
      const double ratio = largest > 0 ? spectrum.sigma(k) / largest : 0;
      if (ratio > 0.5 * cut && ratio < kGraded) hard[b] = 1;
      smallest = ratio < smallest ? ratio : smallest;
    }
    if (hard[b]) return;
    const auto weight = [&](int64_t k) {
      const double sigma = spectrum.sigma(k);
      return sigma > largest * cut ? 1 / sigma : 0;
    };
    T* result = grad + b * s.p * s.q;
    if (smallest > kEven && spectrum.in_float_range()) {
      spectrum.template product<float>(matrix, weight, result);
    } else {
      spectrum.template product<double>(matrix, weight, result);
    }
  });
  if (grad != nullptr) {
    trace_norm_marked(dtype, w, B, s.m, s.n, hard.get(), nullptr, grad, threads);
  }
}

template <class T>
void prox(const T* w, const double* threshold, int64_t B, Sides s, T* out, int64_t* finite,
          int threads) {
  for_matrices<T>(B, s, threads, [&](Spectrum<T>& spectrum, int64_t b) {
    const T* matrix = w + b * s.p * s.q;
    T* result = out + b * s.p * s.q;
    finite[b] = spectrum.solve(matrix, true);
    if (!finite[b]) return;
    const double t = threshold[b];
    const auto weight = [&](int64_t k) {
      const double sigma = spectrum.sigma(k);
      if (t == 0) return 1.0;
      return sigma > t ? 1 - t / sigma : 0.0;
    };
    if (spectrum.in_float_range()) spectrum.template product<float>(matrix, weight, result);
    else spectrum.template product<double>(matrix, weight, result);
  });
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void trace_norm_gram_value(DType dtype, const void* w, int64_t B, int64_t m, int64_t n,
                           double* value, void* grad, int threads) {
  if (by_lanes(B, m, n)) return trace_norm_lanes_value(dtype, w, B, m, n, value, grad, threads);
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) < 8) {
      MTLFAST_ISA::value(dtype, static_cast<const T*>(w), B, Sides(m, n), value,
                         static_cast<T*>(grad), threads);
    }
  });
}

void trace_norm_gram_prox(DType dtype, const void* w, const double* threshold, int64_t B, int64_t m,
                          int64_t n, void* out, int64_t* finite, int threads) {
  if (by_lanes(B, m, n)) {
    return trace_norm_lanes_prox(dtype, w, threshold, B, m, n, out, finite, threads);
  }
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) < 8) {
      prox(static_cast<const T*>(w), threshold, B, Sides(m, n), static_cast<T*>(out), finite,
           threads);
    }
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
