// Matrices as columns of doubles in shared memory, and the threads that work on each.
//
// A matrix has q ≤ p columns of length p, so a wide one lies transposed. A team of threads has it:
// `pairs` groups of `lanes`, each the owner of columns group and group + pairs. A block has one
// team or several; threads that are left over keep exchanges and barriers complete. Columns begin
// an odd multiple of `lanes` apart and matrices one of `team`, off each other's banks.
#pragma once

#include "common/scalar.h"
#include "cuda/element.h"
#include "cuda/reduce.h"

namespace mtlfast {
namespace cuda {

constexpr int kMostColumns = 64;
constexpr int kLeastRows = 8;   // of a lane
constexpr int kMostTeam = 512;  // threads
constexpr int kTeams = 64;      // threads of a block, where teams are smaller
constexpr int kStaged = 4;      // columns that are read again at once, at most
constexpr int kBanks = 16;      // of doubles
constexpr int kSharedOfOne = 96 << 10, kSharedOfSeveral = 48 << 10;  // bytes

inline int odd_multiple(int least, int of) { return int(ceil_div(least, of) | 1) * of; }

struct Teams {
  int m = 0, n = 0, p = 0, q = 0;
  int pairs = 0;     // of columns
  int lanes = 0;     // of a pair: a power of two
  int team = 0;      // threads of a matrix
  int stride = 0;    // doubles from a column to the next
  int doubles = 0;   // from a matrix to the next
  int staged = 0;    // columns
  int matrices = 0;  // of a block; 0 where not even one fits

  Teams(int64_t rows, int64_t columns) {
    const int64_t longer = rows < columns ? columns : rows;
    const int64_t shorter = rows < columns ? rows : columns;
    if (shorter < 1 || shorter > kMostColumns || longer * 8 > kSharedOfOne) return;
    m = int(rows), n = int(columns), p = int(longer), q = int(shorter);
    pairs = (q + 1) / 2;
    lanes = 1;
    while (lanes < kLanes && 2 * lanes * kLeastRows <= p && 2 * lanes * pairs <= kMostTeam) {
      lanes *= 2;
    }
    team = pairs * lanes;
    stride = lanes < kBanks ? odd_multiple(p, lanes) : p;
    staged = q < kStaged ? q : kStaged;
    doubles = (q + staged) * stride + q * staged + q;
    if (team < kBanks) doubles = odd_multiple(doubles, team);
    if (doubles * 8 > kSharedOfOne) return;
    matrices = kTeams / team;
    const int fit = kSharedOfSeveral / (doubles * 8);
    if (matrices > fit) matrices = fit;
    if (matrices < 1) matrices = 1;
  }
  int threads() const { return int(ceil_div(matrices * team, kLanes)) * kLanes; }
  int64_t shared() const { return int64_t(matrices) * doubles * 8; }
};

// What a thread has of its team's matrix.
struct Member {
  int matrix;  // of the block
  int thread, group, lane;
  bool works;       // its matrix exists
  double* columns;  // [q, stride]
  double* staged;   // [s.staged, stride]
  double* product;  // [q, s.staged]
  double* sigma;    // [q]

  __device__ Member(const Teams& s, int count, double* shared) {
    matrix = int(threadIdx.x) / s.team;
    thread = int(threadIdx.x) % s.team;
    group = thread / s.lanes;
    lane = thread % s.lanes;
    works = matrix < count;
    columns = shared + matrix * s.doubles;
    staged = columns + s.q * s.stride;
    product = staged + s.staged * s.stride;
    sigma = product + s.q * s.staged;
  }
};

// Calls f(k, is_owner) for the two columns of a group; the second may not exist. All threads do.
template <class F>
__device__ __forceinline__ void own_columns(const Teams& s, const Member& own, const F& f) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int k = own.group + half * s.pairs;
    f(k, own.works && k < s.q);
  }
}

// N sums over the lanes of a group, which all get them.
template <int N>
__device__ __forceinline__ void sum_lanes(double (&x)[N], int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) {
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] += __shfl_xor_sync(kAllLanes, x[k], step);
  }
}

__device__ __forceinline__ double max_lanes(double x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// The columns of `count` matrices, read in the order of memory by the whole block.
template <class T>
__device__ __forceinline__ void load_matrices(const T* w /*[count, m, n]*/, int count,
                                              const Teams& s, double* shared) {
  const int size = s.m * s.n;
  for (int e = int(threadIdx.x); e < count * size; e += int(blockDim.x)) {
    const int i = e % size / s.n, j = e % size % s.n;
    const int at = s.m < s.n ? i * s.stride + j : j * s.stride + i;
    shared[e / size * s.doubles + at] = double(widen(w[e]));
  }
}

// Calls f(j, i, offset in W) for element i of column first + j, j < count, each by one thread of the
// team; neighbours in memory go to neighbouring threads as far as there are any.
template <class F>
__device__ __forceinline__ void each_element(const Teams& s, const Member& own, int first,
                                             int count, const F& f) {
  for (int e = own.thread; own.works && e < count * s.p; e += s.team) {
    if (s.m < s.n) {
      f(e / s.p, e % s.p, (first + e / s.p) * s.n + e % s.p);
    } else {
      f(e % count, e / count, e / count * s.n + first + e % count);
    }
  }
}

}  // namespace cuda
}  // namespace mtlfast
