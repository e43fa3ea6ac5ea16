"""The total variation of tasks over a graph, the penalty of the network lasso, and its prox."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from mtlfast import _ops, reference
from mtlfast._checks import (
    as_rows,
    check_grad,
    check_number,
    check_reduction,
    rows_like,
    write_rows_,
)
from mtlfast._compat import (
    for_each,
    needs_reference,
    scaled_,
    wants_double_backward,
    wants_grad,
)
from mtlfast._dtypes import FUSED, real_dtype
from mtlfast.graphs._dual import EdgeDual
from mtlfast.graphs._prepare import prepare_task_graph
from mtlfast.graphs._read import check_count
from mtlfast.graphs._tied import TiedTasks

if TYPE_CHECKING:
    from typing import SupportsIndex

    from mtlfast._typing import FormT, Graph, Number, Reduction, Rows, Several
    from mtlfast.graphs import TaskGraph

_LOOKS = 10  # iterations between two looks at the duality gap


def _prepare(function: str, graph: Graph, w: torch.Tensor) -> TaskGraph:
    """A TaskGraph of ``w``'s tasks."""
    return prepare_task_graph(function, graph, w, detach=not torch.is_grad_enabled())


def _rows(graph, w):
    """row_ptr, col, s and order as kernels take them."""
    return graph.written_out().rows_as(real_dtype(w.dtype))


def _reference_edges(graph, w):
    if graph.is_groups and torch.compiler.is_compiling():  # no graph can be built there
        src, dst = graph._group_pairs()
        return src, dst, torch.ones_like(src, dtype=w.dtype)
    return reference.ordered_edges(*_rows(graph, w))


class _GraphTotalVariation(torch.autograd.Function):
    """Value and gradient come from one pass over the edges; the gradient serves one backward."""

    @staticmethod
    def forward(ctx, w, *csr):
        fused = w.dtype in FUSED
        one = torch.ones((), dtype=w.dtype, device=w.device) if fused else None
        value, grad = _ops.graph_total_variation_value(w, *csr, one)
        ctx.grad = grad if fused else None
        ctx.save_for_backward(w, *csr)
        return value

    @staticmethod
    def backward(ctx, upstream):
        w, *csr = ctx.saved_tensors
        none = (None,) * 4
        if wants_double_backward():
            grad = reference.graph_total_variation_grad(w, *reference.ordered_edges(*csr))
            return (upstream * grad).to(w.dtype), *none
        grad, ctx.grad = ctx.grad, None
        if grad is not None:
            return scaled_(grad, upstream), *none

        def gradient(w, upstream):
            return _ops.graph_total_variation_value(w, *csr, upstream)[1]

        return for_each(upstream, gradient, w), *none


def graph_total_variation(W: Rows, graph: Graph, *, reduction: Reduction = "sum") -> torch.Tensor:
    r"""Total variation over a graph: the weighted sum of distances between linked tasks.

    .. math:: R(W) = \sum_{i,j} A_{ij} \|w_i - w_j\|_2, \qquad
              \frac{\partial R}{\partial w_i}
              = \sum_j (A_{ij} + A_{ji}) \frac{w_i - w_j}{\|w_i - w_j\|_2}

    Distances, not their squares as in :func:`mtlfast.graph_reg`: at the optimum many linked tasks
    are equal, and few edges carry all that differs. The penalty of the network lasso. The sum runs
    over ordered pairs, so an undirected edge stored in both directions counts twice. Where two
    rows coincide their edge adds 0 to the gradient, the subgradient of least norm.

    Args:
        W: tensor ``[K, *]``, or K equally shaped tensors: a list, a tuple, an ``nn.ParameterList``
            or the values of a dict; float64, float32,
            bfloat16 or float16.
        graph: as in :func:`mtlfast.graph_reg`. The value is not differentiated in its weights:
            those that require grad are refused, except under ``torch.no_grad()``.
            ``TaskGraph.groups`` is written out as its n(n − 1) edges a group.
        reduction: ``"sum"``, or ``"mean"`` to divide by the number of stored off-diagonal entries.

    Returns:
        A scalar: float64 for float64 W, else float32. Gradients have W's dtype. NaN and Inf in W
        propagate along edges. Distances of any size have their direction: the value scales with
        W as far as its type goes, the gradient does not depend on W's scale. On CUDA one scale
        serves all of W: rows nearer to each other than the largest entry by a factor of 10¹⁹ in
        float32, 10¹⁵⁴ in float64, count as equal.

    Raises:
        TypeError, ValueError: as :func:`mtlfast.graph_reg`; weights that require grad.

    Cost: one pass over the edges for value and gradient together on the CPU, without a temporary of
    size E; two passes and some numbers an edge on CUDA. Deterministic: on the CPU the same bits for
    any number of threads and any CPU.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph, graph_total_variation
        >>> W = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]], requires_grad=True)
        >>> loss = graph_total_variation(W, TaskGraph.from_edges([[0, 1], [1, 2]], [2.0, 1.0]))
        >>> loss.backward()   # 2·5 + 1·0
        >>> loss.item(), W.grad[0].tolist()
        (10.0, [-1.2000000476837158, -1.600000023841858])

    Source: D. Hallac, J. Leskovec and S. Boyd, Network Lasso: clustering and optimization in large
    graphs, KDD 2015.
    """
    check_reduction("graph_total_variation", reduction)
    w = as_rows("graph_total_variation", W)
    graph = _prepare("graph_total_variation", graph, w)
    if needs_reference(w) or (graph.is_groups and torch.compiler.is_compiling()):
        value = reference.graph_total_variation(w, *_reference_edges(graph, w))
    elif wants_grad(w):
        value = _GraphTotalVariation.apply(w, *_rows(graph, w))
    else:
        value = _ops.graph_total_variation_value(w, *_rows(graph, w), None)[0]
    return value if reduction == "sum" else value / max(graph.num_edges, 1)


