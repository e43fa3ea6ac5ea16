"""Terms that a user writes: the solvers ask what they declare, and whether that is so."""

import re

import numpy as np
import pytest
import torch

from mtlfast import TaskGraph, nn, optim
from mtlfast.linear_model import (
    MultiTaskClassifier,
    MultiTaskClassifierCV,
    MultiTaskRegressor,
    MultiTaskRegressorCV,
    path,
    strengths,
)
from mtlfast.nn import (
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Quadratic,
    Regularizer,
    Ridge,
    TraceNorm,
)

RNG = np.random.default_rng(0)
K, D = 6, 4
TASK = np.repeat(np.arange(K), 15)
X = RNG.normal(size=(len(TASK), D))
TRUTH = np.outer(np.linspace(1, 2, K), [1, 0, -1, 0]) + 0.1 * RNG.normal(size=(K, D))
Y = (X * TRUTH[TASK]).sum(1) + 0.5 * RNG.normal(size=len(TASK))
SIGN = np.where(Y > 0, "yes", "no")
GRAPH = TaskGraph.from_edges([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]], [1, 2, 1, 0.5, 1], K)
TIGHT = {"tol": 1e-10, "max_iter": 20_000}


class L1(Regularizer):
    has_prox = True
    is_norm = True

    def forward(self, W):
        return self.strength * W.abs().sum()

    def prox(self, W, step):
        return torch.nn.functional.softshrink(W, float(step) * self.strength)


class Columns(Regularizer):
    """The group lasso over again, in plain torch."""

    has_prox = True
    is_norm = True

    def forward(self, W):
        return self.strength * W.norm(dim=0).sum()

    def prox(self, W, step):
        return W * (1 - step * self.strength / W.norm(dim=0)).clamp(min=0)


class Decay(Regularizer):
    def forward(self, W):
        return self.strength * W.square().sum()

    def quadratic(self, num_tasks):
        return Quadratic(ridge=self.strength)


class Near(Regularizer):
    """Pairs in the mean, and a graph: both quadratics at once, without a prox."""

    def __init__(self, links, strength=1.0):
        super().__init__(strength)
        self.links = links

    def forward(self, W):
        pairs = PairwiseReg(self.strength, reduction="mean")
        return pairs(W) + GraphReg(self.links, self.strength)(W)

    def quadratic(self, num_tasks):
        pairs = self.strength / max(num_tasks * (num_tasks - 1), 1)
        return Quadratic(pairs=pairs, graphs=[(self.links, self.strength)])


class Links(Regularizer):
    """The network lasso over again; what it holds is no ``graph``."""

    def __init__(self, links, strength=1.0):
        super().__init__(strength)
        self.links = links

    def forward(self, W):
        source, target, weight = self._edges()
        return self.strength * (weight * (W[source] - W[target]).norm(dim=1)).sum()

    def edges(self, num_tasks):
        return self.links, self.strength

    def _edges(self):
        row = torch.arange(self.links.num_tasks).repeat_interleave(self.links.row_ptr.diff())
        return row, self.links.col.long(), self.links.weight.double() / 2


def fitted(penalty, **settings):
    return MultiTaskRegressor(penalty, **(TIGHT | settings)).fit(X, Y, TASK)


# (a user's terms, the same of built-in ones)
SAME = {
    "columns": (lambda s: [Columns(s)], lambda s: [GroupLasso(s)]),
    "decay": (lambda s: [Decay(s)], lambda s: [Ridge(s)]),
    "near": (lambda s: [Near(GRAPH, s)], lambda s: [PairwiseReg(s, "mean"), GraphReg(GRAPH, s)]),
    "links": (lambda s: [Links(GRAPH, s)], lambda s: [GraphTotalVariation(GRAPH, s)]),
    "columns beside quadratics": (
        lambda s: [Near(GRAPH, s), Columns(2 * s), Decay(0.1)],
        lambda s: [PairwiseReg(s, "mean"), GraphReg(GRAPH, s), GroupLasso(2 * s), Ridge(0.1)],
    ),
    "columns, a trace norm and links": (
        lambda s: [Columns(s), TraceNorm(s), Links(GRAPH, s), Decay(0.1)],
        lambda s: [GroupLasso(s), TraceNorm(s), GraphTotalVariation(GRAPH, s), Ridge(0.1)],
    ),
}
every_pair = pytest.mark.parametrize("name", SAME)


