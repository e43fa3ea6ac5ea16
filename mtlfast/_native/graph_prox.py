"""The prox of distances along edges."""

import math

import torch

from mtlfast import _native
from mtlfast._dtypes import CODES
from mtlfast._native import empty_like, like, place
from mtlfast._native.graph_order import graph_pieces
from mtlfast.reference import by_pieces, require_solved


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
    _native._C.graph_prox(
        CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if member is None else member.data_ptr(), first.data_ptr(), first.shape[0] - 1,
        w.shape[1], step, tol, max_iter, out.data_ptr(), count.data_ptr(), residual.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    iterations, indefinite = count.tolist()
    require_solved(indefinite, iterations, residual.item(), step, tol, max_iter)
    return out


_PANEL = 2**27  # elements whose systems are solved at once: 5 GiB of work space


_SMALL = 64  # tasks of a piece that is eliminated on the device


_MOST_TIED = 2.0**400  # 2·step·s_ij beyond it ties as if it were that


_LEAST_TOLERANCE = 2.0**-50  # relative to ‖w‖, no answer in double is nearer


_RESTARTS = 8


_POLL = 8  # iterations between looks at the state; changes no bit


def cuda_graph_prox(w, row_ptr, col, weight, first, member, step, tol, max_iter):
    w = w.contiguous()
    if not (w.numel() and col.numel()):
        return w.clone()
    if first is None:
        row_ptr, col, weight, first, member = by_pieces(row_ptr, col, weight)
    row_ptr, col, weight = row_ptr.contiguous(), col.contiguous(), weight.double().contiguous()
    first, out = first.to(w.device), like(w)
    bad = w.new_empty((first.shape[0] - 1,), dtype=torch.int32)
    _native._C.cuda_graph_prox_small(
        CODES[w.dtype], w.data_ptr(), row_ptr.data_ptr(), col.data_ptr(), weight.data_ptr(),
        0 if member is None else member.data_ptr(), first.data_ptr(), first.shape[0] - 1,
        w.shape[1], step, out.data_ptr(), bad.data_ptr(), *place(w),
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
        (_native._C.cuda_graph_prox_workspace(num_tasks, panel, edges),), dtype=torch.uint8
    )
    state = w.new_empty((6,), dtype=torch.float64)
    member = 0 if tasks is None else tasks.data_ptr()
    most, worst = 0, 0.0
    for column in range(0, dim, panel):
        sizes = num_tasks, min(panel, dim - column), edges
        # the ties are weights for a step of ½
        system = *(part.data_ptr() for part in graph), member, *sizes, 0.5, state.data_ptr()
        rest = work.data_ptr(), *place(w)
        source = CODES[w.dtype], w.data_ptr(), dim, column
        _native._C.cuda_graph_prox_load(*source, *system, *rest)
        residual, iterations, indefinite = _solve(
            source, system, rest, state, max(tol, _LEAST_TOLERANCE), max_iter, nonnegative
        )
        _native._C.cuda_graph_prox_store(
            CODES[w.dtype], out.data_ptr(), dim, column, *system, *rest
        )
        most, worst = max(most, int(iterations)), max(worst, residual)
        if indefinite:
            break
    return worst, most, bool(indefinite)


def _solve(source, system, rest, state, tol, max_iter, nonnegative):
    """Conjugate gradients, and again for the error where the true residual is not yet small."""
    for restart in range(_RESTARTS + 2):
        _native._C.cuda_graph_prox_residual(*source, *system, *rest)
        residual, iterations, _, indefinite, *_ = state.tolist()
        goes_on = tol < residual < math.inf and iterations < max_iter and restart <= _RESTARTS
        if indefinite or not goes_on:
            break
        done = False
        while not done:
            error = restart > 0
            _native._C.cuda_graph_prox_iterate(*system, error, tol, max_iter, _POLL, *rest)
            _, iterations, done, indefinite, small, _ = state.tolist()
        if indefinite:
            break
        if restart:
            _native._C.cuda_graph_prox_correct(*system, *rest)
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
        out[rows] = graph_prox(*parts, whole, None, step, 1e-10, 1).to(out.device)
    except RuntimeError:
        return residual
    return 0.0
