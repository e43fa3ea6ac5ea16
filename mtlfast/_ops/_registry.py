"""How an op ``torch.ops.mtlfast.*`` is defined: schema, kernels, fallback and shapes at once."""

import functools
from typing import Any

import torch

from mtlfast import _native
from mtlfast._compat import calls_directly
from mtlfast._dtypes import real_dtype

_library = torch.library.Library("mtlfast", "DEF")
FALLBACK: dict[str, Any] = {}  # functions by the names of ops
CPU: dict[str, Any] = {}
CUDA: dict[str, Any] = {}


def cuda_ops():
    """Kernels for CUDA by the names of their ops; none where this build holds none."""
    return CUDA if not _native.missing and _native.build_info()["cuda"] else {}


def define(schema, shapes, fallback, cpu=None, cuda=None, *, is_slow=True, direct=False):
    """Defines an op and returns what calls it.

    Args:
        schema: of torch; the op's name is in front of the first parenthesis.
        shapes: called as the op, makes what it returns, with any content.
        fallback: what runs where there is no kernel.
        cpu, cuda: kernels, or None.
        is_slow: whether a fallback that is taken is said to be slow.
        direct: whether plain calls on CPU tensors go straight to the kernel, which saves 2 µs.

    Autograd lives outside, in the module of each regularizer.
    """
    name = schema.partition("(")[0]
    FALLBACK[name] = fallback
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, _warned(fallback) if is_slow else fallback, "CompositeExplicitAutograd")
    if cpu is not None:
        CPU[name] = cpu
        if not _native.missing:
            _library.impl(name, cpu, "CPU")
    if cuda is not None:
        CUDA[name] = cuda
        if cuda_ops():
            _library.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"mtlfast::{name}", shapes, lib=_library)
    op = getattr(torch.ops.mtlfast, name).default
    return _direct(op, cpu) if direct and not _native.missing else op


def _direct(op, kernel):
    def call(w, *args):
        return kernel(w, *args) if w.is_cpu and calls_directly() else op(w, *args)

    return call


def _warned(function):
    @functools.wraps(function)
    def run(w, *args):
        _native.warn_fallback(w.device.type)
        return function(w, *args)

    return run


# What ops return


def value(w, shape=()):
    return w.new_empty(shape, dtype=real_dtype(w.dtype))


def like(w, *args):
    return torch.empty_like(w, memory_format=torch.contiguous_format)


def nothing(*args):
    """Of an op that changes its first argument in place."""


def value_and_grad(w, *args):
    *_, scale = args
    return value(w), w.new_empty((0,)) if scale is None else like(w)


def added_value(out, w, *args):
    """Of an op that adds a gradient to its first argument."""
    return value(w)


def rows(w, wanted):
    """A gradient of the shape of ``w``, without rows where it is not wanted."""
    return value(w, w.shape if wanted else (0, w.shape[1]))
