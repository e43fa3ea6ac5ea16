"""The forms of a graph and their cache: what is special to graph_reg."""

import gc
import pickle
import weakref

import numpy
import pytest
import torch
from graphs import FORMS, edges_of, oracle, random_graph, tasks

from mtlfast import (
    TaskGraph,
    graph_add_grad_,
    graph_prox,
    graph_reg,
    pairwise_reg,
)
from mtlfast.graphs import _prepare
from mtlfast.nn import GraphReg

FLOAT_U = {torch.float64: 2.0**-53}

SIZES = [(40, 33, 0.1), (64, 16, 0.7), (9, 257, 0.4)]  # K, d, share of edges


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize(("num_tasks", "dim", "share"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_right(form, dtype, num_tasks, dim, share, spread):
    W = tasks(num_tasks, dim, spread, dtype=dtype).requires_grad_()
    A = random_graph(num_tasks, share).to(dtype)
    graph = FORMS[form](A)
    value = graph_reg(W, graph)
    (1.5 * value).backward()
    expected, grad, scale, distance = oracle(W.detach(), A)
    u = FLOAT_U.get(dtype, 2.0**-24)
    assert abs(value.item() - expected) <= 32 * u * expected
    assert ((W.grad.double() - 1.5 * grad).abs() <= 1.5 * 64 * u * scale).all()
    if form.startswith("learnable"):
        weight = graph[1] if isinstance(graph, tuple) else graph
        got = weight.grad
        if isinstance(graph, tuple):
            distance = distance[graph[0][0], graph[0][1]].reshape(got.shape)
        elif got.layout != torch.strided:
            got, distance = got.to_dense(), distance * (A != 0)
        torch.testing.assert_close(got.double(), 1.5 * distance, rtol=64 * u, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_sixteen_bits(form, dtype):
    W = tasks(30, 21, dtype=dtype).requires_grad_()
    A = random_graph(30, 0.3).float()
    value = graph_reg(W, FORMS[form](A), reduction="mean")
    value.backward()
    expected, grad, scale, _ = oracle(W.detach(), A)
    count = int((A.fill_diagonal_(0) != 0).sum())
    assert value.dtype == torch.float32 and W.grad.dtype == dtype
    torch.testing.assert_close(value.double(), expected / count, rtol=32 * 2.0**-24, atol=0)
    rounding = torch.finfo(dtype).eps / 2 * grad.abs() + 64 * 2.0**-24 * scale
    assert ((W.grad.double() * count - grad).abs() <= rounding + 1e-7 * count).all()


@pytest.mark.parametrize("dim", [1, 3, 15, 16, 17, 40, 64, 65, 130])
def test_a_hub_and_long_rows(dim):
    """Rows of more edges than one float sum may run over, and every width of a panel."""
    num_tasks = 700
    hub = torch.stack([torch.zeros(num_tasks - 1, dtype=torch.long), torch.arange(1, num_tasks)])
    W = tasks(num_tasks, dim, 1e-3, dtype=torch.float32).requires_grad_()
    graph_reg(W, TaskGraph.from_edges(hub)).backward()
    difference = W.detach().double()[0] - W.detach().double()[1:]
    torch.testing.assert_close(W.grad[0].double(), 2 * difference.sum(0), rtol=1e-4, atol=1e-6)
    error = (W.grad[0].double() - 2 * difference.sum(0)).abs()
    assert (error <= 64 * 2.0**-24 * 2 * difference.abs().sum(0)).all()


def test_neighbours_behind_the_panel_do_not_leak():
    """The last columns are read as a whole vector: NaN in the next row must not get in."""
    W = torch.zeros(4, 3)
    W[2:] = torch.nan
    edges = torch.tensor([[0], [1]])
    assert graph_reg(W, (edges, None)) == 0
    rows = TaskGraph.from_edges(edges, num_tasks=4).rows_as(torch.float32)
    value, grad = torch.ops.mtlfast.graph_value(W, *rows, torch.ones(()))
    assert value == 0 and (grad == 0).all()


def test_directions_and_duplicates_add_up():
    W = tasks(3, 5)
    d01, d12 = (W[0] - W[1]).square().sum(), (W[1] - W[2]).square().sum()
    edges = torch.tensor([[0, 1, 0, 2, 2], [1, 0, 1, 2, 1]])
    weight = torch.tensor([1.0, 2.0, 4.0, 100.0, 8.0], dtype=torch.float64)
    expected = 7 * d01 + 8 * d12
    torch.testing.assert_close(graph_reg(W, (edges, weight)), expected)
    torch.testing.assert_close(graph_reg(W, (edges, weight.requires_grad_())), expected)
    mean = graph_reg(W, (edges, weight), reduction="mean")
    torch.testing.assert_close(mean, expected / 3)  # (0, 1), (1, 0), (2, 1)


@pytest.mark.parametrize("form", FORMS)
def test_pairwise_is_the_complete_graph(form):
    W = tasks(12, 7)
    graph = FORMS[form](torch.ones(12, 12, dtype=torch.float64).fill_diagonal_(0))
    for reduction in ("sum", "mean"):
        torch.testing.assert_close(
            graph_reg(W, graph, reduction=reduction), pairwise_reg(W, reduction=reduction)
        )


@pytest.mark.parametrize("form", FORMS)
def test_no_edge_no_value(form):
    W = tasks(5, 3).requires_grad_()
    value = graph_reg(W, FORMS[form](torch.zeros(5, 5, dtype=torch.float64)), reduction="mean")
    value.backward()
    assert value == 0 and (W.grad == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_equal_rows_give_exactly_zero(form):
    W = torch.full((20, 19), 0.1).requires_grad_()
    graph_reg(W, FORMS[form](random_graph(20, 0.5).float())).backward()
    assert (W.grad == 0).all()


def test_a_zero_weight_is_no_edge():
    W = torch.tensor([[1.0], [torch.inf], [3.0]], requires_grad=True)
    edges = torch.tensor([[0, 0], [1, 2]])
    for weight in (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0], requires_grad=True)):
        value = graph_reg(W, (edges, weight))
        (grad,) = torch.autograd.grad(value, W)
        assert value == 4 and grad.flatten().tolist() == [-4, 0, 4]
    dense = torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 0, 0]], requires_grad=True)
    assert graph_reg(W, dense) == 4
    assert graph_reg(W, (edges, torch.ones(2))).isinf()


