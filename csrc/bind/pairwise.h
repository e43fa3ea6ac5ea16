// Python's calls of kernels/pairwise.h.
#pragma once

#include "bind/call.h"

namespace {

void pairwise_value(int type, Address w, int64_t K, int64_t d, Address value, Address mean,
                    int threads) {
  double result;
  call(kernels->pairwise_value, dtype(type), required(w), size(K), size(d), &result, required(mean),
       threads);
  store(dtype(type), value, result);
}

void pairwise_value_grad(int type, Address w, int64_t K, int64_t d, Address value, Address grad,
                         int threads) {
  double result;
  call(kernels->pairwise_value_grad, dtype(type), required(w), size(K), size(d), &result,
       required(grad), threads);
  store(dtype(type), value, result);
}

void pairwise_affine(int type, Address w, Address mean, int64_t K, int64_t d, double scale,
                     int plus, Address out, int threads) {
  call_in_place(is_in_place(w, plus, out), kernels->pairwise_affine, dtype(type), required(w),
                required(mean), size(K), size(d), scale, plus_of(plus), required(out), threads);
}

#ifdef MTLFAST_CUDA
namespace cuda {

int64_t pairwise_workspace(int type, int64_t K, int64_t d) {
  return mtlfast::cuda::pairwise_workspace(dtype(type), size(K), size(d));
}

void pairwise_value(int type, Address w, int64_t K, int64_t d, double scale, Address value,
                    Address mean, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::pairwise_value, dtype(type), required(w), size(K), size(d), scale,
       required(value), required(mean), required(workspace), Stream{device, optional(stream)});
}

void pairwise_affine(int type, Address w, Address mean, int64_t K, int64_t d, double factor,
                     Address upstream, int plus, Address out, int device, Address stream) {
  call(mtlfast::cuda::pairwise_affine, dtype(type), required(w), required(mean), size(K), size(d),
       mtlfast::cuda::Scale{factor, optional(upstream)}, plus_of(plus), required(out),
       Stream{device, optional(stream)});
}

}  // namespace cuda
#endif

void bind_pairwise(Module& m) {
  m.def("pairwise_value", &pairwise_value);
  m.def("pairwise_value_grad", &pairwise_value_grad);
  m.def("pairwise_affine", &pairwise_affine);
#ifdef MTLFAST_CUDA
  m.def("cuda_pairwise_workspace", &cuda::pairwise_workspace);
  m.def("cuda_pairwise_value", &cuda::pairwise_value);
  m.def("cuda_pairwise_affine", &cuda::pairwise_affine);
#endif
}

}  // namespace
