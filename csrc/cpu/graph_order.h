// The order in which the rows of a task graph are handled, found once when it is prepared.
#pragma once

#include <cstdint>

namespace mtlfast {

// order [K]: a permutation of the tasks in which neighbours are near. Returns by how much the share of
// edges between near tasks grows, from −1 to 1.
double graph_order(const int64_t* row_ptr /*[K + 1]*/, const int32_t* col, int64_t K,
                   int32_t* order /*[K]*/);

// The rows of a CSR matrix in the given order: row p of the result is row order[p]. Weights have
// weight_bytes bytes, 4 or 8.
void graph_reorder(const int64_t* row_ptr /*[K + 1]*/, const int32_t* col, const void* weight,
                   int64_t weight_bytes, int64_t K, const int32_t* order /*[K]*/,
                   int64_t* new_row_ptr /*[K + 1]*/, int32_t* new_col, void* new_weight);

}  // namespace mtlfast
