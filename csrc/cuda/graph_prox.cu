// Prox of the graph-weighted distance:  (I + 4·step·L) X = W,  L the Laplacian of (A + Aᵀ)/2, that
// is  x_i + 2·step Σ_j s_ij (x_i − x_j) = w_i  with s = A + Aᵀ.
//
// Plan     conjugate gradients preconditioned by the diagonal, every column its own system, double
//          throughout, for the deviations from the mean, in a scale of their own: cpu/piece.h and
//          cpu/conjugate_gradients.h say why, and when an answer is one. An iteration is direction,
//          product with sums of p·q, step with sums of r·r and r·z, each sum brought together by
//          `reduce`, which keeps the coefficients and the state: once that says done, launches do
//          nothing, so the host may look at it seldom. A block has a slice of rows, a thread a
//          column of them; tiles of kTile edges that a row covers whole are summed by a block each,
//          beforehand.
// Traffic  an iteration reads each neighbour's row once and passes eleven times over an array
//          [K, d] of double, in 6 launches.
// Bits     the cut depends on K, d and row_ptr alone; all sums in double, in fixed order.
#include <cmath>
#include <limits>

#include "cuda/kernels.h"
#include "cuda/reduce.h"
#include "cuda/rows.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kTile = 256;         // edges
constexpr int64_t kMostSlices = 2048;  // of rows, over all panels
constexpr int kLeastRounds = 2;        // rows of a group in a slice
constexpr int kFlight = 4;             // neighbours whose loads are under way at once
constexpr int kWarps = kThreads / kLanes;
constexpr int kStrip = 4;  // columns of a block of reduce
constexpr int kLittleBits = 40;
constexpr double kLittle = 1.0 / double(int64_t(1) << kLittleBits);

// What the host looks at.
struct State {
  double residual;  // max over columns of ‖r‖/‖w‖, of the last true residual
  double iterations, done, indefinite;
  double small;  // 1 where the recurrence got to tol
  double size;   // max over columns of ‖e‖/‖w‖, of the last error that was solved for
};

struct System {
  int64_t K, d, E;
  const int64_t* row_ptr;  // [K + 1]
  const int32_t* col;      // [E]
  const double* weight;    // [E]
  double factor;           // 2·step
  State* state;
  // Panels of `width` columns, `groups` rows at a time, `rows` in a slice.
  int width, groups;
  int64_t panels, rows, slices, tiles;
  const int32_t* member;             // [K] or null: the row of W
  double *y, *e, *r, *p, *q;         // [K, d]; the solution, and its error where that is solved for
  double* inverse;                   // [K], of the diagonal
  double* partial;                   // [slices, 2, d]
  double *scale, *mean;              // [d], of the deviations scale·w − mean
  double *norm, *alpha, *beta, *rz;  // [d]; norm is ‖scale·w‖²
  double* whole;                     // [tiles, d], Σ_j s_ij (v_i − v_j) of a tile
  double* worst;                     // [blocks of reduce]
  int32_t* row;                      // [tiles], the row that covers the tile, or −1
  unsigned* ticket;                  // [1]
  int64_t bytes;

  System(const ProxSystem& given, void* workspace);
  int64_t blocks() const { return slices * panels; }
  int64_t strips() const { return ceil_div(d, int64_t(kStrip)); }
};

System::System(const ProxSystem& given, void* workspace)
    : K(given.K), d(given.d), E(given.E), row_ptr(given.graph.row_ptr), col(given.graph.col),
      weight(static_cast<const double*>(given.graph.weight)), factor(2 * given.step),
      state(static_cast<State*>(given.state)), member(given.graph.order) {
  panels = ceil_div(d, int64_t(kThreads));
  width = int(ceil_div(d, panels));
  groups = kThreads / width;
  const int64_t most = kMostSlices > panels ? kMostSlices / panels : 1;
  const int64_t rounds = ceil_div(K, most * groups);
  rows = groups * (rounds > kLeastRounds ? rounds : kLeastRounds);
  slices = ceil_div(K, rows);
  tiles = E / kTile;
  double* next = static_cast<double*>(workspace);
  const auto take = [&](int64_t count) {
    double* const start = next;
    next += count;
    return start;
  };
  for (double** array : {&y, &e, &r, &p, &q}) *array = take(K * d);
  inverse = take(K);
  partial = take(slices * 2 * d);
  for (double** array : {&scale, &mean, &norm, &alpha, &beta, &rz}) *array = take(d);
  whole = take(tiles * d);
  worst = take(strips());
  row = reinterpret_cast<int32_t*>(next);
  ticket = reinterpret_cast<unsigned*>(row + tiles);
  bytes = reinterpret_cast<char*>(ticket + 1) - static_cast<char*>(workspace);
}

