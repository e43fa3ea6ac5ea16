"""The graph-weighted distance: over edges, over a dense A, over groups."""

import torch

from mtlfast.reference._base import plain, real


def _differences(w, src, dst, weight):
    """w_src − w_dst per edge; a zero weight is no edge, so that 0·Inf adds nothing."""
    x = real(w)
    diff = x[src] - x[dst]
    return diff.masked_fill((weight == 0).unsqueeze(1) & ~diff.isfinite(), 0)


@plain
def graph_reg(w, src, dst, weight):
    """Σ_e A_e ‖w_src(e) − w_dst(e)‖²."""
    weight = weight.to(real(w).dtype)
    return (weight * _differences(w, src, dst, weight).square().sum(1)).sum()


@plain
def graph_grad(w, src, dst, weight):
    """2 Σ_e A_e (w_src(e) − w_dst(e)), with its sign, at both ends of each edge."""
    weight = weight.to(real(w).dtype)
    pull = 2 * weight.unsqueeze(1) * _differences(w, src, dst, weight)
    return torch.zeros_like(real(w)).index_add(0, src, pull).index_add(0, dst, -pull)


@plain
def edge_distance(w, src, dst):
    """‖w_src − w_dst‖² per edge: the gradient in the weights."""
    x = real(w)
    return (x[src] - x[dst]).square().sum(1)


def edge_rows(row_ptr, col):
    """Row and column of every stored entry of a CSR matrix."""
    row = torch.arange(row_ptr.shape[0] - 1, device=row_ptr.device)
    return row.repeat_interleave(row_ptr.diff(), output_size=col.shape[0]), col.long()


def _value_and_grad(value, grad, scale, dtype):
    return value, value.new_empty((0,), dtype=dtype) if scale is None else (scale * grad()).to(
        dtype
    )


def ordered_edges(row_ptr, col, weight, order):
    """Source, target and A_ij of every stored entry, where row p is that of task order[p]."""
    row, col = edge_rows(row_ptr, col)
    # every pair is stored in both directions, so each counts half
    return row if order is None else order.long()[row], col, weight / 2


@plain
def graph_value(w, row_ptr, col, weight, order, scale):
    edges = ordered_edges(row_ptr, col, weight, order)
    value = graph_reg(w, *edges)
    return _value_and_grad(value, lambda: graph_grad(w, *edges), scale, w.dtype)


@plain
def graph_add_(out, w, row_ptr, col, weight, order, factor):
    """out += factor·gradient; returns the value."""
    edges = ordered_edges(row_ptr, col, weight, order)
    out.copy_(real(out) + factor * graph_grad(w, *edges))
    return graph_reg(w, *edges)


def edge_structure(edge_index, num_tasks):
    """Symmetric CSR pattern of a list of edges, in which every edge stands in both its rows.

    Returns row_ptr ``[K+1]``, col ``[2E]`` and the number of the edge behind each entry ``[2E]``,
    rows sorted by column; and the number of distinct edges that are no self loops.
    """
    if edge_index.numel() and not 0 <= edge_index.min() <= edge_index.max() < num_tasks:
        bad = ((edge_index < 0) | (edge_index >= num_tasks)).any(0).nonzero()[0].item()
        raise ValueError(
            f"graph_reg: edge_index must be in [0, K={num_tasks}), "
            f"got {edge_index[:, bad].tolist()} at position {bad}"
        )
    src, dst = edge_index
    key = torch.cat([src * num_tasks + dst, dst * num_tasks + src])
    key, order = torch.sort(key, stable=True)
    row = key.div(max(num_tasks, 1), rounding_mode="floor")
    row_ptr = torch.zeros(num_tasks + 1, dtype=torch.int64, device=key.device)
    row_ptr[1:] = torch.bincount(row, minlength=num_tasks).cumsum(0)
    distinct = torch.unique((src * num_tasks + dst)[src != dst]).numel()
    edge = order.remainder(max(src.shape[0], 1))
    return row_ptr, (key - row * num_tasks).int(), edge, torch.tensor(distinct, device=key.device)


