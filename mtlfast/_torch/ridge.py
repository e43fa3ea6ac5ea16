"""The sum of squares of W and W times a number as torch calls, for devices without a kernel."""

import math

import torch

from mtlfast.reference import real


def _number(w, value):
    """A factor on w's device, in the arithmetic type: Inf where it is beyond that."""
    dtype = real(w[:0]).dtype
    largest = torch.finfo(dtype).max
    value = value if abs(value) <= largest else math.copysign(math.inf, value)
    return torch.full((), value, dtype=dtype, device=w.device)


def ridge_value(w, strength):
    """strength · Σ w²."""
    w = w.contiguous()  # sums follow the strides: in one order for every layout
    if w.dtype == torch.float64:  # squares are in range wherever the result is
        return (w * math.sqrt(strength)).square().sum()
    length = torch.linalg.vector_norm(w, dtype=torch.float64)  # without a copy of W
    return (strength * length.square()).to(real(w[:0]).dtype)


def ridge_value_grad(w, strength):
    one = _number(w, 1.0)
    return ridge_value(w, strength), ridge_scale(w, one, 2 * strength)


def ridge_scale(w, scale, factor):
    """factor · scale · w."""
    x = real(w)
    return (x * (scale.to(x.dtype) * factor)).to(w.dtype).contiguous()


def ridge_scale_(w, factor):
    w.copy_(real(w) * _number(w, factor))


def ridge_add_(out, w, strength, alpha):
    """out += alpha · 2 · strength · w; returns the value."""
    factor = _number(w, 2 * strength * alpha)
    if out.dtype in (torch.float32, torch.float64):
        out.addcmul_(w, factor)
    else:
        out.copy_(real(out) + real(w) * factor)
    return ridge_value(w, strength)
