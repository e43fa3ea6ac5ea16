// Pairwise distance of all tasks:  Σ_{i≠j} ‖w_i − w_j‖² = 2K Σ_i ‖w_i − w̄‖²,
// gradient 4K (w_i − w̄).
//
// Plan     a block has a slice of rows, a thread a vector of columns (rows.h). `moments` gives each
//          slice's mean and centred square sum, shifted by a sample so that no square is expanded
//          about the origin; a slice whose sample was far from its mean is read once more. `merge`
//          combines them: Σ_s M_s + n_s ‖w̄_s − w̄‖².  `affine` is the gradient and the prox.
// Traffic  value: reads W once, 2 launches.  affine: reads W once and what it adds to, writes once,
//          1 launch, from the end backwards: the value left that end in the L2 cache.
// Bits     the cut depends on K, d and the element type alone; sums over at most kRun rows are in
//          W's arithmetic type, the rest in double, in fixed order; the only atomic counts blocks.
//          Unaligned arrays are read element by element, to the same bits.
#include <limits>

#include "cuda/kernels.h"
#include "cuda/reduce.h"
#include "cuda/rows.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr int kRun = 32;               // rows summed in W's arithmetic type
constexpr int kRowsFlight = 4;         // whose loads are under way at once
constexpr int kSamples = 8;            // tasks whose mean shifts a slice
constexpr int64_t kMostBlocks = 1024;  // of moments, where there are fewer panels
constexpr int64_t kLeastRows = 8;      // of a slice
constexpr int64_t kAffineRows = 16;    // of a slice of affine
constexpr int kMergeColumns = 8;
constexpr int kMergeGroups = kThreads / kMergeColumns;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class T>
Cut moments_cut(int64_t K, int64_t d) {
  return cut_for(K, d, kWidest<T>, kLeastRows, kMostBlocks);
}

template <bool ALIGNED, int ROWS, class T, int V>
__device__ __forceinline__ void add_rows(const T* w, int64_t length, int n,
                                         const Real<T> (&shift)[V], Real<T> (&sum)[V],
                                         Real<T> (&squares)[V]) {
  Vector<T, V> row[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) row[r] = load<ALIGNED>(w + r * length, n, Vector<T, V>{});
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Real<T> x = ALIGNED || v < n ? widen(row[r].x[v]) - shift[v] : Real<T>(0);
      sum[v] += x;
      squares[v] += x * x;
    }
  }
}

// sum[v] += Σ_i (w_i[v] − shift[v]) over `count` long rows, squares += Σ_iv (…)².
template <bool ALIGNED, class T, int V>
__device__ __forceinline__ void add_run(const T* w, int64_t length, int64_t count, int n,
                                        const Real<T> (&shift)[V], double (&sum)[V],
                                        double& squares) {
  while (count > 0) {
    Real<T> s[V] = {}, q[V] = {};
    const int rows = count < kRun ? int(count) : kRun;
    constexpr int flight = ALIGNED ? kRowsFlight : 1;  // else a row is many loads as it is
    int i = 0;
    for (; i + flight <= rows; i += flight, w += flight * length) {
      add_rows<ALIGNED, flight>(w, length, n, shift, s, q);
    }
    for (; i < rows; ++i, w += length) add_rows<ALIGNED, 1>(w, length, n, shift, s, q);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      sum[v] += double(s[v]);
      squares += double(q[v]);
    }
    count -= rows;
  }
}

