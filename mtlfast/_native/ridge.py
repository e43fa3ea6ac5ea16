"""Squares of all entries."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES
from mtlfast._native import NOTHING, OUT, empty_like, in_place, scalar


def _ridge(w, strength, value, out, factor, plus):
    """value = strength·Σ w² and out = factor·w, plus nothing or out; None leaves one out."""
    _native._C.ridge(
        CODES[w.dtype], w.data_ptr(), w.numel(), strength,
        0 if value is None else value.data_ptr(), 0 if out is None else out.data_ptr(), factor,
        plus, torch.get_num_threads(),
    )  # fmt: skip


def ridge_value(w, strength):
    w, value = w.contiguous(), scalar(w)
    if w.numel():
        _ridge(w, strength, value, None, 0.0, NOTHING)
    return value


def ridge_value_grad(w, strength):
    w, value, grad = w.contiguous(), scalar(w), empty_like(w)
    if w.numel():
        _ridge(w, strength, value, grad, 2 * strength, NOTHING)
    return value, grad


def ridge_scale(w, scale, factor):
    w, out = w.contiguous(), empty_like(w)
    if w.numel():
        _ridge(w, 0.0, None, out, scale.item() * factor, NOTHING)
    return out


def ridge_scale_(w, factor):
    if w.numel():
        in_place(w, lambda dense: _ridge(dense, 0.0, None, dense, factor, NOTHING))


def ridge_add_(out, w, strength, alpha):
    w, value = w.contiguous(), scalar(w)
    if w.numel():
        factor = 2 * strength * alpha
        in_place(out, lambda dense: _ridge(w, strength, value, dense, factor, OUT))
    return value