__device__ __forceinline__ bool is_finite(double x) { return x - x == 0; }

// A thread's column and place among the rows.
struct Own {
  int64_t slice, j;
  int group, position;  // in the panel
  bool used;

  __device__ __forceinline__ explicit Own(const System& s) {
    slice = int64_t(blockIdx.x) / s.panels;
    position = int(threadIdx.x) % s.width;
    group = int(threadIdx.x) / s.width;
    j = int64_t(blockIdx.x) % s.panels * s.width + position;
    used = group < s.groups && j < s.d;
  }
};

// Σ over the groups of a block, column by column, in the threads of group 0.
__device__ __forceinline__ double group_sum(const System& s, const Own& own, double x) {
  MTLFAST_SHARED(double, sums, kThreads);
  sums[threadIdx.x] = x;
  __syncthreads();
  double total = 0;
  for (int g = 0; g < s.groups && own.group == 0; ++g) total += sums[g * s.width + own.position];
  __syncthreads();  // the next sum may overwrite sums
  return total;
}

// body(row, column, sums) over the rows of the block's slice; the sums go to partial.
template <class Body>
__device__ __forceinline__ void for_rows(const System& s, const Body& body) {
  const Own own(s);
  const int64_t end = (own.slice + 1) * s.rows < s.K ? (own.slice + 1) * s.rows : s.K;
  double sum[2] = {};
  for (int64_t i = own.slice * s.rows + own.group; i < end && own.used; i += s.groups) {
    body(i, own.j, sum);
  }
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    const double total = group_sum(s, own, sum[which]);
    if (own.group == 0 && own.used) s.partial[(own.slice * 2 + which) * s.d + own.j] = total;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *s.ticket = 0;
}

// Σ_j s_ij (v_i − v_j) in column c over edges [from, to). A zero weight is no edge.
__device__ __forceinline__ double sum_edges(const System& s, const double* v, int64_t i, int64_t c,
                                            int64_t from, int64_t to) {
  const double center = v[i * s.d + c];
  double sum = 0;
  for (int64_t k = from; k < to; k += kFlight) {
    double weight[kFlight], other[kFlight];
#pragma unroll
    for (int u = 0; u < kFlight; ++u) {
      weight[u] = k + u < to ? s.weight[k + u] : 0.0;
      other[u] = weight[u] != 0 ? v[int64_t(s.col[k + u]) * s.d + c] : 0.0;
    }
#pragma unroll
    for (int u = 0; u < kFlight; ++u) {
      if (weight[u] != 0) sum += weight[u] * (center - other[u]);
    }
  }
  return sum;
}

// (L v)_ic, twice: Σ over all edges of row i, those of whole tiles from sum_tiles.
__device__ __forceinline__ double laplacian(const System& s, const double* v, int64_t i, int64_t c) {
  const int64_t begin = s.row_ptr[i], end = s.row_ptr[i + 1];
  const int64_t tile = ceil_div(begin, kTile), tiles_end = end / kTile;
  if (tile >= tiles_end) return sum_edges(s, v, i, c, begin, end);
  double sum = sum_edges(s, v, i, c, begin, tile * kTile);
  for (int64_t t = tile; t < tiles_end; ++t) sum += s.whole[t * s.d + c];
  return sum + sum_edges(s, v, i, c, tiles_end * kTile, end);
}

// A warp has a row: the inverse of its diagonal, and the tiles whose first edge it has.
__global__ void __launch_bounds__(kThreads) prepare(System s) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + int(threadIdx.x) / kLanes;
  if (i >= s.K) return;
  const int64_t begin = s.row_ptr[i], end = s.row_ptr[i + 1];
  double degree = 0;
  for (int64_t k = begin + threadIdx.x % kLanes; k < end; k += kLanes) degree += s.weight[k];
  for (int step = kLanes / 2; step > 0; step /= 2) {
    degree += __shfl_xor_sync(kAllLanes, degree, step);
  }
  if (threadIdx.x % kLanes == 0) s.inverse[i] = 1 / (1 + s.factor * degree);
  for (int64_t t = ceil_div(begin, kTile) + threadIdx.x % kLanes; t < s.tiles && t * kTile < end;
       t += kLanes) {
    s.row[t] = t < end / kTile ? int32_t(i) : -1;
  }
}

