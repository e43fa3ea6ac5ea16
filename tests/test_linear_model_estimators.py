"""The estimators: scikit-learn's own checks, oracles, forms of data, tasks, bad arguments."""

import copy
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlfast import TaskGraph
from mtlfast.linear_model import (
    ConvergenceWarning,
    MultiTaskClassifier,
    MultiTaskRegressor,
    _classifier,
    _estimators,
)
from mtlfast.nn import (
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Ridge,
    TraceNorm,
)

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(0)
K, D = 5, 3
TASK = RNG.integers(0, K, 120)
X = RNG.normal(size=(120, D)) + 0.5
TRUE = RNG.normal(size=(K, D)) + 1
Y = (X * TRUE[TASK]).sum(1) + TASK + 0.3 * RNG.normal(size=120)
SIGN = np.where(Y + RNG.normal(size=120) > np.median(Y), "yes", "no")
THIRDS = np.digitize(Y + RNG.normal(size=120), np.quantile(Y, [0.3, 0.7]))
GRAPH = TaskGraph.chain(K)
TIGHT = {"tol": 1e-10, "max_iter": 10_000}


def close(a, b, tolerance=1e-6):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


def fitted(penalty, **settings):
    return MultiTaskRegressor(penalty, **{**TIGHT, **settings}).fit(X, Y, TASK)


# scikit-learn's estimator checks


CHECKED = [
    MultiTaskRegressor(),
    MultiTaskRegressor(penalty=Ridge(0.1), **TIGHT),
    MultiTaskClassifier(),
    MultiTaskClassifier(penalty=Ridge(0.1), **TIGHT),
]


@pytest.mark.parametrize("estimator", CHECKED, ids=lambda v: f"{type(v).__name__}-{v.penalty}")
def test_estimator_checks(estimator):
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="needs scikit-learn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = checks.check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) >= 50
    failed = [f"{r['check_name']}: {r['exception']}" for r in results if r["status"] == "failed"]
    assert not failed, "\n".join(failed)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # the array API is not claimed


# Values against other people's code


def test_without_a_penalty_each_task_is_fitted_by_itself():
    model = fitted(None)
    for k in range(K):
        here = k == TASK
        A = np.column_stack([X[here], np.ones(here.sum())])
        w = np.linalg.lstsq(A, Y[here], rcond=None)[0]
        close(model.coef_[k], w[:-1])
        close(model.intercept_[k], w[-1])
    residual = Y - model.predict(X, TASK)
    assert model.objective_ == pytest.approx(0.5 * (residual**2).sum(), rel=1e-8)
    close(fitted([]).coef_, model.coef_)


@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_is_scikit_learns(intercept):
    sklearn = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    model = fitted(Ridge(0.7), fit_intercept=intercept)
    for k in range(K):  # ½ of the squares here: alpha is twice the strength
        other = sklearn.Ridge(alpha=1.4, fit_intercept=intercept).fit(X[k == TASK], Y[k == TASK])
        close(model.coef_[k], other.coef_)
        close(model.intercept_[k], other.intercept_)


def dense_solution(penalty_matrix, weight=None):
    """[K, D] and [K] from the normal equations of ½Σs(y − xw − b)² + ½ tr WᵀMW."""
    weight = np.ones(len(Y)) if weight is None else weight
    A = np.zeros((len(Y), K, D + 1))
    A[np.arange(len(Y)), TASK] = np.column_stack([X, np.ones(len(Y))])
    A = A.reshape(len(Y), -1)
    M = np.kron(penalty_matrix, np.diag([1.0] * D + [0.0]))
    w = np.linalg.solve(A.T @ (weight[:, None] * A) + M, A.T @ (weight * Y)).reshape(K, D + 1)
    return w[:, :-1], w[:, -1]


def laplacian_of(A):
    A = A + A.T
    return np.diag(A.sum(1)) - A


def test_quadratic_penalties_are_the_dense_solution():
    weight = RNG.integers(0, 4, len(Y)).astype(float)
    chain = GRAPH.to_dense().numpy()
    ones = np.ones((K, K)) - np.eye(K)
    M = 2 * (0.1 * laplacian_of(ones) + 2.0 * laplacian_of(chain) + 0.5 * np.eye(K))
    penalty = [PairwiseReg(0.1), GraphReg(GRAPH, 2.0), Ridge(0.5)]
    model = MultiTaskRegressor(penalty, **TIGHT).fit(X, Y, TASK, sample_weight=weight)
    coef, intercept = dense_solution(M, weight)
    close(model.coef_, coef)
    close(model.intercept_, intercept)


