// What kernels take: element types, graphs, and how the texts below are read.
//
// Kernels know arrays and no checks: sizes are right, pointers are valid and arrays are dense and
// row-major by the time they get here. `threads` is an upper bound; the bits of every result are
// the same for any value of it. K tasks, d parameters a task, T the element type named by DType.
// The signature of each, with the shape of every array: kernels/<family>.h.
#pragma once

#include <cstdint>

namespace mtlfast {

enum class DType : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

// What a result is added to.
enum class Plus : int { nothing = 0, mean = 1, out = 2 };

// Symmetric sparse task graph: row p in [row_ptr[p], row_ptr[p+1]), columns sorted within a row. Row p
// is that of task order[p], or of task p.
// `weight` is s_ij = A_ij + A_ji in W's arithmetic type (double for float64, else float).
struct Graph {
  const int64_t* row_ptr;          // [K + 1]
  const int32_t* col;              // [row_ptr[K]]
  const void* weight;              // [row_ptr[K]]
  const int32_t* order = nullptr;  // [K], a permutation, or null
};

// What else a gradient has in row i: pull·(w_i − w̄) + shrink·w_i; without the former where mean is
// null.
struct Affine {
  const void* mean = nullptr;  // [2, d] of W's arithmetic type, w̄ = hi + lo
  double pull = 0, shrink = 0;
};

// Pairs (i, j), i < j, of linked tasks, sorted by i, then j: those of task i begin at out_ptr[i], and
// in_edge names those that end at it from in_ptr[i] on, in their order.
struct Pairs {
  const int64_t* out_ptr;  // [K + 1]
  const int32_t* dst;      // [E]
  const int64_t* in_ptr;   // [K + 1]
  const int64_t* in_edge;  // [E]
};

}  // namespace mtlfast
