"""The dual variables of a graph total variation: one row for each pair of linked tasks.

With the pairs e = (i, j), i < j, and radii r_e = strength·(A_ij + A_ji), the penalty is

    strength · Σ_ij A_ij ‖w_i − w_j‖ = Σ_e r_e ‖w_i − w_j‖ = max over ‖U_e‖ ≤ r_e of ⟨U, D W⟩

where D takes W to its differences, (D W)_e = w_i − w_j. Splitting methods step on U, whose balls
are easy to project on, and see W through D and its adjoint alone.
"""

import weakref

import torch

from mtlfast import _native
from mtlfast._native import edge_dual
from mtlfast.graphs._task_graph import TaskGraph


def _pairs(graph):
    """Both ends of every pair i < j, sorted, and s_ij = A_ij + A_ji in float64."""
    row = torch.arange(graph.num_tasks, device=graph.device)
    row = row.repeat_interleave(graph.row_ptr.diff())
    upper = graph.col > row
    return row[upper], graph.col[upper].long(), graph.weight_as(torch.float64)[upper]


def _check_dense(*tensors):
    for u in tensors:
        if not u.is_contiguous():
            raise ValueError(f"EdgeDual: U must be contiguous, got strides {list(u.stride())}")


def _pointers(rows, num_tasks):
    ptr = rows.new_zeros(num_tasks + 1)
    ptr[1:] = torch.bincount(rows, minlength=num_tasks).cumsum(0)
    return ptr


