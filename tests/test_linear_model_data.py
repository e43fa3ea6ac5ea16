"""What the linear models read: labels, features, targets, weights, and rows sorted by task."""

import datetime
import re
import warnings

import numpy as np
import pytest
import torch

from mtlfast import TaskGraph
from mtlfast.linear_model._data import Problem, read_features, read_target, read_weights
from mtlfast.linear_model._folds import fold_of_rows, read_folds
from mtlfast.linear_model._labels import factorize, match
from mtlfast.linear_model._model import affine, read_dtype
from mtlfast.linear_model._tasks import read_tasks
from mtlfast.nn import GraphReg

NAN, INF = float("nan"), float("inf")
RNG = np.random.default_rng(0)


def wide(ids):
    return [10**12 * i for i in ids]


IDS = [4, 2, 9, 2, 4, 4]
LABELS = {
    "list": IDS,
    "int8": np.array(IDS, dtype=np.int8),
    "uint64": np.array(IDS, dtype=np.uint64) + np.uint64(2**63),
    "negative": [-i for i in IDS],
    "wide": wide(IDS),
    "float": [float(i) for i in IDS],
    "bool": [i > 3 for i in IDS],
    "strings": [f"u{i}" for i in IDS],
    "array of strings": np.array([f"u{i}" for i in IDS]),
    "objects": np.array([f"u{i}" for i in IDS], dtype=object),
    "tuples": [(i, "a") for i in IDS],
    "dates": np.array(IDS, dtype="datetime64[D]"),
    "date objects": [datetime.date(2020, 1, i) for i in IDS],
    "tensor": torch.tensor(IDS, dtype=torch.int32),
    "range": range(6),
}


@pytest.mark.parametrize("values", LABELS.values(), ids=LABELS.keys())
def test_labels_come_back_from_codes(values):
    labels, codes = factorize("fit", "task_ids", values)
    given = values.tolist() if hasattr(values, "tolist") else list(values)
    assert labels[codes].tolist() == given
    assert labels.tolist() == sorted(set(given))
    assert codes.dtype == np.int64
    order = RNG.permutation(len(labels))
    np.testing.assert_array_equal(match(labels[order], labels), order)


def test_labels_of_a_categorical_are_those_that_occur():
    pandas = pytest.importorskip("pandas")
    kind = pandas.CategoricalDtype(["z", "b", "never", "a"])
    for values in (
        pandas.Series(list("bzab"), dtype=kind),
        pandas.Categorical(list("bzab"), dtype=kind),
    ):
        labels, codes = factorize("fit", "task_ids", values)
        assert labels.tolist() == ["a", "b", "z"]
        assert codes.tolist() == [1, 2, 0, 1]
    series = pandas.Series(["b", None, "a"], dtype=kind)
    with pytest.raises(
        ValueError, match="fit: task_ids must not have missing labels, got one at position 1"
    ):
        factorize("fit", "task_ids", series)


def test_labels_that_do_not_sort_are_taken_where_no_order_is_needed():
    values = ["a", 1, "a", (2, 3)]
    with pytest.raises(TypeError, match="fit: task_ids must hold labels that can be sorted"):
        factorize("fit", "task_ids", values)
    labels, codes = factorize("fit", "task_ids", values, sort=False)
    assert [labels[c] for c in codes] == values


def test_integers_and_strings_are_different_labels():
    assert match(np.array([1, 2]), np.array(["1", "2"])).tolist() == [-1, -1]
    assert match(np.array([1.0, 2.5]), np.array([2, 1])).tolist() == [1, -1]
    assert match(np.array([3]), np.array([], dtype=np.int64)).tolist() == [-1]
    large = np.array([2**62 + 1, 2**62, 2**62 + 2])  # one and the same as floats
    assert match(large.astype(np.uint64), large).tolist() == [0, 1, 2]


BAD_LABELS = [
    ([1, None], ValueError, "task_ids must not have missing labels, got one at position 1"),
    ([1.0, NAN], ValueError, "task_ids must not have missing labels, got one at position 1"),
    (["a", NAN], ValueError, "task_ids must not have missing labels, got one at position 1"),
    (np.array(["NaT"], "M8[D]"), ValueError, "task_ids must not have missing labels, got one at"),
    ([[1], [2]], ValueError, "task_ids must be 1-D, got shape [2, 1]"),
    ([[1], [2, 3]], ValueError, "task_ids must be 1-D, got"),
    (3, ValueError, "task_ids must be 1-D, got shape []"),
    ([1j], TypeError, "task_ids must hold labels, got dtype complex128"),
    ([{}, {}], TypeError, "task_ids must hold hashable labels, got"),
]


