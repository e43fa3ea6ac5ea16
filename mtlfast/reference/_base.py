"""What every formula shares: the arithmetic type, and autocast off."""

import contextlib
import functools

import torch


def real(w):
    """``w`` in its arithmetic type: float64 stays, everything else is float32."""
    return w if w.dtype == torch.float64 else w.float()


def autocast_dtype(device):
    """The dtype of torch's products under autocast on a kind of device; None where it is off.

    "meta" has no autocast, and torch raises when it is asked about such a kind of device. Whether a
    kind has it cannot be asked in code that torch < 2.12 compiles.
    """
    if device == "meta":
        return None
    known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    if not (known and torch.is_autocast_enabled(device)):
        return None
    return torch.get_autocast_dtype(device)


def outside_autocast(device):
    """Suspends autocast on a kind of device."""
    if autocast_dtype(device) is None:
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def plain(function):
    """Runs ``function`` with autocast off, as every formula here must."""

    @functools.wraps(function)
    def wrapper(w, *args):
        with outside_autocast(w.device.type):
            return function(w, *args)

    return wrapper
