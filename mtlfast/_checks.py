"""Argument checks shared by the public functions, and the words of their messages.

A message names the function, the argument, the rule and the actual value. Checks come before any
work, so nothing is modified when one fails.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import ValuesView
from typing import Any

import torch

from mtlfast._compat import copy_each_
from mtlfast._dtypes import DTYPES
from mtlfast.reference._base import outside_autocast

REDUCTIONS = ("sum", "mean")
_SEVERAL = (list, tuple, torch.nn.ParameterList, ValuesView)


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


def is_several(W: Any) -> bool:
    """Whether W is given task by task: a list, a tuple, a ParameterList, the values of a dict."""
    return isinstance(W, _SEVERAL)


def as_rows(function: str, W: Any) -> torch.Tensor:
    """``W``, a tensor ``[K, *]`` or a list of K equally shaped tensors, as rows ``[K, d]``."""
    if is_several(W):
        return _stack(function, list(W))
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
    with outside_autocast(tensors[0].device.type):  # it refuses to stack float16
        return torch.stack([t.reshape(-1) for t in tensors])


def rows_like(W: Any, rows: torch.Tensor) -> Any:
    """The inverse of :func:`as_rows`: ``rows`` in the form of ``W``; a list of other sequences."""
    if is_several(W):
        shape = next(iter(W)).shape
        made = (row.reshape(shape) for row in rows.unbind())
        return type(W)(made) if isinstance(W, (list, tuple)) else list(made)
    return rows.reshape(W.shape)


def check_reduction(function, reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(f'{function}: reduction must be "sum" or "mean", got {reduction!r}')


def write_rows_(W, rows):
    """Puts ``rows = as_rows(W)`` back into ``W`` after a change, where they were a copy of it."""
    if is_several(W):
        rows = [row.reshape(w.shape) for w, row in zip(W, rows.unbind(), strict=True)]
        copy_each_(W, rows)
    elif W.dim() > 2 and not W.is_contiguous():
        W.copy_(rows.reshape(W.shape))


def check_writable(function, argument, value):
    """No two elements of what is changed in place share an address, as in expanded tensors."""
    for tensor in value if is_several(value) else [value]:
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        if tensor.numel() and any(n > 1 and stride == 0 for n, stride in steps):
            raise ValueError(
                f"{function}: {argument} must have memory of its own for each element, "
                f"got strides {list(tensor.stride())} for shape {list(tensor.shape)}"
            )


def check_grad(function, grad, W):
    """``grad`` has the form, shapes, dtype and device of ``W``, and memory of its own."""
    several = is_several(W)
    if several != is_several(grad):
        wanted = "a list of tensors" if several else "a tensor"
        raise TypeError(f"{function}: grad must be {wanted} like W, got {type(grad).__name__}")
    if several and len(grad) != len(W):
        raise ValueError(
            f"{function}: grad must have as many tensors as W, {len(W)}, got {len(grad)}"
        )
    for g, w in zip(grad, W, strict=True) if several else [(grad, W)]:
        check_float_tensor(function, "grad", g)
        if g.shape != w.shape:
            raise ValueError(
                f"{function}: grad must have W's shape {list(w.shape)}, got {list(g.shape)}"
            )
        check_same(function, "grad", g, w)
        check_writable(function, "grad", g)
        if _overlap(g, w):
            raise ValueError(
                f"{function}: grad must not share memory with W, got two views of one tensor"
            )


def _overlap(a, b):
    if not (a.numel() and b.numel()) or a.device.type == "meta" or not _has_address(a, b):
        return False
    (first, last), (other_first, other_last) = _span(a), _span(b)
    return first <= other_last and other_first <= last


def _has_address(*tensors):
    return all(type(t) in (torch.Tensor, torch.nn.Parameter) for t in tensors)


def _span(tensor):
    """Addresses of the first and the last element."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    start = tensor.data_ptr()
    return start, start + tensor.itemsize * sum((n - 1) * stride for n, stride in steps)


def check_number(
    function: str, argument: str, value: Any, *, positive: bool = False, signed: bool = False
) -> float:
    """A finite real number ≥ 0 (> 0 when ``positive``, any when ``signed``) as a float."""
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
    if not math.isfinite(value) or (value < 0 and not signed) or (positive and value == 0):
        rule = "finite" if signed else "finite and > 0" if positive else "finite and >= 0"
        raise ValueError(f"{function}: {argument} must be {rule}, got {value}")
    return value


def check_same(function, argument, value, W, *, dtype=True):
    """``value`` lives where W lives and, by default, has W's dtype."""
    if value.device != W.device:
        raise ValueError(
            f"{function}: {argument} must be on W's device {W.device}, got {value.device}"
        )
    if dtype and value.dtype != W.dtype:
        raise TypeError(f"{function}: {argument} must have W's dtype {W.dtype}, got {value.dtype}")


def is_missing(label):
    """NaN and the like, which no label equals; pandas.NA has no truth value."""
    try:
        return bool(label != label)
    except (TypeError, ValueError):
        return True
