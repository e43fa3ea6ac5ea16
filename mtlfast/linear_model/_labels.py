"""Labels of tasks and classes: any hashable values, as an array of distinct ones and codes."""

import numpy as np
import torch

from mtlfast._checks import is_missing


def factorize(function, argument, values, *, sort=True):
    """The distinct labels of ``values`` and the place of each value among them.

    Args:
        values: 1-D: integers, strings, dates, tuples, any hashable objects; a list, an array, a
            tensor, a pandas series or categorical.
        sort: whether the labels must come in their order; else any order does.

    Returns:
        labels, a NumPy array ``[K]``; codes, int64 ``[N]`` with ``labels[codes] = values``.

    Raises:
        TypeError: labels that cannot be hashed or, where ``sort`` is set, compared.
        ValueError: not 1-D; a missing label (None, NaN, NaT).
    """
    categories = _categories(values)
    if categories is not None:
        labels, codes = _used(*categories)
        _refuse_missing(function, argument, codes < 0)
        if labels.dtype.kind in "OUST":
            labels = object_array(labels.tolist())
        order = _order(function, argument, labels, sort)
        return labels[order], _inverse(order)[codes]
    array = label_array(function, argument, values)
    kind = array.dtype.kind
    if kind in "iub":
        labels, codes = _distinct_integers(array)
        return labels.astype(array.dtype, copy=False), codes
    if kind in "fMm":
        _refuse_missing(function, argument, np.isnat(array) if kind in "Mm" else np.isnan(array))
        labels, codes = np.unique(array, return_inverse=True)
        return labels, codes.astype(np.int64, copy=False)
    labels, codes = _distinct_objects(function, argument, array, sort)
    return labels.astype(array.dtype) if kind in "US" else labels, codes


def label_array(function, argument, values):
    """``values`` as a NumPy array of one dimension; tuples stay labels."""
    if isinstance(values, torch.Tensor):
        array = values.detach().cpu().numpy()
    elif isinstance(values, (list, tuple)) and any(isinstance(v, tuple) for v in values):
        array = object_array(values)
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:  # lists of unequal lengths
            raise ValueError(f"{function}: {argument} must be 1-D, got {error}") from None
        if array.dtype.kind in "US" and isinstance(values, (list, tuple)):
            array = object_array(values)  # NumPy makes the 1 of [1, "a"] a string
    if array.ndim != 1:
        raise ValueError(f"{function}: {argument} must be 1-D, got shape {list(array.shape)}")
    if array.dtype.kind in "cV":
        raise TypeError(f"{function}: {argument} must hold labels, got dtype {array.dtype}")
    return array


def match(labels, known):
    """The place in ``known`` of each of ``labels``, −1 where it is not there; both distinct."""
    if _compare_exactly(labels.dtype, known.dtype):
        if not (len(labels) and len(known)):
            return np.full(len(labels), -1)
        order = np.argsort(known, kind="stable")
        places = np.searchsorted(known, labels, sorter=order).clip(max=len(known) - 1)
        places = order[places]
        return np.where(known[places] == labels, places, -1)
    index = {label: place for place, label in enumerate(known.tolist())}
    return np.fromiter((index.get(v, -1) for v in labels.tolist()), np.int64, len(labels))


def _compare_exactly(first, second):
    """Numbers, but not int64 with uint64: NumPy compares those as floats while it searches."""
    if not (first.kind in "iufb" and second.kind in "iufb"):
        return False
    return "f" in (first.kind, second.kind) or np.result_type(first, second).kind != "f"


def object_array(values):
    """An array of objects of one dimension, whatever the objects are."""
    return np.fromiter(values, dtype=object, count=len(values))


def is_categorical(values):
    """Whether values are a pandas categorical."""
    return _categories(values) is not None


def _categories(values):
    """(categories, codes) of a pandas categorical, None for all else."""
    values = getattr(values, "cat", values)
    if not (hasattr(values, "categories") and hasattr(values, "codes")):
        return None
    return np.asarray(values.categories), np.asarray(values.codes).astype(np.int64)


def _used(labels, codes):
    """Without the labels that no code names; a code of −1 stays."""
    used = np.zeros(len(labels) + 1, dtype=bool)
    used[codes] = True
    used[-1] = False
    place = np.append(np.cumsum(used[:-1]) - 1, -1)
    return labels[used[:-1]], place[codes]


def _distinct_integers(array):
    """A table over the range where that is about as long as the array, else a sort."""
    if not len(array):
        return array, np.empty(0, dtype=np.int64)
    low, high = int(array.min()), int(array.max())
    if high - low >= 4 * len(array) + 65536 or high > np.iinfo(np.int64).max:
        labels, codes = np.unique(array, return_inverse=True)
        return labels, codes.astype(np.int64, copy=False)
    offset = array.astype(np.int64) - low
    used = np.zeros(high - low + 1, dtype=bool)
    used[offset] = True
    return np.flatnonzero(used) + low, (np.cumsum(used) - 1)[offset]


def _distinct_objects(function, argument, array, sort):
    """A dictionary: strings and objects are hashed, not sorted, row by row."""
    index = {}
    values = array.tolist()
    try:
        codes = np.fromiter((index.setdefault(v, len(index)) for v in values), np.int64)
    except TypeError as error:
        raise TypeError(f"{function}: {argument} must hold hashable labels, got {error}") from None
    missing = np.fromiter((label is None or is_missing(label) for label in index), bool)
    if missing.any():
        _refuse_missing(function, argument, missing[codes])
    labels = object_array(list(index))
    order = _order(function, argument, labels, sort)
    return labels[order], _inverse(order)[codes]


def _order(function, argument, labels, sort):
    """The order in which the labels are sorted; the given one where none is asked for."""
    if not sort:
        return np.arange(len(labels))
    try:
        return np.asarray(sorted(range(len(labels)), key=labels.tolist().__getitem__), np.int64)
    except TypeError as error:
        raise TypeError(
            f"{function}: {argument} must hold labels that can be sorted, got {error}"
        ) from None


def _inverse(order):
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def _refuse_missing(function, argument, missing):
    if missing.any():
        raise ValueError(
            f"{function}: {argument} must not have missing labels, "
            f"got one at position {int(missing.argmax())}"
        )
