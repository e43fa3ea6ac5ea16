"""The CUDA twins of the functions of the same name in :mod:`mtlfast._native`.

Work is queued on the current stream; work space comes from torch's allocator, and nothing waits but
checks that are asked for, torch's own decompositions of large matrices, and ``graph_prox``, whose
number of iterations depends on what they find.
"""

import math

import torch

from mtlfast import _elements, _native, _spectral, _tiles
from mtlfast._compat import current_stream
from mtlfast._native import _CODES, _MEAN, _NOTHING, _OUT, _changed, _in_place, real_dtype
from mtlfast.reference import (
    by_pieces,
    ordered_edges,
    require_finite,
    require_solved,
    require_threshold,
)

_kernels = _native._C

TWINS = (
    "pairwise_value",
    "pairwise_value_grad",
    "pairwise_affine",
    "pairwise_add_",
    "pairwise_shrink_",
    "graph_value",
    "graph_add_",
    "quadratic_value",
    "quadratic_add_",
    "graph_total_variation_value",
    "graph_total_variation_add_",
    "edge_distance",
    "dense_graph_value",
    "dense_distance",
    "gram_edges",
    "group_value",
    "group_prox",
    "trace_norm_value",
    "trace_norm_shrink",
    "trace_norm_shrink_",
    "graph_prox",
)
OPS = TWINS if not _native.missing and _native.build_info()["cuda"] else ()  # of this build


def _place(w):
    """The device's index and the address of its current stream."""
    index = w.get_device()
    return index, current_stream(index)


def pairwise_value(w):
    w = w.contiguous()
    num_tasks, dim = w.shape
    real = real_dtype(w.dtype)
    if not w.numel():
        return w.new_zeros((), dtype=real), w.new_zeros((2, dim), dtype=real)
    value, mean = w.new_empty((), dtype=real), w.new_empty((2, dim), dtype=real)
    size = _kernels.cuda_pairwise_workspace(_CODES[w.dtype], num_tasks, dim)
    work = w.new_empty((size,), dtype=torch.uint8)
    _kernels.cuda_pairwise_value(
        _CODES[w.dtype], w.data_ptr(), num_tasks, dim, 1.0,
        value.data_ptr(), mean.data_ptr(), work.data_ptr(), *_place(w),
    )  # fmt: skip
    return value, mean


def pairwise_value_grad(w):
    value, mean = pairwise_value(w)
    return value, _affine(w, mean, None, 4.0 * w.shape[0], _NOTHING, _like(w))


def pairwise_affine(w, mean, scale, factor, add_mean):
    return _affine(w, mean, scale, factor, _MEAN if add_mean else _NOTHING, _like(w))


def pairwise_add_(out, w, mean, factor):
    _in_place(out, lambda dense: _affine(w, mean, None, factor, _OUT, dense))


def pairwise_shrink_(out, mean, factor):
    _in_place(out, lambda dense: _affine(dense, mean, None, factor, _MEAN, dense))


def _like(w):
    return torch.empty_like(w, memory_format=torch.contiguous_format)


def _affine(w, mean, scale, factor, plus, out):
    w, mean = w.contiguous(), mean.contiguous()
    if scale is not None:
        scale = scale.to(mean.dtype)
    if w.numel():
        _kernels.cuda_pairwise_affine(
            _CODES[w.dtype], w.data_ptr(), mean.data_ptr(), *w.shape, factor,
            0 if scale is None else scale.data_ptr(), plus, out.data_ptr(), *_place(w),
        )  # fmt: skip
    return out


def graph_value(w, row_ptr, col, weight, order, scale):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
        return w.new_zeros((), dtype=real_dtype(w.dtype)), grad
    grad = w.new_empty((0,)) if scale is None else torch.empty_like(w)
    target = None if scale is None else grad
    return _graph_value(w, row_ptr, col, weight, order, target, 1.0, scale, _NOTHING), grad


def graph_add_(out, w, row_ptr, col, weight, order, factor):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.new_zeros((), dtype=real_dtype(w.dtype))
    dense = out.contiguous()
    value = _graph_value(w, row_ptr, col, weight, order, dense, factor, None, _OUT)
    _changed(out, dense)
    return value


