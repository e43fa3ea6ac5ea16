"""Pairwise distances, and means."""

from mtlfast import reference
from mtlfast._native import pairwise as kernels
from mtlfast._ops._registry import define, like, nothing, value

pairwise_value = define(
    "pairwise_value(Tensor w) -> (Tensor, Tensor)",
    lambda w: (value(w), value(w, (2, w.shape[1]))),
    reference.pairwise_value,
    kernels.pairwise_value,
    kernels.cuda_pairwise_value,
    direct=True,
)
pairwise_value_grad = define(
    "pairwise_value_grad(Tensor w) -> (Tensor, Tensor)",
    lambda w: (value(w), like(w)),
    reference.pairwise_value_grad,
    kernels.pairwise_value_grad,
    kernels.cuda_pairwise_value_grad,
    direct=True,
)
pairwise_affine = define(
    "pairwise_affine(Tensor w, Tensor mean, Tensor scale, float factor, bool add_mean) -> Tensor",
    like,
    reference.pairwise_affine,
    kernels.pairwise_affine,
    kernels.cuda_pairwise_affine,
    direct=True,
)
pairwise_add_ = define(
    "pairwise_add_(Tensor(a!) out, Tensor w, Tensor mean, float factor) -> ()",
    nothing,
    reference.pairwise_add_,
    kernels.pairwise_add_,
    kernels.cuda_pairwise_add_,
    direct=True,
)
pairwise_shrink_ = define(
    "pairwise_shrink_(Tensor(a!) out, Tensor mean, float factor) -> ()",
    nothing,
    reference.pairwise_shrink_,
    kernels.pairwise_shrink_,
    kernels.cuda_pairwise_shrink_,
    direct=True,
)
