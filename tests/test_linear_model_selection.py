"""Paths along a grid of penalties, and cross-validation inside the tasks."""

import re
import warnings

import numpy as np
import pytest
import torch

from mtlfast import TaskGraph
from mtlfast.linear_model import (
    MultiTaskClassifier,
    MultiTaskRegressor,
    MultiTaskRegressorCV,
    _estimators,
    path,
    strengths,
)
from mtlfast.nn import GraphReg, PairwiseReg, Ridge, Sum, TraceNorm

RNG = np.random.default_rng(0)
K, D = 8, 4
TASK = np.concatenate([np.repeat(np.arange(K - 1), 12), [K - 1] * 2])  # the last has two rows
X = RNG.normal(size=(len(TASK), D))
ALIKE = np.ones((K, D)) + 0.05 * RNG.normal(size=(K, D))
Y = (X * ALIKE[TASK]).sum(1) + RNG.normal(size=len(TASK))
TIGHT = {"tol": 1e-10, "max_iter": 10_000}
FACTORS = [100.0, 1.0, 0.1, 0.01]
GRID = strengths(PairwiseReg(), FACTORS)


def close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


def test_strengths_multiply_and_share_graphs():
    graph = TaskGraph.chain(3)
    both = PairwiseReg(2.0) + GraphReg(graph, 3.0)
    grid = strengths(both, [2, 0])
    assert [type(penalty) for penalty in grid] == [Sum, Sum]
    assert [[term.strength for term in penalty.terms] for penalty in grid] == [[4, 6], [0, 0]]
    assert all(penalty.terms[1].graph is graph for penalty in grid)
    assert [term.strength for term in both.terms] == [2, 3]
    lists = strengths([Ridge(1.0), both], [10])
    assert [type(penalty) for penalty in lists[0]] == [Ridge, Sum]
    assert lists[0][1].terms[0].strength == 20


BAD_STRENGTHS = [
    ("ridge", [1], TypeError, "strengths: penalty must be a regularizer, got str"),
    ([Ridge(), None], [1], TypeError, "strengths: penalty must be a regularizer, got NoneType"),
    (Ridge(), [-1], ValueError, "strengths: factors must be finite and >= 0, got -1.0"),
    (Ridge(), 1.0, TypeError, "strengths: factors must be a list of numbers, got float"),
    (Ridge(), ["1"], TypeError, "strengths: factors must be a number, got str"),
]


