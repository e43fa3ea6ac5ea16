"""Folds of cross-validation that are cut inside the tasks, and folds that a user gives."""

import numbers

import numpy as np
import torch


def read_folds(function, cv, random_state, problem):
    """A list of (rows to fit, rows to test), int64 arrays."""
    y, weight, codes = problem.target, problem.weight, problem.codes
    if isinstance(cv, numbers.Integral) and not isinstance(cv, bool):
        if not 2 <= cv <= len(y):
            raise ValueError(f"{function}: cv must be in [2, n_samples={len(y)}], got {cv}")
        place = fold_of_rows(codes, int(cv), random_state, function)
        folds = [(np.flatnonzero(place != k), np.flatnonzero(place == k)) for k in range(cv)]
    else:
        if hasattr(cv, "split") and not isinstance(cv, str):
            cv = cv.split(np.zeros((len(y), 1)), y.cpu().numpy(), codes)
        elif isinstance(cv, (str, bool)) or not hasattr(cv, "__iter__"):
            raise TypeError(
                f"{function}: cv must be an int, a splitter or pairs of row indices, "
                f"got {type(cv).__name__}"
            )
        folds = [_read_fold(function, fold, len(y)) for fold in cv]
        if not folds:
            raise ValueError(f"{function}: cv must hold at least one pair of rows, got none")
    for number, fold in enumerate(folds):
        for part, rows in zip(("fit", "test"), fold, strict=True):
            if not len(rows) or (weight is not None and not weight[torch.from_numpy(rows)].any()):
                raise ValueError(
                    f"{function}: cv must leave rows of a weight > 0 to {part}, "
                    f"got none in fold {number}"
                )
    return folds


def _read_fold(function, fold, num_rows):
    try:
        inside, outside = (np.asarray(rows) for rows in fold)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{function}: cv must hold pairs of row indices, got {error}") from None
    parts = []
    for rows in (inside, outside):
        rows = np.flatnonzero(rows) if rows.dtype == bool and len(rows) == num_rows else rows
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise ValueError(
                f"{function}: cv must hold pairs of row indices, got an array of dtype "
                f"{rows.dtype}, shape {list(rows.shape)}"
            )
        if len(rows) and not 0 <= rows.min() <= rows.max() < num_rows:
            raise ValueError(
                f"{function}: cv must hold row indices in [0, N={num_rows}), "
                f"got {rows.min()} to {rows.max()}"
            )
        parts.append(rows.astype(np.int64))
    return tuple(parts)


def fold_of_rows(codes, num_folds, random_state, function="fold_of_rows"):
    """The fold of each row, int64 ``[N]``: a task's rows are dealt out in random order.

    Each task goes on where the one before it stopped, so that folds are equally large as well.
    """
    try:
        rng = np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{function}: random_state must be a seed of NumPy, got {error}"
        ) from None
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    folds = np.empty(len(codes), dtype=np.int64)
    folds[order] = np.arange(len(codes)) % num_folds
    return folds
