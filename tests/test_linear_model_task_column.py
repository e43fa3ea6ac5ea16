"""The task as a column of X: in every form of X, through scikit-learn's tools, bad columns."""

import warnings

import numpy as np
import pytest
import torch

from mtlfast import TaskGraph
from mtlfast.linear_model import (
    MultiTaskClassifier,
    MultiTaskClassifierCV,
    MultiTaskRegressor,
    MultiTaskRegressorCV,
)
from mtlfast.linear_model import path as path_of
from mtlfast.nn import GraphReg, PairwiseReg

RNG = np.random.default_rng(3)
K, N, D = 5, 60, 3
TASK = np.repeat(np.arange(K), N // K)
X = RNG.normal(size=(N, D))
Y = X.sum(1) + TASK + RNG.normal(size=N)
SIGN = (np.median(Y) < Y).astype(int)
WITH = np.column_stack([X, TASK])
SHOPS = np.array(["east", "hill", "north", "south", "west"])[TASK]
EXPECTED = MultiTaskRegressor(PairwiseReg(0.1)).fit(X, Y, TASK)
PREDICTED = EXPECTED.predict(X, TASK)


def model(task_column=-1, **settings):
    return MultiTaskRegressor(PairwiseReg(0.1), task_column=task_column, **settings)


def frame(labels=SHOPS, place=D):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["a", "b", "c"])
    table.insert(place, "shop", labels)
    return table


def objects(labels, place=D):
    table = np.empty((N, D + 1), dtype=object)
    table[:, [column for column in range(D + 1) if column != place]] = X
    table[:, place] = labels
    return table


def sparse(form):
    return getattr(pytest.importorskip("scipy.sparse"), form)(WITH)


FORMS = {
    "array": lambda: (WITH, -1, TASK),
    "a position from the start": lambda: (WITH, 3, TASK),
    "a position of NumPy": lambda: (WITH, np.int64(3), TASK),
    "the first column": lambda: (np.column_stack([TASK, X]), 0, TASK),
    "a column between others": lambda: (np.insert(X, 1, TASK, axis=1), 1, TASK),
    "float32": lambda: (WITH.astype(np.float32), -1, TASK),
    "Fortran's order": lambda: (np.asfortranarray(WITH), -1, TASK),
    "lists": lambda: (WITH.tolist(), -1, TASK),
    "lists with strings": lambda: (
        [[*x, s] for x, s in zip(X.tolist(), SHOPS.tolist(), strict=True)],
        -1,
        SHOPS,
    ),
    "objects, strings": lambda: (objects(SHOPS), -1, SHOPS),
    "objects, integers": lambda: (objects(TASK.tolist(), 1), 1, TASK),
    "objects, whole floats": lambda: (objects((TASK + 0.0).tolist()), -1, TASK),
    "objects, large integers": lambda: (objects([10**20 + int(k) for k in TASK]), -1, None),
    "tensor": lambda: (torch.tensor(WITH), -1, TASK),
    "tensor, a column between others": lambda: (
        torch.tensor(np.insert(X, 2, TASK, axis=1)),
        -2,
        TASK,
    ),
    "tensor of bfloat16": lambda: (torch.tensor(WITH).bfloat16(), -1, TASK),
    "csr_matrix": lambda: (sparse("csr_matrix"), -1, TASK),
    "csc_array": lambda: (sparse("csc_array"), 3, TASK),
    "coo_matrix": lambda: (sparse("coo_matrix"), -1, TASK),
    "lil_matrix": lambda: (sparse("lil_matrix"), -1, TASK),
    "frame, a name": lambda: (frame(), "shop", SHOPS),
    "frame, a name in front": lambda: (frame(place=0), "shop", SHOPS),
    "frame, a position": lambda: (frame(place=2), 2, SHOPS),
    "frame, integers": lambda: (frame(TASK), "shop", TASK),
    "frame, whole floats": lambda: (frame(TASK + 0.0), "shop", TASK),
    "frame, nullable integers": lambda: (frame().assign(shop=nullable("Int64")), "shop", TASK),
    "frame, nullable floats": lambda: (frame().assign(shop=nullable("Float64")), "shop", TASK),
    "frame, a categorical": lambda: (frame().astype({"shop": "category"}), "shop", SHOPS),
    "frame, dates": lambda: (frame(TASK.astype("datetime64[D]")), "shop", None),
    "polars": lambda: (polars_frame(), "shop", SHOPS),
}


