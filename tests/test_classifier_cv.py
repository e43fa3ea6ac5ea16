"""The classifier whose penalty is chosen by log loss: folds, losses, classes that a fold lacks."""

import copy
import pickle
import re
import warnings

import numpy as np
import pytest
import torch

from mtlfast import TaskGraph
from mtlfast.linear_model import (
    MultiTaskClassifier,
    MultiTaskClassifierCV,
    MultiTaskRegressorCV,
    strengths,
)
from mtlfast.linear_model._data import Rows
from mtlfast.linear_model._folds import stratified_folds
from mtlfast.linear_model._labels import object_array
from mtlfast.linear_model._logistic import fit_logistic
from mtlfast.nn import GraphReg, PairwiseReg, Ridge, TraceNorm

RNG = np.random.default_rng(0)
K, D = 6, 3
TASK = np.concatenate([np.repeat(np.arange(K - 1), 14), [K - 1] * 4])
N = len(TASK)
X = RNG.normal(size=(N, D))
SCORE = X.sum(1) + 0.1 * TASK + RNG.normal(size=N)
SIGN = np.where(SCORE > 0.2, "yes", "no")
THIRDS = np.array(["high", "low", "mid"])[np.digitize(SCORE, [-0.5, 0.8])]
WEIGHT = RNG.integers(0, 4, N).astype(float)
TIGHT = {"tol": 1e-12, "max_iter": 10_000}
GRID = strengths([Ridge(0.2), PairwiseReg(0.05)], [10.0, 1.0, 0.1])
FLOOR = 52 * np.log(2)


def given_folds(number=3, seed=0):
    order = np.random.default_rng(seed).permutation(N)
    return [(np.setdiff1d(order, part), part) for part in np.array_split(order, number)]


def losses_by_hand(y, grid, folds, weight, **settings):
    """[grid, folds] of scikit-learn's log losses, with one cold fit for each."""
    log_loss = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn").log_loss
    table = np.empty((len(grid), len(folds)))
    for row, penalty in enumerate(grid):
        for column, (inside, outside) in enumerate(folds):
            model = MultiTaskClassifier(penalty, tasks=range(K), **settings, **TIGHT)
            model.fit(X[inside], y[inside], TASK[inside], weight[inside])
            proba = model.predict_proba(X[outside], TASK[outside])
            table[row, column] = log_loss(
                y[outside], proba, labels=model.classes_, sample_weight=weight[outside]
            )
    return table


# Losses and the choice -------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("y", [SIGN, THIRDS], ids=["two", "three"])
def test_losses_are_scikit_learns(y, intercept, weighted):
    folds, weight = given_folds(), WEIGHT if weighted else np.ones(N)
    model = MultiTaskClassifierCV(GRID, cv=folds, fit_intercept=intercept, **TIGHT)
    model.fit(X, y, TASK, weight if weighted else None)
    table = losses_by_hand(y, GRID, folds, weight, fit_intercept=intercept)
    np.testing.assert_allclose(model.cv_log_loss_, table, rtol=1e-5)
    assert model.best_index_ == table.mean(1).argmin()
    assert model.penalty_ is GRID[model.best_index_]


@pytest.mark.parametrize("y", [SIGN, THIRDS], ids=["two", "three"])
def test_the_chosen_penalty_is_fitted_to_all_rows(y):
    model = MultiTaskClassifierCV(GRID, cv=3, random_state=0, **TIGHT).fit(X, y, TASK, WEIGHT)
    alone = MultiTaskClassifier(model.penalty_, **TIGHT).fit(X, y, TASK, WEIGHT)
    np.testing.assert_array_equal(model.classes_, alone.classes_)
    np.testing.assert_allclose(model.coef_, alone.coef_, atol=1e-5)
    np.testing.assert_allclose(model.intercept_, alone.intercept_, atol=1e-5)
    assert model.objective_ == pytest.approx(alone.objective_, rel=1e-9)
    np.testing.assert_array_equal(model.predict(X, TASK), alone.predict(X, TASK))
    assert model.score(X, y, TASK, WEIGHT) == alone.score(X, y, TASK, WEIGHT)
    np.testing.assert_allclose(model.predict_proba(X, TASK).sum(1), 1)


def test_the_first_of_a_grid_is_fitted_to_the_same_bits():
    """Where no fit goes before it, there is nothing that could differ."""
    grid = [GRID[1], [Ridge(1e3)]]
    model = MultiTaskClassifierCV(grid, cv=3, random_state=0).fit(X, THIRDS, TASK)
    assert model.best_index_ == 0
    alone = MultiTaskClassifier(GRID[1]).fit(X, THIRDS, TASK)
    np.testing.assert_array_equal(model.coef_, alone.coef_)
    np.testing.assert_array_equal(model.intercept_, alone.intercept_)


