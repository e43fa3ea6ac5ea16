"""Gram distances."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._native import empty, place
from mtlfast._torch import gram as tiles


def gram_dense(w, omega, want_grad):
    w, omega = w.contiguous(), omega.contiguous()
    real = real_dtype(w.dtype)
    grad = empty(w.shape if want_grad else (0, w.shape[1]), real)
    if not w.numel():
        return tiles.gram_dense(w, omega, want_grad)
    value = torch.empty((), dtype=real, device="cpu")
    _native._C.gram_dense(
        CODES[w.dtype], w.data_ptr(), omega.data_ptr(), *w.shape,
        value.data_ptr(), grad.data_ptr() if want_grad else 0, torch.get_num_threads(),
    )  # fmt: skip
    return value, grad


def gram_edges(w, row, col, values, want_w, want_values):
    if not w.numel() or max(w.shape[0], row.numel()) >= 2**31:
        return tiles.gram_edges(w, row, col, values, want_w, want_values)
    real = real_dtype(w.dtype)
    w, row, col, values = (t.contiguous() for t in (w, row, col, values.to(real)))
    value = torch.empty((), dtype=real, device="cpu")
    grad = empty(w.shape if want_w else (0, w.shape[1]), real)
    values_grad = empty(values.shape if want_values else (0,), real)
    _native._C.gram_edges(
        CODES[w.dtype], w.data_ptr(), row.data_ptr(), col.data_ptr(), values.data_ptr(),
        *w.shape, row.shape[0], value.data_ptr(), grad.data_ptr() if want_w else 0,
        values_grad.data_ptr() if want_values else 0, torch.get_num_threads(),
    )  # fmt: skip
    return value, grad, values_grad


def cuda_gram_edges(w, row, col, values, want_w, want_values):
    w, row, col = w.contiguous(), row.contiguous(), col.contiguous()
    real = real_dtype(w.dtype)
    values = values.to(real)
    products = w.new_zeros(row.shape, dtype=torch.float64)
    if w.numel() and row.numel():
        _native._C.cuda_edge_product(
            CODES[w.dtype], w.data_ptr(), row.data_ptr(), col.data_ptr(), *row.shape, w.shape[1],
            products.data_ptr(), *place(w),
        )  # fmt: skip
    small = tiles.small_gram(w)
    value, residual = tiles.edges_value(small, products, values.double())
    grad = small.new_empty((0, w.shape[1]))
    if want_w:
        grad = tiles.small_product(w, 4 * small)
        if grad.numel() and row.numel():
            _add_neighbours(grad, w, torch.cat([row, col]), torch.cat([col, row]), values)
    values_grad = -2 * residual if want_values else residual.new_empty((0,))
    return value.to(real), grad.to(real), values_grad.to(real)


def _add_neighbours(grad, w, task, other, values):
    """``grad -= 2 (Ω + Ωᵀ) W``; every entry of Ω has two ends."""
    task, order = task.sort(stable=True)
    other, weight = other[order], values.repeat(2)[order]
    sizes = task.shape[0], w.shape[1]
    work = w.new_empty((_native._C.cuda_edge_sum_workspace(*sizes),), dtype=torch.uint8)
    _native._C.cuda_edge_sum(
        CODES[w.dtype], w.data_ptr(), task.data_ptr(), other.data_ptr(), weight.data_ptr(),
        *sizes, -2.0, grad.data_ptr(), work.data_ptr(), *place(w),
    )  # fmt: skip
