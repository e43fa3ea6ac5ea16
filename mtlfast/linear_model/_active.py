"""A sum of norms over the edges of few tasks: which edges close, and the rest of the way.

r‖z‖ touches the square r/2 (‖z‖²/η + η) at η = ‖z‖, so each step solves squares with ties r/η at
the lengths η that the one before has left, in whatever units features are. Along edges that close
the lengths fall by a factor at each step, the share that their dual r z/η has of its ball. Once it
is known which those are, the tasks that they connect are one unknown and the rest is smooth: the
duals of open edges are r z/‖z‖, and those of closed ones take what is left of the gradient, as
flows, if they can.

Source: D. Hunter and K. Lange, A Tutorial on MM Algorithms, 2004.
"""

import torch

from mtlfast.linear_model._bounds import Flows, contracted
from mtlfast.linear_model._coupling import sets_of

_STEPS = 12  # once it is known which edges close
_CLOSING = 0.99  # of the length before, at each step


class Majoriser:
    """Steps on W ``[K, d]`` for the quadratic part of a ``system`` and the edges of a ``dual``."""

    def __init__(self, system, dual, inside):
        self._system, self._dual = system, dual
        self._sets = sets_of(dual.num_tasks, dual.src[inside], dual.dst[inside])
        self._of = torch.empty_like(self._sets.of)
        self._of[self._sets.member] = self._sets.of
        self.inside = self._of[dual.src] == self._of[dual.dst]
        self._moment = self._sets.sums(system.squares.moment)

    def step(self, z):
        """(W, its differences along all edges) from the differences before; None where an open edge
        has none left."""
        dual, opens = self._dual, ~self.inside
        pulls = dual.radius[opens] / lengths(z[opens])
        if not torch.isfinite(pulls.sum()):
            return None
        ties = self._system.coupling.ties.clone()
        src, dst = dual.src[opens].cpu(), dual.dst[opens].cpu()
        ties[src, dst] += pulls.cpu()
        ties[dst, src] += pulls.cpu()
        direct = contracted(self._system, self._sets, ties)
        ends = self._of[dual.src], self._of[dual.dst]
        W, z = direct.solve_for_differences(self._moment, *ends)
        return W[self._of], z


def descend(system, dual, W, z, steps):
    """(W, z, U, inside): after steps from W with the differences z, duals in their balls, and which
    edges seem to close."""
    length = middle = lengths(z)
    U = dual.zeros()
    for step in range(steps):
        found = Majoriser(system, dual, length == 0).step(z)
        if found is None:
            break
        before, (W, z) = length, found
        length = lengths(z)
        U = z * torch.where(before > 0, dual.radius / before.clamp(min=1e-300), 0.0)[:, None]
        if step == steps // 2:
            middle = length
    ratio = torch.where(middle > 0, length / middle.clamp(min=1e-300), 0.0)
    U = U * (dual.radius / lengths(U).clamp(min=1e-300)).clamp(max=1.0)[:, None]
    return W, z, U, ratio < _CLOSING ** (steps - steps // 2)


def polish(system, dual, U, inside, z):
    """(W, Y, flows): what steps from differences z find, a dual with which most of the gradient is
    0, and the :class:`Flows` that may take the rest. None where an edge that was open closes.

    Args:
        system: the :class:`~mtlfast.linear_model._quadratic.System` of the quadratic part.
        dual: an :class:`~mtlfast.graphs._dual.EdgeDual`.
        U: ``[E, d]``, duals in their balls, kept where edges are closed.
        inside: bool ``[E]``, which edges are closed.
    """
    majoriser = Majoriser(system, dual, inside)
    inside = majoriser.inside
    for _ in range(1 if inside.all() else _STEPS):
        found = majoriser.step(z)
        if found is None:
            return None
        W, z = found
    rows = z * (dual.radius / lengths(z).clamp(min=1e-300))[:, None]
    return W, torch.where(inside[:, None], U, rows), Flows(dual, system, inside)


def lengths(z):
    """Norms of rows of any size."""
    scale = z.abs().amax(1).clamp(min=1e-300) if z.shape[1] else z.new_ones(len(z))
    return torch.linalg.vector_norm(z / scale[:, None], dim=1) * scale
