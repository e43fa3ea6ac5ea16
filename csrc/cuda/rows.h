// How W [K, d] is cut into work, and the part of it that a thread owns.
//
// Short rows are read as long ones of up to kThreads vectors of 16 bytes, so that any d is loaded
// in whole vectors; rows longer than that are cut into panels of columns. A block has a slice of
// long rows, or of one panel of them; a thread owns one vector of columns all the way down.
#pragma once

#include "common/scalar.h"
#include "cuda/element.h"
#include "cuda/launch.h"

namespace mtlfast {
namespace cuda {

constexpr int kThreads = 256;
constexpr int kLanes = 32;

// Slice s of panel p is block s·panels + p.
struct Cut {
  int64_t K, d;
  int64_t fold;    // tasks in a long row; 1 where there are panels
  int64_t length;  // elements of a long row
  int64_t width;   // elements of a panel
  int64_t panels;
  int64_t rows;  // long rows of a slice
  int64_t slices;
  int threads;  // one for each vector of a panel, whole warps

  __device__ int64_t tasks(int64_t slice) const {
    const int64_t begin = slice * rows * fold, end = begin + rows * fold;
    return (end < K ? end : K) - begin;
  }
};

// The smallest number of tasks whose elements fill whole vectors.
inline int64_t whole_rows(int64_t d, int vector) {
  int64_t rows = vector;
  for (; d % 2 == 0 && rows > 1; d /= 2) rows /= 2;
  return rows;
}

inline Cut cut_for(int64_t K, int64_t d, int vector, int64_t least_rows, int64_t most_slices) {
  Cut cut{K, d, 1, d, d, 1, 1, 0, kThreads};
  if (K == 0 || d == 0) return cut;
  const int64_t widest = int64_t(kThreads) * vector;
  if (d <= widest) {
    const int64_t whole = whole_rows(d, vector), most = widest / d;
    const int64_t needed = ceil_div(K, whole) * whole;
    cut.fold = most >= whole ? most - most % whole : most;
    cut.fold = needed < cut.fold ? needed : cut.fold;
    cut.length = cut.width = cut.fold * d;
  } else {
    const int64_t vectors = ceil_div(d, vector);
    cut.width = ceil_div(vectors, ceil_div(vectors, kThreads)) * vector;
    cut.panels = ceil_div(d, cut.width);
  }
  const int64_t long_rows = ceil_div(K, cut.fold);
  const int64_t most = most_slices > cut.panels ? most_slices / cut.panels : 1;
  cut.rows = ceil_div(long_rows, most);
  cut.rows = cut.rows > least_rows ? cut.rows : least_rows;
  cut.slices = ceil_div(long_rows, cut.rows);
  cut.threads = int(ceil_div(ceil_div(cut.width, vector), kLanes)) * kLanes;
  return cut;
}

// The vector of columns that a thread owns, in the long rows of its slice.
template <class T>
struct Place {
  static constexpr int V = kWidest<T>;
  int64_t slice;
  int64_t begin;  // the panel's first column
  int64_t first;  // the thread's first element of W
  int64_t count;  // whole long rows
  int columns;    // of the panel, without repetition
  int position;   // in the panel, of the vector's first element
  int used;       // elements of the vector in whole long rows
  int used_last;  // elements of the vector in the part of a long row that may follow

  __device__ Place(const Cut& cut, int64_t block) {
    slice = block / cut.panels;
    begin = block % cut.panels * cut.width;
    const int64_t rest = cut.length - begin, width = rest < cut.width ? rest : cut.width;
    columns = int(width / cut.fold);
    position = int(threadIdx.x) * V;
    first = slice * cut.rows * cut.length + begin + position;
    const int64_t tasks = cut.tasks(slice);
    count = tasks / cut.fold;
    used = part(width);
    used_last = part(tasks % cut.fold * cut.d);
  }
  __device__ int part(int64_t elements) const {
    const int n = int(elements) - position;
    return n < 0 ? 0 : n < V ? n : V;
  }
  // Within the panel.
  __device__ int column(int v) const { return (position + v) % columns; }
};

// The first n elements at p; all of them, in one load, where ALIGNED.
template <bool ALIGNED, class T, int V>
__device__ __forceinline__ Vector<T, V> load(const T* p, int n, Vector<T, V>) {
  if constexpr (ALIGNED) {
    return Vector<T, V>::load(p);
  } else {
    Vector<T, V> part;
#pragma unroll
    for (int v = 0; v < V; ++v) part.x[v] = v < n ? p[v] : T(0.0f);
    return part;
  }
}

template <bool ALIGNED, class T, int V>
__device__ __forceinline__ void store(const Vector<T, V>& x, T* p, int n) {
  if constexpr (ALIGNED) {
    x.store(p);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (v < n) p[v] = x.x[v];
    }
  }
}

// scale·((w − hi) − lo), plus nothing, hi + lo or before.
template <Plus PLUS, class R>
__device__ __forceinline__ R affine_of(R w, R hi, R lo, R scale, R before) {
  const R y = scale * ((w - hi) - lo);
  return PLUS == Plus::mean ? hi + (lo + y) : PLUS == Plus::out ? before + y : y;
}

}  // namespace cuda
}  // namespace mtlfast
