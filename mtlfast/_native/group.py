"""Distances in groups, and their prox."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._native import place
from mtlfast._native.graph import value_and_grad


def group_value(w, ptr, member, scale):
    return value_and_grad(_native._C.group_value, w, (ptr, member), (ptr.shape[0] - 1,), scale)


def group_prox(w, ptr, member, step):
    out = w.clone(memory_format=torch.contiguous_format)
    if w.numel() and member.numel():
        _native._C.group_prox(
            CODES[w.dtype], out.data_ptr(), ptr.data_ptr(), member.data_ptr(), ptr.shape[0] - 1,
            w.shape[1], step, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return out


def _groups(w, ptr, member):
    """Sizes and tensors that both kernels of groups take, and their work space."""
    sizes, tensors = (ptr.shape[0] - 1, *member.shape, w.shape[1]), (w, ptr, member)
    work = w.new_empty(
        (_native._C.cuda_group_workspace(CODES[w.dtype], *sizes),), dtype=torch.uint8
    )
    return sizes, [t.data_ptr() for t in tensors], work


def cuda_group_value(w, ptr, member, scale):
    w, ptr, member = w.contiguous(), ptr.contiguous(), member.contiguous()
    real = real_dtype(w.dtype)
    grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
    if not (w.numel() and member.numel()):
        return w.new_zeros((), dtype=real), grad
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    sizes, addresses, work = _groups(w, ptr, member)
    _native._C.cuda_group_value(
        CODES[w.dtype], *addresses, *sizes, 1.0, value.data_ptr(),
        0 if scale is None else grad.data_ptr(), 1.0, 0 if scale is None else scale.data_ptr(),
        work.data_ptr(), *place(w),
    )  # fmt: skip
    return value, grad


def cuda_group_prox(w, ptr, member, step):
    out = w.clone(memory_format=torch.contiguous_format)
    ptr, member = ptr.contiguous(), member.contiguous()
    if out.numel() and member.numel():
        sizes, addresses, work = _groups(out, ptr, member)
        _native._C.cuda_group_prox(
            CODES[w.dtype], *addresses, *sizes, step, out.data_ptr(), work.data_ptr(), *place(w)
        )
    return out
