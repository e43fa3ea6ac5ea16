"""The forms in which a user may give a graph, brought to the few that the kernels take.

A graph with fixed weights is prepared once and remembered while the tensors given live unchanged
(:class:`mtlfast._cache.TensorCache`). Of a graph with learnable weights the pattern is remembered,
the weights are read at every call.
"""

import numpy as np
import torch

from mtlfast import _ops
from mtlfast._cache import TensorCache
from mtlfast._checks import check_same
from mtlfast._compat import needs_reference, outside_transforms
from mtlfast._dtypes import DTYPES, real_dtype
from mtlfast.graphs import _task_graph
from mtlfast.graphs._forms import Dense, LearnableDense, LearnableEdges
from mtlfast.graphs._read import (
    as_vector,
    check_range,
    check_weight,
    is_scipy_sparse,
    read_edges,
    read_sparse,
)
from mtlfast.graphs._task_graph import TaskGraph

# A dense A with a larger share of non-zero entries is cheaper as it is than as a sparse graph: a
# stored entry costs an index and a gathered row, a dense one neither.
_DENSE_SHARE = 0.25

_FORMS = (
    "a TaskGraph, a dense [K, K] tensor or array, a torch sparse COO or CSR tensor, a scipy sparse "
    "matrix, or (edge_index [2, E], edge_weight [E])"
)
_SPARSE = (torch.sparse_coo, torch.sparse_csr)
_cache = TensorCache()


def prepare(function, graph, w):
    """``graph`` as a form for rows ``w [K, d]``, with everything checked."""
    if isinstance(graph, TaskGraph):
        return _of_task_graph(function, graph, w)
    if _is_pair(graph):
        return _of_pair(function, *graph, w)
    graph = _read_foreign(function, graph, w)
    if isinstance(graph, TaskGraph):
        return _of_task_graph(function, graph, w)
    _check_matrix(function, graph, w)
    if graph.layout == torch.strided:
        return _of_dense(function, graph, w)
    with outside_transforms():
        return _of_sparse(function, graph, w)


def prepare_task_graph(function, graph, w, *, detach):
    """``graph`` as a :class:`TaskGraph` of ``w``'s tasks, whatever its density.

    Weights that require grad are refused, or with ``detach`` taken as the constants they are now.
    """
    if isinstance(graph, TaskGraph):
        _of_task_graph(function, graph, w)
        return graph
    if _is_pair(graph):
        _check_pair(function, *graph, w)
        edge_index, edge_weight = graph
        if _is_learnable(edge_weight) and detach:
            edge_weight = edge_weight.detach()
        return _pair_graph(function, edge_index, edge_weight, w)
    graph = _read_foreign(function, graph, w)
    if isinstance(graph, TaskGraph):
        return graph
    _check_matrix(function, graph, w)
    with outside_transforms():
        return _matrix_graph(function, graph.detach() if graph.requires_grad and detach else graph)


def _is_pair(graph):
    return isinstance(graph, (tuple, list)) and len(graph) == 2


def _is_learnable(weight):
    """Whether derivatives in the weights may be asked for: then they are read at every call."""
    if not isinstance(weight, torch.Tensor):
        return False
    return weight.requires_grad or needs_reference(weight)


def _of_task_graph(function, graph, w):
    if graph.num_tasks != w.shape[0]:
        raise ValueError(
            f"{function}: graph must have as many tasks as W, "
            f"got num_tasks={graph.num_tasks} and W with K={w.shape[0]}"
        )
    if graph.device != w.device:
        raise ValueError(
            f"{function}: graph must be on W's device {w.device}, got {graph.device}; "
            "move it with graph.to(device)"
        )
    return graph.form(real_dtype(w.dtype))


# -- (edge_index, edge_weight) ----------------------------------------------------------------


def _check_pair(function, edge_index, edge_weight, w):
    for name, value in (("edge_index", edge_index), ("edge_weight", edge_weight)):
        if isinstance(value, torch.Tensor):
            check_same(function, name, value, w, dtype=False)


def _of_pair(function, edge_index, edge_weight, w):
    _check_pair(function, edge_index, edge_weight, w)
    if not _is_learnable(edge_weight) and not torch.compiler.is_compiling():
        return _of_task_graph(function, _pair_graph(function, edge_index, edge_weight, w), w)
    if edge_weight is None:
        edge_weight = torch.ones_like(edge_index[0], dtype=real_dtype(w.dtype))
    return _learnable_edges(function, edge_index, edge_weight, w)


def _pair_graph(function, edge_index, edge_weight, w):
    num_tasks = w.shape[0]

    def build():
        with outside_transforms():
            graph = _task_graph._from_edges(function, edge_index, edge_weight, num_tasks)
            return graph if isinstance(edge_index, torch.Tensor) else graph.to(w.device)

    tensors = [t for t in (edge_index, edge_weight) if t is not None]
    if all(isinstance(t, torch.Tensor) for t in tensors):
        return _cache.get(tuple(tensors), ("graph", num_tasks), build)
    return build()