@pytest.mark.parametrize(("penalty", "factors", "kind", "words"), BAD_STRENGTHS)
def test_bad_strengths(penalty, factors, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        strengths(penalty, factors)


@pytest.mark.parametrize("template", [PairwiseReg(), [Ridge(0.1), TraceNorm()]], ids=str)
def test_a_path_is_the_fits_of_its_penalties(template):
    grid = strengths(template, FACTORS)
    tight = {"tol": 1e-14, "max_iter": 10_000}  # coefficients are off by the root of a gap
    estimator = MultiTaskRegressor(Ridge(77.0), **tight)
    fits = path(estimator, grid, X, Y, TASK)
    assert not hasattr(estimator, "coef_")
    assert estimator.penalty.strength == 77.0
    for penalty, fit in zip(grid, fits, strict=True):
        assert fit.penalty is penalty
        alone = MultiTaskRegressor(penalty, **tight).fit(X, Y, TASK)
        close(fit.coef_, alone.coef_, 1e-5)
        close(fit.predict(X, TASK), alone.predict(X, TASK), 1e-5)
        assert fit.objective_ == pytest.approx(alone.objective_, rel=1e-8)


def test_a_path_of_classifiers():
    labels = np.digitize(Y, [-1.0, 1.0])
    grid = strengths([Ridge(0.1), PairwiseReg(0.1)], [10, 1])
    weight = RNG.integers(0, 3, len(Y))
    for y in (Y > 0, labels):
        fits = path(MultiTaskClassifier(**TIGHT), grid, X, y, TASK, weight)
        for penalty, fit in zip(grid, fits, strict=True):
            alone = MultiTaskClassifier(penalty, **TIGHT).fit(X, y, TASK, weight)
            close(fit.coef_, alone.coef_, 1e-5)


def test_statistics_are_computed_once_for_a_path(monkeypatch):
    calls = []
    once = _estimators.squares
    monkeypatch.setattr(_estimators, "squares", lambda *a: calls.append(a) or once(*a))
    path(MultiTaskRegressor(), GRID, X, Y, TASK)
    assert len(calls) == 1
    MultiTaskRegressorCV(GRID, cv=3).fit(X, Y, TASK)
    assert len(calls) == 1 + 3 + 1


def test_bad_paths():
    with pytest.raises(TypeError, match="path: estimator must be a MultiTaskRegressor or"):
        path(MultiTaskRegressorCV(GRID), GRID, X, Y, TASK)
    with pytest.raises(TypeError, match="path: estimator must be a MultiTaskRegressor or"):
        path(None, GRID, X, Y, TASK)
    with pytest.raises(ValueError, match="path: penalty_grid must hold at least one penalty"):
        path(MultiTaskRegressor(), [], X, Y, TASK)
    with pytest.raises(TypeError, match="penalty_grid must be a list of penalties, got Ridge"):
        path(MultiTaskRegressor(), Ridge(), X, Y, TASK)


def errors_by_hand(grid, folds, weight):
    """[grid, folds] with one cold fit for each."""
    table = np.empty((len(grid), len(folds)))
    for row, penalty in enumerate(grid):
        for column, (inside, outside) in enumerate(folds):
            model = MultiTaskRegressor(penalty, tasks=range(K), **TIGHT)
            model.fit(X[inside], Y[inside], TASK[inside], weight[inside])
            squared = (Y[outside] - model.predict(X[outside], TASK[outside])) ** 2
            table[row, column] = np.average(squared, weights=weight[outside])
    return table


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_given_folds(weighted):
    order = RNG.permutation(len(Y))
    folds = [(np.setdiff1d(order, part), part) for part in np.array_split(order, 4)]
    weight = RNG.integers(0, 4, len(Y)).astype(float) if weighted else np.ones(len(Y))
    model = MultiTaskRegressorCV(GRID, cv=folds, tasks=range(K), **TIGHT)
    model.fit(X, Y, TASK, weight if weighted else None)
    table = errors_by_hand(GRID, folds, weight)
    close(model.cv_mse_, table, 1e-5)
    assert model.best_index_ == table.mean(1).argmin()
    assert model.penalty_ is GRID[model.best_index_]
    refit = MultiTaskRegressor(model.penalty_, **TIGHT).fit(X, Y, TASK, weight)
    close(model.coef_, refit.coef_, 1e-5)
    assert model.objective_ == pytest.approx(refit.objective_, rel=1e-8)
    assert model.score(X, Y, TASK) == pytest.approx(refit.score(X, Y, TASK), rel=1e-5)


def test_tasks_that_are_alike_choose_a_strong_penalty():
    model = MultiTaskRegressorCV(GRID, random_state=0).fit(X, Y, TASK)
    assert model.cv_mse_.shape == (4, 5)
    assert model.penalty_.strength >= 1.0
    again = MultiTaskRegressorCV(GRID, random_state=0).fit(X, Y, TASK)
    np.testing.assert_array_equal(model.cv_mse_, again.cv_mse_)
    other = MultiTaskRegressorCV(GRID, random_state=1).fit(X, Y, TASK)
    assert (model.cv_mse_ != other.cv_mse_).any()


def test_one_standard_error_takes_the_first_that_is_not_clearly_worse():
    plain = MultiTaskRegressorCV(GRID[::-1], random_state=0).fit(X, Y, TASK)
    model = MultiTaskRegressorCV(GRID[::-1], random_state=0, one_standard_error=True)
    model.fit(X, Y, TASK)
    np.testing.assert_array_equal(model.cv_mse_, plain.cv_mse_)
    mean, best = plain.cv_mse_.mean(1), plain.best_index_
    limit = mean[best] + plain.cv_mse_[best].std(ddof=1) / np.sqrt(5)
    assert mean[model.best_index_] <= limit
    assert (mean[: model.best_index_] > limit).all()
    same = strengths(PairwiseReg(), [1.001, 1.0])
    first = MultiTaskRegressorCV(same, random_state=0, one_standard_error=True).fit(X, Y, TASK)
    assert first.best_index_ == 0


def test_a_splitter_sees_the_tasks_as_groups():
    selection = pytest.importorskip("sklearn.model_selection", reason="needs scikit-learn")
    grid = [GraphReg(TaskGraph.chain(K), 1.0), GraphReg(TaskGraph.chain(K), 0.1)]
    model = MultiTaskRegressorCV(grid, cv=selection.LeaveOneGroupOut()).fit(X, Y, TASK)
    assert model.cv_mse_.shape == (2, K)


def test_tensors_and_labels():
    names = [f"u{k}" for k in TASK]
    model = MultiTaskRegressorCV(GRID, random_state=0)
    model.fit(torch.from_numpy(X).float(), torch.from_numpy(Y), names)
    assert isinstance(model.coef_, torch.Tensor)
    assert model.tasks_.tolist() == sorted(set(names))


def test_estimator_checks_of_the_cross_validated_regressor():
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="needs scikit-learn")
    estimator = MultiTaskRegressorCV([Ridge(0.1)], cv=2, random_state=0, **TIGHT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = checks.check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) >= 50
    failed = [f"{r['check_name']}: {r['exception']}" for r in results if r["status"] == "failed"]
    assert not failed, "\n".join(failed)


BAD = [
    ({"penalty_grid": []}, ValueError, "penalty_grid must hold at least one penalty, got none"),
    ({"penalty_grid": Ridge()}, TypeError, "penalty_grid must be a list of penalties, got Ridge"),
    ({"penalty_grid": ["ridge"]}, TypeError, "penalty must"),
    ({"random_state": "a"}, TypeError, "random_state must be a seed of NumPy, got"),
    ({"random_state": -1}, ValueError, "random_state must be a seed of NumPy, got"),
    ({"cv": 1}, ValueError, "cv must be in [2, n_samples=86], got 1"),
    ({"tol": -1}, ValueError, "tol must be finite and > 0, got -1.0"),
]


@pytest.mark.parametrize(("settings", "kind", "words"), BAD, ids=lambda v: str(v)[:40])
def test_bad_arguments(settings, kind, words):
    model = MultiTaskRegressorCV(**{"penalty_grid": GRID, **settings})
    with pytest.raises(kind, match=re.escape("MultiTaskRegressorCV.fit: " + words)):
        model.fit(X, Y, TASK)
