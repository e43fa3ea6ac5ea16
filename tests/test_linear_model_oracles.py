"""The joint solvers against solutions that share no code with them.

scikit-learn where its models coincide with ours, a dense system for quadratic sums, an interior
point method for the rest. Objectives are recomputed row by row and pair by pair.
"""

import itertools
import warnings

import numpy as np
import pytest
import torch
from linear_oracles import (
    QUADRATIC,
    cvxpy_solution,
    dense_solution,
    modules,
    objective,
    problem,
)

from mtlfast import TaskGraph
from mtlfast.linear_model import MultiTaskClassifier, MultiTaskRegressor
from mtlfast.nn import GraphReg, PairwiseReg

TIGHT = {"tol": 1e-10, "max_iter": 50_000}
STRENGTH = {"pairwise": 0.05, "graph": 0.8, "ridge": 0.3, "trace": 2.0, "group": 1.5, "tv": 0.7}


def fitted(data, penalty, estimator=MultiTaskRegressor, **settings):
    """The estimator, fitted without a warning; its own account of the objective is checked."""
    settings = TIGHT | settings
    model = estimator(modules(penalty, data.A), tasks=data.tasks, **settings)
    y = data.y.astype(int) if estimator is MultiTaskClassifier else data.y
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(data.X, y, data.task, sample_weight=data.weight)
    value = value_of(model, data, penalty)
    assert model.objective_ == pytest.approx(value, rel=1e-9)
    assert 0 <= model.gap_ <= settings["tol"]
    return model


def value_of(model, data, penalty):
    logistic = isinstance(model, MultiTaskClassifier)
    return objective(data, penalty, model.coef_, model.intercept_, logistic=logistic)


def with_strengths(kinds, factor=1.0):
    return [(kind, factor * STRENGTH[kind]) for kind in kinds]


def sums(kinds, sizes):
    return [chosen for size in sizes for chosen in itertools.combinations(kinds, size)]


def names(kinds):
    return "+".join(kinds) if isinstance(kinds, tuple) else str(kinds)


