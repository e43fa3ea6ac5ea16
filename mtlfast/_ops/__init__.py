"""The ops ``torch.ops.mtlfast.*``, a file for each family; what calls them, by their names.

Each is one row: schema, the shapes of what it returns, the fallback for every other device, the
kernels for the CPU and for CUDA.
"""

from mtlfast._ops.gram import gram_dense, gram_dense_omega_grad, gram_edges, gram_factor
from mtlfast._ops.graph import (
    dense_distance,
    dense_graph_value,
    edge_distance,
    edge_structure,
    graph_add_,
    graph_value,
)
from mtlfast._ops.graph_prox import graph_prox
from mtlfast._ops.graph_total_variation import (
    graph_total_variation_add_,
    graph_total_variation_value,
)
from mtlfast._ops.group import group_prox, group_value
from mtlfast._ops.group_lasso import column_add_, column_lengths, column_scale, column_scale_
from mtlfast._ops.pairwise import (
    pairwise_add_,
    pairwise_affine,
    pairwise_shrink_,
    pairwise_value,
    pairwise_value_grad,
)
from mtlfast._ops.quadratic import quadratic_add_, quadratic_value
from mtlfast._ops.ridge import ridge_add_, ridge_scale, ridge_scale_, ridge_value, ridge_value_grad
from mtlfast._ops.trace_norm import trace_norm_shrink, trace_norm_shrink_, trace_norm_value

__all__ = [
    "column_add_",
    "column_lengths",
    "column_scale",
    "column_scale_",
    "dense_distance",
    "dense_graph_value",
    "edge_distance",
    "edge_structure",
    "gram_dense",
    "gram_dense_omega_grad",
    "gram_edges",
    "gram_factor",
    "graph_add_",
    "graph_prox",
    "graph_total_variation_add_",
    "graph_total_variation_value",
    "graph_value",
    "group_prox",
    "group_value",
    "pairwise_add_",
    "pairwise_affine",
    "pairwise_shrink_",
    "pairwise_value",
    "pairwise_value_grad",
    "quadratic_add_",
    "quadratic_value",
    "ridge_add_",
    "ridge_scale",
    "ridge_scale_",
    "ridge_value",
    "ridge_value_grad",
    "trace_norm_shrink",
    "trace_norm_shrink_",
    "trace_norm_value",
]