def test_two_classes_are_scikit_learns_logistic_regression():
    sklearn = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    model = MultiTaskClassifier(Ridge(0.5), **TIGHT).fit(X, SIGN, TASK)
    assert model.coef_.shape == (K, D)
    for k in range(K):
        here = k == TASK
        other = sklearn.LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000)
        other.fit(X[here], SIGN[here])
        close(model.coef_[k], other.coef_[0], 1e-5)
        close(model.intercept_[k], other.intercept_[0], 1e-5)
        close(model.predict_proba(X[here], TASK[here]), other.predict_proba(X[here]), 1e-5)
        assert (model.predict(X[here], TASK[here]) == other.predict(X[here])).all()


def test_several_classes_are_one_against_the_rest_each():
    penalty = [Ridge(0.5), PairwiseReg(0.1)]
    model = MultiTaskClassifier(penalty, **TIGHT).fit(X, THIRDS, TASK)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.coef_.shape == (K, 3, D)
    assert model.intercept_.shape == (K, 3)
    parts = [MultiTaskClassifier(penalty, **TIGHT).fit(X, c == THIRDS, TASK) for c in range(3)]
    close(model.coef_, np.stack([part.coef_ for part in parts], 1))
    close(model.objective_, sum(part.objective_ for part in parts))
    odds = np.column_stack([part.predict_proba(X, TASK)[:, 1] for part in parts])
    close(model.predict_proba(X, TASK), odds / odds.sum(1, keepdims=True))
    assert (model.predict(X, TASK) == odds.argmax(1)).all()
    assert model.decision_function(X, TASK).shape == (120, 3)


def test_probabilities_that_underflow_have_finite_logarithms():
    model = MultiTaskClassifier(Ridge(1.0)).fit(X, THIRDS, TASK)
    far = 1e4 * np.ones((2, D))
    logs = model.predict_log_proba(far, TASK[:2])
    assert np.isfinite(logs).all()
    close(model.predict_proba(far, TASK[:2]).sum(1), np.ones(2))


def test_scores_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    weight = RNG.integers(0, 3, len(Y))
    model = fitted(PairwiseReg(0.1))
    for s in (None, weight):
        truth = metrics.r2_score(Y, model.predict(X, TASK), sample_weight=s)
        assert model.score(X, Y, TASK, s) == pytest.approx(truth, rel=1e-12)
    level = MultiTaskRegressor(Ridge(1.0)).fit(X, np.ones(len(Y)))
    assert level.score(X, np.full(len(Y), 2.0)) == 0.0
    assert np.isnan(level.score(X[:1], [1.0]))
    classes = MultiTaskClassifier(Ridge(1.0)).fit(X, SIGN, TASK)
    for s in (None, weight):
        truth = metrics.accuracy_score(SIGN, classes.predict(X, TASK), sample_weight=s)
        assert classes.score(X, SIGN, TASK, s) == pytest.approx(truth, rel=1e-12)


# Forms of data


def test_tensors_give_tensors():
    x, y, task = torch.from_numpy(X).float(), torch.from_numpy(Y), torch.from_numpy(TASK)
    model = MultiTaskRegressor(PairwiseReg(0.1), **TIGHT).fit(x, y, task)
    assert isinstance(model.coef_, torch.Tensor)
    assert model.coef_.dtype == model.intercept_.dtype == torch.float32
    predicted = model.predict(x, task)
    assert isinstance(predicted, torch.Tensor)
    assert isinstance(model.predict(X, TASK), np.ndarray)
    close(predicted, fitted(PairwiseReg(0.1)).predict(X, TASK), 1e-5)
    wide = MultiTaskRegressor(PairwiseReg(0.1), dtype="float64", **TIGHT).fit(x, y, task)
    assert wide.coef_.dtype == torch.float64
    classes = MultiTaskClassifier(Ridge(1.0)).fit(x, torch.from_numpy(THIRDS), task)
    assert isinstance(classes.predict(x, task), torch.Tensor)
    assert isinstance(MultiTaskClassifier(Ridge(1.0)).fit(x, SIGN).predict(x), np.ndarray)