# Quadratic sums


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["intercept", "origin"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
@pytest.mark.parametrize("kinds", sums(QUADRATIC, (1, 2, 3)), ids=names)
def test_quadratic_sums_solve_the_dense_system(kinds, weighted, fit_intercept):
    data = problem(K=12, d=4, rows=8, weighted=weighted, empty=(3, 7))
    penalty = with_strengths(kinds)
    W, b = dense_solution(data, penalty, fit_intercept)
    model = fitted(data, penalty, fit_intercept=fit_intercept)
    np.testing.assert_allclose(model.coef_, W, rtol=0, atol=1e-7 * np.abs(W).max())
    full = np.setdiff1d(np.arange(12), [3, 7])
    if fit_intercept:
        np.testing.assert_allclose(model.intercept_[full], b[full], rtol=0, atol=1e-6)
    else:
        assert not np.any(model.intercept_)
    value = objective(data, penalty, W, b)
    assert value_of(model, data, penalty) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("kinds", sums(QUADRATIC, (1, 3)), ids=names)
def test_weak_and_strong_quadratic_sums(kinds, factor):
    data = problem(K=8, d=3, rows=9)
    penalty = with_strengths(kinds, factor)
    value = objective(data, penalty, *dense_solution(data, penalty, True))
    assert value_of(fitted(data, penalty), data, penalty) == pytest.approx(value, rel=1e-8)


def test_fewer_rows_than_features():
    """Tasks that alone have no unique solution get one from the others."""
    data = problem(K=10, d=6, rows=3)
    penalty = [("pairwise", 0.1), ("ridge", 1e-3)]
    W, b = dense_solution(data, penalty, True)
    model = fitted(data, penalty)
    np.testing.assert_allclose(model.coef_, W, atol=1e-6)
    value = objective(data, penalty, W, b)
    assert value_of(model, data, penalty) == pytest.approx(value, rel=1e-9)


def test_the_default_tolerance_gives_six_digits():
    data = problem(K=12, d=4, rows=8)
    penalty = with_strengths(QUADRATIC)
    value = objective(data, penalty, *dense_solution(data, penalty, True))
    model = fitted(data, penalty, tol=1e-6, max_iter=1000)
    assert value_of(model, data, penalty) == pytest.approx(value, rel=1e-6)


def test_a_task_without_rows_follows_its_relations():
    """With a graph alone the minimum of an empty task is the weighted mean of its neighbours."""
    data = problem(K=6, d=3, rows=8, empty=(1,))
    model = fitted(data, [("graph", 0.8)])
    near = data.A[1] + data.A[:, 1]
    np.testing.assert_allclose(model.coef_[1], near @ model.coef_ / near.sum(), atol=1e-7)
    right = data.y.mean() - data.X.mean(0) @ model.coef_[1]
    assert model.intercept_[1] == pytest.approx(right, abs=1e-7)


def test_strength_zero_is_no_penalty():
    data = problem(K=4, d=2, rows=9)
    W, b = dense_solution(data, [], True)
    zero = [("pairwise", 0.0), ("trace", 0.0), ("tv", 0.0)]
    for penalty in ([], zero):
        model = fitted(data, penalty)
        np.testing.assert_allclose(model.coef_, W, atol=1e-8)
        np.testing.assert_allclose(model.intercept_, b, atol=1e-8)


# scikit-learn


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_ridge_is_scikit_learns_task_by_task(fit_intercept, weighted):
    """Theirs is ‖y − Xw‖² + α‖w‖², twice ours for α = 2·strength."""
    linear = pytest.importorskip("sklearn.linear_model")
    data = problem(K=5, d=4, rows=12, weighted=weighted)
    model = fitted(data, [("ridge", 0.7)], fit_intercept=fit_intercept)
    for k in range(5):
        at = data.task == k
        theirs = linear.Ridge(alpha=2 * 0.7, fit_intercept=fit_intercept, solver="cholesky")
        theirs.fit(data.X[at], data.y[at], sample_weight=data.weights[at])
        np.testing.assert_allclose(model.coef_[k], theirs.coef_, atol=1e-9)
        assert model.intercept_[k] == pytest.approx(theirs.intercept_, abs=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_logistic_ridge_is_scikit_learns_task_by_task(fit_intercept, weighted):
    """Theirs is C·Σ log loss + ½‖w‖², C times ours for C = 1/(2·strength)."""
    linear = pytest.importorskip("sklearn.linear_model")
    data = problem(K=5, d=3, rows=25, weighted=weighted, logistic=True)
    model = fitted(data, [("ridge", 0.4)], MultiTaskClassifier, fit_intercept=fit_intercept)
    for k in range(5):
        at = data.task == k
        theirs = linear.LogisticRegression(
            C=1 / (2 * 0.4), fit_intercept=fit_intercept, tol=1e-12, solver="newton-cg",
            max_iter=1000,
        )  # fmt: skip
        theirs.fit(data.X[at], data.y[at], sample_weight=data.weights[at])
        np.testing.assert_allclose(model.coef_[k], theirs.coef_[0], atol=2e-5)
        if fit_intercept:
            assert model.intercept_[k] == pytest.approx(theirs.intercept_[0], abs=2e-5)
        mine, right = model.predict(data.X[at], data.task[at]), theirs.predict(data.X[at])
        assert np.array_equal(mine, right.astype(int))


def test_one_versus_rest_is_scikit_learns_class_by_class():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    data = problem(K=3, d=3, rows=40)
    label = np.array(["high", "low", "middle"])[rng.integers(0, 3, len(data.y))]
    model = MultiTaskClassifier(modules([("ridge", 0.5)], data.A), tasks=data.tasks, **TIGHT)
    model.fit(data.X, label, data.task)
    assert model.coef_.shape == (3, 3, 3) and model.intercept_.shape == (3, 3)
    assert model.classes_.tolist() == ["high", "low", "middle"]
    for k, c in itertools.product(range(3), range(3)):
        at = data.task == k
        theirs = linear.LogisticRegression(C=1.0, tol=1e-12, solver="newton-cg", max_iter=1000)
        theirs.fit(data.X[at], label[at] == model.classes_[c])
        np.testing.assert_allclose(model.coef_[k, c], theirs.coef_[0], atol=2e-5)
        assert model.intercept_[k, c] == pytest.approx(theirs.intercept_[0], abs=2e-5)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("strength", [1.0, 20.0, 120.0])
def test_group_lasso_on_a_shared_x_is_scikit_learns(strength, fit_intercept):
    """Theirs is ‖Y − XW‖²/(2n) + α‖W‖_21, ours divided by n for α = strength/n."""
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    n, d, K = 60, 8, 5
    X = rng.normal(size=(n, d)) + 0.4
    W = rng.normal(size=(K, d)) * (np.arange(d) < 3)
    Y = X @ W.T + rng.normal(size=(n, K)) + 1.0
    theirs = linear.MultiTaskLasso(
        alpha=strength / n, fit_intercept=fit_intercept, tol=1e-14, max_iter=100_000
    ).fit(X, Y)
    model = MultiTaskRegressor(
        modules([("group", strength)], np.zeros((K, K))), fit_intercept=fit_intercept, **TIGHT
    ).fit(np.tile(X, (K, 1)), Y.T.ravel(), np.repeat(np.arange(K), n))

    def value(coef, intercept):
        error = Y - X @ coef.T - intercept
        return 0.5 * np.sum(error**2) + strength * np.linalg.norm(coef, axis=0).sum()

    right = value(theirs.coef_, theirs.intercept_)
    assert model.objective_ == pytest.approx(right, rel=1e-9)
    assert value(model.coef_, model.intercept_) == pytest.approx(right, rel=1e-9)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-5)
    kept = np.linalg.norm(theirs.coef_, axis=0) > 1e-3
    assert strength < 100 or not kept.all()  # so that features do go
    assert np.abs(model.coef_[:, ~kept]).max(initial=0) < 1e-6


def test_group_lasso_of_one_task_is_scikit_learns_lasso():
    linear = pytest.importorskip("sklearn.linear_model")
    data = problem(K=1, d=6, rows=50)
    theirs = linear.Lasso(alpha=9.0 / len(data.y), tol=1e-14, max_iter=100_000)
    theirs.fit(data.X, data.y)
    model = fitted(data, [("group", 9.0)])
    np.testing.assert_allclose(model.coef_[0], theirs.coef_, atol=1e-6)
    assert model.intercept_[0] == pytest.approx(theirs.intercept_, abs=1e-6)


# Closed forms


def test_a_huge_total_variation_pools_the_tasks():
    """One vector for a connected graph: least squares over all rows."""
    data = problem(K=6, d=3, rows=8)
    model = fitted(data, [("tv", 1e4)], fit_intercept=False)
    pooled = np.linalg.lstsq(data.X, data.y, rcond=None)[0]
    np.testing.assert_allclose(model.coef_, np.tile(pooled, (6, 1)), atol=1e-6)


@pytest.mark.parametrize("kind", ["trace", "group"])
def test_a_huge_norm_leaves_the_means(kind):
    data = problem(K=6, d=3, rows=8)
    model = fitted(data, [(kind, 1e5)])
    np.testing.assert_allclose(model.coef_, 0, atol=1e-9)
    means = [data.y[data.task == k].mean() for k in range(6)]
    np.testing.assert_allclose(model.intercept_, means, atol=1e-8)


def test_trace_norm_of_whitened_tasks_is_a_prox():
    """With XᵀX = I for every task the minimum is the least squares W with shrunken values."""
    rng = np.random.default_rng(2)
    K, d, n = 7, 4, 11
    X = np.concatenate([np.linalg.qr(rng.normal(size=(n, d)))[0] for _ in range(K)])
    y, task = 3 * rng.normal(size=K * n), np.repeat(np.arange(K), n)
    W = np.stack([X[task == k].T @ y[task == k] for k in range(K)])
    u, s, vh = np.linalg.svd(W, full_matrices=False)
    want = (u * np.maximum(s - 2.5, 0)) @ vh
    model = MultiTaskRegressor(
        modules([("trace", 2.5)], np.zeros((K, K))), fit_intercept=False, tol=1e-15, max_iter=50_000
    ).fit(X, y, task)
    assert 0 < np.sum(s > 2.5) < d
    np.testing.assert_allclose(model.coef_, want, atol=1e-7)


def test_two_tasks_under_total_variation_fuse_where_they_should():
    """K = 2, d = 1, X = 1: ½n(m₁ − w₁)² + ½n(m₂ − w₂)² + 2λ|w₁ − w₂|."""
    n, m = 5, np.array([1.0, 3.0])
    A = np.array([[0.0, 1.0], [1.0, 0.0]])
    for strength, want in ((0.5, [1.2, 2.8]), (2.5, [2.0, 2.0]), (9.0, [2.0, 2.0])):
        model = MultiTaskRegressor(modules([("tv", strength)], A), fit_intercept=False, tol=1e-14)
        model.fit(np.ones((2 * n, 1)), np.repeat(m, n), np.repeat([0, 1], n))
        np.testing.assert_allclose(model.coef_[:, 0], want, atol=1e-6)


# cvxpy

KINDS = tuple(STRENGTH)
NORMS = ("trace", "group", "tv")
SUMS = [
    *sums(KINDS, (1,)), ("pairwise", "graph"), ("pairwise", "trace"), ("graph", "trace"),
    ("ridge", "group"), ("pairwise", "group"), ("ridge", "tv"), ("graph", "tv"),
    *sums(NORMS, (2, 3)), ("pairwise", "graph", "ridge"), KINDS,
]  # fmt: skip


def against_cvxpy(data, penalty, estimator=MultiTaskRegressor, **settings):
    pytest.importorskip("cvxpy", reason="the oracle is cvxpy, of mtlfast[test]")
    logistic = estimator is MultiTaskClassifier
    fit_intercept = settings.get("fit_intercept", True)
    W, b = cvxpy_solution(data, penalty, fit_intercept, logistic=logistic)
    right = objective(data, penalty, W, b, logistic=logistic)
    model = fitted(data, penalty, estimator, **settings)
    assert value_of(model, data, penalty) == pytest.approx(right, rel=1e-6)
    return model, W


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["intercept", "origin"])
@pytest.mark.parametrize("kinds", SUMS, ids=names)
def test_regressor_against_cvxpy(kinds, fit_intercept):
    data = problem(empty=(4,), weighted=True)
    settings = {"tol": 1e-8, "fit_intercept": fit_intercept}
    against_cvxpy(data, with_strengths(kinds), **settings)


