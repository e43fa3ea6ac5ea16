"""The parts of a graph that come from a file, checked as its constructors would have made them."""

import torch

from mtlfast.graphs._read import check_count, check_range, check_size

_EDGES = {
    "row_ptr": (torch.int64,),
    "col": (torch.int32,),
    "weight": (torch.float32, torch.float64),
}
_GROUPS = {"group_ptr": (torch.int64,), "member": (torch.int64,)}


def check_parts(function, num_tasks, num_edges, tensors):
    """Raises where kernels could not trust the parts; on "meta" there is nothing to look at.

    Cost: one sort of the stored entries.
    """
    num_tasks = check_count(function, "num_tasks", num_tasks)
    check_size(function, num_tasks)
    num_edges = check_count(function, "num_edges", num_edges)
    kinds = _GROUPS if "member" in tensors else _EDGES
    if tensors.keys() != kinds.keys():
        raise ValueError(f"{function}: parts must be {list(kinds)}, got {sorted(tensors)}")
    for name, dtypes in kinds.items():
        _check_part(function, name, tensors[name], dtypes)
    parts = [tensors[name] for name in kinds]
    devices = {part.device for part in parts}
    if len(devices) > 1:
        raise ValueError(
            f"{function}: parts must be on one device, got {sorted(map(str, devices))}"
        )
    if all(type(part) is torch.Tensor and not part.is_meta for part in parts):
        check = _check_groups if kinds is _GROUPS else _check_edges
        check(function, num_tasks, num_edges, *parts)


def _check_part(function, name, part, dtypes):
    if not isinstance(part, torch.Tensor) or part.layout != torch.strided:
        raise TypeError(f"{function}: {name} must be a dense tensor, got {type(part).__name__}")
    if part.dtype not in dtypes or part.dim() != 1 or part.requires_grad:
        raise ValueError(
            f"{function}: {name} must be constants of {dtypes[0]} in one dimension, got "
            f"{part.dtype} of shape {list(part.shape)}, requires_grad={part.requires_grad}"
        )


def _check_pointers(function, name, pointer, stored):
    """Rising from 0 to ``stored``."""
    ends = [0, stored] if pointer.numel() > 1 else [0]
    got = pointer[:: max(pointer.numel() - 1, 1)].tolist()
    if got != ends or (pointer.diff() < 0).any() or ends[-1] != stored:
        raise ValueError(f"{function}: {name} must rise from 0 to {stored}, got ends {got}")


def _check_edges(function, num_tasks, num_edges, row_ptr, col, weight):
    if row_ptr.numel() != num_tasks + 1 or weight.shape != col.shape:
        raise ValueError(
            f"{function}: row_ptr must have K + 1 = {num_tasks + 1} entries and weight one for "
            f"each of col, got {row_ptr.numel()}, {weight.numel()} and {col.numel()}"
        )
    _check_pointers(function, "row_ptr", row_ptr, col.numel())
    check_range(function, "col", col, num_tasks)
    row = torch.arange(num_tasks, dtype=torch.int32, device=col.device)
    row = row.repeat_interleave(row_ptr.diff())
    within = row[1:] == row[:-1]
    if (within & (col[1:] <= col[:-1])).any() or (row == col).any():
        raise ValueError(f"{function}: col must rise within a row and leave out the task itself")
    mirrored, order = torch.sort(col, stable=True)
    same = torch.equal(mirrored, row) and torch.equal(row[order], col)
    if not same or not torch.equal(weight[order], weight) or not weight.isfinite().all():
        raise ValueError(f"{function}: the matrix must be symmetric, with finite weights")
    if not col.numel() <= 2 * num_edges:
        raise ValueError(
            f"{function}: num_edges must be at least {(col.numel() + 1) // 2}, got {num_edges}"
        )


def _check_groups(function, num_tasks, num_edges, group_ptr, member):
    _check_pointers(function, "group_ptr", group_ptr, member.numel())
    check_range(function, "member", member, num_tasks)
    if member.numel() and torch.bincount(member).max() > 1:
        raise ValueError(f"{function}: a task must be in one group at most")
    size = group_ptr.diff()
    edges = int((size * (size - 1)).sum())
    if num_edges != edges:
        raise ValueError(f"{function}: num_edges must be {edges}, got {num_edges}")
