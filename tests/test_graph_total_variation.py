"""The total variation over a graph: loops, closed forms, the prox's certificate, its dual."""

import copy
import itertools
import pickle

import pytest
import torch
from cases import DTYPES, bits
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlfast import (
    TaskGraph,
    _native,
    graph_reg,
    graph_total_variation,
    graph_total_variation_add_grad_,
    graph_total_variation_prox,
    reference,
)
from mtlfast.graphs._dual import EdgeDual
from mtlfast.nn import GraphReg, GraphTotalVariation, PairwiseReg, Ridge

K, D = 9, 4
EDGES = torch.tensor([[0, 1, 2, 3, 3, 6, 5], [1, 0, 4, 5, 6, 2, 5]])
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.25, 1.5, 3.0, 9.0], dtype=torch.float64)
A = torch.zeros(K, K, dtype=torch.float64).index_put((EDGES[0], EDGES[1]), WEIGHTS)
native = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")


def tasks(num_tasks=K, dim=D, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, dim, generator=generator, dtype=torch.float64)


def random_graph(num_tasks, num_edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(num_tasks, (2, num_edges), generator=generator)
    weight = torch.rand(num_edges, generator=generator, dtype=torch.float64)
    return TaskGraph.from_edges(edges, weight, num_tasks)


def over_pairs(W, weights):
    """The double loop of the definition."""
    total = W.new_zeros(())
    for i in range(len(W)):
        for j in range(len(W)):
            if i != j:
                total = total + weights[i, j] * (W[i] - W[j]).norm()
    return total


@pytest.mark.parametrize(
    "graph", [A, A.to_sparse(), A.to_sparse_csr(), (EDGES, WEIGHTS), TaskGraph.from_dense(A)]
)
def test_every_form_against_the_double_loop(graph):
    W = tasks().requires_grad_()
    value, want = graph_total_variation(W, graph), over_pairs(W, A)
    torch.testing.assert_close(value, want, rtol=1e-13, atol=0)
    grads = [torch.autograd.grad(v, W)[0] for v in (value, want)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)
    mean = graph_total_variation(W, graph, reduction="mean")
    torch.testing.assert_close(mean, value / 6, rtol=1e-15, atol=0)


def test_second_derivatives():
    W, graph = tasks(5, 3).requires_grad_(), TaskGraph.chain(5)
    assert torch.autograd.gradcheck(lambda w: graph_total_variation(w, graph), W, nondet_tol=0)
    assert torch.autograd.gradgradcheck(lambda w: graph_total_variation(w, graph), W)
    hessian = torch.func.hessian(lambda w: graph_total_variation(w, graph))(W.detach())
    W = W.detach()  # 2·(I − n nᵀ)/length for the first task, n the direction to the second
    step = W[0] - W[1]
    normal = step / step.norm()
    want = 2 * (torch.eye(3) - normal[:, None] * normal) / step.norm()
    torch.testing.assert_close(hessian[0, :, 0, :], want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_coinciding_rows_have_the_least_subgradient(dtype):
    W = tasks(4, 3).to(dtype)
    W[1] = W[0]
    W.requires_grad_()
    graph_total_variation(W, TaskGraph.chain(4)).backward()
    assert not W.grad[0].any()
    assert W.grad[1].any() and W.grad.isfinite().all()
    for calls in (torch.func.grad, torch.func.jacrev):
        grad = calls(lambda w: graph_total_variation(w, TaskGraph.chain(4)))(W.detach())
        assert not grad[0].any() and grad.isfinite().all()


def test_scaled_lengths_are_the_graph_distance_to_first_order():
    """Where all distances are 1, half of graph_reg's gradient."""
    W = torch.eye(2, dtype=torch.float64) / 2**0.5
    graph, grads = TaskGraph.chain(2), []
    for function in (graph_total_variation, graph_reg):
        leaf = W.clone().requires_grad_()
        function(leaf, graph).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(2 * grads[0], grads[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_in_place_gradient(dtype, reduction):
    W, before = tasks().to(dtype), tasks(seed=1).to(dtype)
    leaf = W.double().requires_grad_()
    want = graph_total_variation(leaf, A, reduction=reduction)
    want.backward()
    rounding = {torch.float64: 1e-14, torch.float32: 1e-6}.get(dtype, 2e-2)
    for listed in (False, True):
        grad = [row.clone() for row in before] if listed else before.clone()
        given_w = list(W) if listed else W
        value = graph_total_variation_add_grad_(grad, given_w, A, alpha=-0.3, reduction=reduction)
        torch.testing.assert_close(value.double(), want.detach(), rtol=1e-6, atol=0)
        got = (torch.stack(grad) if listed else grad).double()
        exact = before.double() - 0.3 * leaf.grad
        torch.testing.assert_close(got, exact, rtol=rounding, atol=rounding)


def test_many_edges_give_the_same_bits_for_any_thread_count():
    W, graph = tasks(3000, 7), random_graph(3000, 60_000)
    outcomes = set()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = W.clone().requires_grad_()
        value = graph_total_variation(leaf, graph)
        value.backward()
        z = graph_total_variation_prox(W, graph, 0.01)
        outcomes.add((bits(value), bits(leaf.grad), bits(z)))
    assert len(outcomes) == 1


# The prox ---------------------------------------------------------------------------------------


def certified(W, graph, step, Z, tol):
    """½‖Z − W‖² + step·R(Z) is within tol of a dual value that a solver of our own reaches."""
    dual = EdgeDual(graph, W.shape[1], strength=step)
    incidence = torch.zeros(dual.num_edges, len(W), dtype=torch.float64)
    for e, (i, j) in enumerate(zip(dual.src.tolist(), dual.dst.tolist(), strict=True)):
        incidence[e, i], incidence[e, j] = 1, -1
    U, length = torch.zeros(dual.num_edges, W.shape[1], dtype=torch.float64), 0.5 / (2 * len(W))
    for _ in range(3_000):
        U = U + length * incidence @ (W - incidence.T @ U)
        U = U * (dual.radius / U.norm(dim=1).clamp(min=1e-300)).clamp(max=1)[:, None]
    lower = 0.5 * (W.square().sum() - (W - incidence.T @ U).square().sum())
    primal = 0.5 * (Z - W).square().sum() + step * graph_total_variation(Z, graph)
    return primal - lower <= tol * primal


@pytest.mark.parametrize("step", [0.05, 0.4, 5.0])
def test_the_prox_reaches_a_dual_value(step):
    W, graph = tasks(), TaskGraph.from_dense(A)
    for tol in (1e-4, 1e-9):
        assert certified(W, graph, step, graph_total_variation_prox(W, A, step, tol=tol), 2 * tol)
    assert not certified(W, graph, step, W, 1e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), st.integers(1, 9), st.floats(0.01, 3), st.integers(0, 2**32 - 1))
def test_the_prox_has_a_flow(num_tasks, dim, step, seed):
    """W − Z = DᵀU flows within components: their means stay; the objective is the least around."""
    W, graph = tasks(num_tasks, dim, seed % 997), random_graph(num_tasks, 2 * num_tasks, seed)
    Z = graph_total_variation_prox(W, graph, step, tol=1e-8)
    torch.testing.assert_close(Z.mean(0), W.mean(0), rtol=0, atol=1e-10)

    def objective(z):
        return 0.5 * (z - W).square().sum() + step * graph_total_variation(z, graph)

    generator = torch.Generator().manual_seed(seed)
    for size in (1e-3, 1e-1, 1.0):
        noise = torch.randn(Z.shape, generator=generator, dtype=torch.float64)
        assert objective(Z) <= objective(Z + size * noise) + 1e-8 * objective(Z)
    assert objective(Z) <= objective(W)


@pytest.mark.parametrize("step", [0.3, 1.0, 40.0])
def test_two_tasks(step):
    """Both move 2·step towards each other, and stop where they meet."""
    W = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    Z = graph_total_variation_prox(W, TaskGraph.chain(2), step, tol=1e-14)
    way = min(2 * step / 5, 0.5)
    torch.testing.assert_close(Z, torch.stack([way * W[1], (1 - way) * W[1]]), atol=1e-6, rtol=0)


def chain_by_taut_string(y, radius):
    """argmin ½‖z − y‖² + radius·Σ|z_i − z_{i+1}|: merge neighbours as the radius grows from 0.

    In one dimension groups that met stay together, so the path in the radius is linear between
    meetings: a group moves by the signs of its neighbours' differences over its size.
    """
    groups, t = [(v, 1) for v in y], 0.0
    while True:
        sign = [1 if b[0] > a[0] else -1 for a, b in itertools.pairwise(groups)]
        pull = [
            ((sign[g] if g < len(sign) else 0) - (sign[g - 1] if g else 0)) / n
            for g, (_, n) in enumerate(groups)
        ]
        meet, at = radius - t, None
        for g in range(len(groups) - 1):
            speed = (pull[g] - pull[g + 1]) * sign[g]
            gap = (groups[g + 1][0] - groups[g][0]) * sign[g]
            if speed > 0 and gap / speed < meet:
                meet, at = gap / speed, g
        groups = [(v + p * meet, n) for (v, n), p in zip(groups, pull, strict=True)]
        t += meet
        if at is None:
            return [v for v, n in groups for _ in range(n)]
        n = groups[at][1] + groups[at + 1][1]
        groups[at : at + 2] = [(groups[at][0], n)]


@pytest.mark.parametrize("step", [0.02, 0.2, 2.0])
def test_a_chain_in_one_dimension(step):
    W = tasks(40, 1) + (torch.arange(40) // 13)[:, None]
    Z = graph_total_variation_prox(W, TaskGraph.chain(40), step, tol=1e-11)
    want = torch.tensor(chain_by_taut_string(W.flatten().tolist(), 2 * step), dtype=torch.float64)
    torch.testing.assert_close(Z.flatten(), want, rtol=0, atol=2e-4)


def test_components_do_not_see_each_other():
    W, graph = tasks(8, 3), TaskGraph.groups([0, 0, 0, 1, 1, 2, 0, 1])
    Z = graph_total_variation_prox(W, graph, 0.1, tol=1e-12)
    for members in ([0, 1, 2, 6], [3, 4, 7]):
        alone = TaskGraph.groups([0] * len(members))
        part = graph_total_variation_prox(W[members], alone, 0.1, tol=1e-12)
        torch.testing.assert_close(Z[members], part, rtol=0, atol=1e-5)
    assert torch.equal(Z[5], W[5])
    merged = graph_total_variation_prox(W, graph, 100.0, tol=1e-12)
    torch.testing.assert_close(merged[[3, 4, 7]], W[[3, 4, 7]].mean(0).expand(3, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_limits_of_the_prox(dtype):
    W, chain = tasks(6, 3).to(dtype), TaskGraph.chain(6)
    assert torch.equal(graph_total_variation_prox(W, chain, 0.0), W)
    equal = W[:1].repeat(6, 1)
    assert torch.equal(graph_total_variation_prox(equal, chain, 1.0), equal)
    heads = graph_total_variation_prox(tuple(W.view(6, 3, 1)), chain, 0.1)
    assert isinstance(heads, tuple) and heads[0].dtype == dtype and heads[0].shape == (3, 1)
    assert torch.equal(torch.cat([h.T for h in heads]), graph_total_variation_prox(W, chain, 0.1))
    for shape in ((0, 3), (1, 3), (4, 0)):
        empty = torch.ones(shape, dtype=dtype)
        assert torch.equal(graph_total_variation_prox(empty, TaskGraph.chain(shape[0]), 1), empty)


def test_an_unfinished_prox_says_how_far_it_came():
    with pytest.raises(RuntimeError, match=r"duality gap must reach tol=1e-12 within max_iter=2 "):
        graph_total_variation_prox(tasks(), A, 1.0, tol=1e-12, max_iter=2)


# The dual's maps ----------------------------------------------------------------------------------


@native
@pytest.mark.parametrize("dim", [1, 3, 4, 5, 8, 11, 15, 18, 22, 27, 30, 33, 70])
@pytest.mark.parametrize("num_tasks, num_edges", [(5, 0), (2, 1), (30, 90), (600, 4000)])
def test_the_kernels_are_the_torch_calls(dim, num_tasks, num_edges):
    graph = random_graph(num_tasks, num_edges)
    dual, plain = (EdgeDual(graph, dim, strength=0.7) for _ in range(2))
    plain._pairs = None
    W, U, F = (
        tasks(n, dim, s) for n, s in ((num_tasks, 0), (dual.num_edges, 1), (dual.num_edges, 2))
    )

    def outcome(dual):
        u, former = U.clone(), F.clone()
        sums = [dual.step_(u, W, 0.9), dual.step_(u, 2 * W, 0.9), dual.adjoint(u)]
        u.mul_(0.5)  # the adjoint that is kept must not be used now
        sums += [dual.step_(u, W, 0.9), dual.advance_(u, former, W, 0.4)]
        return [u, former, *sums, torch.tensor(dual.value(W)).double()]

    for got, want in zip(outcome(dual), outcome(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    outcomes = set()
    isas = _native.cpu_isas()
    before = _native.use_isa()
    for threads, isa in [(1, before), (2, before), (3, before), *((2, isa) for isa in isas)]:
        torch.set_num_threads(threads)
        _native.use_isa(isa)
        outcomes.add(tuple(bits(t) for t in outcome(dual)))
    _native.use_isa(before)
    assert len(outcomes) == 1


def test_the_dual_by_matrices():
    graph = TaskGraph.from_dense(A)
    dual = EdgeDual(graph, D, strength=2.0)
    D_ = torch.zeros(dual.num_edges, K, dtype=torch.float64)
    for e, (i, j) in enumerate(zip(dual.src.tolist(), dual.dst.tolist(), strict=True)):
        assert i < j
        D_[e, i], D_[e, j] = 1, -1
        assert dual.radius[e] == 2 * (A[i, j] + A[j, i])
    W, U = tasks(), tasks(dual.num_edges, D, 1)
    torch.testing.assert_close(dual.differences(W), D_ @ W)
    torch.testing.assert_close(dual.adjoint(U), D_.T @ U)
    torch.testing.assert_close(graph_reg(W, dual.laplacian()), (D_ @ W).square().sum())
    value = 2 * graph_total_variation(W, graph)
    torch.testing.assert_close(torch.tensor(dual.value(W)).double(), value)
    moved = U + D_ @ W
    want = moved * (dual.radius / moved.norm(dim=1)).clamp(max=1)[:, None]
    target = U.clone()
    torch.testing.assert_close(dual.step_(target, W), D_.T @ (2 * want - U))
    torch.testing.assert_close(target, want)
    with pytest.raises(ValueError, match="EdgeDual: graph must have weights"):
        EdgeDual(TaskGraph.from_dense(-A), D)


def test_groups_are_written_out():
    graph = TaskGraph.groups([0, 1, 0, 2, 1, 0])
    written = graph.written_out()
    assert torch.equal(written.to_dense(), graph.to_dense())
    assert written.num_edges == graph.num_edges
    assert graph.written_out() is written and written.written_out() is written


# The module ---------------------------------------------------------------------------------------


def test_the_module():
    W, module = tasks(), GraphTotalVariation(A, 0.5, "mean")
    assert module.has_prox
    torch.testing.assert_close(module(W), 0.5 * over_pairs(W, A) / 6)
    torch.testing.assert_close(module(list(W)), module(W), rtol=0, atol=0)
    want = graph_total_variation_prox(W, A, 0.3 * 0.5 / 6)
    assert torch.equal(module.prox(W, 0.3), want)
    moved = [row.clone() for row in W]
    assert torch.equal(torch.stack(module.prox_(moved, 0.3)), want)
    leaf, grad = W.clone().requires_grad_(), torch.zeros_like(W)
    module(leaf).backward()
    assert module.add_grad_(grad, W, alpha=2.0) == module(W)
    torch.testing.assert_close(grad, 2 * leaf.grad)
    both = module + Ridge(0.2)
    torch.testing.assert_close(both.prox(W, 0.3), module.prox(W / 1.12, 0.3 / 1.12))
    assert not (module + PairwiseReg()).has_prox
    assert not (module + GraphReg(A)).has_prox
    assert repr(module) == 'GraphTotalVariation(strided [9, 9], strength=0.5, reduction="mean")'


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("graph", [A, TaskGraph.from_dense(A), TaskGraph.groups([0] * K)])
def test_copies_compute_the_same(how, graph):
    module = GraphTotalVariation(graph, 0.5)
    assert torch.equal(how(module)(tasks()), module(tasks()))
    assert torch.equal(how(module).prox(tasks(), 0.1), module.prox(tasks(), 0.1))


def test_bad_arguments_of_the_module():
    with pytest.raises(ValueError, match="GraphTotalVariation: strength must be finite and >= 0"):
        GraphTotalVariation(A, -1.0)
    with pytest.raises(ValueError, match=r"GraphTotalVariation: a graph of plain tensors must be"):
        GraphTotalVariation((EDGES, WEIGHTS, K))
    with pytest.raises(ValueError, match=r"GraphTotalVariation\.prox: step must be"):
        GraphTotalVariation(A).prox(tasks(), -1.0)
    with pytest.raises(ValueError, match="graph_total_variation_add_grad_: grad must"):
        GraphTotalVariation(A).add_grad_(tasks(2), tasks())


def test_the_reference_is_the_formula():
    W = tasks()
    value = reference.graph_total_variation(W, *EDGES, WEIGHTS)
    torch.testing.assert_close(value, over_pairs(W, A))


# Strong edges and wide weights -------------------------------------------------------------------


def wide_graph(kind, num_tasks, weights):
    everyone = range(num_tasks)
    pairs = {
        "chain": [(i, i + 1) for i in range(num_tasks - 1)],
        "complete": [(i, j) for i in everyone for j in range(i)],
        "star": [(0, i) for i in range(1, num_tasks)],
        "pieces": [(i, i + 1) for i in range(num_tasks - 2) if i % 5 != 4],
    }[kind]
    generator = torch.Generator().manual_seed(num_tasks)
    scale = 24 * torch.rand(len(pairs), dtype=torch.float64, generator=generator) - 12
    edges = torch.tensor(pairs).T
    return TaskGraph.from_edges(edges, 10**scale if weights == "wide" else None, num_tasks)


@pytest.mark.parametrize("weights", ["equal", "wide"])
@pytest.mark.parametrize("kind", ["chain", "complete", "star", "pieces"])
@pytest.mark.parametrize("num_tasks", [7, 20, 60])
def test_the_prox_of_strong_edges(num_tasks, kind, weights):
    """Every step has its answer: the mean where all edges are strong, means kept elsewhere."""
    graph = wide_graph(kind, num_tasks, weights)
    W = tasks(num_tasks, 3, seed=num_tasks)
    label = torch.arange(num_tasks)
    edges = EdgeDual(graph, 3)
    for _ in range(num_tasks):
        label = label.scatter_reduce(0, edges.src, label[edges.dst], "amin")
        label = label.scatter_reduce(0, edges.dst, label[edges.src], "amin")
    means = torch.stack([W[label == own].mean(0) for own in label])
    for step in (1.0, 1e3, 1e6, 1e9, 1e12):
        Z = graph_total_variation_prox(W, graph, step)
        for part, of in ((Z, means), (graph_total_variation_prox(W.float(), graph, step), means)):
            same = torch.stack([part.double()[label == own].mean(0) for own in label])
            assert (same - of).norm() <= 1e-6 * W.norm()
        if step * edges.radius.min() > num_tasks * W.norm():
            assert (Z - means).norm() <= 1e-14 * num_tasks * W.norm()
        # the mean is a candidate at any weights, so what is tied is not apart by rounding either
        value = 0.5 * (Z - W).square().sum() + step * graph_total_variation(Z, graph)
        assert value <= 0.5 * (means - W).square().sum() * (1 + 2e-6)


def test_the_prox_of_two_tight_clusters():
    """Two clusters at 1e12, joined by an edge of weight 1: their means move towards each other."""
    pairs = [(i, j) for first in (0, 10) for i in range(first, first + 10) for j in range(first, i)]
    weights = [1e12] * len(pairs) + [1.0]
    graph = TaskGraph.from_edges(torch.tensor([*pairs, (0, 19)]).T, weights, 20)
    W = tasks(20, 4, seed=1)
    W[10:] += 3
    one, other = W[:10].mean(0), W[10:].mean(0)
    apart = other - one
    for step in (0.5, 2.0):  # each mean moves by step/10
        Z = graph_total_variation_prox(W, graph, step, tol=1e-12)
        move = step / 10 * apart / apart.norm()
        want = torch.cat([(one + move).expand(10, 4), (other - move).expand(10, 4)])
        assert (Z - want).norm() <= 2e-6 * W.norm()
    together = graph_total_variation_prox(W, graph, 1e3)
    assert (together - W.mean(0)).norm() <= 1e-13 * W.norm()