def test_one_standard_error_takes_the_first_that_is_not_clearly_worse():
    grid = strengths(Ridge(0.1), [1e3, 30.0, 10.0, 3.0, 1.0, 0.1])
    settings = {"cv": 4, "random_state": 0}
    plain = MultiTaskClassifierCV(grid, **settings).fit(X, SIGN, TASK)
    model = MultiTaskClassifierCV(grid, one_standard_error=True, **settings).fit(X, SIGN, TASK)
    np.testing.assert_array_equal(model.cv_log_loss_, plain.cv_log_loss_)
    mean, best = plain.cv_log_loss_.mean(1), plain.best_index_
    limit = mean[best] + plain.cv_log_loss_[best].std(ddof=1) / 2
    assert 0 < model.best_index_ < best
    assert mean[model.best_index_] <= limit
    assert (mean[: model.best_index_] > limit).all()


def test_random_state():
    fits = [MultiTaskClassifierCV(GRID, random_state=seed).fit(X, SIGN, TASK) for seed in (0, 0, 1)]
    first, again, other = (fit.cv_log_loss_ for fit in fits)
    assert first.shape == (3, 5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(fits[0].coef_, fits[1].coef_)
    assert (first != other).any()


def test_losses_far_out_are_finite_and_true():
    """Scores of thousands: probabilities underflow, their logarithms do not."""
    x = np.array([[-1.0], [1.0], [-1.0], [1.0], [1e6]])
    y = np.array([0, 1, 0, 1, 0])
    folds = [(np.arange(4), np.array([4]))]
    model = MultiTaskClassifierCV([Ridge(0.1)], cv=folds, **TIGHT).fit(x, y)
    inner = MultiTaskClassifier(Ridge(0.1), **TIGHT).fit(x[:4], y[:4])
    score = inner.decision_function(x[4:])[0]
    assert score > 1e5
    assert model.cv_log_loss_[0, 0] == pytest.approx(score, rel=1e-6)


# Folds -----------------------------------------------------------------------------------------


def spread(fold, number):
    count = np.bincount(fold, minlength=number)
    return count.max() - count.min()


def test_folds_are_even_in_each_task_and_lose_no_class():
    """Few rows and many classes: most are dealt where a choice is hardly left."""
    uneven = 0
    for seed in range(3000):
        rng = np.random.default_rng(seed)
        rows, number = rng.integers(4, 14), rng.integers(2, 4)
        codes = np.sort(rng.integers(0, rng.integers(1, rows // 2 + 1), rows))
        labels = rng.integers(0, rows // 2 + 1, rows)
        labels[rng.random(rows) < 0.1] = -1
        fold = stratified_folds(codes, labels, number, seed)
        assert np.bincount(fold, minlength=number).min() > 0
        for label in range(labels.max() + 1):
            own = fold[labels == label]
            assert len(own) < 2 or len(np.unique(own)) > 1
        spreads = [spread(fold[codes == k], number) for k in np.unique(codes)]
        assert max(spreads) <= 2
        uneven += max(spreads) == 2
    assert uneven <= 6


@pytest.mark.parametrize("seed", range(20))
def test_classes_are_spread_over_all_tasks(seed):
    """Rare ones first: the rarest has all folds to choose from in each task."""
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(0, 30, 150), rng.choice(4, 150, p=[0.6, 0.25, 0.1, 0.05])
    fold = stratified_folds(codes, labels, 5, seed)
    assert spread(fold[labels == np.bincount(labels).argmin()], 5) <= 1
    assert max(spread(fold[labels == label], 5) for label in range(4)) <= 4
    assert max(spread(fold[codes == k], 5) for k in range(30)) <= 1
    single = rng.integers(0, 3, 40)  # tasks of one row each
    fold = stratified_folds(np.arange(40), single, 5, seed)
    assert max(spread(fold[single == label], 5) for label in range(3)) <= 1
    np.testing.assert_array_equal(fold, stratified_folds(np.arange(40), single, 5, seed))


def test_folds_are_stratified_inside_each_task():
    """Six rows of each class in each task: two of them in each of three folds."""
    codes, labels = np.repeat(np.arange(4), 18), np.tile([0, 1, 2], 24)
    order = RNG.permutation(72)
    codes, labels = codes[order], labels[order]
    fold = stratified_folds(codes, labels, 3, 0)
    table = np.zeros((4, 3, 3), int)
    np.add.at(table, (codes, labels, fold), 1)
    assert (table == 2).all()
    assert (fold != stratified_folds(codes, labels, 3, 1)).any()


def test_a_rare_class_of_each_task_is_spread_over_the_folds():
    """Four rows of one class and one of another in each task: dealt in a row it would be lost."""
    codes, labels = np.repeat(np.arange(10), 5), np.tile([0, 0, 0, 0, 1], 10)
    fold = stratified_folds(codes, labels, 5, 0)
    assert np.bincount(fold[labels == 1]).tolist() == [2] * 5
    assert np.bincount(fold).tolist() == [10] * 5


def test_rows_without_weight_are_no_rows_of_a_class():
    """The two rows of a class that count lie in two folds, whatever rows of weight 0 there are."""
    y = np.array(["a"] * 12 + ["b"] * 12)
    weight = np.ones(24)
    weight[14:] = 0.0
    x = np.linspace(-1, 1, 24)[:, None]
    for seed in range(5):
        model = MultiTaskClassifierCV([Ridge(0.1)], cv=2, random_state=seed)
        assert model.fit(x, y, sample_weight=weight).cv_log_loss_.max() < 5


def test_given_splitters_see_classes_and_tasks():
    selection = pytest.importorskip("sklearn.model_selection", reason="needs scikit-learn")
    chain = TaskGraph.chain(K)
    grid = [[Ridge(0.1), GraphReg(chain, s)] for s in (1.0, 0.1)]
    model = MultiTaskClassifierCV(grid, cv=selection.LeaveOneGroupOut()).fit(X, THIRDS, TASK)
    assert model.cv_log_loss_.shape == (2, K)
    splitter = selection.StratifiedKFold(3)
    model = MultiTaskClassifierCV(GRID, cv=splitter, tasks=range(K), **TIGHT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        model.fit(X, THIRDS, TASK)
    table = losses_by_hand(THIRDS, GRID, list(splitter.split(X, THIRDS)), np.ones(N))
    np.testing.assert_allclose(model.cv_log_loss_, table, rtol=1e-5)


# Classes that a fold lacks ---------------------------------------------------------------------


def rare(y, label, place):
    y = y.copy()
    y[place] = label
    return y


def test_a_class_of_one_row_moves_no_column():
    """It sorts first, so that a fold without it would have all columns one place to the left."""
    place, folds = 5, [(np.delete(np.arange(N), [5, 20]), np.array([5, 20])), *given_folds()]
    y = rare(THIRDS, "a", place)
    model = MultiTaskClassifierCV(GRID, cv=folds, **TIGHT).fit(X, y, TASK)
    assert model.classes_.tolist() == ["a", "high", "low", "mid"]
    assert model.coef_.shape == (K, 4, D)
    inside, outside = folds[0]
    for row, penalty in enumerate(GRID):
        # the classes that are there are the same problems without the one that is not
        lacking = MultiTaskClassifier(penalty, **TIGHT).fit(X[inside], y[inside], TASK[inside])
        logs = lacking.predict_log_proba(X[outside], TASK[outside])
        own = logs[1, lacking.classes_.tolist().index(y[20])]
        assert model.cv_log_loss_[row, 0] == pytest.approx((FLOOR - own) / 2, rel=1e-6)
        # and that is what scikit-learn makes of a probability of 0
        metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
        proba = np.column_stack([[0.0, 0.0], np.exp(logs)])
        loss = metrics.log_loss(y[outside], proba, labels=model.classes_)
        assert model.cv_log_loss_[row, 0] == pytest.approx(loss, rel=1e-6)
    assert np.isfinite(model.cv_log_loss_).all()


def test_a_class_that_a_fold_lacks_leaves_the_choice_to_other_rows():
    folds = [(np.delete(np.arange(N), part), part) for part in np.array_split(np.arange(N), 4)]
    plain = MultiTaskClassifierCV(GRID, cv=folds, **TIGHT).fit(X, THIRDS, TASK)
    weight = np.ones(N + 1)
    x, y = np.vstack([X, np.zeros(D)]), np.append(THIRDS, "rare")
    weight[-1], task = 1e-9, np.append(TASK, 0)
    folds[0] = folds[0][0], np.append(folds[0][1], N)
    model = MultiTaskClassifierCV(GRID, cv=folds, **TIGHT).fit(x, y, task, weight)
    np.testing.assert_allclose(model.cv_log_loss_[:, 0], plain.cv_log_loss_[:, 0], rtol=1e-6)
    assert model.best_index_ == plain.best_index_


def test_a_fold_of_two_classes_of_three_is_still_three_problems():
    """Two classes alone would be one problem; here both are against the rest."""
    inside = np.flatnonzero(THIRDS != "mid")
    folds = [(inside[5:], inside[:5])]
    model = MultiTaskClassifierCV(GRID, cv=folds, **TIGHT).fit(X, THIRDS, TASK)
    for row, penalty in enumerate(GRID):
        scores = [
            MultiTaskClassifier(penalty, tasks=range(K), **TIGHT)
            .fit(X[inside[5:]], THIRDS[inside[5:]] == label, TASK[inside[5:]])
            .decision_function(X[inside[:5]], TASK[inside[:5]])
            for label in ("high", "low")
        ]
        share = 1 / (1 + np.exp(-np.array(scores)))
        own = np.where(THIRDS[inside[:5]] == "high", *share) / share.sum(0)
        assert model.cv_log_loss_[row, 0] == pytest.approx(-np.log(own).mean(), rel=1e-6)


def test_a_fold_of_one_class_of_two():
    one = np.flatnonzero(SIGN == "no")
    rows = np.array([one[0], np.flatnonzero(SIGN == "yes")[0]])
    model = MultiTaskClassifierCV(GRID, cv=[(one[1:], rows)]).fit(X, SIGN, TASK)
    np.testing.assert_allclose(model.cv_log_loss_, FLOOR / 2, rtol=1e-12)
    other = MultiTaskClassifierCV(GRID, cv=[(one[1:], rows)], fit_intercept=False)
    losses = other.fit(X, SIGN, TASK).cv_log_loss_
    assert (losses < 5).all()  # without intercepts there is a solution, which says something
    assert len(np.unique(losses)) == 3


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [[], [PairwiseReg(0.1)], [TraceNorm(0.3)]], ids=len)
def test_what_a_problem_of_one_class_tends_to(penalty, label):
    y = torch.full((N,), label, dtype=torch.float64)
    ptr = torch.from_numpy(np.searchsorted(TASK, np.arange(K + 1)))
    rows = Rows(torch.from_numpy(X), y, None, ptr)
    settings = {"tol": 1e-6, "max_iter": 9, "solver": "auto", "verbose": False}
    fit = fit_logistic("f", rows, penalty, fit_intercept=True, **settings)
    assert not fit.coef.any()
    assert (fit.intercept == (np.inf if label else -np.inf)).all()
    assert (fit.objective, fit.gap, fit.n_iter, fit.converged) == (0.0, 0.0, 0, True)


def test_a_task_of_one_class():
    y = np.where(TASK == 2, "yes", SIGN)
    for labels in (y, np.where(TASK == 2, "mid", THIRDS)):
        folds = given_folds()
        model = MultiTaskClassifierCV(GRID, cv=folds, **TIGHT).fit(X, labels, TASK)
        table = losses_by_hand(labels, GRID, folds, np.ones(N))
        np.testing.assert_allclose(model.cv_log_loss_, table, rtol=1e-5)
        dealt = MultiTaskClassifierCV(GRID, random_state=0).fit(X, labels, TASK)
        assert dealt.cv_log_loss_.max() < 5


# Forms of data, and scikit-learn's conventions --------------------------------------------------


def test_tensors_and_labels():
    names = [f"u{k}" for k in TASK]
    y = torch.from_numpy((SIGN == "yes").astype(int))
    x = torch.from_numpy(X).float()
    model = MultiTaskClassifierCV(GRID, random_state=0).fit(x, y, names)
    for part in (model.coef_, model.predict(x, names), model.predict_proba(x, names)):
        assert isinstance(part, torch.Tensor)
    assert model.coef_.dtype == torch.float32
    assert model.tasks_.tolist() == sorted(set(names))
    assert isinstance(model.cv_log_loss_, np.ndarray)
    plain = MultiTaskClassifierCV(GRID, random_state=0).fit(x.numpy(), SIGN, names)
    assert plain.predict(X, names).dtype == SIGN.dtype
    np.testing.assert_array_equal(plain.cv_log_loss_, model.cv_log_loss_)
    pairs = MultiTaskClassifierCV(GRID, random_state=0)
    pairs.fit(X, object_array([("is", label) for label in THIRDS]), TASK)
    assert pairs.predict(X, TASK)[0][0] == "is"


def test_sparse_rows():
    sparse = pytest.importorskip("scipy.sparse", reason="needs scipy")
    dense, other = (
        MultiTaskClassifierCV(GRID, random_state=0, **TIGHT).fit(x, THIRDS, TASK)
        for x in (X, sparse.csr_array(X))
    )
    np.testing.assert_allclose(other.cv_log_loss_, dense.cv_log_loss_, rtol=1e-5)


def test_norms_and_other_settings():
    grid = strengths([TraceNorm(0.5), Ridge(0.01)], [3.0, 1.0])
    model = MultiTaskClassifierCV(
        grid, cv=2, random_state=0, solver="admm", dtype="float32", unknown="mean", tol=1e-4
    ).fit(X, SIGN, TASK)
    assert model.solver_ == "admm"
    assert model.coef_.dtype == np.float32
    assert model.predict(X[:2], ["new", "new"]).shape == (2,)


def test_copies_and_clones():
    model = MultiTaskClassifierCV(GRID, cv=2, random_state=0).fit(X, THIRDS, TASK)
    for other in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict_proba(X, TASK), model.predict_proba(X, TASK))
        np.testing.assert_array_equal(other.cv_log_loss_, model.cv_log_loss_)
    base = pytest.importorskip("sklearn.base", reason="needs scikit-learn")
    fresh = base.clone(model)
    assert not hasattr(fresh, "coef_")
    assert fresh.cv == 2
    assert base.is_classifier(fresh)
    assert not base.is_classifier(MultiTaskRegressorCV(GRID))


def test_estimator_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="needs scikit-learn")
    estimator = MultiTaskClassifierCV([Ridge(0.1)], cv=2, random_state=0, **TIGHT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = checks.check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) >= 50
    failed = [f"{r['check_name']}: {r['exception']}" for r in results if r["status"] == "failed"]
    assert not failed, "\n".join(failed)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # the array API is not claimed


# Bad arguments ---------------------------------------------------------------------------------


BAD = [
    ({"penalty_grid": []}, ValueError, "penalty_grid must hold at least one penalty, got none"),
    ({"penalty_grid": Ridge()}, TypeError, "penalty_grid must be a list of penalties, got Ridge"),
    ({"penalty_grid": ["ridge"]}, TypeError, "penalty must"),
    ({"random_state": "a"}, TypeError, "random_state must be a seed of NumPy, got"),
    ({"random_state": -1}, ValueError, "random_state must be a seed of NumPy, got"),
    ({"cv": 1}, ValueError, "cv must be in [2, n_samples=74], got 1"),
    ({"cv": N + 1}, ValueError, "cv must be in [2, n_samples=74], got 75"),
    ({"cv": "five"}, TypeError, "cv must be an int, a splitter or pairs of row indices, got str"),
    ({"cv": []}, ValueError, "cv must hold at least one pair of rows, got none"),
    ({"cv": [([0, 1], [])]}, ValueError, "cv must leave rows of a weight > 0 to test, got none"),
    ({"cv": [([0, 1], [N])]}, ValueError, "cv must hold row indices in [0, N=74), got 74 to 74"),
    ({"tol": -1}, ValueError, "tol must be finite and > 0, got -1.0"),
    ({"fit_intercept": 2}, TypeError, 'fit_intercept must be a bool or "penalized", got int'),
    ({"solver": "cg", "penalty_grid": [TraceNorm()]}, ValueError, 'solver "cg" needs quadratic'),
]


@pytest.mark.parametrize(("settings", "kind", "words"), BAD, ids=lambda v: str(v)[:40])
def test_bad_arguments(settings, kind, words):
    """In the words of the regressor."""
    for estimator, y in ((MultiTaskClassifierCV, SIGN), (MultiTaskRegressorCV, SCORE)):
        model = estimator(**{"penalty_grid": GRID, **settings})
        with pytest.raises(kind, match=re.escape(f"{estimator.__name__}.fit: {words}")):
            model.fit(X, y, TASK)
        assert not hasattr(model, "coef_")


BAD_CLASSES = [
    (SCORE, "y must hold labels of classes, got .* at row 0. Unknown label type: continuous"),
    (np.ones(N), "y must hold at least two classes, got one class, 1.0"),
    (["a"] * (N - 1), "y must have one entry for each of the 74 rows of X, got 73"),
    (None, "requires y to be passed, but the target y is None"),
]


@pytest.mark.parametrize(("y", "words"), BAD_CLASSES, ids=lambda v: str(v)[:40])
def test_bad_classes(y, words):
    with pytest.raises(ValueError, match=r"MultiTaskClassifierCV\.fit: " + words):
        MultiTaskClassifierCV(GRID).fit(X, y, TASK)


def test_not_fitted_yet():
    with pytest.raises(
        ValueError, match=r"MultiTaskClassifierCV\.predict: this model is not fitted"
    ):
        MultiTaskClassifierCV(GRID).predict(X, TASK)
