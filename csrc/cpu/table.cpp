// Compiled once per instruction set: the kernels of that set, in the order of mtlfast.h.
#include "cpu/kernels.h"

namespace mtlfast {
namespace MTLFAST_ISA {

#define MTLFAST_STRING(x) #x
#define MTLFAST_NAME(x) MTLFAST_STRING(x)

extern const CpuKernels table;
const CpuKernels table = {
    MTLFAST_NAME(MTLFAST_ISA),
    pairwise_value,
    pairwise_value_grad,
    pairwise_affine,
    ridge,
    graph_value,
    quadratic,
    graph_total_variation,
    edge_distance,
    dense_graph_value,
    dense_distance,
    gram_dense,
    gram_edges,
    column_lengths,
    column_scale,
    group_value,
    group_prox,
    graph_prox,
    edge_dual_step,
    edge_dual_adjoint,
    edge_dual_value,
    trace_norm_value,
    trace_norm_prox,
    trace_norm_gram_value,
    trace_norm_gram_prox,
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
