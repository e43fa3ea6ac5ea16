"""The pairwise distance of all tasks and its prox."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from mtlfast import _ops, reference
from mtlfast._checks import (
    as_rows,
    check_grad,
    check_number,
    check_reduction,
    check_writable,
    rows_like,
    write_rows_,
)
from mtlfast._compat import (
    for_each,
    is_batched,
    needs_reference,
    scaled_,
    wants_double_backward,
    wants_grad,
)
from mtlfast._dtypes import FUSED

if TYPE_CHECKING:
    from mtlfast._typing import FormT, Number, Reduction, Rows, RowsT, Several

_SMALL = 1 << 18  # elements: W stays in the cache between value and gradient


class _SmallPairwiseReg(torch.autograd.Function):
    """Value and gradient in one call, which is most of the cost at these sizes.

    The gradient is kept for one backward, which gives it away.
    """

    @staticmethod
    def forward(ctx, w):
        value, ctx.grad = _ops.pairwise_value_grad(w)
        ctx.save_for_backward(w)
        return value

    @staticmethod
    def backward(ctx, upstream):
        (w,) = ctx.saved_tensors
        if wants_double_backward():
            return (upstream * reference.pairwise_grad(w)).to(w.dtype)
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            _, grad = _ops.pairwise_value_grad(w)
        return scaled_(grad, upstream)


class _PairwiseReg(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        value, mean = _ops.pairwise_value(w)
        ctx.save_for_backward(w, mean)
        return value

    @staticmethod
    def backward(ctx, upstream):
        w, mean = ctx.saved_tensors
        if wants_double_backward():
            return (upstream * reference.pairwise_grad(w)).to(w.dtype)

        def gradient(w, upstream):
            return _ops.pairwise_affine(w, mean, upstream, 4.0 * w.shape[0], False)

        return for_each(upstream, gradient, w)


def pairwise_reg(W: Rows, *, reduction: Reduction = "sum") -> torch.Tensor:
    r"""Sum of squared distances between all ordered pairs of tasks, in O(K·d).

    .. math:: R(W) = \sum_{i \neq j} \|w_i - w_j\|^2 = 2K \sum_i \|w_i - \bar w\|^2,
              \qquad \partial R / \partial w_i = 4K (w_i - \bar w)

    Both orders of a pair count, as in the literature: a double loop over i < j gives half of it.
    ``reduction="mean"`` divides by the K(K−1) ordered pairs, so that a strength chosen at K = 100
    still makes sense at K = 100,000; take it for float16, whose gradients overflow in the sum form
    at large K.

    Args:
        W: tensor ``[K, *]``, or K equally shaped tensors: a list, a tuple, an ``nn.ParameterList``
            or the values of a dict; float64, float32,
            bfloat16 or float16; any device, any strides.
        reduction: ``"sum"`` or ``"mean"``.

    Returns:
        A scalar: float64 for float64 input, else float32. Gradients have W's dtype. NaN and Inf
        propagate; equal rows give exactly 0 and a zero gradient; K < 2 gives 0.

    Raises:
        TypeError: W is no dense floating-point tensor, or the list mixes dtypes.
        ValueError: W has no dimension, the list is empty or mixes shapes, or unknown reduction.

    Cost: reads W once for the value, once more for the gradient; no temporary of W's size.
    Deterministic: the same bits for any number of threads and any CPU.

    Example:
        >>> import torch
        >>> from mtlfast import pairwise_reg
        >>> W = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
        >>> loss = pairwise_reg(W)   # 25 for (0, 1) and 25 for (1, 0)
        >>> loss.backward()
        >>> loss.item(), W.grad.tolist()
        (50.0, [[-12.0, -16.0], [12.0, 16.0]])

    Source: T. Evgeniou and M. Pontil, Regularized multi-task learning, KDD 2004.
    """
    check_reduction("pairwise_reg", reduction)
    w = as_rows("pairwise_reg", W)
    if needs_reference(w):
        value = reference.pairwise_reg(w)
    elif wants_grad(w):
        small = w.is_cpu and w.numel() <= _SMALL and w.dtype in FUSED
        value = (_SmallPairwiseReg if small else _PairwiseReg).apply(w)
    else:
        value = _ops.pairwise_value(w)[0]
    return value / _pairs(w) if reduction == "mean" else value


@torch.no_grad()
def pairwise_add_grad_(
    grad: Rows, W: Rows, *, alpha: Number = 1.0, reduction: Reduction = "sum"
) -> torch.Tensor:
    r"""Adds ``alpha`` times the gradient of :func:`pairwise_reg` to ``grad``, in place.

    .. math:: grad_i \mathrel{+}= alpha \cdot 4K (w_i - \bar w)

    For training steps that keep their gradient buffers: no autograd graph and no new memory, and a
    strength costs nothing. Equivalent to ``(alpha * pairwise_reg(W)).backward()`` with
    ``W.grad = grad``.

    Args:
        grad: what is added to, in the form, shapes, dtype and device of W; any strides.
        W: as in :func:`pairwise_reg`; it may be a parameter that requires grad.
        alpha: a finite number, the strength; may be negative.
        reduction: as in :func:`pairwise_reg`.

    Returns:
        ``pairwise_reg(W, reduction=reduction)``, without ``alpha``.

    Raises:
        TypeError, ValueError: as :func:`pairwise_reg`; ``grad`` is not like W or shares its memory;
            ``alpha`` is no finite number. ``grad`` is unchanged then.

    Cost: reads W twice and ``grad`` once, writes ``grad`` once. Deterministic: the same bits for
    any number of threads and any CPU.

    Example:
        >>> import torch
        >>> from mtlfast import pairwise_add_grad_
        >>> W, grad = torch.tensor([[0.0], [1.0]]), torch.tensor([[10.0], [10.0]])
        >>> pairwise_add_grad_(grad, W, alpha=0.5)
        tensor(2.)
        >>> grad
        tensor([[ 8.],
                [12.]])

    Source: as :func:`pairwise_reg`.
    """
    check_reduction("pairwise_add_grad_", reduction)
    w = as_rows("pairwise_add_grad_", W)
    check_grad("pairwise_add_grad_", grad, W)
    alpha = check_number("pairwise_add_grad_", "alpha", alpha, signed=True)
    pairs = _pairs(w) if reduction == "mean" else 1
    rows = as_rows("pairwise_add_grad_", grad)
    if needs_reference(w, rows):
        value = reference.pairwise_reg(w)
        rows.add_((alpha / pairs * reference.pairwise_grad(w)).to(rows.dtype))
    else:
        value, mean = _ops.pairwise_value(w)
        _ops.pairwise_add_(rows, w, mean, 4.0 * w.shape[0] * alpha / pairs)
    write_rows_(grad, rows)
    return value / pairs if reduction == "mean" else value


def _pairs(w):
    return max(w.shape[0] * (w.shape[0] - 1), 1)


class _PairwiseProx(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, step):
        ctx.step = step
        return _prox(w, step)

    @staticmethod
    def backward(ctx, upstream):  # a symmetric linear map: its own adjoint
        if is_batched(upstream):
            return reference.pairwise_prox(upstream, ctx.step), None
        if wants_double_backward():
            return _PairwiseProx.apply(upstream, ctx.step), None
        return _prox(upstream, ctx.step), None


def _prox(w, step):
    _, mean = _ops.pairwise_value(w)
    return _ops.pairwise_affine(w, mean, mean.new_ones(()), 1 / (1 + 4 * w.shape[0] * step), True)


@overload
def pairwise_prox(W: FormT, step: Number) -> FormT: ...
@overload
def pairwise_prox(W: Several, step: Number) -> list[torch.Tensor]: ...
def pairwise_prox(W: Rows, step: Number) -> Rows:
    r"""Proximal step of :func:`pairwise_reg` (``reduction="sum"``), in closed form, in O(K·d).

    .. math:: \arg\min_Z \tfrac12 \|Z - W\|_F^2 + step \cdot \sum_{i \neq j} \|z_i - z_j\|^2
              = \bar w + (w_i - \bar w) / (1 + 4K \cdot step)

    Args:
        W: as in :func:`pairwise_reg`.
        step: a finite number ≥ 0 (learning rate times strength).

    Returns:
        The minimiser in the form and dtype of W; differentiable in W. The mean of the tasks stays
        where it is. NaN and Inf propagate.

    Raises:
        TypeError, ValueError: as :func:`pairwise_reg`; a ``step`` that is no number, negative, NaN
            or infinite.

    Cost: reads W twice, writes the result once. Deterministic.

    Example:
        >>> import torch
        >>> from mtlfast import pairwise_prox
        >>> pairwise_prox(torch.tensor([[0.0], [9.0]]), step=0.25)   # 1 + 4·2·0.25 = 3
        tensor([[3.],
                [6.]])

    Source: N. Parikh and S. Boyd, Proximal Algorithms, 2014, section 6.1.1.
    """
    step = check_number("pairwise_prox", "step", step)
    w = as_rows("pairwise_prox", W)
    if needs_reference(w):
        rows = reference.pairwise_prox(w, step)
    elif wants_grad(w):
        rows = _PairwiseProx.apply(w, step)
    else:
        rows = _prox(w, step)
    return rows_like(W, rows)


@torch.no_grad()
def pairwise_prox_(W: RowsT, step: Number) -> RowsT:
    r"""Writes :func:`pairwise_prox` of W into W.

    .. math:: w_i \leftarrow \bar w + (w_i - \bar w) / (1 + 4K \cdot step)

    Outside autograd, as an optimiser's step: W may be a parameter that requires grad.

    Args:
        W: as in :func:`pairwise_prox`; changed in place, any strides.
        step: a finite number ≥ 0 (learning rate times strength).

    Returns:
        W.

    Raises:
        TypeError, ValueError: as :func:`pairwise_prox`; W is unchanged then.

    Cost: reads W twice, writes it once, no new memory. Deterministic, and the bits of
    :func:`pairwise_prox`.

    Example:
        >>> import torch
        >>> from mtlfast import pairwise_prox_
        >>> W = torch.tensor([[0.0], [9.0]])
        >>> pairwise_prox_(W, step=0.25)
        tensor([[3.],
                [6.]])

    Source: as :func:`pairwise_prox`.
    """
    step = check_number("pairwise_prox_", "step", step)
    rows = as_rows("pairwise_prox_", W)
    check_writable("pairwise_prox_", "W", W)
    if needs_reference(rows):
        rows.copy_(reference.pairwise_prox(rows, step))
    else:
        _, mean = _ops.pairwise_value(rows)
        _ops.pairwise_shrink_(rows, mean, 1 / (1 + 4 * rows.shape[0] * step))
    write_rows_(W, rows)
    return W
