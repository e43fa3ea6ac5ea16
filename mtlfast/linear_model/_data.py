"""What a user gives, checked and brought to one form: rows of features sorted by task."""

import sys
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from mtlfast.linear_model._base import DataConversionWarning, outside
from mtlfast.linear_model._layout import Layout
from mtlfast.linear_model._names import feature_names

try:
    from scipy import sparse
except ImportError:
    sparse = None

_RESHAPE = "Reshape your data: X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one row"


@dataclass(frozen=True)
class Rows:
    """Rows of all tasks, those of task k at ``ptr[k]:ptr[k + 1]``.

    Attributes:
        X: float64 tensor ``[N, d]``, or a scipy.sparse CSR matrix of float64.
        y: float64 tensor ``[N]``.
        weight: float64 tensor ``[N]`` of numbers > 0, or None.
        ptr: int64 tensor ``[K+1]``.
        layout: what follows from ``ptr``; ``dataclasses.replace`` hands it on.
    """

    X: object
    y: torch.Tensor
    weight: torch.Tensor | None
    ptr: torch.Tensor
    layout: Layout | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.layout is None:
            object.__setattr__(self, "layout", Layout(self.ptr))


@dataclass(frozen=True)
class Features:
    """X as a float64 tensor or CSR matrix ``values``, and what is remembered of its form.

    ``names`` and ``num_given`` are those of the columns of X as it was given: with a column of
    tasks, which is not in ``values``, and without the constant that a penalised intercept adds.
    """

    values: object
    is_torch: bool
    dtype: torch.dtype
    device: torch.device
    names: np.ndarray | None
    num_given: int

    def __len__(self):
        return self.values.shape[0]

    def rows(self, order):
        """Some of the rows, by an int64 tensor of places."""
        return replace(self, values=_take(self.values, order))


@dataclass(frozen=True)
class Problem:
    """Checked data of a fit: features, target ``[N]``, weight ``[N]`` or None, and tasks.

    ``tasks`` are the labels ``[K]`` of the rows of W; ``codes``, int64 ``[N]``, the task of a row.
    With ``classes``, labels ``[C]``, the target is the place of a row's label among them.
    """

    features: Features
    target: torch.Tensor
    weight: torch.Tensor | None
    tasks: np.ndarray
    codes: np.ndarray
    classes: np.ndarray | None = None

    def part(self, places):
        """The problem of some of the rows, by an int64 array of places."""
        there = torch.from_numpy(places).to(self.target.device)
        return Problem(
            self.features.rows(there),
            self.target[there],
            None if self.weight is None else self.weight[there],
            self.tasks,
            self.codes[places],
            self.classes,
        )

    def rows(self):
        """:class:`Rows` without those of weight 0, in their order within each task.

        Nothing is copied where the rows are sorted by task already.
        """
        target, weight, codes, keep = self.target, self.weight, self.codes, None
        if weight is not None and not weight.all():
            keep = torch.nonzero(weight)[:, 0]
            codes = codes[keep.cpu().numpy()]
        num_tasks = len(self.tasks)
        ptr = np.zeros(num_tasks + 1, dtype=np.int64)
        np.cumsum(np.bincount(codes, minlength=num_tasks), out=ptr[1:])
        order = keep
        if (codes[1:] < codes[:-1]).any():
            order = torch.from_numpy(_stable_order(codes, num_tasks)).to(target.device)
            order = order if keep is None else keep[order]
        if order is not None:
            target = target[order]
            weight = None if weight is None else weight[order]
        X = _take(self.features.values, order)
        return Rows(X, target, weight, torch.from_numpy(ptr).to(target.device))


