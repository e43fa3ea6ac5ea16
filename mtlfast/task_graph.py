"""The graph of task relations: checked and prepared once, then used at every step."""

import copy

import numpy as np
import torch

from mtlfast import _native, reference
from mtlfast._adjacency import (
    as_tensor,
    check_count,
    check_size,
    check_weight,
    read_dense,
    read_edges,
    read_networkx,
    read_sparse,
    symmetric_csr,
)
from mtlfast._checks import is_missing
from mtlfast._compat import needs_reference, outside_transforms
from mtlfast._graph_parts import check_parts
from mtlfast._neighbors import nearest

# The tasks of smaller graphs lie in the last cache in any order; an order that brings fewer edges
# near each other is not worth a second copy of the graph.
_LARGE = 1 << 18
_GAIN = 0.2

_TENSORS = ("row_ptr", "col", "weight", "group_ptr", "member")


def _build(function, edges):
    """A TaskGraph from checked edges."""
    row_ptr, col, weight, num_edges = symmetric_csr(function, edges)
    parts = {"row_ptr": row_ptr, "col": col, "weight": weight}
    return _restore(edges.num_tasks, num_edges, {k: v.to(edges.device) for k, v in parts.items()})


def _restore(num_tasks, num_edges, tensors):
    """A TaskGraph from its parts, unchecked: the one place that fills its slots."""
    graph = object.__new__(TaskGraph)
    fill = object.__setattr__
    fill(graph, "num_tasks", num_tasks)
    fill(graph, "num_edges", num_edges)
    with torch.inference_mode(False):  # a graph made for evaluation also serves training
        for name in _TENSORS:
            part = tensors.get(name)
            fill(graph, name, part.clone() if part is not None and part.is_inference() else part)
    fill(graph, "_converted", {})
    return graph


def restore_checked(num_tasks, num_edges, tensors):
    """A TaskGraph from its parts that come from a file: kernels trust the indices of a graph."""
    check_parts("TaskGraph", num_tasks, num_edges, tensors)
    return _restore(num_tasks, num_edges, tensors)


# The constructors under a caller's name: graph_reg builds graphs from plain tensors with them.


def _from_edges(function, edge_index, edge_weight=None, num_tasks=None):
    return _build(function, read_edges(function, edge_index, edge_weight, num_tasks))


def _from_dense(function, A):
    return _build(function, read_dense(function, A))


def _from_sparse(function, A):
    return _build(function, read_sparse(function, A))


