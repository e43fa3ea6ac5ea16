// An order of the tasks in which neighbours are handled soon after each other.
//
// Plan     breadth-first from a task far from the first (the Cuthill–McKee order without its sort by
//          degree, which gained nothing here), component by component. Tasks keep their numbers and
//          W its rows; only the order in which rows are handled changes, so that a neighbour's row is
//          still in the cache from when it was last needed.
// Gain     the share of edges whose ends are at most kNear places apart, before and after: random
//          and power-law graphs have no order to find, and the caller leaves them alone.
// Cost     two breadth-first searches, about 30 ns an edge; serial, so the same on every machine.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/graph_order.h"
#include "interrupt.h"

namespace mtlfast {
namespace {

constexpr int64_t kNear = 1 << 15;          // rows: 8 MiB of 64 float32 columns
constexpr int64_t kWorthASearch = 1 << 12;  // smaller components lie in the cache anyhow
constexpr int64_t kCheck = 1 << 12;         // tasks between two checks for an interrupt
constexpr int64_t kSlice = 1 << 17;         // the same where threads share them

// Calls body(begin, end) for slices of the tasks.
template <class Body>
void for_slices(int64_t K, const Body& body) {
  for (int64_t begin = 0; begin < K; begin += kSlice) {
    check_interrupt();
    body(begin, begin + kSlice < K ? begin + kSlice : K);
  }
}

// Appends the unvisited tasks that can be reached from `start` to order[count..]; returns the count.
int64_t search(const int64_t* row_ptr, const int32_t* col, int32_t start, int64_t count,
               std::vector<char>& visited, int32_t* order) {
  int64_t head = count;
  order[count++] = start;
  visited[std::size_t(start)] = 1;
  for (; head < count; ++head) {
    if (head % kCheck == 0) check_interrupt();
    const int64_t i = order[head], ahead = head + 4 < count ? order[head + 4] : i;
    __builtin_prefetch(row_ptr + ahead);
    for (int64_t k = row_ptr[i]; k < row_ptr[i + 1]; ++k) {
      const int32_t j = col[k];
      if (!visited[std::size_t(j)]) {
        visited[std::size_t(j)] = 1;
        order[count++] = j;
      }
    }
  }
  return count;
}

// Edges whose ends are near each other; place[i] is where task i comes.
int64_t near_edges(const int64_t* row_ptr, const int32_t* col, int64_t K, const int32_t* place) {
  int64_t total = 0;
  for_slices(K, [&](int64_t begin, int64_t end) {
    int64_t near = 0;
#pragma omp parallel for schedule(static) reduction(+ : near)
    for (int64_t i = begin; i < end; ++i) {
      const int64_t own = place != nullptr ? place[i] : i;
      for (int64_t k = row_ptr[i]; k < row_ptr[i + 1]; ++k) {
        const int64_t distance = (place != nullptr ? place[col[k]] : col[k]) - own;
        near += distance <= kNear && distance >= -kNear;
      }
    }
    total += near;
  });
  return total;
}

}  // namespace

double graph_order(const int64_t* row_ptr, const int32_t* col, int64_t K, int32_t* order) {
  const int64_t before = near_edges(row_ptr, col, K, nullptr);
  std::vector<char> visited(std::size_t(K), 0);
  int64_t count = 0;
  for (int64_t i = 0; i < K; ++i) {
    if (visited[std::size_t(i)]) continue;
    const int64_t begin = count;
    count = search(row_ptr, col, int32_t(i), begin, visited, order);
    if (count - begin < kWorthASearch) continue;
    const int32_t far = order[count - 1];
    for (int64_t p = begin; p < count; ++p) visited[std::size_t(order[p])] = 0;
    count = search(row_ptr, col, far, begin, visited, order);
  }
  std::vector<int32_t> place(std::size_t(K), 0);
  for (int64_t p = 0; p < K; ++p) place[std::size_t(order[p])] = int32_t(p);
  const int64_t after = near_edges(row_ptr, col, K, place.data());
  const int64_t edges = row_ptr[K] > 0 ? row_ptr[K] : 1;
  return double(after - before) / double(edges);
}

void graph_reorder(const int64_t* row_ptr, const int32_t* col, const void* weight,
                   int64_t weight_bytes, int64_t K, const int32_t* order, int64_t* new_row_ptr,
                   int32_t* new_col, void* new_weight) {
  new_row_ptr[0] = 0;
  for (int64_t p = 0; p < K; ++p) {
    const int64_t i = order[p];
    new_row_ptr[p + 1] = new_row_ptr[p] + row_ptr[i + 1] - row_ptr[i];
  }
  const auto copy = [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(weight);
    T* to = static_cast<T*>(new_weight);
    for_slices(K, [&](int64_t begin, int64_t end) {
#pragma omp parallel for schedule(static)
      for (int64_t p = begin; p < end; ++p) {
        int64_t k = row_ptr[order[p]];
        for (int64_t at = new_row_ptr[p]; at < new_row_ptr[p + 1]; ++at, ++k) {
          new_col[at] = col[k];
          to[at] = from[k];
        }
      }
    });
  };
  weight_bytes == 8 ? copy(uint64_t()) : copy(uint32_t());
}

}  // namespace mtlfast