def _graph_value(w, row_ptr, col, weight, order, grad, factor, scale, plus):
    real, code, sizes = real_dtype(w.dtype), _CODES[w.dtype], (*w.shape, col.shape[0])
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.contiguous()
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    work = w.new_empty((_kernels.cuda_graph_workspace(code, *sizes),), dtype=torch.uint8)
    _kernels.cuda_graph_value(
        code, w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if order is None else order.data_ptr(), *sizes, 1.0, value.data_ptr(),
        0 if grad is None else grad.data_ptr(), factor, 0 if scale is None else scale.data_ptr(),
        plus, work.data_ptr(), *_place(w),
    )  # fmt: skip
    return value


def quadratic_value(w, row_ptr, col, weight, order, ridge, pairs, edges, grad):
    scale = w.new_full((), edges, dtype=real_dtype(w.dtype)) if grad else None
    value, out = graph_value(w, row_ptr, col, weight, order, scale)
    return _with_the_rest(value, out if grad else None, w, ridge, pairs, edges, 1.0), out


def quadratic_add_(out, w, row_ptr, col, weight, order, ridge, pairs, edges, factor):
    value = graph_add_(out, w, row_ptr, col, weight, order, edges * factor)
    return _with_the_rest(value, out, w, ridge, pairs, edges, factor)


def _with_the_rest(value, out, w, ridge, pairs, edges, factor):
    """The whole value from that over edges; ``out``, if any, += factor·gradient of the rest."""
    total = edges * value.double()
    if pairs:
        distance, mean = pairwise_value(w)
        total += pairs * distance.double()
        if out is not None:
            pairwise_add_(out, w, mean, 4.0 * w.shape[0] * pairs * factor)
    if ridge and out is None:
        total += _elements.ridge_value(w, ridge)
    elif ridge:
        total += _elements.ridge_add_(out, w, ridge, factor)
    return total.to(value.dtype)


def edge_distance(w, src, dst):
    w, src, dst = w.contiguous(), src.contiguous(), dst.contiguous()
    out = w.new_zeros(src.shape, dtype=real_dtype(w.dtype))
    if w.numel() and src.numel():
        _kernels.cuda_edge_distance(
            _CODES[w.dtype], w.data_ptr(), src.data_ptr(), dst.data_ptr(), src.shape[0],
            w.shape[1], out.data_ptr(), *_place(w),
        )  # fmt: skip
    return out


_SUM = 2048


def _sum(x):
    """The sum in float64, in an order that the size alone decides."""
    while x.numel() > _SUM:
        full = x.numel() // _SUM * _SUM
        x = torch.cat([x[:full].view(-1, _SUM).sum(1), x[full:].sum()[None]])
    return x.sum()


def _variation(w, row_ptr, col, weight, order):
    """The value; w in a scale of its own, and s/(2‖w_i − w_j‖) in it for each stored entry.

    The scale is one for all of W: rows that are far nearer than the largest entry, by 10^19 in
    float32 and by 10^154 in float64, count as equal.
    """
    exponent = torch.frexp(w.abs().amax().double().nan_to_num(1, 1)).exponent
    most = 1000 if w.dtype == torch.float64 else 126 if w.dtype != torch.float16 else 0
    scale = torch.ldexp(
        torch.ones_like(exponent, dtype=torch.float64), -exponent.clamp(-most, most)
    )
    x = w * scale.to(w.dtype)
    row, col, half = ordered_edges(row_ptr, col, weight.double(), order)
    lengths = edge_distance(x, row, col.long()).double().sqrt()
    value = (_sum(half * lengths) / scale).to(real_dtype(w.dtype))
    pull = torch.where(lengths == 0, 0.0, half / torch.where(lengths == 0, 1.0, lengths))
    # a weight of 0 is no edge for the kernel: Inf would be hidden
    return value, x, torch.where(lengths == torch.inf, torch.nan, pull).to(weight.dtype)


