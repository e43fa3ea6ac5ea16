"""Distances along edges and of a dense graph."""

import functools

import torch

from mtlfast import reference
from mtlfast._cache import TensorCache
from mtlfast._native import graph as kernels
from mtlfast._ops._registry import added_value, define, value, value_and_grad

EDGES = "Tensor row_ptr, Tensor col, Tensor weight"
ORDERED = f"{EDGES}, Tensor? order"


def _edge_structure(edge_index, num_tasks):
    entries = 2 * edge_index.shape[1]
    return (
        edge_index.new_empty(num_tasks + 1),
        edge_index.new_empty(entries, dtype=torch.int32),
        edge_index.new_empty(entries),
        edge_index.new_empty(()),
    )


def _remembered(function):
    """Once per edge_index; copies go out, since a compiled graph may write over an op's outputs."""
    cache = TensorCache()

    @functools.wraps(function)
    def run(edge_index, num_tasks):
        parts = cache.get((edge_index,), num_tasks, lambda: function(edge_index, num_tasks))
        return tuple(part.clone() for part in parts)

    return run


graph_value = define(
    f"graph_value(Tensor w, {ORDERED}, Tensor? scale) -> (Tensor, Tensor)",
    value_and_grad,
    reference.graph_value,
    kernels.graph_value,
    kernels.cuda_graph_value,
    direct=True,
)
graph_add_ = define(
    f"graph_add_(Tensor(a!) out, Tensor w, {ORDERED}, float factor) -> Tensor",
    added_value,
    reference.graph_add_,
    kernels.graph_add_,
    kernels.cuda_graph_add_,
    direct=True,
)
dense_graph_value = define(
    "dense_graph_value(Tensor w, Tensor a, Tensor? scale) -> (Tensor, Tensor)",
    value_and_grad,
    reference.dense_graph_value,
    kernels.dense_graph_value,
    kernels.cuda_dense_graph_value,
    direct=True,
)
edge_distance = define(
    "edge_distance(Tensor w, Tensor src, Tensor dst) -> Tensor",
    lambda w, src, dst: value(w, src.shape),
    reference.edge_distance,
    kernels.edge_distance,
    kernels.cuda_edge_distance,
)
dense_distance = define(
    "dense_distance(Tensor w) -> Tensor",
    lambda w: value(w, (w.shape[0], w.shape[0])),
    reference.dense_distance,
    kernels.dense_distance,
    kernels.cuda_dense_distance,
)
edge_structure = define(
    "edge_structure(Tensor edge_index, int num_tasks) -> (Tensor, Tensor, Tensor, Tensor)",
    _edge_structure,
    _remembered(reference.edge_structure),
    is_slow=False,
)
