// Sums over the edges of one task by a group of lanes, the inner loop of the graph kernels.
//
// A lane owns a vector of columns. The group loads as many edges as it has lanes and hands them
// round, kFlight neighbours' rows are under way at once. All groups of a warp take as many steps as
// the longest needs, so that a warp's exchanges are always complete. A gradient is summed in W's
// arithmetic type, in runs, a value in double over runs. A zero weight is no edge: it is skipped,
// so that 0·Inf adds nothing.
#pragma once

#include "cuda/element.h"
#include "cuda/reduce.h"
#include "cuda/rows.h"

namespace mtlfast {
namespace cuda {

constexpr int kFlight = 4;    // divides the lanes of a group
constexpr int kEdgeRun = 32;  // edges whose sum goes to the next sum, so that both stay short
constexpr int kLeastLanes = 4;

// Lanes for d columns, a power of two; wider rows are taken in panels.
inline int lanes_for(int64_t d, int vector) {
  int lanes = kLeastLanes;
  while (lanes < kLanes && int64_t(lanes) * vector < d) lanes *= 2;
  return lanes;
}

template <class T>
struct Csr {
  const int64_t* row_ptr;  // [K + 1]
  const int32_t* col;
  const Real<T>* weight;
  const int32_t* order;  // [K] or null
  int64_t K;

  __device__ int32_t task(int64_t p) const { return order != nullptr ? order[p] : int32_t(p); }
};

// The part of a row that a lane owns.
struct Columns {
  int64_t first;
  int used;  // how many of its vector

  template <class T>
  static __device__ __forceinline__ Columns of(int64_t panel, int lanes, int64_t d, const T*) {
    const int64_t first = panel + int64_t(threadIdx.x % lanes) * kWidest<T>;
    const int64_t n = d - first;
    return {first, n < 0 ? 0 : n < kWidest<T> ? int(n) : kWidest<T>};
  }
};

__device__ __forceinline__ int warp_max(int x) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// grad[v] += Σ_j s_ij (w_i − w_j)[v],  value += Σ_{j>i} s_ij ‖w_i − w_j‖² over the lane's columns
// and `count` edges from `begin` on. Edges to j < i are not read unless with_grad.  All lanes of a
// warp call.
template <bool ALIGNED, class T, int V>
__device__ __forceinline__ void add_edges(const T* w, int64_t d, const Csr<T>& graph, int lanes,
                                          bool with_grad, int32_t i, int64_t begin, int count,
                                          Columns own, Real<T> (&grad)[V], double& value) {
  const int lane = int(threadIdx.x) % lanes, most = warp_max(count);
  const int32_t* const col = graph.col + begin;
  const Real<T>* const weights = graph.weight + begin;
  const T* const column = w + own.first;
  const bool reads = own.used > 0 && count > 0;
  Real<T> center[V], g[V] = {}, q = 0;
  Vector<T, V> row[kFlight] = {};
  if (reads) row[0] = load<ALIGNED>(column + int64_t(i) * d, own.used, Vector<T, V>{});
#pragma unroll
  for (int v = 0; v < V; ++v) center[v] = widen(row[0].x[v]);
  int run = 0;
  for (int done = 0; done < most; done += lanes) {
    int32_t to = i;
    Real<T> weight = 0;
    if (done + lane < count) {
      to = col[done + lane];
      weight = weights[done + lane];
      if (to == i || (!with_grad && to < i)) weight = 0;
    }
    const int batch = most - done < lanes ? most - done : lanes;
    for (int e = 0; e < batch; e += kFlight) {
      int32_t j[kFlight];
      Real<T> s[kFlight];
#pragma unroll
      for (int u = 0; u < kFlight; ++u) {
        j[u] = __shfl_sync(kAllLanes, to, e + u, lanes);
        s[u] = __shfl_sync(kAllLanes, weight, e + u, lanes);
        if (reads && s[u] != 0) {
          row[u] = load<ALIGNED>(column + int64_t(j[u]) * d, own.used, Vector<T, V>{});
        }
      }
#pragma unroll
      for (int u = 0; u < kFlight; ++u) {
        if (s[u] == 0) continue;
        Real<T> squares = 0;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Real<T> x = center[v] - widen(row[u].x[v]);
          g[v] += s[u] * x;
          squares += x * x;
        }
        if (j[u] > i) q += s[u] * squares;
      }
    }
    run += batch;
    if (run >= kEdgeRun || done + lanes >= most) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        grad[v] += g[v];
        g[v] = 0;
      }
      value += double(q);
      q = 0;
      run = 0;
    }
  }
}

// out[v] = scale·grad[v], or out[v] += scale·grad[v].
template <bool ALIGNED, class T, int V>
__device__ __forceinline__ void put_gradient(const Real<T> (&grad)[V], Real<T> scale, bool add,
                                             T* out, int used) {
  if (used == 0) return;
  Vector<T, V> x = {};
  if (add) x = load<ALIGNED>(out, used, x);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const Real<T> y = scale * grad[v];
    narrow(add ? widen(x.x[v]) + y : y, &x.x[v]);
  }
  store<ALIGNED>(x, out, used);
}

}  // namespace cuda
}  // namespace mtlfast
