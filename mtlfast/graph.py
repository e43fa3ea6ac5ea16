"""The graph-weighted distance of tasks, for every form of graph, and its prox."""

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
    is_several,
    rows_like,
    write_rows_,
)
from mtlfast._compat import (
    copy_each_,
    for_each,
    needs_reference,
    scaled_,
    wants_double_backward,
    wants_grad,
)
from mtlfast._dtypes import FUSED
from mtlfast.graphs._forms import FORMS, one
from mtlfast.graphs._prepare import prepare, prepare_task_graph
from mtlfast.graphs._read import check_count

if TYPE_CHECKING:
    from typing import Any, SupportsIndex

    from mtlfast._typing import FormT, Graph, Number, Reduction, Rows, RowsT, Several


class _FixedGraphReg(torch.autograd.Function):
    """The distance with fixed weights, for the form named by ``kind``.

    Value and gradient come from one pass over the edges. The gradient is kept for one backward,
    which scales it in place and gives it away; a further backward computes it again from W.
    """

    @staticmethod
    def forward(ctx, w, kind, *tensors):
        fused = w.dtype in FUSED
        value, grad = FORMS[kind](tensors).value(w, one(w) if fused else None)
        ctx.kind, ctx.grad = kind, grad if fused else None
        ctx.save_for_backward(w, *tensors)
        return value

    @staticmethod
    def backward(ctx, upstream):
        w, *tensors = ctx.saved_tensors
        form = FORMS[ctx.kind](tensors)
        if wants_double_backward():
            grad = (upstream * form.reference_grad(w)).to(w.dtype)
        else:
            grad = _take_grad(ctx, upstream, w, form)
        return grad, *[None] * (len(tensors) + 1)


class _LearnableGraphReg(torch.autograd.Function):
    """The same with a gradient in the weights, which are the form's first tensor."""

    @staticmethod
    def forward(ctx, w, kind, *tensors):
        fused = w.dtype in FUSED and ctx.needs_input_grad[0]
        value, grad = FORMS[kind](tensors).fixed(w).value(w, one(w) if fused else None)
        ctx.kind, ctx.grad = kind, grad if fused else None
        ctx.save_for_backward(w, *tensors)
        return value

    @staticmethod
    def backward(ctx, upstream):
        w, *tensors = ctx.saved_tensors
        form, grad_w, grad_weight = FORMS[ctx.kind](tensors), None, None
        double = wants_double_backward()
        if ctx.needs_input_grad[0]:
            if double:
                grad_w = (upstream * form.reference_grad(w)).to(w.dtype)
            else:
                grad_w = _take_grad(ctx, upstream, w, form.fixed(w))
        if ctx.needs_input_grad[2]:
            distances = form.reference_distances(w) if double else form.distances(w)
            grad_weight = (upstream * distances).to(tensors[0].dtype)
        return grad_w, None, grad_weight, *[None] * (len(tensors) - 1)


def _take_grad(ctx, upstream, w, form):
    grad, ctx.grad = ctx.grad, None
    if grad is None:
        return for_each(upstream, lambda w, scale: form.value(w, scale)[1], w)
    return scaled_(grad, upstream)


