// Total variation over a graph in its dual:  Σ_e r_e ‖w_i − w_j‖ = max over ‖u_e‖ ≤ r_e of ⟨U, D W⟩,
// pairs e = (i, j), i < j, sorted by i, then j;  (D W)_e = w_i − w_j.
//
// Plan     a step goes over the pairs by their first task, which gathers what begins there; a second
//          pass by the last task takes off what ends there. One owner for each row of both.
// Traffic  a step reads and writes U once and gathers its rows once more; W stays in the caches.
// Bits     a task's pairs are summed in their order, chunks of values in chunk order.
#include "common/edges.h"
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kN = Lane<double>::N;

// A vector within a row, and the last one of a row, of n < kN numbers in pieces of fixed size.
struct Whole {
  MTLFAST_INLINE F64 load(const double* p) const { return load_raw<F64>(p); }
  MTLFAST_INLINE void store(double* p, F64 v) const { store_raw(p, v); }
};

struct Part {
  int64_t n;
  MTLFAST_INLINE void copy(double* to, const double* from) const {
    int64_t at = 0;
    if (n & 4) std::memcpy(to, from, 4 * sizeof(double)), at = 4;
    if (n & 2) std::memcpy(to + at, from + at, 2 * sizeof(double)), at += 2;
    if (n & 1) to[at] = from[at];
  }
  MTLFAST_INLINE F64 load(const double* p) const {
    double part[kN] = {};
    copy(part, p);
    return load_raw<F64>(part);
  }
  MTLFAST_INLINE void store(double* p, F64 v) const {
    double part[kN];
    store_raw(part, v);
    copy(p, part);
  }
};

template <class Body>
MTLFAST_INLINE void for_vectors(int64_t d, const Body& body) {
  int64_t j = 0;
  for (; j + kN <= d; j += kN) body(j, Whole{});
  if (j < d) body(j, Part{d - j});
}

MTLFAST_INLINE void prefetch(const double* row, int64_t d) {
  for (int64_t j = 0; j < d && j < 8 * kN; j += kN) __builtin_prefetch(row + j);
}

// sum = what it is plus the row; `sum` has whole vectors.
MTLFAST_INLINE void add_row(const double* row, int64_t d, double* sum) {
  for_vectors(d, [&](int64_t j, auto part) __attribute__((always_inline)) {
    store_raw(sum + j, load_raw<F64>(sum + j) + part.load(row + j));
  });
}

MTLFAST_INLINE void clear(double* sum, int64_t d) {
  for (int64_t j = 0; j < d; j += kN) store_raw(sum + j, F64{});
}

// sum = Σ of the rows of U that end at task i.
MTLFAST_INLINE void add_arriving(const double* u, const Pairs& pairs, int64_t i, int64_t end,
                                 int64_t d, double* sum) {
  clear(sum, d);
  for (int64_t k = pairs.in_ptr[i]; k < pairs.in_ptr[i + 1]; ++k) {
    prefetch(u + pairs.in_edge[k + kPrefetch < end ? k + kPrefetch : k] * d, d);
    add_row(u + pairs.in_edge[k] * d, d, sum);
  }
}

int64_t whole(int64_t d) { return ceil_div(d, kN) * kN; }

}  // namespace

// ---------------------------------------------------------------------------------------------