class EdgeDual:
    r"""The pairs of a graph with their radii, and the maps between W ``[K, d]`` and U ``[E, d]``.

    Args:
        graph: a :class:`mtlfast.TaskGraph` with weights A_ij + A_ji ≥ 0. Groups are written out as
            their n(n − 1)/2 pairs.
        num_features: d.
        device: where W and U live.
        strength: a number ≥ 0 in the radii r_e = strength·(A_ij + A_ji).
        mass: float64 ``[K]``, > 0, of each row of W in the squares of :meth:`advance_`; None for 1.
        function: the name that errors speak of.

    Attributes:
        num_tasks, num_features, num_edges: K, d and E.
        src, dst: int64 ``[E]``: the ends i < j of each pair, sorted by i, then j.
        radius: float64 ``[E]``.

    W and U are contiguous float64. On the CPU a step is a kernel, one pass over U and one that
    gathers its rows by task; elsewhere it is made of torch calls. Sums over the edges of a task are
    taken in the order of the edges, without atomics: the same bits on every run, and on the CPU
    for any number of threads.

    Raises:
        ValueError: a pair has a negative weight.
    """

    def __init__(
        self, graph, num_features, device=None, *, strength=1.0, mass=None, function="EdgeDual"
    ):
        graph = (graph if device is None else graph.to(device)).written_out()
        self.num_tasks, self.num_features = graph.num_tasks, num_features
        self.src, self.dst, weight = _pairs(graph)
        if weight.numel() and weight.min() < 0:
            at = int(weight.argmin())
            raise ValueError(
                f"{function}: graph must have weights A_ij + A_ji >= 0, got {weight[at].item():g} "
                f"between tasks {self.src[at].item()} and {self.dst[at].item()}"
            )
        self.radius = strength * weight
        self._out_ptr = _pointers(self.src, self.num_tasks)
        self._in_ptr = _pointers(self.dst, self.num_tasks)
        self._in_edge = torch.argsort(self.dst, stable=True)
        # the sums of degree/mass at both ends of each pair, as a diagonal, dominate D M⁻¹ Dᵀ
        degree = (self._out_ptr.diff() + self._in_ptr.diff()).double()
        degree = degree if mass is None else degree / mass
        self._length = 1.0 / (degree[self.src] + degree[self.dst])
        self._last = None  # a U, its version, and Dᵀ of it
        native = self.radius.is_cpu and not _native.missing
        parts = self._out_ptr, self.dst.int(), self._in_ptr, self._in_edge
        self._pairs = parts if native else None

    @property
    def num_edges(self):
        return self.src.shape[0]

    def zeros(self):
        """U = 0."""
        shape = (self.num_edges, self.num_features)
        return torch.zeros(shape, dtype=torch.float64, device=self.radius.device)

    def differences(self, W):
        """D W ``[E, d]``: w_i − w_j for each pair."""
        return W[self.src] - W[self.dst]

    def adjoint(self, U):
        """Dᵀ U ``[K, d]``: the sum of U over the pairs that begin at i, minus those that end."""
        if self._pairs is not None:
            return edge_dual.edge_dual_adjoint(U.contiguous(), self._pairs)
        if not U.numel():
            return U.new_zeros((self.num_tasks, self.num_features))
        begin = torch.segment_reduce(U, "sum", lengths=self._out_ptr.diff(), axis=0, unsafe=True)
        arriving, size = U[self._in_edge], self._in_ptr.diff()
        return begin - torch.segment_reduce(arriving, "sum", lengths=size, axis=0, unsafe=True)

    def step_(self, U, W, scale=1.0):
        """U ← the projection of U + D W on the balls of radius ``scale·r_e``, in place.

        Returns Dᵀ(2·U_new − U_old) ``[K, d]``, what a primal-dual step on W needs next. DᵀU_new is
        kept for the next step from the same U, which then costs one pass less.
        """
        old = self._known_adjoint(U)
        new = self._move(U, U, W, None, 0.0, scale)
        self._last = None if U.is_inference() else (weakref.ref(U), U._version, new)
        return torch.sub(2 * new, old)

    def _known_adjoint(self, U):
        if self._last is not None and not U.is_inference():
            former, version, adjoint = self._last
            if former() is U and version == U._version:
                return adjoint
        return self.adjoint(U)

    def advance_(self, U, former, W, momentum):
        """One accelerated step of projected gradients on ½·Σ m_i‖(W₀ − DᵀU/m)_i‖², into ``former``.

        With V = U + momentum·(U − former), of which W = W₀ − DᵀV/m, ``former`` becomes the
        projection of V + l·D W, l_e = 1/(sum of degree/m at both ends of e). Returns Dᵀ U_new.
        """
        return self._move(U, former, W, self._length, momentum, 1.0)

    def _move(self, U, former, W, length, momentum, scale):
        if self._pairs is not None:
            _check_dense(U, former)
            return edge_dual.edge_dual_step(
                U, former, W, self._pairs, self.radius, length, momentum, scale
            )
        moved = self.differences(W)
        if length is not None:
            moved.mul_(length[:, None])
        moved.add_(U)
        if momentum:
            moved.add_(U, alpha=momentum).sub_(former, alpha=momentum)
        norm = torch.linalg.vector_norm(moved, dim=1)
        radius = scale * self.radius
        outside = norm > radius
        moved.mul_(torch.where(outside, radius / torch.where(outside, norm, 1.0), 1.0)[:, None])
        former.copy_(moved)
        return self.adjoint(moved)

    def value(self, W):
        """Σ_e r_e ‖w_i − w_j‖ as a float."""
        if self._pairs is not None:
            return edge_dual.edge_dual_value(W, self._pairs, self.radius)
        return float((self.radius * torch.linalg.vector_norm(self.differences(W), dim=1)).sum())

    def laplacian(self):
        """A graph with weight 1 on each pair: its ``graph_reg`` is Σ_e ‖w_i − w_j‖² = ‖D W‖².

        Factor 1: each pair is stored once, as A_ij = 1 with i < j. So ``GraphReg(graph, ρ/2)`` is
        ρ/2·‖D W‖², with the gradient ρ·DᵀD W.
        """
        edges = torch.stack([self.src, self.dst])
        return TaskGraph.from_edges(edges, None, self.num_tasks).to(self.radius.device)
