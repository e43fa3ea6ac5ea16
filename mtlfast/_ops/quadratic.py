"""Edges, pairs and ridge in one pass."""

from mtlfast import reference
from mtlfast._native import quadratic as kernels
from mtlfast._ops._registry import added_value, define, like, value
from mtlfast._ops.graph import ORDERED

_STRENGTHS = "float ridge, float pairs, float edges"


quadratic_value = define(
    f"quadratic_value(Tensor w, {ORDERED}, {_STRENGTHS}, bool grad) -> (Tensor, Tensor)",
    lambda w, *args: (value(w), like(w) if args[-1] else w.new_empty((0,))),
    reference.quadratic_value,
    kernels.quadratic_value,
    kernels.cuda_quadratic_value,
    direct=True,
)
quadratic_add_ = define(
    f"quadratic_add_(Tensor(a!) out, Tensor w, {ORDERED}, {_STRENGTHS}, float factor) -> Tensor",
    added_value,
    reference.quadratic_add_,
    kernels.quadratic_add_,
    kernels.cuda_quadratic_add_,
    direct=True,
)