void edge_dual_step(const double* u, double* former, const double* w, Pairs pairs,
                    const double* radius, const double* length, int64_t K, int64_t d,
                    double momentum, double scale, double* out, int threads) {
  const RowChunks leaving(pairs.out_ptr, K, d), arriving(pairs.in_ptr, K, d);
  const int64_t E = pairs.out_ptr[K];
  parallel_for(leaving.count, leaving.work(d), threads, [&](int64_t c) {
    Scratch<double> moved(whole(d)), sum(whole(d));
    const int64_t end = leaving.first_row(c + 1);
    for (int64_t i = leaving.first_row(c); i < end; ++i) {
      clear(sum.get(), d);
      const double* const wi = w + i * d;
      for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1]; ++e) {
        prefetch(w + pairs.dst[e + kPrefetch < E ? e + kPrefetch : e] * d, d);
        const double* const wj = w + pairs.dst[e] * d;
        const double along = length != nullptr ? length[e] : 1.0;
        F64 squares = {};
        for_vectors(d, [&](int64_t j, auto part) __attribute__((always_inline)) {
          F64 v = part.load(u + e * d + j);
          if (momentum != 0) v += momentum * (v - part.load(former + e * d + j));
          v += along * (part.load(wi + j) - part.load(wj + j));
          squares += v * v;
          store_raw(moved.get() + j, v);
        });
        const double norm = __builtin_sqrt(lane_sum(squares)), r = scale * radius[e];
        const double factor = norm > r ? r / norm : 1.0;
        for_vectors(d, [&](int64_t j, auto part) __attribute__((always_inline)) {
          const F64 v = factor * load_raw<F64>(moved.get() + j);
          part.store(former + e * d + j, v);
          store_raw(sum.get() + j, load_raw<F64>(sum.get() + j) + v);
        });
      }
      for_vectors(d, [&](int64_t j, auto part) __attribute__((always_inline)) {
        part.store(out + i * d + j, load_raw<F64>(sum.get() + j));
      });
    }
  });
  parallel_for(arriving.count, arriving.work(d), threads, [&](int64_t c) {
    Scratch<double> sum(whole(d));
    const int64_t end = arriving.first_row(c + 1);
    for (int64_t i = arriving.first_row(c); i < end; ++i) {
      add_arriving(former, pairs, i, E, d, sum.get());
      for_vectors(d, [&](int64_t j, auto part) __attribute__((always_inline)) {
        part.store(out + i * d + j, part.load(out + i * d + j) - load_raw<F64>(sum.get() + j));
      });
    }
  });
}

void edge_dual_adjoint(const double* u, Pairs pairs, int64_t K, int64_t d, double* out,
                       int threads) {
  const RowChunks chunks(pairs.in_ptr, K, d);
  const int64_t E = pairs.in_ptr[K];
  parallel_for(chunks.count, chunks.work(d) + E * d, threads, [&](int64_t c) {
    Scratch<double> ends(whole(d)), begins(whole(d));
    const int64_t end = chunks.first_row(c + 1);
    for (int64_t i = chunks.first_row(c); i < end; ++i) {
      add_arriving(u, pairs, i, E, d, ends.get());
      clear(begins.get(), d);
      for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1]; ++e) {
        add_row(u + e * d, d, begins.get());
      }
      for_vectors(d, [&](int64_t j, auto part) __attribute__((always_inline)) {
        part.store(out + i * d + j,
                   load_raw<F64>(begins.get() + j) - load_raw<F64>(ends.get() + j));
      });
    }
  });
}

void edge_dual_value(const double* w, Pairs pairs, const double* radius, int64_t K, int64_t d,
                     double* value, int threads) {
  const RowChunks chunks(pairs.out_ptr, K, d);
  const int64_t E = pairs.out_ptr[K];
  Scratch<double> values(chunks.count);
  parallel_for(chunks.count, chunks.work(d), threads, [&](int64_t c) {
    Sum sum;
    const int64_t end = chunks.first_row(c + 1);
    for (int64_t i = chunks.first_row(c); i < end; ++i) {
      for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1]; ++e) {
        prefetch(w + pairs.dst[e + kPrefetch < E ? e + kPrefetch : e] * d, d);
        const double* const wj = w + pairs.dst[e] * d;
        F64 squares = {};
        for_vectors(d, [&](int64_t j, auto part) __attribute__((always_inline)) {
          const F64 v = part.load(w + i * d + j) - part.load(wj + j);
          squares += v * v;
        });
        sum.add(radius[e] * __builtin_sqrt(lane_sum(squares)));
      }
    }
    values[c] = sum.value();
  });
  Sum sum;
  for (int64_t c = 0; c < chunks.count; ++c) sum.add(values[c]);
  *value = sum.value();
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