// Columns [column, column + d) of W.
template <class T>
struct Source {
  const T* w;  // [tasks, stride]
  int64_t stride, column;

  __device__ __forceinline__ double at(const System& s, int64_t i, int64_t j) const {
    const int64_t task = s.member != nullptr ? s.member[i] : i;
    return double(widen(w[task * stride + column + j]));
  }
  __device__ __forceinline__ double deviation(const System& s, int64_t i, int64_t j) const {
    return at(s, i, j) * s.scale[j] - s.mean[j];
  }
};

// Sums of |w|, so small that they cannot overflow, and of diagonals that are not positive.
template <class T>
__global__ void __launch_bounds__(kThreads) measure(System s, Source<T> source) {
  for_rows(s, [&](int64_t i, int64_t j, double (&sum)[2]) {
    sum[0] += fabs(source.at(s, i, j)) * kLittle;
    sum[1] += 1 / s.inverse[i] > 0 ? 0 : 1;
  });
}

// Sums of w and of w², in their scale.
template <class T>
__global__ void __launch_bounds__(kThreads) moments(System s, Source<T> source) {
  for_rows(s, [&](int64_t i, int64_t j, double (&sum)[2]) {
    const double w = source.at(s, i, j) * s.scale[j];
    sum[0] += w;
    sum[1] += w * w;
  });
}

