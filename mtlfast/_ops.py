"""The ops ``torch.ops.mtlfast.*``: schema, kernel, fallback and shapes of each, in one table.

An op's native kernel is the function of its name in :mod:`mtlfast._native`, registered for the CPU
where the compiled module is present; its fallback for every other device is the function of its
name in :mod:`mtlfast.reference`. Autograd lives outside, in the module of each regularizer.
"""

import functools

import torch

from mtlfast import _native, _tiles, reference

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


def _rows(w, wanted):
    """A unit gradient of the shape of ``w``, without rows where it is not wanted."""
    return _value(w, w.shape if wanted else (0, w.shape[1]))


# ops without a native kernel, from torch calls in :mod:`mtlfast._tiles`: opaque to the compiler,
# which would otherwise unroll their loops over tiles
_TILED = {
    "gram_dense(Tensor w, Tensor omega, bool want_grad) -> (Tensor, Tensor)": (
        lambda w, omega, want_grad: (_value(w), _rows(w, want_grad))
    ),
    "gram_dense_omega_grad(Tensor w, Tensor omega, Tensor scale) -> Tensor": (
        lambda w, omega, scale: torch.empty_like(omega, memory_format=torch.contiguous_format)
    ),
    "gram_edges(Tensor w, Tensor row, Tensor col, Tensor values, bool want_grad)"
    " -> (Tensor, Tensor, Tensor)": (
        lambda w, row, col, values, want_grad: (
            _value(w),
            _rows(w, want_grad),
            _value(w, values.shape),
        )
    ),
    "gram_factor(Tensor w, Tensor factor, bool want_w, bool want_factor)"
    " -> (Tensor, Tensor, Tensor)": (
        lambda w, factor, want_w, want_factor: (
            _value(w),
            _rows(w, want_w),
            _rows(factor, want_factor),
        )
    ),
}


def _register_tiled():
    for schema, fake in _TILED.items():
        name = schema.partition("(")[0]
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _library.impl(name, getattr(_tiles, name), "CompositeExplicitAutograd")
        torch.library.register_fake(f"mtlfast::{name}", fake, lib=_library)


_register()
_register_tiled()

pairwise_value = torch.ops.mtlfast.pairwise_value.default
pairwise_affine = torch.ops.mtlfast.pairwise_affine.default
gram_dense = torch.ops.mtlfast.gram_dense.default
gram_dense_omega_grad = torch.ops.mtlfast.gram_dense_omega_grad.default
gram_edges = torch.ops.mtlfast.gram_edges.default
gram_factor = torch.ops.mtlfast.gram_factor.default
