"""The total variation over a graph's edges: distances, not their squares."""

import torch

from mtlfast.reference._base import plain, real
from mtlfast.reference.graph import ordered_edges

_SCALES = {torch.float32: 100, torch.float64: 1000}  # of powers of two that are numbers


def _units(x, src, dst, weight):
    """A_e times (w_src − w_dst)/‖w_src − w_dst‖ and times that length, at any scale of W.

    Both are 0 where two rows coincide, with a derivative of 0, not NaN.
    """
    # differences, and their sums, of numbers up to the largest are finite
    less = torch.where(x.detach().abs().amax() > torch.finfo(x.dtype).max / 2**10, 2.0**-10, 1.0)
    less = less.to(x.dtype)
    difference = less * x[src] - less * x[dst]
    largest = difference.detach().abs().amax(1, keepdim=True)
    most, good = _SCALES[x.dtype], largest.isfinite() & (largest > 0)
    exponent = torch.where(good, torch.frexp(largest).exponent, 0).clamp(-most, most)
    scale = torch.ldexp(torch.ones_like(largest), -exponent)
    difference = difference * scale
    squares = difference.square().sum(1, keepdim=True)
    apart = squares != 0  # NaN too
    length = torch.where(apart, torch.where(apart, squares, 1).sqrt(), 0)
    unit = difference / torch.where(apart, length, 1)
    unit = torch.where(length.isfinite(), unit, torch.nan)
    weight = weight.to(x.dtype)[:, None]
    return weight * unit, weight * length / scale / less


@plain
def graph_total_variation(w, src, dst, weight):
    """Σ_e A_e ‖w_src(e) − w_dst(e)‖."""
    x = real(w)
    if not (x.numel() and src.numel()):
        return x.sum() * 0
    return _units(x, src, dst, weight)[1].sum()


@plain
def graph_total_variation_grad(w, src, dst, weight):
    """A_e (w_src(e) − w_dst(e))/‖w_src(e) − w_dst(e)‖ at both ends, 0 where they coincide."""
    x = real(w)
    if not (x.numel() and src.numel()):
        return torch.zeros_like(x)
    pull, _ = _units(x, src, dst, weight)
    return torch.zeros_like(x).index_add(0, src, pull).index_add(0, dst, -pull)


@plain
def graph_total_variation_value(w, row_ptr, col, weight, order, scale):
    edges = ordered_edges(row_ptr, col, weight, order)
    value = graph_total_variation(w, *edges)
    if scale is None:
        return value, value.new_empty((0,), dtype=w.dtype)
    return value, (scale * graph_total_variation_grad(w, *edges)).to(w.dtype)


@plain
def graph_total_variation_add_(out, w, row_ptr, col, weight, order, factor):
    """out += factor·gradient; returns the value."""
    edges = ordered_edges(row_ptr, col, weight, order)
    out.copy_(real(out) + factor * graph_total_variation_grad(w, *edges))
    return graph_total_variation(w, *edges)