// y = the deviations over the diagonal.
template <class T>
__global__ void __launch_bounds__(kThreads) start(System s, Source<T> source) {
  for_rows(s, [&](int64_t i, int64_t j, double (&)[2]) {
    s.y[i * s.d + j] = source.deviation(s, i, j) * s.inverse[i];
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    store_rows(System s, T* out /*[tasks, stride]*/, int64_t stride, int64_t column) {
  for_rows(s, [&](int64_t i, int64_t j, double (&)[2]) {
    const int64_t task = s.member != nullptr ? s.member[i] : i;
    const double spoilt = s.norm[j] - s.norm[j];  // 0, or NaN
    const double x = (s.mean[j] + s.y[i * s.d + j]) / s.scale[j] + spoilt;
    narrow(Real<T>(x), out + task * stride + column + j);
  });
}

// Tiles of the product with v, by a block each; groups have equal shares of the edges.
__global__ void __launch_bounds__(kThreads) sum_tiles(System s, const double* v, bool always) {
  const Own own(s);
  const int64_t t = own.slice, i = s.row[t];
  if (i < 0 || (!always && s.state->done != 0)) return;
  const int64_t share = ceil_div(kTile, int64_t(s.groups)), end = (t + 1) * kTile;
  const int64_t from = t * kTile + own.group * share, to = from + share < end ? from + share : end;
  const double total = group_sum(s, own, own.used ? sum_edges(s, v, i, own.j, from, to) : 0.0);
  if (own.group == 0 && own.used) s.whole[t * s.d + own.j] = total;
}

// r = b − (I + factor·2L) y,  p = e = 0, with the sums of r·r and r·z, z = r over the diagonal.
template <class T>
__global__ void __launch_bounds__(kThreads) residual(System s, Source<T> source) {
  for_rows(s, [&](int64_t i, int64_t j, double (&sum)[2]) {
    const int64_t k = i * s.d + j;
    const double b = source.deviation(s, i, j);
    const double r = (b - s.y[k]) - s.factor * laplacian(s, s.y, i, j);
    s.r[k] = r;
    s.p[k] = s.e[k] = 0;
    sum[0] += r * r;
    sum[1] += r * (r * s.inverse[i]);
  });
}

// p = z + β p.
__global__ void __launch_bounds__(kThreads) direction(System s) {
  if (s.state->done != 0) return;
  for_rows(s, [&](int64_t i, int64_t j, double (&)[2]) {
    const int64_t k = i * s.d + j;
    s.p[k] = s.r[k] * s.inverse[i] + s.beta[j] * s.p[k];
  });
}

// q = (I + factor·2L) p, with the sums of p·q.
__global__ void __launch_bounds__(kThreads) product(System s) {
  if (s.state->done != 0) return;
  for_rows(s, [&](int64_t i, int64_t j, double (&sum)[2]) {
    const int64_t k = i * s.d + j;
    const double p = s.p[k], q = p + s.factor * laplacian(s, s.p, i, j);
    s.q[k] = q;
    sum[0] += p * q;
  });
}

// x += α p,  r −= α q, with the sums of r·r and r·z.
__global__ void __launch_bounds__(kThreads) step(System s, double* x /*[K, d]*/) {
  if (s.state->done != 0) return;
  for_rows(s, [&](int64_t i, int64_t j, double (&sum)[2]) {
    const int64_t k = i * s.d + j;
    const double alpha = s.alpha[j], r = s.r[k] - alpha * s.q[k];
    x[k] += alpha * s.p[k];
    s.r[k] = r;
    sum[0] += r * r;
    sum[1] += r * (r * s.inverse[i]);
  });
}

// y += e, with the sums of e².
__global__ void __launch_bounds__(kThreads) correct(System s) {
  for_rows(s, [&](int64_t i, int64_t j, double (&sum)[2]) {
    const int64_t k = i * s.d + j;
    const double e = s.e[k];
    s.y[k] += e;
    sum[0] += e * e;
  });
}

enum class Sums { measure, moments, residual, product, step, correct };  // of which kernel

// A power of two that takes numbers with that sum of absolute values, times kLittle, to where squares
// are in range; 1 where they are anyway. What is too small to add up is scaled up as far as it goes.
__device__ __forceinline__ double scale_for(double sum) {
  if (!is_finite(sum)) return 1;
  int exponent = -1000;
  if (sum > 0) {
    frexp(sum, &exponent);
    exponent += kLittleBits;
  }
  if (exponent >= -400 && exponent <= 400) return 1;
  return ldexp(1.0, exponent < -1000 ? 1000 : exponent > 1000 ? -1000 : -exponent);
}

// What one column adds to the coefficients; returns what the host must know of, at most Inf.
__device__ __forceinline__ double update(const System& s, Sums of, int64_t j, double first,
                                         double second) {
  if (of == Sums::measure) {
    s.scale[j] = scale_for(first);
    return second;
  }
  if (of == Sums::moments) {
    s.mean[j] = first / double(s.K);
    s.norm[j] = second;
    return 0;
  }
  const double rz = s.rz[j], norm = s.norm[j];
  if (of == Sums::product) {
    s.alpha[j] = rz > 0 && first > 0 ? rz / first : 0;
    return rz > 0 && first <= 0 ? 1 : 0;
  }
  if (of != Sums::correct) {
    s.beta[j] = of == Sums::step && rz > 0 ? second / rz : 0;
    s.rz[j] = second;
  }
  if (!is_finite(norm) || norm == 0) return 0;  // does not hold the others up
  const double ratio = first / norm;
  // where the step overflows there is no solution
  return is_finite(ratio) ? ratio : kInfinity;
}

__device__ __forceinline__ double warp_max(double x) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// Block b has kStrip columns of the partial sums of all slices; the last to come, the state.
__global__ void __launch_bounds__(kThreads) reduce(System s, Sums of, double tol, int64_t max_iter) {
  MTLFAST_SHARED(double, sums, 2 * kWarps * kStrip);
  if ((of == Sums::product || of == Sums::step) && s.state->done != 0) return;
  const int lane = int(threadIdx.x) % kLanes, warp = int(threadIdx.x) / kLanes;
  const int64_t j = int64_t(blockIdx.x) * kStrip + lane % kStrip;
  double sum[2] = {};
  for (int64_t b = threadIdx.x / kStrip; b < s.slices && j < s.d; b += kThreads / kStrip) {
    sum[0] += s.partial[b * 2 * s.d + j];
    sum[1] += s.partial[(b * 2 + 1) * s.d + j];
  }
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    for (int step = kLanes / 2; step >= kStrip; step /= 2) {
      sum[which] += __shfl_xor_sync(kAllLanes, sum[which], step);
    }
    if (lane < kStrip) sums[(which * kWarps + warp) * kStrip + lane] = sum[which];
  }
  __syncthreads();
  if (warp == 0) {
    double worst = 0;
    if (lane < kStrip && j < s.d) {
      double total[2] = {};
      for (int k = 0; k < kWarps; ++k) {
        total[0] += sums[k * kStrip + lane];
        total[1] += sums[(kWarps + k) * kStrip + lane];
      }
      worst = update(s, of, j, total[0], total[1]);
    }
    worst = warp_max(worst);
    if (lane == 0) s.worst[blockIdx.x] = worst;
  }
  if (!is_last_block(s.ticket) || warp > 0) return;
  double worst = 0;
  for (int64_t b = lane; b < int64_t(gridDim.x); b += kLanes) {
    const double one = __ldcg(s.worst + b);
    worst = one > worst ? one : worst;
  }
  worst = warp_max(worst);
  if (lane > 0) return;
  State& state = *s.state;
  switch (of) {
    case Sums::measure: state = {0, 0, 0, worst > 0 ? 1.0 : 0.0, 0, 0}; break;
    case Sums::moments: break;
    case Sums::residual:
      state.residual = sqrt(worst);
      state.done = state.small = 0;
      break;
    case Sums::correct: state.size = sqrt(worst); break;
    case Sums::product:
      state.iterations += 1;
      state.done = state.indefinite = worst > 0 ? 1.0 : 0.0;
      break;
    case Sums::step: {
      state.small = sqrt(worst) <= tol ? 1.0 : 0.0;
      const bool stops = state.small != 0 || !is_finite(worst);
      state.done = stops || state.iterations >= double(max_iter) ? 1.0 : 0.0;
    }
  }
}

void launch_tiles(const System& s, const double* v, bool always, Stream stream) {
  if (s.tiles == 0) return;
  MTLFAST_LAUNCH(sum_tiles, s.tiles * s.panels, kThreads, 0, stream, s, v, always);
}

void launch_reduce(const System& s, Sums of, double tol, int64_t max_iter, Stream stream) {
  MTLFAST_LAUNCH(reduce, s.strips(), kThreads, 0, stream, s, of, tol, max_iter);
}

}  // namespace

// ---------------------------------------------------------------------------------------------

int64_t graph_prox_workspace(int64_t K, int64_t d, int64_t E) {
  return System({{}, K, d, E, 0, nullptr}, nullptr).bytes;
}

void graph_prox_load(DType dtype, const void* w, int64_t stride, int64_t column, ProxSystem given,
                     void* workspace, Stream stream) {
  const System s(given, workspace);
  MTLFAST_LAUNCH(prepare, ceil_div(s.K, int64_t(kWarps)), kThreads, 0, stream, s);
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Source<T> source{static_cast<const T*>(w), stride, column};
    MTLFAST_LAUNCH(measure<T>, s.blocks(), kThreads, 0, stream, s, source);
    launch_reduce(s, Sums::measure, 0, 0, stream);
    MTLFAST_LAUNCH(moments<T>, s.blocks(), kThreads, 0, stream, s, source);
    launch_reduce(s, Sums::moments, 0, 0, stream);
    MTLFAST_LAUNCH(start<T>, s.blocks(), kThreads, 0, stream, s, source);
  });
}