def read_features(function, X, device=None, min_rows=1):
    """Checks X ``[N, d]``: numeric, finite, d ≥ 1; float64 on ``device``.

    Raises:
        TypeError: entries that are no real numbers, sparse tensors.
        ValueError: not 2-D, no rows, no features, complex numbers, NaN or Inf; no such device.
        NotImplementedError: a sparse X on another device than the CPU.
    """
    if is_sparse_matrix(X):
        values, is_torch, dtype, home = _read_sparse(function, X), False, torch.float64, "cpu"
        if np.dtype(X.dtype) == np.float32:
            dtype = torch.float32
    elif isinstance(X, torch.Tensor):
        values, dtype = _read_tensor(function, "X", X), X.dtype
        is_torch, home = True, X.device
    else:
        values, given = _read_array(function, "X", X)
        is_torch, home = False, "cpu"
        dtype = torch.float32 if given == np.float32 else torch.float64
    shape = tuple(values.shape)
    if len(shape) != 2:
        raise ValueError(f"{function}: X must be 2-D [N, d], got shape {list(shape)}. {_RESHAPE}")
    if shape[0] < min_rows:
        raise ValueError(
            f"{function}: X must have rows, got 0 sample(s) (shape={shape}) while a minimum of "
            f"{min_rows} is required."
        )
    if shape[1] == 0:
        raise ValueError(
            f"{function}: X must have features, got 0 feature(s) (shape={shape}) while a minimum "
            "of 1 is required."
        )
    _check_finite_rows(function, values)
    device = _read_device(function, home if device is None else device)
    if isinstance(values, torch.Tensor):
        values = _move(function, values, device)
    elif device.type != "cpu":
        raise NotImplementedError(
            f"{function}: device must be the CPU for a sparse X, got {device}"
        )
    dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float64
    return Features(values, is_torch, dtype, device, feature_names(X), shape[1])


def is_sparse_matrix(X):
    """Whether X is a matrix or array of scipy.sparse."""
    return sparse is not None and sparse.issparse(X)


def read_target(function: str, y: Any, features: Features) -> torch.Tensor:
    """Checks y ``[N]``: numeric and finite; float64 on the device of the features."""
    y = one_column(function, y, len(features))
    return _read_vector(function, "y", y, features)


def one_column(function, y, num_rows):
    """y with one dimension and an entry for each row; a column is taken with a warning."""
    if y is None:
        raise ValueError(f"{function}: requires y to be passed, but the target y is None")
    if not isinstance(y, torch.Tensor) and not hasattr(y, "shape"):
        y = _as_array(function, "y", y)
    if len(y.shape) == 2 and y.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape "
            "of y to (n_samples,), for example using ravel().",
            DataConversionWarning,
            stacklevel=outside(),
        )
        y = y.reshape(-1) if hasattr(y, "reshape") else np.asarray(y).reshape(-1)
    if len(y.shape) != 1:
        raise ValueError(f"{function}: y must be 1-D [N], got shape {list(y.shape)}")
    _check_length(function, "y", y, num_rows)
    return y


def read_weights(function: str, sample_weight: Any, features: Features) -> torch.Tensor | None:
    """Checks sample_weight ``[N]``: finite, ≥ 0, not all 0; None stays None."""
    if sample_weight is None:
        return None
    weight = _read_vector(function, "sample_weight", sample_weight, features)
    negative = weight < 0
    if negative.any():
        row = int(negative.nonzero()[0])
        raise ValueError(f"{function}: sample_weight must be >= 0, got {weight[row]} at row {row}")
    if not weight.any():
        raise ValueError(f"{function}: sample_weight must not be all zero, got only zero weights")
    return weight


def _take(X, order):
    """Rows of a tensor or a CSR matrix; all of them, unmoved, for None."""
    if isinstance(X, torch.Tensor):
        return X.contiguous() if order is None else X.index_select(0, order)
    return X if order is None else X[order.cpu().numpy()]


def _stable_order(codes, num_tasks):
    """A stable argsort; NumPy sorts 16-bit integers by counting, in linear time."""
    if num_tasks <= 1 << 16:
        return np.argsort(codes.astype(np.uint16), kind="stable")
    low = np.argsort((codes & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, int(num_tasks).bit_length(), 16):
        digit = ((codes >> shift) & 0xFFFF).astype(np.uint16)[low]
        low = low[np.argsort(digit, kind="stable")]
    return low


def _read_device(function, device):
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"{function}: device must be one of torch's, got {device!r}") from None


