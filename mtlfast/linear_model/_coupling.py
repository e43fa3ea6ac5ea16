"""How quadratic penalties tie tasks: sets of tasks that move together at no cost, and their pulls.

q(W) = ridge ‖W‖² + pairs Σ_{i≠j} ‖w_i − w_j‖² + Σ strength Σ A_ij ‖w_i − w_j‖² has the Hessian
Q ⊗ I. Pairs cost nothing where all tasks agree, graphs where the tasks of each connected component
do. A strong penalty leaves hardly more than these directions, and beside what it makes of all
others they are too small for float64: so they are kept apart, W as the sum of ``parts``: ``[K,
d]``, a row for each component, a row for all tasks. Each penalty reads the parts that it does not
ignore.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from mtlfast.graph import graph_add_grad_
from mtlfast.linear_model._blocks import TOO_LARGE
from mtlfast.linear_model._hierarchy import Hierarchy
from mtlfast.reference import piece_labels

_STRONG = 100.0  # a graph's pull beside the tasks' own squares


@dataclass(frozen=True)
class Level:
    """Disjoint sets of tasks, which a star ties to a centre each: Σ_k ½ pull_k ‖w_k − c‖².

    ``member[ptr[g]:ptr[g + 1]]`` are the tasks of set g, ``of`` the set of each member, ``pull``
    ``[M]`` that of each member. A star without its centre, which moves freely, is the graph with
    weights pull_i pull_j / Σ pull: for equal pulls the pairwise distance of the set; in general a
    graph with the same degrees.
    """

    member: torch.Tensor
    ptr: torch.Tensor
    of: torch.Tensor
    pull: torch.Tensor

    def sums(self, X):
        """Sums of rows ``[K, …]`` over each set ``[sets, …]``, in order."""
        return torch.segment_reduce(X[self.member], "sum", lengths=self.ptr.diff(), axis=0)

    def add_(self, W, centres, alpha=1.0):
        """Adds the centre of a task's set to its row."""
        rows = W.index_select(0, self.member).add_(centres.index_select(0, self.of), alpha=alpha)
        return W.index_copy_(0, self.member, rows)

    def pulls(self, num_tasks):
        """The pull of each task ``[K]``, 0 where it is in no set."""
        out = torch.zeros(num_tasks, dtype=torch.float64, device=self.pull.device)
        return out.index_copy_(0, self.member, self.pull)


def level_of(label, pull):
    """The :class:`Level` of labels ``[K]``, < 0 for tasks in no set, and pulls ``[K]``."""
    label = torch.where(pull > 0, label, -1)
    member = torch.argsort(label, stable=True)
    member = member[int((label < 0).sum()) :]
    _, of, count = torch.unique_consecutive(label[member], return_inverse=True, return_counts=True)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return Level(member, ptr, of, pull[member])