def graph_total_variation_value(w, row_ptr, col, weight, order, scale):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return graph_value(w, row_ptr, col, weight, order, scale)
    value, x, pull = _variation(w, row_ptr, col, weight, order)
    if scale is None:
        return value, w.new_empty((0,))
    return value, graph_value(x, row_ptr, col, pull, order, scale)[1]


def graph_total_variation_add_(out, w, row_ptr, col, weight, order, factor):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.new_zeros((), dtype=real_dtype(w.dtype))
    value, x, pull = _variation(w, row_ptr, col, weight, order)
    graph_add_(out, x, row_ptr, col, pull, order, factor)
    return value


def dense_graph_value(w, a, scale):
    w, a = w.contiguous(), a.contiguous()
    real = real_dtype(w.dtype)
    grad = w.new_empty((0,)) if scale is None else _like(w)
    if not w.numel():
        return w.new_zeros((), dtype=real), grad
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    work = w.new_empty((_kernels.cuda_dense_graph_workspace(*w.shape),), dtype=torch.uint8)
    _kernels.cuda_dense_graph_value(
        _CODES[w.dtype], w.data_ptr(), a.data_ptr(), *w.shape, 1.0, value.data_ptr(),
        0 if scale is None else grad.data_ptr(), 1.0, 0 if scale is None else scale.data_ptr(),
        _NOTHING, work.data_ptr(), *_place(w),
    )  # fmt: skip
    return value, grad


def dense_distance(w):
    w = w.contiguous()
    out = w.new_zeros((w.shape[0],) * 2, dtype=real_dtype(w.dtype))
    if w.numel():
        _kernels.cuda_dense_distance(
            _CODES[w.dtype], w.data_ptr(), *w.shape, out.data_ptr(), *_place(w)
        )
    return out


def gram_edges(w, row, col, values, want_w, want_values):
    w, row, col = w.contiguous(), row.contiguous(), col.contiguous()
    real = real_dtype(w.dtype)
    values = values.to(real)
    products = w.new_zeros(row.shape, dtype=torch.float64)
    if w.numel() and row.numel():
        _kernels.cuda_edge_product(
            _CODES[w.dtype], w.data_ptr(), row.data_ptr(), col.data_ptr(), *row.shape, w.shape[1],
            products.data_ptr(), *_place(w),
        )  # fmt: skip
    small = _tiles.small_gram(w)
    value, residual = _tiles.edges_value(small, products, values.double())
    grad = small.new_empty((0, w.shape[1]))
    if want_w:
        grad = _tiles.small_product(w, 4 * small)
        if grad.numel() and row.numel():
            _add_neighbours(grad, w, torch.cat([row, col]), torch.cat([col, row]), values)
    values_grad = -2 * residual if want_values else residual.new_empty((0,))
    return value.to(real), grad.to(real), values_grad.to(real)


def _add_neighbours(grad, w, task, other, values):
    """``grad -= 2 (Ω + Ωᵀ) W``; every entry of Ω has two ends."""
    task, order = task.sort(stable=True)
    other, weight = other[order], values.repeat(2)[order]
    sizes = task.shape[0], w.shape[1]
    work = w.new_empty((_kernels.cuda_edge_sum_workspace(*sizes),), dtype=torch.uint8)
    _kernels.cuda_edge_sum(
        _CODES[w.dtype], w.data_ptr(), task.data_ptr(), other.data_ptr(), weight.data_ptr(),
        *sizes, -2.0, grad.data_ptr(), work.data_ptr(), *_place(w),
    )  # fmt: skip


def _groups(w, ptr, member):
    """Sizes and tensors that both kernels of groups take, and their work space."""
    sizes, tensors = (ptr.shape[0] - 1, *member.shape, w.shape[1]), (w, ptr, member)
    work = w.new_empty((_kernels.cuda_group_workspace(_CODES[w.dtype], *sizes),), dtype=torch.uint8)
    return sizes, [t.data_ptr() for t in tensors], work


