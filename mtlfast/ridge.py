"""The sum of squares of W, weight decay as a regularizer, and its prox."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from mtlfast import _ops, reference
from mtlfast._checks import (
    as_rows,
    check_grad,
    check_number,
    check_writable,
    rows_like,
    write_rows_,
)
from mtlfast._compat import (
    is_batched,
    needs_reference,
    scaled_,
    wants_double_backward,
    wants_grad,
)
from mtlfast._dtypes import FUSED, real_dtype

if TYPE_CHECKING:
    from mtlfast._typing import FormT, Number, Rows, RowsT, Several

_SMALL = 1 << 18  # elements: W stays in the cache between value and gradient


class _Ridge(torch.autograd.Function):
    """Of a small W value and gradient come from one call; the latter is given away once."""

    @staticmethod
    def forward(ctx, w, strength):
        ctx.strength, ctx.grad = strength, None
        ctx.save_for_backward(w)
        if w.is_cpu and w.numel() <= _SMALL and w.dtype in FUSED:
            value, ctx.grad = _ops.ridge_value_grad(w, strength)
            return value
        return _ops.ridge_value(w, strength)

    @staticmethod
    def backward(ctx, upstream):
        (w,) = ctx.saved_tensors
        if wants_double_backward() or is_batched(upstream):
            grad = upstream * ctx.strength * reference.ridge_grad(w)
            return grad.to(w.dtype), None
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            return _ops.ridge_scale(w, upstream, 2 * ctx.strength), None
        return scaled_(grad, upstream), None


def ridge_reg(W: Rows, *, strength: Number = 1.0) -> torch.Tensor:
    r"""Sum of the squares of W, which pulls every task to zero, in O(K·d).

    .. math:: R(W) = strength \cdot \|W\|_F^2 = strength \sum_i \|w_i\|^2, \qquad
              \partial R / \partial w_i = 2 \cdot strength \cdot w_i

    Equivalent to ``strength * (W ** 2).sum()``. The gradient is that of weight decay with the rate
    2·strength.

    Args:
        W: tensor ``[K, *]``, or K equally shaped tensors: a list, a tuple, an ``nn.ParameterList``
            or the values of a dict; float64, float32,
            bfloat16 or float16; any device, any strides.
        strength: a finite number ≥ 0, multiplied in before the value is rounded.

    Returns:
        A scalar: float64 for float64 input, else float32; finite wherever ``strength·‖W‖²`` is,
        for squares are summed in float64. Gradients have W's dtype. NaN and Inf propagate.

    Raises:
        TypeError: W is no dense floating-point tensor, the list mixes dtypes, ``strength`` is no
            number.
        ValueError: W has no dimension, the list is empty or mixes shapes, ``strength`` is
            negative, NaN or infinite.

    Cost: reads W once for the value, once more for the gradient; no temporary of W's size.
    Deterministic: on the CPU the same bits for any number of threads and any CPU.

    Example:
        >>> import torch
        >>> from mtlfast import ridge_reg
        >>> W = torch.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
        >>> value = ridge_reg(W, strength=0.5)
        >>> value.backward()
        >>> value.item(), W.grad.tolist()
        (12.5, [[1.0, 2.0], [2.0, 4.0]])

    Source: A. Hoerl and R. Kennard, Ridge regression: biased estimation for nonorthogonal problems,
    Technometrics 1970.
    """
    strength = check_number("ridge_reg", "strength", strength)
    w = as_rows("ridge_reg", W)
    if needs_reference(w):
        return reference.ridge_reg(w, strength)
    if wants_grad(w):
        return _Ridge.apply(w, strength)
    return _ops.ridge_value(w, strength)


@torch.no_grad()
def ridge_add_grad_(
    grad: Rows, W: Rows, *, alpha: Number = 1.0, strength: Number = 1.0
) -> torch.Tensor:
    r"""Adds ``alpha`` times the gradient of :func:`ridge_reg` to ``grad``, in place.

    .. math:: grad_i \mathrel{+}= 2 \cdot alpha \cdot strength \cdot w_i

    For training steps that keep their gradient buffers: no autograd graph and no new memory.
    Equivalent to ``(alpha * ridge_reg(W, strength=strength)).backward()`` with ``W.grad = grad``.

    Args:
        grad: what is added to, in the form, shapes, dtype and device of W; any strides.
        W, strength: as in :func:`ridge_reg`; W may be a parameter that requires grad.
        alpha: a finite number; may be negative.

    Returns:
        ``ridge_reg(W, strength=strength)``, without ``alpha``.

    Raises:
        TypeError, ValueError: as :func:`ridge_reg`; ``grad`` is not like W or shares its memory;
            ``alpha`` is no finite number. ``grad`` is unchanged then.

    Cost: reads W and ``grad`` once, writes ``grad`` once. Deterministic as :func:`ridge_reg`.

    Example:
        >>> import torch
        >>> from mtlfast import ridge_add_grad_
        >>> W, grad = torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [10.0]])
        >>> ridge_add_grad_(grad, W, alpha=0.5), grad.flatten().tolist()
        (tensor(10.), [11.0, 13.0])

    Source: as :func:`ridge_reg`.
    """
    strength = check_number("ridge_add_grad_", "strength", strength)
    w = as_rows("ridge_add_grad_", W)
    check_grad("ridge_add_grad_", grad, W)
    alpha = check_number("ridge_add_grad_", "alpha", alpha, signed=True)
    rows = as_rows("ridge_add_grad_", grad)
    if needs_reference(w, rows):
        value = reference.ridge_reg(w, strength)
        rows.add_((alpha * strength * reference.ridge_grad(w)).to(rows.dtype))
    else:
        value = _ops.ridge_add_(rows, w, strength, alpha)
    write_rows_(grad, rows)
    return value


class _RidgeProx(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, factor):
        ctx.factor = factor
        return _scaled(w, factor)

    @staticmethod
    def backward(ctx, upstream):  # W times a number: its own adjoint
        if is_batched(upstream):
            return upstream * ctx.factor, None
        run = _RidgeProx.apply if wants_double_backward() else _scaled
        return run(upstream, ctx.factor), None


def _scaled(w, factor):
    return _ops.ridge_scale(w, torch.ones((), dtype=real_dtype(w.dtype), device=w.device), factor)


@overload
def ridge_prox(W: FormT, step: Number) -> FormT: ...
@overload
def ridge_prox(W: Several, step: Number) -> list[torch.Tensor]: ...
def ridge_prox(W: Rows, step: Number) -> Rows:
    r"""Proximal step of :func:`ridge_reg`, in closed form, in O(K·d).

    .. math:: \arg\min_Z \tfrac12 \|Z - W\|_F^2 + step \cdot \|Z\|_F^2 = W / (1 + 2 \cdot step)

    Args:
        W: as in :func:`ridge_reg`.
        step: a finite number ≥ 0 (learning rate times strength).

    Returns:
        The minimiser in the form and dtype of W; differentiable in W. NaN and Inf propagate.

    Raises:
        TypeError, ValueError: as :func:`ridge_reg`; a ``step`` that is no number, negative, NaN or
            infinite.

    Cost: reads W once, writes the result once. Deterministic as :func:`ridge_reg`.

    Example:
        >>> import torch
        >>> from mtlfast import ridge_prox
        >>> ridge_prox(torch.tensor([[3.0], [9.0]]), step=0.25)   # 1 + 2·0.25 = 1.5
        tensor([[2.],
                [6.]])

    Source: N. Parikh and S. Boyd, Proximal Algorithms, 2014, section 6.1.1.
    """
    step = check_number("ridge_prox", "step", step)
    w = as_rows("ridge_prox", W)
    if needs_reference(w):
        rows = reference.ridge_prox(w, step)
    elif wants_grad(w):
        rows = _RidgeProx.apply(w, 1 / (1 + 2 * step))
    else:
        rows = _scaled(w, 1 / (1 + 2 * step))
    return rows_like(W, rows)


@torch.no_grad()
def ridge_prox_(W: RowsT, step: Number) -> RowsT:
    r"""Writes :func:`ridge_prox` of W into W.

    .. math:: w_i \leftarrow w_i / (1 + 2 \cdot step)

    Outside autograd, as an optimiser's step: W may be a parameter that requires grad.

    Args:
        W: as in :func:`ridge_prox`; changed in place, any strides.
        step: a finite number ≥ 0 (learning rate times strength).

    Returns:
        W.

    Raises:
        TypeError, ValueError: as :func:`ridge_prox`; W is unchanged then.

    Cost: reads W and writes it once, no new memory. Deterministic, and the bits of
    :func:`ridge_prox`.

    Example:
        >>> import torch
        >>> from mtlfast import ridge_prox_
        >>> W = torch.tensor([[3.0], [9.0]])
        >>> ridge_prox_(W, step=0.25)
        tensor([[2.],
                [6.]])

    Source: as :func:`ridge_prox`.
    """
    step = check_number("ridge_prox_", "step", step)
    rows = as_rows("ridge_prox_", W)
    check_writable("ridge_prox_", "W", W)
    if needs_reference(rows):
        rows.copy_(reference.ridge_prox(rows, step))
    else:
        _ops.ridge_scale_(rows, 1 / (1 + 2 * step))
    write_rows_(W, rows)
    return W