def graph_reg(W: Rows, graph: Graph, *, reduction: Reduction = "sum") -> torch.Tensor:
    r"""Graph-weighted sum of squared distances between tasks, in O(E·d).

    .. math:: R(W) = \sum_{i,j} A_{ij} \|w_i - w_j\|^2, \qquad
              \frac{\partial R}{\partial w_i} = 2 \sum_j (A_{ij} + A_{ji}) (w_i - w_j), \qquad
              \frac{\partial R}{\partial A_{ij}} = \|w_i - w_j\|^2

    The sum runs over ordered pairs, so an undirected edge stored in both directions counts twice
    and a directed one once; with A = ones − eye it is :func:`mtlfast.pairwise_reg`. Distances are
    taken of differences, never expanded: right also for tight clusters. The diagonal counts
    nothing, duplicates of an edge add up.

    Args:
        W: tensor ``[K, *]``, or K equally shaped tensors: a list, a tuple, an ``nn.ParameterList``
            or the values of a dict; float64, float32,
            bfloat16 or float16.
        graph: a :class:`mtlfast.TaskGraph`; a dense tensor or NumPy array A ``[K, K]``; a torch
            sparse COO or CSR tensor; a scipy sparse matrix; or ``(edge_index [2, E], edge_weight)``
            of tensors, arrays or lists, the weight ``[E]``, ``[E, 1]``, or None for all 1. A
            tensor is prepared at the first call and remembered while it lives and is not modified
            (writes through ``.data`` or NumPy go unnoticed); its weights must be finite. What is no
            tensor is prepared at every call. Weights that require grad are read at every call,
            propagate NaN and Inf, and get a gradient.
        reduction: ``"sum"``, or ``"mean"`` to divide by the number of stored off-diagonal entries
            (the non-zero ones of a dense A; n(n − 1) for each group of n).

    Returns:
        A scalar: float64 for float64 W, else float32. Gradients have their tensor's dtype. NaN and
        Inf in W propagate along edges; a zero weight is no edge. A ≥ 0 gives a value ≥ 0.

    Raises:
        TypeError: W or graph is of no accepted type or dtype.
        ValueError: shapes that do not fit, an index outside [0, K), fixed weights that are not
            finite, tensors on different devices, unknown reduction.

    Cost: one pass over the edges gives value and gradient; no temporary of size E·d. A dense A with
    more than a quarter of its entries non-zero costs O(K²·d), ``TaskGraph.groups`` O(K·d).
    Deterministic: the same bits for any number of threads and any CPU.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph, graph_reg
        >>> W = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
        >>> loss = graph_reg(W, TaskGraph.from_edges([[0, 1], [1, 2]], [1.0, 0.5]))
        >>> loss.backward()   # 1·1² + 0.5·2²
        >>> loss.item(), W.grad.flatten().tolist()
        (3.0, [-2.0, 0.0, 2.0])

    Source: T. Evgeniou, C. Micchelli, M. Pontil, Learning multiple tasks with kernel methods,
    JMLR 2005, section 3.1.3.
    """
    check_reduction("graph_reg", reduction)
    w = as_rows("graph_reg", W)
    form = prepare("graph_reg", graph, w)
    if needs_reference(w, *form.tensors[:1]):
        value = form.reference_value(w)
    elif form.is_learnable:
        value = _LearnableGraphReg.apply(w, form.kind, *form.tensors)
    elif wants_grad(w):
        value = _FixedGraphReg.apply(w, form.kind, *form.tensors)
    else:
        value = form.value(w)[0]
    return value if reduction == "sum" else value / form.count


@torch.no_grad()
def graph_add_grad_(
    grad: Rows, W: Rows, graph: Graph, *, alpha: Number = 1.0, reduction: Reduction = "sum"
) -> torch.Tensor:
    r"""Adds ``alpha`` times the gradient of :func:`graph_reg` in W to ``grad``, in place.

    .. math:: grad_i \mathrel{+}= alpha \cdot 2 \sum_j (A_{ij} + A_{ji}) (w_i - w_j)

    For training steps that keep their gradient buffers: no autograd graph, with stored edges no new
    memory, and a strength costs nothing. Equivalent to ``(alpha * graph_reg(W, graph)).backward()``
    with ``W.grad = grad``; weights of the graph get no gradient.

    Args:
        grad: what is added to, in the form, shapes, dtype and device of W; any strides.
        W, graph, reduction: as in :func:`graph_reg`; W may be a parameter that requires grad.
        alpha: a finite number, the strength; may be negative.

    Returns:
        ``graph_reg(W, graph, reduction=reduction)``, without ``alpha``.

    Raises:
        TypeError, ValueError: as :func:`graph_reg`; ``grad`` is not like W or shares its memory;
            ``alpha`` is no finite number. ``grad`` is unchanged then.

    Cost: one pass over the edges and over ``grad``; for a dense A with more than a quarter of its
    entries non-zero and for ``TaskGraph.groups`` also a temporary of W's size. Deterministic: the
    same bits for any number of threads and any CPU.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph, graph_add_grad_
        >>> W, grad = torch.tensor([[0.0], [1.0], [3.0]]), torch.zeros(3, 1)
        >>> graph_add_grad_(grad, W, TaskGraph.from_edges([[0, 1], [1, 2]], [1.0, 0.5]), alpha=10)
        tensor(3.)
        >>> grad.flatten().tolist()
        [-20.0, 0.0, 20.0]

    Source: as :func:`graph_reg`.
    """
    check_reduction("graph_add_grad_", reduction)
    w = as_rows("graph_add_grad_", W)
    check_grad("graph_add_grad_", grad, W)
    alpha = check_number("graph_add_grad_", "alpha", alpha, signed=True)
    form = prepare("graph_add_grad_", graph, w)
    factor = alpha if reduction == "sum" else alpha / float(form.count)
    rows = as_rows("graph_add_grad_", grad)
    fixed = form.fixed(w)
    if needs_reference(w, rows):
        value = form.reference_value(w)
        rows.add_((factor * fixed.reference_grad(w)).to(rows.dtype))
    else:
        value = fixed.add_(rows, w, factor)
    write_rows_(grad, rows)
    return value if reduction == "sum" else value / form.count