def _learnable_edges(function, edge_index, edge_weight, w):
    if edge_weight.dtype not in DTYPES:
        raise TypeError(
            f"{function}: edge_weight must be float64, float32, bfloat16 or float16, "
            f"got {edge_weight.dtype}"
        )
    if edge_weight.layout != torch.strided:
        raise TypeError(f"{function}: edge_weight must be a dense tensor, got {edge_weight.layout}")
    edge_weight = as_vector(edge_weight)
    num_tasks = w.shape[0]
    if torch.compiler.is_compiling():
        src, dst = edge_index.long().unbind()
        structure = _ops.edge_structure(torch.stack([src, dst]), num_tasks)
    else:
        index, structure = _edge_pattern(function, edge_index, w)
        src, dst = index.unbind()
    if edge_weight.shape != src.shape:
        raise ValueError(
            f"{function}: edge_weight must have shape [E={src.shape[0]}], "
            f"got {list(edge_weight.shape)}"
        )
    row_ptr, col, edge, num_edges = structure
    return LearnableEdges((edge_weight, src, dst, row_ptr, col, edge), num_edges)


def _edge_pattern(function, edge_index, w):
    num_tasks = w.shape[0]

    def build():
        with outside_transforms():
            edges = read_edges(function, edge_index, None, num_tasks)
            index = torch.stack([edges.src, edges.dst])
            structure = _ops.edge_structure(index, num_tasks)
            device = edges.device if isinstance(edge_index, torch.Tensor) else w.device
            return index.to(device), [part.to(device) for part in structure]

    if not isinstance(edge_index, torch.Tensor):
        return build()
    return _cache.get((edge_index,), ("pattern", num_tasks), build)


# -- matrices ---------------------------------------------------------------------------------


def _read_foreign(function, a, w):
    """A scipy sparse matrix or a NumPy array as a TaskGraph on W's device; all else as it is.

    Neither tells when it has been written to, so both are read at every call.
    """
    is_array = isinstance(a, np.ndarray)
    if not (is_array or is_scipy_sparse(a)):
        return a
    _check_shape(function, a, w)
    build = _task_graph._from_dense if is_array else _task_graph._from_sparse
    with outside_transforms():
        return build(function, a).to(w.device)


def _check_shape(function, a, w):
    if tuple(a.shape) != (w.shape[0], w.shape[0]):
        raise ValueError(
            f"{function}: A must have shape [K, K] = {[w.shape[0]] * 2}, got {list(a.shape)}"
        )


def _check_matrix(function, a, w):
    if not isinstance(a, torch.Tensor):
        raise TypeError(f"{function}: graph must be {_FORMS}, got {type(a).__name__}")
    if a.layout != torch.strided and a.layout not in _SPARSE:
        raise TypeError(f"{function}: graph must be {_FORMS}, got a tensor of {a.layout}")
    _check_shape(function, a, w)
    check_same(function, "A", a, w, dtype=False)


def _stored(a):
    return (a != 0).sum() - (a.diagonal() != 0).sum()


def _of_dense(function, a, w):
    real = real_dtype(w.dtype)
    if _is_learnable(a) or torch.compiler.is_compiling():
        if a.dtype.is_complex:
            raise TypeError(f"{function}: A must hold real numbers, got {a.dtype}")
        if _is_learnable(a):
            return LearnableDense((a,), _stored(a.detach()))
        return Dense((a.to(real),), _stored(a))

    def build():
        check_weight(function, "A", a)
        stored = int(_stored(a))
        if stored <= _DENSE_SHARE * a.numel():
            return _task_graph._from_dense(function, a)
        # detached: an entry that holds the caller's own tensor would keep itself alive
        return Dense((a.detach().to(real).contiguous(),), stored)

    prepared = _cache.get((a,), ("dense", real), build)
    return prepared if isinstance(prepared, Dense) else _of_task_graph(function, prepared, w)


def _sparse_state(a):
    """Changes when the sparse tensor's parts are swapped or, where torch sees it, written to."""
    is_coo = a.layout == torch.sparse_coo
    parts = (a._indices(),) if is_coo else (a.crow_indices(), a.col_indices())
    return tuple((p.data_ptr(), _version(p), p.numel()) for p in parts)


def _version(tensor):
    return None if tensor.is_inference() else tensor._version  # nothing is kept of the former


def _matrix_graph(function, a):
    if a.requires_grad:
        check_weight(function, "A", a)
    if a.layout == torch.strided:
        return _cache.get((a,), "graph", lambda: _task_graph._from_dense(function, a))
    values = a._values() if a.layout == torch.sparse_coo else a.values()
    state = ("graph", values.data_ptr(), _version(values), _sparse_state(a))
    return _cache.get((a,), state, lambda: _task_graph._from_sparse(function, a))


def _of_sparse(function, a, w):
    if not a.requires_grad:
        return _of_task_graph(function, _matrix_graph(function, a), w)
    weight = a
    if a.layout == torch.sparse_coo:
        # before coalesce, which writes outside its memory for indices out of range
        check_range(function, "indices of A", a._indices().cpu(), a.shape[0])
        weight = a.coalesce()

    def build():
        edges = read_sparse(function, weight.detach())
        return torch.stack([edges.src, edges.dst]).to(a.device)

    # the values of a learnable matrix change at every step, its pattern does not
    state = ("pattern", _sparse_state(a))
    edge_index = _cache.get((a,), state, build, ignore_writes=True)
    return _learnable_edges(function, edge_index, weight.values(), w)
