"""What the solvers need to know of a sum of regularizers: a quadratic part and norms."""

import contextlib
from dataclasses import dataclass, field

import torch

from mtlfast._checks import check_number
from mtlfast.graph_total_variation import graph_total_variation
from mtlfast.graphs import TaskGraph
from mtlfast.nn import Quadratic, Regularizer
from mtlfast.nn._contract import edges_of, quadratic_of


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
    terms = [term for penalty in penalties for term in penalty.summands]
    for term in terms:
        check_number(name, f"strength of {_class(term)}", term.strength)
        declares = (
            type(term).quadratic is not Regularizer.quadratic
            or type(term).edges is not Regularizer.edges
        )
        if not (declares or (term.is_norm and term.has_prox)):
            raise NotImplementedError(_nothing_declared(name, term))
    return terms


def _class(term):
    return type(term).__name__


def _nothing_declared(name, term):
    missing = (
        "which declares is_norm but not has_prox, a prox of its own"
        if term.is_norm
        else "whose prox the solvers cannot use without is_norm"
        if term.has_prox
        else "which declares none of them"
    )
    return (
        f"{name}: penalty must be a sum of terms that declare a quadratic, edges or is_norm beside "
        f"has_prox, as mtlfast.nn.Regularizer tells, got {_class(term)}, {missing}"
    )


def declared(name, term, num_tasks, device):
    """What a term says that it is with K tasks: a Quadratic, an EdgeNorm or a Norm; checked."""
    with named(name):
        quadratic = quadratic_of(term, num_tasks)
        edges = None if quadratic is not None else edges_of(term, num_tasks)
    if quadratic is not None:
        for graph, _ in quadratic.graphs:
            _check_size(name, term, graph, num_tasks)
        graphs = [(graph.to(device), strength) for graph, strength in quadratic.graphs]
        return Quadratic(quadratic.ridge, quadratic.pairs, graphs)
    if edges is not None:
        graph, strength = edges
        _check_size(name, term, graph, num_tasks)
        return EdgeNorm(graph.to(device), strength, _class(term))
    if not (term.is_norm and term.has_prox):
        raise NotImplementedError(_nothing_declared(name, term))
    return Norm(term, _class(term))


@contextlib.contextmanager
def named(name):
    """Refusals of those who do not know for whom they work, with the name in front."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error


def _check_size(name, term, graph, num_tasks):
    if graph.num_tasks != num_tasks:
        raise ValueError(
            f"{name}: the graph of {_class(term)} must have a node for each of the "
            f"K={num_tasks} tasks, got {graph.num_tasks}"
        )


@dataclass
class Norm:
    """A norm of W by its value and its prox, strength included."""

    term: Regularizer
    name: str

    @torch.no_grad()
    def __call__(self, W):
        return self.term(W)

    @torch.no_grad()
    def prox(self, W, step):
        return self.term.prox(W, step)

    @torch.no_grad()
    def dual_norm(self, Y):
        return self.term.dual_norm(Y)


@dataclass
class EdgeNorm:
    """``strength · Σ_ij A_ij ‖w_i − w_j‖``."""

    graph: TaskGraph
    strength: float
    name: str

    def __call__(self, W):
        return self.strength * graph_total_variation(W, self.graph)


@dataclass
class QuadraticPart:
    r"""``ridge ‖W‖² + pairs Σ_{i≠j} ‖w_i − w_j‖² + Σ strength_g Σ A_ij ‖w_i − w_j‖²``."""

    num_tasks: int
    ridge: float = 0.0
    pairs: float = 0.0
    graphs: list = field(default_factory=list)  # (TaskGraph, strength)

    def plus(self, *, ridge=0.0, graphs=()):
        graphs = [*self.graphs, *graphs]
        return QuadraticPart(self.num_tasks, self.ridge + ridge, self.pairs, graphs)


@dataclass
class Penalty:
    """Quadratic part, norms of W and edge norms of a sum of regularizers with K tasks."""

    quadratic: QuadraticPart
    norms: list  # of Norm
    edges: list  # of EdgeNorm with a positive strength

    @property
    def is_smooth(self):
        return not (self.norms or self.edges)

    def value(self, W, coupling):
        return coupling.value(W) + sum(float(term(W)) for term in self.norms + self.edges)


def split(name, terms, num_tasks, device):
    """The :class:`Penalty` of checked terms for K tasks."""
    quadratic = QuadraticPart(num_tasks)
    norms, edges = [], []
    for term in terms:
        part = declared(name, term, num_tasks, device)
        if isinstance(part, Quadratic):
            quadratic.ridge += part.ridge
            quadratic.pairs += part.pairs
            quadratic.graphs += [  # a graph of groups may have no edges
                (graph, strength) for graph, strength in part.graphs if strength and graph.num_edges
            ]
        elif isinstance(part, EdgeNorm):
            edges += [part] if part.strength else []
        elif term.strength:
            norms.append(part)
    return Penalty(quadratic, norms, edges)