@every_pair
def test_a_term_of_a_user_is_solved_like_a_built_in_one(name):
    own, built_in = (make(1.5) for make in SAME[name])
    a, b = fitted(nn.Sum(own)), fitted(built_in)
    assert a.gap_ <= 1e-10
    assert a.solver_ == b.solver_
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-9)
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-4)


@every_pair
def test_in_the_classifier_a_path_and_cross_validation(name):
    own, built_in = SAME[name]
    a, b = (MultiTaskClassifier(make(0.5), tol=1e-7).fit(X, SIGN, TASK) for make in (own, built_in))
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-6)
    factors = [10.0, 1.0, 0.1]
    grids = [strengths(make(1.0), factors) for make in (own, built_in)]
    fits = [path(MultiTaskRegressor(tol=1e-8), grid, X, Y, TASK) for grid in grids]
    for mine, theirs in zip(*fits, strict=True):
        assert mine.objective_ == pytest.approx(theirs.objective_, rel=1e-7)
    chosen = [MultiTaskRegressorCV(grid, cv=3, random_state=0).fit(X, Y, TASK) for grid in grids]
    assert chosen[0].best_index_ == chosen[1].best_index_
    np.testing.assert_allclose(chosen[0].cv_mse_, chosen[1].cv_mse_, rtol=1e-3)
    settings = {"cv": 2, "random_state": 0, "tol": 1e-7}
    chosen = [MultiTaskClassifierCV(grid, **settings).fit(X, SIGN, TASK) for grid in grids]
    assert chosen[0].best_index_ == chosen[1].best_index_
    np.testing.assert_allclose(chosen[0].cv_log_loss_, chosen[1].cv_log_loss_, rtol=1e-3)


@pytest.mark.parametrize("solver", ["admm", "fista"])
@pytest.mark.parametrize(
    "rest", [[], [Ridge(0.2)], [PairwiseReg(0.1)], [GraphReg(GRAPH, 0.3), Decay(0.1)]], ids=len
)
def test_a_norm_of_a_user_is_optimal(solver, rest):
    """The gradient of what is smooth is minus a subgradient: sign(W)·s, at most s at zeros."""
    model = fitted([L1(5.0), *rest], solver=solver, fit_intercept=False, tol=1e-12)
    W = torch.from_numpy(model.coef_).requires_grad_()
    rows = (torch.from_numpy(X) * W[TASK]).sum(1)
    smooth = 0.5 * (torch.from_numpy(Y) - rows).square().sum() + sum(term(W) for term in rest)
    slope = -torch.autograd.grad(smooth, W)[0].numpy()
    zero = model.coef_ == 0
    assert zero.any() and not zero.all()
    np.testing.assert_allclose(slope[~zero], 5.0 * np.sign(model.coef_[~zero]), atol=1e-4)
    assert np.abs(slope[zero]).max() <= 5.0 + 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_tensors_and_their_types(dtype):
    x, y = torch.from_numpy(X).to(dtype), torch.from_numpy(Y).to(dtype)
    model = MultiTaskRegressor([L1(1.0), Near(GRAPH, 0.1)]).fit(x, y, torch.from_numpy(TASK))
    assert model.coef_.dtype == dtype
    close = MultiTaskRegressor([L1(1.0), PairwiseReg(0.1, "mean"), GraphReg(GRAPH, 0.1)])
    torch.testing.assert_close(model.coef_, close.fit(x, y, TASK).coef_, rtol=0, atol=1e-3)


