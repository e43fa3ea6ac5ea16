"""The order in which a large graph is handled: a permutation that changes speed and no gradient."""

import pytest
import torch
from cases import DTYPES, bits

from mtlfast import TaskGraph, _native, graph_add_grad_, graph_reg, reference
from mtlfast.graphs import _task_graph

pytestmark = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")


@pytest.fixture
def order_everything(monkeypatch):
    """Also graphs that are too small, or without anything to gain."""
    monkeypatch.setattr(_task_graph, "_LARGE", 0)
    monkeypatch.setattr(_task_graph, "_GAIN", -2)


def shuffled_grid(side):
    """A grid of side × side tasks that are numbered at random."""
    label = torch.randperm(side * side).view(side, side)
    across = torch.stack([label[:, :-1].flatten(), label[:, 1:].flatten()])
    return torch.cat([across, torch.stack([label[:-1].flatten(), label[1:].flatten()])], 1)


GRAPHS = {
    "grid": lambda: TaskGraph.from_edges(shuffled_grid(20)),
    "random": lambda: TaskGraph.from_edges(torch.randint(400, (2, 1500)), None, 400),
    "islands": lambda: TaskGraph.from_edges(torch.randint(400, (2, 150)), None, 400),
    "hub": lambda: TaskGraph.from_edges([[0] * 399, range(1, 400)]),
}
every_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def outcome(W, graph):
    leaf, added = W.clone().requires_grad_(), torch.zeros_like(W)
    value = graph_reg(leaf, graph)
    value.backward()
    same = graph_add_grad_(added, W, graph)
    assert bits(same) == bits(value.detach())
    return value.detach(), leaf.grad


@every_graph
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [3, 64, 100])
def test_the_order_changes_no_bit_of_the_gradient(graph, dtype, dim, order_everything, monkeypatch):
    graph = graph()
    W = torch.randn(400, dim).to(dtype)
    value, grad = outcome(W, graph)
    assert graph.rows_as(torch.float32)[3] is not None
    for threads in (1, 3):
        torch.set_num_threads(threads)
        again, same = outcome(W, graph)
        assert bits(again) == bits(value) and bits(same) == bits(grad)
    monkeypatch.setattr(_task_graph, "_LARGE", 1 << 40)
    plain_value, plain_grad = outcome(W, graph)
    assert bits(plain_grad) == bits(grad)
    torch.testing.assert_close(value, plain_value, rtol=1e-6, atol=0)


@every_graph
def test_rows_in_order_are_the_same_graph(graph, order_everything):
    graph = graph()
    row_ptr, col, weight, order = graph.rows_as(torch.float64)
    assert order.sort().values.tolist() == list(range(400))
    row, other, half = reference.ordered_edges(row_ptr, col, weight, order)
    dense = torch.zeros(400, 400, dtype=torch.float64)
    dense[row, other] = half
    assert torch.equal(dense, graph.to_dense().double())


@every_graph
def test_kernel_and_reference_agree_on_the_order(graph, order_everything):
    W, one = torch.randn(400, 5, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    rows = graph().rows_as(torch.float64)
    for native, plain in zip(
        _native.graph.graph_value(W, *rows, one), reference.graph_value(W, *rows, one), strict=True
    ):
        torch.testing.assert_close(native, plain)


def test_a_grid_has_an_order_to_find_and_a_random_graph_has_none():
    """Places apart count as near up to 2¹⁵, so the graphs are large."""
    grid = TaskGraph.from_edges(shuffled_grid(520))
    random = TaskGraph.from_edges(torch.randint(1 << 18, (2, 1 << 20)), None, 1 << 18)
    sorted_grid = torch.arange(520 * 520).view(520, 520)
    sorted_grid = torch.stack([sorted_grid[:-1].flatten(), sorted_grid[1:].flatten()])
    assert _native.graph_order.graph_order(grid.row_ptr, grid.col)[1] > 0.7
    assert grid.rows_as(torch.float32)[3] is not None
    assert random.rows_as(torch.float32)[3] is None
    assert TaskGraph.from_edges(sorted_grid).rows_as(torch.float32)[3] is None


def test_without_edges_there_is_no_order(order_everything):
    graph = TaskGraph.from_edges(torch.zeros(2, 0).long(), None, 400)
    value, grad = outcome(torch.randn(400, 3), graph)
    assert value == 0 and not grad.any()
    assert graph.rows_as(torch.float32)[3] is None


def test_the_order_is_found_once(order_everything, monkeypatch):
    calls = []
    found = _native.graph_order.graph_order

    def counted(*args):
        calls.append(1)
        return found(*args)

    monkeypatch.setattr(_native.graph_order, "graph_order", counted)
    graph = GRAPHS["grid"]()
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for _ in range(3):
            graph_reg(torch.randn(400, 3).to(dtype), graph)
    assert calls == [1]


def test_second_derivatives_follow_the_order(order_everything):
    graph = GRAPHS["grid"]()
    W = torch.randn(400, 2, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(W)
    (grad,) = torch.autograd.grad(graph_reg(W, graph), W, create_graph=True)
    (product,) = torch.autograd.grad(grad, W, direction)
    a = graph.to_dense().double()
    laplacian = torch.diag(a.sum(1)) - a
    torch.testing.assert_close(product, 4 * laplacian @ direction)