def group_value(w, ptr, member, scale):
    w, ptr, member = w.contiguous(), ptr.contiguous(), member.contiguous()
    real = real_dtype(w.dtype)
    grad = w.new_empty((0,)) if scale is None else torch.zeros_like(w)
    if not (w.numel() and member.numel()):
        return w.new_zeros((), dtype=real), grad
    if scale is not None:
        scale = scale.to(real)
    value = w.new_empty((), dtype=real)
    sizes, addresses, work = _groups(w, ptr, member)
    _kernels.cuda_group_value(
        _CODES[w.dtype], *addresses, *sizes, 1.0, value.data_ptr(),
        0 if scale is None else grad.data_ptr(), 1.0, 0 if scale is None else scale.data_ptr(),
        work.data_ptr(), *_place(w),
    )  # fmt: skip
    return value, grad


def group_prox(w, ptr, member, step):
    out = w.clone(memory_format=torch.contiguous_format)
    ptr, member = ptr.contiguous(), member.contiguous()
    if out.numel() and member.numel():
        sizes, addresses, work = _groups(out, ptr, member)
        _kernels.cuda_group_prox(
            _CODES[w.dtype], *addresses, *sizes, step, out.data_ptr(), work.data_ptr(), *_place(w)
        )
    return out


def trace_norm_value(w, grad, check=True):
    if check:
        require_finite("trace_norm", w)
    real, unit = real_dtype(w.dtype), w.new_empty(w.shape if grad else (0,))
    if not w.numel():
        return w.new_zeros(w.shape[:-2], dtype=real), unit
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous()
    if not _kernels.cuda_trace_norm_matrices(*w.shape[-2:]):
        value = _spectral.trace_norm_value(matrices, unit.view_as(matrices) if grad else None)
        return value.to(real).reshape(w.shape[:-2]), unit
    value = w.new_empty(w.shape[:-2], dtype=real)
    _kernels.cuda_trace_norm_value(
        _CODES[w.dtype], matrices.data_ptr(), *matrices.shape, value.data_ptr(),
        unit.data_ptr() if grad else 0, *_place(w),
    )  # fmt: skip
    return value, unit


def _shrink(w, threshold, out):
    if not w.numel():
        return
    matrices = w.reshape(-1, *w.shape[-2:]).contiguous()
    threshold = threshold.to(torch.float64).reshape(-1).contiguous()
    if not _kernels.cuda_trace_norm_matrices(*w.shape[-2:]):
        _spectral.trace_norm_prox(matrices, threshold, out.view_as(matrices))
        return
    _kernels.cuda_trace_norm_prox(
        _CODES[w.dtype], matrices.data_ptr(), threshold.data_ptr(), *matrices.shape,
        out.data_ptr(), *_place(w),
    )  # fmt: skip


def trace_norm_shrink(w, threshold, check=True):
    if check:
        require_threshold(threshold)
        require_finite("trace_norm_prox", w)
    out = _like(w)
    _shrink(w, threshold, out)
    return out


def trace_norm_shrink_(w, threshold, check=True):
    if check:
        require_threshold(threshold, "trace_norm_prox_")
        require_finite("trace_norm_prox_", w)
    _in_place(w, lambda dense: _shrink(dense.detach(), threshold, dense))


_PANEL = 2**27  # elements whose systems are solved at once: 5 GiB of work space
_SMALL = 64  # tasks of a piece that is eliminated on the device
_MOST_TIED = 2.0**400  # 2·step·s_ij beyond it ties as if it were that
_LEAST_TOLERANCE = 2.0**-50  # relative to ‖w‖, no answer in double is nearer
_RESTARTS = 8
_POLL = 8  # iterations between looks at the state; changes no bit