def test_learnable_weights_propagate_nan():
    weight = torch.tensor([torch.nan], requires_grad=True)
    assert graph_reg(tasks(2, 2), (torch.tensor([[0], [1]]), weight)).isnan()


@pytest.mark.parametrize("form", FORMS)
def test_backward_twice(form):
    """The kept gradient is given away once; a second backward computes it again, bit for bit."""
    W = tasks(30, 9, dtype=torch.float32).requires_grad_()
    value = graph_reg(W, FORMS[form](random_graph(30, 0.3).float()))
    (first,) = torch.autograd.grad(value, W, torch.tensor(0.3), retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(value, W, torch.tensor(0.3))
    assert torch.equal(first, kept) and torch.equal(second, kept)


def test_a_change_of_w_before_backward_is_noticed():
    W = tasks(4, 2).requires_grad_()
    value = graph_reg(W, TaskGraph.chain(4))
    with torch.no_grad():
        W += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.fixture
def builds(monkeypatch):
    """Counts the graphs that are prepared."""
    count = []
    for name in ("_from_edges", "_from_dense", "_from_sparse"):
        build = getattr(_prepare._task_graph, name)

        def counted(*args, build=build):
            count.append(args[0])
            return build(*args)

        monkeypatch.setattr(_prepare._task_graph, name, counted)
    read = _prepare.read_edges
    monkeypatch.setattr(
        _prepare, "read_edges", lambda *args: (count.append(args[0]), read(*args))[1]
    )
    return count


@pytest.mark.parametrize("form", ["dense", "coo", "csr", "pair", "learnable pair"])
def test_a_tensor_is_prepared_once(form, builds):
    W = tasks(20, 3)
    A = random_graph(20, 0.1)
    graph = FORMS[form](A)
    values = [graph_reg(W, graph) for _ in range(3)]
    assert len(builds) == 1 and values[0] == values[1] == values[2]
    if form == "learnable pair":
        with torch.no_grad():
            graph[1].mul_(2)
        assert graph_reg(W, graph) == 2 * values[0] and len(builds) == 1
    elif form == "csr":
        graph.values().mul_(2)
        assert graph_reg(W, graph) == 2 * values[0] and len(builds) == 2
    else:
        tensor = graph[1] if isinstance(graph, tuple) else graph
        tensor.mul_(2)
        assert graph_reg(W, graph) == 2 * values[0] and len(builds) == 2


def test_memory_of_a_graph_dies_with_its_tensors():
    before = len(_prepare._cache._entries)
    A = random_graph(20, 0.1)
    graph_reg(tasks(20, 3), A)
    assert len(_prepare._cache._entries) == before + 1
    del A
    assert len(_prepare._cache._entries) == before


def test_another_number_of_tasks_is_another_graph():
    edges = torch.tensor([[0], [1]])
    assert graph_reg(tasks(2, 3), (edges, None)) == graph_reg(tasks(2, 3), (edges, None))
    assert graph_reg(torch.ones(3, 3), (edges, None)) == 0


@pytest.mark.parametrize("form", ["array", "pair of arrays", "scipy csr"])
def test_what_tells_no_writes_is_read_at_every_call(form):
    W, graph = tasks(9, 3), FORMS[form](random_graph(9, 0.6))
    value = graph_reg(W, graph)
    weight = graph[1] if isinstance(graph, tuple) else getattr(graph, "data", graph)
    numpy.asarray(weight)[:] *= 2
    assert graph_reg(W, graph) == 2 * value


@pytest.mark.parametrize(
    "form", ["array", "pair of arrays", "pair of lists", "scipy csr", "scipy coo"]
)
def test_what_has_no_device_goes_where_w_is(form):
    graph = FORMS[form](random_graph(6, 0.5))
    assert graph_reg(tasks(6, 3).to("meta"), graph).is_meta
    assert graph_add_grad_(*tasks(12, 3).to("meta").view(2, 6, 3), graph).is_meta


def test_a_module_of_a_foreign_graph():
    graph, W = FORMS["scipy csr"](random_graph(6, 0.5)), tasks(6, 3)
    term = GraphReg(graph, 0.5)
    assert term(W) == 0.5 * graph_reg(W, graph)
    torch.testing.assert_close(term.prox(W, 0.2), graph_prox(W, graph, 0.1))
    assert repr(term) == 'GraphReg(csr_array [6, 6], strength=0.5, reduction="sum")'
    assert term.quadratic(6).graphs[0][0].num_tasks == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
@pytest.mark.parametrize("weight", [None, [], torch.zeros(0, 1), torch.zeros(0).requires_grad_()])
def test_an_empty_index_of_any_dtype(dtype, weight):
    W = tasks(3, 2).requires_grad_()
    value = graph_reg(W, (torch.zeros(2, 0, dtype=dtype), weight))
    value.backward()
    assert value == 0 and not W.grad.any()


def test_integer_and_boolean_matrices_are_graphs():
    W, A = tasks(8, 3), random_graph(8, 0.5) > 0
    expected = graph_reg(W, A.double())
    assert graph_reg(W, A) == expected and graph_reg(W, A.long()) == expected


@pytest.mark.parametrize("dim", [1, 5, 64, 2100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_small_and_large(dim, dtype):
    """Groups below and above the size that is done in one piece, and tasks without a group."""
    num_tasks = 2600 if dim < 100 else 40
    labels = torch.arange(num_tasks) % 7
    labels[: num_tasks // 2] = 100
    labels[-2:] = torch.tensor([200, 201])
    W = tasks(num_tasks, dim, 1e-3, dtype=dtype).requires_grad_()
    value = graph_reg(W, TaskGraph.groups(labels))
    value.backward()
    expected, grad = 0.0, torch.zeros_like(W, dtype=torch.float64)
    for label in labels.unique():
        rows = W.detach().double()[labels == label]
        centred = rows - rows[0]
        centred = centred - centred.mean(0)
        expected += 2 * len(rows) * centred.square().sum()
        grad[labels == label] = 4 * len(rows) * centred
    u = FLOAT_U.get(dtype, 2.0**-24)
    slack = 1 if dtype == torch.float32 else 4  # the oracle's own rounding
    assert abs(value.item() - expected) <= slack * 32 * u * expected
    assert (W.grad.double() - grad).norm() <= slack * 16 * u * grad.norm()
    assert (W.grad[-2:] == 0).all()


@pytest.mark.parametrize("form", ["csr", "learnable csr", "learnable pair", "dense"])
def test_transforms_close_over_any_graph(form):
    W, A = tasks(8, 3), random_graph(8, 0.4)
    graph = FORMS[form](A)
    grad = torch.func.grad(lambda W: graph_reg(W, graph))(W)
    torch.testing.assert_close(grad, oracle(W, A)[1])


def test_what_a_transform_prepares_does_not_outlive_it():
    """A float32 graph is first met, and converted, inside a transform."""
    graph, W = TaskGraph.chain(6), tasks(6, 3)
    inside = torch.func.grad(lambda W: graph_reg(W, graph))(W)
    weight = graph.weight_as(torch.float64)
    assert not torch._C._functorch.is_functorch_wrapped_tensor(weight)
    (outside,) = torch.autograd.grad(graph_reg(W.requires_grad_(), graph), W)
    torch.testing.assert_close(inside, outside)
    A = random_graph(6, 0.5)
    torch.func.grad(lambda W: graph_prox(W, A, 0.1).square().sum())(W.detach())
    assert torch.equal(graph_prox(W.detach(), A, 0.1), graph_prox(W.detach(), A.clone(), 0.1))


def test_compiled_edge_lists_follow_their_weights():
    W, A = tasks(10, 4).requires_grad_(), random_graph(10, 0.4)
    edge_index, weight = edges_of(A)
    weight.requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(graph_reg, fullgraph=True, backend="aot_eager")
    for scale in (1.0, 3.0):
        grads = torch.autograd.grad(compiled(W, (edge_index, scale * weight)), (W, weight))
        _, grad, _, distance = oracle(W.detach(), scale * A)
        torch.testing.assert_close(grads[0], grad)
        torch.testing.assert_close(grads[1], scale * distance[edge_index[0], edge_index[1]])


def test_pickled_graphs_give_the_same_bits():
    W, graph = tasks(30, 5), TaskGraph.from_dense(random_graph(30, 0.2))
    assert graph_reg(W, pickle.loads(pickle.dumps(graph))) == graph_reg(W, graph)


def test_a_dense_graph_is_not_kept_alive():
    W, A = tasks(4, 3, dtype=torch.float32), torch.ones(4, 4)
    assert _prepare._DENSE_SHARE < 1  # kept as it is, in W's own dtype
    graph_reg(W, A)
    gone = weakref.ref(A)
    del A
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("learnable")])
def test_a_graph_first_used_or_made_in_inference_mode_also_trains(form):
    W, A = tasks(5, 3, dtype=torch.float32), random_graph(5, 0.6)
    kept = FORMS[form](A)
    with torch.inference_mode():
        made = FORMS[form](A)
        values = [graph_reg(W, graph).item() for graph in (kept, made)]
    expected, grad, _, _ = oracle(W, A)
    for graph in (kept, made) if form == "TaskGraph" else (kept,):
        leaf = W.clone().requires_grad_()
        graph_reg(leaf, graph).backward()
        torch.testing.assert_close(leaf.grad, grad.float())
    assert values == pytest.approx([expected.item()] * 2, rel=1e-6)
