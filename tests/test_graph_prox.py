"""graph_prox: the solution of its system, its derivatives, and what it says when there is none."""

import pytest
import torch
from graphs import FORMS, hard_to_eliminate, random_graph, tasks

from mtlfast import TaskGraph, graph_prox, pairwise_prox, reference


def system(A, step):
    both = (A + A.T).double().fill_diagonal_(0)
    return torch.eye(len(A), dtype=torch.float64) + 2 * step * (torch.diag(both.sum(1)) - both)


@pytest.mark.parametrize("step", [0.0, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", ["TaskGraph", "dense", "coo", "csr", "pair"])
def test_prox_solves_its_system(form, dtype, step):
    W = tasks(50, 70, dtype=dtype)
    A = random_graph(50, 0.1)
    Z = graph_prox(W, FORMS[form](A), step)
    expected = torch.linalg.solve(system(A, step), W.double())
    tolerance = {torch.float64: 2e-10, torch.float32: 3e-7, torch.bfloat16: 4e-3}[dtype]
    assert Z.dtype == dtype
    assert (Z.double() - expected).norm() <= tolerance * W.double().norm()


def test_prox_of_groups_is_the_prox_of_their_edges():
    labels = torch.arange(60) % 5
    W = tasks(60, 9)
    A = (labels[:, None] == labels).double().fill_diagonal_(0)
    closed = graph_prox(W, TaskGraph.groups(labels), 0.02)
    torch.testing.assert_close(closed, graph_prox(W, A, 0.02), rtol=0, atol=1e-8)


def test_prox_keeps_the_mean_and_the_input():
    W = tasks(40, 3)
    before = W.clone()
    Z = graph_prox(W, random_graph(40, 0.2), 3.0)
    assert torch.equal(W, before)
    torch.testing.assert_close(Z.mean(0), W.mean(0))


@pytest.mark.parametrize("graph", [random_graph(12, 0.3), TaskGraph.groups([0, 1, 2] * 4)])
def test_prox_gradients(graph):
    W = tasks(12, 2).requires_grad_()

    def run(W):
        return graph_prox(W, graph, 0.3, tol=1e-14)

    assert torch.autograd.gradcheck(run, W, nondet_tol=0)
    assert torch.autograd.gradgradcheck(run, W, nondet_tol=0)
    by_transform = torch.func.grad(lambda W: run(W).square().sum())(W.detach())
    (by_backward,) = torch.autograd.grad(run(W).square().sum(), W)
    torch.testing.assert_close(by_transform, by_backward)


def test_prox_marks_columns_that_are_not_finite():
    W = tasks(10, 4)
    W[3, 1] = torch.nan
    Z = graph_prox(W, TaskGraph.chain(10), 0.1)
    assert Z[:, 1].isnan().all()
    good = [0, 2, 3]
    torch.testing.assert_close(Z[:, good], graph_prox(W[:, good], TaskGraph.chain(10), 0.1))


def test_prox_refuses_an_indefinite_system():
    graph = TaskGraph.from_edges([[0], [1]], [-1.0])
    W = tasks(2, 2)
    assert graph_prox(W, graph, 0.1).isfinite().all()  # 1 − 4·0.1 > 0: still definite
    with pytest.raises(ValueError, match=r"graph_prox: graph must make .* definite.*step=1\.0"):
        graph_prox(W, graph, 1.0)
    mixed = TaskGraph.from_edges([[0, 1, 0], [1, 2, 2]], [3.0, 3.0, -2.0])
    with pytest.raises(ValueError, match="indefinite"):  # the diagonal is positive here
        graph_prox(tasks(3, 2), mixed, 10.0)


def test_prox_says_when_it_did_not_get_there():
    """In a piece in which elimination would fill too much in."""
    with pytest.raises(RuntimeError, match=r"reach tol=1e-10 within max_iter=2 iterations, got"):
        graph_prox(tasks(8000, 1), hard_to_eliminate(), 1e3, max_iter=2)
    assert graph_prox(tasks(9000, 2), TaskGraph.chain(9000), 1e3, max_iter=2).isfinite().all()


def test_a_step_that_overflows_gives_the_mean():
    W = tasks(4, 2)
    together = W.mean(0).expand(4, 2)
    torch.testing.assert_close(graph_prox(W, TaskGraph.chain(4), 1e308), together)
    groups = TaskGraph.groups([0] * 4)
    torch.testing.assert_close(graph_prox(W, groups, 1e308), together)
    torch.testing.assert_close(pairwise_prox(W, 1e308), together)
    torch.testing.assert_close(reference.pairwise_prox(W, 1e308), together)
    torch.testing.assert_close(
        reference.group_prox(W, groups.group_ptr, groups.member, 1e308), together
    )


def test_prox_takes_learnable_weights_as_constants_only_without_grad():
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    graph = (torch.tensor([[0], [1]]), weight)
    with pytest.raises(ValueError, match="graph_prox: edge_weight must not require grad"):
        graph_prox(tasks(2, 2), graph, 0.1)
    with torch.no_grad():
        Z = graph_prox(tasks(2, 2), graph, 0.1)
    assert torch.equal(Z, graph_prox(tasks(2, 2), (graph[0], weight.detach()), 0.1))


def test_prox_has_the_same_bits_everywhere(each_isa_and_thread_count):
    graph = TaskGraph.from_dense(random_graph(300, 0.05))
    W = tasks(300, 21, dtype=torch.float32)
    results = [graph_prox(W, graph, 0.7) for _ in each_isa_and_thread_count()]
    assert len(results) > 1 and all(torch.equal(results[0], r) for r in results)
