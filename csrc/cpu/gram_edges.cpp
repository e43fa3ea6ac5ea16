// Distance of the Gram matrix from a sparse Ω:  Σ_ij (⟨w_i, w_j⟩ − ω_ij)², as
// ‖WᵀW‖² − Σ_e p_e² + Σ_e (p_e − ω_e)²  with p_e = ⟨w_row(e), w_col(e)⟩ at the stored entries e.
// Gradient in W  4 W (WᵀW) − 2 (Ω + Ωᵀ) W,  in ω_e  −2 (p_e − ω_e).
//
// Products of float32 values are exact in double and are summed in double.
//
// Plan     WᵀW by fixed units of tasks. Then one owner per task forms its row of 4 W (WᵀW),
//          gathers the rows of W that its entries name, in its row of Ω (with the products) and in
//          its column (listed by a counting sort), and writes its gradient once.
// Traffic  copies W; reads the copy for WᵀW, for the product with it, and one row for each end of
//          an entry. Lists of E entries. No temporary of size E·d, none of size K·d in double.
// Bits     units are added in order; a list is in the order of the entries.
#include "common/dispatch.h"
#include "common/gram_matrix.h"
#include "common/grouped.h"
#include "cpu/declare.h"
#include "kernels/gram.h"

MTLFAST_DECLARE(MTLFAST_GRAM)

namespace mtlfast {
namespace MTLFAST_ISA {
namespace {

constexpr int64_t kAhead = 8;    // entries between the row prefetched and the one read
constexpr int64_t kTasks = 256;  // of a work unit
constexpr int64_t kGroup = 32;   // tasks whose products with WᵀW are formed together
constexpr int64_t kStrip = 64;   // columns summed in registers

// What a column of Ω holds in one of its rows.
template <class Real>
struct Entry {
  Real value;
  int32_t task;
};

// The entries of Ω by row, and by column where a gradient is wanted.
template <class Real>
struct Entries {
  const int64_t* row;
  const int64_t* col;
  const Real* values;
  int64_t E;
  bool sorted;  // by row, as they are; false where there are none
  Scratch<int64_t> row_begin, order, col_begin;
  Scratch<Entry<Real>> columns;

  Entries(const int64_t* row, const int64_t* col, const Real* values, int64_t K, int64_t E,
          bool by_column, int threads)
      : row(row), col(col), values(values), E(E), sorted(is_sorted(row, E, threads)),
        row_begin(K + 1), order(sorted ? 0 : E), col_begin(K + 1), columns(by_column ? E : 0) {
    if (sorted) {
      begin_rows(K, threads);
    } else {
      group_by(row, K, E, threads, row_begin.get(), [&](int64_t at, int64_t e) { order[at] = e; });
    }
    if (!by_column) return;
    group_by(col, K, E, threads, col_begin.get(),
             [&](int64_t at, int64_t e) { columns[at] = {values[e], int32_t(row[e])}; });
  }
  // The k-th entry by row.
  MTLFAST_INLINE int64_t by_row(int64_t k) const { return sorted ? k : order[k]; }

 private:
  static bool is_sorted(const int64_t* row, int64_t E, int threads) {
    int64_t falls[kChunks] = {};
    for_chunks(E, threads, [&](int64_t c, int64_t begin, int64_t end) {
      int64_t count = 0;
      for (int64_t e = begin > 0 ? begin : 1; e < end; ++e) count += row[e] < row[e - 1];
      falls[c] = count;
    });
    int64_t total = 0;
    for (int64_t count : falls) total += count;
    return E > 0 && total == 0;
  }

  void begin_rows(int64_t K, int threads) {
    for (int64_t i = 0; i <= row[0]; ++i) row_begin[i] = 0;
    for_chunks(E, threads, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t e = begin > 0 ? begin : 1; e < end; ++e) {
        for (int64_t i = row[e - 1] + 1; i <= row[e]; ++i) row_begin[i] = e;
      }
    });
    for (int64_t i = row[E - 1] + 1; i <= K; ++i) row_begin[i] = E;
  }
};

template <class Real>
class Distance {
 public:
  Distance(const Padded<Real>& w, const GramMatrix<Real>& gram, const Entries<Real>& entries,
           Real* grad, Real* values_grad)
      : w_(w), gram_(gram), entries_(entries), grad_(grad), values_grad_(values_grad) {}

  double run(int threads) {
    const int64_t units = ceil_div(w_.K, kTasks), work = (entries_.E + w_.K * w_.d) * w_.d;
    const Scratch<Squares> squares(units);
    parallel_for(units, work, threads, [&](int64_t u) { squares[u] = unit(u); });
    Sum products, residuals;
    for (int64_t u = 0; u < units; ++u) {
      products.add(squares[u].products);
      residuals.add(squares[u].residuals);
    }
    const double elsewhere = gram_.square() - products.value();
    return (elsewhere < 0 ? 0 : elsewhere) + residuals.value();
  }

 private:
  struct Squares {
    double products, residuals;  // Σ p², Σ (p − ω)²
  };

  Squares unit(int64_t u) {
    const int64_t begin = u * kTasks, end = begin + kTasks < w_.K ? begin + kTasks : w_.K;
    const int64_t ld = w_.ld;
    const int64_t first = entries_.row_begin[begin], last = entries_.row_begin[end];
    const Scratch<double> wide(kGroup * ld), rows(kGroup * ld), products(last - first);
    for (int64_t k = 0; k < last - first; ++k) products[k] = 0;
    for (int64_t i = begin; i < end; i += kGroup) {
      const int64_t count = end - i < kGroup ? end - i : kGroup;
      w_.widen(i, count, 0, ld, wide.get());
      if (grad_ != nullptr) multiply_rows(wide.get(), count, rows.get());
      for (int64_t r = 0; r < count; ++r) {
        add_task(i + r, wide.get() + r * ld, rows.get() + r * ld,
                 products.get() + entries_.row_begin[i + r] - first);
      }
    }
    return compare(first, last, products.get());
  }

