"""What the solvers need to know of a sum of regularizers: a quadratic part and norms."""

from dataclasses import dataclass, field

import torch

from mtlfast.graph import graph_add_grad_
from mtlfast.nn import (
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Regularizer,
    Ridge,
    Sum,
    TraceNorm,
)

QUADRATIC = (PairwiseReg, GraphReg, Ridge)
NORMS = (TraceNorm, GroupLasso)  # of W itself, with a prox in closed form
OTHERS = (*NORMS, GraphTotalVariation)


def check_penalties(name, penalties):
    """The terms of a regularizer, a sum or a list of them; none for None and an empty list."""
    if penalties is None:
        penalties = []
    if isinstance(penalties, Regularizer):
        penalties = [penalties]
    if not isinstance(penalties, (list, tuple)):
        raise TypeError(
            f"{name}: penalty must be an mtlfast.nn regularizer, a list of them or None, "
            f"got {type(penalties).__name__}"
        )
    for position, penalty in enumerate(penalties):
        if not isinstance(penalty, Regularizer):
            raise TypeError(
                f"{name}: penalty must hold mtlfast.nn regularizers, "
                f"got {type(penalty).__name__} at position {position}"
            )
    terms = list(Sum(penalties).terms) if penalties else []
    for term in terms:
        if not isinstance(term, (*QUADRATIC, *OTHERS)):
            *names, last = (kind.__name__ for kind in (*QUADRATIC, *OTHERS))
            raise NotImplementedError(
                f"{name}: penalty must be a sum of {', '.join(names)} and {last}, "
                f"got {type(term).__name__}: no solver has a convex quadratic or a prox for it"
            )
    return terms


@dataclass
class Quadratic:
    r"""``ridge ‖W‖² + pairs Σ_{i≠j} ‖w_i − w_j‖² + Σ strength_g Σ A_ij ‖w_i − w_j‖²``."""

    num_tasks: int
    ridge: float = 0.0
    pairs: float = 0.0
    graphs: list = field(default_factory=list)  # (TaskGraph, strength)

    @property
    def couples(self):
        return self.pairs > 0 or bool(self.graphs)

    @property
    def has_negative(self):
        """Whether a graph has a weight < 0, without which the sum is convex."""
        return any(
            not graph.is_groups and bool((graph.weight_as(torch.float64) < 0).any())
            for graph, _ in self.graphs
        )

    def groups(self):
        """The first (graph of groups, strength), or None."""
        return next((pair for pair in self.graphs if pair[0].is_groups), None)

    def plus(self, *, ridge=0.0, graphs=()):
        return Quadratic(self.num_tasks, self.ridge + ridge, self.pairs, [*self.graphs, *graphs])

    def grad(self, W):
        """Its gradient, by differences."""
        out = (2 * self.ridge) * W
        if self.pairs:
            out.add_(W - W.mean(0), alpha=4 * self.num_tasks * self.pairs)
        for graph, strength in self.graphs:
            graph_add_grad_(out, W, graph, alpha=strength)
        return out

    def value(self, W):
        value = self.ridge * W.square().sum()
        if self.pairs:
            value = value + 2 * self.num_tasks * self.pairs * (W - W.mean(0)).square().sum()
        for graph, strength in self.graphs:
            scratch = torch.zeros_like(W)
            value = value + strength * graph_add_grad_(scratch, W, graph)
        return float(value)

    def diagonal(self, device):
        """The diagonal of its Hessian, one number a task."""
        out = torch.full((self.num_tasks,), 2 * self.ridge, dtype=torch.float64, device=device)
        out += 4 * (self.num_tasks - 1) * self.pairs
        return out + self.graph_diagonal(device)

    def graph_diagonal(self, device):
        """The part of the diagonal that comes from graphs."""
        out = torch.zeros(self.num_tasks, dtype=torch.float64, device=device)
        for graph, strength in self.graphs:
            out.add_(_degrees(graph).to(device), alpha=2 * strength)
        return out


def _degrees(graph):
    """Σ_j s_ij of each task."""
    out = torch.zeros(graph.num_tasks, dtype=torch.float64, device=graph.device)
    if graph.is_groups:
        size = graph.group_ptr.diff()
        out[graph.member] = 2.0 * (size - 1).double().repeat_interleave(size)
        return out
    row = torch.arange(graph.num_tasks, device=graph.device)
    row = row.repeat_interleave(graph.row_ptr.diff())
    return out.index_add_(0, row, graph.weight_as(torch.float64))


@dataclass
class Penalty:
    """Quadratic part, norms of W and edge norms of a sum of regularizers with K tasks."""

    quadratic: Quadratic
    norms: list  # TraceNorm, GroupLasso with a positive strength
    edges: list  # GraphTotalVariation with a positive strength

    @property
    def is_smooth(self):
        return not (self.norms or self.edges)

    def value(self, W, coupling):
        return coupling.value(W) + sum(float(term(W)) for term in self.norms + self.edges)


def split(name, terms, num_tasks, device):
    """The :class:`Penalty` of checked terms for K tasks."""
    quadratic = Quadratic(num_tasks)
    norms, edges = [], []
    empty = torch.zeros(num_tasks, 1, dtype=torch.float64, device=device)
    for term in terms:
        if isinstance(term, (GraphReg, GraphTotalVariation)):
            graph = term._task_graph(empty)
            if graph.num_tasks != num_tasks:
                raise ValueError(
                    f"{name}: the graph of {type(term).__name__} must have a node for each of the "
                    f"K={num_tasks} tasks, got {graph.num_tasks}"
                )
        if term.strength == 0:
            continue
        if isinstance(term, Ridge):
            quadratic.ridge += term.strength
        elif isinstance(term, PairwiseReg):
            quadratic.pairs += term._factor(num_tasks)
        elif isinstance(term, GraphReg):
            if graph.num_edges:  # a graph of groups may have none
                quadratic.graphs.append((graph.to(device), term._factor(graph)))
        elif isinstance(term, GraphTotalVariation):
            edges.append(term)
        else:
            norms.append(term)
    return Penalty(quadratic, norms, edges)
