// Graph-weighted distance:  Σ_ij A_ij ‖w_i − w_j‖² = Σ_{i<j} s_ij ‖w_i − w_j‖²,  s = A + Aᵀ,
// gradient 2 Σ_j s_ij (w_i − w_j), from the CSR matrix of s;  and ∂/∂A_ij = ‖w_i − w_j‖².
//
// Plan     a group of lanes owns a row (edges.h). All edges are cut into tiles of kTile; the tiles
//          that a row covers whole, if it has so many edges, are taken off it: `sum_rows` notes
//          them and leaves the sum of the row's other edges, `sum_tiles` has a warp for each, and
//          `finish` adds them up, and the values of all blocks.
// Traffic  reads each neighbour's row once per stored direction (the value alone: once per edge),
//          writes the gradient once; 3 launches for value and gradient together.
// Bits     the cut depends on row_ptr alone; each part is summed in the order of its columns, and
//          parts, tiles and blocks in their order; no atomics.
#include "cuda/edges.h"
#include "cuda/kernels.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr int64_t kTile = 256;
constexpr int kRounds = 4;  // rows of a group in a block
constexpr int kWarps = kThreads / kLanes;

template <class T>
struct Gradient {
  T* out;  // [K, d], or null: not wanted
  double scale;
  const Real<T>* upstream;  // [1] or null
  bool add;

  __device__ double factor() const {
    return upstream != nullptr ? scale * double(*upstream) : scale;
  }
};

// Tile t is edges [t·kTile, (t + 1)·kTile); the part of one behind the last whole tile is none.
template <class T>
struct Tiles {
  int64_t count;
  Real<T>* whole;  // [count, d], gradient of a tile that a row covers
  Real<T>* rest;   // [count, d], gradient of the other edges of the row whose first tile this is
  int32_t* row;    // [count], the row of the CSR matrix that covers the tile, or −1
};

template <class R, int V>
__device__ __forceinline__ void keep(const R (&grad)[V], R* row, Columns own) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v < own.used) row[own.first + v] = grad[v];
  }
}

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, 2)
    sum_rows(const T* w /*[K, d]*/, Csr<T> graph, int64_t d, int lanes, Gradient<T> gradient,
             Tiles<T> tiles, double* values /*[gridDim]*/) {
  constexpr int V = kWidest<T>;
  const int groups = kThreads / lanes, lane = int(threadIdx.x) % lanes;
  const bool with_grad = gradient.out != nullptr;
  const Real<T> factor = with_grad ? Real<T>(gradient.factor()) : Real<T>(0);
  double value = 0;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t p = (int64_t(blockIdx.x) * kRounds + round) * groups + int(threadIdx.x) / lanes;
    const bool exists = p < graph.K;
    const int64_t begin = exists ? graph.row_ptr[p] : 0, end = exists ? graph.row_ptr[p + 1] : 0;
    const int32_t i = exists ? graph.task(p) : 0;
    const int64_t tile = ceil_div(begin, kTile), tiles_end = end / kTile;
    const bool is_tiled = tile < tiles_end;
    for (int64_t t = tile + lane; t < tiles.count && t * kTile < end; t += lanes) {
      tiles.row[t] = t < tiles_end ? int32_t(p) : -1;
    }
    for (int64_t panel = 0; panel < d; panel += lanes * V) {
      const Columns own = Columns::of(panel, lanes, d, w);
      Real<T> grad[V] = {};
      int64_t from = begin;
      int count = int((is_tiled ? tile * kTile : end) - begin);
      while (true) {
        add_edges<ALIGNED>(w, d, graph, lanes, with_grad, i, from, count, own, grad, value);
        const bool is_before = is_tiled && from == begin;  // the tiles
        if (!__any_sync(kAllLanes, is_before)) break;
        from = is_before ? tiles_end * kTile : end;
        count = int(end - from);
      }
      if (!with_grad || !exists) continue;
      if (is_tiled) {
        keep(grad, tiles.rest + tile * d, own);
      } else {
        put_gradient<ALIGNED>(grad, factor, gradient.add, gradient.out + int64_t(i) * d + own.first,
                              own.used);
      }
    }
  }
  const double total = block_sum(value);
  if (threadIdx.x == 0) values[blockIdx.x] = total;
}