def test_sparse_features_are_the_dense_ones():
    sparse = pytest.importorskip("scipy.sparse")
    x = X * (RNG.random(X.shape) < 0.4)
    for estimator, y in (
        (MultiTaskRegressor(PairwiseReg(0.1), **TIGHT), Y),
        (MultiTaskClassifier([Ridge(0.5), PairwiseReg(0.1)], **TIGHT), THIRDS),
    ):
        dense = copy.deepcopy(estimator).fit(x, y, TASK)
        model = estimator.fit(sparse.csc_array(x), y, TASK)
        close(model.coef_, dense.coef_)
        close(model.intercept_, dense.intercept_)
        assert (model.predict(sparse.csr_matrix(x), TASK) == model.predict(x, TASK)).mean() > 0.99


def test_the_order_of_rows_does_not_matter():
    order = RNG.permutation(len(Y))
    model = MultiTaskRegressor(TraceNorm(3.0), **TIGHT).fit(X[order], Y[order], TASK[order])
    close(model.coef_, fitted(TraceNorm(3.0)).coef_)


@pytest.mark.parametrize("form", ["strings", "tuples", "categorical", "wide"])
def test_labels_of_any_type(form):
    if form == "categorical":
        pandas = pytest.importorskip("pandas")
        labels = pandas.Categorical([f"u{k}" for k in TASK])
    else:
        of = {
            "strings": "u{}".format,
            "tuples": lambda k: ("u", int(k)),
            "wide": lambda k: k * 2**40,
        }
        labels = [of[form](k) for k in TASK]
    model = MultiTaskRegressor(PairwiseReg(0.1), **TIGHT).fit(X, Y, labels)
    close(model.coef_, fitted(PairwiseReg(0.1)).coef_)
    close(model.predict(X, labels), fitted(PairwiseReg(0.1)).predict(X, TASK))


def test_a_data_frame_gives_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    model = MultiTaskRegressor().fit(frame, Y, TASK)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        model.predict(frame[["b", "a", "c"]], TASK)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.predict(X, TASK)
    assert not hasattr(model.fit(X, Y, TASK), "feature_names_in_")


# Tasks


def test_the_order_of_tasks_is_the_users():
    model = fitted(PairwiseReg(0.1))
    order = [3, 0, 4, 1, 2]
    other = fitted(PairwiseReg(0.1), tasks=order)
    assert other.tasks_.tolist() == order
    close(other.coef_, model.coef_[order])
    close(other.predict(X, TASK), model.predict(X, TASK))


def test_a_task_without_rows_takes_its_value_from_its_relations():
    """On a chain with strength → ∞ it is the mean of its neighbours; here it is between them."""
    there = TASK != 2
    model = MultiTaskRegressor(GraphReg(GRAPH, 0.1), **TIGHT).fit(X[there], Y[there], TASK[there])
    assert model.tasks_.tolist() == [0, 1, 2, 3, 4]
    close(model.coef_[2], (model.coef_[1] + model.coef_[3]) / 2)
    mean = Y[there].mean() - X[there].mean(0) @ model.coef_[2]
    assert model.intercept_[2] == pytest.approx(mean, rel=1e-8)
    assert model.predict(X[~there], TASK[~there]).shape == ((~there).sum(),)


def test_rows_of_weight_zero_count_as_not_there():
    weight = (TASK != 2).astype(float)
    penalty = GraphReg(GRAPH, 0.1)
    model = MultiTaskRegressor(penalty, **TIGHT).fit(X, Y, TASK, weight)
    there = TASK != 2
    other = MultiTaskRegressor(penalty, **TIGHT).fit(X[there], Y[there], TASK[there])
    close(model.coef_, other.coef_)
    close(model.intercept_, other.intercept_)


def test_unknown_tasks():
    model = fitted(PairwiseReg(0.1))
    message = "MultiTaskRegressor.predict: task_ids must be among the 5 tasks of the fit, got 7 at"
    with pytest.raises(ValueError, match=message + " position 1"):
        model.predict(X[:3], [0, 7, 8])
    model.set_params(unknown="mean")
    predicted = model.predict(X[:2], [0, "new"])
    close(predicted[0], X[0] @ model.coef_[0] + model.intercept_[0])
    close(predicted[1], X[1] @ model.coef_.mean(0) + model.intercept_.mean())
    classes = MultiTaskClassifier(Ridge(1.0), unknown="mean").fit(X, THIRDS, TASK)
    scores = classes.decision_function(X[:1], [-1])
    close(scores[0], classes.coef_.mean(0) @ X[0] + classes.intercept_.mean(0))


