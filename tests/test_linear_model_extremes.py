"""Joint fits of any scales: at the minimum as 150 digits find it, or a warning with a true gap."""

import warnings

import mpmath as mp
import numpy as np
import pytest
from exact_oracles import (
    DIGITS,
    Small,
    exact,
    least_logistic,
    least_squares,
    logistic,
    modules,
    squares,
)

from mtlfast import TaskGraph
from mtlfast.linear_model import (
    MultiTaskClassifier,
    MultiTaskClassifierCV,
    MultiTaskRegressor,
    MultiTaskRegressorCV,
    path,
)
from mtlfast.linear_model._base import ConvergenceWarning
from mtlfast.nn import GraphReg, GraphTotalVariation, GroupLasso, PairwiseReg, Ridge, TraceNorm

FLOOR = 1e-6  # of the objective at W = 0: a smaller minimum counts as so much


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(DIGITS):
        yield


def relation(rng, kind, K):
    pairs = {
        "chain": [(i, i + 1) for i in range(K - 1)],
        "pieces": [(i, i + 1) for i in range(K - 1) if i != K // 2],
        "grid": [(i, i + 1) for i in range(K - 1) if i % 3 != 2]
        + [(i, i + 3) for i in range(K - 3)],
        "nearest": [(i, int(j)) for i in range(K) for j in rng.permutation(K)[:2] if i != j],
    }[kind]
    wide = rng.random() < 0.7
    return [(i, j, float(10 ** rng.uniform(-12, 12)) if wide else 1.0) for i, j in pairs]


def draw(seed, most_tasks=8):
    """Features of scales 1e-12 … 1e12, some far from 0, strengths 1e-8 … 1e16, weights 1e±12."""
    rng = np.random.default_rng(seed)
    K, d = int(rng.integers(1, most_tasks + 1)), int(rng.integers(1, 5))
    count = rng.integers(1, 9, K) + d
    if rng.random() < 0.2 and K > 1:
        count[rng.integers(K)] = 0
    if rng.random() < 0.3:
        count[rng.integers(K)] = 1
    task = np.repeat(np.arange(K), count)
    X = rng.normal(size=(len(task), d))
    slopes = rng.normal(size=d) + 0.3 * rng.normal(size=(K, d))
    y = (
        (X * slopes[task]).sum(1)
        + 0.5 * task
        + 10 ** rng.uniform(-3, 0) * rng.normal(size=len(task))
    )
    fit_intercept = bool(rng.random() < 0.7)
    if fit_intercept:
        X = X + 10 ** rng.uniform(0, 12, d) * (rng.random(d) < 0.3)
    if rng.random() < 0.7:
        X = X * 10 ** rng.uniform(-12, 12, d)
    kinds = ("pairwise", "ridge", "groups", "chain", "pieces", "grid", "nearest")
    penalty = []
    for kind in rng.choice(kinds, size=rng.integers(1, 4), replace=False):
        strength = float(10 ** rng.uniform(-8, 16))
        if kind in ("pairwise", "ridge"):
            penalty.append((str(kind), strength, None))
        elif kind == "groups":
            penalty.append(("groups", strength, rng.integers(0, 3, K).tolist()))
        else:
            penalty.append(("graph", strength, relation(rng, kind, K)))
    return Small(X, y * 10 ** rng.uniform(-6, 6), task, K, penalty, fit_intercept)


def fitted(estimator, problem, *args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = estimator.set_params(tasks=range(problem.K)).fit(problem.X, *args, problem.task)
    return model, any(issubclass(w.category, ConvergenceWarning) for w in caught)


def check(model, warned, reached, least, nothing, tol):
    """``reached`` is the objective at the coefficients, ``nothing`` that at W = 0."""
    floor = max(least, FLOOR * nothing)
    above = float((reached - least) / floor)
    assert reached <= nothing * (1 + 1e-9)
    if warned:
        assert above <= model.gap_ * float(max(reached, FLOOR * nothing) / floor) + 1e-9
    else:
        assert above <= 10 * tol
    if floor:
        assert abs(float((exact(model.objective_) - reached) / floor)) <= 1e-5


@pytest.mark.parametrize("seeds", [range(k, 180, 6) for k in range(6)], ids=str)
@pytest.mark.parametrize("tol", [1e-6, 1e-10])
def test_squares_of_any_scale(seeds, tol):
    for seed in seeds:
        problem = draw(seed)
        model = MultiTaskRegressor(
            modules(problem) or None, fit_intercept=problem.fit_intercept, tol=tol
        )
        model, warned = fitted(model, problem, problem.y)
        nothing = squares(problem, np.zeros_like(model.coef_))
        if nothing == 0:
            continue
        least = least_squares(problem)
        check(model, warned, squares(problem, model.coef_), least, nothing, tol)


@pytest.mark.parametrize("seeds", [range(k, 60, 6) for k in range(6)], ids=str)
def test_logistic_losses_of_any_scale(seeds):
    for seed in seeds:
        problem = draw(seed, most_tasks=4)
        rng = np.random.default_rng(seed)
        near = problem.X - problem.X.mean(0)
        spread = near.std(0)
        score = (near / np.where(spread > 0, spread, 1)).sum(1) + 1.5 * rng.normal(size=len(near))
        problem.y = (score > np.median(score)).astype(float)
        if len(set(problem.y)) < 2:
            continue
        # a task of one class takes the log odds of all rows
        pooled = np.log(problem.y.mean() / (1 - problem.y.mean())) if problem.fit_intercept else 0.0
        of_task = [problem.y[problem.task == k] for k in range(problem.K)]
        free = [problem.fit_intercept and 0 < y.sum() < len(y) for y in of_task]
        far = not all(free) and np.abs(problem.X).max() > 1e3 * spread.min()
        if problem.fit_intercept and far:
            continue  # an offset that no intercept takes up
        model = MultiTaskClassifier(modules(problem) or None, fit_intercept=problem.fit_intercept)
        model, warned = fitted(model, problem, problem.y)
        begin = [
            np.log(y.mean() / (1 - y.mean())) if own else pooled
            for y, own in zip(of_task, free, strict=True)
        ]
        nothing = logistic(problem, np.zeros_like(model.coef_), begin)
        least = least_logistic(problem, [None if own else pooled for own in free])
        check(model, warned, exact(model.objective_), least, nothing, 1e-6)


def five(scale=(1.0, 1.0, 1.0), offset=(0.0, 0.0, 0.0), seed=0):
    """60 rows of five tasks that share their slopes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 3))
    return (X + offset) * scale, X.sum(1) + rng.normal(size=60), np.repeat(np.arange(5), 12)


def pooled(X, y, task):
    """Common slopes, an intercept for each task: by least squares on the rows."""
    mean = np.stack([X[task == k].mean(0) for k in range(task.max() + 1)])
    level = np.array([y[task == k].mean() for k in range(task.max() + 1)])
    return np.linalg.lstsq(X - mean[task], y - level[task], rcond=None)[0]


CHAIN = TaskGraph.chain(5)
TIED = {
    "pairwise": PairwiseReg,
    "chain": lambda s: GraphReg(CHAIN, s),
    "groups": lambda s: GraphReg(TaskGraph.groups([0] * 5), s),
    "variation": lambda s: GraphTotalVariation(CHAIN, s),
}


@pytest.mark.parametrize("scale", [1e-5, 3e-7, 1e-9, 1e-12, 1e12])
@pytest.mark.parametrize("kind", ["pairwise", "chain", "groups"])
def test_a_slope_that_tasks_share_costs_nothing_in_any_unit(kind, scale):
    X, y, task = five((scale, 1.0, 1.0))
    relation = {
        "pairwise": ("pairwise", 0.1, None),
        "chain": ("graph", 0.2, [(k, k + 1, 1.0) for k in range(4)]),
        "groups": ("groups", 0.1, [0] * 5),
    }[kind]
    problem = Small(X, y, task, 5, [relation], True)
    least = float(least_squares(problem))
    model = MultiTaskRegressor(TIED[kind](0.1), tol=1e-9).fit(X, y, task)
    assert model.objective_ == pytest.approx(least, rel=1e-9)
    rest = MultiTaskRegressor(TIED[kind](0.1)).fit(X[:, 1:], y, task)
    assert least < 0.6 * rest.objective_  # the first feature matters


@pytest.mark.parametrize("strength", [1e6, 1e9, 1e12, 1e14, 1e16])
@pytest.mark.parametrize("kind", TIED)
def test_the_strong_limit_is_pooled(kind, strength):
    X, y, task = five()
    model = MultiTaskRegressor(TIED[kind](strength)).fit(X, y, task)
    np.testing.assert_allclose(model.coef_, np.tile(pooled(X, y, task), (5, 1)), atol=1e-5)


@pytest.mark.parametrize("strength", [1e6, 1e10, 1e16])
@pytest.mark.parametrize("kind", ["pairwise", "chain", "groups"])
@pytest.mark.parametrize("d", [3, 80])
def test_the_strong_limit_of_many_tasks_is_pooled(kind, strength, d):
    """By conjugate gradients: with Gram matrices, and with rows where they are few."""
    rng, K, rows = np.random.default_rng(1), 300, 8
    X, task = rng.normal(size=(K * rows, d)), np.repeat(np.arange(K), rows)
    y = X[:, :3].sum(1) + rng.normal(size=K * rows)
    term = {
        "pairwise": PairwiseReg(strength),
        # long waves of a chain are stiff only from K² times the strength on
        "chain": GraphReg(TaskGraph.chain(K), 1e5 * strength),
        "groups": GraphReg(TaskGraph.groups([0] * K), strength),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = MultiTaskRegressor(term).fit(X, y, task)
    np.testing.assert_allclose(model.coef_, np.tile(pooled(X, y, task), (K, 1)), atol=2e-5)


def test_one_heavy_edge_in_an_ordinary_graph():
    rng, K = np.random.default_rng(2), 40
    X, task = rng.normal(size=(K * 6, 2)), np.repeat(np.arange(K), 6)
    y = X.sum(1) + rng.normal(size=K * 6)
    edges = [(int(i), int(j), 1.0) for i, j in rng.integers(0, K, (80, 2)) if i != j]
    heavy = Small(X, y, task, K, [("graph", 0.3, [*edges, (3, 17, 1e12)])], True)
    (term,) = modules(heavy)
    model = MultiTaskRegressor(term, tol=1e-9).fit(X, y, task)
    np.testing.assert_allclose(model.coef_[3], model.coef_[17], rtol=1e-9)
    merged = np.where(task == 17, 3, task)
    merged = np.where(merged > 17, merged - 1, merged)

    def renamed(k):
        return 3 if k == 17 else k - (k > 17)

    edges = [(renamed(i), renamed(j), w) for i, j, w in edges if renamed(i) != renamed(j)]
    levels = {k: y[task == k].mean() for k in (3, 17)}
    means = {k: X[task == k].mean(0) for k in (3, 17)}
    both = (merged == 3)[:, None]
    near = np.stack([means.get(k, np.zeros(2)) for k in task])
    level = np.array([levels.get(k, 0.0) for k in task])
    alone = Small(X - near * both, y - level * both[:, 0], merged, K - 1,
                  [("graph", 0.3, edges)], True)  # fmt: skip
    wanted = MultiTaskRegressor(modules(alone), tol=1e-9).fit(alone.X, alone.y, alone.task)
    assert model.objective_ == pytest.approx(wanted.objective_, rel=1e-9)


@pytest.mark.parametrize("offset", [2024.0, 1e8, 1.7e9, 1.7e12])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_a_column_like_a_timestamp(offset, sparse):
    X, y, task = five()
    labels = y > 0.3
    far, _, _ = five(offset=(offset, 0.0, 0.0))
    # what float64 keeps of the column
    X[:, 0] = far[:, 0] - offset
    if sparse:
        far = pytest.importorskip("scipy.sparse").csr_matrix(far)
    for kind, target in ((MultiTaskRegressor, y), (MultiTaskClassifier, labels)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            near, model = (kind(PairwiseReg(0.1), tol=1e-9).fit(A, target, task) for A in (X, far))
        np.testing.assert_allclose(model.coef_, near.coef_, rtol=1e-6, atol=1e-7)
        assert model.n_iter_ <= near.n_iter_ + 20


def test_paths_and_searches_reach_their_strong_ends():
    X, y, task = five((3e-7, 1.0, 1e2))
    wanted = np.tile(pooled(X, y, task), (5, 1))
    grid = [PairwiseReg(s) for s in (1e16, 1e11, 1.0)]
    for model in path(MultiTaskRegressor(), grid, X, y, task)[:2]:
        np.testing.assert_allclose(model.coef_, wanted, rtol=1e-4)
    model = MultiTaskRegressorCV(grid[:2], cv=3, random_state=0).fit(X, y, task)
    np.testing.assert_allclose(model.coef_, wanted, rtol=1e-4)
    model = MultiTaskClassifierCV(grid[:2], cv=3, random_state=0).fit(X, y > 0.3, task)
    np.testing.assert_allclose(model.coef_, np.tile(model.coef_[0], (5, 1)), rtol=1e-4)
    np.testing.assert_allclose(*model.cv_log_loss_, rtol=1e-4)


NORMS = {
    "trace": lambda s: TraceNorm(s),
    "lasso": lambda s: GroupLasso(s),
    "variation": lambda s: GraphTotalVariation(CHAIN, s),
}


@pytest.mark.parametrize(
    "beside", [[], [Ridge(1e-3)], [PairwiseReg(1e9)]], ids=["", "ridge", "tied"]
)
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("loss", [MultiTaskRegressor, MultiTaskClassifier])
def test_what_a_gap_leaves_of_norms(loss, kind, beside):
    """No W that is found by other ways lies below objective·(1 − gap); none above W = 0."""
    wide = 4 if loss is MultiTaskRegressor else 2
    for seed in range(wide):
        rng = np.random.default_rng(seed)
        scale = 10 ** rng.uniform(-wide, wide, 3)
        X, y, task = five(scale, seed=seed)
        y = y if loss is MultiTaskRegressor else y > 0
        terms = [NORMS[kind](float(10 ** rng.uniform(-3, 5))), *beside]
        found = []
        for tol, max_iter in ((1e-3, 10), (1e-5, 300), (1e-8, 3000)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found.append(loss(terms, tol=tol, max_iter=max_iter).fit(X, y, task))
            assert found[-1].gap_ <= tol or caught
        nothing = loss(Ridge(1e30)).fit(X, y, task).objective_
        best = min(model.objective_ for model in found)
        for model in found:
            assert model.objective_ <= nothing * (1 + 1e-9)
            above = model.objective_ - best
            assert above <= (model.gap_ + 1e-9) * max(model.objective_, FLOOR * nothing)


def test_a_false_start_is_not_what_is_returned():
    """What is worse than W = 0 is never given, whatever the solver was stopped at."""
    X, y, task = five((1e6, 1.0, 1e-6))
    nothing = MultiTaskRegressor(Ridge(1e30)).fit(X, y, task).objective_
    for terms in ([TraceNorm(1e3)], [GroupLasso(1e3), PairwiseReg(1e8)]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MultiTaskRegressor(terms, max_iter=1).fit(X, y, task)
        assert model.objective_ <= nothing


@pytest.mark.parametrize("offset", [1e7, 1e10])
def test_directions_that_rounding_hides_are_told(offset):
    """Without an intercept a column far from 0 leaves nothing of its spread in sums of squares."""
    X, y, task = five(offset=(offset, 0.0, 0.0))
    X = np.c_[X, X[:, :1] + np.random.default_rng(3).normal(size=(60, 1))]
    model = MultiTaskRegressor(PairwiseReg(1e-3), fit_intercept=False)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, y, task)
    assert model.gap_ > 1e-3