// A warp has a tile, its groups equal shares of it.
template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, 2)
    sum_tiles(const T* w /*[K, d]*/, Csr<T> graph, int64_t d, int lanes, bool with_grad,
              Tiles<T> tiles, double* values /*[gridDim]*/) {
  constexpr int V = kWidest<T>;
  const int64_t t = int64_t(blockIdx.x) * kWarps + int(threadIdx.x) / kLanes;
  const int64_t p = t < tiles.count ? tiles.row[t] : -1;
  double value = 0;
  if (p >= 0) {
    const int share = int(kTile) / (kLanes / lanes);
    const int64_t begin = t * kTile + int(threadIdx.x) % kLanes / lanes * share;
    for (int64_t panel = 0; panel < d; panel += lanes * V) {
      const Columns own = Columns::of(panel, lanes, d, w);
      Real<T> grad[V] = {};
      add_edges<ALIGNED>(w, d, graph, lanes, with_grad, graph.task(p), begin, share, own, grad,
                         value);
      if (!with_grad) continue;
      for (int step = lanes; step < kLanes; step *= 2) {
#pragma unroll
        for (int v = 0; v < V; ++v) grad[v] += __shfl_xor_sync(kAllLanes, grad[v], step);
      }
      if (int(threadIdx.x) % kLanes < lanes) keep(grad, tiles.whole + t * d, own);
    }
  }
  const double total = block_sum(value);
  if (threadIdx.x == 0) values[blockIdx.x] = total;
}

// Block 0 has the value; behind it, a warp has the row whose first tile is its own.
template <class T>
__global__ void __launch_bounds__(kThreads)
    finish(Csr<T> graph, int64_t d, Gradient<T> gradient, Tiles<T> tiles, const double* values,
           int64_t blocks, double scale, Real<T>* value /*[1]*/) {
  if (blockIdx.x == 0) {
    const double total = block_sum_of(values, blocks);
    if (threadIdx.x == 0) *value = Real<T>(scale * total);
    return;
  }
  const int64_t first = (int64_t(blockIdx.x) - 1) * kWarps + int(threadIdx.x) / kLanes;
  const int32_t p = first < tiles.count ? tiles.row[first] : -1;
  if (p < 0 || (first > 0 && tiles.row[first - 1] == p)) return;
  T* const out = gradient.out + int64_t(graph.task(p)) * d;
  for (int64_t j = threadIdx.x % kLanes; j < d; j += kLanes) {
    double grad = double(tiles.rest[first * d + j]);
    for (int64_t t = first; t < tiles.count && tiles.row[t] == p; ++t) {
      grad += double(tiles.whole[t * d + j]);
    }
    const Real<T> y = Real<T>(gradient.factor() * grad);
    narrow(gradient.add ? widen(out[j]) + y : y, out + j);
  }
}

// A group of lanes has an edge.
template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads)
    distances(const T* w /*[K, d]*/, const int64_t* src /*[E]*/, const int64_t* dst /*[E]*/,
              int64_t E, int64_t d, int lanes, Real<T>* out /*[E]*/) {
  constexpr int V = kWidest<T>;
  const int64_t e = int64_t(blockIdx.x) * (kThreads / lanes) + int(threadIdx.x) / lanes;
  const int64_t i = e < E ? src[e] : 0, j = e < E ? dst[e] : 0;
  double total = 0;
  for (int64_t panel = 0; panel < d && i != j; panel += lanes * V) {
    const Columns own = Columns::of(panel, lanes, d, w);
    if (own.used == 0) break;
    const Vector<T, V> a = load<ALIGNED>(w + i * d + own.first, own.used, Vector<T, V>{});
    const Vector<T, V> b = load<ALIGNED>(w + j * d + own.first, own.used, Vector<T, V>{});
    Real<T> squares = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Real<T> x = widen(a.x[v]) - widen(b.x[v]);
      squares += x * x;
    }
    total += double(squares);
  }
  for (int step = lanes / 2; step > 0; step /= 2) total += __shfl_xor_sync(kAllLanes, total, step);
  if (e < E && int(threadIdx.x) % lanes == 0) out[e] = Real<T>(total);
}