class TaskGraph:
    r"""An immutable graph of task relations A, prepared once for :func:`mtlfast.graph_reg`.

    The regularizer is a sum over ordered pairs,

    .. math:: \sum_{i,j} A_{ij} \|w_i - w_j\|^2,

    so a graph may be directed and only s_ij = A_ij + A_ji matters. Preparing checks every index
    and weight, sums duplicates, drops self loops, and stores s as symmetric CSR with sorted
    rows. Weights are finite and may be negative. :meth:`groups` is stored in O(K) instead.

    Build one with :meth:`from_edges`, :meth:`from_dense`, :meth:`from_sparse`,
    :meth:`from_networkx`, :meth:`knn`, :meth:`chain` or :meth:`groups`. Weights are constants: for
    learnable ones pass the plain tensor to ``graph_reg``. Graphs can be pickled and copied,
    and saved: ``torch.load`` takes them in its default mode.

    Attributes (read-only):
        num_tasks: K.
        num_edges: stored entries (i, j), i ≠ j, after duplicates are summed; (i, j) and (j, i)
            count separately, and so do zeros that a sparse form stores.
        row_ptr, col, weight: int64 ``[K+1]``, int32 ``[S]`` and float ``[S]``: s by rows, without
            zeros; float64 for float64 weights, else float32 (sums are taken in float64 and
            rounded once). None for groups.
        group_ptr, member: int64 ``[G+1]`` and ``[M]``: the tasks
            ``member[group_ptr[g]:group_ptr[g+1]]`` are linked all to all; groups of one task are
            left out. None for other graphs.

    Raises:
        TypeError: indices are no integers, weights are no real numbers, unknown kind of input.
        ValueError: wrong shapes, an index out of range, a weight that is not finite, malformed
            compressed pointers, weights that require grad.
        NotImplementedError: 2³¹ tasks or more.

    Cost: O(E) memory and one sort of E integers; ``groups`` and ``chain`` O(K).
    Deterministic: the same bits on every run and for every form of the same graph.

    Example:
        >>> from mtlfast import TaskGraph
        >>> graph = TaskGraph.from_edges([[0, 1, 2], [1, 0, 3]], [1.0, 0.5, 2.0], num_tasks=4)
        >>> graph
        TaskGraph(num_tasks=4, num_edges=3, device='cpu')
        >>> graph.to_dense()[0, 1].item()   # (1 + 0.5) / 2
        0.75
    """

    __slots__ = ("__weakref__", "_converted", "num_edges", "num_tasks", *_TENSORS)

    def __init__(self):
        raise TypeError(
            "TaskGraph: build a graph with from_edges, from_dense, from_sparse, from_networkx, "
            "knn, chain or groups, got a direct call"
        )

    def __setattr__(self, name, value):
        raise AttributeError(f"TaskGraph: a graph is immutable, got an assignment to {name!r}")

    def __delattr__(self, name):
        raise AttributeError(f"TaskGraph: a graph is immutable, got a deletion of {name!r}")

    def __reduce__(self):
        return restore_checked, (self.num_tasks, self.num_edges, self._tensors())

    def __deepcopy__(self, memo):
        parts = {name: copy.deepcopy(part, memo) for name, part in self._tensors().items()}
        return _restore(self.num_tasks, self.num_edges, parts)

    def __repr__(self):
        return (
            f"TaskGraph(num_tasks={self.num_tasks}, num_edges={self.num_edges}, "
            f"device='{self.device}')"
        )

    def _tensors(self):
        parts = {name: getattr(self, name) for name in _TENSORS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def is_groups(self):
        """True for a graph made by :meth:`groups`."""
        return self.row_ptr is None

    @property
    def device(self):
        """Where the graph's tensors live."""
        return (self.group_ptr if self.is_groups else self.row_ptr).device

    def weight_as(self, dtype):
        """``weight`` in float32 or float64; a conversion is kept for the next call."""
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"TaskGraph.weight_as: dtype must be float32 or float64, got {dtype}")
        if self.is_groups:
            raise ValueError("TaskGraph.weight_as: the graph must store edges, got groups")
        if dtype == self.weight.dtype:
            return self.weight
        if dtype not in self._converted:
            if torch.compiler.is_compiling() or needs_reference():
                return self.weight.to(dtype)  # what a transform makes must not outlive it
            with torch.inference_mode(False):
                self._converted[dtype] = self.weight.to(dtype)
        return self._converted[dtype]

    def rows_as(self, dtype):
        """(row_ptr, col, weight, order) as kernels take them, weights in float32 or float64.

        ``order`` int32 ``[K]`` is the order in which a large graph on the CPU is handled so that
        neighbours come soon after each other: row p of the matrix is then that of task order[p].
        It is found once, at the first use, and None where there is none that helps.
        """
        plain = self.row_ptr, self.col, self.weight_as(dtype), None
        if self.num_tasks < _LARGE or not self.col.numel():
            return plain
        if self.device.type != "cpu" or _native.missing:
            return plain
        if torch.compiler.is_compiling() or needs_reference():
            return plain
        if ("rows", dtype) not in self._converted:
            with torch.inference_mode(False):
                self._converted["rows", dtype] = self._reordered(*plain[:3])
        return self._converted["rows", dtype]

    def _reordered(self, row_ptr, col, weight):
        if "order" not in self._converted:
            order, gain = _native.graph_order(row_ptr, col)
            self._converted["order"] = order if gain >= _GAIN else None
        order = self._converted["order"]
        if order is None:
            return row_ptr, col, weight, None
        return *_native.graph_reorder(row_ptr, col, weight, order), order

    def by_pieces(self):
        """(row_ptr, col, weight, first, member) as ``graph_prox`` takes them, in float64.

        The rows of connected pieces one after the other, columns numbered within a piece; ``first``
        int64 ``[P+1]``, on the CPU, where each piece begins; ``member`` int32 ``[K]`` the task of
        each row, None where that is the row's number. Found once, at the first use; in a compiled
        function ``first`` is None, and they are found at every call.
        """
        plain = self.row_ptr, self.col, self.weight_as(torch.float64), None, None
        if torch.compiler.is_compiling() or needs_reference():
            return plain
        if "pieces" not in self._converted:
            with torch.inference_mode(False):
                find = reference.graph_pieces if _native.missing else _native.graph_pieces
                found = reference.by_pieces(*(part.cpu() for part in plain[:3]), find)
                *parts, first, member = found
                moved = [part.to(self.device) for part in parts]
                member = member if member is None else member.to(self.device)
                if member is None:
                    moved = plain[:3]
                self._converted["pieces"] = *moved, first, member
        return self._converted["pieces"]

    def pieces(self):
        """The number of each task's connected piece, int64 ``[K]``, and the size of each piece."""
        if "labels" not in self._converted:
            with torch.inference_mode(False):
                find = _native.graph_pieces
                if _native.missing or not self.row_ptr.is_cpu:
                    find = reference.graph_pieces
                first, member = find(self.row_ptr, self.col)
                size = first.diff().to(self.device)
                label = torch.empty(self.num_tasks, dtype=torch.int64, device=self.device)
                number = torch.arange(size.shape[0], device=self.device)
                label[member.long()] = number.repeat_interleave(size, output_size=self.num_tasks)
                self._converted["labels"] = label, size
        return self._converted["labels"]

    def written_out(self):
        """The same graph with its edges stored; those of groups are found once and kept."""
        if not self.is_groups:
            return self
        if "edges" not in self._converted:
            with outside_transforms(), torch.inference_mode(False):
                edges = torch.stack(self._group_pairs())
                graph = _from_edges("TaskGraph.groups", edges, None, self.num_tasks)
                self._converted["edges"] = graph.to(self.device)
        return self._converted["edges"]

    def _group_pairs(self):
        """Source and target of all edges of groups, and an edge from each member to itself."""
        size, members = self.group_ptr.diff(), self.member.shape[0]
        group = torch.arange(size.shape[0], device=self.device)
        group = group.repeat_interleave(size, output_size=members)
        each = size[group]
        source = torch.arange(members, device=self.device)
        source = source.repeat_interleave(each, output_size=self.num_edges + members)
        start = (each.cumsum(0) - each)[source]
        target = torch.arange(source.shape[0], device=self.device) - start
        target = target + self.group_ptr[group[source]]
        return self.member[source], self.member[target]

    def to(self, device):
        """The same graph on ``device``; the graph itself where it is there already."""
        moved = {name: part.to(device) for name, part in self._tensors().items()}
        if all(part is getattr(self, name) for name, part in moved.items()):
            return self
        return _restore(self.num_tasks, self.num_edges, moved)

    def to_dense(self):
        """(A + Aᵀ)/2 as a tensor ``[K, K]`` with a zero diagonal: K² numbers, for small graphs."""
        shape = (self.num_tasks, self.num_tasks)
        if self.is_groups:
            size = self.group_ptr.diff()
            group = torch.full(shape[:1], -1, dtype=torch.int64, device=self.device)
            group[self.member] = torch.arange(size.numel(), device=self.device).repeat_interleave(
                size
            )
            same = (group[:, None] == group) & (group >= 0)
            return same.to(torch.float32).fill_diagonal_(0)
        dense = torch.zeros(shape, dtype=self.weight.dtype, device=self.device)
        row = torch.arange(self.num_tasks, device=self.device).repeat_interleave(
            self.row_ptr.diff()
        )
        dense[row, self.col.long()] = self.weight / 2
        return dense

    @classmethod
    def from_edges(cls, edge_index, edge_weight=None, num_tasks=None):
        """A_ij = the sum of the weights of all edges (i, j).

        Args:
            edge_index: integers ``[2, E]``, row 0 the sources i, row 1 the targets j; a tensor,
                numpy array or list.
            edge_weight: real numbers ``[E]`` or ``[E, 1]``; None means all 1.
            num_tasks: K; None means the largest index + 1.

        Example:
            >>> from mtlfast import TaskGraph
            >>> TaskGraph.from_edges([[0, 1], [1, 2]]).to_dense().tolist()
            [[0.0, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.0]]
        """
        return _from_edges("TaskGraph.from_edges", edge_index, edge_weight, num_tasks)

    @classmethod
    def from_dense(cls, A):
        """A given in full: real numbers ``[K, K]``, a tensor, numpy array or nested list."""
        return _from_dense("TaskGraph.from_dense", A)

    @classmethod
    def from_sparse(cls, A):
        """A ``[K, K]`` as a torch COO (coalesced or not), CSR or CSC tensor or in scipy.sparse."""
        return _from_sparse("TaskGraph.from_sparse", A)

    @classmethod
    def from_networkx(cls, G, weight="weight"):
        """A networkx graph; task i is the i-th of ``G.nodes``.

        An undirected edge counts in both directions, parallel edges add up. ``weight`` names the
        edge attribute to read, 1 where an edge lacks it; None means all 1.
        """
        function = "TaskGraph.from_networkx"
        return _build(function, read_networkx(function, G, weight))

    @classmethod
    def knn(cls, features, k):
        """Directed edges of weight 1 from each task to its ``k`` nearest others, exactly.

        Distances are Euclidean, in float64; at equal distances the task of smaller index is taken.

        Args:
            features: finite real numbers ``[K, p]``, a tensor, numpy array or nested list.
            k: neighbours of each task, 1 ≤ k < K.

        Cost: O(K²·p) time in bounded memory; about K·log K with scipy and few features.

        Example:
            >>> from mtlfast import TaskGraph
            >>> TaskGraph.knn([[0.0], [1.0], [5.0]], k=1).to_dense().tolist()
            [[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.5, 0.0]]
        """
        function = "TaskGraph.knn"
        x = as_tensor(function, "features", features)
        if x.dim() != 2:
            raise ValueError(f"{function}: features must have shape [K, p], got {list(x.shape)}")
        k = check_count(function, "k", k, least=1)
        if k >= x.shape[0]:
            raise ValueError(f"{function}: k must be < K={x.shape[0]}, got {k}")
        check_size(function, x.shape[0])
        rows, _ = check_weight(function, "features", x.detach())
        target = nearest(rows.to(torch.float64), k).flatten()
        source = torch.arange(x.shape[0], device=target.device).repeat_interleave(k)
        return _from_edges(function, torch.stack([source, target]), None, x.shape[0]).to(x.device)

    @classmethod
    def chain(cls, num_tasks):
        """Tasks in a row, as in time: A_{i,i+1} = A_{i+1,i} = 1."""
        function = "TaskGraph.chain"
        num_tasks = check_count(function, "num_tasks", num_tasks)
        check_size(function, num_tasks)
        left = torch.arange(max(num_tasks - 1, 0), device="cpu")
        index = torch.stack([torch.cat([left, left + 1]), torch.cat([left + 1, left])])
        return _from_edges(function, index, None, num_tasks)

    @classmethod
    def groups(cls, labels):
        """Tasks with the same label are linked both ways with weight 1, in O(K) storage.

        Args:
            labels: K labels: an integer tensor, a numpy array, or a list of hashable values
                (strings, tuples, …). Groups are ordered by their first task.

        Example:
            >>> from mtlfast import TaskGraph
            >>> graph = TaskGraph.groups(["A320", "B737", "A320", "A320"])
            >>> graph.num_edges, graph.member.tolist()
            (6, [0, 2, 3])
        """
        function = "TaskGraph.groups"
        first, device = _first_alike(function, labels)
        check_size(function, first.numel())
        member = torch.argsort(first, stable=True)
        size = torch.bincount(first)
        member = member[size[first[member]] > 1]
        size = size[size > 1]
        group_ptr = torch.cat([size.new_zeros(1), size.cumsum(0)])
        tensors = {"group_ptr": group_ptr.to(device), "member": member.to(device)}
        return _restore(first.numel(), (size * (size - 1)).sum().item(), tensors)


