"""The ops ``torch.ops.mtlfast.*``: schema, kernel, fallback and shapes of each, in one table.

An op's native kernel is the function of its name in :mod:`mtlfast._native`, registered for the CPU
where the compiled module is present, or of :mod:`mtlfast._native_cuda`, for CUDA where the module
holds such kernels; its fallback for every other device is the function of its name in
:mod:`mtlfast.reference`. Autograd lives outside, in the module of each regularizer.
"""

import functools

import torch

from mtlfast import _columns, _elements, _native, _native_cuda, _tiles, reference
from mtlfast._cache import TensorCache
from mtlfast._compat import calls_directly

_library = torch.library.Library("mtlfast", "DEF")


def _value(w, shape=()):
    return w.new_empty(shape, dtype=_native.real_dtype(w.dtype))


def _fallback(function):
    @functools.wraps(function)
    def run(w, *args):
        _native.warn_fallback(w.device.type)
        return function(w, *args)

    return run


def _value_and_grad(w, *args):
    *_, scale = args
    grad = w.new_empty((0,)) if scale is None else _like(w)
    return _value(w), grad


def _like(w, *args):
    return torch.empty_like(w, memory_format=torch.contiguous_format)


def _nothing(*args):
    """What an op returns that changes its first argument in place."""


def _edge_structure(edge_index, num_tasks):
    entries = 2 * edge_index.shape[1]
    return (
        edge_index.new_empty(num_tasks + 1),
        edge_index.new_empty(entries, dtype=torch.int32),
        edge_index.new_empty(entries),
        edge_index.new_empty(()),
    )


_GRAPH = "Tensor row_ptr, Tensor col, Tensor weight"
_ORDERED = f"{_GRAPH}, Tensor? order"
_STRENGTHS = "float ridge, float pairs, float edges"
_PIECES = f"{_GRAPH}, Tensor? first, Tensor? member"
_GROUPS = "Tensor ptr, Tensor member"

# schema → the shapes and dtypes of what it returns
_OPS = {
    "pairwise_value(Tensor w) -> (Tensor, Tensor)": (
        lambda w: (_value(w), _value(w, (2, w.shape[1])))
    ),
    "pairwise_value_grad(Tensor w) -> (Tensor, Tensor)": lambda w: (_value(w), _like(w)),
    "pairwise_affine(Tensor w, Tensor mean, Tensor scale, float factor, bool add_mean) -> Tensor": (
        _like
    ),
    "pairwise_add_(Tensor(a!) out, Tensor w, Tensor mean, float factor) -> ()": _nothing,
    "pairwise_shrink_(Tensor(a!) out, Tensor mean, float factor) -> ()": _nothing,
    f"graph_value(Tensor w, {_ORDERED}, Tensor? scale) -> (Tensor, Tensor)": _value_and_grad,
    f"graph_add_(Tensor(a!) out, Tensor w, {_ORDERED}, float factor) -> Tensor": (
        lambda out, w, *args: _value(w)
    ),
    f"quadratic_value(Tensor w, {_ORDERED}, {_STRENGTHS}, bool grad) -> (Tensor, Tensor)": (
        lambda w, *args: (_value(w), _like(w) if args[-1] else w.new_empty((0,)))
    ),
    f"quadratic_add_(Tensor(a!) out, Tensor w, {_ORDERED}, {_STRENGTHS}, float factor) -> Tensor": (
        lambda out, w, *args: _value(w)
    ),
    f"graph_total_variation_value(Tensor w, {_ORDERED}, Tensor? scale) -> (Tensor, Tensor)": (
        _value_and_grad
    ),
    f"graph_total_variation_add_(Tensor(a!) out, Tensor w, {_ORDERED}, float factor) -> Tensor": (
        lambda out, w, *args: _value(w)
    ),
    "dense_graph_value(Tensor w, Tensor a, Tensor? scale) -> (Tensor, Tensor)": _value_and_grad,
    f"group_value(Tensor w, {_GROUPS}, Tensor? scale) -> (Tensor, Tensor)": _value_and_grad,
    "edge_distance(Tensor w, Tensor src, Tensor dst) -> Tensor": (
        lambda w, src, dst: _value(w, src.shape)
    ),
    "dense_distance(Tensor w) -> Tensor": lambda w: _value(w, (w.shape[0], w.shape[0])),
    f"group_prox(Tensor w, {_GROUPS}, float step) -> Tensor": _like,
    f"graph_prox(Tensor w, {_PIECES}, float step, float tol, int max_iter) -> Tensor": _like,
    "edge_structure(Tensor edge_index, int num_tasks) -> (Tensor, Tensor, Tensor, Tensor)": (
        _edge_structure
    ),
    "trace_norm_value(Tensor w, bool grad, bool check=True) -> (Tensor, Tensor)": (
        lambda w, grad, check=True: (
            _value(w, w.shape[:-2]),
            w.new_empty(w.shape if grad else (0,)),
        )
    ),
    "trace_norm_shrink(Tensor w, Tensor threshold, bool check=True) -> Tensor": (
        lambda w, threshold, check=True: w.new_empty(w.shape)
    ),
    "trace_norm_shrink_(Tensor(a!) w, Tensor threshold, bool check=True) -> ()": _nothing,
}


