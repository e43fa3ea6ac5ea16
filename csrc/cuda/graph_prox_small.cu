// Prox of the graph-weighted distance for the small connected pieces of a graph, by elimination without
// subtraction: cpu/elimination.h has the formulas, and says why the range of the weights is no matter.
//
// Plan     a block has a piece: its ties [n, n] in shared memory, a warp for a row of them in each
//          elimination; then kColumns columns of W at a time, as deviations from their means, a
//          thread for some rows of one of them.
// Traffic  reads W and the edges once and writes X once, in one launch.
// Bits     every entry is a sum in the order of the pivots.
#include <cmath>

#include "cuda/kernels.h"
#include "cuda/reduce.h"
#include "cuda/rows.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr int kSmall = 64;           // tasks
constexpr int kStride = kSmall + 1;  // of a row in shared memory: columns lie in different banks
constexpr int kColumns = 16;
constexpr int kWarps = kThreads / kLanes;
constexpr int kGroups = kThreads / kColumns;

// One piece with its factors.
struct Small {
  int n;
  double *c, *excess, *inverse;  // [n, kStride], [n], [n]

  // Σ_j c_kj + e_k, the same bits in every warp.
  __device__ __forceinline__ double pivot(int k) const {
    const int lane = int(threadIdx.x) % kLanes;
    double sum = 0;
    for (int j = lane; j < k; j += kLanes) sum += c[k * kStride + j];
    for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    return excess[k] + sum;
  }

  // All threads call; true where every pivot is positive.
  __device__ __forceinline__ bool eliminate() const {
    const int lane = int(threadIdx.x) % kLanes, warp = int(threadIdx.x) / kLanes;
    bool positive = true;
    for (int k = n - 1; k >= 0; --k) {
      const double p = pivot(k), over = 1 / p;
      positive = positive && p > 0;
      if (threadIdx.x == 0) inverse[k] = over;
      for (int i = warp; i < k; i += kWarps) {
        const double f = c[k * kStride + i] * over;
        for (int j = lane; j < i; j += kLanes) c[i * kStride + j] += f * c[k * kStride + j];
        if (lane == 0) excess[i] += f * excess[k];
      }
      __syncthreads();
    }
    for (int k = warp; k < n; k += kWarps) {
      for (int i = lane; i < k; i += kLanes) c[k * kStride + i] *= inverse[k];
    }
    __syncthreads();
    return positive;
  }

  // b [n, kColumns] becomes x. All threads call.
  __device__ __forceinline__ void substitute(double* b) const {
    const int j = int(threadIdx.x) % kColumns, group = int(threadIdx.x) / kColumns;
    for (int k = n - 1; k > 0; --k) {
      for (int i = group; i < k; i += kGroups) {
        b[i * kColumns + j] += c[k * kStride + i] * b[k * kColumns + j];
      }
      __syncthreads();
    }
    for (int i = group; i < n; i += kGroups) b[i * kColumns + j] *= inverse[i];
    __syncthreads();
    for (int k = 0; k + 1 < n; ++k) {
      for (int i = k + 1 + group; i < n; i += kGroups) {
        b[i * kColumns + j] += c[i * kStride + k] * b[k * kColumns + j];
      }
      __syncthreads();
    }
  }
};

// What a column is multiplied by, and what is taken off it.
struct Deviation {
  double scale, mean;

  __device__ static Deviation of(const double* b /*[n, kColumns]*/, int n) {
    double largest = 0, sum = 0;
    for (int i = 0; i < n; ++i) {
      const double w = fabs(b[i * kColumns]);
      largest = w > largest ? w : largest;
    }
    int exponent = 0;
    if (largest > 0 && largest - largest == 0) frexp(largest, &exponent);
    if (exponent >= -400 && exponent <= 400) exponent = 0;
    exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
    const double scale = ldexp(1.0, -exponent);
    for (int i = 0; i < n; ++i) sum += b[i * kColumns] * scale;
    return {scale, sum / n};
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    solve_pieces(const T* w /*[K, d]*/, Graph graph, const int64_t* first, int64_t d, double step,
                 T* out /*[K, d]*/, int32_t* indefinite) {
  MTLFAST_SHARED(double, ties, kSmall* kStride);
  MTLFAST_SHARED(double, b, kSmall* kColumns);
  MTLFAST_SHARED(double, excess, kSmall);
  MTLFAST_SHARED(double, inverse, kSmall);
  MTLFAST_SHARED(Deviation, deviation, kColumns);
  constexpr double most_tied = 0x1p400;  // what is beyond it ties as if it were that
  const int64_t begin = first[blockIdx.x], count = first[blockIdx.x + 1] - begin;
  const int thread = int(threadIdx.x);
  if (thread == 0) indefinite[blockIdx.x] = 0;
  if (count > kSmall) return;
  const int n = int(count);
  const auto task = [&](int i) {
    return graph.order != nullptr ? int64_t(graph.order[begin + i]) : begin + i;
  };
  if (n == 1) {
    for (int64_t j = thread; j < d; j += kThreads) out[task(0) * d + j] = w[task(0) * d + j];
    return;
  }
  for (int k = thread; k < n * kStride; k += kThreads) ties[k] = 0;
  if (thread < n) excess[thread] = 1;
  __syncthreads();
  if (thread < n) {
    const double* const weight = static_cast<const double*>(graph.weight);
    for (int64_t k = graph.row_ptr[begin + thread]; k < graph.row_ptr[begin + thread + 1]; ++k) {
      const double tie = 2 * (step * weight[k]);
      if (graph.col[k] < thread) {
        ties[thread * kStride + graph.col[k]] += tie < most_tied ? tie : most_tied;
      }
    }
  }
  __syncthreads();
  const Small piece{n, ties, excess, inverse};
  const bool positive = piece.eliminate();
  if (thread == 0 && !positive) indefinite[blockIdx.x] = 1;
  const int j = thread % kColumns, group = thread / kColumns;
  for (int64_t column = 0; column < d; column += kColumns) {
    const bool used = column + j < d;
    for (int i = group; i < n; i += kGroups) {
      b[i * kColumns + j] = used ? double(widen(w[task(i) * d + column + j])) : 0.0;
    }
    __syncthreads();
    if (thread < kColumns) deviation[thread] = Deviation::of(b + thread, n);
    __syncthreads();
    const Deviation own = deviation[j];
    for (int i = group; i < n; i += kGroups) {
      b[i * kColumns + j] = b[i * kColumns + j] * own.scale - own.mean;
    }
    __syncthreads();
    piece.substitute(b);
    for (int i = group; i < n && used; i += kGroups) {
      // NaN where W is not finite: the mean is not, and every row has a part in every other
      const double x = (own.mean + b[i * kColumns + j]) / own.scale;
      narrow(Real<T>(x), out + task(i) * d + column + j);
    }
  }
}

}  // namespace

// ---------------------------------------------------------------------------------------------

void graph_prox_small(DType dtype, const void* w, Graph graph, const int64_t* first, int64_t count,
                      int64_t d, double step, void* out, int32_t* indefinite, Stream stream) {
  if (count == 0) return;
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    MTLFAST_LAUNCH(solve_pieces<T>, count, kThreads, 0, stream, static_cast<const T*>(w), graph,
                   first, d, step, static_cast<T*>(out), indefinite);
  });
}

}  // namespace cuda
}  // namespace mtlfast
