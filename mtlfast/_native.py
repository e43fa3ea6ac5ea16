"""The one importer of the compiled module: tensors in, tensors out, addresses in between.

Every function is the CPU twin of the function of the same name in :mod:`mtlfast.reference` and of
the op of the same name in :mod:`mtlfast._ops`. Arguments have been checked by then.
"""

import os
import warnings

import torch

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