@torch.no_grad()
def graph_total_variation_add_grad_(
    grad: Rows, W: Rows, graph: Graph, *, alpha: Number = 1.0, reduction: Reduction = "sum"
) -> torch.Tensor:
    r"""Adds ``alpha`` times the gradient of :func:`graph_total_variation` to ``grad``, in place.

    .. math:: grad_i \mathrel{+}= alpha \sum_j (A_{ij} + A_{ji}) (w_i - w_j) / \|w_i - w_j\|_2

    Args:
        grad: what is added to, in the form, shapes, dtype and device of W; any strides.
        W, graph, reduction: as in :func:`graph_total_variation`; W may require grad.
        alpha: a finite number, the strength; may be negative.

    Returns:
        ``graph_total_variation(W, graph, reduction=reduction)``, without ``alpha``.

    Raises:
        TypeError, ValueError: as :func:`graph_total_variation`; ``grad`` is not like W or shares
            its memory; ``alpha`` is no finite number. ``grad`` is unchanged then.

    Cost: one pass over the edges and over ``grad``. Deterministic.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph, graph_total_variation_add_grad_
        >>> W, grad = torch.tensor([[0.0], [3.0]]), torch.zeros(2, 1)
        >>> graph_total_variation_add_grad_(grad, W, TaskGraph.chain(2), alpha=10)
        tensor(6.)
        >>> grad.tolist()
        [[-20.0], [20.0]]

    Source: as :func:`graph_total_variation`.
    """
    function = "graph_total_variation_add_grad_"
    check_reduction(function, reduction)
    w = as_rows(function, W)
    check_grad(function, grad, W)
    alpha = check_number(function, "alpha", alpha, signed=True)
    graph = _prepare(function, graph, w)
    count = 1 if reduction == "sum" else max(graph.num_edges, 1)
    rows = as_rows(function, grad)
    if needs_reference(w, rows):
        edges = _reference_edges(graph, w)
        value = reference.graph_total_variation(w, *edges)
        part = reference.graph_total_variation_grad(w, *edges)
        rows.add_((alpha / count * part).to(rows.dtype))
    else:
        value = _ops.graph_total_variation_add_(rows, w, *_rows(graph, w), alpha / count)
    write_rows_(grad, rows)
    return value / count


