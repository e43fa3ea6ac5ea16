"""From an adjacency in any form to one checked edge list, and from that to symmetric CSR.

``read_edges``, ``read_dense``, ``read_sparse`` and ``read_networkx`` return :class:`Edges`; nothing
here reads out of bounds before its indices have been checked. ``function`` is the name that the
messages begin with. All work is done on the CPU, so that every device gets the same bits.
"""

import typing
from typing import Any

import numpy as np
import torch

from mtlfast._dtypes import DTYPES

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


class Edges(typing.NamedTuple):
    num_tasks: int
    src: torch.Tensor  # int64 [E] on the CPU, in [0, num_tasks)
    dst: torch.Tensor  # int64 [E]
    weight: torch.Tensor | None  # float64 [E], finite; None when all are 1
    dtype: torch.dtype  # of the result: float64 for float64 weights, else float32
    device: torch.device  # where the caller's arrays live


def check_count(function: str, argument: str, value: Any, least: int = 0) -> int:
    """An integer ≥ ``least``, as an int."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{function}: {argument} must be an integer, got {type(value).__name__}")
    if isinstance(value, torch.Tensor) and (value.dim() or not _is_integer(value.dtype)):
        raise TypeError(f"{function}: {argument} must be an integer, got a tensor")
    value = int(value)
    if value < least:
        raise ValueError(f"{function}: {argument} must be >= {least}, got {value}")
    return value


def check_size(function, num_tasks):
    """Columns are 32-bit."""
    if num_tasks >= 2**31:
        raise NotImplementedError(
            f"{function}: graphs are limited to 2**31 - 1 tasks, got {num_tasks}"
        )


def _is_integer(dtype):
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def as_tensor(function, argument, value):
    """A tensor, numpy array or nested list of numbers as a dense tensor."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise TypeError(f"{function}: {argument} must be a dense tensor, got {value.layout}")
        return value
    if not isinstance(value, (list, tuple)) and not hasattr(value, "__array__"):
        raise TypeError(
            f"{function}: {argument} must be a tensor, a numpy array or a list, "
            f"got {type(value).__name__}"
        )
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{function}: {argument} must be rectangular, got lists of different lengths"
        ) from None
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
        raise TypeError(f"{function}: {argument} must hold numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # A copy wherever torch would share memory with an array that it must not write or cannot read.
    if not (array.dtype.isnative and array.flags.writeable and min(array.strides, default=0) >= 0):
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def as_vector(weight):
    """Weights ``[E]``, of ``[E, 1]`` too, the form of edge attributes in other packages."""
    return weight[:, 0] if weight.dim() == 2 and weight.shape[1] == 1 else weight


def is_scipy_sparse(A):
    return hasattr(A, "tocoo") and hasattr(A, "format") and hasattr(A, "nnz")


def check_weight(function, argument, weight):
    """Weights in float64 on the CPU and the dtype of the result; finite, positions as given."""
    if weight.dtype not in DTYPES and weight.dtype != torch.bool and not _is_integer(weight.dtype):
        raise TypeError(f"{function}: {argument} must hold real numbers, got {weight.dtype}")
    if weight.requires_grad:
        raise ValueError(
            f"{function}: {argument} must not require grad, as its weights are constants here; "
            "learnable weights go to graph_reg as a plain tensor, got requires_grad=True"
        )
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    weight = weight.to("cpu")
    if weight.is_floating_point():
        bad = weight.isfinite().logical_not_()
        if bad.any():
            at = tuple(bad.nonzero()[0].tolist())
            where = at[0] if len(at) == 1 else at
            value = weight[at].item()
            raise ValueError(
                f"{function}: {argument} must be finite, got {value} at position {where}"
            )
    return weight, dtype


def check_range(function, argument, index, num_tasks):
    """Every entry of ``index`` in [0, num_tasks); the position is along the last dimension."""
    if not index.numel():
        return
    low, high = (x.item() for x in index.aminmax())
    if low >= 0 and high < num_tasks:
        return
    at = ((index < 0) | (index >= num_tasks)).nonzero()[:, -1].min().item()
    column = index[..., at].reshape(-1)
    value = next(v for v in column.tolist() if not 0 <= v < num_tasks)
    raise ValueError(
        f"{function}: {argument} must be in [0, K={num_tasks}), got {value} at position {at}"
    )


def read_edges(function, edge_index, edge_weight=None, num_tasks=None):
    index = as_tensor(function, "edge_index", edge_index)
    if not index.numel():  # of any dtype: nothing in it is no integer
        index = index.to(torch.int64)
    if not _is_integer(index.dtype):
        raise TypeError(f"{function}: edge_index must hold integers, got {index.dtype}")
    if index.dim() != 2 or index.shape[0] != 2:
        raise ValueError(f"{function}: edge_index must have shape [2, E], got {list(index.shape)}")
    device, index = index.device, index.to("cpu", torch.int64)
    if num_tasks is None:
        num_tasks = max(index.max().item() + 1, 0) if index.numel() else 0
    else:
        num_tasks = check_count(function, "num_tasks", num_tasks)
    weight, dtype = None, torch.float32
    if edge_weight is not None:
        weight = as_vector(as_tensor(function, "edge_weight", edge_weight))
        if list(weight.shape) != [index.shape[1]]:
            raise ValueError(
                f"{function}: edge_weight must have shape [E={index.shape[1]}], "
                f"got {list(weight.shape)}"
            )
        if isinstance(edge_weight, torch.Tensor) and weight.device != device:
            raise ValueError(
                f"{function}: edge_weight must be on edge_index's device {device}, "
                f"got {weight.device}"
            )
        weight, dtype = check_weight(function, "edge_weight", weight)
    check_range(function, "edge_index", index, num_tasks)
    check_size(function, num_tasks)
    if weight is not None:
        weight = weight.to(torch.float64)
    return Edges(num_tasks, index[0], index[1], weight, dtype, device)


def _check_square(function, shape):
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{function}: A must have shape [K, K], got {list(shape)}")
    check_size(function, shape[0])


def read_dense(function, A):
    a = as_tensor(function, "A", A)
    if isinstance(A, (list, tuple)) and not A:
        a = a.reshape(0, 0)
    _check_square(function, a.shape)
    device = a.device
    a, dtype = check_weight(function, "A", a)
    src, dst = a.nonzero(as_tuple=True)
    return Edges(a.shape[0], src, dst, a[src, dst].to(torch.float64), dtype, device)


def read_sparse(function, A):
    """A torch COO, CSR or CSC tensor, or any scipy sparse matrix or array."""
    if isinstance(A, torch.Tensor):
        if A.layout not in _LAYOUTS:
            raise TypeError(
                f"{function}: A must have layout torch.sparse_coo, torch.sparse_csr or "
                f"torch.sparse_csc, got {A.layout}"
            )
        _check_square(function, A.shape)
        if A.requires_grad:
            check_weight(function, "A", A)
        if A.layout == torch.sparse_coo:
            pointer, parts, values = None, A._indices(), A._values()
        elif A.layout == torch.sparse_csr:
            pointer, parts, values = A.crow_indices(), A.col_indices(), A.values()
        else:
            pointer, parts, values = A.ccol_indices(), A.row_indices(), A.values()
        device, by_column = A.device, A.layout == torch.sparse_csc
    elif is_scipy_sparse(A):
        _check_square(function, A.shape)
        if A.format in ("csr", "csc"):  # by hand: scipy's own conversion trusts the pointers
            arrays = (A.indptr, A.indices, A.data)
        else:
            coo = A.tocoo()
            arrays = (None, np.stack([coo.row, coo.col]), coo.data)
            if A.format == "bsr":  # zeros that only fill a block are not stored entries
                kept = coo.data != 0
                arrays = (None, arrays[1][:, kept], coo.data[kept])
        pointer, parts, values = (x if x is None else as_tensor(function, "A", x) for x in arrays)
        device, by_column = torch.device("cpu"), A.format == "csc"
    else:
        raise TypeError(
            f"{function}: A must be a sparse tensor or a scipy sparse matrix, "
            f"got {type(A).__name__}"
        )
    if values.dim() != 1:
        raise ValueError(
            f"{function}: A must store one number per entry, "
            f"got stored values of shape {list(values.shape)}"
        )
    num_tasks, parts = A.shape[0], parts.to("cpu", torch.int64)
    if pointer is not None:
        if list(parts.shape) != list(values.shape):
            raise ValueError(
                f"{function}: A must store as many indices as values, "
                f"got {parts.numel()} and {values.numel()}"
            )
        outer = _expand(function, pointer.to("cpu", torch.int64), num_tasks, values.numel())
        check_range(function, "indices of A", parts, num_tasks)
        parts = (parts, outer) if by_column else (outer, parts)
    else:
        check_range(function, "indices of A", parts, num_tasks)
    weight, dtype = check_weight(function, "A", values)
    return Edges(num_tasks, parts[0], parts[1], weight.to(torch.float64), dtype, device)


def _expand(function, pointer, num_tasks, stored):
    """Row of each stored entry from compressed row pointers, which are checked first."""
    rule = f"{function}: pointers of A must rise from 0 to {stored} in {num_tasks + 1} steps"
    if list(pointer.shape) != [num_tasks + 1]:
        raise ValueError(f"{rule}, got shape {list(pointer.shape)}")
    for at in (0, num_tasks):
        if pointer[at] != (stored if at else 0):
            raise ValueError(f"{rule}, got {pointer[at].item()} at position {at}")
    count = pointer.diff()
    if num_tasks and count.min() < 0:
        at = (count < 0).nonzero()[0].item() + 1
        raise ValueError(
            f"{rule}, got {pointer[at].item()} after {pointer[at - 1].item()} at position {at}"
        )
    row = torch.arange(num_tasks, device="cpu")
    return torch.repeat_interleave(row, count, output_size=stored)


def read_networkx(function, G, weight="weight"):
    if not all(hasattr(G, name) for name in ("nodes", "edges", "is_directed")):
        raise TypeError(f"{function}: G must be a networkx graph, got {type(G).__name__}")
    number = {node: i for i, node in enumerate(G.nodes)}
    src, dst, values = [], [], []
    for u, v, value in G.edges(data=weight, default=1):
        src.append(number[u])
        dst.append(number[v])
        values.append(value)
    if not G.is_directed():
        src, dst, values = src + dst, dst + src, values + values
    index = np.array([src, dst], dtype=np.int64).reshape(2, -1)
    return read_edges(function, index, None if weight is None else values, len(number))


def symmetric_csr(function, edges):
    """``(row_ptr, col, weight, number of stored off-diagonal entries)`` of s_ij = A_ij + A_ji.

    One sort of the keys (min·K + max)·2 + direction brings duplicates together, and the two
    directions of a pair next to each other. Duplicates are summed per direction in the order
    given, then the directions are added, so A and Aᵀ give the same bits.
    """
    num_tasks = edges.num_tasks
    src, dst, weight = edges.src, edges.dst, edges.weight
    off = src != dst
    if not off.all():
        src, dst = src[off], dst[off]
        weight = None if weight is None else weight[off]
    key = torch.minimum(src, dst).mul_(num_tasks).add_(torch.maximum(src, dst))
    key = key.mul_(2).add_(src > dst)
    del src, dst, off
    key, order = torch.sort(key, stable=True)
    if weight is not None:
        weight = weight[order]
    del order
    key, weight = _sum_runs(key, weight)
    num_edges = key.numel()
    key, weight = _sum_runs(key.bitwise_right_shift_(1), weight)
    if not weight.all():
        key, weight = key[weight != 0], weight[weight != 0]
    low = key.div(max(num_tasks, 1), rounding_mode="floor")
    high = key.sub_(low * num_tasks)
    rounded = weight.to(edges.dtype)
    if not rounded.isfinite().all():
        at = rounded.isfinite().logical_not_().nonzero()[0].item()
        raise ValueError(
            f"{function}: A_ij + A_ji must be finite in {edges.dtype}, "
            f"got {weight[at].item()} for tasks {low[at].item()} and {high[at].item()}"
        )
    return *_mirror(low, high, rounded, num_tasks), num_edges


def _sum_runs(key, weight):
    """Distinct values of the sorted ``key`` and the sum of ``weight`` (ones when None) of each."""
    if weight is None:
        weight = torch.ones_like(key, dtype=torch.float64)
    starts = torch.ones_like(key, dtype=torch.bool)
    torch.ne(key[1:], key[:-1], out=starts[1:])
    if starts.all():
        return key, weight
    run = starts.cumsum(0).sub_(1)
    return key[starts], torch.bincount(run, weight)


def _mirror(low, high, weight, num_tasks):
    """Symmetric CSR from pairs low < high sorted by (low, high): row i is its lows, its highs."""
    below, above = (torch.bincount(x, minlength=num_tasks) for x in (high, low))
    row_ptr = low.new_zeros(num_tasks + 1)
    torch.cumsum(below + above, 0, out=row_ptr[1:])
    col = low.new_empty(2 * low.numel(), dtype=torch.int32)
    out = weight.new_empty(2 * low.numel())
    here = torch.arange(low.numel(), device=low.device)
    # Entry p of row `low` comes after all of the row's smaller columns.
    at = (row_ptr[:-1] + below - (above.cumsum(0) - above))[low].add_(here)
    col[at], out[at] = high.to(torch.int32), weight
    by_high, order = torch.sort(high, stable=True)
    at = (row_ptr[:-1] - (below.cumsum(0) - below))[by_high].add_(here)
    col[at], out[at] = low[order].to(torch.int32), weight[order]
    return row_ptr, col, out
