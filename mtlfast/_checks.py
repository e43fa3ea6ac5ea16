"""Argument checks shared by the public functions, and the words of their messages.

A message names the function, the argument, the rule and the actual value. Checks come before any
work, so nothing is modified when one fails.
"""

import math
import numbers

import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
REDUCTIONS = ("sum", "mean")


def check_float_tensor(function, argument, value):
    """A dense tensor of one of the four floating-point types."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{function}: {argument} must be a tensor, got {type(value).__name__}")
    if value.dtype not in DTYPES:
        raise TypeError(
            f"{function}: {argument} must be float64, float32, bfloat16 or float16, "
            f"got {value.dtype}"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{function}: {argument} must be a dense tensor, got {value.layout}")


def as_rows(function, W):
    """``W``, a tensor ``[K, *]`` or a list of K equally shaped tensors, as rows ``[K, d]``."""
    if isinstance(W, (list, tuple)):
        return _stack(function, W)
    check_float_tensor(function, "W", W)
    if W.dim() == 0:
        raise ValueError(f"{function}: W must have shape [K, *], got a tensor without dimensions")
    if W.dim() == 2:
        return W
    return W.unsqueeze(1) if W.dim() == 1 else W.flatten(1)


def _stack(function, tensors):
    if not tensors:
        raise ValueError(f"{function}: W must hold at least one tensor, got an empty list")
    for k, t in enumerate(tensors):
        check_float_tensor(function, f"W[{k}]", t)
        for what in ("shape", "dtype", "device"):
            first, this = getattr(tensors[0], what), getattr(t, what)
            if this != first:
                kind = TypeError if what == "dtype" else ValueError
                if what == "shape":
                    first, this = list(first), list(this)
                raise kind(
                    f"{function}: all tensors of W must have the same {what}, "
                    f"got {first} at position 0 and {this} at position {k}"
                )
    with torch.autocast(tensors[0].device.type, enabled=False):  # it refuses to stack float16
        return torch.stack([t.reshape(-1) for t in tensors])


def rows_like(W, rows):
    """The inverse of :func:`as_rows`: ``rows`` in the form in which the caller gave ``W``."""
    if isinstance(W, (list, tuple)):
        return type(W)(row.reshape(W[0].shape) for row in rows.unbind())
    return rows.reshape(W.shape)


def check_reduction(function, reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(f'{function}: reduction must be "sum" or "mean", got {reduction!r}')


def check_number(function, argument, value, *, positive=False):
    """A finite real number ≥ 0 (> 0 when ``positive``) as a float."""
    if isinstance(value, torch.Tensor):
        if value.dim() or value.requires_grad or not value.is_floating_point():
            raise TypeError(
                f"{function}: {argument} must be a number, got a tensor of shape "
                f"{list(value.shape)}, dtype {value.dtype}, requires_grad={value.requires_grad}"
            )
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{function}: {argument} must be a number, got {type(value).__name__}")
    value = float(value)
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        rule = "> 0" if positive else ">= 0"
        raise ValueError(f"{function}: {argument} must be finite and {rule}, got {value}")
    return value


def check_same(function, argument, value, W, *, dtype=True):
    """``value`` lives where W lives and, by default, has W's dtype."""
    if value.device != W.device:
        raise ValueError(
            f"{function}: {argument} must be on W's device {W.device}, got {value.device}"
        )
    if dtype and value.dtype != W.dtype:
        raise TypeError(f"{function}: {argument} must have W's dtype {W.dtype}, got {value.dtype}")