@pytest.mark.parametrize("factor", [0.02, 20.0])
@pytest.mark.parametrize("kinds", [*sums(NORMS, (1, 3)), KINDS], ids=names)
def test_weak_and_strong_norms_against_cvxpy(kinds, factor):
    against_cvxpy(problem(seed=3), with_strengths(kinds, factor), tol=1e-8)


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["intercept", "origin"])
@pytest.mark.parametrize("kinds", SUMS, ids=names)
def test_classifier_against_cvxpy(kinds, fit_intercept):
    data = problem(K=5, d=3, rows=15, logistic=True, weighted=True)
    settings = {"tol": 1e-8, "fit_intercept": fit_intercept}
    against_cvxpy(data, with_strengths(kinds), MultiTaskClassifier, **settings)


@pytest.mark.parametrize("solver", ["fista", "admm"])
@pytest.mark.parametrize("kinds", [("trace",), ("group",), ("pairwise", "trace")], ids=names)
def test_every_solver_finds_the_same_minimum(kinds, solver):
    model, _ = against_cvxpy(problem(seed=5), with_strengths(kinds), tol=1e-8, solver=solver)
    assert solver in model.solver_


@pytest.mark.parametrize("strength", [100.0, 1e4])
def test_all_edges_closed_beside_another_norm(strength):
    """Differences that vanish are no measure of how far the splitting is."""
    against_cvxpy(problem(K=12, d=4, seed=4), [("tv", strength), ("trace", 2.0)], tol=1e-8)


