"""Proximal and Alternating: the optimum they reach, and the rates they use."""

import types

import pytest
import torch

from mtlfast.graphs import TaskGraph
from mtlfast.nn import GraphReg, PairwiseReg, TraceNorm
from mtlfast.optim import Alternating, Proximal

K, D, N = 20, 4, 12


@pytest.fixture
def problem():
    """Ridge regression in K tasks with few rows each; its Hessian as one matrix [K·D, K·D]."""
    generator = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    X, ridge = randn(K, N, D), 0.5
    y = (X @ (randn(D) + 0.3 * randn(K, D)).unsqueeze(-1)).squeeze(-1) + 0.1 * randn(K, N)
    blocks = X.transpose(1, 2) @ X + ridge * torch.eye(D, dtype=torch.float64)
    A = torch.rand(K, K, generator=generator, dtype=torch.float64)
    A = A * (torch.rand(K, K, generator=generator) < 0.2)

    def loss(W):
        return (
            0.5 * ((X * W.unsqueeze(1)).sum(-1) - y).square().sum() + 0.5 * ridge * W.square().sum()
        )

    return types.SimpleNamespace(
        loss=loss,
        hessian=torch.block_diag(*blocks),
        rhs=(X.transpose(1, 2) @ y.unsqueeze(-1)).flatten(),
        rate=1 / torch.linalg.eigvalsh(blocks).max().item(),
        A=A.fill_diagonal_(0),
        graph=TaskGraph.from_dense(A),
    )


def laplacian(A):
    """Of the quadratic form Σ_ij A_ij ‖w_i − w_j‖² = ½ wᵀHw: the matrix H."""
    S = A + A.T
    return 2 * (torch.diag(S.sum(1)) - S)


def penalty(problem, pairwise, graph):
    """pairwise·Σ_{i≠j} ‖w_i − w_j‖² + graph·Σ A_ij ‖w_i − w_j‖² as a matrix [K, K]."""
    everyone = torch.ones(K, K, dtype=torch.float64) - torch.eye(K, dtype=torch.float64)
    return pairwise * laplacian(everyone) + graph * laplacian(problem.A)


def optimum(problem, M):
    """argmin of loss(W) + ½ tr(WᵀMW) by its normal equations, and the minimum."""
    H = problem.hessian + torch.kron(M, torch.eye(D, dtype=torch.float64))
    W = torch.linalg.solve(H, problem.rhs).view(K, D)
    return W, objective(problem, W, M)


def objective(problem, W, M):
    return (problem.loss(W) + 0.5 * (W * (M @ W)).sum()).item()


def new_parameter():
    return torch.nn.Parameter(torch.zeros(K, D, dtype=torch.float64))


def closure_of(optimizer, function):
    def closure():
        optimizer.zero_grad()
        value = function()
        value.backward()
        return value

    return closure


def assert_optimal(problem, W, M):
    best, minimum = optimum(problem, M)
    assert (W.detach() - best).norm() <= 1e-5 * best.norm()
    assert objective(problem, W.detach(), M) == pytest.approx(minimum, rel=1e-6)


PENALTIES = {
    "pairwise": (0.05, 0.0, lambda p: PairwiseReg(0.05)),
    "graph": (0.0, 0.3, lambda p: GraphReg(p.graph, 0.3)),
    "both": (0.05, 0.3, lambda p: PairwiseReg(0.05) + GraphReg(p.graph, 0.3)),
    "mean": (
        0.02,
        0.3,
        lambda p: (
            PairwiseReg(0.02 * K * (K - 1), "mean")
            + GraphReg(p.graph, 0.3 * int(p.A.count_nonzero()), "mean")
        ),
    ),
}


@pytest.mark.parametrize("way", ["joint", "proximal", "alternating"])
@pytest.mark.parametrize("name", PENALTIES)
def test_joint_proximal_and_alternating_training_reach_the_same_optimum(problem, name, way):
    pairwise, graph, make = PENALTIES[name]
    M, regularizer, W = penalty(problem, pairwise, graph), make(problem), new_parameter()
    start = objective(problem, W.detach(), M)
    assert start > 1.5 * optimum(problem, M)[1]
    task = torch.optim.SGD([W], lr=problem.rate)
    if way == "joint":
        lbfgs = torch.optim.LBFGS(
            [W],
            max_iter=300,
            tolerance_grad=1e-10,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )
        lbfgs.step(closure_of(lbfgs, lambda: problem.loss(W) + regularizer(W)))
    else:
        wrapper = {"proximal": Proximal, "alternating": Alternating}[way]
        optimizer = wrapper(task, {W: regularizer})
        for _ in range(500):
            optimizer.step(closure_of(optimizer, lambda: problem.loss(W)))
    assert_optimal(problem, W, M)


