"""Lengths along edges."""

from mtlfast import reference
from mtlfast._native import graph_total_variation as kernels
from mtlfast._ops._registry import added_value, define, value_and_grad
from mtlfast._ops.graph import ORDERED

graph_total_variation_value = define(
    f"graph_total_variation_value(Tensor w, {ORDERED}, Tensor? scale) -> (Tensor, Tensor)",
    value_and_grad,
    reference.graph_total_variation_value,
    kernels.graph_total_variation_value,
    kernels.cuda_graph_total_variation_value,
    direct=True,
)
graph_total_variation_add_ = define(
    f"graph_total_variation_add_(Tensor(a!) out, Tensor w, {ORDERED}, float factor) -> Tensor",
    added_value,
    reference.graph_total_variation_add_,
    kernels.graph_total_variation_add_,
    kernels.cuda_graph_total_variation_add_,
    direct=True,
)
