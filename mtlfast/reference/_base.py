"""What every formula shares: the arithmetic type, and autocast off."""

import functools

import torch


def real(w):
    """``w`` in its arithmetic type: float64 stays, everything else is float32."""
    return w if w.dtype == torch.float64 else w.float()


def plain(function):
    """Runs ``function`` with autocast off, as every formula here must."""

    @functools.wraps(function)
    def wrapper(w, *args):
        if not torch.is_autocast_enabled(w.device.type):
            return function(w, *args)
        with torch.autocast(w.device.type, enabled=False):
            return function(w, *args)

    return wrapper