@pytest.mark.parametrize(("task_steps", "relation_steps"), [(1, 1), (5, 2)])
def test_alternating_with_a_learned_centre_reaches_the_joint_optimum(
    problem, task_steps, relation_steps
):
    """With c = w̄ minimised out, λ Σ_k ‖w_k − c‖² is λ/(2K) times the pairwise sum."""
    W, centre, strength = new_parameter(), torch.nn.Parameter(torch.ones(D).double()), 0.7

    def joint():
        return problem.loss(W) + strength * (W - centre).square().sum()

    optimizer = Alternating(
        torch.optim.SGD([W], lr=1 / (1 / problem.rate + 2 * strength)),
        torch.optim.SGD([centre], lr=0.4 / (strength * K)),
        task_steps=task_steps,
        relation_steps=relation_steps,
    )
    closure = closure_of(optimizer, joint)
    for _ in range(600 // task_steps):
        optimizer.step(closure, closure)
    assert_optimal(problem, W, penalty(problem, strength / (2 * K), 0.0))
    torch.testing.assert_close(centre.detach(), W.detach().mean(0), rtol=1e-5, atol=1e-6)


def test_proximal_with_momentum_rests_at_the_minimum_the_docstring_names(problem):
    W = new_parameter()
    inner = torch.optim.SGD([W], lr=0.3 * problem.rate, momentum=0.8)
    optimizer = Proximal(inner, {W: PairwiseReg(0.05)})
    for _ in range(600):
        optimizer.step(closure_of(optimizer, lambda: problem.loss(W)))
    assert_optimal(problem, W, penalty(problem, 0.05 * (1 - 0.8), 0.0))


def test_a_mapping_phase_of_many_steps_is_as_long_as_the_task_phase():
    """One prox of 3·lr after 3 task steps: no gradient moves W, so the prox is all there is."""
    W = torch.nn.Parameter(torch.tensor([[0.0], [9.0]], dtype=torch.float64))
    for relation_steps, shrink in ((1, 1 + 8 * 0.3 * 2), (2, (1 + 8 * 0.15 * 2) ** 2)):
        W.data = torch.tensor([[0.0], [9.0]], dtype=torch.float64)
        optimizer = Alternating(
            torch.optim.SGD([W], lr=0.1),
            {W: PairwiseReg(2.0)},
            task_steps=3,
            relation_steps=relation_steps,
        )
        losses = optimizer.step(closure_of(optimizer, lambda: 0 * W.sum()))
        assert losses[0].item() == 0 and losses[1] is None
        expected = 4.5 + torch.tensor([[-4.5], [4.5]], dtype=torch.float64) / shrink
        torch.testing.assert_close(W.detach(), expected, rtol=1e-12, atol=0)


def test_proximal_uses_the_rate_of_each_group_and_leaves_the_rest_alone():
    start = torch.tensor([[0.0], [9.0]], dtype=torch.float64)
    one, two, free = (torch.nn.Parameter(start.clone()) for _ in range(3))
    inner = torch.optim.SGD([{"params": [one, free], "lr": 0.5}, {"params": [two]}], lr=0.25)
    optimizer = Proximal(inner, {one: PairwiseReg(0.5), two: PairwiseReg(0.5)})
    for parameter in (one, two, free):
        parameter.grad = torch.zeros_like(parameter)
    assert optimizer.step() is None
    assert one.tolist() == [[3.0], [6.0]]  # 4.5 ± 4.5/(1 + 4·2·½·½)
    assert two.tolist() == [[2.25], [6.75]]  # 4.5 ± 4.5/(1 + 4·2·½·¼)
    assert free.tolist() == [[0.0], [9.0]]


def test_proximal_takes_a_tuple_of_heads_as_the_rows_of_one_matrix():
    weights = tuple(torch.nn.Linear(3, 2).double().weight for _ in range(4))
    U, S, Vh = torch.linalg.svd(
        torch.stack([weight.detach().flatten() for weight in weights]), full_matrices=False
    )
    threshold = S[1].item()
    optimizer = Proximal(torch.optim.SGD(weights, lr=0.1), {weights: TraceNorm(threshold / 0.1)})
    optimizer.step()
    expected = (U * (S - threshold).clamp_min(0)) @ Vh  # of rank 1
    result = torch.stack([weight.detach().flatten() for weight in weights])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("on", ["wrapper", "inner"])
def test_step_lr_moves_the_step_of_the_optimiser_and_of_the_prox(on):
    W = torch.nn.Parameter(torch.tensor([[0.0], [9.0]], dtype=torch.float64))
    inner = torch.optim.SGD([W], lr=1.0)
    optimizer = Proximal(inner, {W: PairwiseReg(0.125)})
    scheduler = torch.optim.lr_scheduler.StepLR(
        {"wrapper": optimizer, "inner": inner}[on], step_size=1, gamma=0.5
    )
    half_gaps = [4.5]
    for lr in (1.0, 0.5, 0.25):
        assert optimizer.param_groups[0]["lr"] == inner.param_groups[0]["lr"] == lr
        optimizer.step(closure_of(optimizer, lambda: 0 * W.sum()))
        half_gaps.append((W[1] - W[0]).item() / 2)
        torch.testing.assert_close(half_gaps[-1], half_gaps[-2] / (1 + lr), rtol=1e-12, atol=0)
        scheduler.step()


@pytest.mark.parametrize("on", ["wrapper", "inner"])
def test_step_lr_on_alternating(on):
    W, centre = new_parameter(), torch.nn.Parameter(torch.ones(D).double())
    task, relation = torch.optim.SGD([W], lr=1.0), torch.optim.SGD([centre], lr=2.0)
    optimizer = Alternating(task, relation)
    scheduled = [optimizer] if on == "wrapper" else [task, relation]
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5) for o in scheduled]
    closure = closure_of(optimizer, lambda: (W - centre).square().sum())
    for _ in range(3):
        optimizer.step(closure, closure)
        for scheduler in schedulers:
            scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.25]
    assert task.param_groups[0]["lr"] == 0.125 and relation.param_groups[0]["lr"] == 0.25
