"""Norms of a finite W of any size: the value scales with W, the gradient stays, proxes scale."""

import pytest
import torch

import mtlfast
from mtlfast import (
    TaskGraph,
    _native,
    graph_total_variation,
    graph_total_variation_add_grad_,
    graph_total_variation_prox,
    group_lasso,
    group_lasso_add_grad_,
    group_lasso_prox,
    group_lasso_prox_,
    pairwise_prox,
    pairwise_reg,
    reference,
    relations,
    trace_norm,
    trace_norm_prox,
)
from mtlfast._torch import group_lasso as composed

K, D = 12, 5
GRAPH = TaskGraph.from_edges([[0, 1, 2, 3, 4, 5, 1], [1, 2, 3, 4, 5, 0, 7]], None, K)
SCALES = [(torch.float32, scale) for scale in (1e-37, 1e-25, 1e25, 1e36)]
SCALES += [(torch.float64, scale) for scale in (1e-306, 1e-200, 1e200, 1e305)]
SCALES += [(torch.bfloat16, scale) for scale in (1e-25, 1e25)]
every_scale = pytest.mark.parametrize(("dtype", "scale"), SCALES, ids=str)
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def total_variation(W):
    return graph_total_variation(W, GRAPH)


def total_variation_add_grad_(grad, W, alpha):
    return graph_total_variation_add_grad_(grad, W, GRAPH, alpha=alpha)


def by_loop(W):
    row, col, weight = reference.ordered_edges(*GRAPH.rows_as(torch.float64))
    return (weight * (W[row] - W[col]).norm(dim=1)).sum()


NORMS = {
    "trace": (trace_norm, lambda W: torch.linalg.svdvals(W).sum(), None),
    "group": (group_lasso, lambda W: W.norm(dim=0).sum(), group_lasso_add_grad_),
    "variation": (total_variation, by_loop, total_variation_add_grad_),
}
every_norm = pytest.mark.parametrize("norm", NORMS)