def test_the_graph_of_groups():
    """Groups are stored without their edges."""
    data = problem(K=8, d=3, seed=9)
    label = np.arange(8) % 3
    data.A[:] = (label[:, None] == label) & ~np.eye(8, dtype=bool)
    graph = TaskGraph.groups(torch.from_numpy(label))
    W, _ = dense_solution(data, [("graph", 0.8), ("pairwise", 0.05)], True)
    model = MultiTaskRegressor([GraphReg(graph, 0.8), PairwiseReg(0.05)], **TIGHT)
    model.fit(data.X, data.y, data.task)
    np.testing.assert_allclose(model.coef_, W, atol=1e-7)


def test_more_features_than_rows_against_cvxpy():
    data = problem(K=4, d=12, rows=5, seed=6)
    for kinds in (("trace",), ("group",), ("ridge", "tv")):
        against_cvxpy(data, with_strengths(kinds), tol=1e-8)


@pytest.mark.parametrize("kinds", [("trace", "group"), ("tv",)], ids=names)
def test_sums_given_as_modules_lists_and_torch(kinds):
    """A sum, a list, and torch or NumPy rows are one problem."""
    data = problem(seed=7)
    terms = modules(with_strengths(kinds), data.A)
    total = terms[0] if len(terms) == 1 else terms[0] + terms[1]
    first = MultiTaskRegressor(terms, tol=1e-8, max_iter=50_000).fit(data.X, data.y, data.task)
    rows = [torch.from_numpy(part) for part in (data.X, data.y, data.task)]
    second = MultiTaskRegressor(total, tol=1e-8, max_iter=50_000).fit(*rows)
    assert isinstance(second.coef_, torch.Tensor)
    np.testing.assert_allclose(second.coef_.numpy(), first.coef_, atol=1e-9)
    assert second.objective_ == pytest.approx(first.objective_, rel=1e-12)
