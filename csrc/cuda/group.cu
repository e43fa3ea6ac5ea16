// Groups of tasks linked all to all:  Σ_g Σ_{i≠j∈g} ‖w_i − w_j‖² = Σ_g 2 n_g Σ_i ‖w_i − w̄_g‖²,
// gradient 4 n_g (w_i − w̄_g),  prox w̄_g + (w_i − w̄_g)/(1 + 4 n_g t): pairwise, group by group.
//
// Plan     a group of lanes has a group of up to kTile tasks, whole: mean, then distances to it.
//          The list of members is cut into tiles of kTile; a larger group holds the first member
//          of at least one, which `small_groups` notes. A warp has a tile (`sum_tiles`: means of
//          its parts and distances to them), a block a strip of columns of a large group
//          (`merge`: Σ_s M_s + n_s ‖w̄_s − w̄‖²), and `write_tiles` the rows of large groups.
// Traffic  reads each member's row twice, the second time from cache in small groups, writes once;
//          large groups three times.  2 launches up to kTile members, else 5.
// Bits     the cut depends on ptr, G, M and d alone; means are sums of differences from the group's
//          first row in double, no square is expanded; parts are added in their order, no atomics.
#include "cuda/edges.h"
#include "cuda/kernels.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr int64_t kTile = 128;         // members
constexpr int64_t kMostBlocks = 4096;  // of small_groups
constexpr int kWarps = kThreads / kLanes;
constexpr int kLeastStrip = 4;   // columns of a block of merge
constexpr int kMergeSlices = 4;  // of a thread, while a strip can be narrower

struct Groups {
  const int64_t* ptr;     // [G + 1]
  const int64_t* member;  // [M]
  int64_t G, d;
  int lanes;       // that have a row, or a panel of it
  int64_t panels;  // of lanes·V columns
};

// What is written for the tasks of a group of n.
template <class T>
struct Result {
  T* out;  // [K, d], or null: nothing
  bool is_prox;
  double scale;             // of the gradient, or the step
  const Real<T>* upstream;  // [1] or null

  __device__ Real<T> factor(int64_t n) const {
    if (is_prox) return Real<T>(1.0 / (1.0 + 4.0 * double(n) * scale));
    return Real<T>(4.0 * double(n) * (upstream != nullptr ? scale * double(*upstream) : scale));
  }
};

// Tile t is members [t·kTile, (t + 1)·kTile).
template <class T>
struct Tiles {
  int64_t count;   // 0 where no group can be large
  int64_t* group;  // [count], the large group that has the tile's first member, or −1
  double* offset;  // [2, count, d], mean less the group's first row: of the group's part of the
                   // tile, and of what it has before the first of its tiles
  Real<T>* mean;   // [count, 2, d], (hi, lo) of the large group whose first tile this is
};

// The members of a large group within a tile; none where from = to.
struct Part {
  int64_t begin, n;  // of the group
  int64_t from, to;
  int64_t slot;  // of its offset
};

// Part 0 of tile t belongs to the group that has its first member, part 1 to the one that begins in
// it and has the next tile's first.
template <class T>
__device__ __forceinline__ Part part_of(const Groups& groups, const Tiles<T>& tiles, int64_t t,
                                        int which) {
  const int64_t g = t + which < tiles.count ? tiles.group[t + which] : -1;
  if (g < 0 || (which == 1 && tiles.group[t] == g)) return {0, 0, 0, 0, 0};
  const int64_t begin = groups.ptr[g], end = groups.ptr[g + 1], next = (t + 1) * kTile;
  if (which == 1) return {begin, end - begin, begin, next, tiles.count + t + 1};
  return {begin, end - begin, t * kTile, end < next ? end : next, t};
}

// body(row, offset in W) for members [from, to), in their order.
template <bool ALIGNED, class T, class Body>
__device__ __forceinline__ void each_row(const T* w, const Groups& groups, int64_t from, int64_t to,
                                         Columns own, const Body& body) {
  for (int64_t k = from; k < to; k += kFlight) {
    Vector<T, kWidest<T>> row[kFlight];
    int64_t at[kFlight];
#pragma unroll
    for (int u = 0; u < kFlight; ++u) {
      if (k + u >= to) continue;
      at[u] = groups.member[k + u] * groups.d + own.first;
      row[u] = load<ALIGNED>(w + at[u], own.used, row[u]);
    }
#pragma unroll
    for (int u = 0; u < kFlight; ++u) {
      if (k + u < to) body(row[u], at[u]);
    }
  }
}

