// Python's calls of kernels/graph.h.
#pragma once

#include "bind/call.h"

namespace {

// A value over the edges, and its gradient; `more` goes to the kernel before the threads.
template <class Kernel, class... More>
void edge_value(Kernel kernel, int type, Address w, Address row_ptr, Address col, Address weight,
                Address order, int64_t K, int64_t d, Address value, Address grad, double scale,
                bool add, int threads, const More&... more) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(order);
  double result;
  call_in_place(add, kernel, dtype(type), required(w), rows, size(K), size(d), &result,
                optional(grad), scale, add ? mtlfast::Plus::out : mtlfast::Plus::nothing, more...,
                threads);
  store(dtype(type), value, result);
}

void graph_value(int type, Address w, Address row_ptr, Address col, Address weight, Address order,
                 int64_t K, int64_t d, Address value, Address grad, double scale, bool add,
                 int threads) {
  edge_value(kernels->graph_value, type, w, row_ptr, col, weight, order, K, d, value, grad, scale,
             add, threads, mtlfast::Affine{});
}

void edge_distance(int type, Address w, Address src, Address dst, int64_t E, int64_t d, Address out,
                   int threads) {
  call(kernels->edge_distance, dtype(type), required(w), required<const int64_t>(src),
       required<const int64_t>(dst), size(E), size(d), required(out), threads);
}

void dense_graph_value(int type, Address w, Address a, int64_t K, int64_t d, Address value,
                       Address grad, double scale, int threads) {
  call(kernels->dense_graph_value, dtype(type), required(w), required(a), size(K), size(d),
       required<double>(value), optional(grad), scale, threads);
}

void dense_distance(int type, Address w, int64_t K, int64_t d, Address out, int threads) {
  call(kernels->dense_distance, dtype(type), required(w), size(K), size(d), required(out), threads);
}

#ifdef MTLFAST_CUDA
namespace cuda {

int64_t graph_workspace(int type, int64_t K, int64_t d, int64_t E) {
  return mtlfast::cuda::graph_workspace(dtype(type), size(K), size(d), size(E));
}

void graph_value(int type, Address w, Address row_ptr, Address col, Address weight, Address order,
                 int64_t K, int64_t d, int64_t E, double value_scale, Address value, Address grad,
                 double factor, Address upstream, int plus, Address workspace, int device,
                 Address stream) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(order);
  call(mtlfast::cuda::graph_value, dtype(type), required(w), rows, size(K), size(d), size(E),
       value_scale, required(value), optional(grad),
       mtlfast::cuda::Scale{factor, optional(upstream)}, plus_of(plus), required(workspace),
       Stream{device, optional(stream)});
}

void edge_distance(int type, Address w, Address src, Address dst, int64_t E, int64_t d, Address out,
                   int device, Address stream) {
  call(mtlfast::cuda::edge_distance, dtype(type), required(w), required<const int64_t>(src),
       required<const int64_t>(dst), size(E), size(d), required(out),
       Stream{device, optional(stream)});
}

int64_t dense_graph_workspace(int64_t K, int64_t d) {
  return mtlfast::cuda::dense_graph_workspace(size(K), size(d));
}

void dense_graph_value(int type, Address w, Address a, int64_t K, int64_t d, double value_scale,
                       Address value, Address grad, double factor, Address upstream, int plus,
                       Address workspace, int device, Address stream) {
  call(mtlfast::cuda::dense_graph_value, dtype(type), required(w), required(a), size(K), size(d),
       value_scale, required(value), optional(grad),
       mtlfast::cuda::Scale{factor, optional(upstream)}, plus_of(plus), required(workspace),
       Stream{device, optional(stream)});
}

void dense_distance(int type, Address w, int64_t K, int64_t d, Address out, int device,
                    Address stream) {
  call(mtlfast::cuda::dense_distance, dtype(type), required(w), size(K), size(d), required(out),
       Stream{device, optional(stream)});
}

}  // namespace cuda
#endif

void bind_graph(Module& m) {
  m.def("graph_value", &graph_value);
  m.def("edge_distance", &edge_distance);
  m.def("dense_graph_value", &dense_graph_value);
  m.def("dense_distance", &dense_distance);
#ifdef MTLFAST_CUDA
  m.def("cuda_graph_workspace", &cuda::graph_workspace);
  m.def("cuda_graph_value", &cuda::graph_value);
  m.def("cuda_edge_distance", &cuda::edge_distance);
  m.def("cuda_dense_graph_workspace", &cuda::dense_graph_workspace);
  m.def("cuda_dense_graph_value", &cuda::dense_graph_value);
  m.def("cuda_dense_distance", &cuda::dense_distance);
#endif
}

}  // namespace
