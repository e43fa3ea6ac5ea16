// Python's calls of kernels/graph_prox.h.
#pragma once

#include "bind/call.h"

namespace {

void graph_prox(int type, Address w, Address row_ptr, Address col, Address weight, Address member,
                Address first, int64_t count, int64_t d, double step, double tol, int64_t max_iter,
                Address out, Address status, Address residual, int threads) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(member);
  call(kernels->graph_prox, dtype(type), required(w), rows, required<const int64_t>(first),
       size(count), size(d), step, tol, size(max_iter), required(out), required<int64_t>(status),
       required<double>(residual), threads);
}

#ifdef MTLFAST_CUDA
namespace cuda {

int64_t graph_prox_workspace(int64_t K, int64_t d, int64_t E) {
  return mtlfast::cuda::graph_prox_workspace(size(K), size(d), size(E));
}

void graph_prox_small(int type, Address w, Address row_ptr, Address col, Address weight,
                      Address member, Address first, int64_t count, int64_t d, double step,
                      Address out, Address indefinite, int device, Address stream) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(member);
  call(mtlfast::cuda::graph_prox_small, dtype(type), required(w), rows,
       required<const int64_t>(first), size(count), size(d), step, required(out),
       required<int32_t>(indefinite), Stream{device, optional(stream)});
}

mtlfast::cuda::ProxSystem prox_system(Address row_ptr, Address col, Address weight, Address member,
                                      int64_t K, int64_t d, int64_t E, double step, Address state) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(member);
  return {rows, size(K), size(d), size(E), step, required(state)};
}

void graph_prox_load(int type, Address w, int64_t stride, int64_t column, Address row_ptr,
                     Address col, Address weight, Address member, int64_t K, int64_t d, int64_t E,
                     double step, Address state, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::graph_prox_load, dtype(type), required(w), size(stride), size(column),
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

void graph_prox_residual(int type, Address w, int64_t stride, int64_t column, Address row_ptr,
                         Address col, Address weight, Address member, int64_t K, int64_t d,
                         int64_t E, double step, Address state, Address workspace, int device,
                         Address stream) {
  call(mtlfast::cuda::graph_prox_residual, dtype(type), required(w), size(stride), size(column),
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

void graph_prox_iterate(Address row_ptr, Address col, Address weight, Address member, int64_t K,
                        int64_t d, int64_t E, double step, Address state, bool error, double tol,
                        int64_t max_iter, int64_t count, Address workspace, int device,
                        Address stream) {
  call(mtlfast::cuda::graph_prox_iterate,
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), error, tol, size(max_iter),
       size(count), required(workspace), Stream{device, optional(stream)});
}

void graph_prox_correct(Address row_ptr, Address col, Address weight, Address member, int64_t K,
                        int64_t d, int64_t E, double step, Address state, Address workspace,
                        int device, Address stream) {
  call(mtlfast::cuda::graph_prox_correct,
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

void graph_prox_store(int type, Address out, int64_t stride, int64_t column, Address row_ptr,
                      Address col, Address weight, Address member, int64_t K, int64_t d, int64_t E,
                      double step, Address state, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::graph_prox_store, dtype(type), required(out), size(stride), size(column),
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

}  // namespace cuda
#endif

void bind_graph_prox(Module& m) {
  m.def("graph_prox", &graph_prox);
#ifdef MTLFAST_CUDA
  m.def("cuda_graph_prox_workspace", &cuda::graph_prox_workspace);
  m.def("cuda_graph_prox_small", &cuda::graph_prox_small);
  m.def("cuda_graph_prox_load", &cuda::graph_prox_load);
  m.def("cuda_graph_prox_residual", &cuda::graph_prox_residual);
  m.def("cuda_graph_prox_iterate", &cuda::graph_prox_iterate);
  m.def("cuda_graph_prox_correct", &cuda::graph_prox_correct);
  m.def("cuda_graph_prox_store", &cuda::graph_prox_store);
#endif
}

}  // namespace
