"""Modules: regularizers that store their arguments and add up, and K linear heads as one layer.

A module stores, a function computes: each regularizer here calls the function of its name with a
strength. All see the parameters of K tasks, a tensor ``[K, *]`` or a list of K equally shaped
tensors, as K rows.
"""

import torch
from torch import nn

from mtlfast._checks import (
    as_rows,
    check_grad,
    check_number,
    check_reduction,
    check_writable,
    rows_like,
    write_rows_,
)
from mtlfast._graph_forms import prepare_task_graph
from mtlfast._native import real_dtype
from mtlfast.gram import LowRank, gram_reg
from mtlfast.graph import graph_add_grad_, graph_prox, graph_reg
from mtlfast.graph_total_variation import (
    graph_total_variation,
    graph_total_variation_add_grad_,
    graph_total_variation_prox,
)
from mtlfast.group_lasso import (
    group_lasso,
    group_lasso_add_grad_,
    group_lasso_prox,
    group_lasso_prox_,
)
from mtlfast.pairwise import pairwise_add_grad_, pairwise_prox, pairwise_prox_, pairwise_reg
from mtlfast.task_graph import TaskGraph
from mtlfast.task_linear import TaskLinear
from mtlfast.trace_norm import trace_norm, trace_norm_prox, trace_norm_prox_

__all__ = [
    "GramReg",
    "GraphReg",
    "GraphTotalVariation",
    "GroupLasso",
    "PairwiseReg",
    "Regularizer",
    "Ridge",
    "Sum",
    "TaskLinear",
    "TraceNorm",
]


class Regularizer(nn.Module):
    """A strength times a function of the parameters of K tasks; regularizers add up with ``+``.

    A subclass defines ``forward(W)``, the value, and declares with ``has_prox = True`` that it
    defines ``prox(W, step)``, the minimiser of ``½‖Z − W‖² + step · forward(Z)``: the strength is
    part of the step. :class:`mtlfast.optim.Proximal` takes any regularizer that declares one.

    Args:
        strength: a finite number ≥ 0.

    Raises:
        TypeError, ValueError: the strength is no number, negative, NaN or infinite.
    """

    has_prox = False

    def __init__(self, strength=1.0):
        super().__init__()
        self.strength = check_number(type(self).__name__, "strength", strength)

    def prox(self, W, step):
        raise NotImplementedError(f"{type(self).__name__}.prox: this regularizer has no prox")

    @torch.no_grad()
    def prox_(self, W, step):
        """Writes ``prox(W, step)`` into W, outside autograd, and returns W.

        W is unchanged when an error is raised. A subclass that can do without a copy of W
        overrides this.
        """
        several = isinstance(W, (list, tuple))
        moved = self.prox(W, step)
        for target, rows in zip(W, moved, strict=True) if several else [(W, moved)]:
            target.copy_(rows)
        return W

    def add_grad_(self, grad, W, *, alpha=1.0):
        """Adds ``alpha`` times the gradient of ``forward`` to ``grad`` and returns the value.

        ``grad`` is like W: a tensor, or a list of tensors. Nothing else is recorded, and no other
        parameter gets a gradient. A subclass with a gradient in closed form overrides this.
        """
        check_grad(type(self).__name__ + ".add_grad_", grad, W)
        several = isinstance(W, (list, tuple))
        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in (W if several else [W])]
            value = self(leaves if several else leaves[0])
            parts = torch.autograd.grad(value, leaves)
        with torch.no_grad():
            for target, part in zip(grad if several else [grad], parts, strict=True):
                target.add_(part, alpha=alpha)
        return value.detach()

    def __add__(self, other):
        if not isinstance(other, Regularizer):
            return NotImplemented
        return Sum([self, other])

    def __radd__(self, other):  # sum([...]) starts from 0
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented

    def extra_repr(self):
        return f"strength={self.strength:g}"

    def _hold(self, name, value):
        """Keeps an argument so that it moves with the module and is saved where it can be."""
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, value)
        else:
            setattr(self, name, value)