template <class T>
struct Workspace {
  int lanes;
  int64_t row_blocks, tile_blocks;
  double* values;
  Tiles<T> tiles;
  int64_t bytes;

  Workspace(int64_t K, int64_t d, int64_t E, void* start) : lanes(lanes_for(d, kWidest<T>)) {
    const int64_t count = E / kTile;
    row_blocks = ceil_div(K, int64_t(kThreads) / lanes * kRounds);
    tile_blocks = ceil_div(count, kWarps);
    values = static_cast<double*>(start);
    Real<T>* const whole = reinterpret_cast<Real<T>*>(values + row_blocks + tile_blocks);
    Real<T>* const rest = whole + count * d;
    tiles = {count, whole, rest, reinterpret_cast<int32_t*>(rest + count * d)};
    bytes = (row_blocks + tile_blocks) * int64_t(sizeof(double)) +
            2 * count * d * int64_t(sizeof(Real<T>)) + count * int64_t(sizeof(int32_t));
  }
};

}  // namespace

// ---------------------------------------------------------------------------------------------

int64_t graph_workspace(DType dtype, int64_t K, int64_t d, int64_t E) {
  int64_t bytes = 0;
  with_type(dtype, [&](auto type) {
    bytes = Workspace<typename decltype(type)::type>(K, d, E, nullptr).bytes;
  });
  return bytes;
}

void graph_value(DType dtype, const void* w, Graph graph, int64_t K, int64_t d, int64_t E,
                 double value_scale, void* value, void* grad, Scale scale, Plus plus,
                 void* workspace, Stream stream) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* const rows = static_cast<const T*>(w);
    const Csr<T> csr{graph.row_ptr, graph.col, static_cast<const Real<T>*>(graph.weight),
                     graph.order, K};
    const Gradient<T> gradient{static_cast<T*>(grad), 2 * scale.factor,
                               static_cast<const Real<T>*>(scale.upstream), plus == Plus::out};
    const Workspace<T> work(K, d, E, workspace);
    const bool aligned = is_aligned(rows) && is_aligned(gradient.out) && d % kWidest<T> == 0;
    if (work.row_blocks > 0) {
      const auto run = aligned ? sum_rows<T, true> : sum_rows<T, false>;
      MTLFAST_LAUNCH(run, work.row_blocks, kThreads, 0, stream, rows, csr, d, work.lanes, gradient,
                     work.tiles, work.values);
    }
    if (work.tile_blocks > 0) {
      const auto run = aligned ? sum_tiles<T, true> : sum_tiles<T, false>;
      MTLFAST_LAUNCH(run, work.tile_blocks, kThreads, 0, stream, rows, csr, d, work.lanes,
                     grad != nullptr, work.tiles, work.values + work.row_blocks);
    }
    const int64_t rest_blocks = grad != nullptr ? work.tile_blocks : 0;
    MTLFAST_LAUNCH(finish<T>, 1 + rest_blocks, kThreads, 0, stream, csr, d, gradient, work.tiles,
                   work.values, work.row_blocks + work.tile_blocks, value_scale,
                   static_cast<Real<T>*>(value));
  });
}

void edge_distance(DType dtype, const void* w, const int64_t* src, const int64_t* dst, int64_t E,
                   int64_t d, void* out, Stream stream) {
  if (E == 0) return;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* const rows = static_cast<const T*>(w);
    const int lanes = lanes_for(d, kWidest<T>);
    const bool aligned = is_aligned(rows) && d % kWidest<T> == 0;
    const auto run = aligned ? distances<T, true> : distances<T, false>;
    MTLFAST_LAUNCH(run, ceil_div(E, kThreads / lanes), kThreads, 0, stream, rows, src, dst, E, d,
                   lanes, static_cast<Real<T>*>(out));
  });
}

}  // namespace cuda
}  // namespace mtlfast
