// The connected pieces of a task graph.
//
// Plan     a forest in which every task points towards the smallest of its piece: an edge joins two
//          trees under the smaller root, and paths are halved on the way up. Then a counting sort.
// Cost     one pass over the edges, each of them once; serial, so the same on every machine.
#include "cpu/graph_pieces.h"

#include <cstddef>
#include <vector>

#include "interrupt.h"

namespace mtlfast {
namespace {

constexpr int64_t kCheck = 1 << 12;  // tasks between two checks for an interrupt

}  // namespace

int64_t graph_pieces(const int64_t* row_ptr, const int32_t* col, int64_t K, int64_t* first,
                     int32_t* member) {
  std::vector<int32_t> parent(static_cast<std::size_t>(K));
  int32_t* const up = parent.data();
  for (int64_t i = 0; i < K; ++i) up[i] = int32_t(i);
  const auto root = [up](int32_t i) {
    while (up[i] != i) i = up[i] = up[up[i]];
    return i;
  };
  for (int64_t i = 0; i < K; ++i) {
    if (i % kCheck == 0) check_interrupt();
    int32_t own = root(int32_t(i));
    for (int64_t k = row_ptr[i]; k < row_ptr[i + 1]; ++k) {
      if (col[k] >= i) continue;  // every pair is stored in both rows
      const int32_t other = root(col[k]);
      up[own < other ? other : own] = own < other ? own : other;
      own = own < other ? own : other;
    }
  }
  // roots come before the rest of their trees: number the pieces, count their tasks, place them
  int64_t count = 0;
  std::vector<int32_t> piece(static_cast<std::size_t>(K));
  for (int64_t i = 0; i <= K; ++i) first[i] = 0;
  for (int64_t i = 0; i < K; ++i) {
    if (i % kCheck == 0) check_interrupt();
    const int32_t top = root(int32_t(i));
    const int32_t own = piece[std::size_t(i)] =
        top == i ? int32_t(count++) : piece[std::size_t(top)];
    ++first[own + 1];
  }
  for (int64_t p = 0; p < count; ++p) first[p + 1] += first[p];
  std::vector<int64_t> next(first, first + count);
  for (int64_t i = 0; i < K; ++i) {
    member[next[std::size_t(piece[std::size_t(i)])]++] = int32_t(i);
  }
  return count;
}

}  // namespace mtlfast