// The mean of up to kSamples tasks in one column, exact when they are equal.
template <class T>
__device__ __forceinline__ Real<T> sample_mean(const T* w, int64_t tasks, int64_t d) {
  const int64_t samples = tasks < kSamples ? tasks : kSamples;
  const Real<T> first = widen(w[0]);
  Real<T> rest = 0;
  for (int64_t k = 1; k < samples; ++k) rest += widen(w[k * tasks / samples * d]) - first;
  return first + rest / Real<T>(samples);
}

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, 2)
    moments(const T* w /*[K, d]*/, Cut cut, double* offset /*[slices, d], mean − w_0*/,
            double* squares /*[slices·panels]*/, unsigned* ticket /*[1]*/) {
  constexpr int V = kWidest<T>;
  MTLFAST_DYNAMIC_SHARED(double, sum);  // [threads·V]; later [columns], the mean less the shift
  Real<T>* const shift = reinterpret_cast<Real<T>*>(sum + blockDim.x * V);  // [columns]
  const Place<T> place(cut, blockIdx.x);
  const int64_t tasks = cut.tasks(place.slice);
  const T* const slice = w + place.first - place.position;
  if (blockIdx.x == 0 && threadIdx.x == 0) *ticket = 0;
  for (int j = int(threadIdx.x); j < place.columns; j += int(blockDim.x)) {
    shift[j] = sample_mean(slice + j, tasks, cut.d);
  }
  for (int attempt = 0;; ++attempt) {
    __syncthreads();
    Real<T> own_shift[V];
    double own_sum[V] = {}, own_squares = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) own_shift[v] = v < place.used ? shift[place.column(v)] : Real<T>(0);
    const T* const own = w + place.first;
    if (place.used > 0) {
      add_run<ALIGNED>(own, cut.length, place.count, place.used, own_shift, own_sum, own_squares);
    }
    if (place.used_last > 0) {
      add_run<false>(own + place.count * cut.length, cut.length, 1, place.used_last, own_shift,
                     own_sum, own_squares);
    }
#pragma unroll
    for (int v = 0; v < V; ++v) sum[place.position + v] = own_sum[v];
    __syncthreads();
    double own_correction = 0;
    for (int j = int(threadIdx.x); j < place.columns; j += int(blockDim.x)) {
      for (int f = 1; f < int(cut.fold); ++f) sum[j] += sum[f * place.columns + j];
      sum[j] /= double(tasks);
      own_correction += double(tasks) * sum[j] * sum[j];
    }
    const double total = block_sum(own_squares), centred = total - block_sum(own_correction);
    if (total <= 4 * centred || attempt == 1) {
      for (int j = int(threadIdx.x); j < place.columns; j += int(blockDim.x)) {
        offset[place.slice * cut.d + place.begin + j] =
            (double(shift[j]) - double(widen(w[place.begin + j]))) + sum[j];
      }
      // a sum that overflows is Inf, not Inf − Inf
      const bool overflows = total == kInfinity;
      const double value = overflows ? total : centred < 0 ? 0 : centred;
      if (threadIdx.x == 0) squares[blockIdx.x] = value;
      return;
    }
    for (int j = int(threadIdx.x); j < place.columns; j += int(blockDim.x)) {
      shift[j] = Real<T>(double(shift[j]) + sum[j]);
    }
  }
}

// Σ over the kMergeGroups threads of each column, for all of them.
__device__ __forceinline__ double column_sum(double x) {
  MTLFAST_SHARED(double, part, kThreads);
  part[threadIdx.x] = x;
  __syncthreads();
  double total = 0;
  for (int t = threadIdx.x % kMergeColumns; t < kThreads; t += kMergeColumns) total += part[t];
  return total;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    merge(const T* w /*[K, d]*/, Cut cut, const double* offset /*[slices, d]*/,
          const double* squares /*[slices·panels]*/, double scale, double* between /*[gridDim]*/,
          unsigned* ticket /*[1]*/, Real<T>* value /*[1]*/, Real<T>* mean /*[2, d]*/) {
  const int64_t column = int64_t(blockIdx.x) * kMergeColumns + threadIdx.x % kMergeColumns;
  const int64_t group = threadIdx.x / kMergeColumns;
  const int64_t slices = column < cut.d ? cut.slices : 0;
  double sum = 0;
  for (int64_t s = group; s < slices; s += kMergeGroups) {
    sum += double(cut.tasks(s)) * offset[s * cut.d + column];
  }
  const double average = column_sum(sum) / double(cut.K);
  double part = 0;
  for (int64_t s = group; s < slices; s += kMergeGroups) {
    const double x = offset[s * cut.d + column] - average;
    part += double(cut.tasks(s)) * x * x;
  }
  if (group == 0 && slices > 0) {
    split_mean(double(widen(w[column])), average, mean + column, mean + cut.d + column);
  }
  const int64_t blocks = cut.slices * cut.panels, stride = int64_t(gridDim.x) * kThreads;
  for (int64_t b = int64_t(blockIdx.x) * kThreads + threadIdx.x; b < blocks; b += stride) {
    part += squares[b];
  }
  double total = block_sum(part);
  if (gridDim.x > 1) {
    if (threadIdx.x == 0) between[blockIdx.x] = total;
    if (!is_last_block(ticket)) return;
    total = block_sum_of(between, gridDim.x);
  }
  if (threadIdx.x == 0) *value = Real<T>(scale * total);
}

template <bool ALIGNED, int ROWS, Plus PLUS, class T, int V>
__device__ __forceinline__ void affine_rows(const T* w, int64_t length, int n,
                                            const Real<T> (&hi)[V], const Real<T> (&lo)[V],
                                            Real<T> scale, T* out) {
  Vector<T, V> row[ROWS], before[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    row[r] = load<ALIGNED>(w + r * length, n, Vector<T, V>{});
    if (PLUS == Plus::out) before[r] = load<ALIGNED>(out + r * length, n, Vector<T, V>{});
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Real<T> old = PLUS == Plus::out ? widen(before[r].x[v]) : Real<T>(0);
      narrow(affine_of<PLUS>(widen(row[r].x[v]), hi[v], lo[v], scale, old), &row[r].x[v]);
    }
    store<ALIGNED>(row[r], out + r * length, n);
  }
}

