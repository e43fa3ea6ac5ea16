// What the tests call through ctypes: the launchers of csrc/cuda, each returning null or an error.
#include <stdexcept>
#include <string>

#include "cuda/kernels.h"
#include "cuda_shim.h"

namespace {

using namespace mtlfast;
const cuda::Stream kStream{0, nullptr};
std::string message;

template <class Body>
const char* guarded(const Body& body) {
  try {
    body();
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
  return nullptr;
}

}  // namespace

extern "C" {

int mtlfast_planted = 0;  // the number of the bug that is switched on, in a build that has them

void shim_seed(uint64_t value) { cuda_shim::seed(value); }
void shim_only_block(int64_t block) { cuda_shim::only_block(block); }

int64_t pairwise_workspace(int dtype, int64_t K, int64_t d) {
  return cuda::pairwise_workspace(DType(dtype), K, d);
}

const char* pairwise_value(int dtype, const void* w, int64_t K, int64_t d, double scale,
                           void* value, void* mean, void* workspace) {
  return guarded([&] {
    cuda::pairwise_value(DType(dtype), w, K, d, scale, value, mean, workspace, kStream);
  });
}

const char* pairwise_affine(int dtype, const void* w, const void* mean, int64_t K, int64_t d,
                            double factor, const void* upstream, int plus, void* out) {
  return guarded([&] {
    cuda::pairwise_affine(DType(dtype), w, mean, K, d, {factor, upstream}, Plus(plus), out,
                          kStream);
  });
}

int64_t graph_workspace(int dtype, int64_t K, int64_t d, int64_t E) {
  return cuda::graph_workspace(DType(dtype), K, d, E);
}

const char* graph_value(int dtype, const void* w, const int64_t* row_ptr, const int32_t* col,
                        const void* weight, const int32_t* order, int64_t K, int64_t d, int64_t E,
                        double value_scale, void* value, void* grad, double factor,
                        const void* upstream, int plus, void* workspace) {
  return guarded([&] {
    cuda::graph_value(DType(dtype), w, {row_ptr, col, weight, order}, K, d, E, value_scale, value,
                      grad, {factor, upstream}, Plus(plus), workspace, kStream);
  });
}

const char* edge_distance(int dtype, const void* w, const int64_t* src, const int64_t* dst,
                          int64_t E, int64_t d, void* out) {
  return guarded([&] { cuda::edge_distance(DType(dtype), w, src, dst, E, d, out, kStream); });
}

int64_t dense_graph_workspace(int64_t K, int64_t d) { return cuda::dense_graph_workspace(K, d); }

const char* dense_graph_value(int dtype, const void* w, const void* a, int64_t K, int64_t d,
                              double value_scale, void* value, void* grad, double factor,
                              const void* upstream, int plus, void* workspace) {
  return guarded([&] {
    cuda::dense_graph_value(DType(dtype), w, a, K, d, value_scale, value, grad,
                            {factor, upstream}, Plus(plus), workspace, kStream);
  });
}

const char* dense_distance(int dtype, const void* w, int64_t K, int64_t d, void* out) {
  return guarded([&] { cuda::dense_distance(DType(dtype), w, K, d, out, kStream); });
}

}  // extern "C"
