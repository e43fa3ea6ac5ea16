"""Pairwise distances, and means."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._native import MEAN, NOTHING, OUT, empty_like, in_place, like, place


def pairwise_value(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    real = real_dtype(w.dtype)
    if not w.numel():
        return torch.zeros((), dtype=real, device="cpu"), torch.zeros(
            (2, dim), dtype=real, device="cpu"
        )
    value, mean = (
        torch.empty((), dtype=real, device="cpu"),
        torch.empty((2, dim), dtype=real, device="cpu"),
    )
    _native._C.pairwise_value(
        CODES[w.dtype], w.data_ptr(), num_tasks, dim,
        value.data_ptr(), mean.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return value, mean


def pairwise_value_grad(w):
    w = w.contiguous()
    real = real_dtype(w.dtype)
    if not w.numel():
        return torch.zeros((), dtype=real, device="cpu"), torch.zeros_like(w)
    value, grad = torch.empty((), dtype=real, device="cpu"), empty_like(w)
    _native._C.pairwise_value_grad(
        CODES[w.dtype], w.data_ptr(), *w.shape,
        value.data_ptr(), grad.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return value, grad


def _affine(w, mean, scale, plus, out):
    w, mean = w.contiguous(), mean.contiguous()
    num_tasks, dim = w.shape
    if w.numel():
        _native._C.pairwise_affine(
            CODES[w.dtype], w.data_ptr(), mean.data_ptr(), num_tasks, dim,
            scale, plus, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return out


def pairwise_affine(w, mean, scale, factor, add_mean):
    plus = MEAN if add_mean else NOTHING
    return _affine(w, mean, scale.item() * factor, plus, empty_like(w))


def pairwise_add_(out, w, mean, factor):
    in_place(out, lambda dense: _affine(w, mean, factor, OUT, dense))


def pairwise_shrink_(out, mean, factor):
    in_place(out, lambda dense: _affine(dense, mean, factor, MEAN, dense))


def cuda_pairwise_value(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    real = real_dtype(w.dtype)
    if not w.numel():
        return w.new_zeros((), dtype=real), w.new_zeros((2, dim), dtype=real)
    value, mean = w.new_empty((), dtype=real), w.new_empty((2, dim), dtype=real)
    size = _native._C.cuda_pairwise_workspace(CODES[w.dtype], num_tasks, dim)
    work = w.new_empty((size,), dtype=torch.uint8)
    _native._C.cuda_pairwise_value(
        CODES[w.dtype], w.data_ptr(), num_tasks, dim, 1.0,
        value.data_ptr(), mean.data_ptr(), work.data_ptr(), *place(w),
    )  # fmt: skip
    return value, mean


def cuda_pairwise_value_grad(w):
    value, mean = cuda_pairwise_value(w)
    return value, _cuda_affine(w, mean, None, 4.0 * w.shape[0], NOTHING, like(w))


def cuda_pairwise_affine(w, mean, scale, factor, add_mean):
    return _cuda_affine(w, mean, scale, factor, MEAN if add_mean else NOTHING, like(w))


def cuda_pairwise_add_(out, w, mean, factor):
    in_place(out, lambda dense: _cuda_affine(w, mean, None, factor, OUT, dense))


def cuda_pairwise_shrink_(out, mean, factor):
    in_place(out, lambda dense: _cuda_affine(dense, mean, None, factor, MEAN, dense))


def _cuda_affine(w, mean, scale, factor, plus, out):
    w, mean = w.contiguous(), mean.contiguous()
    if scale is not None:
        scale = scale.to(mean.dtype)
    if w.numel():
        _native._C.cuda_pairwise_affine(
            CODES[w.dtype], w.data_ptr(), mean.data_ptr(), *w.shape, factor,
            0 if scale is None else scale.data_ptr(), plus, out.data_ptr(), *place(w),
        )  # fmt: skip
    return out