template <class T, Plus PLUS, bool ALIGNED>
__global__ void __launch_bounds__(kThreads)
    affine(const T* w /*[K, d]*/, const Real<T>* mean /*[2, d]*/, Cut cut, double factor,
           const Real<T>* upstream /*[1] or null*/, T* out /*[K, d]*/) {
  constexpr int V = kWidest<T>;
  const Place<T> place(cut, int64_t(gridDim.x) - 1 - blockIdx.x);
  if (place.used == 0) return;
  const Real<T> scale = Real<T>(upstream != nullptr ? factor * double(*upstream) : factor);
  Real<T> hi[V], lo[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int64_t j = place.begin + place.column(v);
    hi[v] = v < place.used ? mean[j] : Real<T>(0);
    lo[v] = v < place.used ? mean[cut.d + j] : Real<T>(0);
  }
  const T* row = w + place.first;
  T* to = out + place.first;
  constexpr int flight = !ALIGNED ? 1 : PLUS == Plus::out ? kRowsFlight / 2 : kRowsFlight;
  int64_t i = 0;
  for (; i + flight <= place.count; i += flight, row += flight * cut.length) {
    affine_rows<ALIGNED, flight, PLUS>(row, cut.length, place.used, hi, lo, scale, to);
    to += flight * cut.length;
  }
  for (; i < place.count; ++i, row += cut.length, to += cut.length) {
    affine_rows<ALIGNED, 1, PLUS>(row, cut.length, place.used, hi, lo, scale, to);
  }
  if (place.used_last > 0) {
    affine_rows<false, 1, PLUS>(row, cut.length, place.used_last, hi, lo, scale, to);
  }
}

int64_t merge_blocks(int64_t d) { return d > 0 ? ceil_div(d, kMergeColumns) : 1; }

template <class T>
struct Workspace {
  double *offset, *squares, *between;
  unsigned* ticket;
  int64_t bytes;

  Workspace(const Cut& cut, void* start) {
    offset = static_cast<double*>(start);
    squares = offset + cut.slices * cut.d;
    between = squares + cut.slices * cut.panels;
    ticket = reinterpret_cast<unsigned*>(between + merge_blocks(cut.d));
    bytes = (cut.slices * (cut.d + cut.panels) + merge_blocks(cut.d)) * int64_t(sizeof(double)) +
            int64_t(sizeof(unsigned));
  }
};

template <class T, Plus PLUS>
void launch_affine(const T* w, const Real<T>* mean, int64_t K, int64_t d, Scale scale, T* out,
                   Stream stream) {
  const Cut cut = cut_for(K, d, kWidest<T>, kAffineRows, int64_t(1) << 24);
  if (cut.slices == 0) return;
  const bool aligned = is_aligned(w) && is_aligned(out) && cut.length % kWidest<T> == 0;
  const auto run = aligned ? affine<T, PLUS, true> : affine<T, PLUS, false>;
  MTLFAST_LAUNCH(run, cut.slices * cut.panels, cut.threads, 0, stream, w, mean, cut, scale.factor,
                 static_cast<const Real<T>*>(scale.upstream), out);
}

}  // namespace

// ---------------------------------------------------------------------------------------------

int64_t pairwise_workspace(DType dtype, int64_t K, int64_t d) {
  int64_t bytes = 0;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    bytes = Workspace<T>(moments_cut<T>(K, d), nullptr).bytes;
  });
  return bytes;
}

void pairwise_value(DType dtype, const void* w, int64_t K, int64_t d, double scale, void* value,
                    void* mean, void* workspace, Stream stream) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* rows = static_cast<const T*>(w);
    const Cut cut = moments_cut<T>(K, d);
    const Workspace<T> work(cut, workspace);
    if (cut.slices > 0) {
      const bool aligned = is_aligned(rows) && cut.length % kWidest<T> == 0;
      const auto run = aligned ? moments<T, true> : moments<T, false>;
      const int64_t columns = cut.panels > 1 ? cut.width : cut.d;
      const int64_t shared =
          cut.threads * kWidest<T> * int64_t(sizeof(double)) + columns * int64_t(sizeof(Real<T>));
      MTLFAST_LAUNCH(run, cut.slices * cut.panels, cut.threads, shared, stream, rows, cut,
                     work.offset, work.squares, work.ticket);
    }
    // nothing to merge: one block, which needs no ticket
    const int64_t blocks = cut.slices > 0 ? merge_blocks(d) : 1;
    MTLFAST_LAUNCH(merge<T>, blocks, kThreads, 0, stream, rows, cut, work.offset, work.squares,
                   2.0 * double(K) * scale, work.between, work.ticket, static_cast<Real<T>*>(value),
                   static_cast<Real<T>*>(mean));
  });
}

void pairwise_affine(DType dtype, const void* w, const void* mean, int64_t K, int64_t d,
                     Scale scale, Plus plus, void* out, Stream stream) {
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto run = plus == Plus::nothing ? launch_affine<T, Plus::nothing>
                     : plus == Plus::mean  ? launch_affine<T, Plus::mean>
                                           : launch_affine<T, Plus::out>;
    run(static_cast<const T*>(w), static_cast<const Real<T>*>(mean), K, d, scale,
        static_cast<T*>(out), stream);
  });
}

}  // namespace cuda
}  // namespace mtlfast
