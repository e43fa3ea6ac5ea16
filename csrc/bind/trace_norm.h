// Python's calls of kernels/trace_norm.h.
#pragma once

#include "bind/call.h"

namespace {

void trace_norm_value(int type, Address w, int64_t B, int64_t m, int64_t n, Address value,
                      Address grad, int threads) {
  call(kernels->trace_norm_value, dtype(type), required(w), size(B), size(m), size(n),
       required<double>(value), optional(grad), threads);
}

void trace_norm_prox(int type, Address w, Address threshold, int64_t B, int64_t m, int64_t n,
                     Address out, int threads) {
  call_in_place(w == out, kernels->trace_norm_prox, dtype(type), required(w),
                required<const double>(threshold), size(B), size(m), size(n), required(out),
                threads);
}

void trace_norm_gram_value(int type, Address w, int64_t B, int64_t m, int64_t n, Address value,
                           Address grad, int threads) {
  call(kernels->trace_norm_gram_value, dtype(type), required(w), size(B), size(m), size(n),
       required<double>(value), optional(grad), threads);
}

void trace_norm_gram_prox(int type, Address w, Address threshold, int64_t B, int64_t m, int64_t n,
                          Address out, Address finite, int threads) {
  call_in_place(w == out, kernels->trace_norm_gram_prox, dtype(type), required(w),
                required<const double>(threshold), size(B), size(m), size(n), required(out),
                required<int64_t>(finite), threads);
}

#ifdef MTLFAST_CUDA
namespace cuda {

int64_t trace_norm_matrices(int64_t m, int64_t n) {
  return mtlfast::cuda::trace_norm_matrices(size(m), size(n));
}

void trace_norm_value(int type, Address w, int64_t B, int64_t m, int64_t n, Address value,
                      Address grad, int device, Address stream) {
  call(mtlfast::cuda::trace_norm_value, dtype(type), required(w), size(B), size(m), size(n),
       required(value), optional(grad), Stream{device, optional(stream)});
}

void trace_norm_prox(int type, Address w, Address threshold, int64_t B, int64_t m, int64_t n,
                     Address out, int device, Address stream) {
  call(mtlfast::cuda::trace_norm_prox, dtype(type), required(w), required<const double>(threshold),
       size(B), size(m), size(n), required(out), Stream{device, optional(stream)});
}

}  // namespace cuda
#endif

void bind_trace_norm(Module& m) {
  m.def("trace_norm_value", &trace_norm_value);
  m.def("trace_norm_prox", &trace_norm_prox);
  m.def("trace_norm_gram_value", &trace_norm_gram_value);
  m.def("trace_norm_gram_prox", &trace_norm_gram_prox);
#ifdef MTLFAST_CUDA
  m.def("cuda_trace_norm_matrices", &cuda::trace_norm_matrices);
  m.def("cuda_trace_norm_value", &cuda::trace_norm_value);
  m.def("cuda_trace_norm_prox", &cuda::trace_norm_prox);
#endif
}

}  // namespace
