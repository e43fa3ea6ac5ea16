"""Distances in groups, and their prox."""

from mtlfast import reference
from mtlfast._native import group as kernels
from mtlfast._ops._registry import define, like, value_and_grad

_GROUPS = "Tensor ptr, Tensor member"


group_value = define(
    f"group_value(Tensor w, {_GROUPS}, Tensor? scale) -> (Tensor, Tensor)",
    value_and_grad,
    reference.group_value,
    kernels.group_value,
    kernels.cuda_group_value,
    direct=True,
)
group_prox = define(
    f"group_prox(Tensor w, {_GROUPS}, float step) -> Tensor",
    like,
    reference.group_prox,
    kernels.group_prox,
    kernels.cuda_group_prox,
)
