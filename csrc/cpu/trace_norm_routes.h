// What the kernels of trace norms call of each other.
#pragma once

#include "types.h"

namespace mtlfast {
namespace MTLFAST_ISA {

// Chosen by trace_norm_gram_value and trace_norm_gram_prox, and what they do about the matrices that
// are marked: values or subgradients of these by trace_norm_value.
void trace_norm_lanes_value(DType dtype, const void* w, int64_t B, int64_t m, int64_t n,
                            double* value, void* grad, int threads);
void trace_norm_lanes_prox(DType dtype, const void* w, const double* threshold, int64_t B,
                           int64_t m, int64_t n, void* out, int64_t* finite, int threads);
void trace_norm_marked(DType dtype, const void* w, int64_t B, int64_t m, int64_t n,
                       const char* marked, double* value, void* grad, int threads);

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
