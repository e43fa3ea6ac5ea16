"""The distance of the tasks' Gram matrix from a wanted one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from mtlfast import _ops, reference
from mtlfast._checks import as_rows, check_float_tensor, check_reduction, check_same
from mtlfast._compat import (
    needs_reference,
    outside_transforms,
    scaled_,
    wants_double_backward,
    wants_grad,
)
from mtlfast._dtypes import DTYPES, real_dtype
from mtlfast.graphs._read import check_range

if TYPE_CHECKING:
    from mtlfast._typing import Reduction, Rows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LowRank:
    r"""The K×K matrix :math:`\Omega = F F^T`, known by its factor F alone.

    Args:
        factor: F, a dense tensor ``[K, r]``; float64, float32, bfloat16 or float16. It may require
            a gradient: training then learns F.

    Raises:
        TypeError: ``factor`` is no dense floating-point tensor.
        ValueError: ``factor`` has not two dimensions.

    Example:
        >>> import torch
        >>> from mtlfast import LowRank
        >>> LowRank(torch.ones(1000, 3))
        LowRank(num_tasks=1000, rank=3, dtype=torch.float32)
    """

    factor: torch.Tensor

    def __post_init__(self) -> None:
        check_float_tensor("LowRank", "factor", self.factor)
        if self.factor.dim() != 2:
            raise ValueError(
                f"LowRank: factor must have shape [K, r], got {list(self.factor.shape)}"
            )

    def __repr__(self) -> str:
        num_tasks, rank = self.factor.shape
        return f"LowRank(num_tasks={num_tasks}, rank={rank}, dtype={self.factor.dtype})"


def _recorded_grads(ctx, formula, upstream, *constants):
    """The gradients of ``formula`` as a graph of their own, for a second derivative.

    The views keep this graph apart from the caller's: Ω may itself depend on W.
    """
    tensors = [t.view_as(t) for t in ctx.saved_tensors[:2]]
    wanted = [t for t, needed in zip(tensors, ctx.wanted, strict=True) if needed]
    value = formula(tensors[0], *constants, tensors[1])
    grads = iter(torch.autograd.grad(value, wanted, upstream, create_graph=True))
    return [next(grads) if needed else None for needed in ctx.wanted]


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, omega):
        ctx.wanted = ctx.needs_input_grad
        value, grad = _ops.gram_dense(w, omega, ctx.wanted[0])
        ctx.save_for_backward(w, omega, grad)
        return value

    @staticmethod
    def backward(ctx, upstream):
        if wants_double_backward():
            return tuple(_recorded_grads(ctx, reference.gram_reg, upstream))
        w, omega, grad = ctx.saved_tensors
        return (
            (upstream * grad).to(w.dtype) if ctx.wanted[0] else None,
            _ops.gram_dense_omega_grad(w, omega, upstream) if ctx.wanted[1] else None,
        )


class _Edges(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, row, col, values):
        ctx.wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[3])
        value, *ctx.grads = _ops.gram_edges(w, row, col, values, *ctx.wanted)
        ctx.save_for_backward(w, values, row, col)
        return value

    @staticmethod
    def backward(ctx, upstream):
        w, values, row, col = ctx.saved_tensors
        if wants_double_backward():
            grads = _recorded_grads(ctx, reference.gram_reg_edges, upstream, row, col)
            return grads[0], None, None, grads[1]
        grads, ctx.grads = ctx.grads, None
        if grads is None:  # kept for one backward, which gave them away
            grads = _ops.gram_edges(w, row, col, values, *ctx.wanted)[1:]
        return (
            scaled_(grads[0], upstream).to(w.dtype) if ctx.wanted[0] else None,
            None,
            None,
            scaled_(grads[1], upstream).to(values.dtype) if ctx.wanted[1] else None,
        )


class _Factor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, factor):
        ctx.wanted = ctx.needs_input_grad
        value, *grads = _ops.gram_factor(w, factor, *ctx.wanted)
        ctx.save_for_backward(w, factor, *grads)
        return value

    @staticmethod
    def backward(ctx, upstream):
        if wants_double_backward():
            return tuple(_recorded_grads(ctx, reference.gram_reg_factor, upstream))
        w, _, *grads = ctx.saved_tensors
        return tuple(
            (upstream * grad).to(w.dtype) if wanted else None
            for grad, wanted in zip(grads, ctx.wanted, strict=True)
        )


def _coo_edges(omega, num_tasks):
    if omega.sparse_dim() != 2:
        raise ValueError(
            "gram_reg: omega must be sparse in both dimensions, "
            f"got sparse_dim={omega.sparse_dim()}"
        )
    for name, index in zip(("row", "column"), omega._indices(), strict=True):
        check_range("gram_reg", f"omega's {name} indices", index, num_tasks)
    omega = omega.coalesce()
    return *omega.indices(), omega.values()


def _csr_edges(omega, num_tasks):
    with outside_transforms():
        start, col, values = omega.crow_indices(), omega.col_indices(), omega.values()
    start, col = start.long(), col.long()
    if start.shape != (num_tasks + 1,) or col.dim() != 1 or values.shape != col.shape:
        raise ValueError(
            f"gram_reg: omega must hold K+1={num_tasks + 1} row pointers and one value for each "
            f"column index, got shapes {list(start.shape)}, {list(values.shape)} and "
            f"{list(col.shape)}"
        )
    counts = start.diff()
    if int(start[0]) or int(start[-1]) != col.shape[0] or (counts < 0).any():
        raise ValueError(
            "gram_reg: omega's row pointers must rise from 0 to the number of stored entries "
            f"{col.shape[0]}, got first {int(start[0])}, last {int(start[-1])}, "
            f"smallest step {int(counts.min()) if num_tasks else 0}"
        )
    check_range("gram_reg", "omega's column indices", col, num_tasks)
    row = torch.arange(num_tasks, device=col.device).repeat_interleave(counts)
    if not (col.diff() > 0).logical_or(row.diff() > 0).all():
        raise ValueError(
            "gram_reg: omega's column indices must rise within each row (as torch requires of "
            "CSR), got a row out of order or with a repeated column; a COO tensor may have either"
        )
    return row, col, values


def _in_one_type(w, name, numbers):
    """W and numbers of Ω, both in W's dtype, or of different ones in W's arithmetic type.

    As weights of a graph are taken: integers, booleans and any float. Gradients keep their dtypes.
    """
    is_number = numbers.dtype in DTYPES or not (
        numbers.dtype.is_floating_point or numbers.dtype.is_complex
    )
    if not is_number:
        raise TypeError(f"gram_reg: {name} must hold real numbers, got {numbers.dtype}")
    if numbers.dtype == w.dtype:
        return w, numbers
    real = real_dtype(w.dtype)
    return w.to(real), numbers.to(real)


def _terms(w, omega):
    """Ω checked and taken apart: (Function, op, differentiable formula), their arguments."""
    num_tasks = w.shape[0]
    if isinstance(omega, LowRank):
        factor = omega.factor
        check_same("gram_reg", "omega.factor", factor, w, dtype=False)
        if factor.shape[0] != num_tasks:
            raise ValueError(
                f"gram_reg: omega.factor must have shape [K={num_tasks}, r], "
                f"got {list(factor.shape)}"
            )
        args = _in_one_type(w, "omega.factor", factor)
        return (_Factor, _ops.gram_factor, reference.gram_reg_factor), args
    layouts = (torch.strided, torch.sparse_coo, torch.sparse_csr)
    if not isinstance(omega, torch.Tensor) or omega.layout not in layouts:
        got = omega.layout if isinstance(omega, torch.Tensor) else type(omega).__name__
        raise TypeError(
            "gram_reg: omega must be a dense tensor, a sparse COO or CSR tensor, or a LowRank, "
            f"got {got}"
        )
    check_same("gram_reg", "omega", omega, w, dtype=False)
    if omega.shape != (num_tasks, num_tasks):
        raise ValueError(
            f"gram_reg: omega must have shape [K={num_tasks}, K={num_tasks}], "
            f"got {list(omega.shape)}"
        )
    if omega.layout == torch.strided:
        args = _in_one_type(w, "omega", omega)
        return (_Dense, _ops.gram_dense, reference.gram_reg), args
    if omega.layout == torch.sparse_coo and omega.dtype not in DTYPES:
        # before entries that are stored twice are summed: of booleans that would be an "or"
        _, omega = _in_one_type(w, "omega", omega)
    read = _coo_edges if omega.layout == torch.sparse_coo else _csr_edges
    row, col, values = read(omega, num_tasks)
    w, values = _in_one_type(w, "omega", values)
    return (_Edges, _ops.gram_edges, reference.gram_reg_edges), (w, row, col, values)


def gram_reg(
    W: Rows, omega: torch.Tensor | LowRank, *, reduction: Reduction = "sum"
) -> torch.Tensor:
    r"""Squared distance of the tasks' Gram matrix from a wanted one, without a K×K temporary.

    .. math:: R(W) = \|W W^T - \Omega\|_F^2, \qquad
              \partial R / \partial W = 4 \, (W W^T - \tfrac12(\Omega + \Omega^T)) \, W, \qquad
              \partial R / \partial \Omega = -2 \, (W W^T - \Omega)

    Texts that keep tasks in columns write :math:`W^T W`. All K² entries count, the diagonal too;
    an entry that a sparse Ω does not store is a wanted 0. ``reduction="mean"`` divides by K².

    Args:
        W: tensor ``[K, *]``, or K equally shaped tensors: a list, a tuple, an ``nn.ParameterList``
            or the values of a dict; float64, float32,
            bfloat16 or float16; any device with float64, any strides.
        omega: dense ``[K, K]``, symmetric or not; a sparse COO (entries stored twice are summed)
            or CSR tensor ``[K, K]``; or :class:`LowRank`. It has W's device. Integers, booleans and
            a floating-point type other than W's are compared in W's arithmetic type, float64 for
            float64 W, else float32. It gets a gradient in its own form and dtype if it requires
            one: at the stored entries of a sparse tensor, in the factor of a LowRank.
        reduction: ``"sum"`` or ``"mean"``.

    Returns:
        A scalar: float64 for float64 input, else float32. Gradients have W's dtype. NaN and Inf
        give NaN or Inf. Sums are taken in float64. A dense Ω is compared entry by entry wherever an
        expanded square would lose digits, so the result is exact near W Wᵀ = Ω; so is LowRank, by
        a QR factorisation of [W F] there. With a sparse Ω,
        stored entries are compared and the rest is a difference of sums: absolute error about
        1e-15·‖W Wᵀ‖².

    Raises:
        TypeError: W or omega is of no accepted type, or the list mixes dtypes.
        ValueError: shapes or devices do not fit, a sparse index is out of range, a CSR tensor is
            malformed, the list is empty or mixes shapes, or unknown reduction.

    Cost: dense O(K²·d), reading Ω once for value and gradient (twice where expanding the square
    turns out to lose digits); sparse O(K·d² + E·d) for E stored entries, checked anew in each call;
    LowRank O(K·(d+r)²). Memory beyond the arguments and gradients: dense up to eight gradients and
    three copies of W in float64, sparse a copy of W and O(E + d²),
    LowRank [W F] twice.
    A second derivative, a torch.func transform or forward mode takes the plain formula, which for
    a dense Ω does make K×K temporaries. Sparse and LowRank forms synchronise an accelerator.
    Deterministic: on the CPU, value and gradients for a sparse Ω, value and gradient in W for a
    dense one, have the same bits for any number of threads and any CPU; the gradient in a dense Ω
    and LowRank use torch's matrix products, whose last bits may change with that number.

    Example:
        >>> import torch
        >>> from mtlfast import LowRank, gram_reg
        >>> W = torch.tensor([[1.0, 0.0], [1.0, 1.0]], requires_grad=True)
        >>> loss = gram_reg(W, torch.eye(2))   # W Wᵀ = [[1, 1], [1, 2]]
        >>> loss.backward()
        >>> loss.item(), W.grad.tolist()
        (3.0, [[4.0, 4.0], [8.0, 4.0]])
        >>> gram_reg(W, LowRank(torch.ones(2, 1))).item()
        1.0

    Source: D. Kuang, C. Ding and H. Park, Symmetric nonnegative matrix factorization for graph
    clustering, SDM 2012.
    """
    check_reduction("gram_reg", reduction)
    w = as_rows("gram_reg", W)
    (function, op, formula), args = _terms(w, omega)
    if needs_reference(*args):
        value = formula(*args)
    elif wants_grad(*args):
        value = function.apply(*args)
    else:
        value = op(*args, *[False] * (1 if function is _Dense else 2))[0]
    return value / max(w.shape[0] ** 2, 1) if reduction == "mean" else value