def test_without_ids_there_is_one_task():
    model = MultiTaskRegressor(Ridge(1.0)).fit(X, Y)
    assert model.coef_.shape == (1, D)
    assert model.predict(X).shape == Y.shape
    with pytest.raises(ValueError, match="task_ids must be given for a model of 5 tasks, got None"):
        fitted(None).predict(X)


def test_one_row_and_one_feature():
    model = MultiTaskRegressor(Ridge(1.0)).fit([[2.0]], [3.0])
    close(model.coef_, [[0.0]])
    close(model.predict([[5.0]]), [3.0])
    close(
        MultiTaskRegressor(Ridge(1.0), fit_intercept=False, **TIGHT).fit([[2.0]], [3.0]).coef_,
        [[1.0]],
    )


def test_a_constant_feature_is_left_to_the_intercept():
    x = np.column_stack([X, np.full(len(X), 7.0)])
    model = MultiTaskRegressor(Ridge(0.5), **TIGHT).fit(x, Y, TASK)
    close(model.coef_[:, -1], np.zeros(K))
    close(model.coef_[:, :-1], fitted(Ridge(0.5)).coef_)


def test_a_task_of_one_class_is_fitted():
    y = np.where(TASK == 1, "yes", SIGN)
    model = MultiTaskClassifier([Ridge(0.5), PairwiseReg(0.1)], **TIGHT).fit(X, y, TASK)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()


def test_classes_of_weight_zero_do_not_count():
    weight = (THIRDS != 1).astype(float)
    model = MultiTaskClassifier(Ridge(0.5), **TIGHT).fit(X, THIRDS, TASK, weight)
    assert model.classes_.tolist() == [0, 2]
    there = THIRDS != 1
    other = MultiTaskClassifier(Ridge(0.5), **TIGHT).fit(X[there], THIRDS[there], TASK[there])
    close(model.coef_, other.coef_)


# Life as an estimator


def recorded(monkeypatch, module, name):
    """The starts that a solver is given from now on."""
    starts, solver = [], getattr(module, name)

    def spy(*args, start=None, **settings):
        starts.append(start)
        return solver(*args, start=start, **settings)

    monkeypatch.setattr(module, name, spy)
    return starts


def test_a_warm_start_begins_at_the_last_coefficients(monkeypatch):
    starts = recorded(monkeypatch, _estimators, "fit_squares")
    model = MultiTaskRegressor(TraceNorm(0.1), warm_start=True, **TIGHT).fit(X, Y, TASK)
    cold, coef = model.n_iter_, model.coef_
    model.fit(X, Y, TASK)
    assert model.n_iter_ < cold
    close(model.coef_, coef)
    model.fit(X, Y, [f"u{k}" for k in TASK])  # other tasks
    assert model.n_iter_ == cold
    first, second, other_tasks = starts
    assert first is None
    np.testing.assert_array_equal(second, coef)
    assert other_tasks is None


@pytest.mark.parametrize("labels", [SIGN, THIRDS], ids=["two classes", "three"])
def test_a_warm_start_of_a_classifier(labels, monkeypatch):
    starts = recorded(monkeypatch, _classifier, "fit_logistic")
    model = MultiTaskClassifier(Ridge(1.0), warm_start=True, **TIGHT).fit(X, labels, TASK)
    count, coef, intercept = len(starts), model.coef_, model.intercept_
    assert starts == [None] * count
    model.fit(X, labels, TASK)
    close(model.coef_, coef)
    for c, start in enumerate(starts[count:]):
        np.testing.assert_array_equal(start[0], coef if count == 1 else coef[:, c])
        np.testing.assert_array_equal(start[1], intercept if count == 1 else intercept[:, c])
    model.fit(X, labels == labels[0], TASK)  # other classes
    assert starts[-1] is None


@pytest.mark.parametrize(
    "penalty",
    [
        [TraceNorm(0.5), GroupLasso(0.5)],
        [Ridge(0.1), GraphTotalVariation(TaskGraph.chain(K), 1.0)],
    ],
    ids=["norms", "variation"],
)
@pytest.mark.parametrize("tol", [1e-5, 1e-8])
def test_a_classifier_that_starts_at_its_optimum_stays_there(penalty, tol):
    model = MultiTaskClassifier(penalty, warm_start=True, tol=tol).fit(X, SIGN, TASK)
    objective = model.objective_
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(X, SIGN, TASK)
    assert model.gap_ <= tol
    assert model.n_iter_ <= 3
    assert model.objective_ == pytest.approx(objective, rel=tol)


