"""The one importer of the compiled module: tensors in, tensors out, addresses in between.

Every function is the CPU twin of the function of the same name in :mod:`mtlfast.reference` and of
the op of the same name in :mod:`mtlfast._ops`. Arguments have been checked by then.
"""

import os
import warnings

import torch

from mtlfast import _spectral
from mtlfast.reference import require_finite, require_threshold

try:
    if os.environ.get("MTLFAST_DISABLE_NATIVE", "0") not in ("", "0"):
        raise ImportError("MTLFAST_DISABLE_NATIVE is set")
    from mtlfast import _C
except ImportError as error:
    _C, missing = None, str(error)
else:
    missing = ""

_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


class FallbackWarning(UserWarning):
    """The compiled module is not in use, so a call took the slower pure-PyTorch reference."""


_warned = set()


def warn_fallback(device):
    """Says once for each kind of device that calls take the reference, and why."""
    reason = missing if device == "cpu" else f"it has no kernels for device type {device!r}"
    if device not in _warned:
        _warned.add(device)
        warnings.warn(
            f"mtlfast: the compiled module is not used ({reason}); "
            "the pure-PyTorch reference runs instead, correct but slower",
            FallbackWarning,
            stacklevel=2,
        )


def real_dtype(dtype):
    """The arithmetic type for inputs of ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def pairwise_value(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    value = torch.zeros((), dtype=torch.float64)
    mean = torch.zeros((2, dim), dtype=real_dtype(w.dtype))
    if w.numel():
        _C.pairwise_value(
            _CODES[w.dtype], w.data_ptr(), num_tasks, dim,
            value.data_ptr(), mean.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return value.to(mean.dtype), mean


def pairwise_affine(w, mean, scale, factor, add_mean):
    w, mean = w.contiguous(), mean.contiguous()
    num_tasks, dim = w.shape
    out = torch.empty_like(w)
    if w.numel():
        _C.pairwise_affine(
            _CODES[w.dtype], w.data_ptr(), mean.data_ptr(), num_tasks, dim,
            scale.item() * factor, add_mean, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return out


def trace_norm_value(w, grad):
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous() if w.numel() else w
    batch, rows, columns = matrices.shape if w.numel() else (0, 0, 0)
    unit = torch.zeros(w.shape if grad else (0,), dtype=w.dtype)
    if not batch:
        return torch.zeros(w.shape[:-2], dtype=real_dtype(w.dtype)), unit
    if _spectral.takes_jacobi(batch, rows, columns, w.dtype, grad):
        value = torch.empty(batch, dtype=torch.float64)
        _C.trace_norm_value(
            _CODES[w.dtype], matrices.data_ptr(), batch, rows, columns,
            value.data_ptr(), unit.data_ptr() if grad else 0, torch.get_num_threads(),
        )  # fmt: skip
    else:
        value = _spectral.trace_norm_value(matrices, unit.view_as(matrices) if grad else None)
    if value.isnan().any():
        require_finite("trace_norm", w)
    return value.to(real_dtype(w.dtype)).reshape(w.shape[:-2]), unit


def trace_norm_shrink(w, threshold):
    require_threshold(threshold)
    out = torch.empty(w.shape, dtype=w.dtype)
    if not w.numel():
        return out
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous()
    batch, rows, columns = matrices.shape
    threshold = threshold.to(torch.float64).reshape(-1).contiguous()
    result = out.view_as(matrices)
    if _spectral.takes_jacobi(batch, rows, columns, w.dtype):
        _C.trace_norm_prox(
            _CODES[w.dtype], matrices.data_ptr(), threshold.data_ptr(), batch, rows, columns,
            result.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    else:
        _spectral.trace_norm_prox(matrices, threshold, result)
    if result[:, 0, 0].isnan().any():  # a matrix that is not finite comes back as NaN throughout
        require_finite("trace_norm_prox", w)
    return out
