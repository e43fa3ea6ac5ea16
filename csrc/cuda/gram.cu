// What a sparse Ω asks of the Gram distance  Σ_ij (⟨w_i, w_j⟩ − ω_ij)²:  the products ⟨w_i, w_j⟩ at
// its entries, and Σ_e ω_e w_other(e) for the end of every entry. WᵀW and W·(WᵀW) are torch's.
//
// Plan     `products`: a group of lanes has an entry. `add_rows`: the list of ends, sorted by task,
//          is cut into tiles of kTile, a group of lanes has a tile; a task whose ends all lie in one
//          tile is written there, parts of the others are kept and `join_parts` adds them up.
// Traffic  reads one row of W for each end of an entry; reads and writes the rows of the sum once.
// Bits     everything in double; the cut depends on the list alone, each part is summed in the order
//          of the list and parts in the order of tiles; no atomics.
#include "cuda/edges.h"
#include "cuda/kernels.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr int kTile = 64;  // a multiple of the lanes of every group

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads)
    products(const T* w /*[K, d]*/, const int64_t* row /*[E]*/, const int64_t* col /*[E]*/,
             int64_t E, int64_t d, int lanes, double* out /*[E]*/) {
  constexpr int V = kWidest<T>;
  const int64_t e = int64_t(blockIdx.x) * (kThreads / lanes) + int(threadIdx.x) / lanes;
  double total = 0;
  for (int64_t panel = 0; panel < d && e < E; panel += lanes * V) {
    const Columns own = Columns::of(panel, lanes, d, w);
    if (own.used == 0) break;
    const T* const column = w + own.first;
    const Vector<T, V> a = load<ALIGNED>(column + row[e] * d, own.used, Vector<T, V>{});
    const Vector<T, V> b = load<ALIGNED>(column + col[e] * d, own.used, Vector<T, V>{});
#pragma unroll
    for (int v = 0; v < V; ++v) total += double(widen(a.x[v])) * double(widen(b.x[v]));
  }
  for (int step = lanes / 2; step > 0; step /= 2) total += __shfl_xor_sync(kAllLanes, total, step);
  if (e < E && int(threadIdx.x) % lanes == 0) out[e] = total;
}

// The ends of all entries, sorted by task: that of `task` adds weight·w_other.
template <class T>
struct Ends {
  const int64_t* task;   // [M]
  const int64_t* other;  // [M]
  const Real<T>* weight;
  int64_t M;

  // Whether ends e and e + 1 belong to the same task.
  __device__ bool goes_on(int64_t e) const { return e >= 0 && e + 1 < M && task[e] == task[e + 1]; }
};

// Parts of tasks that lie in several tiles.
struct Parts {
  int64_t tiles;
  double* head;  // [tiles, d], of the task that began before the tile
  double* tail;  // [tiles, d], of the task that begins in the tile and goes on behind it
};

// row = sum, or row += factor·sum.
template <int V>
__device__ __forceinline__ void put_sum(const double (&sum)[V], double* row, double factor,
                                        bool add, int used) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v < used) row[v] = add ? row[v] + factor * sum[v] : sum[v];
  }
}

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads)
    add_rows(const T* w /*[K, d]*/, Ends<T> ends, int64_t d, int lanes, double factor, Parts parts,
             double* out /*[K, d]*/) {
  constexpr int V = kWidest<T>;
  const int64_t tile = int64_t(blockIdx.x) * (kThreads / lanes) + int(threadIdx.x) / lanes;
  const int64_t begin = tile * kTile, end = begin + kTile < ends.M ? begin + kTile : ends.M;
  const int lane = int(threadIdx.x) % lanes;
  for (int64_t panel = 0; panel < d; panel += lanes * V) {
    const Columns own = Columns::of(panel, lanes, d, w);
    const T* const column = w + own.first;
    double sum[V] = {};
    int64_t current = -1;  // the task that is summed, none at first
    bool is_head = ends.goes_on(begin - 1);
    const auto put = [&](bool is_tail) {
      double* const row = is_head   ? parts.head + tile * d
                          : is_tail ? parts.tail + tile * d
                                    : out + current * d;
      if (current >= 0) put_sum(sum, row + own.first, factor, !is_head && !is_tail, own.used);
    };
    for (int64_t done = begin; done < begin + kTile; done += lanes) {
      int64_t task = -1, other = 0;
      Real<T> weight = 0;
      if (done + lane < end) {
        task = ends.task[done + lane];
        other = ends.other[done + lane];
        weight = ends.weight[done + lane];
      }
      for (int e = 0; e < lanes; e += kFlight) {
        int64_t i[kFlight];
        Real<T> s[kFlight];
        Vector<T, V> x[kFlight] = {};
#pragma unroll
        for (int u = 0; u < kFlight; ++u) {
          i[u] = __shfl_sync(kAllLanes, task, e + u, lanes);
          s[u] = __shfl_sync(kAllLanes, weight, e + u, lanes);
          const int64_t j = __shfl_sync(kAllLanes, other, e + u, lanes);
          if (i[u] >= 0 && own.used > 0) x[u] = load<ALIGNED>(column + j * d, own.used, x[u]);
        }
#pragma unroll
        for (int u = 0; u < kFlight; ++u) {
          if (i[u] < 0) continue;
          if (i[u] != current) {
            if (current >= 0) {
              put(false);
              is_head = false;
            }
            current = i[u];
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] = 0;
          }
#pragma unroll
          for (int v = 0; v < V; ++v) sum[v] += double(s[u]) * double(widen(x[u].x[v]));
        }
      }
    }
    put(ends.goes_on(end - 1));
  }
}

