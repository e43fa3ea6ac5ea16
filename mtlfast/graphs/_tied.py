"""Tasks that the strong edges of a graph total variation make one, in any scale.

The prox moves W to Z by a flow U over the edges, W − Z = DᵀU with ‖U_e‖ ≤ r_e. There is one that
runs in no circle in any of its columns, since to cancel a circle never makes an edge carry more;
over an edge it carries no more than half of what its connected piece of n tasks sends out,

    ‖U_e‖ ≤ B = ½·sqrt(n)·‖W − mean‖_F,    since ‖W − Z‖ ≤ ‖W − mean‖.

An edge with r_e > B is not filled by that flow, so its ends are equal in Z: they are one unknown,
with the mean of its tasks for W and their number for its mass. Edges between two such sets add up,
and are looked at again.
"""

import torch

from mtlfast._torch.group_lasso import scale_of
from mtlfast.graphs._dual import EdgeDual
from mtlfast.graphs._task_graph import TaskGraph


class TiedTasks:
    """The prox of ``dual``'s penalty at W ``[K, d]`` of float64 with tied tasks as one unknown.

    Attributes:
        dual: the :class:`EdgeDual` of what is left, in W's scale.
        rows: float64 ``[sets, d]``: scale·(W − mean of the piece), averaged over each set.
        mass: float64 ``[sets, 1]``, the number of tasks, or None where every set is one task.
        spread: ½·Σ ‖scale·w_i − its set's mean‖².
        noise: what rounding may add to a duality gap.
    """

    def __init__(self, dual, graph, W):
        self.scale = scale_of(W)
        piece, size = graph.pieces()
        scaled = W if self.scale == 1 else W * self.scale
        self._mean = _mean(scaled, piece, size)[piece]
        deviation = scaled - self._mean
        squares = deviation.square().sum(1)
        of_piece = torch.zeros_like(squares[: size.shape[0]]).index_add_(0, piece, squares)
        bound = (0.5 * (size * of_piece).sqrt())[piece]
        self.dual, self.rows, self.mass, self.spread = dual, deviation, None, 0.0
        self._set = None
        if self.scale != 1:
            dual.radius = dual.radius * self.scale
        strong = dual.radius > bound[dual.src]
        if bool(strong.any()):
            self._tie(strong, bound)
            deviation = deviation - self.rows[self._set]
            self.spread = 0.5 * float(deviation.square().sum())
            squares = self.rows.square().sum(1)
        longest = float(squares.max()) ** 0.5
        self.noise = 2.0**-50 * float(self.dual.radius.sum()) * longest

    def _tie(self, strong, bound):
        src, dst = self.dual.src, self.dual.dst
        radius = self.dual.radius.clamp(max=2.0**1000)  # sums are finite
        joined = torch.arange(bound.shape[0], device=bound.device)
        while bool(strong.any()):
            edges = torch.stack([src[strong], dst[strong]])
            label, size = TaskGraph.from_edges(edges, None, bound.shape[0]).pieces()
            joined, bound = label[joined], bound.new_empty(size.shape[0]).scatter_(0, label, bound)
            rest = label[src] != label[dst]
            ends = torch.stack([label[src], label[dst]])[:, rest]
            left = TaskGraph.from_edges(ends, radius[rest], size.shape[0])
            dual = EdgeDual(left, self.rows.shape[1])
            src, dst, radius = dual.src, dual.dst, dual.radius
            strong = radius > bound[src]
        mass = torch.bincount(joined, minlength=bound.shape[0])
        self._set, self.rows = joined, _mean(self.rows, joined, mass)
        self.mass = mass.double()[:, None]
        self.dual = EdgeDual(left, self.rows.shape[1], mass=self.mass[:, 0])

    def restored(self, Z):
        """The result in W's scale for a solution Z ``[sets, d]``."""
        return (self._mean + (Z if self._set is None else Z[self._set])) / self.scale


def _mean(rows, label, size):
    total = torch.zeros_like(rows[: size.shape[0]])
    return total.index_add_(0, label, rows).div_(size[:, None])
