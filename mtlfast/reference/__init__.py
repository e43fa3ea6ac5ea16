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
    graph_grad,
    graph_prox,
    graph_prox_dense,
    graph_reg,
    graph_value,
    group_grad,
    group_prox,
    group_reg,
    group_value,
    require_solved,
)
from mtlfast.reference.pairwise import (
    centred,
    pairwise_affine,
    pairwise_grad,
    pairwise_prox,
    pairwise_reg,
    pairwise_value,
)
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
    "graph_grad",
    "graph_prox",
    "graph_prox_dense",
    "graph_reg",
    "graph_value",
    "group_grad",
    "group_prox",
    "group_reg",
    "group_value",
    "pairwise_affine",
    "pairwise_grad",
    "pairwise_prox",
    "pairwise_reg",
    "pairwise_value",
    "rank_cut",
    "real",
    "require_finite",
    "require_solved",
    "require_threshold",
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