template <bool ALIGNED, class T, int V>
__device__ __forceinline__ void load_origin(const T* w, const Groups& groups, int64_t begin,
                                            Columns own, double (&origin)[V]) {
  const T* const first = w + groups.member[begin] * groups.d + own.first;
  const Vector<T, V> row = load<ALIGNED>(first, own.used, Vector<T, V>{});
#pragma unroll
  for (int v = 0; v < V; ++v) origin[v] = double(widen(row.x[v]));
}

// sum[v] += Σ_i (w_i − origin)[v].
template <bool ALIGNED, class T, int V>
__device__ __forceinline__ void add_offsets(const T* w, const Groups& groups, int64_t from,
                                            int64_t to, Columns own, const double (&origin)[V],
                                            double (&sum)[V]) {
  each_row<ALIGNED>(w, groups, from, to, own, [&](const Vector<T, V>& row, int64_t) {
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] += double(widen(row.x[v])) - origin[v];
  });
}

// Σ_i ‖w_i − (hi + lo)‖² over the lane's columns; writes the rows of the result.
template <bool ALIGNED, class T, int V>
__device__ __forceinline__ double add_squares(const T* w, const Groups& groups, int64_t from,
                                              int64_t to, Columns own, const Real<T> (&hi)[V],
                                              const Real<T> (&lo)[V], Real<T> factor,
                                              const Result<T>& result) {
  double total = 0;
  each_row<ALIGNED>(w, groups, from, to, own, [&](Vector<T, V> row, int64_t at) {
    Real<T> squares = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Real<T> wv = widen(row.x[v]), x = (wv - hi[v]) - lo[v];
      squares += x * x;
      narrow(result.is_prox ? affine_of<Plus::mean>(wv, hi[v], lo[v], factor, wv)
                            : affine_of<Plus::nothing>(wv, hi[v], lo[v], factor, wv),
             &row.x[v]);
    }
    total += double(squares);
    if (result.out != nullptr) store<ALIGNED>(row, result.out + at, own.used);
  });
  return total;
}

// A group of lanes has a group of tasks, or a panel of it, in each round.
template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, 2)
    small_groups(const T* w /*[K, d]*/, Groups groups, int64_t rounds, Result<T> result,
                 Tiles<T> tiles, double* values /*[gridDim]*/) {
  constexpr int V = kWidest<T>;
  const int lanes = groups.lanes, lane = int(threadIdx.x) % lanes, width = kThreads / lanes;
  double value = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t unit = (blockIdx.x * rounds + round) * width + int(threadIdx.x) / lanes;
    const int64_t g = groups.panels == 1 ? unit : unit / groups.panels;
    if (g >= groups.G) break;
    const int64_t panel = unit - g * groups.panels;
    const int64_t begin = groups.ptr[g], end = groups.ptr[g + 1], n = end - begin;
    if (panel == 0) {
      for (int64_t t = ceil_div(begin, kTile) + lane; t < tiles.count && t * kTile < end;
           t += lanes) {
        tiles.group[t] = n > kTile ? g : -1;
      }
    }
    const Columns own = Columns::of(panel * lanes * V, lanes, groups.d, w);
    if (n < 2 || n > kTile || own.used == 0) continue;
    double origin[V], sum[V] = {};
    load_origin<ALIGNED>(w, groups, begin, own, origin);
    add_offsets<ALIGNED>(w, groups, begin, end, own, origin, sum);
    Real<T> hi[V], lo[V];
#pragma unroll
    for (int v = 0; v < V; ++v) split_mean(origin[v], sum[v] / double(n), &hi[v], &lo[v]);
    const Real<T> factor = result.out != nullptr ? result.factor(n) : Real<T>(0);
    value +=
        2.0 * double(n) * add_squares<ALIGNED>(w, groups, begin, end, own, hi, lo, factor, result);
  }
  const double total = block_sum(value);
  if (threadIdx.x == 0) values[blockIdx.x] = total;
}

// A warp's tile and columns; its groups of lanes have equal shares of a part.
struct TileUnit {
  int64_t t;
  Columns own;
  int share, shares;