def _kernels(name):
    """The fallback and the native kernel (None where there is none) of an op."""
    function = getattr(reference, name)
    if name == "edge_structure":  # index work, the same on every device
        return _remembered(function), None
    return _fallback(function), None if _native.missing else getattr(_native, name)


def _remembered(function):
    """Once per edge_index; copies go out, since a compiled graph may write over an op's outputs."""
    cache = TensorCache()

    @functools.wraps(function)
    def run(edge_index, num_tasks):
        parts = cache.get((edge_index,), num_tasks, lambda: function(edge_index, num_tasks))
        return tuple(part.clone() for part in parts)

    return run


def _register():
    for schema, fake in _OPS.items():
        name = schema.partition("(")[0]
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        fallback, native = _kernels(name)
        _library.impl(name, fallback, "CompositeExplicitAutograd")
        if native is not None:
            _library.impl(name, native, "CPU")
        _register_cuda(name)
        torch.library.register_fake(f"mtlfast::{name}", fake, lib=_library)


def _register_cuda(name):
    if name in _native_cuda.OPS:
        _library.impl(name, getattr(_native_cuda, name), "CUDA")


def _rows(w, wanted):
    """A unit gradient of the shape of ``w``, without rows where it is not wanted."""
    return _value(w, w.shape if wanted else (0, w.shape[1]))


# ops from torch calls in :mod:`mtlfast._columns`, as good as a kernel on devices without one
_COLUMNS = {
    "column_lengths(Tensor w) -> Tensor": (
        lambda w: w.new_empty((w.shape[1],), dtype=torch.float64)
    ),
    "column_scale(Tensor w, Tensor factor) -> Tensor": _like,
    "column_scale_(Tensor(a!) w, Tensor factor) -> ()": _nothing,
    "column_add_(Tensor(a!) out, Tensor w, Tensor factor) -> ()": _nothing,
}

# the same from torch calls in :mod:`mtlfast._elements`
_ELEMENTS = {
    "ridge_value(Tensor w, float strength) -> Tensor": lambda w, strength: _value(w),
    "ridge_value_grad(Tensor w, float strength) -> (Tensor, Tensor)": (
        lambda w, strength: (_value(w), _like(w))
    ),
    "ridge_scale(Tensor w, Tensor scale, float factor) -> Tensor": _like,
    "ridge_scale_(Tensor(a!) w, float factor) -> ()": _nothing,
    "ridge_add_(Tensor(a!) out, Tensor w, float strength, float alpha) -> Tensor": (
        lambda out, w, strength, alpha: _value(w)
    ),
}