def _first_alike(function, labels):
    """For each task the first task with its label, int64 on the CPU, and the labels' device."""
    device = torch.device("cpu")
    if isinstance(labels, torch.Tensor):
        if not labels.numel():  # of any dtype: nothing in it is no integer
            labels = labels.to(torch.int64)
        if labels.dtype.is_floating_point or labels.dtype.is_complex:
            raise TypeError(f"{function}: labels must hold integers, got {labels.dtype}")
        device, labels = labels.device, as_tensor(function, "labels", labels).cpu().numpy()
    elif not isinstance(labels, (list, tuple)):
        if not hasattr(labels, "__array__"):
            raise TypeError(
                f"{function}: labels must be a tensor, a numpy array or a list, "
                f"got {type(labels).__name__}"
            )
        labels = np.asarray(labels)
    if isinstance(labels, np.ndarray):
        if labels.ndim != 1:
            raise ValueError(f"{function}: labels must have shape [K], got {list(labels.shape)}")
        if labels.dtype.kind in "biuSU":
            _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
            return torch.from_numpy(first[inverse].astype(np.int64, copy=False)), device
        labels = labels.tolist()
    seen, first = {}, []
    for i, label in enumerate(labels):
        if isinstance(label, torch.Tensor):  # hashes by identity: no two would be alike
            raise TypeError(f"{function}: labels must be hashable, got Tensor at position {i}")
        try:
            first.append(seen.setdefault(label, i))
        except TypeError:
            raise TypeError(
                f"{function}: labels must be hashable, got {type(label).__name__} at position {i}"
            ) from None
        if is_missing(label):
            raise ValueError(
                f"{function}: labels must equal themselves, got {label} at position {i}"
            )
    return torch.tensor(first, dtype=torch.int64, device="cpu"), device
