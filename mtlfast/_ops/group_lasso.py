"""Columns: their lengths, scaled."""

import torch

from mtlfast._native import group_lasso as kernels
from mtlfast._ops._registry import define, like, nothing
from mtlfast._torch import group_lasso as composed

column_lengths = define(
    "column_lengths(Tensor w) -> Tensor",
    lambda w: w.new_empty((w.shape[1],), dtype=torch.float64),
    composed.column_lengths,
    kernels.column_lengths,
    is_slow=False,
)
column_scale = define(
    "column_scale(Tensor w, Tensor factor) -> Tensor",
    like,
    composed.column_scale,
    kernels.column_scale,
    is_slow=False,
)
column_scale_ = define(
    "column_scale_(Tensor(a!) w, Tensor factor) -> ()",
    nothing,
    composed.column_scale_,
    kernels.column_scale_,
    is_slow=False,
)
column_add_ = define(
    "column_add_(Tensor(a!) out, Tensor w, Tensor factor) -> ()",
    nothing,
    composed.column_add_,
    kernels.column_add_,
    is_slow=False,
)