void graph_prox_residual(DType dtype, const void* w, int64_t stride, int64_t column,
                         ProxSystem given, void* workspace, Stream stream) {
  const System s(given, workspace);
  launch_tiles(s, s.y, true, stream);
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Source<T> source{static_cast<const T*>(w), stride, column};
    MTLFAST_LAUNCH(residual<T>, s.blocks(), kThreads, 0, stream, s, source);
  });
  launch_reduce(s, Sums::residual, 0, 0, stream);
}

void graph_prox_iterate(ProxSystem given, bool error, double tol, int64_t max_iter, int64_t count,
                        void* workspace, Stream stream) {
  const System s(given, workspace);
  for (int64_t iteration = 0; iteration < count; ++iteration) {
    MTLFAST_LAUNCH(direction, s.blocks(), kThreads, 0, stream, s);
    launch_tiles(s, s.p, false, stream);
    MTLFAST_LAUNCH(product, s.blocks(), kThreads, 0, stream, s);
    launch_reduce(s, Sums::product, tol, max_iter, stream);
    MTLFAST_LAUNCH(step, s.blocks(), kThreads, 0, stream, s, error ? s.e : s.y);
    launch_reduce(s, Sums::step, tol, max_iter, stream);
  }
}

void graph_prox_correct(ProxSystem given, void* workspace, Stream stream) {
  const System s(given, workspace);
  MTLFAST_LAUNCH(correct, s.blocks(), kThreads, 0, stream, s);
  launch_reduce(s, Sums::correct, 0, 0, stream);
}

void graph_prox_store(DType dtype, void* out, int64_t stride, int64_t column, ProxSystem given,
                      void* workspace, Stream stream) {
  const System s(given, workspace);
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    MTLFAST_LAUNCH(store_rows<T>, s.blocks(), kThreads, 0, stream, s, static_cast<T*>(out), stride,
                   column);
  });
}

}  // namespace cuda
}  // namespace mtlfast
