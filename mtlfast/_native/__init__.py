"""The one importer of the compiled module, and what all calls of its kernels share.

A file for each family has its kernels for the CPU, under the names of the ops, and those for CUDA,
with ``cuda_`` before. Tensors go in and come out, addresses travel in between; arguments have been
checked by then. Work on a GPU is queued on the current stream, with work space from torch's
allocator; nothing waits but checks that are asked for, torch's own decompositions of large
matrices, and ``graph_prox``, whose number of iterations depends on what they find.
"""

from __future__ import annotations

import json
import math
import os
import warnings

import torch

from mtlfast._compat import current_stream
from mtlfast._dtypes import real_dtype

try:
    if os.environ.get("MTLFAST_DISABLE_NATIVE", "0") not in ("", "0"):
        raise ImportError("MTLFAST_DISABLE_NATIVE is set")
    import mtlfast._C as _C
except ModuleNotFoundError:
    _C, missing = None, "mtlfast was installed without kernels"  # type: ignore[assignment]
except ImportError as error:
    _C, missing = None, str(error)  # type: ignore[assignment]
else:
    missing = ""


class FallbackWarning(UserWarning):
    """The compiled module is not in use, so a call took the slower pure-PyTorch reference."""


_warned: set[str] = set()


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


_LARGE = 1 << 21  # bytes: below, the allocator of torch has warm memory at hand


def empty(shape, dtype):
    """An uninitialised tensor on the CPU; a large one in huge pages that are used again."""
    count = math.prod(shape) if dtype.itemsize * math.prod(shape) >= _LARGE else 0
    out = torch.empty(() if count else shape, dtype=dtype, device="cpu")
    if not count:
        return out
    memory = torch.frombuffer(_C.Memory(count * dtype.itemsize), dtype=dtype, count=count)
    return out.set_(memory.untyped_storage(), 0, shape)


def empty_like(w):
    return empty(w.shape, w.dtype)


def release_memory() -> int:
    """Gives the memory that is kept for the next large result back to the system.

    Gradients and other results of 2 MiB and more lie in huge pages; up to two of them are kept
    after they were freed, so that the next training step finds warm memory.

    Returns:
        The number of bytes that were given back.

    Example:
        >>> import mtlfast
        >>> mtlfast.release_memory() >= 0
        True
    """
    return 0 if missing else _C.release_memory()


NOTHING, MEAN, OUT = range(3)  # what pairwise_affine adds to


def in_place(out, write):
    """Lets ``write`` change ``out``, by way of a dense copy where it is not contiguous."""
    dense = out.contiguous()
    write(dense)
    changed(out, dense)


def changed(out, dense):
    """``dense``, which is ``out`` or a copy of it, was written to by address."""
    if dense is not out:
        out.copy_(dense)
    elif not out.is_inference():
        torch.autograd.graph.increment_version(out)


def scalar(w):
    """Where a kernel writes a value; 0 for a W without elements, for which none is called."""
    make = torch.empty if w.numel() else torch.zeros
    return make((), dtype=real_dtype(w.dtype), device="cpu")


def build_info():
    return json.loads(_C.build_info())


def cpu_isas():
    return tuple(json.loads(_C.runnable_isas()))


def use_isa(name=""):
    """The instruction set in use; with a name, switches to that one first."""
    return _C.use_isa(name)


def like(w):
    """An uninitialised contiguous tensor like ``w``, on its device."""
    return torch.empty_like(w, memory_format=torch.contiguous_format)


def place(w):
    """The index of a CUDA device and the address of its current stream."""
    index = w.get_device()
    return index, current_stream(index)
