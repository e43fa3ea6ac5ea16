"""What a script makes its default device changes nothing: results lie where the arguments lie."""

import contextlib
import warnings

import cases
import numpy as np
import pytest
import torch
from cases import CASES, bits, upstream_like

import mtlfast
from mtlfast import TaskGraph, relations
from mtlfast.linear_model import (
    ConvergenceWarning,
    MultiTaskClassifier,
    MultiTaskClassifierCV,
    MultiTaskRegressor,
    MultiTaskRegressorCV,
)
from mtlfast.nn import (
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Ridge,
    TaskLinear,
    TraceNorm,
)
from mtlfast.optim import Alternating, Proximal

every_case = pytest.mark.parametrize("case", CASES, ids=cases.names)


@contextlib.contextmanager
def for_the_session(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


every_way = pytest.mark.parametrize("default", [torch.device, for_the_session])


def results(function, leaves, upstream):
    """The value, its gradients, and those with a graph of their own."""
    leaves = [t.detach().requires_grad_() for t in leaves]
    value = function(*leaves)
    grads = torch.autograd.grad(value, leaves, upstream, create_graph=True)
    value.backward(upstream)
    return [bits(t) for t in (value, *grads, *(leaf.grad for leaf in leaves))]


@every_way
@every_case
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_every_case(case, dtype, default):
    tensors = case.tensors(21, 5, dtype)
    with torch.no_grad():
        upstream = upstream_like(case.function(*tensors))
    want = results(case.function, tensors, upstream)
    with default("meta"):
        assert results(case.function, tensors, upstream) == want


@every_case
@pytest.mark.parametrize("K, d", [(0, 3), (1, 2), (3, 0), (300, 40)])
def test_every_case_at_other_sizes(case, K, d):
    """Other kernels, and what serves where nothing is left to compute."""
    tensors = case.tensors(K, d)
    with torch.no_grad():
        upstream = upstream_like(case.function(*tensors))
    want = results(case.function, tensors, upstream)
    with torch.device("meta"):
        assert results(case.function, tensors, upstream) == want


@every_case
def test_every_case_under_transforms(case):
    W, *extras = case.tensors(7, 3)
    batch, tangent = torch.stack([W, 2 * W]), torch.ones_like(W)

    def total(w):
        return case.function(w, *extras).sum()

    def transformed():
        gradient = torch.func.grad(total)(W)
        slope = torch.func.jvp(total, (W,), (tangent,))[1]
        each = torch.func.vmap(torch.func.grad(total))(batch)
        leaf = W.clone().requires_grad_()
        value = case.function(leaf, *extras)
        upstream = torch.stack([torch.ones_like(value), 2 * torch.ones_like(value)])
        several = torch.autograd.grad(value, leaf, upstream, is_grads_batched=True)[0]
        return [bits(t) for t in (gradient, slope, each, several)]

    want = transformed()
    with torch.device("meta"):
        assert transformed() == want


EDGES = torch.tensor([[0, 1, 1, 3], [1, 2, 2, 3]])
DENSE = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.0, 2.0, 3.0]])
FEW, MANY = np.random.default_rng(0).normal(size=(2, 2_100, 3))
COO = DENSE.to_sparse()
CSR = DENSE.to_sparse_csr()


def scipy_graph():
    return TaskGraph.from_sparse(pytest.importorskip("scipy.sparse").csr_array(DENSE.numpy()))


def networkx_graph():
    return TaskGraph.from_networkx(pytest.importorskip("networkx").path_graph(4))


GRAPHS = {
    "edges": lambda: TaskGraph.from_edges(EDGES),
    "edges with weights": lambda: TaskGraph.from_edges(EDGES.numpy(), [1.0, 2.0, 3.0, 4.0], 9),
    "edges in a list": lambda: TaskGraph.from_edges([[0, 1], [1, 2]]),
    "no edges": lambda: TaskGraph.from_edges([[], []], num_tasks=3),
    "dense": lambda: TaskGraph.from_dense(DENSE),
    "dense in a list": lambda: TaskGraph.from_dense(DENSE.tolist()),
    "coo": lambda: TaskGraph.from_sparse(COO),
    "csr": lambda: TaskGraph.from_sparse(CSR),
    "scipy": scipy_graph,
    "networkx": networkx_graph,
    "knn by products": lambda: TaskGraph.knn(FEW[:50].tolist(), 3),
    "knn by a tree": lambda: TaskGraph.knn(MANY, 3),
    "knn of all": lambda: TaskGraph.knn(torch.eye(3, device="cpu"), 2),
    "chain": lambda: TaskGraph.chain(5),
    "groups of strings": lambda: TaskGraph.groups(["a", "b", "a"]),
    "groups of tuples": lambda: TaskGraph.groups([(1, 2), (3,), (1, 2)]),
    "groups of ids": lambda: TaskGraph.groups(EDGES[1]),
    "groups of an array": lambda: TaskGraph.groups(EDGES[0].numpy()),
    "groups written out": lambda: TaskGraph.groups(["a", "b", "a", "a"]).written_out(),
}


@every_way
@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
def test_a_graph_lies_where_its_parts_lie(make, default):
    """On the CPU where its parts are no tensors."""

    def parts(graph):
        tensors = graph._tensors()
        assert {t.device.type for t in tensors.values()} == {"cpu"}
        return graph.num_edges, {name: bits(t) for name, t in tensors.items()}, bits(
            graph.to_dense()
        )  # fmt: skip

    want = parts(make())
    with default("meta"):
        assert parts(make()) == want


PLAIN = {
    "edges": lambda: (EDGES[:, :3], None),
    "weights": lambda: (EDGES[:, :3], EDGES[0, :3].double()),
    "dense": lambda: DENSE,
    "coo": lambda: COO,
    "csr": lambda: CSR,
}


