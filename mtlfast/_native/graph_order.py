"""The order and the pieces of a graph, on the CPU."""

import torch

from mtlfast import _native
from mtlfast._native import empty_like


def graph_order(row_ptr, col):
    """An order in which neighbours are near, and by how much their share grows, from -1 to 1."""
    order = torch.empty(row_ptr.shape[0] - 1, dtype=torch.int32, device="cpu")
    return order, _native._C.graph_order(
        row_ptr.data_ptr(), col.data_ptr(), order.shape[0], order.data_ptr()
    )


def graph_reorder(row_ptr, col, weight, order):
    """The rows of a CSR matrix in the given order."""
    parts = tuple(empty_like(part) for part in (row_ptr, col, weight))
    tensors = (row_ptr, col, weight, order, *parts)
    first, last = [t.data_ptr() for t in tensors[:3]], [t.data_ptr() for t in tensors[3:]]
    _native._C.graph_reorder(*first, weight.itemsize, order.shape[0], *last)
    return parts


def graph_pieces(row_ptr, col):
    """Where each connected piece begins, int64 ``[P + 1]``, and the tasks of all, int32 ``[K]``."""
    num_tasks = row_ptr.shape[0] - 1
    first = torch.empty(num_tasks + 1, dtype=torch.int64, device="cpu")
    member = torch.empty(num_tasks, dtype=torch.int32, device="cpu")
    count = _native._C.graph_pieces(
        row_ptr.data_ptr(), col.data_ptr(), num_tasks, first.data_ptr(), member.data_ptr()
    )
    return first[: count + 1].clone(), member
