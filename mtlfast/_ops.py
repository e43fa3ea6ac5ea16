"""The ops ``torch.ops.mtlfast.*``: schema, kernel, fallback and shapes of each, in one table.

An op's native kernel is the function of its name in :mod:`mtlfast._native`, registered for the CPU
where the compiled module is present; its fallback for every other device is the function of its
name in :mod:`mtlfast.reference`. Autograd lives outside, in the module of each regularizer.
"""

import functools

import torch

from mtlfast import _native, reference

_library = torch.library.Library("mtlfast", "DEF")


def _value(w, shape=()):
    return w.new_empty(shape, dtype=_native.real_dtype(w.dtype))


def _fallback(function):
    @functools.wraps(function)
    def run(w, *args):
        _native.warn_fallback(w.device.type)
        return function(w, *args)

    return run


# schema → the shapes and dtypes of what it returns
_OPS = {
    "pairwise_value(Tensor w) -> (Tensor, Tensor)": lambda w: (
        _value(w),
        _value(w, (2, w.shape[1])),
    ),
    "pairwise_affine(Tensor w, Tensor mean, Tensor scale, float factor, bool add_mean) -> Tensor": (
        lambda w, mean, scale, factor, add_mean: torch.empty_like(
            w, memory_format=torch.contiguous_format
        )
    ),
    "trace_norm_value(Tensor w, bool grad) -> (Tensor, Tensor)": lambda w, grad: (
        _value(w, w.shape[:-2]),
        w.new_empty(w.shape if grad else (0,)),
    ),
    "trace_norm_shrink(Tensor w, Tensor threshold) -> Tensor": lambda w, threshold: w.new_empty(
        w.shape
    ),
}


def _register():
    for schema, fake in _OPS.items():
        name = schema.partition("(")[0]
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        fallback = _fallback(getattr(reference, name))
        _library.impl(name, fallback, "CompositeExplicitAutograd")
        if not _native.missing:
            _library.impl(name, getattr(_native, name), "CPU")
        torch.library.register_fake(f"mtlfast::{name}", fake, lib=_library)


_register()

pairwise_value = torch.ops.mtlfast.pairwise_value.default
pairwise_affine = torch.ops.mtlfast.pairwise_affine.default
trace_norm_value = torch.ops.mtlfast.trace_norm_value.default
trace_norm_shrink = torch.ops.mtlfast.trace_norm_shrink.default
