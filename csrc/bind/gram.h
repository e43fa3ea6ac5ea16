// Python's calls of kernels/gram.h.
#pragma once

#include "bind/call.h"

namespace {

void gram_dense(int type, Address w, Address omega, int64_t K, int64_t d, Address value,
                Address grad, int threads) {
  double result;
  call(kernels->gram_dense, dtype(type), required(w), required(omega), size(K), size(d), &result,
       optional(grad), threads);
  store(dtype(type), value, result);
}

void gram_edges(int type, Address w, Address row, Address col, Address values, int64_t K, int64_t d,
                int64_t E, Address value, Address grad, Address values_grad, int threads) {
  double result;
  call(kernels->gram_edges, dtype(type), required(w), required<const int64_t>(row, E),
       required<const int64_t>(col, E), required(values, E), size(K), size(d), size(E), &result,
       optional(grad), optional(values_grad), threads);
  store(dtype(type), value, result);
}

#ifdef MTLFAST_CUDA
namespace cuda {

void edge_product(int type, Address w, Address row, Address col, int64_t E, int64_t d, Address out,
                  int device, Address stream) {
  call(mtlfast::cuda::edge_product, dtype(type), required(w), required<const int64_t>(row),
       required<const int64_t>(col), size(E), size(d), required<double>(out),
       Stream{device, optional(stream)});
}

int64_t edge_sum_workspace(int64_t M, int64_t d) {
  return mtlfast::cuda::edge_sum_workspace(size(M), size(d));
}

void edge_sum(int type, Address w, Address task, Address other, Address weight, int64_t M,
              int64_t d, double factor, Address out, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::edge_sum, dtype(type), required(w), required<const int64_t>(task),
       required<const int64_t>(other), required(weight), size(M), size(d), factor,
       required<double>(out), required(workspace), Stream{device, optional(stream)});
}

}  // namespace cuda
#endif

void bind_gram(Module& m) {
  m.def("gram_dense", &gram_dense);
  m.def("gram_edges", &gram_edges);
#ifdef MTLFAST_CUDA
  m.def("cuda_edge_product", &cuda::edge_product);
  m.def("cuda_edge_sum_workspace", &cuda::edge_sum_workspace);
  m.def("cuda_edge_sum", &cuda::edge_sum);
#endif
}

}  // namespace