def _row_tiles(w):
    """Rows so few at a time that all their differences to all rows stay near 2²² numbers."""
    return w.split(max(1, 2**22 // max(w.numel(), 1))) if w.shape[0] else ()


@plain
def dense_graph_reg(w, a):
    """Σ_ij A_ij ‖w_i − w_j‖² for a dense A."""
    x = real(w)
    a = a.to(x.dtype)
    total, begin = x.sum() * 0 if not w.shape[0] else x.new_zeros(()), 0
    for tile in _row_tiles(x):
        part = a[begin : begin + tile.shape[0], :, None]
        diff = tile[:, None] - x
        diff = diff.masked_fill((part == 0) & ~diff.isfinite(), 0)
        total = total + (part[:, :, 0] * diff.square().sum(2)).sum()
        begin += tile.shape[0]
    return total


@plain
def dense_graph_grad(w, a):
    """2 Σ_j (A_ij + A_ji) (w_i − w_j)."""
    x = real(w)
    both = (a + a.T).to(x.dtype)
    rows, begin = [], 0
    for tile in _row_tiles(x):
        part = both[begin : begin + tile.shape[0], :, None]
        diff = tile[:, None] - x
        diff = diff.masked_fill((part == 0) & ~diff.isfinite(), 0)
        rows.append(2 * (part * diff).sum(1))
        begin += tile.shape[0]
    return torch.cat(rows) if rows else torch.zeros_like(x)


@plain
def dense_graph_value(w, a, scale):
    value = dense_graph_reg(w, a)
    return _value_and_grad(value, lambda: dense_graph_grad(w, a), scale, w.dtype)


@plain
def dense_distance(w):
    """‖w_i − w_j‖² for all pairs."""
    x = real(w)
    rows = [(tile[:, None] - x).square().sum(2) for tile in _row_tiles(x)]
    return torch.cat(rows) if rows else x.new_zeros((0, 0))


def _group_centred(x, ptr, member):
    """Member rows minus their group's mean, taken relative to the group's first row, and n_g.

    A group too many, without members, takes part: where the sums of all groups are one row, older
    compilers read it while its gradient is still being added up.
    """
    size = ptr.diff()
    group = torch.arange(size.shape[0], device=ptr.device)
    group = group.repeat_interleave(size, output_size=member.shape[0])
    x = x[member]
    x = x - x[ptr[group]]
    n = torch.cat([size, size.new_ones(1)]).to(x.dtype)[:, None]
    # scatter_add, as the compiler stumbles over the forward derivative of index_add
    total = x.new_zeros((n.shape[0], x.shape[1]))
    mean = total.scatter_add(0, group[:, None].expand(-1, x.shape[1]), x) / n
    return x - mean[group], n[group]


@plain
def group_reg(w, ptr, member):
    """Σ_g 2 n_g Σ_i ‖w_i − w̄_g‖²."""
    x, n = _group_centred(real(w), ptr, member)
    return (2 * n * x.square()).sum()


@plain
def group_grad(w, ptr, member):
    """4 n_g (w_i − w̄_g)."""
    x, n = _group_centred(real(w), ptr, member)
    return x.new_zeros(w.shape).index_add(0, member, 4 * n * x)


@plain
def group_value(w, ptr, member, scale):
    value = group_reg(w, ptr, member)
    return _value_and_grad(value, lambda: group_grad(w, ptr, member), scale, w.dtype)


@plain
def group_prox(w, ptr, member, step):
    """w̄_g + (w_i − w̄_g)/(1 + 4 n_g·step); tasks in no group stay."""
    x = real(w)  # once: the gradients of two casts would be added up in 16 bits
    centred, n = _group_centred(x, ptr, member)
    shrink = 1 - 1 / (1 + 4 * n * step)  # 1, not NaN, where the step overflows
    return x.index_add(0, member, -shrink * centred).to(w.dtype)
