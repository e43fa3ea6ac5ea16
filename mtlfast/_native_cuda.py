"""The CUDA twins of the functions of the same name in :mod:`mtlfast._native`.

Work is queued on the current stream; work space comes from torch's allocator, and nothing waits.
"""

import torch

from mtlfast import _native
from mtlfast._compat import current_stream
from mtlfast._native import _CODES, _MEAN, _NOTHING, _OUT, _changed, _in_place, real_dtype

_kernels = _native._C

TWINS = (
    "pairwise_value",
    "pairwise_value_grad",
    "pairwise_affine",
    "pairwise_add_",
    "pairwise_shrink_",
    "graph_value",
    "graph_add_",
    "edge_distance",
    "dense_graph_value",
    "dense_distance",
)
OPS = TWINS if not _native.missing and _native.build_info()["cuda"] else ()  # of this build


def _place(w):
    """The device's index and the address of its current stream."""
    index = w.get_device()
    return index, current_stream(index)


def pairwise_value(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    real = real_dtype(w.dtype)
    if not w.numel():
        return w.new_zeros((), dtype=real), w.new_zeros((2, dim), dtype=real)
    value, mean = w.new_empty((), dtype=real), w.new_empty((2, dim), dtype=real)
    size = _kernels.cuda_pairwise_workspace(_CODES[w.dtype], num_tasks, dim)
    work = w.new_empty((size,), dtype=torch.uint8)
    _kernels.cuda_pairwise_value(
        _CODES[w.dtype], w.data_ptr(), num_tasks, dim, 1.0,
        value.data_ptr(), mean.data_ptr(), work.data_ptr(), *_place(w),
    )  # fmt: skip
    return value, mean


def pairwise_value_grad(w):
    value, mean = pairwise_value(w)
    return value, _affine(w, mean, None, 4.0 * w.shape[0], _NOTHING, _like(w))


def pairwise_affine(w, mean, scale, factor, add_mean):
    return _affine(w, mean, scale, factor, _MEAN if add_mean else _NOTHING, _like(w))


def pairwise_add_(out, w, mean, factor):
    _in_place(out, lambda dense: _affine(w, mean, None, factor, _OUT, dense))


def pairwise_shrink_(out, mean, factor):
    _in_place(out, lambda dense: _affine(dense, mean, None, factor, _MEAN, dense))


def _like(w):
    return torch.empty_like(w, memory_format=torch.contiguous_format)


def _affine(w, mean, scale, factor, plus, out):
    w, mean = w.contiguous(), mean.contiguous()
    if scale is not None:
        scale = scale.to(mean.dtype)
    if w.numel():
        _kernels.cuda_pairwise_affine(
            _CODES[w.dtype], w.data_ptr(), mean.data_ptr(), *w.shape, factor,
            0 if scale is None else scale.data_ptr(), plus, out.data_ptr(), *_place(w),
        )  # fmt: skip
    return out


def graph_value(w, row_ptr, col, weight, order, scale):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
        return w.new_zeros((), dtype=real_dtype(w.dtype)), grad
    grad = w.new_empty((0,)) if scale is None else torch.empty_like(w)
    target = None if scale is None else grad
    return _graph_value(w, row_ptr, col, weight, order, target, 1.0, scale, _NOTHING), grad


def graph_add_(out, w, row_ptr, col, weight, order, factor):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.new_zeros((), dtype=real_dtype(w.dtype))
    dense = out.contiguous()
    value = _graph_value(w, row_ptr, col, weight, order, dense, factor, None, _OUT)
    _changed(out, dense)
    return value


def _graph_value(w, row_ptr, col, weight, order, grad, factor, scale, plus):
    real, code, sizes = real_dtype(w.dtype), _CODES[w.dtype], (*w.shape, col.shape[0])
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.contiguous()
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    work = w.new_empty((_kernels.cuda_graph_workspace(code, *sizes),), dtype=torch.uint8)
    _kernels.cuda_graph_value(
        code, w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if order is None else order.data_ptr(), *sizes, 1.0, value.data_ptr(),
        0 if grad is None else grad.data_ptr(), factor, 0 if scale is None else scale.data_ptr(),
        plus, work.data_ptr(), *_place(w),
    )  # fmt: skip
    return value


def edge_distance(w, src, dst):
    w, src, dst = w.contiguous(), src.contiguous(), dst.contiguous()
    out = w.new_zeros(src.shape, dtype=real_dtype(w.dtype))
    if w.numel() and src.numel():
        _kernels.cuda_edge_distance(
            _CODES[w.dtype], w.data_ptr(), src.data_ptr(), dst.data_ptr(), src.shape[0],
            w.shape[1], out.data_ptr(), *_place(w),
        )  # fmt: skip
    return out


def dense_graph_value(w, a, scale):
    w, a = w.contiguous(), a.contiguous()
    real = real_dtype(w.dtype)
    grad = w.new_empty((0,)) if scale is None else _like(w)
    if not w.numel():
        return w.new_zeros((), dtype=real), grad
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    work = w.new_empty((_kernels.cuda_dense_graph_workspace(*w.shape),), dtype=torch.uint8)
    _kernels.cuda_dense_graph_value(
        _CODES[w.dtype], w.data_ptr(), a.data_ptr(), *w.shape, 1.0, value.data_ptr(),
        0 if scale is None else grad.data_ptr(), 1.0, 0 if scale is None else scale.data_ptr(),
        _NOTHING, work.data_ptr(), *_place(w),
    )  # fmt: skip
    return value, grad


def dense_distance(w):
    w = w.contiguous()
    out = w.new_zeros((w.shape[0],) * 2, dtype=real_dtype(w.dtype))
    if w.numel():
        _kernels.cuda_dense_distance(
            _CODES[w.dtype], w.data_ptr(), *w.shape, out.data_ptr(), *_place(w)
        )
    return out