class _GraphProx(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, graph, step, tol, max_iter):
        ctx.rest = (graph, step, tol, max_iter)
        return _prox(w, *ctx.rest)

    @staticmethod
    def backward(ctx, upstream):  # a symmetric linear map: its own adjoint
        if wants_double_backward() and needs_reference(upstream):  # inside a vmap
            grad = _reference_prox(upstream, *ctx.rest)
        else:
            grad = (_GraphProx.apply if wants_double_backward() else _prox)(upstream, *ctx.rest)
        return grad, None, None, None, None


def _prox(w, graph, step, tol, max_iter):
    if graph.is_groups:
        return _ops.group_prox(w, graph.group_ptr, graph.member, step)
    return _ops.graph_prox(w, *graph.by_pieces(), step, tol, max_iter)


@overload
def graph_prox(
    W: FormT, graph: Graph, step: Number, *, tol: Number | None = ..., max_iter: SupportsIndex = ...
) -> FormT: ...
@overload
def graph_prox(
    W: Several,
    graph: Graph,
    step: Number,
    *,
    tol: Number | None = ...,
    max_iter: SupportsIndex = ...,
) -> list[torch.Tensor]: ...
def graph_prox(
    W: Rows,
    graph: Graph,
    step: Number,
    *,
    tol: Number | None = None,
    max_iter: SupportsIndex = 1000,
) -> Rows:
    r"""Proximal step of :func:`graph_reg` (``reduction="sum"``).

    .. math:: \arg\min_Z \tfrac12 \|Z - W\|_F^2 + step \sum_{i,j} A_{ij} \|z_i - z_j\|^2
              = (I + 4 \cdot step \cdot L)^{-1} W

    with L the Laplacian of (A + Aᵀ)/2. Each connected piece is a system of its own, solved in
    float64 for the deviation from its mean. Pieces of up to 64 tasks, and others where that costs
    no more than some iterations, are eliminated without subtraction: right to rounding for any step
    and any weights ≥ 0. The rest go by conjugate gradients preconditioned by the diagonal, many
    columns at once. Every column ends with ``‖w − (I + 4·step·L) z‖ ≤ tol·‖w‖``; since the matrix
    is ≥ I for A ≥ 0, that bounds the error of z as well, before it is rounded once to W's dtype.
    Where rounding forbids such a residual, the error itself is solved for, and is ≤ tol·‖w‖. What
    conjugate gradients do not reach, such as long chains and weights of very different size, is
    eliminated after all unless that takes too much. ``TaskGraph.groups`` has a closed form.

    Args:
        W: as in :func:`graph_reg`.
        graph: as in :func:`graph_reg`. The result is not differentiated in its weights: those that
            require grad are refused, except under ``torch.no_grad()``.
        step: a finite number ≥ 0 (learning rate times strength).
        tol: relative residual, > 0; None means 1e-10 for float64 and 1e-7 for the other types.
        max_iter: most iterations of conjugate gradients, ≥ 1.

    Returns:
        The minimiser in the form and dtype of W; differentiable in W. A column of W that holds NaN
        or Inf comes back as NaN when the graph has edges.

    Raises:
        TypeError, ValueError: as :func:`graph_reg`; a ``step``, ``tol`` or ``max_iter`` out of
            range; weights that require grad; negative weights that make the matrix indefinite.
        RuntimeError: ``tol`` was not reached in ``max_iter`` iterations, in a piece that is too
            large to be eliminated: some thousand tasks remain of it when those with few neighbours
            are gone. In the cases known, its weights differ by many orders of magnitude.

    Cost: the pieces are found once a graph. By iterations: one pass over the edges each, five
    arrays ``[K, 32]`` of float64 or smaller; on long graphs their number grows with the square root
    of step times the weights, on hubs and random graphs it stays about the same. By elimination:
    n³/6 operations for a piece of n tasks, which are few for chains and trees; up to some seconds
    and 128 MiB where iterations have failed. On CUDA it waits for the device every few iterations,
    and what they do not reach is eliminated by the CPU.
    Deterministic: the same bits for any number of threads and any CPU. On the CPU, Ctrl-C ends a
    call within 0.2 s; what it was given is as it was.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph, graph_prox
        >>> W = torch.tensor([[0.0], [3.0]])
        >>> graph_prox(W, TaskGraph.chain(2), step=0.25)   # (1 + 4·¼)·z₀ − z₁ = 0, …
        tensor([[1.],
                [2.]])

    Source: Y. Saad, Iterative Methods for Sparse Linear Systems, 2003, algorithm 9.1; elimination
    by W. Grassmann, M. Taksar and D. Heyman, Operations Research 1985.
    """
    step = check_number("graph_prox", "step", step)
    max_iter = check_count("graph_prox", "max_iter", max_iter, 1)
    w = as_rows("graph_prox", W)
    if tol is None:
        tol = 1e-10 if w.dtype == torch.float64 else 1e-7
    tol = check_number("graph_prox", "tol", tol, positive=True)
    graph = prepare_task_graph("graph_prox", graph, w, detach=not torch.is_grad_enabled())
    if needs_reference(w):
        rows = _reference_prox(w, graph, step, tol, max_iter)
    elif wants_grad(w):
        rows = _GraphProx.apply(w, graph, step, tol, max_iter)
    else:
        rows = _prox(w, graph, step, tol, max_iter)
    return rows_like(W, rows)


