// What a sparse Ω adds to the Gram distance:  products p_e = ⟨w_row(e), w_col(e)⟩ of its stored entries,
// and grad_i −= 2 Σ_j (ω_ij + ω_ji) w_j.
//
// Plan     every entry is written into the lists of both its ends (a counting sort), then one owner
//          per task gathers the rows of its list; products and sums in double.
// Traffic  reads each entry's two rows once; lists of 2E entries of 8 bytes. No temporary of size E·d.
// Bits     a list is in the order of the entries.
#include "common/dispatch.h"
#include "common/parallel.h"
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kAhead = 8;    // entries between the row prefetched and the one read
constexpr int64_t kTasks = 256;  // of a work unit
constexpr int64_t kStrip = 64;   // columns summed in registers

using Half = float __attribute__((vector_size(32)));

MTLFAST_INLINE F64 load_wide(const double* p) { return load_raw<F64>(p); }
MTLFAST_INLINE F64 load_wide(const float* p) {
  return __builtin_convertvector(load_raw<Half>(p), F64);
}

struct Entry {
  int32_t other;
  int32_t edge;  // as it is at the row's end, −1 − edge at the column's
};

// The lists of all tasks: entries[begin[i] .. begin[i + 1]).
struct Lists {
  Scratch<int64_t> begin;
  Scratch<Entry> entries;

  Lists(const int64_t* row, const int64_t* col, int64_t K, int64_t E)
      : begin(K + 2), entries(2 * E) {
    for (int64_t i = 0; i < K + 2; ++i) begin[i] = 0;
    for (int64_t e = 0; e < E; ++e) {
      ++begin[row[e] + 2];
      ++begin[col[e] + 2];
    }
    for (int64_t i = 0; i < K; ++i) begin[i + 2] += begin[i + 1];
    for (int64_t e = 0; e < E; ++e) {  // begin[i + 1] moves from the start of list i to its end
      entries[begin[row[e] + 1]++] = {int32_t(col[e]), int32_t(e)};
      entries[begin[col[e] + 1]++] = {int32_t(row[e]), int32_t(-1 - e)};
    }
  }
};

// The same as add_task below for a whole strip, its sums in registers.
template <class T>
void add_whole_strip(const T* w, const Lists& lists, const double* values, int64_t i, int64_t d,
                     int64_t column, double* products, double* grad) {
  constexpr int V = kStrip / 8;
  const int64_t end = lists.begin[i + 1];
  F64 own[V], sum[V] = {};
  for (int v = 0; v < V; ++v) own[v] = load_wide(w + i * d + column + 8 * v);
  for (int64_t k = lists.begin[i]; k < end; ++k) {
    const T* ahead = w + lists.entries[k + kAhead < end ? k + kAhead : k].other * d + column;
    for (int64_t j = 0; j < kStrip; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(ahead + j);
    const Entry entry = lists.entries[k];
    const T* x = w + entry.other * d + column;
    const double value = values[entry.edge >= 0 ? entry.edge : -1 - entry.edge];
    F64 dot[2] = {};
    for (int v = 0; v < V; ++v) {
      const F64 there = load_wide(x + 8 * v);
      dot[v % 2] += own[v] * there;
      sum[v] += value * there;
    }
    if (entry.edge >= 0) products[entry.edge] += lane_sum(dot[0] + dot[1]);
  }
  if (grad == nullptr) return;
  for (int v = 0; v < V; ++v) {
    double* at = grad + i * d + column + 8 * v;
    store_raw(at, load_raw<F64>(at) - 2 * sum[v]);
  }
}

// Task i on columns [column, column + width), width ≤ kStrip.
template <class T>
void add_task(const T* w, const Lists& lists, const double* values, int64_t i, int64_t d,
              int64_t column, int64_t width, double* products, double* grad) {
  const int64_t end = lists.begin[i + 1], whole = width / 8 * 8;
  const T* own = w + i * d + column;
  alignas(64) double sum[kStrip] = {};
  for (int64_t k = lists.begin[i]; k < end; ++k) {
    const T* ahead = w + lists.entries[k + kAhead < end ? k + kAhead : k].other * d + column;
    for (int64_t j = 0; j < width; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(ahead + j);
    const Entry entry = lists.entries[k];
    const T* x = w + entry.other * d + column;
    const double v = values[entry.edge >= 0 ? entry.edge : -1 - entry.edge];
    F64 dot = {};
    double rest = 0;
    for (int64_t j = 0; j < whole; j += 8) {
      const F64 there = load_wide(x + j);
      dot += load_wide(own + j) * there;
      store_raw(sum + j, load_raw<F64>(sum + j) + v * there);
    }
    for (int64_t j = whole; j < width; ++j) {
      rest += double(own[j]) * double(x[j]);
      sum[j] += v * double(x[j]);
    }
    if (entry.edge >= 0) products[entry.edge] += lane_sum(dot) + rest;
  }
  if (grad == nullptr) return;
  for (int64_t j = 0; j < width; ++j) grad[i * d + column + j] -= 2 * sum[j];
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void gram_edges(DType dtype, const void* w, const int64_t* row, const int64_t* col,
                const double* values, int64_t K, int64_t d, int64_t E, double* products,
                double* grad, int threads) {
  const Lists lists(row, col, K, E);
  for (int64_t e = 0; e < E; ++e) products[e] = 0;
  const auto run = [&](auto type) {
    using T = decltype(type);
    const T* rows = static_cast<const T*>(w);
    parallel_for(ceil_div(K, kTasks), (E + K) * d, threads, [&](int64_t unit) {
      const int64_t end = (unit + 1) * kTasks < K ? (unit + 1) * kTasks : K;
      for (int64_t i = unit * kTasks; i < end; ++i) {
        for (int64_t column = 0; column < d; column += kStrip) {
          const int64_t width = d - column < kStrip ? d - column : kStrip;
          if (width == kStrip) {
            add_whole_strip(rows, lists, values, i, d, column, products, grad);
          } else {
            add_task(rows, lists, values, i, d, column, width, products, grad);
          }
        }
      }
    });
  };
  if (dtype == DType::float64) {
    run(double());
  } else {
    run(float());
  }
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
