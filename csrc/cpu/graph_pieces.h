// The connected pieces of a task graph, found once when it is prepared.
#pragma once

#include <cstdint>

namespace mtlfast {

// member [K]: the tasks piece by piece, those of piece p from first[p] on, in rising order; pieces in
// the order of their first tasks. Returns the number of pieces; first[count] = K.
int64_t graph_pieces(const int64_t* row_ptr /*[K + 1]*/, const int32_t* col, int64_t K,
                     int64_t* first /*[K + 1]*/, int32_t* member /*[K]*/);

}  // namespace mtlfast
