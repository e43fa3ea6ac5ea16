"""mtlfast: task-relation regularizers for multi-task learning in PyTorch."""

from mtlfast import _loading, nn, optim  # noqa: F401 (_loading declares)
from mtlfast._config import build_info, show_config
from mtlfast._native import FallbackWarning, release_memory
from mtlfast.gram import LowRank, gram_reg
from mtlfast.graph import graph_add_grad_, graph_prox, graph_prox_, graph_reg
from mtlfast.graph_total_variation import (
    graph_total_variation,
    graph_total_variation_add_grad_,
    graph_total_variation_prox,
)
from mtlfast.graphs import TaskGraph
from mtlfast.group_lasso import (
    group_lasso,
    group_lasso_add_grad_,
    group_lasso_prox,
    group_lasso_prox_,
)
from mtlfast.pairwise import pairwise_add_grad_, pairwise_prox, pairwise_prox_, pairwise_reg
from mtlfast.relations import relations
from mtlfast.ridge import ridge_add_grad_, ridge_prox, ridge_prox_, ridge_reg
from mtlfast.trace_norm import trace_norm, trace_norm_prox, trace_norm_prox_

__version__ = "0.1.0"

__all__ = [
    "FallbackWarning",
    "LowRank",
    "TaskGraph",
    "build_info",
    "gram_reg",
    "graph_add_grad_",
    "graph_prox",
    "graph_prox_",
    "graph_reg",
    "graph_total_variation",
    "graph_total_variation_add_grad_",
    "graph_total_variation_prox",
    "group_lasso",
    "group_lasso_add_grad_",
    "group_lasso_prox",
    "group_lasso_prox_",
    "nn",
    "optim",
    "pairwise_add_grad_",
    "pairwise_prox",
    "pairwise_prox_",
    "pairwise_reg",
    "relations",
    "release_memory",
    "ridge_add_grad_",
    "ridge_prox",
    "ridge_prox_",
    "ridge_reg",
    "show_config",
    "trace_norm",
    "trace_norm_prox",
    "trace_norm_prox_",
]