class PairwiseReg(Regularizer):
    """``strength · pairwise_reg(W, reduction=reduction)``, see :func:`mtlfast.pairwise_reg`.

    Example:
        >>> import torch
        >>> from mtlfast.nn import PairwiseReg
        >>> W = torch.tensor([[0.0], [9.0]])
        >>> PairwiseReg(strength=0.5)(W).item()
        81.0
        >>> PairwiseReg(strength=0.5).prox(W, step=0.5)
        tensor([[3.],
                [6.]])
    """

    has_prox = True

    def __init__(self, strength=1.0, reduction="sum"):
        super().__init__(strength)
        check_reduction("PairwiseReg", reduction)
        self.reduction = reduction

    def forward(self, W):
        return self.strength * pairwise_reg(W, reduction=self.reduction)

    def prox(self, W, step):
        step = check_number("PairwiseReg.prox", "step", step)
        return pairwise_prox(W, step * self._factor(len(W)))

    def prox_(self, W, step):
        step = check_number("PairwiseReg.prox_", "step", step)
        return pairwise_prox_(W, step * self._factor(len(W)))

    def add_grad_(self, grad, W, *, alpha=1.0):
        alpha = check_number("PairwiseReg.add_grad_", "alpha", alpha, signed=True)
        strength = self.strength
        value = pairwise_add_grad_(grad, W, alpha=alpha * strength, reduction=self.reduction)
        return strength * value

    def _factor(self, num_tasks):
        """What the sum over ordered pairs is multiplied by."""
        if self.reduction == "mean":
            return self.strength / max(num_tasks * (num_tasks - 1), 1)
        return self.strength

    def extra_repr(self):
        return f'{super().extra_repr()}, reduction="{self.reduction}"'


