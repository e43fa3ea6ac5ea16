"""The modules: values against loops over pairs, proxes by their optimality conditions."""

import copy
import pickle

import pytest
import torch

from mtlfast.gram import LowRank
from mtlfast.graphs import TaskGraph
from mtlfast.nn import (
    GramReg,
    GraphReg,
    GroupLasso,
    PairwiseReg,
    Regularizer,
    Ridge,
    Sum,
    TraceNorm,
)

K, D = 7, 3
EDGES = torch.tensor([[0, 1, 2, 3, 3, 6], [1, 0, 4, 5, 6, 2]])
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.25, 1.5, 3.0], dtype=torch.float64)
A = torch.zeros(K, K, dtype=torch.float64).index_put((EDGES[0], EDGES[1]), WEIGHTS)
NUM_EDGES, NUM_PAIRS = 6, K * (K - 1)


def tasks(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(K, D, generator=generator, dtype=torch.float64).to(dtype)


def over_pairs(W, weights):
    """Σ_ij weights_ij ‖w_i − w_j‖² by the double loop of the definition."""
    rows = [row.flatten() for row in W]
    total = W[0].new_zeros(())
    for i in range(K):
        for j in range(K):
            total = total + weights[i, j] * (rows[i] - rows[j]).square().sum()
    return total


ONES = torch.ones(K, K, dtype=torch.float64)
OMEGA = tasks(3) @ tasks(4).T

# name → (module, its value by definition)
CASES = {
    "pairwise": (lambda: PairwiseReg(0.3), lambda W: 0.3 * over_pairs(W, ONES)),
    "pairwise mean": (
        lambda: PairwiseReg(0.3, "mean"),
        lambda W: 0.3 * over_pairs(W, ONES) / NUM_PAIRS,
    ),
    "graph": (
        lambda: GraphReg(TaskGraph.from_edges(EDGES, WEIGHTS, K), 0.3),
        lambda W: 0.3 * over_pairs(W, A),
    ),
    "graph mean": (
        lambda: GraphReg(TaskGraph.from_edges(EDGES, WEIGHTS, K), 0.3, "mean"),
        lambda W: 0.3 * over_pairs(W, A) / NUM_EDGES,
    ),
    "edge list mean": (
        lambda: GraphReg((EDGES, torch.nn.Parameter(WEIGHTS.clone())), 0.3, "mean"),
        lambda W: 0.3 * over_pairs(W, A) / NUM_EDGES,
    ),
    "dense mean": (
        lambda: GraphReg(A, 0.3, reduction="mean"),
        lambda W: 0.3 * over_pairs(W, A) / NUM_EDGES,
    ),
    "sparse mean": (
        lambda: GraphReg(A.to_sparse(), 0.3, reduction="mean"),
        lambda W: 0.3 * over_pairs(W, A) / NUM_EDGES,
    ),
    "unweighted edge list": (
        lambda: GraphReg((EDGES, None), 0.3),
        lambda W: 0.3 * over_pairs(W, (A > 0).double()),
    ),
    "groups": (
        lambda: GraphReg(TaskGraph.groups([0, 0, 0, 0, 1, 1, 2]), 0.3),
        lambda W: 0.3 * over_pairs(W, torch.block_diag(ONES[:4, :4], ONES[:2, :2], ONES[:1, :1])),
    ),
    "trace norm": (
        lambda: TraceNorm(0.3),
        lambda W: 0.3 * torch.linalg.svdvals(W.flatten(1)).sum(),
    ),
    "gram": (
        lambda: GramReg(OMEGA, 0.3),
        lambda W: 0.3 * (W.flatten(1) @ W.flatten(1).T - OMEGA).square().sum(),
    ),
    "low rank gram": (
        lambda: GramReg(LowRank(tasks(5)), 0.3),
        lambda W: 0.3 * (W.flatten(1) @ W.flatten(1).T - tasks(5) @ tasks(5).T).square().sum(),
    ),
    "ridge": (lambda: Ridge(0.3), lambda W: 0.3 * W.square().sum()),
    "sums with ridge": (
        lambda: Ridge(0.3) + PairwiseReg(0.1) + GraphReg(A, 2.0) + Ridge(0.2),
        lambda W: 0.5 * W.square().sum() + 0.1 * over_pairs(W, ONES) + 2 * over_pairs(W, A),
    ),
    "ridges": (lambda: Ridge(0.3) + Ridge(0.2), lambda W: 0.5 * W.square().sum()),
    "sum": (
        lambda: PairwiseReg(0.3) + GraphReg(A, 2.0) + PairwiseReg(1.0, "mean"),
        lambda W: (
            0.3 * over_pairs(W, ONES) + 2 * over_pairs(W, A) + over_pairs(W, ONES) / NUM_PAIRS
        ),
    ),
    "sum of means": (
        lambda: GraphReg(A, 2.0, "mean") + PairwiseReg(5.0, "mean"),
        lambda W: 2 * over_pairs(W, A) / NUM_EDGES + 5 * over_pairs(W, ONES) / NUM_PAIRS,
    ),
    "sum without prox": (
        lambda: PairwiseReg(0.3) + TraceNorm(2.0),
        lambda W: 0.3 * over_pairs(W, ONES) + 2 * torch.linalg.svdvals(W.flatten(1)).sum(),
    ),
}
QUADRATIC = [
    n for n in CASES if n not in ("trace norm", "gram", "low rank gram", "sum without prox")
]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(K, D), (K, 1, D), "list"])
def test_value_and_gradient(name, shape):
    make, definition = CASES[name]
    W = tasks().requires_grad_()
    given = list(W.unbind()) if shape == "list" else W.view(shape)
    value = make()(given)
    expected = definition(W)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    grad = torch.autograd.grad(value, W)[0]
    torch.testing.assert_close(
        grad, torch.autograd.grad(expected, W)[0], rtol=1e-9, atol=1e-9 * grad.abs().max().item()
    )