class Coupling:
    """A sum of quadratic penalties with K tasks, and what solvers ask about its Hessian.

    ``own`` ``[d]`` is what the tasks' own squares have on their diagonals. A graph whose pull is
    hardly stronger has no level: what its components do together is as slow as their other waves.
    """

    def __init__(self, quadratic, device, own, *, majorises=False, nested=True):
        """With ``majorises`` the blocks of tasks are no smaller than what graphs tie together.

        ``nested`` tells whether there may be two levels.
        """
        self._majorises, self._nested = majorises, nested
        self.num_tasks, self.device = quadratic.num_tasks, device
        self.ridge, self.pairs = quadratic.ridge, quadratic.pairs
        self.graphs = [(graph.to(device), strength) for graph, strength in quadratic.graphs]
        self._own = float(own.min()) + 2 * self.ridge

    @property
    def couples(self):
        return self.pairs > 0 or bool(self.graphs)

    @cached_property
    def has_negative(self):
        """Whether a graph has a weight < 0, without which the sum is convex."""
        return any(
            not graph.is_groups and bool((graph.weight_as(torch.float64) < 0).any())
            for graph, _ in self.graphs
        )

    @cached_property
    def diagonal(self):
        """Of its Hessian, one number a task."""
        own = 2 * self.ridge + 4 * (self.num_tasks - 1) * self.pairs
        return self.graph_diagonal + own

    @cached_property
    def block_shift(self):
        """``[K]``: what the blocks of tasks have on their diagonals beside squares and pulls."""
        if self._majorises:  # a Laplacian is no larger than twice its diagonal
            pairs = 0.0 if self.levels else 4 * (self.num_tasks - 1) * self.pairs
            return 2 * self.ridge + pairs + 2 * self.graph_diagonal
        if self.has_negative:
            return self.diagonal
        return 2 * self.ridge + self.graph_diagonal * (self.graph_level is None)

    @cached_property
    def graph_diagonal(self):
        """The part of the diagonal that comes from graphs."""
        out = torch.zeros(self.num_tasks, dtype=torch.float64, device=self.device)
        for graph, strength in self.graphs:
            out.add_(_degrees(graph), alpha=2 * strength)
        return out

    @cached_property
    def graph_level(self):
        """The connected components of the graphs, or None."""
        if not self.graphs or self.has_negative or self._majorises:
            return None
        if self.pairs and not self._nested:
            return None
        # of a group of n tasks, n/(n − 1) times the diagonal: then the star is the group itself
        pull = torch.zeros_like(self.graph_diagonal)
        for graph, strength in self.graphs:
            if graph.is_groups:
                size = graph.group_ptr.diff()
                pull[graph.member] += 4.0 * strength * size.repeat_interleave(size)
            else:
                pull.add_(_degrees(graph), alpha=2 * strength)
        are_stars = len(self.graphs) == 1 and self.graphs[0][0].is_groups
        if not are_stars and float(pull.max()) < _STRONG * self._own:
            return None
        return level_of(components([graph for graph, _ in self.graphs]), pull)

    @cached_property
    def levels(self):
        """Sets of tasks that move together at no cost: components, then all where there are pairs.

        Empty with negative weights, for which no direction is known to cost nothing.
        """
        levels = [] if self.graph_level is None else [self.graph_level]
        if self.pairs and not self.has_negative:
            label = torch.zeros(self.num_tasks, dtype=torch.int64, device=self.device)
            pull = torch.full_like(self.diagonal, 4 * self.num_tasks * self.pairs)
            levels.append(level_of(label, pull))
        return levels

    @cached_property
    def ties(self):
        """``[K, K]`` on the CPU: −Q without its diagonal."""
        ties = torch.full(
            (self.num_tasks,) * 2, 4.0 * self.pairs, dtype=torch.float64, device="cpu"
        )
        for graph, strength in self.graphs:
            ties.add_(graph.to("cpu").to_dense().double(), alpha=4 * strength)
        ties.fill_diagonal_(0)
        if not torch.isfinite(ties.sum()):
            raise ValueError(TOO_LARGE)
        return ties

    @cached_property
    def hierarchy(self):
        return Hierarchy(self.ties.numpy())

    def split(self, W):
        """W as parts: the mean of all tasks where there are pairs, and what is left."""
        parts = [W, *(W.new_zeros(len(level.ptr) - 1, W.shape[1]) for level in self.levels)]
        if self.levels and W.shape[0]:
            size = self.levels[-1].ptr.diff()[:, None]
            parts[-1] = self.levels[-1].sums(W) / size
            parts[0] = self.levels[-1].add_(W.clone(), parts[-1], alpha=-1.0)
        return parts

    def join(self, parts):
        """The W of parts, from the coarsest on: what is below its last digit leaves tasks equal."""
        if len(parts) == 1:
            return parts[0]
        W = torch.zeros_like(parts[0])
        for level, centres in zip(self.levels[::-1], parts[:0:-1], strict=True):
            level.add_(W, centres)
        return W.add_(parts[0])

    def grad(self, W):
        """The gradient at W, by differences."""
        return self.grad_of([W], W)

    def grad_of(self, parts, whole):
        """The gradient at parts and their sum ``whole``."""
        out = (2 * self.ridge) * whole
        if self.pairs:
            near = parts[0]  # all parts but that of all tasks
            if len(parts) > 1 and self.graph_level is not None:
                near = self.graph_level.add_(near.clone(), parts[1])
            out.add_(_centred(near), alpha=4 * self.num_tasks * self.pairs)
        for graph, strength in self.graphs:
            graph_add_grad_(out, parts[0], graph, alpha=strength)
        return out

    def value(self, W):
        """q(W) as a float, exactly 0 of the pairs and graphs whose tasks are equal."""
        value = 0.0
        if self.ridge:
            value = self.ridge * W.square().sum()
        if self.pairs:
            value = value + 2 * self.num_tasks * self.pairs * _centred(W).square().sum()
        for graph, strength in self.graphs:
            scratch = torch.zeros_like(W)
            value = value + strength * graph_add_grad_(scratch, W, graph)
        return float(value)


def _centred(W):
    """W − its mean over tasks, without digits of what they have in common."""
    away = W - W[:1]
    return away.sub_(away.mean(0))


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


def components(graphs):
    """The connected component of each task, as its smallest task, int64 ``[K]``."""
    num_tasks = graphs[0].num_tasks
    label, ends = torch.arange(num_tasks, device=graphs[0].device), []
    for graph in graphs:
        if graph.is_groups:
            size = graph.group_ptr.diff()
            first = graph.member[graph.group_ptr[:-1]].repeat_interleave(size)
            ends.append(torch.stack([graph.member, first]))
        else:
            row = label.repeat_interleave(graph.row_ptr.diff())
            ends.append(torch.stack([row, graph.col.long()])[:, row > graph.col])
    return piece_labels(num_tasks, *torch.cat(ends, 1))


def sets_of(num_tasks, src, dst):
    """The components that edges src – dst connect, as a :class:`Level` of all tasks."""
    label = piece_labels(num_tasks, src, dst)
    return level_of(label, torch.ones(num_tasks, dtype=torch.float64, device=src.device))


def joined(W, sets):
    """W with the mean of its rows in each set."""
    first = sets.member[sets.ptr[:-1]]
    away = sets.sums(sets.add_(W.clone(), W[first], -1.0)) / sets.ptr.diff()[:, None]
    return sets.add_(torch.zeros_like(W), W[first] + away)