def test_a_fit_that_stops_early_says_so():
    for estimator, y in ((MultiTaskRegressor, Y), (MultiTaskClassifier, SIGN)):
        model = estimator(TraceNorm(3.0), max_iter=1)
        words = rf"{estimator.__name__}.fit: stopped before tol=1e-06 was reached, with a gap of"
        with pytest.warns(ConvergenceWarning, match=words) as caught:
            model.fit(X, y, TASK)
        assert caught[0].filename == __file__
        assert model.n_iter_ == 1


def test_parameters_copies_and_pickles():
    model = MultiTaskRegressor(PairwiseReg(0.1), tol=1e-9)
    assert model.get_params()["tol"] == 1e-9
    assert model.set_params(max_iter=7) is model
    assert model.max_iter == 7
    with pytest.raises(ValueError, match="Invalid parameter 'strength'"):
        model.set_params(strength=3)
    model = fitted([PairwiseReg(0.1), GraphReg(GRAPH)])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X, TASK), model.predict(X, TASK))


def test_cloned_penalties_are_equal_and_apart():
    base = pytest.importorskip("sklearn.base", reason="needs scikit-learn")
    model = fitted([PairwiseReg(0.1), GraphReg(GRAPH)])
    other = base.clone(model)
    assert not hasattr(other, "coef_")
    assert [term.strength for term in other.penalty] == [0.1, 1.0]
    assert other.penalty[0] is not model.penalty[0]
    close(other.fit(X, Y, TASK).coef_, model.coef_)


def test_pipelines_and_searches_pass_the_tasks_on():
    sklearn = pytest.importorskip("sklearn", reason="needs scikit-learn")
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with sklearn.config_context(enable_metadata_routing=True):
        model = MultiTaskRegressor(tasks=range(K))
        model.set_fit_request(task_ids=True, sample_weight=False)
        model.set_score_request(task_ids=True, sample_weight=True)
        model.set_predict_request(task_ids=True)
        pipe = make_pipeline(StandardScaler(), model)
        grid = {"multitaskregressor__penalty": [PairwiseReg(1e4), PairwiseReg(0.01)]}
        search = GridSearchCV(pipe, grid, cv=3).fit(X, Y, task_ids=TASK)
        assert search.best_params_["multitaskregressor__penalty"].strength == 0.01
        best = search.best_estimator_
        assert best.predict(X, task_ids=TASK).shape == Y.shape
        assert best.score(X, Y, task_ids=TASK) > 0.9


WITHOUT = """
import sys
sys.modules.update({name: None for name in ("sklearn", "scipy", "pandas")})
import numpy as np
from mtlfast.linear_model import MultiTaskClassifier, MultiTaskClassifierCV
from mtlfast.linear_model import MultiTaskRegressor, MultiTaskRegressorCV
from mtlfast.nn import PairwiseReg, Ridge
x, task = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3
y = x.sum(1)
model = MultiTaskRegressor(tol=1e-9).set_params(penalty=PairwiseReg(1.0)).fit(x, y, task)
print(model.get_params()["tol"], round(model.score(x, y, task), 6), model.set_params(penalty=None))
print(MultiTaskClassifier(Ridge(0.1)).fit(x, y > 0, task).score(x, y > 0, task) > 0.9)
print(MultiTaskRegressorCV([Ridge(1.0), Ridge(0.0)]).fit(x, y, task).best_index_)
chosen = MultiTaskClassifierCV([Ridge(100.0), Ridge(0.1)], cv=3).fit(x, y > 0, task)
print(chosen.best_index_, chosen.score(x, y > 0, task) > 0.9, chosen.set_params(tol=0.1))
try:
    MultiTaskRegressor().predict(x)
except ValueError as error:
    print(error)
"""


def test_estimators_without_scikit_learn_and_scipy():
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "1e-09 1.0 MultiTaskRegressor(tol=1e-09)",
        "True",
        "1",
        "1 True MultiTaskClassifierCV(penalty_grid=[Ridge(strength=100), Ridge(strength=0.1)], "
        "cv=3, tol=0.1)",
        "MultiTaskRegressor.predict: this model is not fitted yet, call fit first",
    ]


