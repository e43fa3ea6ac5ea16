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
  return guarded(
      [&] { cuda::pairwise_value(DType(dtype), w, K, d, scale, value, mean, workspace, kStream); });
}

const char* pairwise_affine(int dtype, const void* w, const void* mean, int64_t K, int64_t d,
                            double factor, const void* upstream, int plus, void* out) {
  return guarded([&] {
    cuda::pairwise_affine(DType(dtype), w, mean, K, d, {factor, upstream}, Plus(plus), out, kStream);
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
    cuda::dense_graph_value(DType(dtype), w, a, K, d, value_scale, value, grad, {factor, upstream},
                            Plus(plus), workspace, kStream);
  });
}

const char* dense_distance(int dtype, const void* w, int64_t K, int64_t d, void* out) {
  return guarded([&] { cuda::dense_distance(DType(dtype), w, K, d, out, kStream); });
}

const char* edge_product(int dtype, const void* w, const int64_t* row, const int64_t* col,
                         int64_t E, int64_t d, double* out) {
  return guarded([&] { cuda::edge_product(DType(dtype), w, row, col, E, d, out, kStream); });
}

int64_t edge_sum_workspace(int64_t M, int64_t d) { return cuda::edge_sum_workspace(M, d); }

const char* edge_sum(int dtype, const void* w, const int64_t* task, const int64_t* other,
                     const void* weight, int64_t M, int64_t d, double factor, double* out,
                     void* workspace) {
  return guarded([&] {
    cuda::edge_sum(DType(dtype), w, task, other, weight, M, d, factor, out, workspace, kStream);
  });
}

int64_t group_workspace(int dtype, int64_t G, int64_t M, int64_t d) {
  return cuda::group_workspace(DType(dtype), G, M, d);
}

const char* group_value(int dtype, const void* w, const int64_t* ptr, const int64_t* member,
                        int64_t G, int64_t M, int64_t d, double value_scale, void* value,
                        void* grad, double factor, const void* upstream, void* workspace) {
  return guarded([&] {
    cuda::group_value(DType(dtype), w, ptr, member, G, M, d, value_scale, value, grad,
                      {factor, upstream}, workspace, kStream);
  });
}

const char* group_prox(int dtype, const void* w, const int64_t* ptr, const int64_t* member,
                       int64_t G, int64_t M, int64_t d, double step, void* out, void* workspace) {
  return guarded([&] {
    cuda::group_prox(DType(dtype), w, ptr, member, G, M, d, step, out, workspace, kStream);
  });
}

int64_t trace_norm_matrices(int64_t m, int64_t n) { return cuda::trace_norm_matrices(m, n); }

const char* trace_norm_value(int dtype, const void* w, int64_t B, int64_t m, int64_t n, void* value,
                             void* grad) {
  return guarded([&] { cuda::trace_norm_value(DType(dtype), w, B, m, n, value, grad, kStream); });
}

const char* trace_norm_prox(int dtype, const void* w, const double* threshold, int64_t B, int64_t m,
                            int64_t n, void* out) {
  return guarded([&] { cuda::trace_norm_prox(DType(dtype), w, threshold, B, m, n, out, kStream); });
}

int64_t graph_prox_workspace(int64_t K, int64_t d, int64_t E) {
  return cuda::graph_prox_workspace(K, d, E);
}

const char* graph_prox_small(int dtype, const void* w, const int64_t* row_ptr, const int32_t* col,
                             const void* weight, const int32_t* member, const int64_t* first,
                             int64_t count, int64_t d, double step, void* out, int32_t* indefinite) {
  return guarded([&] {
    cuda::graph_prox_small(DType(dtype), w, {row_ptr, col, weight, member}, first, count, d, step,
                           out, indefinite, kStream);
  });
}

const char* graph_prox_load(int dtype, const void* w, int64_t stride, int64_t column,
                            const int64_t* row_ptr, const int32_t* col, const void* weight,
                            const int32_t* member, int64_t K, int64_t d, int64_t E, double step,
                            void* state, void* workspace) {
  return guarded([&] {
    cuda::graph_prox_load(DType(dtype), w, stride, column,
                          {{row_ptr, col, weight, member}, K, d, E, step, state}, workspace,
                          kStream);
  });
}

const char* graph_prox_residual(int dtype, const void* w, int64_t stride, int64_t column,
                                const int64_t* row_ptr, const int32_t* col, const void* weight,
                                const int32_t* member, int64_t K, int64_t d, int64_t E, double step,
                                void* state, void* workspace) {
  return guarded([&] {
    cuda::graph_prox_residual(DType(dtype), w, stride, column,
                              {{row_ptr, col, weight, member}, K, d, E, step, state}, workspace,
                              kStream);
  });
}

const char* graph_prox_iterate(const int64_t* row_ptr, const int32_t* col, const void* weight,
                               const int32_t* member, int64_t K, int64_t d, int64_t E, double step,
                               void* state, int64_t error, double tol, int64_t max_iter,
                               int64_t count, void* workspace) {
  return guarded([&] {
    cuda::graph_prox_iterate({{row_ptr, col, weight, member}, K, d, E, step, state}, error != 0,
                             tol, max_iter, count, workspace, kStream);
  });
}

const char* graph_prox_correct(const int64_t* row_ptr, const int32_t* col, const void* weight,
                               const int32_t* member, int64_t K, int64_t d, int64_t E, double step,
                               void* state, void* workspace) {
  return guarded([&] {
    cuda::graph_prox_correct({{row_ptr, col, weight, member}, K, d, E, step, state}, workspace,
                             kStream);
  });
}

const char* graph_prox_store(int dtype, void* out, int64_t stride, int64_t column,
                             const int64_t* row_ptr, const int32_t* col, const void* weight,
                             const int32_t* member, int64_t K, int64_t d, int64_t E, double step,
                             void* state, void* workspace) {
  return guarded([&] {
    cuda::graph_prox_store(DType(dtype), out, stride, column,
                           {{row_ptr, col, weight, member}, K, d, E, step, state}, workspace,
                           kStream);
  });
}

}  // extern "C"
