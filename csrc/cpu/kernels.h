// The kernels of one instruction set; table.cpp collects them. Signatures: mtlfast.h.
#pragma once

#include <type_traits>

#include "mtlfast.h"

namespace mtlfast {
namespace MTLFAST_ISA {

#define MTLFAST_DECLARE(name) std::remove_pointer_t<decltype(CpuKernels::name)> name
MTLFAST_DECLARE(pairwise_value);
MTLFAST_DECLARE(pairwise_value_grad);
MTLFAST_DECLARE(pairwise_affine);
MTLFAST_DECLARE(ridge);
MTLFAST_DECLARE(graph_value);
MTLFAST_DECLARE(quadratic);
MTLFAST_DECLARE(graph_total_variation);
MTLFAST_DECLARE(edge_distance);
MTLFAST_DECLARE(dense_graph_value);
MTLFAST_DECLARE(dense_distance);
MTLFAST_DECLARE(gram_dense);
MTLFAST_DECLARE(gram_edges);
MTLFAST_DECLARE(column_lengths);
MTLFAST_DECLARE(column_scale);
MTLFAST_DECLARE(group_value);
MTLFAST_DECLARE(group_prox);
MTLFAST_DECLARE(graph_prox);
MTLFAST_DECLARE(edge_dual_step);
MTLFAST_DECLARE(edge_dual_adjoint);
MTLFAST_DECLARE(edge_dual_value);
MTLFAST_DECLARE(trace_norm_value);
MTLFAST_DECLARE(trace_norm_prox);
MTLFAST_DECLARE(trace_norm_gram_value);
MTLFAST_DECLARE(trace_norm_gram_prox);
#undef MTLFAST_DECLARE

// Chosen by the two above, and what they do about the matrices that are marked: values or
// subgradients of these by trace_norm_value.
void trace_norm_lanes_value(DType dtype, const void* w, int64_t B, int64_t m, int64_t n,
                            double* value, void* grad, int threads);
void trace_norm_lanes_prox(DType dtype, const void* w, const double* threshold, int64_t B,
                           int64_t m, int64_t n, void* out, int64_t* finite, int threads);
void trace_norm_marked(DType dtype, const void* w, int64_t B, int64_t m, int64_t n,
                       const char* marked, double* value, void* grad, int threads);

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