def nullable(kind):
    return pytest.importorskip("pandas").array(TASK, dtype=kind)


def polars_frame():
    columns = {name: X[:, place] for place, name in enumerate("abc")}
    return pytest.importorskip("polars").DataFrame({**columns, "shop": SHOPS})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_is_a_fit_with_task_ids(form):
    given, place, labels = form()
    fit = model(place).fit(given, Y)
    low = "float32" in str(fit.coef_.dtype) or "bfloat16" in str(getattr(given, "dtype", ""))
    close = {"rtol": 0, "atol": 0.05 if low else 1e-9}
    assert fit.coef_.shape == (K, D)
    np.testing.assert_allclose(np.asarray(fit.coef_), EXPECTED.coef_, **close)
    np.testing.assert_allclose(np.asarray(fit.intercept_), EXPECTED.intercept_, **close)
    np.testing.assert_allclose(np.asarray(fit.predict(given)), PREDICTED, **close)
    assert abs(fit.score(given, Y) - EXPECTED.score(X, Y, TASK)) < (0.05 if low else 1e-9)
    assert fit.n_features_in_ == D + 1
    if labels is not None:
        assert fit.tasks_.tolist() == np.unique(labels).tolist()
        assert fit.tasks_.dtype.kind == ("i" if labels is TASK else fit.tasks_.dtype.kind)
    if place == "shop":
        assert list(fit.feature_names_in_) == list(given.columns)


def test_what_was_given_is_not_changed():
    given, table = WITH.copy(), frame()
    before = table.copy()
    model().fit(given, Y).predict(given)
    model("shop").fit(table, Y).predict(table)
    assert (given == WITH).all()
    assert table.equals(before)


