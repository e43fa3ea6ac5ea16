"""What relations accepts: W in many forms, names of tasks, counts and seeds."""

import numbers

import numpy as np
import torch

from mtlfast._checks import as_rows, is_several


def plain(value):
    """Numbers and strings of NumPy and torch as Python's own, so that they are found as names."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray, torch.Tensor)) else value


def read_rows(W):
    """A copy in float64 on the CPU, checked."""
    if is_several(W) and any(isinstance(w, torch.Tensor) for w in W):
        W = [w.detach() if isinstance(w, torch.Tensor) else w for w in W]
    elif not isinstance(W, torch.Tensor):
        if isinstance(W, (str, bytes, dict)) or not hasattr(type(W), "__len__"):
            raise TypeError(
                "relations: W must be a tensor, an array, a list of them, a fitted estimator or "
                f"a module, got {type(W).__name__}"
            )
        try:
            array = np.asarray(W)
        except ValueError as error:
            raise ValueError(f"relations: W must have rows of equal shape, got {error}") from None
        if array.dtype.kind not in "fiu":
            raise TypeError(f"relations: W must hold real numbers, got dtype {array.dtype}")
        W = torch.from_numpy(np.array(array, dtype=np.float64))
    rows = as_rows("relations", W).detach().to("cpu", torch.float64, copy=True)
    if not len(rows):
        raise ValueError("relations: W must have at least one row, got shape [0, …]")
    bad = ~rows.isfinite().all(1)
    if bad.any():
        at = int(bad.nonzero()[0])
        value = rows[at][~rows[at].isfinite()][0].item()
        raise ValueError(f"relations: W must be finite, got {value} in row {at}")
    return rows.contiguous()


def read_names(names, num_tasks):
    names = list(range(num_tasks) if names is None else plain(names))
    names = [plain(name) for name in names]
    if len(names) != num_tasks:
        raise ValueError(f"relations: names must be K={num_tasks} names, got {len(names)}")
    try:
        distinct = len(set(names))
    except TypeError:
        raise TypeError("relations: names must be hashable, got one that is not") from None
    if distinct != num_tasks:
        raise ValueError(f"relations: names must be distinct, got {distinct} for K={num_tasks}")
    return names


def count(method, argument, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"relations.{method}: {argument} must be an int, got {type(value).__name__}"
        )
    if value < 1:
        raise ValueError(f"relations.{method}: {argument} must be >= 1, got {value}")
    return int(value)


def read_seed(seed):
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"relations.clusters: seed must be an int, got {type(seed).__name__}")
    return int(seed)
