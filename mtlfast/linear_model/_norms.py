"""Norms as the solvers see them: a dual for each, steps on it, and what it can take of a gradient.

A norm g(A W), with A = I or the differences over the edges of a graph, has a scaled dual U ``[K,
d]`` or ``[E, d]``; ρU lies in the dual ball of g.
"""

import torch

from mtlfast.graph import graph_reg
from mtlfast.graphs._dual import EdgeDual
from mtlfast.linear_model._blocks import ratio
from mtlfast.linear_model._bounds import dual_norm
from mtlfast.linear_model._coupling import joined, sets_of

_LEAST = 0.03  # of the norm of W: below, differences over edges count as closed
_RELAX = 1.6  # over-relaxation of the norms of W
_ROUNDING = 1e-12  # of a dual outside its ball
_REPEATS = 4  # of giving back what a dual is outside its ball


class NormOfTasks:
    """A norm of W itself; Z is what its prox gave last."""

    weight = 1.0  # the mean of the diagonal of AᵀA
    takes = takes_all = True  # whether ``take`` is there, and takes any gradient
    is_cheap = True  # whether ``candidate`` is

    def __init__(self, term, W):
        self.term = term
        self.U, self.Z = torch.zeros_like(W), W.clone()

    def step(self, W, rho, metric=None):
        """The step on U, and Aᵀ(A W − Z + U), by which W misses its target.

        With a metric, the squares of features by themselves, ``primal`` is by how much A W and Z
        differ, relative to A W.
        """
        before = None if metric is None else self.U.clone()
        self.U += _RELAX * W + (1 - _RELAX) * self.Z
        self.Z = self.term.prox(self.U, 1.0 / rho)
        self.U -= self.Z
        if metric is not None:
            root = metric.sqrt()
            self.primal = ratio(float((root * (self.U - before)).norm()), float((root * W).norm()))
        return W - self.Z + self.U

    def target(self, W, missed):
        """Aᵀ(Z − U), what W aims at."""
        return self.Z - self.U

    def adjoint(self):
        return self.U

    def candidate(self, W, rho):
        """A W with exact zeros."""
        return self.Z

    def value(self, W):
        return float(self.term(W))

    def take(self, rest, rho, bound, repeats=None):
        """(taken, energy, factor): ``rest`` made part of Y, and how far outside its ball Y is then.

        ``taken`` is by how much AᵀY grows. Of what Y is outside its ball, the part that H bounds is
        given back, which costs its square.
        """
        taken, repeats = rest, _REPEATS if repeats is None else repeats
        for repeat in range(repeats + 1):
            factor = dual_norm(self.term, rho * self.U + taken)
            if factor <= 1 + _ROUNDING or repeat == repeats:
                return taken, None, factor
            excess = self.term.prox(rho * self.U + taken, 1.0)
            taken = taken - excess + bound.split(excess)[1]

    def quadratic(self, rho):
        return {"ridge": rho / 2}


class NormOfDifferences:
    """A sum of norms of differences over the edges of a graph."""

    is_cheap = takes_all = False

    def __init__(self, term, W):
        self.dual = EdgeDual(
            term.graph.to(W.device), W.shape[1], strength=term.strength, function=term.name
        )
        self.U, self.graph = self.dual.zeros(), self.dual.laplacian()
        self.weight = max(1.0, 2 * self.dual.num_edges / max(1, self.dual.num_tasks))
        self.flows = None

    def step(self, W, rho, metric=None):
        before = None if metric is None else self.U.clone()
        out = self.dual.step_(self.U, W, 1.0 / rho)
        if metric is not None:
            root = metric.mean(0).sqrt()
            # where every edge closes, A W tends to 0: then a share of W is the measure, or the
            # penalty ρ would grow without end
            least = _LEAST * self.weight**0.5 * float((root * W).norm())
            length = max(float(graph_reg(root * W, self.graph)) ** 0.5, least)
            self.primal = ratio(float((root * (self.U - before)).norm()), length)
        return out

    def target(self, W, missed):
        return self.dual.adjoint(self.dual.differences(W)) - missed

    def adjoint(self):
        return self.dual.adjoint(self.U)

    def value(self, W):
        return self.dual.value(W)

    @property
    def takes(self):
        return self.flows is not None

    def take(self, rest, rho, bound):
        """As of a norm of W; ``energy`` is that of what has to move with whole components."""
        return self.taken(rest, rho * self.U, self.flows)

    def taken(self, rest, Y, flows):
        """``take`` for a dual Y and the :class:`~mtlfast.linear_model._bounds.Flows` beside it."""
        flows, energy, is_whole = flows.take(rest)
        length = torch.linalg.vector_norm(Y + flows, dim=1)
        outside = (length / self.dual.radius).nan_to_num(0.0, posinf=float("inf"))
        factor = max([1.0, *outside.tolist()]) if is_whole else float("inf")
        return self.dual.adjoint(flows), energy, factor

    def candidate(self, W, rho):
        """W with equal rows at both ends of edges that are closed."""
        inside = self.inside(rho)
        sets = sets_of(self.dual.num_tasks, self.dual.src[inside], self.dual.dst[inside])
        return joined(W, sets)

    def inside(self, rho):
        """Whether the dual of an edge is inside its ball, so that its ends are equal."""
        length = torch.linalg.vector_norm(self.U, dim=1)
        return rho * length < (1 - 1e-9) * self.dual.radius

    def quadratic(self, rho):
        return {"graphs": [(self.graph, rho / 2)]}
