// Python's calls of kernels/group.h.
#pragma once

#include "bind/call.h"

namespace {

void group_value(int type, Address w, Address ptr, Address member, int64_t G, int64_t d,
                 Address value, Address grad, double scale, int threads) {
  call(kernels->group_value, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(d), required<double>(value), optional(grad),
       scale, threads);
}

void group_prox(int type, Address w, Address ptr, Address member, int64_t G, int64_t d, double step,
                Address out, int threads) {
  call(kernels->group_prox, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(d), step, required(out), threads);
}

#ifdef MTLFAST_CUDA
namespace cuda {

int64_t group_workspace(int type, int64_t G, int64_t M, int64_t d) {
  return mtlfast::cuda::group_workspace(dtype(type), size(G), size(M), size(d));
}

void group_value(int type, Address w, Address ptr, Address member, int64_t G, int64_t M, int64_t d,
                 double value_scale, Address value, Address grad, double factor, Address upstream,
                 Address workspace, int device, Address stream) {
  call(mtlfast::cuda::group_value, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(M), size(d), value_scale, required(value),
       optional(grad), mtlfast::cuda::Scale{factor, optional(upstream)}, required(workspace),
       Stream{device, optional(stream)});
}

void group_prox(int type, Address w, Address ptr, Address member, int64_t G, int64_t M, int64_t d,
                double step, Address out, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::group_prox, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(M), size(d), step, required(out),
       required(workspace), Stream{device, optional(stream)});
}

}  // namespace cuda
#endif

void bind_group(Module& m) {
  m.def("group_value", &group_value);
  m.def("group_prox", &group_prox);
#ifdef MTLFAST_CUDA
  m.def("cuda_group_workspace", &cuda::group_workspace);
  m.def("cuda_group_value", &cuda::group_value);
  m.def("cuda_group_prox", &cuda::group_prox);
#endif
}

}  // namespace