def _reference_prox(w, graph, step, tol, max_iter):
    if graph.is_groups:
        return reference.group_prox(w, graph.group_ptr, graph.member, step)
    # the inverse is a constant; its columns are right to tol each, their sum is right to tol then
    unit = torch.eye(graph.num_tasks, dtype=torch.float64, device=graph.device)
    tol = tol / max(graph.num_tasks, 1) ** 0.5
    inverse = _ops.graph_prox(unit, *graph.by_pieces(), step, tol, max_iter)
    return reference.graph_prox_dense(w, inverse)


@torch.no_grad()
def graph_prox_(
    W: RowsT,
    graph: Graph,
    step: Number,
    *,
    tol: Number | None = None,
    max_iter: SupportsIndex = 1000,
) -> RowsT:
    r"""Writes :func:`graph_prox` of W into W.

    .. math:: W \leftarrow (I + 4 \cdot step \cdot L)^{-1} W

    Outside autograd, as an optimiser's step: W may be a parameter that requires grad, and weights
    of the graph are taken as constants.

    Args:
        W: as in :func:`graph_prox`; changed in place, any strides.
        graph, step, tol, max_iter: as in :func:`graph_prox`.

    Returns:
        W.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`graph_prox`; W is unchanged then.

    Cost: that of :func:`graph_prox`, whose result is kept until it is known right, and a copy.
    Deterministic: the bits of :func:`graph_prox`. After Ctrl-C, W is as it was, or the prox.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph, graph_prox_
        >>> W = torch.nn.Parameter(torch.tensor([[0.0], [3.0]]))
        >>> graph_prox_(W, TaskGraph.chain(2), step=0.25) is W, W.tolist()
        (True, [[1.0], [2.0]])

    Source: as :func:`graph_prox`.
    """
    moved: Any = graph_prox(W, graph, step, tol=tol, max_iter=max_iter)  # type: ignore[type-var]
    check_writable("graph_prox_", "W", W)
    copy_each_(*((W, moved) if is_several(W) else ([W], [moved])))
    return W