def _move(function, values, device):
    """To a device that may not be there; CUDA's absence is an AssertionError of torch."""
    try:
        moved = values.to(device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{function}: device must be there and take float64, got {str(device)!r}: {error}"
        ) from None
    if moved.is_meta:
        raise ValueError(f"{function}: device must hold numbers, got {str(device)!r}")
    return moved


def _read_vector(function, argument, values, features):
    """A finite float64 vector with an entry for each row, on the device of the features."""
    if isinstance(values, torch.Tensor):
        vector = _read_tensor(function, argument, values)
    else:
        vector, _ = _read_array(function, argument, values)
    if vector.dim() != 1:
        raise ValueError(f"{function}: {argument} must be 1-D [N], got shape {list(vector.shape)}")
    _check_length(function, argument, vector, len(features))
    if not torch.isfinite(vector.sum()):
        bad = ~torch.isfinite(vector)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise ValueError(
                f"{function}: {argument} must be finite, without NaN or inf, "
                f"got {vector[row].item()} at row {row}"
            )
    return vector.to(features.device)


def _check_length(function, argument, values, num_rows):
    if values.shape[0] != num_rows:
        raise ValueError(
            f"{function}: {argument} must have one entry for each of the {num_rows} rows of X, "
            f"got {values.shape[0]}"
        )


def _read_tensor(function, argument, tensor):
    if tensor.is_complex():
        raise ValueError(
            f"{function}: Complex data not supported, {argument} must be real, got {tensor.dtype}"
        )
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{function}: {argument} must be a dense tensor or a scipy.sparse matrix, "
            f"got {tensor.layout}"
        )
    if tensor.is_meta:
        raise TypeError(f"{function}: {argument} must hold numbers, got a meta tensor")
    return tensor.detach().to(torch.float64)


def _read_array(function, argument, values):
    """(float64 tensor, the dtype that was given); the memory is shared where it can be."""
    array = _as_array(function, argument, values)
    given = array.dtype
    if given.kind == "c":
        raise ValueError(
            f"{function}: Complex data not supported, {argument} must be real, got {given}"
        )
    if given.kind in "USTmMV":
        raise TypeError(f"{function}: {argument} must hold numbers, got dtype {given}")
    if given.kind == "O":
        array = _without_na(array)
    try:
        array = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{function}: {argument} must hold numbers, got {error}") from None
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch has neither read-only memory nor negative strides
    return torch.from_numpy(array), given


def _without_na(array):
    """``pandas.NA``, the missing value of nullable columns, as NaN; it has no conversion to one."""
    na = getattr(sys.modules.get("pandas"), "NA", None)
    missing = np.frompyfunc(lambda value: value is na, 1, 1)(array).astype(bool)
    return np.where(missing, np.nan, array) if na is not None and missing.any() else array


def _as_array(function, argument, values):
    if values is None:
        raise TypeError(f"{function}: {argument} must be an array, got None")
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"{function}: {argument} must be an array, got {error}") from None


def _read_sparse(function, X):
    if X.dtype.kind == "c":
        raise ValueError(f"{function}: Complex data not supported, X must be real, got {X.dtype}")
    if X.dtype.kind not in "buif":
        raise TypeError(f"{function}: X must hold numbers, got dtype {X.dtype}")
    values = X.tocsr().astype(np.float64, copy=False)
    if not values.has_canonical_format:
        values = values.copy()
        values.sum_duplicates()
    return values


def _check_finite_rows(function, values):
    if isinstance(values, torch.Tensor):
        if torch.isfinite(values.sum()):  # one pass without a table of flags
            return
        rows = ~torch.isfinite(values).all(1)
        first = int(rows.nonzero()[0]) if rows.any() else None
    else:
        bad = np.flatnonzero(~np.isfinite(values.data))
        first = int(np.searchsorted(values.indptr, bad[0], "right") - 1) if len(bad) else None
    if first is not None:
        raise ValueError(
            f"{function}: X must be finite, without NaN or inf, got such a value in row {first}"
        )
