"""What a quadratic regularizer says of itself, and the prox that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mtlfast._checks import check_number
from mtlfast.graph import graph_prox
from mtlfast.graphs import TaskGraph
from mtlfast.pairwise import pairwise_prox
from mtlfast.ridge import ridge_prox

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from mtlfast._typing import Number


class Shape(NamedTuple):
    """Of a quadratic, what decides whether its prox is known; ridge is no matter."""

    pairs: bool
    graphs: int


@dataclass(frozen=True)
class Quadratic:
    r"""What :meth:`Regularizer.quadratic` returns: the numbers of a sum of quadratics.

    .. math:: ridge \cdot \|W\|_F^2 + pairs \sum_{i \neq j} \|w_i - w_j\|^2
              + \sum_g s_g \sum_{i,j} A^g_{ij} \|w_i - w_j\|^2

    Args:
        ridge, pairs: finite numbers ≥ 0.
        graphs: pairs (A, s) of a :class:`mtlfast.TaskGraph` and a finite number ≥ 0.

    Raises:
        TypeError, ValueError: a number that is none, negative, NaN or infinite; a graph that is no
            TaskGraph.

    Example:
        >>> from mtlfast.nn import PairwiseReg, Quadratic, Ridge
        >>> PairwiseReg(6.0, reduction="mean").quadratic(num_tasks=3)   # of 6 ordered pairs
        Quadratic(ridge=0.0, pairs=1.0, graphs=())
        >>> Quadratic(ridge=2) + Ridge(0.5).quadratic(3)
        Quadratic(ridge=2.5, pairs=0.0, graphs=())
    """

    ridge: float = 0.0
    pairs: float = 0.0
    graphs: tuple[tuple[TaskGraph, float], ...] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            ridge: Number = 0.0,
            pairs: Number = 0.0,
            graphs: Sequence[tuple[TaskGraph, Number]] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        fill = object.__setattr__
        for name in ("ridge", "pairs"):
            fill(self, name, check_number("Quadratic", name, getattr(self, name)))
        fill(self, "graphs", tuple(_checked(entry) for entry in _entries(self.graphs)))

    def __add__(self, other: Quadratic) -> Quadratic:
        if not isinstance(other, Quadratic):
            return NotImplemented
        return total((self, other))

    @property
    def shape(self) -> Shape:
        return Shape(self.pairs > 0, sum(strength > 0 for _, strength in self.graphs))

    def prox(self, rows: torch.Tensor, step: float) -> torch.Tensor:
        """The minimiser of ½‖Z − W‖² + step · value(Z) for rows ``[K, d]``, with one graph at most.

        Example:
            >>> import torch
            >>> from mtlfast.nn import Quadratic
            >>> Quadratic(ridge=0.5, pairs=0.5).prox(torch.tensor([[0.0], [6.0]]), step=1.0)
            tensor([[1.],
                    [2.]])
        """
        # With C = I − 11ᵀ/K and the graph's Laplacian L, that of r·ridge + a·pairs + b·graph solves
        # (s·I + 4Ka·C + 4b·L) Z = W, s = 1 + 2r. Divided by s, it is that of a/s and b/s at W/s. C
        # and L both send the mean to 0, so it stays; on the rest C is the identity, and dividing by
        # t = 1 + 4Ka/s leaves (I + 4(b/st)·L) Z.
        if self.ridge:
            rows = ridge_prox(rows, step * self.ridge)
            step = step / (1 + 2 * step * self.ridge)
        if self.pairs:
            rows = pairwise_prox(rows, step * self.pairs)
            step = step / (1 + 4 * rows.shape[0] * step * self.pairs)
        for graph, strength in self.graphs:
            if strength:
                rows = graph_prox(rows, graph, step * strength)
        return rows


def total(parts):
    """The sum of some."""
    parts = list(parts)
    graphs = [graph for part in parts for graph in part.graphs]
    return Quadratic(sum(part.ridge for part in parts), sum(part.pairs for part in parts), graphs)


def _entries(graphs):
    if not isinstance(graphs, (list, tuple)):
        raise TypeError(
            "Quadratic: graphs must be a list of pairs (TaskGraph, strength), "
            f"got {type(graphs).__name__}"
        )
    return graphs


def _checked(entry):
    if not isinstance(entry, (list, tuple)) or len(entry) != 2:
        what = f"{len(entry)} entries" if isinstance(entry, (list, tuple)) else type(entry).__name__
        raise TypeError(f"Quadratic: graphs must hold pairs (TaskGraph, strength), got {what}")
    graph, strength = entry
    if not isinstance(graph, TaskGraph):
        raise TypeError(
            f"Quadratic: graphs must hold pairs (TaskGraph, strength), got {type(graph).__name__}"
        )
    return graph, check_number("Quadratic", "the strength of a graph", strength)
