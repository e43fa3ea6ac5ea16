"""Columns: their lengths, scaled."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._native import NOTHING, OUT, empty_like, in_place


def column_lengths(w):
    w = w.contiguous()
    length = torch.zeros((w.shape[1],), dtype=torch.float64, device="cpu")
    if w.numel():
        _native._C.column_lengths(
            CODES[w.dtype], w.data_ptr(), *w.shape, length.data_ptr(), torch.get_num_threads()
        )
    return length


def _column_scale(w, factor, plus, out):
    w, factor = w.contiguous(), factor.to(real_dtype(w.dtype))
    if w.numel():
        _native._C.column_scale(
            CODES[w.dtype], w.data_ptr(), factor.data_ptr(), *w.shape, plus, out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
    return out


def column_scale(w, factor):
    return _column_scale(w, factor, NOTHING, empty_like(w))


def column_scale_(w, factor):
    in_place(w, lambda dense: _column_scale(dense, factor, NOTHING, dense))


def column_add_(out, w, factor):
    in_place(out, lambda dense: _column_scale(w, factor, OUT, dense))
