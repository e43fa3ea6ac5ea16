"""Steps of the dual variables of a total variation, on the CPU."""

import torch

from mtlfast import _native
from mtlfast._native import changed, empty, empty_like


def _pair_addresses(pairs):
    return tuple(part.data_ptr() for part in pairs)


def edge_dual_step(u, former, w, pairs, radius, length, momentum, scale):
    """Writes the next dual variables into ``former`` and returns their adjoint ``[K, d]``."""
    w, out = w.contiguous(), empty_like(w)
    if not w.numel():
        return out
    _native._C.edge_dual_step(
        u.data_ptr(), former.data_ptr(), w.data_ptr(), *_pair_addresses(pairs), radius.data_ptr(),
        0 if length is None else length.data_ptr(), *w.shape, u.shape[0], momentum, scale,
        out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    changed(former, former)
    return out


def edge_dual_adjoint(u, pairs):
    out = empty((pairs[0].shape[0] - 1, u.shape[1]), u.dtype)
    if out.numel():
        _native._C.edge_dual_adjoint(
            u.data_ptr(), *_pair_addresses(pairs), *out.shape, u.shape[0], out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
    return out


def edge_dual_value(w, pairs, radius):
    w = w.contiguous()
    if not w.numel():
        return 0.0
    return _native._C.edge_dual_value(
        w.data_ptr(), *_pair_addresses(pairs), radius.data_ptr(), *w.shape, radius.shape[0],
        torch.get_num_threads(),
    )  # fmt: skip
