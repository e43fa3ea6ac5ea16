"""Folds of cross-validation that are cut inside the tasks, and folds that a user gives."""

import numbers

import numpy as np
import torch


def read_folds(function, cv, random_state, problem):
    """A list of (rows to fit, rows to test), int64 arrays."""
    y, weight, codes = problem.target, problem.weight, problem.codes
    labels = y.cpu().numpy()
    if problem.classes is not None:
        labels = labels.astype(np.int64)
    if isinstance(cv, numbers.Integral) and not isinstance(cv, bool):
        if not 2 <= cv <= len(y):
            raise ValueError(f"{function}: cv must be in [2, n_samples={len(y)}], got {cv}")
        if problem.classes is None:
            place = fold_of_rows(codes, int(cv), random_state, function)
        else:
            if weight is not None:
                labels = np.where(weight.cpu().numpy() > 0, labels, -1)
            place = stratified_folds(codes, labels, int(cv), random_state, function)
        folds = [(np.flatnonzero(place != k), np.flatnonzero(place == k)) for k in range(cv)]
    else:
        if hasattr(cv, "split") and not isinstance(cv, str):
            cv = cv.split(np.zeros((len(y), 1)), labels, codes)
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
    order = _shuffled(function, len(codes), random_state)
    order = order[np.argsort(codes[order], kind="stable")]
    folds = np.empty(len(codes), dtype=np.int64)
    folds[order] = np.arange(len(codes)) % num_folds
    return folds


def stratified_folds(codes, labels, num_folds, random_state, function="stratified_folds"):
    """The fold of each row, int64 ``[N]``: the rows of a class in a task are dealt in random order.

    Rows go to folds that have the fewest of their task; of these to those with the fewest of their
    class, and of these to the smallest. So in each task folds differ by a row at most. No class of
    two or more rows lies in one fold: where that needs it, they differ by two.

    Args:
        codes: int64 ``[N]``, the task of a row.
        labels: int64 ``[N]``, its class, −1 for a row that does not count.
    """
    size = np.bincount(labels[labels >= 0])
    # rare classes first, while there is a choice; single rows are left out whatever is done
    rank = np.empty(len(size) + 1, dtype=np.int64)
    rank[np.lexsort((size, size < 2))] = np.arange(len(size))
    rank[-1] = len(size)
    places = rank[labels]
    order = _shuffled(function, len(codes), random_state)
    order = order[np.lexsort((places[order], codes[order]))]
    task, place = codes[order], places[order]
    begins = np.flatnonzero(np.r_[True, (np.diff(task) != 0) | (np.diff(place) != 0)])
    folds = np.empty(len(codes), dtype=np.int64)
    in_all, in_class, last = [0] * num_folds, {}, None
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(order)], strict=True):
        if task[begin] != last:
            last, in_task = task[begin], [0] * num_folds
        of_class = in_class.setdefault(place[begin], [0] * num_folds)
        rest = (end - begin) % num_folds  # of the others each fold gets as many
        counts = zip(in_task, of_class, in_all, range(num_folds), strict=True)
        chosen = [fold for *_, fold in sorted(counts)[:rest]]
        for count in (in_task, of_class, in_all):
            for fold in chosen:
                count[fold] += 1
        folds[order[begin : begin + rest]] = chosen
        folds[order[begin + rest : end]] = np.arange(end - begin - rest) % num_folds
    _spread_classes(folds, codes, labels, num_folds)
    return folds


def _spread_classes(folds, codes, labels, num_folds):
    """Moves a row of each class of two or more rows that lies in one fold, in place.

    It takes turns with a row of the same task, if no class is lost by that; else it moves alone.
    """
    counts = np.bincount(labels[labels >= 0])
    table = np.zeros((len(counts), num_folds), dtype=np.int64)
    np.add.at(table, (labels[labels >= 0], folds[labels >= 0]), 1)
    for label in np.flatnonzero((counts >= 2) & (table.max(1) == counts)):
        fold = int(table[label].argmax())
        if table[label, fold] < counts[label]:  # its turn with another class has come before
            continue
        own = np.flatnonzero(labels == label)
        others = np.flatnonzero(np.isin(codes, codes[own]) & (folds != fold))
        kept = (labels[others] < 0) | (counts[labels[others]] < 2)
        kept |= table[labels[others], fold] + 1 < counts[labels[others]]
        if kept.any():
            other = others[kept.argmax()]
            row = own[(codes[own] == codes[other]).argmax()]
            target = folds[other]
            folds[other] = fold
            if labels[other] >= 0:
                table[labels[other], target] -= 1
                table[labels[other], fold] += 1
        else:
            row = own[np.bincount(codes)[codes[own]].argmin()]
            sizes = np.bincount(folds, minlength=num_folds)
            sizes[fold] = len(folds)
            target = int(sizes.argmin())
        folds[row] = target
        table[label, fold] -= 1
        table[label, target] += 1


def _shuffled(function, num_rows, random_state):
    try:
        rng = np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{function}: random_state must be a seed of NumPy, got {error}"
        ) from None
    return rng.permutation(num_rows)
