"""Every formula in plain torch, in the order of the papers: the oracle and the fallback.

Functions named ``*_reg``, ``*_norm`` and ``*_prox`` are differentiable any number of times and work
under every torch transform. Functions named like an op of :mod:`mtlfast._ops` have that op's
signature and stand in for it where no native kernel exists. Inputs are rows ``w [K, d]`` and
have been checked. 16-bit types are computed in float32, and autocast is off.
"""

from mtlfast.reference._base import real
from mtlfast.reference.gram import gram_reg, gram_reg_edges, gram_reg_factor
from mtlfast.reference.graph import (
    dense_distance,
    dense_graph_grad,
    dense_graph_reg,
    dense_graph_value,
    edge_distance,
    edge_rows,
    edge_structure,
    graph_add_,
    graph_grad,
    graph_reg,
    graph_value,
    group_grad,
    group_prox,
    group_reg,
    group_value,
    ordered_edges,
)
from mtlfast.reference.graph_prox import (
    by_pieces,
    graph_pieces,
    graph_prox,
    graph_prox_dense,
    piece_labels,
    require_solved,
)
from mtlfast.reference.graph_total_variation import (
    graph_total_variation,
    graph_total_variation_add_,
    graph_total_variation_grad,
    graph_total_variation_value,
)
from mtlfast.reference.group_lasso import group_lasso, group_lasso_grad, group_lasso_prox
from mtlfast.reference.pairwise import (
    centred,
    pairwise_add_,
    pairwise_affine,
    pairwise_grad,
    pairwise_prox,
    pairwise_reg,
    pairwise_shrink_,
    pairwise_value,
    pairwise_value_grad,
)
from mtlfast.reference.quadratic import quadratic_add_, quadratic_value
from mtlfast.reference.ridge import ridge_grad, ridge_prox, ridge_reg
from mtlfast.reference.trace_norm import (
    rank_cut,
    require_finite,
    require_threshold,
    spectral_derivative,
    trace_norm,
    trace_norm_hessian,
    trace_norm_prox,
    trace_norm_prox_grad,
    trace_norm_shrink,
    trace_norm_shrink_,
    trace_norm_value,
    wide,
)

__all__ = [
    "by_pieces",
    "centred",
    "dense_distance",
    "dense_graph_grad",
    "dense_graph_reg",
    "dense_graph_value",
    "edge_distance",
    "edge_rows",
    "edge_structure",
    "gram_reg",
    "gram_reg_edges",
    "gram_reg_factor",
    "graph_add_",
    "graph_grad",
    "graph_pieces",
    "graph_prox",
    "graph_prox_dense",
    "graph_reg",
    "graph_total_variation",
    "graph_total_variation_add_",
    "graph_total_variation_grad",
    "graph_total_variation_value",
    "graph_value",
    "group_grad",
    "group_lasso",
    "group_lasso_grad",
    "group_lasso_prox",
    "group_prox",
    "group_reg",
    "group_value",
    "ordered_edges",
    "pairwise_add_",
    "pairwise_affine",
    "pairwise_grad",
    "pairwise_prox",
    "pairwise_reg",
    "pairwise_shrink_",
    "pairwise_value",
    "pairwise_value_grad",
    "piece_labels",
    "quadratic_add_",
    "quadratic_value",
    "rank_cut",
    "real",
    "require_finite",
    "require_solved",
    "require_threshold",
    "ridge_grad",
    "ridge_prox",
    "ridge_reg",
    "spectral_derivative",
    "trace_norm",
    "trace_norm_hessian",
    "trace_norm_prox",
    "trace_norm_prox_grad",
    "trace_norm_shrink",
    "trace_norm_shrink_",
    "trace_norm_value",
    "wide",
]