BAD_SETTINGS = [
    ({"tol": 0}, ValueError, "tol must be finite and > 0, got 0.0"),
    ({"tol": "1"}, TypeError, "tol must be a number, got str"),
    ({"max_iter": 0}, ValueError, "max_iter must be >= 1, got 0"),
    ({"fit_intercept": 2}, TypeError, 'fit_intercept must be a bool or "penalized", got int'),
    (
        {"fit_intercept": None},
        TypeError,
        'fit_intercept must be a bool or "penalized", got NoneType',
    ),
    ({"device": "meta"}, ValueError, "device must hold numbers, got 'meta'"),
    ({"max_iter": 2.0}, TypeError, "max_iter must be an int, got float"),
    (
        {"solver": "sgd"},
        ValueError,
        "solver must be one of ('auto', 'cg', 'fista', 'admm'), got 'sgd'",
    ),
    ({"unknown": None}, ValueError, "unknown must be one of ('error', 'mean'), got None"),
    ({"dtype": "int32"}, ValueError, "dtype must be float32 or float64, got torch.int32"),
    ({"tasks": [0, 1]}, ValueError, "task_ids must be among the 2 labels of tasks, got"),
    ({"penalty": 3.0}, TypeError, "penalty must be"),
    ({"penalty": [Ridge(), "ridge"]}, TypeError, "penalty must"),
    (
        {"penalty": GraphReg(TaskGraph.chain(7)), "tasks": range(K)},
        ValueError,
        "tasks must name a task",
    ),
]


@pytest.mark.parametrize("estimator", [MultiTaskRegressor, MultiTaskClassifier])
@pytest.mark.parametrize(("settings", "kind", "words"), BAD_SETTINGS, ids=lambda v: str(v)[:40])
def test_bad_settings(estimator, settings, kind, words):
    message = re.escape(f"{estimator.__name__}.fit: {words}")
    model = estimator(**settings)
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        model.fit(X, SIGN == "yes", TASK)
    assert caught.type is kind
    assert not hasattr(model, "coef_")


def test_a_device_that_cannot_be_used():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(
        NotImplementedError, match="device must be the CPU for a sparse X, got cuda"
    ):
        MultiTaskRegressor(device="cuda").fit(sparse.csr_array(X), Y, TASK)
    with pytest.raises(ValueError, match=r"MultiTaskRegressor\.fit: device must be one of torch's"):
        MultiTaskRegressor(device="abacus").fit(X, Y, TASK)
    with pytest.raises(
        TypeError, match=r"MultiTaskRegressor\.fit: X must hold numbers, got a meta"
    ):
        MultiTaskRegressor().fit(torch.ones(3, 2, device="meta"), [1, 2, 3])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"MultiTaskRegressor\.fit: device must be there"):
            MultiTaskRegressor(device="cuda").fit(X, Y, TASK)


def test_a_bad_row_is_named():
    bad = X.copy()
    bad[17, 1] = np.nan
    words = (
        "MultiTaskRegressor.fit: X must be finite, without NaN or inf, got such a value in row 17"
    )
    with pytest.raises(ValueError, match=words):
        MultiTaskRegressor().fit(bad, Y, TASK)
    with pytest.raises(ValueError, match=r"MultiTaskRegressor\.predict: X has 2 features, but"):
        fitted(None).predict(X[:, :2], TASK)


BAD_CLASSES = [
    (Y, "y must hold labels of classes, got .* at row 0. Unknown label type: continuous"),
    (np.ones(120), "y must hold at least two classes, got one class, 1.0"),
    (np.where(TASK == 0, np.nan, 1.0), "y must be finite, without NaN or inf, got nan at row"),
    (["a"] * 119, "y must have one entry for each of the 120 rows of X, got 119"),
    ([None] + ["a", "b"] * 59 + ["a"], "y must not have missing labels, got one at position 0"),
    (np.ones((120, 2)), r"y must be 1-D \[N\], got shape \[120, 2\]"),
]


@pytest.mark.parametrize(("y", "words"), BAD_CLASSES, ids=lambda v: str(v)[:40])
def test_bad_classes(y, words):
    with pytest.raises(ValueError, match="MultiTaskClassifier.fit: " + words):
        MultiTaskClassifier().fit(X, y, TASK)