@pytest.mark.parametrize("name", QUADRATIC)
@pytest.mark.parametrize("step", [0.0, 0.01, 3.0])
def test_prox_is_stationary(name, step):
    """0 = Z − W + step · ∇R(Z), R by definition; the argmin of a strictly convex problem."""
    make, definition = CASES[name]
    module, W = make(), tasks()
    assert module.has_prox
    Z = module.prox(W, step).detach().requires_grad_()
    gradient = torch.autograd.grad(definition(Z), Z)[0]
    assert (Z - W + step * gradient).norm() <= 1e-7 * W.norm()
    assert step == 0 or (Z - W).norm() > 1e-3 * W.norm()
    heads = module.prox(tuple(W.view(K, 1, D)), step)
    assert isinstance(heads, tuple) and heads[0].shape == (1, D)
    torch.testing.assert_close(torch.cat(heads), Z.detach(), rtol=0, atol=1e-12)


def test_ridge_with_one_other_term():
    """W/s − Z is the other term's subgradient times step/s, s = 1 + 2·step·strength."""
    W, step = tasks(), 0.7
    for term in (GroupLasso(0.5), TraceNorm(0.5)):
        both = Ridge(0.3) + term
        assert both.has_prox
        shrunk, s = W / (1 + 2 * step * 0.3), 1 + 2 * step * 0.3
        torch.testing.assert_close(both.prox(W, step), term.prox(shrunk, step / s))
        moved = W.clone()
        both.prox_(moved, step)
        assert torch.equal(moved, both.prox(W, step))
    assert not (Ridge() + GroupLasso() + TraceNorm()).has_prox
    assert not (Ridge() + GramReg(OMEGA)).has_prox


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_ridge_in_place(dtype):
    W, module = tasks(dtype=dtype), Ridge(0.3)
    grad, moved = torch.ones_like(W), W.clone()
    value = module.add_grad_(grad, W, alpha=-2.0)
    assert value.dtype == module(W).dtype == torch.float32
    torch.testing.assert_close(value.double(), 0.3 * W.double().square().sum(), rtol=2e-7, atol=0)
    torch.testing.assert_close(value, module(W), rtol=2e-7, atol=0)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(grad.double(), 1 - 1.2 * W.double(), rtol=rounding, atol=rounding)
    assert module.prox_(moved, 0.5) is moved
    assert torch.equal(moved, module.prox(W, 0.5))
    torch.testing.assert_close(moved.double(), W.double() / 1.3, rtol=rounding, atol=0)
    with pytest.raises(ValueError, match=r"ridge_prox_: W must have memory of its own"):
        module.prox_(W[:1].expand(3, D), 0.5)


@pytest.mark.parametrize("step", [0.5, 2.0])
def test_trace_norm_prox_is_optimal(step):
    """‖W − Z‖₂ ≤ t and ⟨W − Z, Z⟩ = t ‖Z‖_*, with t = step · strength."""
    W = tasks()
    for module in (TraceNorm(0.5), Sum([TraceNorm(0.5)])):
        assert module.has_prox
        Z = module.prox(W.view(K, 1, D), step).view(K, D)
        t = 0.5 * step
        assert torch.linalg.matrix_norm(W - Z, 2) <= t * (1 + 1e-12)
        product = ((W - Z) * Z).sum()
        torch.testing.assert_close(product, t * torch.linalg.svdvals(Z).sum(), rtol=1e-10, atol=0)
        assert 0 < Z.norm() < W.norm()