  template <class T>
  __device__ __forceinline__ TileUnit(const Groups& groups, const T* w) {
    const int64_t unit = int64_t(blockIdx.x) * kWarps + int(threadIdx.x) / kLanes;
    t = unit / groups.panels;
    own = Columns::of(unit % groups.panels * groups.lanes * kWidest<T>, groups.lanes, groups.d, w);
    shares = kLanes / groups.lanes;
    share = int(threadIdx.x) % kLanes / groups.lanes;
  }
  __device__ __forceinline__ void narrow_to_share(Part& part) const {
    const int64_t rows = ceil_div(part.to - part.from, int64_t(shares));
    part.from += share * rows;
    part.to = part.from + rows < part.to ? part.from + rows : part.to;
  }
};

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, 2)
    sum_tiles(const T* w /*[K, d]*/, Groups groups, Tiles<T> tiles, double* values /*[gridDim]*/) {
  constexpr int V = kWidest<T>;
  const TileUnit unit(groups, w);
  double value = 0;
  for (int which = 0; which < 2 && unit.t < tiles.count; ++which) {
    Part part = part_of(groups, tiles, unit.t, which);
    const int64_t rows = part.to - part.from;
    if (rows == 0) continue;
    unit.narrow_to_share(part);
    double origin[V] = {}, sum[V] = {};
    if (unit.own.used > 0) {
      load_origin<ALIGNED>(w, groups, part.begin, unit.own, origin);
      add_offsets<ALIGNED>(w, groups, part.from, part.to, unit.own, origin, sum);
    }
    Real<T> hi[V], lo[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      for (int step = groups.lanes; step < kLanes; step *= 2) {
        sum[v] += __shfl_xor_sync(kAllLanes, sum[v], step);
      }
      sum[v] /= double(rows);
      split_mean(origin[v], sum[v], &hi[v], &lo[v]);
      if (unit.share == 0 && v < unit.own.used) {
        tiles.offset[part.slot * groups.d + unit.own.first + v] = sum[v];
      }
    }
    if (unit.own.used == 0) continue;
    value += 2.0 * double(part.n) *
             add_squares<ALIGNED>(w, groups, part.from, part.to, unit.own, hi, lo, Real<T>(0),
                                  Result<T>{});
  }
  const double total = block_sum(value);
  if (threadIdx.x == 0) values[blockIdx.x] = total;
}

// Block t has strips of columns of the large group that has tile t's first member: as many blocks
// as the group has tiles share them.
template <class T>
__global__ void __launch_bounds__(kThreads)
    merge(const T* w /*[K, d]*/, Groups groups, Tiles<T> tiles, double* values /*[gridDim]*/) {
  MTLFAST_SHARED(double, sums, kThreads);
  const int64_t g = tiles.group[blockIdx.x], d = groups.d;
  if (g < 0) {
    if (threadIdx.x == 0) values[blockIdx.x] = 0;
    return;
  }
  const int64_t begin = groups.ptr[g], end = groups.ptr[g + 1], n = end - begin;
  const int64_t first = ceil_div(begin, kTile), count = ceil_div(end, kTile) - first;
  int strip = kThreads;
  while (strip > kLeastStrip && count > kMergeSlices * (kThreads / strip)) strip /= 4;
  const int column = int(threadIdx.x) % strip, row = int(threadIdx.x) / strip;
  // Slice 0 is what the group has before its first tile.
  const auto tasks = [&](int64_t s) {
    const int64_t from = (first + s - 1) * kTile, to = from + kTile;
    return s == 0 ? first * kTile - begin : (to < end ? to : end) - from;
  };
  const int64_t least = tasks(0) > 0 ? 0 : 1;
  double part = 0;
  for (int64_t at = (blockIdx.x - first) * strip; at < d; at += count * strip) {
    const int64_t j = at + column;
    const double* const whole = tiles.offset + (first - 1) * d + j;
    const double* const head = tiles.offset + (tiles.count + first) * d + j;
    double sum = 0;
    for (int64_t s = least + row; s <= count && j < d; s += kThreads / strip) {
      sum += double(tasks(s)) * (s == 0 ? *head : whole[s * d]);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    double average = 0;
    for (int k = column; k < kThreads; k += strip) average += sums[k];
    average /= double(n);
    __syncthreads();  // the next strip may overwrite sums
    for (int64_t s = least + row; s <= count && j < d; s += kThreads / strip) {
      const double x = (s == 0 ? *head : whole[s * d]) - average;
      part += double(tasks(s)) * x * x;
    }
    if (row == 0 && j < d) {
      Real<T>* const mean = tiles.mean + first * 2 * d + j;
      split_mean(double(widen(w[groups.member[begin] * d + j])), average, mean, mean + d);
    }
  }
  const double total = block_sum(part);
  if (threadIdx.x == 0) values[blockIdx.x] = 2.0 * double(n) * total;
}

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, 2)
    write_tiles(const T* w /*[K, d]*/, Groups groups, Result<T> result, Tiles<T> tiles) {
  constexpr int V = kWidest<T>;
  const TileUnit unit(groups, w);
  if (unit.t >= tiles.count || unit.own.used == 0) return;
  for (int which = 0; which < 2; ++which) {
    Part part = part_of(groups, tiles, unit.t, which);
    if (part.from == part.to) continue;
    const Real<T>* const mean =
        tiles.mean + ceil_div(part.begin, kTile) * 2 * groups.d + unit.own.first;
    Real<T> hi[V], lo[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      hi[v] = v < unit.own.used ? mean[v] : Real<T>(0);
      lo[v] = v < unit.own.used ? mean[groups.d + v] : Real<T>(0);
    }
    unit.narrow_to_share(part);
    add_squares<ALIGNED>(w, groups, part.from, part.to, unit.own, hi, lo, result.factor(part.n),
                         result);
  }
}