@pytest.mark.parametrize("function", ["graph_reg", "graph_prox", "graph_total_variation"])
@pytest.mark.parametrize("graph", PLAIN.values(), ids=PLAIN)
def test_plain_graphs(function, graph):
    W = torch.arange(9.0).reshape(3, 3).sin()
    call = getattr(mtlfast, function)
    more = [0.1] if function == "graph_prox" else []
    want = bits(call(W, graph(), *more))
    with torch.device("meta"):
        assert bits(call(W.clone(), graph(), *more)) == want


def test_sparse_gram_distance():
    W = torch.arange(6.0).reshape(3, 2).sin()
    want = results(lambda w: mtlfast.gram_reg(w, COO), [W], torch.tensor(1.5))
    upstream = torch.tensor(1.5)
    with torch.device("meta"):
        assert results(lambda w: mtlfast.gram_reg(w, COO), [W], upstream) == want


def test_total_variation_prox():
    W, graph = torch.arange(12.0).reshape(4, 3).sin(), TaskGraph.chain(4)
    want = bits(mtlfast.graph_total_variation_prox(W, graph, 0.3))
    with torch.device("meta"):
        assert bits(mtlfast.graph_total_variation_prox(W, graph, 0.3)) == want


def test_relations():
    W = torch.arange(40.0).reshape(10, 4).sin()

    def found():
        r = relations(W.numpy())
        clusters = [str(r.clusters(3)), str(r.clusters(threshold=0.5))]
        return r.summary(), clusters, r.nearest(2, n=3), r.correlation(0, 1)

    want = found()
    with torch.device("meta"):
        assert found() == want


@pytest.mark.parametrize("rows", [3, 50])
def test_heads_gathered_and_grouped(rows):
    torch.manual_seed(0)
    layer = TaskLinear(3, 4, 2)
    x, ids = torch.randn(rows, 4), torch.arange(rows) % 3
    want = [bits(layer(x, task)) for task in (1, ids, ids.tolist(), ids.numpy())]
    with torch.device("meta"):
        assert [bits(layer(x, task)) for task in (1, ids, ids.tolist(), ids.numpy())] == want
        assert TaskLinear(3, 4, 2).weight.is_meta  # a new layer is made where layers are made
        assert TaskLinear(3, 4, 2, device="cpu").bias.is_cpu
        heads = layer.to_modules()
        assert TaskLinear.from_modules(heads).weight.is_cpu


def test_optimisers():
    graph = TaskGraph.chain(4)

    def trained(default):
        torch.manual_seed(0)
        W, centre = torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.ones(3))
        relation = GraphReg(graph, 0.1) + PairwiseReg(0.01)
        pulled = Proximal(torch.optim.SGD([W], lr=0.1), {W: TraceNorm(0.1)}, smooth={W: relation})
        inner = torch.optim.SGD([centre], lr=0.1)
        both = Alternating(pulled, inner)
        group = GroupLasso(0.1)
        with default:
            for _ in range(3):
                both.zero_grad()
                both.step(lambda: (W.square().sum() + (W - centre).square().sum()).backward())
            group.prox_(W.detach(), 0.1)
        return bits(W), bits(centre)

    assert trained(torch.device("meta")) == trained(contextlib.nullcontext())


def rows_of_tasks():
    random = np.random.default_rng(0)
    task = np.repeat(np.arange(6), 9)
    X = random.normal(size=(len(task), 4)) * (random.random((len(task), 4)) < 0.7)
    X[:, 0] += 1.0  # a column that is stored in every row
    return X, X.sum(1) + 0.2 * task + random.normal(size=len(task)), task


def tensors(X):
    return torch.from_numpy(X)


def sparse_rows(X):
    return pytest.importorskip("scipy.sparse").csr_array(X)


PENALTIES = {
    "pairwise": lambda: PairwiseReg(0.1),
    "two graphs": lambda: GraphReg(TaskGraph.chain(6), 0.3) + GraphReg(TaskGraph.groups([0] * 6)),
    "trace norm": lambda: TraceNorm(0.5) + Ridge(0.1),
    "total variation": lambda: GraphTotalVariation(TaskGraph.chain(6), 0.4) + PairwiseReg(0.01),
}


@pytest.mark.parametrize("form", [np.asarray, tensors, sparse_rows])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_linear_models(penalty, form):
    X, y, task = rows_of_tasks()

    def fitted():
        found = []
        for solver in ("auto", "cg", "fista", "admm"):
            for fit_intercept in (True, False):
                model = MultiTaskRegressor(penalty(), solver=solver, fit_intercept=fit_intercept)
                try:
                    model.fit(form(X), y, task)
                except ValueError as error:  # a solver that is not for such a penalty
                    found.append(str(error))
                    continue
                found += [np.asarray(model.coef_).tobytes(), model.predict(form(X), task).sum()]
        classes = MultiTaskClassifier(penalty(), max_iter=50, tol=1e-3)
        classes.fit(form(X), np.where(y > 1, "more", "less"), task)
        found.append(np.asarray(classes.predict_proba(form(X), task)).tobytes())
        grid, levels = [penalty(), Ridge(0.5)], np.digitize(y, [0, 1])
        settings = {"cv": 2, "random_state": 0, "tol": 1e-3}
        for kind, target in ((MultiTaskRegressorCV, y), (MultiTaskClassifierCV, levels)):
            chosen = kind(grid, **settings).fit(form(X), target, task)
            found.append(np.asarray(chosen.coef_).tobytes())
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        want = fitted()
        with torch.device("meta"):
            assert fitted() == want
