"""Sums of regularizers: one pass for their quadratics, and where that is not the whole truth."""

import copy

import pytest
import torch
from cases import bits

from mtlfast import TaskGraph, _native, _ops, nn
from mtlfast._dtypes import real_dtype
from mtlfast.nn import (
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Quadratic,
    Regularizer,
    Ridge,
    Sum,
    TraceNorm,
    _fused,
)

native = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
K, D = 40, 7
EDGES = torch.randint(K, (2, 160), generator=torch.Generator().manual_seed(0))
WEIGHT = torch.rand(160, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
GRAPH = TaskGraph.from_edges(EDGES, WEIGHT, K)
GROUPS = TaskGraph.groups(torch.arange(K) % 6)
DENSE = torch.rand(K, K, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def tasks(seed=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (1 + torch.randn(K, D, generator=generator, dtype=torch.float64)).to(dtype)


def learned(dtype=torch.float64):
    return torch.nn.Parameter(WEIGHT.to(dtype))


SUMS = {
    "pairs, edges, ridge": lambda: [PairwiseReg(0.01), GraphReg(GRAPH, 0.5), Ridge(0.3)],
    "means": lambda: [PairwiseReg(5.0, "mean"), GraphReg(GRAPH, 7.0, "mean"), Ridge(0.3)],
    "edges and ridge": lambda: [GraphReg(GRAPH, 0.5), Ridge(0.3)],
    "edges and pairs": lambda: [PairwiseReg(0.01), GraphReg(GRAPH, 0.5)],
    "two graphs": lambda: [GraphReg(GRAPH, 0.5), GraphReg(TaskGraph.chain(K), 0.25)],
    "graphs of all kinds": lambda: [GraphReg(g, 0.1) for g in (GROUPS, DENSE, GRAPH)],
    "groups and dense": lambda: [GraphReg(GROUPS, 0.1), GraphReg(DENSE, 0.2)],
    "pairs and ridge": lambda: [PairwiseReg(0.01), Ridge(0.3), PairwiseReg(0.02)],
    "ridges": lambda: [Ridge(0.3), Ridge(0.1)],
    "ridge and groups": lambda: [Ridge(0.3), GraphReg(GROUPS, 0.1)],
    "pairs, edges, ridge, a norm": lambda: [
        PairwiseReg(0.01), GraphReg(GRAPH, 0.5), TraceNorm(0.3), Ridge(0.3)
    ],
    "two norms": lambda: [Ridge(0.3), GroupLasso(0.2), PairwiseReg(0.01), TraceNorm(0.3)],
    "learned weights": lambda: [
        GraphReg((EDGES, learned()), 0.5), PairwiseReg(0.01), Ridge(0.3), GraphReg(GRAPH, 0.1)
    ],
    "norms alone": lambda: [TraceNorm(0.3), TraceNorm(0.2)],
    "a norm and groups": lambda: [TraceNorm(0.3), GraphReg(GROUPS, 0.1)],
    "a strength of 0": lambda: [PairwiseReg(0.0), GraphReg(GRAPH, 0.5), Ridge(0.3)],
    "a graph without edges": lambda: [
        GraphReg(TaskGraph.from_edges(EDGES[:, :0], None, K), 2.0), PairwiseReg(0.01), Ridge(0.3)
    ],
}  # fmt: skip
every_sum = pytest.mark.parametrize("name", SUMS)


def apart(terms, W):
    """The value and the gradient in W, term by term."""
    leaf = W.detach().clone().requires_grad_()
    values = [term(leaf) for term in terms]
    return sum(values).detach(), torch.autograd.grad(sum(values), leaf)[0]


def close(a, b, rtol=1e-12):
    scale = float(b.double().norm())
    assert float((a.double() - b.double()).norm()) <= rtol * scale


@pytest.fixture
def passes(monkeypatch):
    """How often a sum was taken in one go."""
    calls = []
    for name in ("_value", "_value_and_grad"):
        function = getattr(_fused, name)
        monkeypatch.setattr(
            _fused, name, lambda *a, function=function: calls.append(a) or function(*a)
        )
    return calls


@every_sum
@pytest.mark.parametrize("upstream", [1.0, -2.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_sum_is_that_of_its_terms(name, upstream, dtype, passes):
    terms, W = SUMS[name](), tasks(dtype=dtype)
    value, grad = apart(terms, W)
    leaf = W.clone().requires_grad_()
    whole = Sum(terms)(leaf)
    whole.backward(torch.tensor(upstream, dtype=dtype))
    rtol = 1e-12 if dtype == torch.float64 else 3e-6
    close(whole.detach(), value, rtol)
    close(leaf.grad, upstream * grad, rtol)
    with torch.no_grad():
        alone = Sum(terms)(W)
    close(alone, whole.detach(), rtol)
    if "norm" not in name:  # a gradient is worth finer steps to a trace norm
        assert bits(alone) == bits(whole.detach())
    assert len(passes) == 2


@every_sum
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_sum_in_place(name, listed, dtype):
    terms, W = SUMS[name](), tasks(dtype=dtype)
    value, grad = apart(terms, W)
    before = tasks(seed=9, dtype=dtype)
    target = list(before.clone()) if listed else before.clone().T.contiguous().T
    W = [row.requires_grad_() for row in W.clone()] if listed else W.requires_grad_()
    got = Sum(terms).add_grad_(target, W, alpha=-0.5)
    assert not got.requires_grad
    rtol = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2}[dtype]
    close(got, value, rtol if dtype != torch.bfloat16 else 1e-3)
    added = torch.stack(list(target))
    wanted = before.double() - 0.5 * grad.double()
    assert float((added.double() - wanted).norm()) <= rtol * float(
        before.double().norm() + grad.double().norm()
    )


@every_sum
def test_a_second_backward_and_a_second_derivative(name):
    terms, W = SUMS[name](), tasks()
    leaf = W.clone().requires_grad_()
    value = Sum(terms)(leaf)
    first = torch.autograd.grad(value, leaf, retain_graph=True)[0]
    second = torch.autograd.grad(3 * value, leaf, retain_graph=True)[0]
    close(second, 3 * first)
    direction = tasks(seed=5)
    slope = torch.autograd.grad(value, leaf, create_graph=True)[0]
    product = torch.autograd.grad((slope * direction).sum(), leaf)[0]
    values = sum(term(leaf) for term in terms)
    slope = torch.autograd.grad(values, leaf, create_graph=True)[0]
    close(product, torch.autograd.grad((slope * direction).sum(), leaf)[0], 1e-10)


@every_sum
def test_lists_transforms_and_compilers_by_value(name, fresh_compiler):
    terms, W = SUMS[name](), tasks()
    whole = Sum(terms)
    value, grad = apart(terms, W)
    rows = [row.clone().requires_grad_() for row in W]
    whole(rows).backward()
    close(torch.stack([row.grad for row in rows]), grad)
    if "learned" in name:
        return
    close(torch.func.grad(whole)(W), grad)
    close(torch.func.vmap(whole)(torch.stack([W, 2 * W]))[0], value)
    leaf = W.clone().requires_grad_()
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")(leaf)
    close(compiled.detach(), value)
    close(torch.autograd.grad(compiled, leaf)[0], grad)


@pytest.mark.parametrize("name", ["pairs, edges, ridge", "groups and dense", "ridges"])
def test_batched_gradients(name):
    terms, leaf = SUMS[name](), tasks().requires_grad_()
    upstream = torch.tensor([1.0, -2.0], dtype=torch.float64)
    grads = torch.autograd.grad(Sum(terms)(leaf), leaf, upstream, is_grads_batched=True)[0]
    close(grads[1], -2 * apart(terms, leaf)[1])


def test_learned_weights_get_their_gradient():
    weight = learned()
    terms = [GraphReg((EDGES, weight), 0.5), PairwiseReg(0.01), Ridge(0.3)]
    Sum(terms)(tasks().requires_grad_()).backward()
    row, col = EDGES
    close(weight.grad, 0.5 * (tasks()[row] - tasks()[col]).square().sum(1))
    before = weight.grad.clone()
    Sum(terms).add_grad_(torch.zeros(K, D, dtype=torch.float64), tasks())
    assert torch.equal(weight.grad, before)


@native
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(K, D), (3000, 65), (40, 300)], ids=str)
def test_one_pass_has_the_bits_of_the_kernels_one_after_the_other(dtype, shape):
    W = torch.randn(shape, dtype=torch.float64).to(dtype)
    edges = torch.randint(shape[0], (2, 4 * shape[0]))
    graph = TaskGraph.from_edges(edges, None, shape[0]).rows_as(real_dtype(dtype))
    order = torch.randperm(shape[0]).int()
    graph = (*_native.graph_order.graph_reorder(*graph[:3], order), order)
    value, grad = _ops.quadratic_value(W, *graph, 0.3, 0.01, 0.75, True)
    one = torch.ones((), dtype=real_dtype(dtype))
    edge_value, parts = _ops.graph_value(W, *graph, 0.75 * one)
    pair_value, mean = _ops.pairwise_value(W)
    _ops.pairwise_add_(parts, W, mean, 4.0 * shape[0] * 0.01)
    ridge_value = _ops.ridge_add_(parts, W, 0.3, 1.0)
    assert bits(grad) == bits(parts)
    close(value, 0.75 * edge_value + 0.01 * pair_value + ridge_value, 1e-6)
    added = torch.ones_like(W)
    assert bits(_ops.quadratic_add_(added, W, *graph, 0.3, 0.01, 0.75, 1.0)) == bits(value)
    close(added, 1 + grad, 1e-6)


@native
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_the_bits_depend_on_no_thread_count_and_no_instruction_set(dtype):
    W, grad = torch.randn(3000, 17).to(dtype), torch.randn(3000, 17).to(dtype)
    graph = TaskGraph.from_edges(torch.randint(3000, (2, 9000)), None, 3000)
    both = PairwiseReg(1e-4) + GraphReg(graph, 0.1) + Ridge(0.2)
    seen = set()
    for threads in (1, 2, 3):
        for isa in _native.cpu_isas():
            torch.set_num_threads(threads)
            _native.use_isa(isa)
            leaf, added = W.clone().requires_grad_(), grad.clone()
            value = both(leaf)
            value.backward()
            value_in_place = both.add_grad_(added, W)
            results = value.detach(), leaf.grad, value_in_place, added
            seen.add(str([bits(result) for result in results]))
    assert len(seen) == 1


def test_values_of_extreme_size():
    """Strengths are factors inside: what is in range comes out in range."""
    W = torch.full((K, D), 1e18)
    W[0] = 2e18
    both = PairwiseReg(1e-30) + Ridge(1e-30) + GraphReg(GRAPH, 1e-30)
    value, _ = apart(both.terms, W.double())
    close(both(W), value, 1e-6)
    tiny = PairwiseReg(1e-8) + Ridge(1e24) + GraphReg(GRAPH, 1e-8)
    assert float(tiny(1e-25 * W / 1e18)) > 0
    close(tiny(1e-25 * W / 1e18), apart(tiny.terms, 1e-25 * W.double() / 1e18)[0], 1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@every_sum
def test_not_finite_input_is_never_hidden(name, bad):
    W = tasks()
    W[0, 0] = bad
    leaf = W.requires_grad_()
    try:
        value = Sum(SUMS[name]())(leaf)
        value.backward()
    except ValueError as error:
        assert "trace_norm: W must be finite" in str(error)
    else:
        assert not value.isfinite()
        assert not leaf.grad.isfinite().all()


# What a sum must not take from its terms -------------------------------------------------------


class Doubled(PairwiseReg):
    """A term that somebody changed."""

    def forward(self, W):
        return 2 * super().forward(W)


def test_a_forward_that_was_changed_is_called():
    W, terms = tasks(), [Ridge(0.3), GraphReg(GRAPH, 0.5)]
    wanted = sum(term(W) for term in terms) + 2 * PairwiseReg(0.01)(W)
    close(Sum([Doubled(0.01), *terms])(W), wanted)
    changed = PairwiseReg(0.01)
    changed.forward = lambda W: 2 * PairwiseReg(0.01)(W)
    close(Sum([changed, *terms])(W), wanted)


def test_hooks_of_terms_are_called():
    seen = []
    terms = [Ridge(0.3), GraphReg(GRAPH, 0.5), PairwiseReg(0.01)]
    terms[0].register_forward_hook(lambda module, args, value: seen.append(float(value)))
    terms[1].register_forward_hook(lambda module, args, value: 2 * value)
    W = tasks()
    value = Sum(terms)(W)
    assert seen == [float(Ridge(0.3)(W))]
    close(value, Ridge(0.3)(W) + 2 * GraphReg(GRAPH, 0.5)(W) + PairwiseReg(0.01)(W))


class Learned(Regularizer):
    """A quadratic whose strength is learned: what it declares is a constant, its value is not."""

    def __init__(self):
        super().__init__()
        self.log_rate = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, W):
        return self.log_rate.exp() * W.square().sum()

    def quadratic(self, num_tasks):
        return Quadratic(ridge=float(self.log_rate.exp()))


def test_a_term_of_a_user_gives_its_own_value():
    term, W = Learned(), tasks()
    Sum([term, Ridge(0.3), PairwiseReg(0.01)])(W).backward()
    close(term.log_rate.grad, W.square().sum())


def test_a_failure_leaves_the_gradient_as_it_was():
    W, grad = tasks(), torch.ones(K, D, dtype=torch.float64)
    W[0, 0] = torch.nan
    other = GraphReg(TaskGraph.chain(K + 1))
    for terms in (
        [Ridge(), TraceNorm(), PairwiseReg(), GraphReg(GRAPH)],
        [Ridge(), other, TraceNorm()],
        [GroupLasso(), PairwiseReg(), TraceNorm()],
    ):
        with pytest.raises(ValueError, match=r"trace_norm: W must be|graph must have"):
            Sum(terms).add_grad_(grad, W)
        assert grad.eq(1).all()
    with pytest.raises(ValueError, match=r"Sum\.add_grad_: alpha must be finite"):
        Sum([Ridge(), PairwiseReg()]).add_grad_(grad, tasks(), alpha=torch.inf)
    assert grad.eq(1).all()


# Proxes ----------------------------------------------------------------------------------------


class Decay(Regularizer):
    """A ridge of a user's, without a prox."""

    def forward(self, W):
        return self.strength * sum((w * w).sum() for w in W)

    def quadratic(self, num_tasks):
        return Quadratic(ridge=self.strength)


class Near(Regularizer):
    """Tasks near those of a graph and near each other, for a user."""

    def __init__(self, graph, strength=1.0):
        super().__init__(strength)
        self.links = graph

    def forward(self, W):
        return GraphReg(self.links, self.strength)(W) + PairwiseReg(0.1 * self.strength)(W)

    def quadratic(self, num_tasks):
        return Quadratic(pairs=0.1 * self.strength, graphs=[(self.links, self.strength)])


PROXES = {
    "decay": lambda: [Decay(0.3), Decay(0.1)],
    "decay alone": lambda: [Decay(0.3)],
    "decay and pairs": lambda: [Decay(0.3), PairwiseReg(0.01)],
    "near": lambda: [Near(GRAPH, 0.2)],
    "near, decay, ridge and pairs": lambda: [
        Near(GRAPH, 0.2), Decay(0.3), Ridge(0.1), PairwiseReg(0.01)
    ],
    "nothing of the second graph": lambda: [Near(GRAPH, 0.2), Near(TaskGraph.chain(K), 0.0)],
}  # fmt: skip


@pytest.mark.parametrize("name", PROXES)
@pytest.mark.parametrize("step", [0.0, 0.01, 3.0])
def test_quadratics_of_a_user_are_folded(name, step):
    """0 = Z − W + step · ∇R(Z)"""
    both, W = Sum(PROXES[name]()), tasks()
    assert both.has_prox
    Z = both.prox(W, step).requires_grad_()
    gradient = torch.autograd.grad(both(Z), Z)[0]
    assert (Z - W + step * gradient).norm() <= 1e-7 * W.norm()
    moved = tuple(W.view(K, 1, D).unbind())
    assert both.prox_(moved, step) is moved
    torch.testing.assert_close(torch.cat(moved), Z.detach())


@pytest.mark.parametrize("term", [GroupLasso(0.5), TraceNorm(0.5)], ids=["groups", "trace"])
def test_a_ridge_of_a_user_beside_a_prox(term):
    W = tasks()
    both, plain = Decay(0.3) + term, Ridge(0.3) + term
    assert both.has_prox
    assert torch.equal(both.prox(W, 0.7), plain.prox(W, 0.7))


@pytest.mark.parametrize(
    "terms",
    [
        [Near(GRAPH), Near(GRAPH)],
        [Near(GRAPH), GraphReg(GRAPH)],
        [Near(GRAPH), TraceNorm()],
        [PairwiseReg(), GroupLasso()],
        [GroupLasso(), TraceNorm(), Decay()],
        [Decay(), nn.GramReg(DENSE)],
        [GraphTotalVariation(GRAPH), PairwiseReg()],
    ],
    ids=lambda terms: "-".join(type(term).__name__ for term in terms),
)
def test_sums_whose_prox_is_not_known(terms):
    both = Sum(terms)
    assert not both.has_prox
    names = " \\+ ".join(type(term).__name__ for term in terms)
    with pytest.raises(NotImplementedError, match=f"no exact prox is known for {names}; there is"):
        both.prox(tasks(), 0.1)


def test_what_a_sum_declares():
    both = PairwiseReg(0.5) + GraphReg(GRAPH, 2.0, "mean") + Decay(0.25) + Ridge(1)
    told = both.quadratic(K)
    assert (told.ridge, told.pairs) == (1.25, 0.5)
    assert told.graphs == ((GRAPH, 2.0 / GRAPH.num_edges),)
    assert (both + TraceNorm()).quadratic(K) is None
    assert Sum([TraceNorm()]).is_norm and not (TraceNorm() + GroupLasso()).is_norm
    total = GraphTotalVariation(GRAPH, 0.5)
    assert Sum([total]).edges(K) == total.edges(K) == (GRAPH, 0.5)
    assert (total + Ridge()).edges(K) is None
    assert copy.deepcopy(both).quadratic(K).ridge == 1.25


def test_graphs_in_any_form_are_told_as_task_graphs():
    for graph in (DENSE, DENSE.to_sparse(), (EDGES, learned()), (EDGES, None)):
        term = GraphReg(graph, 0.5)
        ((told, strength),) = term.quadratic(K).graphs
        assert isinstance(told, TaskGraph) and strength == 0.5
        close(0.5 * nn.GraphReg(told)(tasks()), term(tasks()).detach())
        edges, strength = GraphTotalVariation(graph, 0.5, "mean").edges(K)
        assert strength == 0.5 / edges.num_edges
    assert GraphReg(DENSE).quadratic(3).graphs[0][0].num_tasks == K


QUADRATICS = [
    (lambda: Quadratic(ridge=-1), ValueError, "Quadratic: ridge must be finite and >= 0, got -1.0"),
    (lambda: Quadratic(pairs="1"), TypeError, "Quadratic: pairs must be a number, got str"),
    (lambda: Quadratic(graphs=GRAPH), TypeError, "graphs must be a list of pairs .*got TaskGraph"),
    (lambda: Quadratic(graphs=[GRAPH]), TypeError, "must hold pairs .*, got TaskGraph"),
    (lambda: Quadratic(graphs=[(GRAPH, 1, 2)]), TypeError, "must hold pairs .*, got 3 entries"),
    (lambda: Quadratic(graphs=[(DENSE, 1)]), TypeError, "must hold pairs .*, got Tensor"),
    (lambda: Quadratic(graphs=[(GRAPH, -2)]), ValueError, "the strength of a graph must be finite"),
    (lambda: Quadratic() + 1, TypeError, "unsupported operand"),
]


@pytest.mark.parametrize(("call", "error", "words"), QUADRATICS)
def test_bad_quadratics(call, error, words):
    with pytest.raises(error, match=words):
        call()
