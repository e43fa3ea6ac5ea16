"""Squares of all entries."""

from mtlfast._native import ridge as kernels
from mtlfast._ops._registry import added_value, define, like, nothing, value
from mtlfast._torch import ridge as composed

ridge_value = define(
    "ridge_value(Tensor w, float strength) -> Tensor",
    lambda w, strength: value(w),
    composed.ridge_value,
    kernels.ridge_value,
    is_slow=False,
    direct=True,
)
ridge_value_grad = define(
    "ridge_value_grad(Tensor w, float strength) -> (Tensor, Tensor)",
    lambda w, strength: (value(w), like(w)),
    composed.ridge_value_grad,
    kernels.ridge_value_grad,
    is_slow=False,
    direct=True,
)
ridge_scale = define(
    "ridge_scale(Tensor w, Tensor scale, float factor) -> Tensor",
    like,
    composed.ridge_scale,
    kernels.ridge_scale,
    is_slow=False,
    direct=True,
)
ridge_scale_ = define(
    "ridge_scale_(Tensor(a!) w, float factor) -> ()",
    nothing,
    composed.ridge_scale_,
    kernels.ridge_scale_,
    is_slow=False,
    direct=True,
)
ridge_add_ = define(
    "ridge_add_(Tensor(a!) out, Tensor w, float strength, float alpha) -> Tensor",
    added_value,
    composed.ridge_add_,
    kernels.ridge_add_,
    is_slow=False,
    direct=True,
)