def test_the_column_of_a_name_is_found_in_an_array_by_its_place_in_the_fit():
    fit = model("shop").fit(frame(place=1), Y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        got = fit.predict(objects(SHOPS, 1))
    np.testing.assert_allclose(got, PREDICTED)


def test_whole_floats_are_nodes_of_a_graph():
    graph = TaskGraph.chain(K + 2)  # two nodes have no rows
    fit = MultiTaskRegressor(GraphReg(graph, 0.1), task_column=-1).fit(WITH, Y)
    assert fit.tasks_.tolist() == list(range(K + 2))


def test_tasks_and_unknown_tasks():
    few = WITH[TASK < 3]
    fit = model(tasks=range(K)).fit(few, Y[TASK < 3])
    assert fit.coef_.shape == (K, D)
    fit = model(unknown="mean").fit(few, Y[TASK < 3])
    np.testing.assert_allclose(
        fit.predict(WITH)[TASK == 4], X[TASK == 4] @ fit.coef_.mean(0) + fit.intercept_.mean()
    )
    with pytest.raises(ValueError, match=r"predict: task_column must be among the 3 tasks of the"):
        model().fit(few, Y[TASK < 3]).predict(WITH)


def test_every_estimator_and_method_takes_the_column():
    classifier = MultiTaskClassifier(PairwiseReg(0.1), task_column=-1).fit(WITH, SIGN)
    expected = MultiTaskClassifier(PairwiseReg(0.1)).fit(X, SIGN, TASK)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        got = getattr(classifier, method)(WITH)
        np.testing.assert_allclose(got, getattr(expected, method)(X, TASK))
    assert classifier.score(WITH, SIGN) == expected.score(X, SIGN, TASK)
    grid = [PairwiseReg(1.0), PairwiseReg(0.1)]
    chosen = MultiTaskRegressorCV(grid, random_state=0, task_column=-1).fit(WITH, Y)
    wanted = MultiTaskRegressorCV(grid, random_state=0).fit(X, Y, TASK)
    np.testing.assert_allclose(chosen.cv_mse_, wanted.cv_mse_)
    np.testing.assert_allclose(chosen.predict(WITH), wanted.predict(X, TASK))
    chosen = MultiTaskClassifierCV(grid, random_state=0, task_column=-1).fit(WITH, SIGN)
    wanted = MultiTaskClassifierCV(grid, random_state=0).fit(X, SIGN, TASK)
    np.testing.assert_allclose(chosen.cv_log_loss_, wanted.cv_log_loss_)
    np.testing.assert_allclose(chosen.predict_proba(WITH), wanted.predict_proba(X, TASK))
    last = path_of(model(), grid, WITH, Y)[-1]
    np.testing.assert_allclose(last.predict(WITH), PREDICTED, atol=1e-5)


def test_a_warm_start_goes_on_with_a_column():
    warm = model(warm_start=True).fit(WITH, Y)
    coef = warm.coef_
    np.testing.assert_allclose(warm.fit(WITH, Y).coef_, coef, atol=1e-6)


NAN = float("nan")
BAD = {
    "beside task_ids": (lambda: model().fit(WITH, Y, TASK), "task_ids must be None where task_c"),
    "too far": (lambda: model(4).fit(WITH, Y), r"task_column must be in \[-4, 4\) .* got 4"),
    "too far from the end": (lambda: model(-5).fit(WITH, Y), r"in \[-4, 4\) .* got -5"),
    "a name without names": (lambda: model("shop").fit(WITH, Y), "got 'shop' and X without names"),
    "a name that is not there": (
        lambda: model("town").fit(frame(), Y),
        "the name of one column of X, got 'town' and 0 columns of that name",
    ),
    "a name that is there twice": (
        lambda: model("shop").fit(frame().rename(columns={"a": "shop"}), Y),
        "got 'shop' and 2 columns of that name",
    ),
    "a fraction": (lambda: model(0).fit(WITH, Y), "task_column must hold labels, whole where they"),
    "NaN": (lambda: model().fit(np.where(WITH == 4, NAN, WITH), Y), "got nan in row 48"),
    "infinite": (lambda: model().fit(np.where(WITH == 4, np.inf, WITH), Y), "got inf in row 48"),
    "beyond int64": (lambda: model().fit(np.where(WITH == 4, 1e19, WITH), Y), r"got 1e\+19 in row"),
    "a missing object": (
        lambda: model().fit(objects(np.where(TASK == 1, None, SHOPS)), Y),
        "task_column must not have missing labels, got one at position 12",
    ),
    "nothing else": (
        lambda: model().fit(WITH[:, -1:], Y),
        r"X must have features beside task_column=-1, got shape \[60, 1\]",
    ),
    "no rows": (lambda: model().fit(WITH[:0], Y[:0]), "0 sample"),
    "no table": (lambda: model().fit(TASK, Y), "X must be 2-D"),
    "fewer columns in predict": (
        lambda: model().fit(WITH, Y).predict(X),
        "X has 3 features, but MultiTaskRegressor is expecting 4",
    ),
    "other names in predict": (
        lambda: model("shop").fit(frame(), Y).predict(frame().rename(columns={"shop": "town"})),
        "feature names should match",
    ),
    "task_ids in predict": (
        lambda: model().fit(WITH, Y).predict(WITH, TASK),
        "predict: task_ids must be None",
    ),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD.keys())
def test_bad_columns(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert str(error.value).startswith("MultiTaskRegressor.")


@pytest.mark.parametrize("value", [True, 1.5, ("shop",), None.__class__], ids=str)
def test_a_column_is_a_name_or_a_position(value):
    with pytest.raises(TypeError, match="task_column must be the name of a column or its posit"):
        model(value).fit(WITH, Y)


def test_other_columns_are_still_numbers():
    table = objects(SHOPS)
    table[4, 1] = "a"
    with pytest.raises(ValueError, match="X must hold numbers"):
        model().fit(table, Y)
    table[4, 1] = NAN
    with pytest.raises(ValueError, match=r"X must be finite, .* in row 4"):
        model().fit(table, Y)


def test_forms_that_hold_no_numbers_are_refused_as_ever():
    with pytest.raises(TypeError, match="X must hold numbers, got a meta tensor"):
        model().fit(torch.zeros(N, D + 1, device="meta"), Y)
    with pytest.raises(TypeError, match="X must be a dense tensor"):
        model().fit(torch.tensor(WITH).to_sparse(), Y)


# scikit-learn's tools, which hand on X alone


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def folds(number=3):
    selection = pytest.importorskip("sklearn.model_selection")
    return selection.StratifiedKFold(number, shuffle=True, random_state=0).split(WITH, TASK)


def test_a_search_with_any_scorer():
    selection = pytest.importorskip("sklearn.model_selection")
    search = selection.GridSearchCV(
        model(), {"penalty__strength": [10.0, 0.1]}, scoring="neg_mean_squared_error",
        cv=list(folds()),
    ).fit(WITH, Y)  # fmt: skip
    for number, (inside, outside) in enumerate(folds()):
        for place, strength in enumerate([10.0, 0.1]):
            fit = MultiTaskRegressor(PairwiseReg(strength)).fit(X[inside], Y[inside], TASK[inside])
            error = np.square(fit.predict(X[outside], TASK[outside]) - Y[outside]).mean()
            got = search.cv_results_[f"split{number}_test_score"][place]
            assert abs(got + error) < 1e-6
    assert search.predict(WITH).shape == (N,)


def test_predictions_of_cross_validation():
    selection = pytest.importorskip("sklearn.model_selection")
    got = selection.cross_val_predict(model(), WITH, Y, cv=list(folds()))
    for inside, outside in folds():
        fit = MultiTaskRegressor(PairwiseReg(0.1)).fit(X[inside], Y[inside], TASK[inside])
        np.testing.assert_allclose(got[outside], fit.predict(X[outside], TASK[outside]))


def test_calibration():
    calibration = pytest.importorskip("sklearn.calibration")
    classifier = MultiTaskClassifier(PairwiseReg(0.1), task_column=-1)
    fit = calibration.CalibratedClassifierCV(classifier, cv=list(folds(2))).fit(WITH, SIGN)
    got = fit.predict_proba(WITH)
    assert ((got[:, 1] > 0.5) == SIGN).mean() > 0.8
    np.testing.assert_allclose(got.sum(1), 1)
    assert fit.n_features_in_ == D + 1


def test_importance_of_a_permuted_task():
    inspection = pytest.importorskip("sklearn.inspection")
    for given, place in ((WITH, -1), (frame(), "shop")):
        fit = model(place).fit(given, Y)
        found = inspection.permutation_importance(fit, given, Y, n_repeats=3, random_state=0)
        assert found.importances_mean.shape == (D + 1,)
        assert (found.importances_mean > 0.1).all()  # the task is told by its number


def test_bagging():
    ensemble = pytest.importorskip("sklearn.ensemble")
    fit = ensemble.BaggingRegressor(model(tasks=range(K)), n_estimators=4, random_state=0)
    got = fit.fit(WITH, Y).predict(WITH)
    parts = [part.predict(WITH) for part in fit.estimators_]
    np.testing.assert_allclose(got, np.mean(parts, 0))


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_a_pipeline_with_a_column_transformer(output):
    compose = pytest.importorskip("sklearn.compose")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    pipeline = pytest.importorskip("sklearn.pipeline")
    table = frame(place=1)
    scaled = compose.ColumnTransformer(
        [("scaled", preprocessing.StandardScaler(), ["a", "b", "c"])], remainder="passthrough"
    ).set_output(transform=output)
    place = "remainder__shop" if output == "pandas" else -1
    fit = pipeline.make_pipeline(scaled, model(place)).fit(table, Y)
    standard = (X - X.mean(0)) / X.std(0)
    expected = MultiTaskRegressor(PairwiseReg(0.1)).fit(standard, Y, SHOPS)
    np.testing.assert_allclose(fit.predict(table), expected.predict(standard, SHOPS), rtol=1e-6)
