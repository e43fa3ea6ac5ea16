"""Distances along edges and of a dense graph."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._native import NOTHING, OUT, changed, empty_like, like, place


def graph_value(w, row_ptr, col, weight, order, scale):
    return edge_value_and_grad(_native._C.graph_value, w, (row_ptr, col, weight, order), scale)


def graph_add_(out, w, row_ptr, col, weight, order, factor):
    return edge_add_(_native._C.graph_value, out, w, (row_ptr, col, weight, order), factor)


def edge_value_and_grad(kernel, w, graph, scale):
    w = w.contiguous()
    real = real_dtype(w.dtype)
    if not (w.numel() and graph[1].numel()):
        grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
        return torch.zeros((), dtype=real, device="cpu"), grad
    grad = w.new_empty((0,)) if scale is None else empty_like(w)
    factor = 1.0 if scale is None else scale.item()
    address = 0 if scale is None else grad.data_ptr()
    return _edge_value(kernel, w, *graph, address, factor, False), grad


def _edge_value(kernel, w, row_ptr, col, weight, order, address, factor, add):
    value = torch.empty((), dtype=real_dtype(w.dtype), device="cpu")
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.contiguous()
    kernel(
        CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if order is None else order.data_ptr(), *w.shape, value.data_ptr(), address, factor,
        add, torch.get_num_threads(),
    )  # fmt: skip
    return value


def edge_add_(kernel, out, w, graph, factor):
    w = w.contiguous()
    if not (w.numel() and graph[1].numel()):
        return torch.zeros((), dtype=real_dtype(w.dtype), device="cpu")
    dense = out.contiguous()
    value = _edge_value(kernel, w, *graph, dense.data_ptr(), factor, True)
    changed(out, dense)
    return value


def value_and_grad(kernel, w, tensors, sizes, scale):
    """Value, and gradient times ``scale``; an empty gradient where ``scale`` is None."""
    w = w.contiguous()
    tensors = [t.contiguous() for t in tensors]
    value = torch.zeros((), dtype=torch.float64, device="cpu")
    grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
    if w.numel() and all(t.numel() for t in tensors):
        kernel(
            CODES[w.dtype], w.data_ptr(), *(t.data_ptr() for t in tensors), *sizes, w.shape[1],
            value.data_ptr(), grad.data_ptr() if scale is not None else 0,
            1.0 if scale is None else scale.item(), torch.get_num_threads(),
        )  # fmt: skip
    return value.to(real_dtype(w.dtype)), grad


def dense_graph_value(w, a, scale):
    return value_and_grad(_native._C.dense_graph_value, w, (a,), (w.shape[0],), scale)


def edge_distance(w, src, dst):
    w, src, dst = w.contiguous(), src.contiguous(), dst.contiguous()
    out = torch.zeros(src.shape, dtype=real_dtype(w.dtype), device="cpu")
    if w.numel() and src.numel():
        _native._C.edge_distance(
            CODES[w.dtype], w.data_ptr(), src.data_ptr(), dst.data_ptr(), src.shape[0],
            w.shape[1], out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return out


def dense_distance(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    out = torch.zeros((num_tasks, num_tasks), dtype=real_dtype(w.dtype), device="cpu")
    if w.numel():
        _native._C.dense_distance(
            CODES[w.dtype], w.data_ptr(), num_tasks, dim, out.data_ptr(), torch.get_num_threads()
        )
    return out


def cuda_graph_value(w, row_ptr, col, weight, order, scale):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
        return w.new_zeros((), dtype=real_dtype(w.dtype)), grad
    grad = w.new_empty((0,)) if scale is None else torch.empty_like(w)
    target = None if scale is None else grad
    return _graph_value(w, row_ptr, col, weight, order, target, 1.0, scale, NOTHING), grad


def cuda_graph_add_(out, w, row_ptr, col, weight, order, factor):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.new_zeros((), dtype=real_dtype(w.dtype))
    dense = out.contiguous()
    value = _graph_value(w, row_ptr, col, weight, order, dense, factor, None, OUT)
    changed(out, dense)
    return value


def _graph_value(w, row_ptr, col, weight, order, grad, factor, scale, plus):
    real, code, sizes = real_dtype(w.dtype), CODES[w.dtype], (*w.shape, col.shape[0])
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.contiguous()
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    work = w.new_empty((_native._C.cuda_graph_workspace(code, *sizes),), dtype=torch.uint8)
    _native._C.cuda_graph_value(
        code, w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if order is None else order.data_ptr(), *sizes, 1.0, value.data_ptr(),
        0 if grad is None else grad.data_ptr(), factor, 0 if scale is None else scale.data_ptr(),
        plus, work.data_ptr(), *place(w),
    )  # fmt: skip
    return value


def cuda_edge_distance(w, src, dst):
    w, src, dst = w.contiguous(), src.contiguous(), dst.contiguous()
    out = w.new_zeros(src.shape, dtype=real_dtype(w.dtype))
    if w.numel() and src.numel():
        _native._C.cuda_edge_distance(
            CODES[w.dtype], w.data_ptr(), src.data_ptr(), dst.data_ptr(), src.shape[0],
            w.shape[1], out.data_ptr(), *place(w),
        )  # fmt: skip
    return out


def cuda_dense_graph_value(w, a, scale):
    w, a = w.contiguous(), a.contiguous()
    real = real_dtype(w.dtype)
    grad = w.new_empty((0,)) if scale is None else like(w)
    if not w.numel():
        return w.new_zeros((), dtype=real), grad
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    work = w.new_empty((_native._C.cuda_dense_graph_workspace(*w.shape),), dtype=torch.uint8)
    _native._C.cuda_dense_graph_value(
        CODES[w.dtype], w.data_ptr(), a.data_ptr(), *w.shape, 1.0, value.data_ptr(),
        0 if scale is None else grad.data_ptr(), 1.0, 0 if scale is None else scale.data_ptr(),
        NOTHING, work.data_ptr(), *place(w),
    )  # fmt: skip
    return value, grad


def cuda_dense_distance(w):
    w = w.contiguous()
    out = w.new_zeros((w.shape[0],) * 2, dtype=real_dtype(w.dtype))
    if w.numel():
        _native._C.cuda_dense_distance(
            CODES[w.dtype], w.data_ptr(), *w.shape, out.data_ptr(), *place(w)
        )
    return out
