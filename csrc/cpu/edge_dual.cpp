// Total variation over a graph in its dual:  Σ_e r_e ‖w_i − w_j‖ = max over ‖u_e‖ ≤ r_e of ⟨U, D W⟩,
// pairs e = (i, j), i < j, sorted by i, then j;  (D W)_e = w_i − w_j.
//
// Plan     a step goes over the pairs by their first task, which gathers what begins there; a second
//          pass by the last task takes off what ends there. One owner for each row of both.
// Traffic  a step reads and writes U once and gathers its rows once more; W stays in the caches.
// Bits     a task's pairs are summed in their order, chunks of values in chunk order.
#include "common/edges.h"
#include "cpu/declare.h"
#include "kernels/edge_dual.h"

MTLFAST_DECLARE(MTLFAST_EDGE_DUAL)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

// Half a cache line: the compiler moves longer vectors through memory where AVX-512 is missing, and
// these loops hold eight of them.
using Vec4 = double __attribute__((vector_size(32)));
using Bits4 = uint64_t __attribute__((vector_size(32)));
constexpr int64_t kN = 4;
constexpr int kMost = 8;  // vectors of a row in registers

// The vectors of a row of d numbers. The last one ends with the row and so overlaps the one before:
// what is the same number twice is computed twice. A row shorter than a vector goes by pieces of
// fixed size. NV is their number, 0 for more than kMost.
template <int NV, bool SHORT>
struct Row {
  int64_t d;
  MTLFAST_INLINE int64_t count() const { return NV > 0 ? NV : ceil_div(d, kN); }
  MTLFAST_INLINE int64_t at(int64_t v) const { return (v + 1) * kN <= d ? v * kN : d - kN; }
  MTLFAST_INLINE Vec4 load(const double* row, int64_t v) const {
    if (!SHORT) return load_raw<Vec4>(row + at(v));
    double part[kN] = {};
    copy(part, row);
    return load_raw<Vec4>(part);
  }
  MTLFAST_INLINE void store(double* row, int64_t v, Vec4 x) const {
    if (!SHORT) return store_raw(row + at(v), x);
    double part[kN];
    store_raw(part, x);
    copy(row, part);
  }
  // Squares, without those that the vector before has counted.
  MTLFAST_INLINE Vec4 squares(Vec4 x, int64_t v) const {
    if (SHORT || v + 1 < count()) return x * x;
    constexpr Bits4 lane = {0, 1, 2, 3};
    const Vec4 once = (Vec4)((Bits4)x & (Bits4)(lane >= uint64_t(count() * kN - d)));
    return once * once;
  }
  MTLFAST_INLINE void prefetch(const double* row) const {
    for (int64_t k = 0; k < d && k < kMost * kN; k += 2 * kN) __builtin_prefetch(row + k);
    __builtin_prefetch(row + d - 1);
  }

 private:
  MTLFAST_INLINE void copy(double* to, const double* from) const {
    int64_t k = 0;
    if (d & 2) std::memcpy(to, from, 2 * sizeof(double)), k = 2;
    if (d & 1) to[k] = from[k];
  }
};

template <class Body>
inline void with_row(int64_t d, const Body& body) {
  if (d < kN) return body(Row<1, true>{d});
  switch (ceil_div(d, kN)) {
    case 1: return body(Row<1, false>{d});
    case 2: return body(Row<2, false>{d});
    case 3: return body(Row<3, false>{d});
    case 4: return body(Row<4, false>{d});
    case 5: return body(Row<5, false>{d});
    case 6: return body(Row<6, false>{d});
    case 7: return body(Row<7, false>{d});
    case 8: return body(Row<8, false>{d});
    default: return body(Row<0, false>{d});
  }
}

// The vectors of one row: in registers where their number is known.
template <class R>
struct Vectors;

template <int NV, bool SHORT>
struct Vectors<Row<NV, SHORT>> {
  Vec4 x[NV];
  explicit Vectors(Row<NV, SHORT>) {}
  MTLFAST_INLINE Vec4& operator[](int64_t v) { return x[v]; }
};

template <bool SHORT>
struct Vectors<Row<0, SHORT>> {
  Scratch<Vec4> x;
  explicit Vectors(Row<0, SHORT> row) : x(row.count()) {}
  MTLFAST_INLINE Vec4& operator[](int64_t v) { return x[v]; }
};

#define MTLFAST_EACH(v, row) for (int64_t v = 0; v < (row).count(); ++v)

// sum = Σ of the rows of U that end at task i; E of them in all.
template <class R>
MTLFAST_INLINE void add_arriving(const R& row, const double* u, const Pairs& pairs, int64_t i,
                                 int64_t E, Vectors<R>& sum) {
  MTLFAST_EACH(v, row) sum[v] = Vec4{};
  for (int64_t k = pairs.in_ptr[i]; k < pairs.in_ptr[i + 1]; ++k) {
    row.prefetch(u + pairs.in_edge[k + kPrefetch < E ? k + kPrefetch : k] * row.d);
    const double* const from = u + pairs.in_edge[k] * row.d;
    MTLFAST_EACH(v, row) sum[v] += row.load(from, v);
  }
}