// A warp has the task that begins in its tile and goes on behind it.
template <class T>
__global__ void __launch_bounds__(kThreads)
    join_parts(Ends<T> ends, int64_t d, double factor, Parts parts, double* out /*[K, d]*/) {
  const int64_t tile = int64_t(blockIdx.x) * (kThreads / kLanes) + int(threadIdx.x) / kLanes;
  const int64_t last = (tile + 1) * kTile - 1;
  if (!ends.goes_on(last)) return;
  const int64_t task = ends.task[last], begin = tile * kTile;
  if (ends.goes_on(begin - 1) && ends.task[begin] == task) return;  // it began before
  for (int64_t j = threadIdx.x % kLanes; j < d; j += kLanes) {
    double sum = parts.tail[tile * d + j];
    int64_t t = tile;
    do {
      ++t;
      sum += parts.head[t * d + j];
    } while (ends.goes_on((t + 1) * kTile - 1) && ends.task[(t + 1) * kTile - 1] == task);
    out[task * d + j] += factor * sum;
  }
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void edge_product(DType dtype, const void* w, const int64_t* row, const int64_t* col, int64_t E,
                  int64_t d, double* out, Stream stream) {
  if (E == 0) return;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* const rows = static_cast<const T*>(w);
    const int lanes = lanes_for(d, kWidest<T>);
    const bool aligned = is_aligned(rows) && d % kWidest<T> == 0;
    const auto run = aligned ? products<T, true> : products<T, false>;
    MTLFAST_LAUNCH(run, ceil_div(E, kThreads / lanes), kThreads, 0, stream, rows, row, col, E, d,
                   lanes, out);
  });
}

int64_t edge_sum_workspace(int64_t M, int64_t d) {
  return 2 * ceil_div(M, kTile) * d * int64_t(sizeof(double));
}

void edge_sum(DType dtype, const void* w, const int64_t* task, const int64_t* other,
              const void* weight, int64_t M, int64_t d, double factor, double* out, void* workspace,
              Stream stream) {
  if (M == 0 || d == 0) return;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* const rows = static_cast<const T*>(w);
    const Ends<T> ends{task, other, static_cast<const Real<T>*>(weight), M};
    const int lanes = lanes_for(d, kWidest<T>);
    const int64_t tiles = ceil_div(M, kTile);
    double* const head = static_cast<double*>(workspace);
    const Parts parts{tiles, head, head + tiles * d};
    const bool aligned = is_aligned(rows) && d % kWidest<T> == 0;
    const auto run = aligned ? add_rows<T, true> : add_rows<T, false>;
    MTLFAST_LAUNCH(run, ceil_div(tiles, kThreads / lanes), kThreads, 0, stream, rows, ends, d,
                   lanes, factor, parts, out);
    MTLFAST_LAUNCH(join_parts<T>, ceil_div(tiles, kThreads / kLanes), kThreads, 0, stream, ends, d,
                   factor, parts, out);
  });
}

}  // namespace cuda
}  // namespace mtlfast