# ops from torch calls in :mod:`mtlfast._tiles` where there is no kernel: opaque to the compiler,
# which would otherwise unroll their loops over tiles
_TILED = {
    "gram_dense(Tensor w, Tensor omega, bool want_grad) -> (Tensor, Tensor)": (
        lambda w, omega, want_grad: (_value(w), _rows(w, want_grad))
    ),
    "gram_dense_omega_grad(Tensor w, Tensor omega, Tensor scale) -> Tensor": (
        lambda w, omega, scale: torch.empty_like(omega, memory_format=torch.contiguous_format)
    ),
    "gram_edges(Tensor w, Tensor row, Tensor col, Tensor values, bool want_w, bool want_values)"
    " -> (Tensor, Tensor, Tensor)": (
        lambda w, row, col, values, want_w, want_values: (
            _value(w),
            _rows(w, want_w),
            _value(w, values.shape if want_values else (0,)),
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


def _register_composed(room, table):
    for schema, fake in table.items():
        name = schema.partition("(")[0]
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _library.impl(name, getattr(room, name), "CompositeExplicitAutograd")
        if hasattr(_native, name) and not _native.missing:
            _library.impl(name, getattr(_native, name), "CPU")
        _register_cuda(name)
        torch.library.register_fake(f"mtlfast::{name}", fake, lib=_library)


_register()
_register_composed(_columns, _COLUMNS)
_register_composed(_elements, _ELEMENTS)
_register_composed(_tiles, _TILED)


def _callable(name):
    """The op ``name``; a plain call on CPU tensors goes straight to the kernel and saves 2 µs."""
    op = getattr(torch.ops.mtlfast, name).default
    native = None if _native.missing else getattr(_native, name, None)
    if native is None:
        return op

    def call(w, *args):
        return native(w, *args) if w.is_cpu and calls_directly() else op(w, *args)

    return call


pairwise_value = _callable("pairwise_value")
pairwise_value_grad = _callable("pairwise_value_grad")
pairwise_affine = _callable("pairwise_affine")
pairwise_add_ = _callable("pairwise_add_")
pairwise_shrink_ = _callable("pairwise_shrink_")
ridge_value = _callable("ridge_value")
ridge_value_grad = _callable("ridge_value_grad")
ridge_scale = _callable("ridge_scale")
ridge_scale_ = _callable("ridge_scale_")
ridge_add_ = _callable("ridge_add_")
graph_value = _callable("graph_value")
graph_add_ = _callable("graph_add_")
quadratic_value = _callable("quadratic_value")
quadratic_add_ = _callable("quadratic_add_")
graph_total_variation_value = _callable("graph_total_variation_value")
graph_total_variation_add_ = _callable("graph_total_variation_add_")
dense_graph_value = _callable("dense_graph_value")
group_value = _callable("group_value")
edge_distance = torch.ops.mtlfast.edge_distance.default
dense_distance = torch.ops.mtlfast.dense_distance.default
group_prox = torch.ops.mtlfast.group_prox.default
graph_prox = torch.ops.mtlfast.graph_prox.default
edge_structure = torch.ops.mtlfast.edge_structure.default
gram_dense = torch.ops.mtlfast.gram_dense.default
gram_dense_omega_grad = torch.ops.mtlfast.gram_dense_omega_grad.default
column_lengths = torch.ops.mtlfast.column_lengths.default
column_scale = torch.ops.mtlfast.column_scale.default
column_scale_ = torch.ops.mtlfast.column_scale_.default
column_add_ = torch.ops.mtlfast.column_add_.default
gram_edges = torch.ops.mtlfast.gram_edges.default
gram_factor = torch.ops.mtlfast.gram_factor.default
trace_norm_value = torch.ops.mtlfast.trace_norm_value.default
trace_norm_shrink = torch.ops.mtlfast.trace_norm_shrink.default
trace_norm_shrink_ = torch.ops.mtlfast.trace_norm_shrink_.default