@overload
def graph_total_variation_prox(
    W: FormT, graph: Graph, step: Number, *, tol: Number = ..., max_iter: SupportsIndex = ...
) -> FormT: ...
@overload
def graph_total_variation_prox(
    W: Several, graph: Graph, step: Number, *, tol: Number = ..., max_iter: SupportsIndex = ...
) -> list[torch.Tensor]: ...
def graph_total_variation_prox(
    W: Rows, graph: Graph, step: Number, *, tol: Number = 1e-6, max_iter: SupportsIndex = 10_000
) -> Rows:
    r"""Proximal step of :func:`graph_total_variation` (``reduction="sum"``).

    .. math:: \arg\min_Z P(Z), \qquad
              P(Z) = \tfrac12 \|Z - W\|_F^2 + step \sum_{i,j} A_{ij} \|z_i - z_j\|_2

    Solved in its dual, one vector for each pair of linked tasks in a ball of radius
    step·(A_ij + A_ji), by accelerated projected gradients with restart, in float64. It ends with
    a duality gap ≤ ``tol·P(Z)``, which bounds the error: ½‖Z − Z*‖² ≤ gap. A gap that rounding can
    make is as good. Tasks that an edge joins which is stronger than all that could pull them apart
    are one unknown, their mean, so steps and weights may be of any size.

    Args:
        W: as in :func:`graph_total_variation`.
        graph: as in :func:`graph_total_variation`, with A_ij + A_ji ≥ 0.
        step: a finite number ≥ 0 (learning rate times strength).
        tol: relative duality gap, > 0.
        max_iter: most iterations, ≥ 1.

    Returns:
        The minimiser in the form and dtype of W. It is not differentiated.

    Raises:
        TypeError, ValueError: as :func:`graph_total_variation`; a ``step``, ``tol`` or
            ``max_iter`` out of range; a negative weight; a W that is not finite.
        NotImplementedError: W requires grad, or is inside a transform of ``torch.func``.
        RuntimeError: ``tol`` was not reached in ``max_iter`` iterations.

    Cost: one pass over the edges an iteration, two arrays ``[E, d]`` of float64. The number of
    iterations grows with the length of the graph's paths, and with the step until tasks are tied.
    Deterministic: on the CPU the same bits for any number of threads. Ctrl-C ends a call within
    0.2 s.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph, graph_total_variation_prox
        >>> W = torch.tensor([[0.0], [9.0], [10.0]])
        >>> graph_total_variation_prox(W, TaskGraph.chain(3), step=1.0, tol=1e-12)
        tensor([[2.0000],
                [8.5000],
                [8.5000]])

    Source: A. Beck and M. Teboulle, Fast gradient-based algorithms for constrained total variation
    image denoising and deblurring problems, IEEE Transactions on Image Processing 2009; restart by
    B. O'Donoghue and E. Candès, Adaptive restart for accelerated gradient schemes, 2015.
    """
    function = "graph_total_variation_prox"
    step = check_number(function, "step", step)
    tol = check_number(function, "tol", tol, positive=True)
    max_iter = check_count(function, "max_iter", max_iter, 1)
    w = as_rows(function, W)
    graph = _prepare(function, graph, w)
    if wants_grad(w) or needs_reference(w):
        raise NotImplementedError(
            f"{function}: W must be a plain tensor that needs no gradient, got one to differentiate"
        )
    dual = EdgeDual(graph, w.shape[1], strength=step, function=function)
    reference.require_finite(function, w)
    if not (w.numel() and dual.num_edges and dual.radius.any()):
        return rows_like(W, w.clone())
    tied = TiedTasks(dual, graph.written_out(), w.double().contiguous())
    return rows_like(W, tied.restored(_solve(tied, tol, max_iter)).to(w.dtype))


def _solve(tied, tol, max_iter):
    """Z = W − DᵀU/mass at a U with a gap, Σ radius·‖D Z‖ − ⟨U, D Z⟩, that is small enough."""
    dual, w, mass = tied.dual, tied.rows, tied.mass
    if not (dual.num_edges and dual.radius.any()):
        return w
    root = None if mass is None else mass.sqrt()

    def height_of(z):  # what the dual has not yet gained
        return float(torch.linalg.vector_norm(z if mass is None else root * z))

    u, former = dual.zeros(), dual.zeros()
    z, pulled = w, torch.zeros_like(w)  # w − Dᵀu/mass, and Dᵀu
    start, t, momentum = w, 1.0, 0.0  # start: z at the point that is stepped from
    height = height_of(w)
    for iteration in range(max_iter + 1):
        if iteration % _LOOKS == 0 or iteration == max_iter:
            variation = dual.value(z)
            gap = variation - float((z * pulled).sum())
            primal = tied.spread + 0.5 * float(((w - z) * pulled).sum()) + variation
            if gap <= max(tol * primal, tied.noise):
                return z
        if iteration == max_iter:
            break
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        pulled = dual.advance_(u, former, start, momentum)
        u, former = former, u
        old, z = z, w - (pulled if mass is None else pulled / mass)
        new_height = height_of(z)
        if new_height > height:  # the dual fell: forget the momentum
            t, momentum = 1.0, 0.0
        else:
            t, momentum = following, (t - 1) / following
        start = torch.add(z, z - old, alpha=momentum) if momentum else z
        height = new_height
    raise RuntimeError(
        f"graph_total_variation_prox: the duality gap must reach tol={tol:g} within "
        f"max_iter={max_iter} iterations, got {gap / primal:.3g} relative to the objective"
    )