def test_a_graph_by_any_name_says_the_tasks():
    """Nodes of the graph of a term are tasks, also those without rows."""
    some = TASK < 4
    for term in (Near(GRAPH, 1.0), Links(GRAPH, 1.0)):
        model = MultiTaskRegressor([term]).fit(X[some], Y[some], TASK[some])
        assert model.tasks_.tolist() == list(range(K))
    with pytest.raises(ValueError, match="tasks must name a task for each of the 6 nodes"):
        MultiTaskRegressor([Near(GRAPH)]).fit(X[:4], Y[:4], list("abcd"))
    message = r"fit: the graph of Near must have a node for each of the K=3 tasks, got 6"
    from mtlfast.linear_model._penalties import split

    with pytest.raises(ValueError, match=message):
        split("fit", [Near(GRAPH)], 3, torch.device("cpu"))


def test_weights_that_are_learned_are_constants_in_a_fit():
    index = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    weight = torch.nn.Parameter(torch.tensor([1, 2, 1, 0.5, 1]))
    a, b = (fitted(GraphReg(graph, 2.0)) for graph in ((index, weight), GRAPH))
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-8)
    total = fitted(GraphTotalVariation((index, weight), 2.0))
    assert total.objective_ == pytest.approx(fitted(Links(GRAPH, 2.0)).objective_, rel=1e-8)


def test_a_norm_whose_strength_is_learned_is_fitted_as_it_is():
    class Learned(L1):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, W):
            return self.rate * W.abs().sum()

        def prox(self, W, step):
            return W.sign() * (W.abs() - step * self.rate).clamp(min=0)

    np.testing.assert_allclose(fitted(Learned()).coef_, fitted(L1(2.0)).coef_, atol=1e-6)


def test_in_an_optimiser():
    """A sum of a norm with ridges, and of quadratics, goes where a prox is wanted."""
    W = torch.nn.Parameter(torch.randn(K, D, dtype=torch.float64))
    W.grad = torch.zeros_like(W)
    before = W.detach().clone()
    both = L1(0.5) + Decay(0.25) + Ridge(0.25)
    optim.Proximal(torch.optim.SGD([W], lr=1.0), {W: both}).step()
    wanted = torch.nn.functional.softshrink(before / 2, 0.25)
    torch.testing.assert_close(W.detach(), wanted)
    related = Decay(0.1) + Near(GRAPH, 0.2)
    optim.Proximal(torch.optim.SGD([W], lr=0.5), {W: related}).step()
    gradient = torch.autograd.grad(related(W), W)[0]
    torch.testing.assert_close(W.detach() + 0.5 * gradient, wanted, rtol=0, atol=1e-8)
    smooth = torch.optim.SGD([W], lr=0.1)
    optim.Proximal(smooth, {W: L1(0.1)}, smooth={W: Near(GRAPH, 0.2)}).step()
    with pytest.raises(NotImplementedError, match=r"must have a prox, got L1 \+ PairwiseReg;"):
        optim.Proximal(smooth, {W: L1(0.1) + PairwiseReg()})


# What is not as it is declared -----------------------------------------------------------------


def variant(**methods):
    """L1 with other methods, as a class of that name."""
    return type("Mine", (L1,), methods)(1.5)


def huber(self, W):
    return torch.where(W.abs() < 1, W.square() / 2, W.abs() - 0.5).sum()