@pytest.mark.parametrize(("values", "kind", "words"), BAD_LABELS, ids=str)
def test_bad_labels(values, kind, words):
    with pytest.raises((TypeError, ValueError), match=re.escape("fit: " + words)) as caught:
        factorize("fit", "task_ids", values)
    assert caught.type is kind


X = np.arange(12.0).reshape(4, 3)


def forms_of(x):
    """The same numbers in each form of features."""
    yield x
    yield np.asfortranarray(x)
    yield x[::-1][::-1]
    yield np.concatenate([x, x], 1)[:, :3]
    yield x.astype(">f8")
    yield x.astype(object)
    yield x.astype(np.int16)
    yield x.tolist()
    yield torch.from_numpy(x.copy()).requires_grad_()
    yield torch.from_numpy(x).float()
    readonly = x.copy()
    readonly.flags.writeable = False
    yield readonly


def test_features_in_every_form_are_the_same_numbers():
    for number, form in enumerate(forms_of(X)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            features = read_features("fit", form)
        assert features.values.dtype == torch.float64, number
        assert torch.equal(features.values, torch.from_numpy(X)), number
        assert features.is_torch == isinstance(form, torch.Tensor)
        assert not features.values.requires_grad


def test_features_are_not_copied_where_they_can_be_shared():
    assert read_features("fit", X).values.data_ptr() == X.ctypes.data


def test_the_dtype_of_features_is_remembered():
    assert read_features("fit", X.astype(np.float32)).dtype == torch.float32
    assert read_features("fit", torch.from_numpy(X).bfloat16()).dtype == torch.float64
    assert read_features("fit", X.astype(int)).dtype == torch.float64


@pytest.mark.parametrize("kind", ["Float64", "Float32", "Int64", "UInt8", "boolean", "object"])
def test_missing_values_of_nullable_columns(kind):
    """pandas.NA is NaN, and named as NaN is: in X, in y and in weights, whatever the function."""
    pd = pytest.importorskip("pandas")
    numbers = RNG.integers(0, 2, (5, 3))
    whole = pd.DataFrame(numbers, columns=list("abc")).astype(kind)
    features = read_features("fit", whole)
    assert (features.values.numpy() == numbers).all()
    assert (read_target("fit", whole["a"], features).numpy() == numbers[:, 0]).all()
    lacking = whole.copy()
    lacking.iloc[3, 1] = pd.NA
    with pytest.raises(ValueError, match=r"fit: X must be finite, .* in row 3$"):
        read_features("fit", lacking)
    with pytest.raises(ValueError, match=r"fit: y must be finite, .* got nan at row 3$"):
        read_target("fit", lacking["b"], features)
    with pytest.raises(ValueError, match=r"fit: sample_weight must be finite, .* nan at row 3$"):
        read_weights("fit", lacking["b"], features)
    with pytest.raises(ValueError, match=r"fit: task_ids must not .* missing labels.* position 3$"):
        factorize("fit", "task_ids", lacking["b"])


def test_other_objects_are_still_no_numbers():
    with pytest.raises(TypeError, match="fit: X must hold numbers"):
        read_features("fit", np.array([[1.0, object()]]))


def test_sparse_features():
    sparse = pytest.importorskip("scipy.sparse")
    twice = sparse.coo_array(([1.0, 2.0, 3.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    for form in (twice, twice.tocsc(), sparse.csr_matrix(twice), twice.astype(np.int32)):
        values = read_features("fit", form).values
        assert values.format == "csr"
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values.toarray(), [[0, 3], [3, 0]])
    assert read_features("fit", twice.astype(np.float32)).dtype == torch.float32


def test_names_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    features = read_features("fit", frame)
    assert features.names.tolist() == ["a", "b", "c"]
    assert torch.equal(features.values, torch.from_numpy(X))
    assert read_features("fit", pandas.DataFrame(X)).names is None


def with_entry(value):
    x = X.copy()
    x[2, 1] = value
    return x


BAD_FEATURES = [
    (X[0], ValueError, "X must be 2-D [N, d], got shape [3]. Reshape your data"),
    (X[None], ValueError, "X must be 2-D [N, d], got shape [1, 4, 3]"),
    (X[:0], ValueError, "X must have rows, got 0 sample(s) (shape=(0, 3)) while a minimum of 1"),
    (X[:, :0], ValueError, "X must have features, got 0 feature(s) (shape=(4, 0)) while a"),
    (
        with_entry(NAN),
        ValueError,
        "X must be finite, without NaN or inf, got such a value in row 2",
    ),
    (
        with_entry(INF),
        ValueError,
        "X must be finite, without NaN or inf, got such a value in row 2",
    ),
    (torch.from_numpy(with_entry(-INF)), ValueError, "X must be finite, without NaN or inf, got"),
    (X + 0j, ValueError, "Complex data not supported, X must be real, got complex128"),
    (torch.from_numpy(X + 0j), ValueError, "Complex data not supported, X must be real, got torch"),
    (
        torch.from_numpy(X).to_sparse(),
        TypeError,
        "X must be a dense tensor or a scipy.sparse matrix",
    ),
    (X.astype(str), TypeError, "X must hold numbers, got dtype <U"),
    (np.array([["a", 1]], dtype=object), ValueError, "X must hold numbers, got could not convert"),
    ([[1.0, {}]], TypeError, "X must hold numbers, got float() argument must be"),
    ([[1.0, 2.0], [3.0]], ValueError, "X must be an array, got"),
    (None, TypeError, "X must be an array, got None"),
    ("X", TypeError, "X must hold numbers, got dtype <U1"),
]


@pytest.mark.parametrize(("x", "kind", "words"), BAD_FEATURES, ids=lambda v: str(v)[:40])
def test_bad_features(x, kind, words):
    with pytest.raises((TypeError, ValueError), match=re.escape("fit: " + words)) as caught:
        read_features("fit", x)
    assert caught.type is kind


@pytest.mark.parametrize("bad", [NAN, INF])
def test_bad_entries_of_sparse_features(bad):
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ValueError, match="got such a value in row 2"):
        read_features("fit", sparse.csr_matrix(with_entry(bad)))
    with pytest.raises(ValueError, match="Complex data not supported"):
        read_features("fit", sparse.csr_matrix(X + 0j))


def test_large_finite_numbers_are_no_infinity():
    """Their sum overflows, which is the quick sign of a bad row."""
    huge = np.full((3, 2), 1e308)
    assert len(read_features("fit", huge)) == 3


FEATURES = read_features("fit", X)
BAD_VECTORS = [
    (read_target, None, ValueError, "requires y to be passed, but the target y is None"),
    (
        read_target,
        [1, 2, 3],
        ValueError,
        "y must have one entry for each of the 4 rows of X, got 3",
    ),
    (read_target, [[1, 2]] * 4, ValueError, "y must be 1-D [N], got shape [4, 2]"),
    (
        read_target,
        [1, 2, NAN, 4],
        ValueError,
        "y must be finite, without NaN or inf, got nan at row 2",
    ),
    (
        read_target,
        [1, 2, 3, -INF],
        ValueError,
        "y must be finite, without NaN or inf, got -inf at row 3",
    ),
    (read_target, np.ones(4) * 1j, ValueError, "Complex data not supported, y must be real"),
    (read_target, list("abcd"), TypeError, "y must hold numbers, got dtype <U1"),
    (read_weights, [1, 2, -3, 4], ValueError, "sample_weight must be >= 0, got -3.0 at row 2"),
    (
        read_weights,
        [0, 0, 0, 0],
        ValueError,
        "sample_weight must not be all zero, got only zero weights",
    ),
    (
        read_weights,
        [1, NAN, 3, 4],
        ValueError,
        "sample_weight must be finite, without NaN or inf, got nan",
    ),
    (read_weights, [1, 2], ValueError, "sample_weight must have one entry for each of the 4 rows"),
    (read_weights, np.ones((4, 1)), ValueError, "sample_weight must be 1-D [N], got shape [4, 1]"),
]


@pytest.mark.parametrize(
    ("read", "values", "kind", "words"),
    BAD_VECTORS,
    ids=lambda v: getattr(v, "__name__", str(v)[:40]),
)
def test_bad_vectors(read, values, kind, words):
    with pytest.raises((TypeError, ValueError), match=re.escape("fit: " + words)) as caught:
        read("fit", values, FEATURES)
    assert caught.type is kind


def test_a_column_is_taken_as_y_with_a_warning():
    for column in (np.ones((4, 1)), [[1.0]] * 4, torch.ones(4, 1)):
        with pytest.warns(UserWarning, match="A column-vector y was passed"):
            assert read_target("fit", column, FEATURES).shape == (4,)


def problem_of(codes, weight=None, num_tasks=None, x=None):
    codes = np.asarray(codes)
    x = np.arange(3.0 * len(codes)).reshape(-1, 3) if x is None else x
    features = read_features("fit", x)
    y = read_target("fit", np.arange(len(codes)), features)
    weight = read_weights("fit", weight, features)
    return Problem(features, y, weight, np.arange(num_tasks or codes.max() + 1), codes)


@pytest.mark.parametrize("num_tasks", [5, 1 << 16, (1 << 16) + 1, 1 << 21])
def test_rows_are_sorted_stably(num_tasks):
    codes = RNG.integers(0, num_tasks, 1000)
    codes[500:] = codes[:500]
    problem = problem_of(codes, num_tasks=num_tasks)
    rows = problem.rows()
    order = np.argsort(codes, kind="stable")
    np.testing.assert_array_equal(rows.y, order)
    np.testing.assert_array_equal(rows.X, problem.features.values[order])
    np.testing.assert_array_equal(rows.ptr, np.searchsorted(codes[order], np.arange(num_tasks + 1)))
    assert rows.weight is None


def test_sorted_rows_are_not_copied():
    problem = problem_of([0, 0, 1, 3])
    rows = problem.rows()
    assert rows.X.data_ptr() == problem.features.values.data_ptr()
    assert rows.ptr.tolist() == [0, 2, 3, 3, 4]


@pytest.mark.parametrize("codes", [[0, 0, 1, 1], [1, 0, 1, 0]])
def test_rows_of_weight_zero_are_dropped(codes):
    rows = problem_of(codes, weight=[1, 0, 0, 3]).rows()
    assert rows.ptr.tolist() == [0, 1, 2]
    kept = [0, 3] if codes[0] == 0 else [3, 0]
    assert rows.y.tolist() == kept
    assert rows.weight.tolist() == [[1, 0, 0, 3][k] for k in kept]
    np.testing.assert_array_equal(rows.X, np.arange(12.0).reshape(4, 3)[kept])


def test_sparse_rows_are_sorted_as_dense_ones():
    sparse = pytest.importorskip("scipy.sparse")
    codes, x = RNG.integers(0, 7, 40), RNG.normal(size=(40, 3)) * (RNG.random((40, 3)) < 0.3)
    weight = RNG.integers(0, 3, 40)
    dense = problem_of(codes, weight, x=x).rows()
    rows = problem_of(codes, weight, x=sparse.csr_array(x)).rows()
    np.testing.assert_array_equal(rows.X.toarray(), dense.X)
    assert torch.equal(rows.y, dense.y)
    assert torch.equal(rows.ptr, dense.ptr)


@pytest.mark.parametrize("classes", [[], [4]])
@pytest.mark.parametrize("block", [1, 24, 1 << 22])
def test_affine_is_the_product_with_the_row_of_the_task(classes, block, monkeypatch):
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr("mtlfast.linear_model._model._BLOCK", block)
    x, codes = RNG.normal(size=(50, 3)), RNG.integers(0, 6, 50)
    coef, intercept = RNG.normal(size=(6, *classes, 3)), RNG.normal(size=(6, *classes))
    expected = np.einsum("nd,n...d->n...", x, coef[codes]) + intercept[codes]
    parts = [torch.from_numpy(part) for part in (codes, coef, intercept)]
    for form in (torch.from_numpy(x), sparse.csr_matrix(x)):
        np.testing.assert_allclose(affine(form, *parts), expected, rtol=0, atol=1e-14)


NODES = GraphReg(TaskGraph.chain(5))
TASKS = [
    (["b", "a", "b"], None, [], ["a", "b"], [1, 0, 1]),
    (["b", "a", "b"], ["b", "c", "a"], [], ["b", "c", "a"], [0, 2, 0]),
    ([1, 3, 1], None, [[NODES]], [0, 1, 2, 3, 4], [1, 3, 1]),
    ([1, 3, 1], [9, 3, 7, 1, 0], [[], [NODES]], [9, 3, 7, 1, 0], [3, 1, 3]),
    ([10, 20, 30, 40, 50], None, [[NODES]], [10, 20, 30, 40, 50], [0, 1, 2, 3, 4]),
    (None, None, [], [0], [0, 0, 0]),
    (None, ["only"], [], ["only"], [0, 0, 0]),
]


@pytest.mark.parametrize(("ids", "tasks", "terms", "labels", "codes"), TASKS)
def test_the_order_of_tasks(ids, tasks, terms, labels, codes):
    got = read_tasks("fit", "task_ids", ids, tasks, terms, len(codes))
    assert [part.tolist() for part in got] == [labels, codes]


BAD_TASKS = [
    ([1, 2], None, [], "task_ids must have one entry for each of the 3 rows of X, got 2"),
    ([1, 2, 3], [1, 2], [], "task_ids must be among the 2 labels of tasks, got 3 at position 2"),
    ([1, 2, 3], [1, 2, 3, 2], [], "tasks must be distinct, got 2 more than once"),
    ([1, 2, 3], [], [], "tasks must hold at least one label, got none"),
    (
        [1, 2, 5],
        None,
        [[NODES]],
        "tasks must name a task for each of the 5 nodes of the graph, got 3",
    ),
    ([1, 2, 2], [1, 2], [[NODES]], "tasks must name a task for each of the 5 nodes of the graph"),
    (None, [1, 2], [], "task_ids must be given for 2 tasks, got None"),
    (None, None, [[NODES]], "task_ids must be given for 5 tasks, got None"),
]


@pytest.mark.parametrize(("ids", "tasks", "terms", "words"), BAD_TASKS)
def test_bad_tasks(ids, tasks, terms, words):
    with pytest.raises(ValueError, match=re.escape("fit: " + words)):
        read_tasks("fit", "task_ids", ids, tasks, terms, 3)


def test_dtypes_by_any_name():
    for dtype in (torch.float32, np.float32, "float32", np.dtype("f4")):
        assert read_dtype("fit", dtype) == torch.float32
    assert read_dtype("fit", None) is None
    for bad in (torch.int64, "float16", "no such", 3):
        with pytest.raises(ValueError, match="fit: dtype must be float32 or float64, got"):
            read_dtype("fit", bad)


def test_folds_are_even_inside_each_task_and_over_all():
    codes = RNG.permutation(np.repeat(np.arange(30), RNG.integers(0, 13, 30)))
    fold = fold_of_rows(codes, 5, random_state=3)
    sizes = np.zeros((30, 5), dtype=int)
    np.add.at(sizes, (codes, fold), 1)
    assert np.ptp(sizes, axis=1).max() <= 1
    assert np.ptp(sizes.sum(0)) <= 1
    np.testing.assert_array_equal(fold, fold_of_rows(codes, 5, random_state=3))
    assert (fold != fold_of_rows(codes, 5, random_state=4)).any()


BAD_FOLDS = [
    (1, ValueError, "cv must be in [2, n_samples=4], got 1"),
    (5, ValueError, "cv must be in [2, n_samples=4], got 5"),
    (True, TypeError, "cv must be an int, a splitter or pairs of row indices, got bool"),
    (2.5, TypeError, "cv must be an int, a splitter or pairs of row indices, got float"),
    ("kfold", TypeError, "cv must be an int, a splitter or pairs of row indices, got str"),
    ([], ValueError, "cv must hold at least one pair of rows, got none"),
    ([([0, 1], [])], ValueError, "cv must leave rows of a weight > 0 to test, got none in fold 0"),
    ([([0, 1], [2])], ValueError, "cv must leave rows of a weight > 0 to test, got none in fold 0"),
    ([([0, 1], [4])], ValueError, "cv must hold row indices in [0, N=4), got 4 to 4"),
    (
        [([0.5, 1], [2])],
        ValueError,
        "cv must hold pairs of row indices, got an array of dtype float",
    ),
    ([[0, 1, 2]], ValueError, "cv must hold pairs of row indices, got"),
]


@pytest.mark.parametrize(("cv", "kind", "words"), BAD_FOLDS, ids=str)
def test_bad_folds(cv, kind, words):
    problem = problem_of([0, 0, 1, 1], weight=[1, 1, 0, 1])
    with pytest.raises((TypeError, ValueError), match=re.escape("fit: " + words)) as caught:
        read_folds("fit", cv, 0, problem)
    assert caught.type is kind
