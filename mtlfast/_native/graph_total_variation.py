"""Lengths along edges, and steps of their dual variables."""

import torch

from mtlfast import _native
from mtlfast._dtypes import real_dtype
from mtlfast._native.graph import (
    cuda_edge_distance,
    cuda_graph_add_,
    cuda_graph_value,
    edge_add_,
    edge_value_and_grad,
)
from mtlfast.reference import ordered_edges


def graph_total_variation_value(w, row_ptr, col, weight, order, scale):
    return edge_value_and_grad(
        _native._C.graph_total_variation, w, (row_ptr, col, weight, order), scale
    )


def graph_total_variation_add_(out, w, row_ptr, col, weight, order, factor):
    return edge_add_(
        _native._C.graph_total_variation, out, w, (row_ptr, col, weight, order), factor
    )


_SUM = 2048


def _sum(x):
    """The sum in float64, in an order that the size alone decides."""
    while x.numel() > _SUM:
        full = x.numel() // _SUM * _SUM
        x = torch.cat([x[:full].view(-1, _SUM).sum(1), x[full:].sum()[None]])
    return x.sum()


def _variation(w, row_ptr, col, weight, order):
    """The value; w in a scale of its own, and s/(2‖w_i − w_j‖) in it for each stored entry.

    The scale is one for all of W: rows that are far nearer than the largest entry, by 10^19 in
    float32 and by 10^154 in float64, count as equal.
    """
    exponent = torch.frexp(w.abs().amax().double().nan_to_num(1, 1)).exponent
    most = 1000 if w.dtype == torch.float64 else 126 if w.dtype != torch.float16 else 0
    scale = torch.ldexp(
        torch.ones_like(exponent, dtype=torch.float64), -exponent.clamp(-most, most)
    )
    x = w * scale.to(w.dtype)
    row, col, half = ordered_edges(row_ptr, col, weight.double(), order)
    lengths = cuda_edge_distance(x, row, col.long()).double().sqrt()
    value = (_sum(half * lengths) / scale).to(real_dtype(w.dtype))
    pull = torch.where(lengths == 0, 0.0, half / torch.where(lengths == 0, 1.0, lengths))
    # a weight of 0 is no edge for the kernel: Inf would be hidden
    return value, x, torch.where(lengths == torch.inf, torch.nan, pull).to(weight.dtype)


def cuda_graph_total_variation_value(w, row_ptr, col, weight, order, scale):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return cuda_graph_value(w, row_ptr, col, weight, order, scale)
    value, x, pull = _variation(w, row_ptr, col, weight, order)
    if scale is None:
        return value, w.new_empty((0,))
    return value, cuda_graph_value(x, row_ptr, col, pull, order, scale)[1]


def cuda_graph_total_variation_add_(out, w, row_ptr, col, weight, order, factor):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.new_zeros((), dtype=real_dtype(w.dtype))
    value, x, pull = _variation(w, row_ptr, col, weight, order)
    cuda_graph_add_(out, x, row_ptr, col, pull, order, factor)
    return value
