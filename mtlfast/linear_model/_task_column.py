"""The task as a column of X: taken out before X is read, in every form that X may have."""

import numbers

import numpy as np
import torch

from mtlfast.linear_model._data import is_sparse_matrix
from mtlfast.linear_model._labels import is_categorical, label_array, object_array

_LARGEST = float(1 << 63)  # int64 holds what is smaller


def as_table(X):
    """X in a form that has columns: lists become an array, of objects where labels are strings."""
    if hasattr(X, "shape") or X is None:
        return X
    try:
        array = np.asarray(X)
        return np.asarray(X, dtype=object) if array.dtype.kind in "US" else array
    except ValueError:  # lists of unequal lengths: what reads X says so
        return X


def has_columns(X):
    """Whether X has two dimensions, and numbers in them: all else is refused by what reads X."""
    if isinstance(X, torch.Tensor) and (X.is_meta or X.layout != torch.strided):
        return False
    return len(getattr(X, "shape", ())) == 2 and X.shape[1] > 0


def check_task_column(function, task_column):
    if task_column is None or isinstance(task_column, str):
        return
    if isinstance(task_column, (bool, np.bool_)) or not isinstance(task_column, numbers.Integral):
        raise TypeError(
            f"{function}: task_column must be the name of a column or its position, "
            f"got {type(task_column).__name__}"
        )


def take_column(function, X, task_column, fitted_names=None):
    """(X without its column of tasks, that column's labels).

    Args:
        X: has two dimensions, see :func:`has_columns`.
        task_column: a name or a position, negative from the end.
        fitted_names: names of the columns in ``fit``, for an X that has none.

    Raises:
        ValueError: no such column, or several of that name; no other column; labels that are
            floats and not whole, or missing.
    """
    place = _place(function, X, task_column, fitted_names)
    if X.shape[1] == 1:
        raise ValueError(
            f"{function}: X must have features beside task_column={task_column!r}, "
            f"got shape {list(X.shape)}"
        )
    others = [column for column in range(X.shape[1]) if column != place]
    if is_sparse_matrix(X):
        X = X.tocsr()
        return X[:, others], _labels(function, X[:, [place]].toarray()[:, 0])
    if hasattr(X, "columns"):  # a data frame
        columns = X.iloc if hasattr(X, "iloc") else X
        return columns[:, others], _labels(function, columns[:, place])
    X = X if isinstance(X, torch.Tensor) else np.asarray(X)
    if place in (0, X.shape[1] - 1):  # no copy
        others = slice(1, None) if place == 0 else slice(None, -1)
    return X[:, others], _labels(function, X[:, place])


def _place(function, X, task_column, fitted_names):
    """The position of the column, ≥ 0."""
    count = X.shape[1]
    if not isinstance(task_column, str):
        if not -count <= task_column < count:
            raise ValueError(
                f"{function}: task_column must be in [-{count}, {count}) for X with {count} "
                f"columns, got {task_column}"
            )
        return int(task_column) % count
    names = list(getattr(X, "columns", () if fitted_names is None else fitted_names))
    places = [place for place, name in enumerate(names) if isinstance(name, str)]
    places = [place for place in places if names[place] == task_column]
    if len(places) != 1:
        those = f"{len(places)} columns of that name" if names else "X without names of columns"
        raise ValueError(
            f"{function}: task_column must be the name of one column of X, got {task_column!r} "
            f"and {those}"
        )
    return places[0]


def _labels(function, column):
    """Labels of any type; floats must be whole and become integers, as do objects of numbers."""
    if is_categorical(column):
        return column
    if isinstance(column, torch.Tensor):
        column = column.double() if column.is_floating_point() else column
    array = label_array(function, "task_column", column)
    if array.dtype.kind == "f":
        return _whole(function, array)
    if array.dtype.kind != "O":
        return array
    values = array.tolist()
    numeric = [value for value in values if _is_number(value)]
    if len(numeric) < len(values):  # strings, dates, missing values: as they are
        return array
    floats = any(not isinstance(value, numbers.Integral) for value in values)
    whole = _whole(function, np.asarray(values, dtype=np.float64)) if floats else values
    try:
        return np.asarray(whole, dtype=np.int64)
    except OverflowError:
        return object_array(values)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _whole(function, array):
    bad = ~(array == np.floor(array)) | (np.abs(array) >= _LARGEST)  # NaN equals nothing
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"{function}: task_column must hold labels, whole where they are floats, "
            f"got {array[row]} in row {row}"
        )
    return array.astype(np.int64)