def tasks(dtype, scale):
    """W of that scale, rounded, and what it is at scale 1 in float64."""
    W = torch.randn(K, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    W = (W * scale).to(dtype)
    return W, W.double() / scale


def close(got, want, dtype, more=1):
    bound = more * ROUNDING[dtype] * want.double().norm()
    assert (got.double() - want).norm() <= bound, (got, want)


@every_scale
@every_norm
def test_value_and_gradient(norm, dtype, scale):
    function, plain, add_grad_ = NORMS[norm]
    W, unit = tasks(dtype, scale)
    unit.requires_grad_()
    want = plain(unit)
    want.backward()
    leaf = W.clone().requires_grad_()
    value = function(leaf)
    value.backward()
    close(value.detach().double() / scale, want.detach(), dtype)
    close(leaf.grad, unit.grad, dtype)
    assert norm == "trace" or function(W) == value
    by_transform, total = torch.func.grad_and_value(function)(W)
    close(total.double() / scale, want.detach(), dtype)
    close(by_transform, unit.grad, dtype)
    if add_grad_ is not None:
        out = torch.ones_like(W)
        assert add_grad_(out, W, alpha=2.0) == value
        close(out, 1 + 2 * unit.grad, dtype)


@every_scale
@pytest.mark.parametrize("norm", ["group", "variation"])
def test_double_backward(norm, dtype, scale):
    """The second derivative is one over W's scale."""
    function, plain, _ = NORMS[norm]
    W, unit = tasks(dtype, scale)
    if dtype == torch.bfloat16 or not torch.isfinite(torch.tensor(1 / scale, dtype=dtype)):
        pytest.skip("a second derivative is no number of that type")
    direction = torch.randn(K, D, dtype=torch.float64).flip(0)
    products = []
    for f, leaf, along in ((plain, unit, direction), (function, W, (direction * scale).to(dtype))):
        leaf.requires_grad_()
        (grad,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
        products.append(torch.autograd.grad(grad, leaf, along)[0])
    close(products[1], products[0], dtype, more=10)


@every_scale
def test_proxes(dtype, scale):
    W, unit = tasks(dtype, scale)
    for prox, threshold in (
        (group_lasso_prox, 1.5),
        (lambda W, t: trace_norm_prox(W, t), 1.0),
    ):
        want = prox(unit, threshold)
        assert 0 < (want - unit).norm() < unit.norm()
        close(prox(W, threshold * scale).double() / scale, want, dtype, more=10)
    # two points with a gap ≤ tol·P each, ½‖Z − Z*‖² ≤ gap, and P ≤ ½‖W‖²
    tol = 1e-13
    want = graph_total_variation_prox(unit, GRAPH, 0.3, tol=tol)
    got = graph_total_variation_prox(W, GRAPH, 0.3 * scale, tol=tol).double() / scale
    assert 0.1 < (want - unit).norm() < unit.norm()
    assert (got - want).norm() <= (2 * tol**0.5 + 10 * ROUNDING[dtype]) * unit.norm()
    moved = W.clone()
    group_lasso_prox_(moved, 1.5 * scale)
    assert torch.equal(moved, group_lasso_prox(W, 1.5 * scale))
    leaf, want = W.clone().requires_grad_(), unit.clone().requires_grad_()
    upstream = torch.randn(K, D, dtype=torch.float64)
    group_lasso_prox(leaf, 1.5 * scale).backward(upstream.to(dtype))
    group_lasso_prox(want, 1.5).backward(upstream.to(dtype).double())
    close(leaf.grad, want.grad, dtype, more=10)


@every_scale
def test_lengths_by_every_path(dtype, scale):
    W, unit = tasks(dtype, scale)
    W[:, 1], unit[:, 1] = 0, 0
    for lengths in (
        composed.column_lengths,
        *(() if _native.missing else (_native.group_lasso.column_lengths,)),
    ):
        close(lengths(W) / scale, unit.norm(dim=0), dtype)
    close(reference.group_lasso(W).double() / scale, unit.norm(dim=0).sum(), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(9, 3), (700, 70), (5000, 3), (40, 2500)], ids=str)
def test_columns_and_edges_of_all_sizes_in_one_w(dtype, shape):
    """Zeros beside tiny and huge numbers; lengths between linked tasks of all sizes as well."""
    decades = 30 if dtype == torch.float32 else 290
    sizes = torch.logspace(-decades, decades, shape[1], dtype=torch.float64)
    sizes[1::7] = 0
    noise = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    W = (noise * sizes).to(dtype)
    exact = W.double() / torch.where(sizes > 0, sizes, 1)
    leaf = W.clone().requires_grad_()
    group_lasso(leaf).backward()
    unit = exact / exact.norm(dim=0).clamp(min=1e-300)
    close(leaf.grad, unit, dtype)
    lengths = sizes * exact.norm(dim=0)
    close(group_lasso(W).double() / sizes.max(), (lengths / sizes.max()).sum(), dtype)
    by_task = W.T.contiguous()
    chain = TaskGraph.from_edges(
        torch.stack([torch.arange(shape[1] - 1)] * 2) + torch.tensor([[0], [1]])
    )
    leaf = by_task.clone().requires_grad_()
    graph_total_variation(leaf, chain).backward()
    rows = by_task.double()
    apart = rows[:-1] - rows[1:]
    apart = apart / apart.abs().amax(1, keepdim=True).clamp(min=1e-320)
    apart = apart / apart.norm(dim=1, keepdim=True).clamp(min=1e-300)
    want = torch.zeros_like(rows)
    want[:-1] += apart
    want[1:] -= apart
    close(leaf.grad, want, dtype)


def test_differences_beyond_the_largest_number():
    """The gradient is there although the distance is not."""
    for dtype in (torch.float32, torch.float64):
        most = torch.finfo(dtype).max
        W = torch.tensor([[most, 0.5 * most], [-most, -0.5 * most], [0.0, 0.0]], dtype=dtype)
        leaf = W.clone().requires_grad_()
        value = graph_total_variation(leaf, TaskGraph.from_edges([[0], [1]], [2.0**-30], 3))
        value.backward()
        length = (most / 2**29) * torch.tensor(1.25, dtype=torch.float64).sqrt()
        torch.testing.assert_close(value.double(), length, rtol=1e-6, atol=0)
        unit = torch.tensor([1, 0.5], dtype=torch.float64) / 1.25**0.5 * 2.0**-30
        close(leaf.grad, torch.stack([unit, -unit, 0 * unit]), dtype)
        column = torch.full((9, 2), 0.3 * most, dtype=dtype).requires_grad_()
        group_lasso(0.5 * column).backward()
        close(column.grad, torch.full((9, 2), 0.5 / 3, dtype=torch.float64), dtype)


def test_what_is_not_finite_is_still_said():
    for bad in (torch.nan, torch.inf):
        for dtype in (torch.float32, torch.float64):
            W = torch.full((4, 2), 1e-30, dtype=dtype)
            W[1, 0] = bad
            chain = TaskGraph.chain(4)
            for leaf in (W.clone().requires_grad_(),):
                value = graph_total_variation(leaf, chain)
                value.backward()
                assert not value.isfinite()
                assert leaf.grad[:3].isnan().all()
                assert leaf.grad[3].isfinite().all()
            edges = reference.ordered_edges(*chain.rows_as(dtype))
            assert not reference.graph_total_variation(W, *edges).isfinite()
            assert reference.graph_total_variation_grad(W, *edges)[:3].isnan().all()
            assert not group_lasso(W).isfinite()
            assert not composed.column_lengths(W)[0].isfinite()
            assert composed.column_lengths(W)[1].isfinite()


@every_scale
def test_squares_leave_their_range_and_gradients_do_not(dtype, scale):
    """The squared distances: their values overflow in truth, what is linear in W must not."""
    W, unit = tasks(dtype, scale)
    leaf = W.clone().requires_grad_()
    value = pairwise_reg(leaf)
    value.backward()
    assert not value.isnan()
    if 4 * K * scale < torch.finfo(dtype).max / 10:
        close(leaf.grad.double() / scale, 4 * K * (unit - unit.mean(0)), dtype, more=4)
    close(pairwise_prox(W, 0.1).double() / scale, pairwise_prox(unit, 0.1), dtype, more=4)
    groups = TaskGraph.groups(torch.arange(K) % 3)
    for graph in (GRAPH, groups):
        leaf = W.clone().requires_grad_()
        value = mtlfast.graph_reg(leaf, graph)
        value.backward()
        assert not value.isnan()
        want = unit.clone().requires_grad_()
        mtlfast.graph_reg(want, graph).backward()
        if 4 * K * scale < torch.finfo(dtype).max / 10:
            close(leaf.grad.double() / scale, want.grad, dtype, more=4)
        moved = mtlfast.graph_prox(W, graph, 0.1).double() / scale
        close(moved, mtlfast.graph_prox(unit, graph, 0.1), dtype, more=4)


@pytest.mark.parametrize(("dtype", "scale"), [s for s in SCALES if s[0] != torch.bfloat16], ids=str)
def test_relations_of_any_size(dtype, scale):
    W, unit = tasks(dtype, scale)
    found, want = relations(W), relations(unit)
    assert found.nearest(3, n=2)[0][0] == want.nearest(3, n=2)[0][0]
    close(torch.tensor(found.correlation(0, 1)), torch.tensor(want.correlation(0, 1)), dtype)