template <class T>
struct Workspace {
  int lanes;
  int64_t panels, rounds, small_blocks, tile_blocks, bytes;
  double* values;  // [small_blocks + tile_blocks + tiles]
  Tiles<T> tiles;

  Workspace(int64_t G, int64_t M, int64_t d, void* start) : lanes(lanes_for(d, kWidest<T>)) {
    panels = ceil_div(d, int64_t(lanes) * kWidest<T>);
    const int64_t width = kThreads / lanes, count = M > kTile ? ceil_div(M, kTile) : 0;
    rounds = ceil_div(G * panels, width * kMostBlocks);
    small_blocks = rounds > 0 ? ceil_div(G * panels, width * rounds) : 0;
    tile_blocks = ceil_div(count * panels, int64_t(kWarps));
    values = static_cast<double*>(start);
    double* const offset = values + value_count(count);
    int64_t* const group = reinterpret_cast<int64_t*>(offset + 2 * count * d);
    tiles = {count, group, offset, reinterpret_cast<Real<T>*>(group + count)};
    bytes = (value_count(count) + 2 * count * d + count) * int64_t(sizeof(double)) +
            2 * count * d * int64_t(sizeof(Real<T>));
  }
  int64_t value_count(int64_t count) const { return small_blocks + tile_blocks + count; }
};

template <class T>
void all_groups(const T* w, const int64_t* ptr, const int64_t* member, int64_t G, int64_t M,
                int64_t d, double value_scale, Real<T>* value, Result<T> result, void* workspace,
                Stream stream) {
  const Workspace<T> work(G, M, d, workspace);
  const Groups groups{ptr, member, G, d, work.lanes, work.panels};
  const bool aligned = is_aligned(w) && is_aligned(result.out) && d % kWidest<T> == 0;
  if (work.small_blocks > 0) {
    const auto run = aligned ? small_groups<T, true> : small_groups<T, false>;
    MTLFAST_LAUNCH(run, work.small_blocks, kThreads, 0, stream, w, groups, work.rounds, result,
                   work.tiles, work.values);
  }
  if (work.tile_blocks > 0) {
    double* const values = work.values + work.small_blocks;
    const auto sum = aligned ? sum_tiles<T, true> : sum_tiles<T, false>;
    MTLFAST_LAUNCH(sum, work.tile_blocks, kThreads, 0, stream, w, groups, work.tiles, values);
    MTLFAST_LAUNCH(merge<T>, work.tiles.count, kThreads, 0, stream, w, groups, work.tiles,
                   values + work.tile_blocks);
    const auto write = aligned ? write_tiles<T, true> : write_tiles<T, false>;
    if (result.out != nullptr) {
      MTLFAST_LAUNCH(write, work.tile_blocks, kThreads, 0, stream, w, groups, result, work.tiles);
    }
  }
  if (value != nullptr) {
    MTLFAST_LAUNCH(sum_values<Real<T>>, 1, kThreads, 0, stream, work.values,
                   work.value_count(work.tiles.count), value_scale, value);
  }
}

}  // namespace

// ---------------------------------------------------------------------------------------------

int64_t group_workspace(DType dtype, int64_t G, int64_t M, int64_t d) {
  int64_t bytes = 0;
  with_type(dtype, [&](auto type) {
    bytes = Workspace<typename decltype(type)::type>(G, M, d, nullptr).bytes;
  });
  return bytes;
}

void group_value(DType dtype, const void* w, const int64_t* ptr, const int64_t* member, int64_t G,
                 int64_t M, int64_t d, double value_scale, void* value, void* grad, Scale scale,
                 void* workspace, Stream stream) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Result<T> result{static_cast<T*>(grad), false, scale.factor,
                           static_cast<const Real<T>*>(scale.upstream)};
    all_groups(static_cast<const T*>(w), ptr, member, G, M, d, value_scale,
               static_cast<Real<T>*>(value), result, workspace, stream);
  });
}

void group_prox(DType dtype, const void* w, const int64_t* ptr, const int64_t* member, int64_t G,
                int64_t M, int64_t d, double step, void* out, void* workspace, Stream stream) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Result<T> result{static_cast<T*>(out), true, step, nullptr};
    all_groups<T>(static_cast<const T*>(w), ptr, member, G, M, d, 0, nullptr, result, workspace,
                  stream);
  });
}

}  // namespace cuda
}  // namespace mtlfast
