// Trace norm of each matrix of a batch with its subgradient, or its prox, by one-sided Jacobi.
//
// With A the columns of the short side of w, b = A·V has orthogonal columns b_k = σ_k u_k:
// value = Σ σ_k, and any Σ h(σ_k) u_k v_kᵀ is Σ b_k (h/σ_k³)(b_kᵀA), without V.
//
// Plan     a team of threads has a matrix in shared memory, as doubles whatever its type; in a
//          round its groups turn disjoint pairs of columns, in a sweep each pair meets once. A block
//          ends with its slowest matrix. For the result a few columns of A are read again at a
//          time, all of them before they are written: `out` may be w.
// Traffic  w is read once, or twice where there is a result, which is written once.
// Bits     sums have the order of the matrix's shape; a pair that is orthogonal is not touched, so
//          neighbours that need more sweeps change nothing.
// NaN      is what a matrix gives that is not finite or whose threshold is not finite and ≥ 0.
// Each matrix is scaled by the power of two that brings its largest entry into [½, 1).
#include <limits>

#include "common/rotation.h"
#include "cuda/kernels.h"
#include "cuda/teams.h"

namespace mtlfast {
namespace cuda {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
template <class R>
constexpr double kEps = std::numeric_limits<R>::epsilon();
constexpr int kPatience = 16;  // sweeps after which rounding errors of long columns are let be
constexpr double kSettled2 = kOrthogonal2 * 4096;

// x·2^exponent, in two steps: one factor alone may over- or underflow.
struct Power {
  double first, second;
  __device__ explicit Power(int exponent)
      : first(ldexp(1.0, exponent / 2)), second(ldexp(1.0, exponent - exponent / 2)) {}
  __device__ double operator()(double x) const { return x * first * second; }
};

// Scales the team's matrix and gives the exponent; one that is not finite becomes zero.
__device__ __forceinline__ int normalise(const Teams& s, const Member& own, bool& good) {
  own_columns(s, own, [&](int k, bool is_owner) {
    double largest = 0;
    for (int i = own.lane; is_owner && i < s.p; i += s.lanes) {
      const double x = own.columns[k * s.stride + i];
      const double size = x - x == 0 ? fabs(x) : kInfinity;
      largest = size > largest ? size : largest;
    }
    largest = max_lanes(largest, s.lanes);
    if (is_owner && own.lane == 0) own.sigma[k] = largest;
  });
  __syncthreads();
  double largest = 0;
  for (int k = 0; own.works && k < s.q; ++k) {
    largest = own.sigma[k] > largest ? own.sigma[k] : largest;
  }
  good = good && largest < kInfinity;
  int exponent = 0;
  if (largest < kInfinity && largest > 0) frexp(largest, &exponent);
  const Power scale(-exponent);
  own_columns(s, own, [&](int k, bool is_owner) {
    for (int i = own.lane; is_owner && i < s.p; i += s.lanes) {
      double* const x = own.columns + k * s.stride + i;
      *x = largest < kInfinity ? scale(*x) : 0;
    }
  });
  __syncthreads();
  return exponent;
}

// Turns the group's pair of columns (j, k), where both exist, if they are not orthogonal.
__device__ __forceinline__ bool turn(const Teams& s, const Member& own, int j, int k,
                                     double orthogonal2) {
  const bool meet = own.works && j < s.q && k < s.q;
  double* const x = own.columns + j * s.stride;
  double* const y = own.columns + k * s.stride;
  double sum[3] = {};  // ‖x‖², ‖y‖², x·y
  for (int i = own.lane; meet && i < s.p; i += s.lanes) {
    const double xi = x[i], yi = y[i];
    sum[0] += xi * xi;
    sum[1] += yi * yi;
    sum[2] += xi * yi;
  }
  sum_lanes(sum, s.lanes);
  Rotation by;
  if (!meet || !find_rotation(sum[0], sum[1], sum[2], orthogonal2, &by)) return false;
  for (int i = own.lane; i < s.p; i += s.lanes) {
    const double xi = x[i], yi = y[i];
    x[i] = by.c * xi - by.s * yi;
    y[i] = by.s * xi + by.c * yi;
  }
  return true;
}

// Orthogonalises the columns of all matrices of the block. False where the group's last sweep still
// turned. Pairs meet as on a round table: the last column stays, the others move on.
__device__ __forceinline__ bool orthogonalise(const Teams& s, const Member& own) {
  const int moving = 2 * s.pairs - 1;
  bool turned = true;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    const double orthogonal2 = sweep < kPatience ? kOrthogonal2 : kSettled2;
    turned = false;
    for (int round = 0; round < moving; ++round) {
      const int j = own.group == 0 ? moving : (round + own.group) % moving;
      const int k = (round + moving - own.group) % moving;
      turned |= turn(s, own, j, k, orthogonal2);
      __syncthreads();  // the next round has other pairs
    }
    if (!__syncthreads_or(turned)) break;
  }
  return !turned;
}

// h(σ)/σ³ with h = σ − t above t for the prox, h = 1 above the cut for the subgradient.
__device__ __forceinline__ double weight_of(double sigma, double cut, double t, bool shrinks) {
  const bool counts = sigma > (shrinks ? t : cut) && sigma * sigma > kZero2;
  return counts ? (shrinks ? sigma - t : 1.0) / (sigma * sigma * sigma) : 0.0;
}

template <class T>
__global__ void __launch_bounds__(kMostTeam)
    spectral(const T* w /*[B, m, n]*/, const double* threshold /*[B], null for the subgradient*/,
             int64_t B, Teams s, Real<T>* value /*[B] or null*/, T* out /*[B, m, n] or null*/) {
  using R = Real<T>;
  MTLFAST_DYNAMIC_SHARED(double, shared);
  const int64_t first = int64_t(blockIdx.x) * s.matrices;
  const int count = B - first < s.matrices ? int(B - first) : s.matrices;
  const Member own(s, count, shared);
  const bool shrinks = threshold != nullptr;
  double t = shrinks && own.works ? threshold[first + own.matrix] : 0.0;
  bool good = t >= 0 && t < kInfinity;
  load_matrices(w + first * s.m * s.n, count, s, shared);
  __syncthreads();
  const int exponent = normalise(s, own, good);
  t = Power(-exponent)(t);
  const bool settled = orthogonalise(s, own);

  own_columns(s, own, [&](int k, bool is_owner) {
    double square[1] = {};
    for (int i = own.lane; is_owner && i < s.p; i += s.lanes) {
      square[0] += own.columns[k * s.stride + i] * own.columns[k * s.stride + i];
    }
    sum_lanes(square, s.lanes);
    if (is_owner && own.lane == 0) own.sigma[k] = settled ? sqrt(square[0]) : kInfinity;
  });
  __syncthreads();
  double total = 0, largest = 0;
  for (int k = 0; own.works && k < s.q; ++k) {
    total += own.sigma[k];
    largest = own.sigma[k] > largest ? own.sigma[k] : largest;
  }
  good = good && largest < kInfinity;
  const Power back(exponent);
  if (value != nullptr && own.works && own.thread == 0) {
    value[first + own.matrix] = good ? R(back(total)) : R(kNan);
  }
  if (out == nullptr) return;

  const double cut = largest * s.p * kEps<R>;
  const int64_t offset = (first + own.matrix) * s.m * s.n;
  const Power scale(-exponent);
  for (int from = 0; from < s.q; from += s.staged) {
    const int staged = s.q - from < s.staged ? s.q - from : s.staged;
    each_element(s, own, from, staged, [&](int j, int i, int at) {
      own.staged[j * s.stride + i] = scale(double(widen(w[offset + at])));
    });
    __syncthreads();  // also: all have used the products before
    own_columns(s, own, [&](int k, bool is_owner) {
      double product[kStaged] = {};
      for (int i = own.lane; is_owner && i < s.p; i += s.lanes) {
        const double b = own.columns[k * s.stride + i];
#pragma unroll
        for (int j = 0; j < kStaged; ++j) {
          if (j < staged) product[j] += b * own.staged[j * s.stride + i];
        }
      }
      sum_lanes(product, s.lanes);
      if (!is_owner || own.lane > 0) return;
      const double weight = weight_of(own.sigma[k], cut, t, shrinks);
#pragma unroll
      for (int j = 0; j < kStaged; ++j) {
        if (j < staged) own.product[k * s.staged + j] = weight * product[j];
      }
    });
    __syncthreads();
    each_element(s, own, from, staged, [&](int j, int i, int at) {
      double x = 0;
      for (int k = 0; k < s.q; ++k) {
        x += own.columns[k * s.stride + i] * own.product[k * s.staged + j];
      }
      narrow(good ? R(shrinks ? back(x) : x) : R(kNan), out + offset + at);
    });
  }
}

void run(DType dtype, const void* w, const double* threshold, int64_t B, int64_t m, int64_t n,
         void* value, void* out, Stream stream) {
  const Teams teams(m, n);
  if (teams.matrices == 0) throw std::runtime_error("trace_norm: the matrices are too large");
  with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    MTLFAST_LAUNCH(spectral<T>, ceil_div(B, teams.matrices), teams.threads(), teams.shared(),
                   stream, static_cast<const T*>(w), threshold, B, teams,
                   static_cast<Real<T>*>(value), static_cast<T*>(out));
  });
}

}  // namespace

// ---------------------------------------------------------------------------------------------

int64_t trace_norm_matrices(int64_t m, int64_t n) { return Teams(m, n).matrices; }

void trace_norm_value(DType dtype, const void* w, int64_t B, int64_t m, int64_t n, void* value,
                      void* grad, Stream stream) {
  run(dtype, w, nullptr, B, m, n, value, grad, stream);
}

void trace_norm_prox(DType dtype, const void* w, const double* threshold, int64_t B, int64_t m,
                     int64_t n, void* out, Stream stream) {
  run(dtype, w, threshold, B, m, n, nullptr, out, stream);
}

}  // namespace cuda
}  // namespace mtlfast
