"""The group lasso over features that all tasks share, and its prox."""

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
from mtlfast._compat import needs_reference, wants_double_backward, wants_grad
from mtlfast._dtypes import real_dtype

if TYPE_CHECKING:
    from mtlfast._typing import FormT, Number, Rows, RowsT, Several


def _inverse(lengths, w):
    """1/‖W_·j‖, and 0 for a zero column: the subgradient of least norm."""
    smallest = torch.finfo(real_dtype(w.dtype)).tiny  # below, 1/‖W_·j‖ is no number of that type
    return torch.where(lengths == 0, 0.0, 1 / lengths.clamp(min=smallest))


class _GroupLasso(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        lengths = _ops.column_lengths(w)
        ctx.save_for_backward(w, lengths)
        # a copy: of a conversion that changes nothing, torch 2.11 compiles a gradient of 0
        return lengths.sum().to(real_dtype(w.dtype), copy=True)

    @staticmethod
    def backward(ctx, upstream):
        w, lengths = ctx.saved_tensors
        if wants_double_backward():
            return (upstream * reference.group_lasso_grad(w)).to(w.dtype)
        return _ops.column_scale(w, upstream * _inverse(lengths, w))


def group_lasso(W: Rows) -> torch.Tensor:
    r"""Group lasso (ℓ2,1 norm): the sum of the lengths of W's columns, one for each feature.

    .. math:: R(W) = \|W\|_{2,1} = \sum_j \|W_{\cdot j}\|_2, \qquad
              \partial R / \partial W_{\cdot j} = W_{\cdot j} / \|W_{\cdot j}\|_2

    A feature's parameters in all tasks are one group, so that all tasks share the features they
    use: at the optimum whole columns are zero. The gradient at a zero column is 0, the subgradient
    of least norm.

    Args:
        W: tensor ``[K, *]``, or K equally shaped tensors: a list, a tuple, an ``nn.ParameterList``
            or the values of a dict; float64, float32,
            bfloat16 or float16; any device, any strides.

    Returns:
        A scalar: float64 for float64 input, else float32. Gradients have W's dtype. NaN and Inf
        propagate within their column.

    Raises:
        TypeError: W is no dense floating-point tensor, or the list mixes dtypes.
        ValueError: W has no dimension, the list is empty or mixes shapes.

    Cost: reads W once for the value, once more for the gradient; no temporary of W's size on the
    CPU. Deterministic: there the same bits for any number of threads and any CPU.

    Example:
        >>> import torch
        >>> from mtlfast import group_lasso
        >>> W = torch.tensor([[3.0, 0.0], [4.0, 0.0]], requires_grad=True)
        >>> value = group_lasso(W)
        >>> value.backward()
        >>> value.item(), W.grad.tolist()
        (5.0, [[0.6000000238418579, 0.0], [0.800000011920929, 0.0]])

    Source: G. Obozinski, B. Taskar and M. Jordan, Joint covariate selection and joint subspace
    selection for multiple classification problems, Statistics and Computing 2010.
    """
    w = as_rows("group_lasso", W)
    if needs_reference(w):
        return reference.group_lasso(w)
    if wants_grad(w):
        return _GroupLasso.apply(w)
    return _ops.column_lengths(w).sum().to(real_dtype(w.dtype))


@torch.no_grad()
def group_lasso_add_grad_(grad: Rows, W: Rows, *, alpha: Number = 1.0) -> torch.Tensor:
    r"""Adds ``alpha`` times the gradient of :func:`group_lasso` to ``grad``, in place.

    .. math:: grad_{\cdot j} \mathrel{+}= alpha \cdot W_{\cdot j} / \|W_{\cdot j}\|_2

    Args:
        grad: what is added to, in the form, shapes, dtype and device of W; any strides.
        W: as in :func:`group_lasso`; it may be a parameter that requires grad.
        alpha: a finite number, the strength; may be negative.

    Returns:
        ``group_lasso(W)``, without ``alpha``.

    Raises:
        TypeError, ValueError: as :func:`group_lasso`; ``grad`` is not like W or shares its memory;
            ``alpha`` is no finite number. ``grad`` is unchanged then.

    Cost: reads W twice and ``grad`` once, writes ``grad`` once. Deterministic.

    Example:
        >>> import torch
        >>> from mtlfast import group_lasso_add_grad_
        >>> W, grad = torch.tensor([[3.0, 0.0], [4.0, 0.0]]), torch.zeros(2, 2)
        >>> group_lasso_add_grad_(grad, W, alpha=10), grad.tolist()
        (tensor(5.), [[6.0, 0.0], [8.0, 0.0]])

    Source: as :func:`group_lasso`.
    """
    w = as_rows("group_lasso_add_grad_", W)
    check_grad("group_lasso_add_grad_", grad, W)
    alpha = check_number("group_lasso_add_grad_", "alpha", alpha, signed=True)
    rows = as_rows("group_lasso_add_grad_", grad)
    if needs_reference(w, rows):
        value = reference.group_lasso(w)
        rows.add_((alpha * reference.group_lasso_grad(w)).to(rows.dtype))
    else:
        lengths = _ops.column_lengths(w)
        value = lengths.sum().to(real_dtype(w.dtype))
        _ops.column_add_(rows, w, alpha * _inverse(lengths, w))
    write_rows_(grad, rows)
    return value


def _shrink(lengths, threshold):
    """(1 − t/‖W_·j‖)₊"""
    stays = ~(lengths <= threshold)  # NaN stays
    return torch.where(stays, 1 - threshold / torch.where(stays, lengths, 1.0), 0.0)


class _GroupLassoProx(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, threshold):
        lengths = _ops.column_lengths(w)
        ctx.threshold = threshold
        ctx.save_for_backward(w, lengths)
        return _ops.column_scale(w, _shrink(lengths, threshold))

    @staticmethod
    def backward(ctx, upstream):
        w, lengths = ctx.saved_tensors
        if wants_double_backward():
            with torch.enable_grad():
                leaf = w if w.requires_grad else w.detach().requires_grad_()
                moved = reference.group_lasso_prox(leaf, ctx.threshold)
                return torch.autograd.grad(moved, leaf, upstream, create_graph=True)[0], None
        # (1 − t/n)₊ u + t/n³ ⟨w, u⟩ w in the columns that stay
        # in one order for every layout: a sum over tasks follows the strides
        x, u = (reference.real(t.contiguous()) for t in (w, upstream))
        factor = _shrink(lengths, ctx.threshold)
        inverse = torch.where(factor > 0, 1 / lengths, 0.0)
        along = (inverse * (x.to(lengths.dtype) * u).sum(0)) * ctx.threshold * inverse * inverse
        return (factor.to(x.dtype) * u + along.to(x.dtype) * x).to(w.dtype), None


@overload
def group_lasso_prox(W: FormT, threshold: Number) -> FormT: ...
@overload
def group_lasso_prox(W: Several, threshold: Number) -> list[torch.Tensor]: ...
def group_lasso_prox(W: Rows, threshold: Number) -> Rows:
    r"""Proximal step of :func:`group_lasso`: shortens every column, and removes the short ones.

    .. math:: \arg\min_Z \tfrac12 \|Z - W\|_F^2 + t \|Z\|_{2,1}, \qquad
              Z_{\cdot j} = (1 - t / \|W_{\cdot j}\|_2)_+ \, W_{\cdot j}

    Args:
        W: as in :func:`group_lasso`.
        threshold: t, a finite number ≥ 0 (learning rate times strength).

    Returns:
        The minimiser in the form and dtype of W; differentiable in W. NaN and Inf propagate within
        their column.

    Raises:
        TypeError, ValueError: as :func:`group_lasso`; a ``threshold`` that is no number, negative,
            NaN or infinite.

    Cost: reads W twice, writes the result once. Deterministic as :func:`group_lasso`.

    Example:
        >>> import torch
        >>> from mtlfast import group_lasso_prox
        >>> group_lasso_prox(torch.tensor([[3.0, 0.1], [4.0, 0.1]]), threshold=2.5)
        tensor([[1.5000, 0.0000],
                [2.0000, 0.0000]])

    Source: N. Parikh and S. Boyd, Proximal Algorithms, 2014, section 6.5.1.
    """
    threshold = check_number("group_lasso_prox", "threshold", threshold)
    w = as_rows("group_lasso_prox", W)
    if needs_reference(w):
        rows = reference.group_lasso_prox(w, threshold)
    elif wants_grad(w):
        rows = _GroupLassoProx.apply(w, threshold)
    else:
        rows = _ops.column_scale(w, _shrink(_ops.column_lengths(w), threshold))
    return rows_like(W, rows)


@torch.no_grad()
def group_lasso_prox_(W: RowsT, threshold: Number) -> RowsT:
    r"""Writes :func:`group_lasso_prox` of W into W.

    .. math:: W_{\cdot j} \leftarrow (1 - t / \|W_{\cdot j}\|_2)_+ \, W_{\cdot j}

    Outside autograd, as an optimiser's step: W may be a parameter that requires grad.

    Args:
        W: as in :func:`group_lasso_prox`; changed in place, any strides.
        threshold: as in :func:`group_lasso_prox`.

    Returns:
        W.

    Raises:
        TypeError, ValueError: as :func:`group_lasso_prox`; W is unchanged then.

    Cost: reads W twice, writes it once, no new memory. Deterministic, and the bits of
    :func:`group_lasso_prox`.

    Example:
        >>> import torch
        >>> from mtlfast import group_lasso_prox_
        >>> group_lasso_prox_(torch.tensor([[3.0, 0.1], [4.0, 0.1]]), threshold=2.5)
        tensor([[1.5000, 0.0000],
                [2.0000, 0.0000]])

    Source: as :func:`group_lasso_prox`.
    """
    threshold = check_number("group_lasso_prox_", "threshold", threshold)
    rows = as_rows("group_lasso_prox_", W)
    check_writable("group_lasso_prox_", "W", W)
    if needs_reference(rows):
        rows.copy_(reference.group_lasso_prox(rows, threshold))
    else:
        _ops.column_scale_(rows, _shrink(_ops.column_lengths(rows), threshold))
    write_rows_(W, rows)
    return W
