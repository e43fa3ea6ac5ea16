"""The total variation over a graph's edges: distances, not their squares."""

import torch

from mtlfast.reference._base import plain, real


def _lengths(difference):
    """‖w_i − w_j‖; a derivative of 0, not NaN, where two rows coincide."""
    squares = difference.square().sum(1)
    apart = squares != 0  # NaN too
    return torch.where(apart, torch.where(apart, squares, 1).sqrt(), 0)


@plain
def graph_total_variation(w, src, dst, weight):
    """Σ_e A_e ‖w_src(e) − w_dst(e)‖."""
    x = real(w)
    return (weight.to(x.dtype) * _lengths(x[src] - x[dst])).sum()


@plain
def graph_total_variation_grad(w, src, dst, weight):
    """A_e (w_src(e) − w_dst(e))/‖w_src(e) − w_dst(e)‖ at both ends, 0 where they coincide."""
    x = real(w)
    difference = x[src] - x[dst]
    lengths = _lengths(difference)
    pull = (weight.to(x.dtype) / torch.where(lengths == 0, 1, lengths))[:, None] * difference
    return torch.zeros_like(x).index_add(0, src, pull).index_add(0, dst, -pull)