class _OnGraph(Regularizer):
    """What regularizers over a graph share: they hold it, move it and divide by its edges."""

    def __init__(self, graph, strength=1.0, reduction="sum"):
        super().__init__(strength)
        name = type(self).__name__
        check_reduction(name, reduction)
        self.reduction = reduction
        self._is_edge_list = isinstance(graph, (tuple, list))
        if self._is_edge_list:
            if len(graph) != 2:
                raise ValueError(
                    f"{name}: a graph of plain tensors must be (edge_index, edge_weight), "
                    f"got {len(graph)} entries"
                )
            self._hold("edge_index", graph[0])
            self._hold("edge_weight", graph[1])
        else:
            self._hold("graph", graph)
        if isinstance(graph, TaskGraph):  # an empty tensor to learn from where the module went
            anchor = torch.empty(0, device=graph.device)
            self.register_buffer("_anchor", anchor, persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        graph = self._stored()
        if isinstance(graph, TaskGraph):
            self.graph = graph.to(self._anchor.device)
        return self

    def _task_graph(self, W):
        """The graph with its weights as they are now: the prox takes them as constants."""
        function = type(self).__name__ + ".prox"
        return prepare_task_graph(function, self._stored(), as_rows(function, W), detach=True)

    def _factor(self, graph):
        """What the sum over edges is multiplied by."""
        return self.strength / (max(graph.num_edges, 1) if self.reduction == "mean" else 1)

    def _stored(self):
        return (self.edge_index, self.edge_weight) if self._is_edge_list else self.graph

    def extra_repr(self):
        graph = "(edge_index, edge_weight)" if self._is_edge_list else self.graph
        if isinstance(graph, torch.Tensor):
            graph = f"{graph.layout} {list(graph.shape)}".removeprefix("torch.")
        return f'{graph}, {super().extra_repr()}, reduction="{self.reduction}"'


class GraphReg(_OnGraph):
    """``strength · graph_reg(W, graph, reduction=reduction)``, see :func:`mtlfast.graph_reg`.

    Args:
        graph: a :class:`mtlfast.TaskGraph`, or any plain form that ``graph_reg`` takes. A TaskGraph
            moves with the module; it is a constant and no part of ``state_dict``. Plain tensors
            become buffers (``graph``, or ``edge_index`` and ``edge_weight``); weights given as a
            ``nn.Parameter`` become a parameter of the module, to be learned by the gradient of the
            value; ``prox`` takes them as constants.
        strength: a finite number ≥ 0.
        reduction: ``"sum"`` or ``"mean"``.
    """

    has_prox = True

    def forward(self, W):
        return self.strength * graph_reg(W, self._stored(), reduction=self.reduction)

    def prox(self, W, step):
        step = check_number("GraphReg.prox", "step", step)
        graph = self._task_graph(W)
        return graph_prox(W, graph, step * self._factor(graph))

    def add_grad_(self, grad, W, *, alpha=1.0):
        alpha = check_number("GraphReg.add_grad_", "alpha", alpha, signed=True)
        graph, strength = self._stored(), self.strength
        value = graph_add_grad_(grad, W, graph, alpha=alpha * strength, reduction=self.reduction)
        return strength * value


class GraphTotalVariation(_OnGraph):
    """``strength · graph_total_variation(W, graph)``, see :func:`mtlfast.graph_total_variation`.

    Args:
        graph: as for :class:`GraphReg`, but with weights that are constants; the prox wants
            A_ij + A_ji ≥ 0.
        strength: a finite number ≥ 0.
        reduction: ``"sum"`` or ``"mean"``.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph
        >>> from mtlfast.nn import GraphTotalVariation
        >>> total_variation = GraphTotalVariation(TaskGraph.chain(2), strength=0.5)
        >>> W = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> total_variation(W).item()   # 0.5 · (5 + 5)
        5.0
        >>> total_variation.prox(W, step=1.0)
        tensor([[0.6000, 0.8000],
                [2.4000, 3.2000]])
    """

    has_prox = True

    def forward(self, W):
        value = graph_total_variation(W, self._stored(), reduction=self.reduction)
        return self.strength * value

    def prox(self, W, step):
        step = check_number("GraphTotalVariation.prox", "step", step)
        graph = self._task_graph(W)
        return graph_total_variation_prox(W, graph, step * self._factor(graph))

    def add_grad_(self, grad, W, *, alpha=1.0):
        alpha = check_number("GraphTotalVariation.add_grad_", "alpha", alpha, signed=True)
        strength = self.strength
        return strength * graph_total_variation_add_grad_(
            grad, W, self._stored(), alpha=alpha * strength, reduction=self.reduction
        )


class GramReg(Regularizer):
    """``strength · gram_reg(W, omega, reduction=reduction)``, see :func:`mtlfast.gram_reg`.

    Not convex in W, and without a prox. ``omega`` as in ``gram_reg``; a tensor becomes a buffer,
    a ``nn.Parameter`` a parameter of the module, and the factor of a :class:`mtlfast.LowRank` is
    held likewise as ``factor``.
    """

    def __init__(self, omega, strength=1.0, reduction="sum"):
        super().__init__(strength)
        check_reduction("GramReg", reduction)
        self.reduction = reduction
        self._is_low_rank = isinstance(omega, LowRank)
        if self._is_low_rank:
            self._hold("factor", omega.factor)
        else:
            self._hold("omega", omega)

    def forward(self, W):
        omega = LowRank(self.factor) if self._is_low_rank else self.omega
        return self.strength * gram_reg(W, omega, reduction=self.reduction)

    def extra_repr(self):
        omega = LowRank(self.factor) if self._is_low_rank else list(self.omega.shape)
        return f'{omega}, {super().extra_repr()}, reduction="{self.reduction}"'


class TraceNorm(Regularizer):
    """``strength · ‖W‖_*``, the nuclear norm of the tasks' rows, see :func:`mtlfast.trace_norm`.

    Where the function takes a batch of matrices ``[..., m, n]``, this module, like the others, sees
    ``[K, *]`` as one matrix of K rows.
    """

    has_prox = True

    def forward(self, W):
        return self.strength * trace_norm(as_rows("TraceNorm", W))

    def dual_norm(self, Y):
        return float(torch.linalg.matrix_norm(as_rows("TraceNorm", Y), 2)) / self.strength

    def prox(self, W, step):
        step = check_number("TraceNorm.prox", "step", step)
        rows = trace_norm_prox(as_rows("TraceNorm.prox", W), step * self.strength)
        return rows_like(W, rows)

    @torch.no_grad()
    def prox_(self, W, step):
        step = check_number("TraceNorm.prox_", "step", step)
        check_writable("TraceNorm.prox_", "W", W)
        rows = as_rows("TraceNorm.prox_", W)
        trace_norm_prox_(rows, step * self.strength)
        write_rows_(W, rows)
        return W


class GroupLasso(Regularizer):
    """``strength · ‖W‖_{2,1}``, whole features in or out, see :func:`mtlfast.group_lasso`.

    Example:
        >>> import torch
        >>> from mtlfast.nn import GroupLasso
        >>> W = torch.tensor([[3.0, 0.1], [4.0, 0.1]])
        >>> GroupLasso(strength=5.0).prox(W, step=0.5)
        tensor([[1.5000, 0.0000],
                [2.0000, 0.0000]])
    """

    has_prox = True

    def forward(self, W):
        return self.strength * group_lasso(W)

    def dual_norm(self, Y):
        return (
            float(torch.linalg.vector_norm(as_rows("GroupLasso", Y), dim=0).max()) / self.strength
        )

    def prox(self, W, step):
        step = check_number("GroupLasso.prox", "step", step)
        return group_lasso_prox(W, step * self.strength)

    def prox_(self, W, step):
        step = check_number("GroupLasso.prox_", "step", step)
        return group_lasso_prox_(W, step * self.strength)

    def add_grad_(self, grad, W, *, alpha=1.0):
        alpha = check_number("GroupLasso.add_grad_", "alpha", alpha, signed=True)
        return self.strength * group_lasso_add_grad_(grad, W, alpha=alpha * self.strength)


class Ridge(Regularizer):
    r"""``strength · ‖W‖_F²``, weight decay with its own strength: every task is pulled to zero.

    The gradient is 2·strength·W, the prox W/(1 + 2·step·strength). Squares are summed in float64;
    the value is float64 for float64 W, else float32.

    Example:
        >>> import torch
        >>> from mtlfast.nn import Ridge
        >>> W = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
        >>> Ridge(strength=0.5)(W).item()
        12.5
        >>> Ridge(strength=0.5).prox(W, step=1.0)
        tensor([[0.5000, 1.0000],
                [1.0000, 2.0000]])
    """

    has_prox = True

    def forward(self, W):
        rows = as_rows("Ridge", W)
        return (self.strength * rows.double().square().sum()).to(real_dtype(rows.dtype))

    def prox(self, W, step):
        step = check_number("Ridge.prox", "step", step)
        rows = as_rows("Ridge.prox", W)
        return rows_like(W, rows / (1 + 2 * step * self.strength))

    @torch.no_grad()
    def prox_(self, W, step):
        step = check_number("Ridge.prox_", "step", step)
        as_rows("Ridge.prox_", W)
        check_writable("Ridge.prox_", "W", W)
        for rows in W if isinstance(W, (list, tuple)) else [W]:
            rows.div_(1 + 2 * step * self.strength)
        return W

    @torch.no_grad()
    def add_grad_(self, grad, W, *, alpha=1.0):
        rows = as_rows("Ridge.add_grad_", W)
        check_grad("Ridge.add_grad_", grad, W)
        alpha = check_number("Ridge.add_grad_", "alpha", alpha, signed=True)
        several = isinstance(W, (list, tuple))
        for target, w in zip(grad, W, strict=True) if several else [(grad, W)]:
            target.add_(w, alpha=2 * alpha * self.strength)
        squares = torch.linalg.vector_norm(rows, dtype=torch.float64).square()
        return (self.strength * squares).to(real_dtype(rows.dtype))


class Sum(Regularizer):
    """The sum of regularizers, also written ``a + b`` or ``sum([a, b, c])``.

    Its prox is exact where one is known: for a single term with a prox, and for any number of
    :class:`PairwiseReg` with at most one :class:`GraphReg`, each also together with any number of
    :class:`Ridge`; ``has_prox`` tells.

    Args:
        terms: an iterable of regularizers; a sum among them contributes its own terms.

    Raises:
        TypeError: a term is no :class:`Regularizer`.
        ValueError: there is no term.

    Example:
        >>> from mtlfast.nn import PairwiseReg, TraceNorm
        >>> both = PairwiseReg(0.1) + TraceNorm(2.0)
        >>> both
        Sum(
          (terms): ModuleList(
            (0): PairwiseReg(strength=0.1, reduction="sum")
            (1): TraceNorm(strength=2)
          )
        )
        >>> both.has_prox
        False
    """

    def __init__(self, terms):
        super().__init__()
        flat = []
        for term in terms:
            if not isinstance(term, Regularizer):
                raise TypeError(f"Sum: terms must be regularizers, got {type(term).__name__}")
            flat += term.terms if isinstance(term, Sum) else [term]
        if not flat:
            raise ValueError("Sum: terms must hold at least one regularizer, got none")
        self.terms = nn.ModuleList(flat)

    @property
    def has_prox(self):
        rest = self._without_ridge()
        if len(rest) <= 1:
            return all(term.has_prox for term in rest)
        kinds = [type(term) for term in rest]
        return kinds.count(PairwiseReg) >= len(kinds) - 1 and {*kinds} <= {PairwiseReg, GraphReg}

    def _without_ridge(self):
        return [term for term in self.terms if not isinstance(term, Ridge)]

    def forward(self, W):
        rows = as_rows("Sum", W)
        values = [term(rows) for term in self.terms]
        return torch.stack(values).sum()

    def prox(self, W, step):
        if not self.has_prox:
            names = " + ".join(type(term).__name__ for term in self.terms)
            raise NotImplementedError(
                f"Sum.prox: no exact prox is known for {names}; there is one for a single term "
                "with a prox, and for any number of PairwiseReg with at most one GraphReg, "
                "each also with Ridge"
            )
        if len(self.terms) == 1:
            return self.terms[0].prox(W, step)
        step = check_number("Sum.prox", "step", step)
        # Completing the square of ½‖Z − W‖² + step·r‖Z‖²: with s = 1 + 2·step·r, the prox of q and
        # a ridge is that of q at W/s, with step/s.
        terms = self._without_ridge()
        if len(terms) < len(self.terms):
            ridge = Ridge(sum(term.strength for term in self.terms if isinstance(term, Ridge)))
            W, step = ridge.prox(W, step), step / (1 + 2 * step * ridge.strength)
            return Sum(terms).prox(W, step) if terms else W
        # With C = I − 11ᵀ/K and the graph's Laplacian L, the prox of a·pairwise + b·graph solves
        # (I + 4Ka·C + 4b·L) Z = W. C and L both send the mean to 0, so it stays; on the rest C is
        # the identity, and dividing by s = 1 + 4Ka leaves (I + 4(b/s)·L) Z = W/s. Together:
        # graph_prox(pairwise_prox(W, a), graph, b/s).
        num_tasks = len(W)
        pairs = [term for term in self.terms if isinstance(term, PairwiseReg)]
        pull = step * sum(term._factor(num_tasks) for term in pairs)
        rows = pairwise_prox(W, pull)
        for term in self.terms:
            if isinstance(term, GraphReg):
                rows = term.prox(rows, step / (1 + 4 * num_tasks * pull))
        return rows

    def prox_(self, W, step):
        if self.has_prox and len(self.terms) == 1:
            return self.terms[0].prox_(W, step)
        return super().prox_(W, step)

    def add_grad_(self, grad, W, *, alpha=1.0):
        check_grad("Sum.add_grad_", grad, W)
        # what can still fail goes first, so that grad is unchanged if it does
        safe = [term for term in self.terms if isinstance(term, (PairwiseReg, Ridge))]
        terms = [term for term in self.terms if not isinstance(term, (PairwiseReg, Ridge))] + safe
        if len(terms) - len(safe) > 1:
            return super().add_grad_(grad, W, alpha=alpha)
        return torch.stack([term.add_grad_(grad, W, alpha=alpha) for term in terms]).sum()

    def extra_repr(self):
        return ""