template <class R>
void step_leaving(const R& row, const double* u, double* former, const double* w,
                  const Pairs& pairs, const double* radius, const double* length, int64_t first,
                  int64_t end, int64_t E, double momentum, double scale, double* out) {
  const int64_t d = row.d;
  Vectors<R> x(row), sum(row);
  for (int64_t i = first; i < end; ++i) {
    MTLFAST_EACH(v, row) sum[v] = Vec4{};
    const double* const wi = w + i * d;
    for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1]; ++e) {
      row.prefetch(w + pairs.dst[e + kPrefetch < E ? e + kPrefetch : e] * d);
      const double* const wj = w + pairs.dst[e] * d;
      const double along = length != nullptr ? length[e] : 1.0;
      Vec4 squares = {};
      MTLFAST_EACH(v, row) {
        Vec4 y = row.load(u + e * d, v);
        if (momentum != 0) y += momentum * (y - row.load(former + e * d, v));
        x[v] = y + along * (row.load(wi, v) - row.load(wj, v));
        squares += row.squares(x[v], v);
      }
      const double norm = __builtin_sqrt(lane_sum(squares)), r = scale * radius[e];
      const double factor = norm > r ? r / norm : 1.0;
      MTLFAST_EACH(v, row) {
        const Vec4 y = factor * x[v];
        row.store(former + e * d, v, y);
        sum[v] += y;
      }
    }
    MTLFAST_EACH(v, row) row.store(out + i * d, v, sum[v]);
  }
}

template <class R>
double value_of_rows(const R& row, const double* w, const Pairs& pairs, const double* radius,
                     int64_t first, int64_t end, int64_t E) {
  const int64_t d = row.d;
  Sum sum;
  for (int64_t i = first; i < end; ++i) {
    for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1]; ++e) {
      row.prefetch(w + pairs.dst[e + kPrefetch < E ? e + kPrefetch : e] * d);
      const double* const wj = w + pairs.dst[e] * d;
      Vec4 squares = {};
      MTLFAST_EACH(v, row) squares += row.squares(row.load(w + i * d, v) - row.load(wj, v), v);
      sum.add(radius[e] * __builtin_sqrt(lane_sum(squares)));
    }
  }
  return sum.value();
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void edge_dual_step(const double* u, double* former, const double* w, Pairs pairs,
                    const double* radius, const double* length, int64_t K, int64_t d,
                    double momentum, double scale, double* out, int threads) {
  const RowChunks leaving(pairs.out_ptr, K, d), arriving(pairs.in_ptr, K, d);
  const int64_t E = pairs.out_ptr[K];
  with_row(d, [&](auto row) {
    parallel_for(leaving.count, leaving.work(d), threads, [&](int64_t c) {
      step_leaving(row, u, former, w, pairs, radius, length, leaving.first_row(c),
                   leaving.first_row(c + 1), E, momentum, scale, out);
    });
    parallel_for(arriving.count, arriving.work(d), threads, [&](int64_t c) {
      Vectors<decltype(row)> ends(row);
      const int64_t end = arriving.first_row(c + 1);
      for (int64_t i = arriving.first_row(c); i < end; ++i) {
        add_arriving(row, former, pairs, i, E, ends);
        // all are read before one is written: the last two overlap
        MTLFAST_EACH(v, row) ends[v] = row.load(out + i * d, v) - ends[v];
        MTLFAST_EACH(v, row) row.store(out + i * d, v, ends[v]);
      }
    });
  });
}

void edge_dual_adjoint(const double* u, Pairs pairs, int64_t K, int64_t d, double* out, int threads) {
  const RowChunks chunks(pairs.in_ptr, K, d);
  const int64_t E = pairs.in_ptr[K];
  with_row(d, [&](auto row) {
    parallel_for(chunks.count, chunks.work(d) + E * d, threads, [&](int64_t c) {
      Vectors<decltype(row)> begins(row), ends(row);
      const int64_t end = chunks.first_row(c + 1);
      for (int64_t i = chunks.first_row(c); i < end; ++i) {
        add_arriving(row, u, pairs, i, E, ends);
        MTLFAST_EACH(v, row) begins[v] = Vec4{};
        for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1]; ++e) {
          MTLFAST_EACH(v, row) begins[v] += row.load(u + e * d, v);
        }
        MTLFAST_EACH(v, row) row.store(out + i * d, v, begins[v] - ends[v]);
      }
    });
  });
}

void edge_dual_value(const double* w, Pairs pairs, const double* radius, int64_t K, int64_t d,
                     double* value, int threads) {
  const RowChunks chunks(pairs.out_ptr, K, d);
  const int64_t E = pairs.out_ptr[K];
  Scratch<double> values(chunks.count);
  with_row(d, [&](auto row) {
    parallel_for(chunks.count, chunks.work(d), threads, [&](int64_t c) {
      values[c] =
          value_of_rows(row, w, pairs, radius, chunks.first_row(c), chunks.first_row(c + 1), E);
    });
  });
  Sum sum;
  for (int64_t c = 0; c < chunks.count; ++c) sum.add(values[c]);
  *value = sum.value();
}

#undef MTLFAST_EACH

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
