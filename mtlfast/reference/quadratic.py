"""A sum of the squares of W, of the distances of all pairs, and of those over edges."""

from mtlfast.reference._base import plain, real
from mtlfast.reference.graph import graph_grad, graph_reg, ordered_edges
from mtlfast.reference.pairwise import pairwise_grad, pairwise_reg
from mtlfast.reference.ridge import ridge_grad, ridge_reg


@plain
def quadratic_value(w, row_ptr, col, weight, order, ridge, pairs, edges, grad):
    """Value, and its gradient where ``grad`` wants one."""
    src, dst, half = ordered_edges(row_ptr, col, weight, order)
    value = ridge * ridge_reg(w) + pairs * pairwise_reg(w) + edges * graph_reg(w, src, dst, half)
    if not grad:
        return value, w.new_empty((0,))
    return value, _grad(w, src, dst, half, ridge, pairs, edges).to(w.dtype)


@plain
def quadratic_add_(out, w, row_ptr, col, weight, order, ridge, pairs, edges, factor):
    """out += factor·gradient; returns the value."""
    src, dst, half = ordered_edges(row_ptr, col, weight, order)
    out.copy_(real(out) + factor * _grad(w, src, dst, half, ridge, pairs, edges))
    return quadratic_value(w, row_ptr, col, weight, order, ridge, pairs, edges, False)[0]


def _grad(w, src, dst, half, ridge, pairs, edges):
    total = ridge * ridge_grad(w) + pairs * pairwise_grad(w)
    return total + edges * graph_grad(w, src, dst, half)