RULES = {
    "a square": (
        variant(forward=lambda self, W: W.square().sum(), prox=lambda self, W, t: W / (1 + 2 * t)),
        "forward(2W) must be 2 forward(W), got",
    ),
    "a norm near 0 only": (variant(forward=huber), "forward(2W) must be 2 forward(W), got"),
    "something at 0": (
        variant(forward=lambda self, W: W.abs().sum() + 1),
        "forward(0) must be 0, got 1 at a random W",
    ),
    "negative": (
        variant(forward=lambda self, W: -W.abs().sum()),
        "forward(W) must be finite and >= 0, got -",
    ),
    "not convex": (
        variant(forward=lambda self, W: W.abs().sqrt().sum().square()),
        "forward(W) must be at most forward(V) + forward(W − V), got",
    ),
    "a prox without the strength": (
        variant(prox=lambda self, W, step: torch.nn.functional.softshrink(W, float(step))),
        "⟨W − Z, Z⟩ must be step · forward(Z) for Z = prox(W, step), got",
    ),
    "the prox of something else": (
        variant(prox=lambda self, W, step: W / (1 + 2 * step)),
        "⟨W − Z, Z⟩ must be step · forward(Z) for Z = prox(W, step), got",
    ),
    "nothing is kept": (
        variant(prox=lambda self, W, step: 0 * W),
        "⟨W − Z, V⟩ must be at most step · forward(V) for Z = prox(W, step), got",
    ),
    "a set": (
        variant(forward=lambda self, W: 0 * W.sum(), prox=lambda self, W, step: W.clamp(min=0)),
        "⟨W − Z, V⟩ must be at most step · forward(V) for Z = prox(W, step), got",
    ),
    "a prox of another shape": (
        variant(prox=lambda self, W, step: W.sum(0)),
        "prox must return a tensor like W, [6, 4], torch.float64, got shape [4], torch.float64",
    ),
    "a prox of another type": (
        variant(prox=lambda self, W, step: W.float()),
        "prox must return a tensor like W, [6, 4], torch.float64, got shape [6, 4], torch.float32",
    ),
    "no prox": (
        variant(prox=lambda self, W, step: None),
        "prox must return a tensor like W, [6, 4], torch.float64, got NoneType",
    ),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("estimator", [MultiTaskRegressor, MultiTaskClassifier])
def test_a_norm_that_is_none_is_found(name, estimator):
    term, rule = RULES[name]
    for penalty in (term, [Ridge(0.1), term], PairwiseReg() + term):
        with pytest.raises(ValueError) as caught:
            estimator(penalty).fit(X, SIGN == "yes", TASK)
        message = f"{estimator.__name__}.fit: Mine declares is_norm, so {rule}"
        assert str(caught.value).startswith(message)


def test_in_a_grid_it_is_found_before_anything_is_fitted():
    wrong = RULES["a square"][0]
    for call in (
        lambda: path(MultiTaskRegressor(), [L1(), wrong], X, Y, TASK),
        lambda: MultiTaskRegressorCV([L1(), wrong]).fit(X, Y, TASK),
        lambda: MultiTaskClassifierCV([L1(), wrong]).fit(X, SIGN, TASK),
    ):
        with pytest.raises(ValueError, match="Mine declares is_norm, so"):
            call()


class Wrong(Decay):
    """Says half of what it is."""

    def forward(self, W):
        return 2 * super().forward(W)


class Other(Links):
    def edges(self, num_tasks):
        return TaskGraph.chain(num_tasks), self.strength


def saying(method, told):
    return type("Mine", (Decay,), {method: lambda self, num_tasks: told})()


DECLARATIONS = {
    "half": (Wrong(0.5), ValueError, "Wrong.forward must be what it declares as a quadratic, "),
    "another graph": (
        Other(GRAPH),
        ValueError,
        "Other.forward must be what it declares as edges, ",
    ),
    "a vector": (
        type("Mine", (Decay,), {"forward": lambda self, W: W.square().sum(0)})(),
        ValueError,
        "Mine.forward must return a scalar, got a tensor of shape [4]",
    ),
    "no Quadratic": (
        saying("quadratic", {"ridge": 1.0}),
        TypeError,
        "Mine.quadratic must return an mtlfast.nn.Quadratic or None, got dict",
    ),
    "no strength": (
        type("Mine", (Decay,), {"quadratic": lambda self, num_tasks: Quadratic(ridge=-1)})(),
        ValueError,
        "Mine.quadratic: Quadratic: ridge must be finite and >= 0, got -1.0",
    ),
    "no pair": (
        type("Mine", (Links,), {"edges": lambda self, num_tasks: self.links})(GRAPH),
        TypeError,
        "Mine.edges must return a pair (TaskGraph, strength) or None, got TaskGraph",
    ),
    "a strength that is none": (
        type("Mine", (Links,), {"edges": lambda self, num_tasks: (self.links, "1")})(GRAPH),
        TypeError,
        "Mine.edges: strength must be a number, got str",
    ),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_what_is_declared_wrongly_is_found(name):
    term, error, words = DECLARATIONS[name]
    with pytest.raises(error) as caught:
        MultiTaskRegressor([Ridge(), term]).fit(X, Y, TASK)
    assert caught.type is error
    assert str(caught.value).startswith(f"MultiTaskRegressor.fit: {words}")


class Bare(Regularizer):
    def forward(self, W):
        return self.strength * W.pow(4).sum()


def with_(**attributes):
    return type("Bare", (Bare,), attributes)()


MISSING = [
    (Bare(), "which declares none of them"),
    (nn.GramReg(torch.eye(K)), "which declares none of them"),
    (with_(has_prox=True), "whose prox the solvers cannot use without is_norm"),
    (with_(is_norm=True), "which declares is_norm but not has_prox, a prox of its own"),
    (with_(quadratic=lambda self, num_tasks: None), "which declares none of them"),
]


@pytest.mark.parametrize(("term", "words"), MISSING, ids=[words[-20:] for _, words in MISSING])
def test_what_is_missing_is_said(term, words):
    for penalty in (term, [Ridge(), term]):
        with pytest.raises(NotImplementedError) as caught:
            MultiTaskRegressor(penalty).fit(X, Y, TASK)
        message = (
            "MultiTaskRegressor.fit: penalty must be a sum of terms that declare a quadratic, "
            "edges or is_norm beside has_prox, as mtlfast.nn.Regularizer tells, got "
        )
        assert str(caught.value) == f"{message}{type(term).__name__}, {words}"


@pytest.mark.parametrize("make", [L1, Decay, lambda: Links(GRAPH), lambda: GraphReg(GRAPH)])
@pytest.mark.parametrize(
    ("strength", "error", "rule"),
    [
        (-1.0, ValueError, "must be finite and >= 0, got -1.0"),
        (float("nan"), ValueError, "must be finite and >= 0, got nan"),
        ("strong", TypeError, "must be a number, got str"),
        (None, TypeError, "must be a number, got NoneType"),
    ],
)
def test_a_strength_that_was_set_is_checked(make, strength, error, rule):
    term = make()
    term.strength = strength
    message = f"MultiTaskRegressor.fit: strength of {type(term).__name__} {rule}"
    with pytest.raises(error, match=re.escape(message)):
        MultiTaskRegressor([term]).fit(X, Y, TASK)


def test_a_strength_may_be_any_number():
    for strength in (2, np.float32(2), np.float64(2), torch.tensor(2.0)):
        term = L1()
        term.strength = strength
        np.testing.assert_allclose(fitted(term).coef_, fitted(L1(2.0)).coef_, atol=1e-4)
    assert fitted([L1(0.0), Decay(0.0)]).solver_ == "cg"


@pytest.mark.parametrize("solver", ["cg", "fista", "admm"])
def test_refusals_of_a_solver_name_the_terms(solver):
    penalty = {"cg": [L1()], "fista": [L1(), Columns()], "admm": [Decay()]}[solver]
    words = {"cg": "got L1; ", "fista": "got L1 + Columns; ", "admm": "needs a norm, got none"}
    with pytest.raises(ValueError, match=re.escape(words[solver])):
        MultiTaskRegressor(penalty, solver=solver).fit(X, Y, TASK)
