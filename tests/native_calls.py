"""Calls of every native op, and of the kernels that no op stands for, large enough for two threads:
what :mod:`test_failing_allocations` lets run out of memory.
"""

import torch

from mtlfast import _native
from mtlfast._native import edge_dual, graph_order
from mtlfast._torch import trace_norm as _spectral


def _rows(K=3000, d=65, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(K, d, generator=generator, dtype=torch.float64).to(dtype)


def _strided(tensor):
    """The same values with gaps between them."""
    padded = torch.zeros(*tensor.shape, 2, dtype=tensor.dtype)
    padded[..., 0] = tensor
    return padded[..., 0]


def _graph(K=3000):
    """A symmetric CSR matrix: a chain and links to the task in the middle."""
    chain = torch.arange(K - 1)
    src = torch.cat([chain, torch.arange(K // 2), torch.arange(K // 2 + 1, K)])
    dst = torch.cat([chain + 1, torch.full((K - 1,), K // 2)])
    pairs = torch.unique(torch.cat([torch.stack([src, dst]), torch.stack([dst, src])], 1), dim=1)
    ends = torch.bincount(pairs[0], minlength=K).cumsum(0)
    row_ptr = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
    return row_ptr, pairs[1].int(), torch.rand(1).expand(pairs.shape[1]).contiguous()


def _groups(K=3000):
    """Some small groups and one that is shared by the threads."""
    return torch.tensor([0, 5, 300, K]), torch.arange(K)


def _entries(K=3000, count=40_000, in_order=False):
    generator = torch.Generator().manual_seed(1)
    at = torch.randperm(K * K, generator=generator)[:count]
    at = at.sort().values if in_order else at
    return at // K, at % K, torch.rand(count, generator=generator)


def _pairs(K=3000):
    """The pairs of a chain: see mtlfast.graphs._dual."""
    ends = torch.arange(K - 1)
    out_ptr = torch.cat([ends, torch.tensor([K - 1, K - 1])])
    in_ptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(K)])
    return out_ptr, (ends + 1).int(), in_ptr, ends


def _op(name, *arguments):
    """The op, and the arguments of a call."""
    return getattr(torch.ops.mtlfast, name).default, arguments


# batches for every route of a trace norm
MATRICES = [
    (torch.float32, 300, 8, 8),  # Jacobi
    (torch.float64, 300, 9, 20),
    (torch.float32, 100, 40, 20),  # Gram, a matrix in each lane
    (torch.float32, 1, 500, 12),
    (torch.bfloat16, 7, 300, 50),  # Gram, a matrix for each thread
    (torch.float32, 1, 3000, 40),  # Gram, one matrix for all threads
    (torch.float32, 1, 1100, 258),  # LAPACK
    (torch.float32, 2, 258, 258),
    (torch.float64, 3, 300, 70),
]


def _trace_norms():
    for dtype, batch, rows, columns in MATRICES:
        shape = batch, rows, columns
        w = _rows(batch, rows * columns, dtype).view(shape)
        bad = w.clone()
        bad[batch // 2, 0, 0] = torch.nan
        graded = w * torch.logspace(0, -8, columns, dtype=dtype)  # rotations take over
        threshold = torch.full((batch,), 2.0, dtype=torch.float64)
        what = f"{dtype} {shape}"
        yield f"prox in place, {what}", _op("trace_norm_shrink_", w.clone(), threshold)
        if _spectral.route(*shape, dtype) == "lapack" and batch < 3:
            continue  # slow, and the requests are all torch's
        yield f"value, {what}", _op("trace_norm_value", w, False)
        yield f"gradient, {what}", _op("trace_norm_value", w, True)
        yield f"gradient, graded, {what}", _op("trace_norm_value", graded, True)
        yield f"prox, {what}", _op("trace_norm_shrink", w, threshold)
        yield f"prox, not finite, {what}", _op("trace_norm_shrink", bad, threshold, False)
        for layout in (torch.clone, _strided):
            shrunk = layout(bad), threshold, False
            yield f"prox in place, not finite, {what}", _op("trace_norm_shrink_", *shrunk)


def calls():
    """(what, (function, arguments)); arguments that are written to are among them."""
    W, other = _rows(), _rows(seed=3)
    mean = _native.pairwise.pairwise_value(W)[1]
    one, half = torch.ones(()), torch.tensor(0.5)
    yield "pairwise_value", _op("pairwise_value", W)
    yield "pairwise_value_grad", _op("pairwise_value_grad", W)
    yield "pairwise_affine", _op("pairwise_affine", W, mean, one, 0.5, True)
    row_ptr, col, weight = _graph()
    order = graph_order.graph_order(row_ptr, col)[0]
    ptr, member = _groups()
    lengths = _native.group_lasso.column_lengths(W)
    for layout in (torch.clone, _strided):
        out, how = layout(other), f", {layout.__name__}"
        yield "pairwise_add_" + how, _op("pairwise_add_", out, W, mean, 0.5)
        yield "pairwise_shrink_" + how, _op("pairwise_shrink_", layout(W), mean, 0.5)
        yield "column_scale_" + how, _op("column_scale_", layout(W), lengths)
        yield "column_add_" + how, _op("column_add_", layout(other), W, lengths)
        graph = row_ptr, col, weight, order
        yield "graph_add_" + how, _op("graph_add_", layout(other), W, *graph, 0.5)
        name = "graph_total_variation_add_"
        yield name + how, _op(name, layout(other), W, *graph, 0.5)
        quadratic = _op("quadratic_add_", layout(other), W, *graph, 0.5, 0.25, 2.0, 0.5)
        yield "quadratic_add_" + how, quadratic
        yield "ridge_scale_" + how, _op("ridge_scale_", layout(W), 0.5)
        yield "ridge_add_" + how, _op("ridge_add_", layout(other), W, 0.5, 0.5)
    for scale in (None, half):
        for o in (None, order):
            graph = row_ptr, col, weight, o
            yield "graph_value", _op("graph_value", W, *graph, scale)
            name = "graph_total_variation_value"
            yield name, _op(name, W, *graph, scale)
            yield "quadratic_value", _op("quadratic_value", W, *graph, 0.5, 0.25, 2.0, True)
        yield "dense_graph_value", _op("dense_graph_value", W[:300], _rows(300, 300).abs(), scale)
        yield "group_value", _op("group_value", W, ptr, member, scale)
    src, dst, values = _entries()
    yield "edge_distance", _op("edge_distance", W, src, dst)
    yield "edge_structure", _op("edge_structure", torch.stack([src, dst]), len(W))
    yield "dense_distance", _op("dense_distance", W[:300])
    yield "group_prox", _op("group_prox", W, ptr, member, 0.1)
    system = row_ptr, col, weight, None, None
    yield "graph_prox", _op("graph_prox", W, *system, 0.1, 1e-6, 100)
    yield "ridge_value", _op("ridge_value", W, 0.5)
    yield "ridge_value_grad", _op("ridge_value_grad", W, 0.5)
    yield "ridge_scale", _op("ridge_scale", W, half, 0.5)
    yield "column_lengths", _op("column_lengths", W)
    yield "column_scale", _op("column_scale", W, lengths)
    for K, spread in ((400, 1.0), (700, 1.0), (700, 100.0)):  # residuals; tried and kept; kept
        w, omega = _rows(K, 30), spread * _rows(K, K)
        yield f"gram_dense {K}", _op("gram_dense", w, omega, True)
        yield f"gram_dense {K}, value", _op("gram_dense", w, omega, False)
    yield "gram_dense_omega_grad", _op("gram_dense_omega_grad", W[:400], _rows(400, 400), one)
    yield "gram_factor", _op("gram_factor", W, _rows(3000, 4, seed=4), True, True)
    yield "gram_edges", _op("gram_edges", W, src, dst, values, True, True)
    yield "gram_edges, values", _op("gram_edges", W, src, dst, values, False, True)
    yield "gram_edges, in order", _op("gram_edges", W, *_entries(in_order=True), True, False)
    yield from _trace_norms()
    # without an op
    yield "graph_order", (graph_order.graph_order, (row_ptr, col))
    yield "graph_reorder", (graph_order.graph_reorder, (row_ptr, col, weight, order))
    pairs = _pairs()
    for d in (65, 300):  # a row in registers, and in memory
        wide = _rows(d=d, dtype=torch.float64)
        u, former = (_rows(len(wide) - 1, d, torch.float64, seed) for seed in (5, 6))
        radius = torch.rand(len(u), dtype=torch.float64)
        dual = (u, former, wide, pairs, radius, radius, 0.5, 1.0)
        yield f"edge_dual_step {d}", (edge_dual.edge_dual_step, dual)
        yield f"edge_dual_adjoint {d}", (edge_dual.edge_dual_adjoint, (u, pairs))
        yield f"edge_dual_value {d}", (edge_dual.edge_dual_value, (wide, pairs, radius))
