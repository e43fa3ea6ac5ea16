"""Trace norms and their prox."""

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._native import empty, empty_like, in_place, like, place
from mtlfast._torch import trace_norm as spectral
from mtlfast.reference import require_finite, require_threshold


def trace_norm_value(w, grad, check=True):
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous() if w.numel() else w
    batch, rows, columns = matrices.shape if w.numel() else (0, 0, 0)
    unit = empty(w.shape if grad else (0,), w.dtype)
    if not batch:
        return torch.zeros(w.shape[:-2], dtype=real_dtype(w.dtype), device="cpu"), unit
    route = spectral.route(batch, rows, columns, w.dtype, grad)
    if route == "lapack":
        value = spectral.trace_norm_value(matrices, unit.view_as(matrices) if grad else None)
    else:
        value = torch.empty(batch, dtype=torch.float64, device="cpu")
        kernel = (
            _native._C.trace_norm_value if route == "jacobi" else _native._C.trace_norm_gram_value
        )
        kernel(
            CODES[w.dtype], matrices.data_ptr(), batch, rows, columns,
            value.data_ptr(), unit.data_ptr() if grad else 0, torch.get_num_threads(),
        )  # fmt: skip
    bad = value.isnan()
    if bad.any():
        if check:
            require_finite("trace_norm", w)
        if grad:
            unit.view_as(matrices)[bad] = torch.nan
    return value.to(real_dtype(w.dtype)).reshape(w.shape[:-2]), unit


def _shrink(matrices, threshold, result, bad):
    """The prox into ``result``, which may be ``matrices``; ``bad`` tells which are not finite."""
    batch, rows, columns = matrices.shape
    route = spectral.route(batch, rows, columns, matrices.dtype)
    arguments = (
        CODES[matrices.dtype], matrices.data_ptr(), threshold.data_ptr(), batch, rows, columns,
        result.data_ptr(),
    )  # fmt: skip
    if route == "gram":
        finite = torch.empty(batch, dtype=torch.int64, device="cpu")
        _native._C.trace_norm_gram_prox(*arguments, finite.data_ptr(), torch.get_num_threads())
        torch.logical_not(finite, out=bad)
        return
    if route == "jacobi":
        _native._C.trace_norm_prox(*arguments, torch.get_num_threads())
    else:
        spectral.trace_norm_prox(matrices, threshold, result)
    # a matrix that is not finite comes back as NaN throughout
    corner = result[:, 0, 0]
    torch.ne(corner, corner, out=bad)


def _checked_shrink(function, w, matrices, threshold, result, check):
    """Nothing is allocated after ``result`` was written to, for it may be W."""
    threshold = threshold.to(torch.float64).reshape(-1).contiguous()
    bad = torch.empty(len(matrices), dtype=torch.bool, device="cpu")
    some = torch.empty((), dtype=torch.bool, device="cpu")
    illegal = None
    if not check:
        illegal = ~(threshold.isfinite() & (threshold >= 0))
        threshold = threshold.masked_fill(illegal, 0.0)
    _shrink(matrices, threshold, result, bad)
    if illegal is not None:
        bad |= illegal
    if torch.any(bad, out=some):
        if check:
            require_finite(function, w)
        result.masked_fill_(bad[:, None, None], torch.nan)


def trace_norm_shrink(w, threshold, check=True):
    if check:
        require_threshold(threshold)
    out = empty_like(w)
    if w.numel():
        matrices = w.reshape(-1, *w.shape[-2:]).contiguous()
        result = out.view_as(matrices)
        _checked_shrink("trace_norm_prox", w, matrices, threshold, result, check)
    return out


def trace_norm_shrink_(w, threshold, check=True):
    if check:
        require_threshold(threshold, "trace_norm_prox_")
    if not w.numel():
        return
    direct = w.is_contiguous()
    matrices = w.detach().reshape(-1, *w.shape[-2:]).contiguous()
    # one matrix is met whole before it is written; of a batch, none may be written before all
    alone = len(matrices) == 1 and spectral.route(*matrices.shape, w.dtype) == "gram"
    if check and not alone and not all(bound.isfinite() for bound in torch.aminmax(matrices)):
        require_finite("trace_norm_prox_", w)
    _checked_shrink("trace_norm_prox_", w, matrices, threshold, matrices, check)
    if direct:
        torch.autograd.graph.increment_version(w)
    else:
        w.copy_(matrices.view(w.shape))


def cuda_trace_norm_value(w, grad, check=True):
    if check:
        require_finite("trace_norm", w)
    real, unit = real_dtype(w.dtype), w.new_empty(w.shape if grad else (0,))
    if not w.numel():
        return w.new_zeros(w.shape[:-2], dtype=real), unit
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous()
    if not _native._C.cuda_trace_norm_matrices(*w.shape[-2:]):
        value = spectral.trace_norm_value(matrices, unit.view_as(matrices) if grad else None)
        return value.to(real).reshape(w.shape[:-2]), unit
    value = w.new_empty(w.shape[:-2], dtype=real)
    _native._C.cuda_trace_norm_value(
        CODES[w.dtype], matrices.data_ptr(), *matrices.shape, value.data_ptr(),
        unit.data_ptr() if grad else 0, *place(w),
    )  # fmt: skip
    return value, unit


def _cuda_shrink(w, threshold, out):
    if not w.numel():
        return
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous()
    threshold = threshold.to(torch.float64).reshape(-1).contiguous()
    if not _native._C.cuda_trace_norm_matrices(*w.shape[-2:]):
        spectral.trace_norm_prox(matrices, threshold, out.view_as(matrices))
        return
    _native._C.cuda_trace_norm_prox(
        CODES[w.dtype], matrices.data_ptr(), threshold.data_ptr(), *matrices.shape,
        out.data_ptr(), *place(w),
    )  # fmt: skip


def cuda_trace_norm_shrink(w, threshold, check=True):
    if check:
        require_threshold(threshold)
        require_finite("trace_norm_prox", w)
    out = like(w)
    _cuda_shrink(w, threshold, out)
    return out


def cuda_trace_norm_shrink_(w, threshold, check=True):
    if check:
        require_threshold(threshold, "trace_norm_prox_")
        require_finite("trace_norm_prox_", w)
    in_place(w, lambda dense: _cuda_shrink(dense.detach(), threshold, dense))
