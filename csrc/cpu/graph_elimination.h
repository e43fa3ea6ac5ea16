// Elimination without subtraction for a sparse graph, down to a core that is better eliminated densely.
#pragma once

#include <cstdint>

namespace mtlfast {

constexpr double kMostTied = 0x1p400;  // 2·step·s_ij beyond it ties as if it were that

// A macro's worth of arithmetic, inlined: no function that instruction sets could share.
__attribute__((always_inline)) inline double tie_of(double step, double weight) {
  const double tie = 2 * (step * weight);
  return tie < kMostTied ? tie : kMostTied;
}

// The system  x_i + Σ_j c_ij (x_i − x_j) = b_i  with c_ij = 2·step·s_ij, as cpu/elimination.h has it, for
// unknowns in the order of their degrees. Unknown order[t] went with the factors factor[e] to
// unknowns col[e], e from ptr[t] on, that go after it; those of the core are left.
class GraphElimination {
 public:
  // Gives up, so that complete() is false, where it would take more than `most` operations of the dense
  // elimination. weight is s_ij; the columns of row i are tasks of [0, n).
  GraphElimination(const int64_t* row_ptr /*[n + 1]*/, const int32_t* col, const double* weight,
                   int64_t n, double step, double most);
  ~GraphElimination();
  GraphElimination(const GraphElimination&) = delete;
  GraphElimination& operator=(const GraphElimination&) = delete;

  bool complete() const;
  bool positive() const;  // all pivots so far
  int64_t count() const;
  const int32_t* order() const;   // [count]
  const double* inverse() const;  // [count], of the pivots
  const int64_t* ptr() const;     // [count + 1]
  const int32_t* col() const;
  const double* factor() const;
  int64_t core_size() const;
  const int32_t* core() const;  // [core_size], the unknowns that are left, rising
  void fill_core(double* ties /*[core_size, core_size]*/, double* excess /*[core_size]*/) const;

 private:
  struct Parts;
  Parts* parts_;
};

}  // namespace mtlfast
