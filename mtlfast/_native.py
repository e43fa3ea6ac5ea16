"""The one importer of the compiled module: tensors in, tensors out, addresses in between.

Every function is the CPU twin of the function of the same name in :mod:`mtlfast.reference` and of
the op of the same name in :mod:`mtlfast._ops`. Arguments have been checked by then.
"""

import math
import os
import warnings

import torch

from mtlfast import _spectral, _tiles
from mtlfast.reference import by_pieces, require_finite, require_solved, require_threshold

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


def release_memory():
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


def pairwise_value(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    real = real_dtype(w.dtype)
    if not w.numel():
        return torch.zeros((), dtype=real, device="cpu"), torch.zeros(
            (2, dim), dtype=real, device="cpu"
        )
    value, mean = (
        torch.empty((), dtype=real, device="cpu"),
        torch.empty((2, dim), dtype=real, device="cpu"),
    )
    _C.pairwise_value(
        _CODES[w.dtype], w.data_ptr(), num_tasks, dim,
        value.data_ptr(), mean.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return value, mean


def pairwise_value_grad(w):
    w = w.contiguous()
    real = real_dtype(w.dtype)
    if not w.numel():
        return torch.zeros((), dtype=real, device="cpu"), torch.zeros_like(w)
    value, grad = torch.empty((), dtype=real, device="cpu"), empty_like(w)
    _C.pairwise_value_grad(
        _CODES[w.dtype], w.data_ptr(), *w.shape,
        value.data_ptr(), grad.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return value, grad


_NOTHING, _MEAN, _OUT = range(3)  # what pairwise_affine adds to


def _affine(w, mean, scale, plus, out):
    w, mean = w.contiguous(), mean.contiguous()
    num_tasks, dim = w.shape
    if w.numel():
        _C.pairwise_affine(
            _CODES[w.dtype], w.data_ptr(), mean.data_ptr(), num_tasks, dim,
            scale, plus, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return out


def pairwise_affine(w, mean, scale, factor, add_mean):
    plus = _MEAN if add_mean else _NOTHING
    return _affine(w, mean, scale.item() * factor, plus, empty_like(w))


def pairwise_add_(out, w, mean, factor):
    _in_place(out, lambda dense: _affine(w, mean, factor, _OUT, dense))


def pairwise_shrink_(out, mean, factor):
    _in_place(out, lambda dense: _affine(dense, mean, factor, _MEAN, dense))


def _in_place(out, write):
    """Lets ``write`` change ``out``, by way of a dense copy where it is not contiguous."""
    dense = out.contiguous()
    write(dense)
    _changed(out, dense)


def _changed(out, dense):
    """``dense``, which is ``out`` or a copy of it, was written to by address."""
    if dense is not out:
        out.copy_(dense)
    elif not out.is_inference():
        torch.autograd.graph.increment_version(out)


def _ridge(w, strength, value, out, factor, plus):
    """value = strength·Σ w² and out = factor·w, plus nothing or out; None leaves one out."""
    _C.ridge(
        _CODES[w.dtype], w.data_ptr(), w.numel(), strength,
        0 if value is None else value.data_ptr(), 0 if out is None else out.data_ptr(), factor,
        plus, torch.get_num_threads(),
    )  # fmt: skip


def _scalar(w):
    """Where a kernel writes a value; 0 for a W without elements, for which none is called."""
    make = torch.empty if w.numel() else torch.zeros
    return make((), dtype=real_dtype(w.dtype), device="cpu")


def ridge_value(w, strength):
    w, value = w.contiguous(), _scalar(w)
    if w.numel():
        _ridge(w, strength, value, None, 0.0, _NOTHING)
    return value


def ridge_value_grad(w, strength):
    w, value, grad = w.contiguous(), _scalar(w), empty_like(w)
    if w.numel():
        _ridge(w, strength, value, grad, 2 * strength, _NOTHING)
    return value, grad


def ridge_scale(w, scale, factor):
    w, out = w.contiguous(), empty_like(w)
    if w.numel():
        _ridge(w, 0.0, None, out, scale.item() * factor, _NOTHING)
    return out


def ridge_scale_(w, factor):
    if w.numel():
        _in_place(w, lambda dense: _ridge(dense, 0.0, None, dense, factor, _NOTHING))


def ridge_add_(out, w, strength, alpha):
    w, value = w.contiguous(), _scalar(w)
    if w.numel():
        factor = 2 * strength * alpha
        _in_place(out, lambda dense: _ridge(w, strength, value, dense, factor, _OUT))
    return value


def graph_order(row_ptr, col):
    """An order in which neighbours are near, and by how much their share grows, from -1 to 1."""
    order = torch.empty(row_ptr.shape[0] - 1, dtype=torch.int32, device="cpu")
    return order, _C.graph_order(
        row_ptr.data_ptr(), col.data_ptr(), order.shape[0], order.data_ptr()
    )


def graph_reorder(row_ptr, col, weight, order):
    """The rows of a CSR matrix in the given order."""
    parts = tuple(empty_like(part) for part in (row_ptr, col, weight))
    tensors = (row_ptr, col, weight, order, *parts)
    first, last = [t.data_ptr() for t in tensors[:3]], [t.data_ptr() for t in tensors[3:]]
    _C.graph_reorder(*first, weight.itemsize, order.shape[0], *last)
    return parts


def graph_value(w, row_ptr, col, weight, order, scale):
    return _edge_value_and_grad(_C.graph_value, w, (row_ptr, col, weight, order), scale)


def graph_add_(out, w, row_ptr, col, weight, order, factor):
    return _edge_add_(_C.graph_value, out, w, (row_ptr, col, weight, order), factor)


def graph_total_variation_value(w, row_ptr, col, weight, order, scale):
    return _edge_value_and_grad(_C.graph_total_variation, w, (row_ptr, col, weight, order), scale)


def graph_total_variation_add_(out, w, row_ptr, col, weight, order, factor):
    return _edge_add_(_C.graph_total_variation, out, w, (row_ptr, col, weight, order), factor)


def _edge_value_and_grad(kernel, w, graph, scale):
    w = w.contiguous()
    real = real_dtype(w.dtype)
    if not (w.numel() and graph[1].numel()):
        grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
        return torch.zeros((), dtype=real, device="cpu"), grad
    grad = w.new_empty((0,)) if scale is None else empty_like(w)
    factor = 1.0 if scale is None else scale.item()
    address = 0 if scale is None else grad.data_ptr()
    return _edge_value(kernel, w, *graph, address, factor, False), grad


def _edge_value(kernel, w, row_ptr, col, weight, order, address, factor, add):
    value = torch.empty((), dtype=real_dtype(w.dtype), device="cpu")
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.contiguous()
    kernel(
        _CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if order is None else order.data_ptr(), *w.shape, value.data_ptr(), address, factor,
        add, torch.get_num_threads(),
    )  # fmt: skip
    return value


def _edge_add_(kernel, out, w, graph, factor):
    w = w.contiguous()
    if not (w.numel() and graph[1].numel()):
        return torch.zeros((), dtype=real_dtype(w.dtype), device="cpu")
    dense = out.contiguous()
    value = _edge_value(kernel, w, *graph, dense.data_ptr(), factor, True)
    _changed(out, dense)
    return value


def _quadratic(w, row_ptr, col, weight, order, strengths, address, factor, add):
    value = torch.empty((), dtype=real_dtype(w.dtype), device="cpu")
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.contiguous()
    _C.quadratic(
        _CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if order is None else order.data_ptr(), col.shape[0], *w.shape, *strengths,
        value.data_ptr(), address, factor, add, torch.get_num_threads(),
    )  # fmt: skip
    return value


def quadratic_value(w, row_ptr, col, weight, order, ridge, pairs, edges, grad):
    w = w.contiguous()
    out = empty_like(w) if grad else w.new_empty((0,))
    if not w.numel():
        return _scalar(w), out
    address, strengths = out.data_ptr() if grad else 0, (ridge, pairs, edges)
    return _quadratic(w, row_ptr, col, weight, order, strengths, address, 1.0, False), out


def quadratic_add_(out, w, row_ptr, col, weight, order, ridge, pairs, edges, factor):
    w = w.contiguous()
    if not w.numel():
        return _scalar(w)
    dense, strengths = out.contiguous(), (ridge, pairs, edges)
    value = _quadratic(w, row_ptr, col, weight, order, strengths, dense.data_ptr(), factor, True)
    _changed(out, dense)
    return value


def _value_and_grad(kernel, w, tensors, sizes, scale):
    """Value, and gradient times ``scale``; an empty gradient where ``scale`` is None."""
    w = w.contiguous()
    tensors = [t.contiguous() for t in tensors]
    value = torch.zeros((), dtype=torch.float64, device="cpu")
    grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
    if w.numel() and all(t.numel() for t in tensors):
        kernel(
            _CODES[w.dtype], w.data_ptr(), *(t.data_ptr() for t in tensors), *sizes, w.shape[1],
            value.data_ptr(), grad.data_ptr() if scale is not None else 0,
            1.0 if scale is None else scale.item(), torch.get_num_threads(),
        )  # fmt: skip
    return value.to(real_dtype(w.dtype)), grad


def dense_graph_value(w, a, scale):
    return _value_and_grad(_C.dense_graph_value, w, (a,), (w.shape[0],), scale)


def group_value(w, ptr, member, scale):
    return _value_and_grad(_C.group_value, w, (ptr, member), (ptr.shape[0] - 1,), scale)


def edge_distance(w, src, dst):
    w, src, dst = w.contiguous(), src.contiguous(), dst.contiguous()
    out = torch.zeros(src.shape, dtype=real_dtype(w.dtype), device="cpu")
    if w.numel() and src.numel():
        _C.edge_distance(
            _CODES[w.dtype], w.data_ptr(), src.data_ptr(), dst.data_ptr(), src.shape[0],
            w.shape[1], out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return out


def dense_distance(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    out = torch.zeros((num_tasks, num_tasks), dtype=real_dtype(w.dtype), device="cpu")
    if w.numel():
        _C.dense_distance(
            _CODES[w.dtype], w.data_ptr(), num_tasks, dim, out.data_ptr(), torch.get_num_threads()
        )
    return out


def gram_dense(w, omega, want_grad):
    w, omega = w.contiguous(), omega.contiguous()
    real = real_dtype(w.dtype)
    grad = empty(w.shape if want_grad else (0, w.shape[1]), real)
    if not w.numel():
        return _tiles.gram_dense(w, omega, want_grad)
    value = torch.empty((), dtype=real, device="cpu")
    _C.gram_dense(
        _CODES[w.dtype], w.data_ptr(), omega.data_ptr(), *w.shape,
        value.data_ptr(), grad.data_ptr() if want_grad else 0, torch.get_num_threads(),
    )  # fmt: skip
    return value, grad


def gram_edges(w, row, col, values, want_w, want_values):
    if not w.numel() or max(w.shape[0], row.numel()) >= 2**31:
        return _tiles.gram_edges(w, row, col, values, want_w, want_values)
    real = real_dtype(w.dtype)
    w, row, col, values = (t.contiguous() for t in (w, row, col, values.to(real)))
    value = torch.empty((), dtype=real, device="cpu")
    grad = empty(w.shape if want_w else (0, w.shape[1]), real)
    values_grad = empty(values.shape if want_values else (0,), real)
    _C.gram_edges(
        _CODES[w.dtype], w.data_ptr(), row.data_ptr(), col.data_ptr(), values.data_ptr(),
        *w.shape, row.shape[0], value.data_ptr(), grad.data_ptr() if want_w else 0,
        values_grad.data_ptr() if want_values else 0, torch.get_num_threads(),
    )  # fmt: skip
    return value, grad, values_grad


def column_lengths(w):
    w = w.contiguous()
    length = torch.zeros((w.shape[1],), dtype=torch.float64, device="cpu")
    if w.numel():
        _C.column_lengths(
            _CODES[w.dtype], w.data_ptr(), *w.shape, length.data_ptr(), torch.get_num_threads()
        )
    return length


def _column_scale(w, factor, plus, out):
    w, factor = w.contiguous(), factor.to(real_dtype(w.dtype))
    if w.numel():
        _C.column_scale(
            _CODES[w.dtype], w.data_ptr(), factor.data_ptr(), *w.shape, plus, out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
    return out


def column_scale(w, factor):
    return _column_scale(w, factor, _NOTHING, empty_like(w))


def column_scale_(w, factor):
    _in_place(w, lambda dense: _column_scale(dense, factor, _NOTHING, dense))


def column_add_(out, w, factor):
    _in_place(out, lambda dense: _column_scale(w, factor, _OUT, dense))


def group_prox(w, ptr, member, step):
    out = w.clone(memory_format=torch.contiguous_format)
    if w.numel() and member.numel():
        _C.group_prox(
            _CODES[w.dtype], out.data_ptr(), ptr.data_ptr(), member.data_ptr(), ptr.shape[0] - 1,
            w.shape[1], step, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    return out


def graph_pieces(row_ptr, col):
    """Where each connected piece begins, int64 ``[P + 1]``, and the tasks of all, int32 ``[K]``."""
    num_tasks = row_ptr.shape[0] - 1
    first = torch.empty(num_tasks + 1, dtype=torch.int64, device="cpu")
    member = torch.empty(num_tasks, dtype=torch.int32, device="cpu")
    count = _C.graph_pieces(
        row_ptr.data_ptr(), col.data_ptr(), num_tasks, first.data_ptr(), member.data_ptr()
    )
    return first[: count + 1].clone(), member


def graph_prox(w, row_ptr, col, weight, first, member, step, tol, max_iter):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.clone()
    if first is None:
        row_ptr, col, weight, first, member = by_pieces(row_ptr, col, weight, graph_pieces)
    out = empty_like(w)
    count = torch.zeros(2, dtype=torch.int64, device="cpu")
    residual = torch.zeros(1, dtype=torch.float64, device="cpu")
    weight = weight.double()
    _C.graph_prox(
        _CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if member is None else member.data_ptr(), first.data_ptr(), first.shape[0] - 1,
        w.shape[1], step, tol, max_iter, out.data_ptr(), count.data_ptr(), residual.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    iterations, indefinite = count.tolist()
    require_solved(indefinite, iterations, residual.item(), step, tol, max_iter)
    return out


def _pair_addresses(pairs):
    return tuple(part.data_ptr() for part in pairs)


def edge_dual_step(u, former, w, pairs, radius, length, momentum, scale):
    """Writes the next dual variables into ``former`` and returns their adjoint ``[K, d]``."""
    w, out = w.contiguous(), empty_like(w)
    if not w.numel():
        return out
    _C.edge_dual_step(
        u.data_ptr(), former.data_ptr(), w.data_ptr(), *_pair_addresses(pairs), radius.data_ptr(),
        0 if length is None else length.data_ptr(), *w.shape, u.shape[0], momentum, scale,
        out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    _changed(former, former)
    return out


def edge_dual_adjoint(u, pairs):
    out = empty((pairs[0].shape[0] - 1, u.shape[1]), u.dtype)
    if out.numel():
        _C.edge_dual_adjoint(
            u.data_ptr(), *_pair_addresses(pairs), *out.shape, u.shape[0], out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
    return out


def edge_dual_value(w, pairs, radius):
    w = w.contiguous()
    if not w.numel():
        return 0.0
    return _C.edge_dual_value(
        w.data_ptr(), *_pair_addresses(pairs), radius.data_ptr(), *w.shape, radius.shape[0],
        torch.get_num_threads(),
    )  # fmt: skip


def build_info():
    return _C.build_info()


def cpu_isas():
    return tuple(_C.runnable_isas())


def use_isa(name=""):
    """The instruction set in use; with a name, switches to that one first."""
    return _C.use_isa(name)


def trace_norm_value(w, grad, check=True):
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous() if w.numel() else w
    batch, rows, columns = matrices.shape if w.numel() else (0, 0, 0)
    unit = empty(w.shape if grad else (0,), w.dtype)
    if not batch:
        return torch.zeros(w.shape[:-2], dtype=real_dtype(w.dtype), device="cpu"), unit
    route = _spectral.route(batch, rows, columns, w.dtype, grad)
    if route == "lapack":
        value = _spectral.trace_norm_value(matrices, unit.view_as(matrices) if grad else None)
    else:
        value = torch.empty(batch, dtype=torch.float64, device="cpu")
        kernel = _C.trace_norm_value if route == "jacobi" else _C.trace_norm_gram_value
        kernel(
            _CODES[w.dtype], matrices.data_ptr(), batch, rows, columns,
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
    route = _spectral.route(batch, rows, columns, matrices.dtype)
    arguments = (
        _CODES[matrices.dtype], matrices.data_ptr(), threshold.data_ptr(), batch, rows, columns,
        result.data_ptr(),
    )  # fmt: skip
    if route == "gram":
        finite = torch.empty(batch, dtype=torch.int64, device="cpu")
        _C.trace_norm_gram_prox(*arguments, finite.data_ptr(), torch.get_num_threads())
        torch.logical_not(finite, out=bad)
        return
    if route == "jacobi":
        _C.trace_norm_prox(*arguments, torch.get_num_threads())
    else:
        _spectral.trace_norm_prox(matrices, threshold, result)
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
    alone = len(matrices) == 1 and _spectral.route(*matrices.shape, w.dtype) == "gram"
    if check and not alone and not all(bound.isfinite() for bound in torch.aminmax(matrices)):
        require_finite("trace_norm_prox_", w)
    _checked_shrink("trace_norm_prox_", w, matrices, threshold, matrices, check)
    if direct:
        torch.autograd.graph.increment_version(w)
    else:
        w.copy_(matrices.view(w.shape))
