"""Edges, pairs and ridge in one pass."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._native import changed, empty_like, scalar
from mtlfast._native.graph import cuda_graph_add_, cuda_graph_value
from mtlfast._native.pairwise import cuda_pairwise_add_, cuda_pairwise_value
from mtlfast._torch import ridge as elements


def _quadratic(w, row_ptr, col, weight, order, strengths, address, factor, add):
    value = torch.empty((), dtype=real_dtype(w.dtype), device="cpu")
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.contiguous()
    _native._C.quadratic(
        CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if order is None else order.data_ptr(), col.shape[0], *w.shape, *strengths,
        value.data_ptr(), address, factor, add, torch.get_num_threads(),
    )  # fmt: skip
    return value


def quadratic_value(w, row_ptr, col, weight, order, ridge, pairs, edges, grad):
    w = w.contiguous()
    out = empty_like(w) if grad else w.new_empty((0,))
    if not w.numel():
        return scalar(w), out
    address, strengths = out.data_ptr() if grad else 0, (ridge, pairs, edges)
    return _quadratic(w, row_ptr, col, weight, order, strengths, address, 1.0, False), out


def quadratic_add_(out, w, row_ptr, col, weight, order, ridge, pairs, edges, factor):
    w = w.contiguous()
    if not w.numel():
        return scalar(w)
    dense, strengths = out.contiguous(), (ridge, pairs, edges)
    value = _quadratic(w, row_ptr, col, weight, order, strengths, dense.data_ptr(), factor, True)
    changed(out, dense)
    return value


def cuda_quadratic_value(w, row_ptr, col, weight, order, ridge, pairs, edges, grad):
    scale = w.new_full((), edges, dtype=real_dtype(w.dtype)) if grad else None
    value, out = cuda_graph_value(w, row_ptr, col, weight, order, scale)
    return _with_the_rest(value, out if grad else None, w, ridge, pairs, edges, 1.0), out


def cuda_quadratic_add_(out, w, row_ptr, col, weight, order, ridge, pairs, edges, factor):
    value = cuda_graph_add_(out, w, row_ptr, col, weight, order, edges * factor)
    return _with_the_rest(value, out, w, ridge, pairs, edges, factor)


def _with_the_rest(value, out, w, ridge, pairs, edges, factor):
    """The whole value from that over edges; ``out``, if any, += factor·gradient of the rest."""
    total = edges * value.double()
    if pairs:
        distance, mean = cuda_pairwise_value(w)
        total += pairs * distance.double()
        if out is not None:
            cuda_pairwise_add_(out, w, mean, 4.0 * w.shape[0] * pairs * factor)
    if ridge and out is None:
        total += elements.ridge_value(w, ridge)
    elif ridge:
        total += elements.ridge_add_(out, w, ridge, factor)
    return total.to(value.dtype)