@pytest.mark.parametrize("name", ["gram", "sum without prox"])
def test_what_is_missing_is_said(name):
    module = CASES[name][0]()
    assert not module.has_prox
    message = {
        "gram": "GramReg.prox: this regularizer has no prox",
        "sum without prox": r"Sum.prox: no exact prox is known for PairwiseReg \+ TraceNorm;",
    }
    with pytest.raises(NotImplementedError, match=message[name]):
        module.prox(tasks(), 0.1)
    two_graphs = GraphReg(A) + GraphReg(A)
    with pytest.raises(NotImplementedError, match=r"for GraphReg \+ GraphReg"):
        two_graphs.prox(tasks(), 0.1)


def test_sums_are_flat_and_start_from_zero():
    a, b, c = PairwiseReg(1.0), GraphReg(A), TraceNorm(2.0)
    for total in (
        (a + b) + c,
        a + (b + c),
        sum([a, b, c]),
        Sum([a, Sum([b, c])]),
        Sum(iter([a, b, c])),
    ):
        assert isinstance(total, Regularizer) and list(total.terms) == [a, b, c]
    assert sum([a]) is a
    for other in (1, 0.5, None, "pairwise"):
        with pytest.raises(TypeError, match="unsupported operand"):
            a + other
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + a


def test_parts_of_a_module_that_learn_move_and_are_saved():
    weight = torch.nn.Parameter(WEIGHTS.clone())
    learned = GraphReg((EDGES, weight))
    assert [*learned.state_dict()] == ["edge_weight", "edge_index"]
    assert [*learned.parameters()] == [weight]
    learned(tasks()).backward()
    row, col = EDGES
    torch.testing.assert_close(weight.grad, (tasks()[row] - tasks()[col]).square().sum(1))
    assert [*GraphReg(A).state_dict()] == ["graph"] and not [*GraphReg(A).parameters()]
    assert [*GramReg(OMEGA).state_dict()] == ["omega"]
    factor = torch.nn.Parameter(tasks(5))
    assert [*GramReg(LowRank(factor)).parameters()] == [factor]
    assert not GraphReg(TaskGraph.chain(K)).state_dict()
    half = GraphReg(A).float()
    assert half.graph.dtype == torch.float32


def test_a_task_graph_moves_with_the_module():
    graph = TaskGraph.chain(K)
    module = torch.nn.Sequential(GraphReg(graph) + PairwiseReg())
    module.double()
    assert module[0].terms[0].graph is graph  # dtypes are no matter of a graph
    module.to("meta")
    assert module[0].terms[0].graph.device.type == "meta"


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("name", CASES)
def test_copies_compute_the_same(name, how):
    module = CASES[name][0]()
    copied = how(module)
    assert torch.equal(copied(tasks()), module(tasks()))
    assert repr(copied) == repr(module)
    copied.load_state_dict(module.state_dict())


def test_repr_names_the_arguments():
    assert repr(PairwiseReg(0.5)) == 'PairwiseReg(strength=0.5, reduction="sum")'
    assert repr(GraphReg(A, 2)) == 'GraphReg(strided [7, 7], strength=2, reduction="sum")'
    chain = GraphReg(TaskGraph.chain(3), 2, "mean")
    assert repr(chain) == (
        "GraphReg(TaskGraph(num_tasks=3, num_edges=4, device='cpu'), strength=2, "
        'reduction="mean")'
    )


def test_modules_compile():
    module = PairwiseReg(0.5) + GraphReg(TaskGraph.chain(K), 2.0)
    W = tasks().requires_grad_()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    value, expected = compiled(W), module(W)
    torch.testing.assert_close(value, expected)
    grads = [torch.autograd.grad(v, W)[0] for v in (value, expected)]
    torch.testing.assert_close(*grads)


BAD = {
    "strength": (
        lambda: PairwiseReg(-1),
        ValueError,
        r"PairwiseReg: strength must be finite and >= 0, got -1.0",
    ),
    "strength nan": (
        lambda: TraceNorm(float("nan")),
        ValueError,
        r"TraceNorm: strength must be finite and >= 0, got nan",
    ),
    "strength type": (
        lambda: GraphReg(A, "strong"),
        TypeError,
        r"GraphReg: strength must be a number, got str",
    ),
    "reduction": (
        lambda: GramReg(OMEGA, 1.0, "max"),
        ValueError,
        r"GramReg: reduction must be \"sum\" or \"mean\", got 'max'",
    ),
    "edge list": (
        lambda: GraphReg((EDGES, WEIGHTS, K)),
        ValueError,
        r"GraphReg: a graph of plain tensors must be \(edge_index, edge_weight\), got 3 entries",
    ),
    "step": (
        lambda: (PairwiseReg() + GraphReg(A)).prox(tasks(), -0.5),
        ValueError,
        r"Sum.prox: step must be finite and >= 0, got -0.5",
    ),
    "no term": (lambda: Sum([]), ValueError, r"Sum: terms must hold at least one .* got none"),
    "term": (lambda: Sum([3]), TypeError, r"Sum: terms must be regularizers, got int"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