def graph_prox(w, row_ptr, col, weight, first, member, step, tol, max_iter):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.clone()
    if first is None:
        row_ptr, col, weight, first, member = by_pieces(row_ptr, col, weight)
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.double().contiguous()
    first, out = first.to(w.device), _like(w)
    bad = w.new_empty((first.shape[0] - 1,), dtype=torch.int32)
    _kernels.cuda_graph_prox_small(
        _CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if member is None else member.data_ptr(), first.data_ptr(), first.shape[0] - 1,
        w.shape[1], step, out.data_ptr(), bad.data_ptr(), *_place(w),
    )  # fmt: skip
    indefinite, most, worst = bool(bad.any()), 0, 0.0
    large = (first.diff() > _SMALL).nonzero()[:, 0]
    ends = torch.stack([first[large], first[large + 1]])
    spans = torch.cat([ends, row_ptr[ends]]).T.tolist()  # rows and edges of each large piece
    for begin, end, from_edge, to_edge in [] if indefinite else spans:
        ties = (2 * (step * weight[from_edge:to_edge])).clamp(max=_MOST_TIED)
        graph = row_ptr[begin : end + 1] - from_edge, col[from_edge:to_edge], ties
        tasks = None if member is None else member[begin:end]
        residual, iterations, indefinite = _solve_large(w, graph, tasks, out, tol, max_iter)
        if not indefinite and residual > max(tol, _LEAST_TOLERANCE):
            csr = *graph[:2], weight[from_edge:to_edge]
            residual = _eliminate(w, csr, tasks, step, out, residual)
        most, worst = max(most, iterations), max(worst, residual)
        if indefinite:
            break
    require_solved(indefinite, most, worst, step, tol, max_iter)
    return out


def _solve_large(w, graph, tasks, out, tol, max_iter):
    """Residual, iterations and whether one piece is indefinite; its rows of the result."""
    num_tasks, dim = graph[0].shape[0] - 1, w.shape[1]
    edges, nonnegative = graph[1].shape[0], bool((graph[2] >= 0).all())
    panel = min(dim, max(32, _PANEL // num_tasks))
    work = w.new_empty(
        (_kernels.cuda_graph_prox_workspace(num_tasks, panel, edges),), dtype=torch.uint8
    )
    state = w.new_empty((6,), dtype=torch.float64)
    member = 0 if tasks is None else tasks.data_ptr()
    most, worst = 0, 0.0
    for column in range(0, dim, panel):
        sizes = num_tasks, min(panel, dim - column), edges
        # the ties are weights for a step of ½
        system = *(part.data_ptr() for part in graph), member, *sizes, 0.5, state.data_ptr()
        rest = work.data_ptr(), *_place(w)
        source = _CODES[w.dtype], w.data_ptr(), dim, column
        _kernels.cuda_graph_prox_load(*source, *system, *rest)
        residual, iterations, indefinite = _solve(
            source, system, rest, state, max(tol, _LEAST_TOLERANCE), max_iter, nonnegative
        )
        _kernels.cuda_graph_prox_store(_CODES[w.dtype], out.data_ptr(), dim, column, *system, *rest)
        most, worst = max(most, int(iterations)), max(worst, residual)
        if indefinite:
            break
    return worst, most, bool(indefinite)


def _solve(source, system, rest, state, tol, max_iter, nonnegative):
    """Conjugate gradients, and again for the error where the true residual is not yet small."""
    for restart in range(_RESTARTS + 2):
        _kernels.cuda_graph_prox_residual(*source, *system, *rest)
        residual, iterations, _, indefinite, *_ = state.tolist()
        goes_on = tol < residual < math.inf and iterations < max_iter and restart <= _RESTARTS
        if indefinite or not goes_on:
            break
        done = False
        while not done:
            error = restart > 0
            _kernels.cuda_graph_prox_iterate(*system, error, tol, max_iter, _POLL, *rest)
            _, iterations, done, indefinite, small, _ = state.tolist()
        if indefinite:
            break
        if restart:
            _kernels.cuda_graph_prox_correct(*system, *rest)
            size = state.tolist()[5]
            if small and nonnegative and size <= tol:
                return size, iterations, indefinite
    return residual, iterations, indefinite


def _eliminate(w, csr, tasks, step, out, residual):
    """The rows of one piece by the CPU, which may eliminate what did not converge."""
    rows = slice(None) if tasks is None else tasks.long()
    parts = [part.cpu() for part in (w[rows], *csr)]
    whole = torch.tensor([0, parts[0].shape[0]], device="cpu")
    try:
        out[rows] = _native.graph_prox(*parts, whole, None, step, 1e-10, 1).to(out.device)
    except RuntimeError:
        return residual
    return 0.0