  // rows = x WᵀW; x has room for whole tiles.
  void multiply_rows(double* x, int64_t count, double* rows) const {
    const int64_t ld = w_.ld;
    for (int64_t k = count * ld; k < kGroup * ld; ++k) x[k] = 0;
    for (int64_t c = 0; c < ld; c += kTileColumns) {
      for (int64_t r = 0; r < count; r += kTileRows) {
        F64 tile[kTileRows][kTileVectors];
        multiply<kTileRows, kTileVectors>(x + r * ld, ld, gram_.get() + c, ld, w_.d, tile);
        for (int64_t j = 0; j < kTileRows; ++j) {
          std::memcpy(rows + (r + j) * ld + c, tile[j], sizeof tile[j]);
        }
      }
    }
  }

  // own = w_i, row = w_i WᵀW; products [entries of row i].
  void add_task(int64_t i, const double* own, const double* row, double* products) const {
    int64_t column = 0;
    for (; column + kStrip <= w_.ld; column += kStrip) add_strip<8>(i, column, own, row, products);
    switch (w_.ld - column) {
      case 16: return add_strip<2>(i, column, own, row, products);
      case 32: return add_strip<4>(i, column, own, row, products);
      case 48: return add_strip<6>(i, column, own, row, products);
    }
  }

  // Its columns [column, column + 8V).
  template <int V>
  void add_strip(int64_t i, int64_t column, const double* own, const double* row,
                 double* products) const {
    const Real* w = w_.row(0) + column;
    const int64_t ld = w_.ld, last = entries_.E - 1;
    const auto prefetch = [&](int64_t task) __attribute__((always_inline)) {
      for (int64_t j = 0; j < 8 * V; j += 64 / int64_t(sizeof(Real))) {
        __builtin_prefetch(w + task * ld + j);
      }
    };
    F64 sum[V] = {};
    for (int64_t k = entries_.row_begin[i]; k < entries_.row_begin[i + 1]; ++k) {
      prefetch(entries_.col[entries_.by_row(k + kAhead < last ? k + kAhead : last)]);
      const int64_t e = entries_.by_row(k);
      const Real* x = w + entries_.col[e] * ld;
      const double value = entries_.values[e];
      F64 dot[2] = {};
      for (int v = 0; v < V; ++v) {
        const F64 there = load_wide(x + 8 * v);
        dot[v % 2] += load_wide(own + column + 8 * v) * there;
        sum[v] += value * there;
      }
      *products++ += lane_sum(dot[0] + dot[1]);
    }
    if (grad_ == nullptr) return;
    for (int64_t k = entries_.col_begin[i]; k < entries_.col_begin[i + 1]; ++k) {
      prefetch(entries_.columns[k + kAhead < last ? k + kAhead : last].task);
      const Entry<Real> entry = entries_.columns[k];
      const double value = entry.value;
      for (int v = 0; v < V; ++v) sum[v] += value * load_wide(w + entry.task * ld + 8 * v);
    }
    for (int v = 0; v < V; ++v) {
      const int64_t j = column + 8 * v;
      store_grad(4 * load_wide(row + j) - 2 * sum[v], w_.d - j, grad_ + i * w_.d + j);
    }
  }

  MTLFAST_INLINE void store_grad(F64 x, int64_t width, Real* out) const {
    if (width >= 8) {
      store_narrow(out, x);
    } else {
      for (int64_t l = 0; l < width; ++l) out[l] = Real(x[l]);
    }
  }

  // Entries [first, last) by row against their products.
  Squares compare(int64_t first, int64_t last, const double* products) const {
    F64 product = {}, residual = {};
    for (int64_t begin = first; begin < last; begin += 8) {
      const int64_t width = last - begin < 8 ? last - begin : 8;
      F64 p = {}, r = {};
      for (int64_t l = 0; l < width; ++l) {
        const int64_t e = entries_.by_row(begin + l);
        p[l] = products[begin - first + l];
        r[l] = p[l] - double(entries_.values[e]);
        if (values_grad_ != nullptr) values_grad_[e] = Real(-2 * r[l]);
      }
      product += p * p;
      residual += r * r;
    }
    return {lane_sum(product), lane_sum(residual)};
  }

  const Padded<Real>& w_;
  const GramMatrix<Real>& gram_;
  const Entries<Real>& entries_;
  Real* grad_;         // [K, d] or null
  Real* values_grad_;  // [E] or null
};

}  // namespace

// ---------------------------------------------------------------------------------------------

void gram_edges(DType dtype, const void* w, const int64_t* row, const int64_t* col,
                const void* values, int64_t K, int64_t d, int64_t E, double* value, void* grad,
                void* values_grad, int threads) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Real = typename Lane<T>::Real;
    const Padded<Real> rows(static_cast<const T*>(w), K, d, threads);
    const GramMatrix<Real> gram(rows, threads);
    const Entries<Real> entries(row, col, static_cast<const Real*>(values), K, E, grad != nullptr,
                                threads);
    Distance<Real> distance(rows, gram, entries, static_cast<Real*>(grad),
                            static_cast<Real*>(values_grad));
    *value = distance.run(threads);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
