"""What regressor and classifier share: settings, tasks, prediction row by row."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mtlfast._checks import check_number
from mtlfast.linear_model._base import (
    BaseEstimator,
    ConvergenceWarning,
    NotFittedError,
    outside,
)
from mtlfast.linear_model._data import read_features
from mtlfast.linear_model._fit import check_penalties
from mtlfast.linear_model._intercept import PENALIZED, check_intercept, join, split, with_constant
from mtlfast.linear_model._labels import factorize, match
from mtlfast.linear_model._names import check_features, feature_names
from mtlfast.linear_model._probe import probe
from mtlfast.linear_model._task_column import (
    as_table,
    check_task_column,
    has_columns,
    take_column,
)
from mtlfast.linear_model._tasks import check_task_count, read_tasks, refuse_unknown
from mtlfast.nn._parameters import grouped, invalid, nested_params, with_params

if TYPE_CHECKING:
    from typing import Any, SupportsIndex

    from numpy.typing import NDArray
    from typing_extensions import Self

    from mtlfast._typing import (
        Column,
        Device,
        DType,
        FitIntercept,
        Integer,
        Number,
        Penalty,
        Solver,
        Unknown,
    )

SOLVERS = ("auto", "cg", "fista", "admm")
UNKNOWN = ("error", "mean")
PENALTIES = ("penalty", "penalty_grid")  # may be lists of regularizers
_BLOCK = 1 << 22  # coefficients that are gathered at a time


class TaskModel(BaseEstimator):
    """K linear models: subclasses define how they are fitted and what a prediction is."""

    if TYPE_CHECKING:
        coef_: torch.Tensor | NDArray[Any]
        intercept_: torch.Tensor | NDArray[Any]
        tasks_: NDArray[Any]
        objective_: float
        gap_: float
        n_iter_: int
        solver_: str
        n_features_in_: int
        feature_names_in_: NDArray[Any]

    def __init__(
        self,
        penalty: Penalty = None,
        fit_intercept: FitIntercept = True,
        tol: Number = 1e-6,
        max_iter: SupportsIndex = 1000,
        solver: Solver = "auto",
        tasks: Column | None = None,
        device: Device | None = None,
        dtype: DType | None = None,
        verbose: bool = False,
        warm_start: bool = False,
        unknown: Unknown = "error",
        task_column: str | Integer | None = None,
        intercept_scale: Number = 1.0,
    ) -> None:
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.tasks = tasks
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        self.warm_start = warm_start
        self.unknown = unknown
        self.task_column = task_column
        self.intercept_scale = intercept_scale

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; with ``deep`` also those of penalties.

        Parameters of a penalty go by its name and theirs, terms of a sum or a list by position:
        ``penalty__strength``, ``penalty__0__strength``.
        """
        params = super().get_params(deep=False)
        if deep:
            for name, value in list(params.items()):
                if name in PENALTIES or hasattr(value, "get_params"):  # not each label of tasks
                    params |= nested_params(name, value)
        return params

    def set_params(self, **params: Any) -> Self:
        """Sets arguments by name and returns the estimator.

        A penalty in which something is set is copied before: who else holds it sees no change.
        Nothing is set when a value is refused.
        """
        known = super().get_params(deep=False)
        plain = {}
        for name, inside in grouped(params).items():
            if name not in known:
                raise ValueError(invalid(self, name, known))
            value = inside.pop("", known[name])
            plain[name] = with_params(name, value, inside) if inside else value
        return super().set_params(**plain)

    def _function(self, method):
        return f"{type(self).__name__}.{method}"

    def _check_settings(self, function):
        """The constructor's arguments but penalties, tasks and device."""
        check_number(function, "tol", self.tol, positive=True)
        check_intercept(function, self.fit_intercept)
        check_task_column(function, self.task_column)
        check_number(function, "intercept_scale", self.intercept_scale, positive=True)
        if isinstance(self.max_iter, bool) or not hasattr(type(self.max_iter), "__index__"):
            raise TypeError(
                f"{function}: max_iter must be an int, got {type(self.max_iter).__name__}"
            )
        if self.max_iter < 1:
            raise ValueError(f"{function}: max_iter must be >= 1, got {self.max_iter}")
        for name, allowed in (("solver", SOLVERS), ("unknown", UNKNOWN)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(f"{function}: {name} must be one of {allowed}, got {value!r}")
        read_dtype(function, self.dtype)

    def _read_features(self, function, X, task_ids, device=None, *, is_fitted=False):
        """(checked features, labels of the rows' tasks), which may be a column of X."""
        if self.task_column is not None:
            if task_ids is not None:
                raise ValueError(
                    f"{function}: task_ids must be None where task_column names a column of X, "
                    f"got both"
                )
            X = as_table(X)
        if self.task_column is None or not has_columns(X):
            features = read_features(function, X, device)
            names, count = features.names, features.num_given
            if is_fitted:
                check_features(function, self, names, count)
            return features, task_ids
        names, count, known = feature_names(X), X.shape[1], None
        if is_fitted:
            check_features(function, self, names, count)
            known = getattr(self, "feature_names_in_", None)
        X, task_ids = take_column(function, X, self.task_column, known)
        features = read_features(function, X, device)
        return replace(features, names=names, num_given=count), task_ids

    def _read_tasks(self, function, grid, X, task_ids):
        """All of a fit but y and weights, with settings checked.

        Returns:
            The features that solvers see: where intercepts are penalised, a constant is one. A
            list of terms for each penalty of the grid. Labels ``[K]``, and codes ``[N]``.
        """
        self._check_settings(function)
        features, task_ids = self._read_features(function, X, task_ids, self.device)
        if self.fit_intercept == PENALIZED:
            features = with_constant(features, self.intercept_scale)
        terms = read_penalties(function, grid, features.device)
        argument = self._tasks_argument()
        tasks, codes = read_tasks(function, argument, task_ids, self.tasks, terms, len(features))
        probe_penalties(function, terms, tasks, features)
        return features, terms, tasks, codes

    def _has_free_intercepts(self):
        return self.fit_intercept != PENALIZED and bool(self.fit_intercept)

    def _solver_settings(self):
        return {
            "tol": float(self.tol),
            "max_iter": int(self.max_iter),
            "solver": self.solver,
            "verbose": self.verbose,
        }

    def _remember(self, problem):
        """What ``predict`` checks against, of a fit that has succeeded."""
        features = problem.features
        self.tasks_ = problem.tasks
        self.n_features_in_ = features.num_given
        if features.names is not None:
            self.feature_names_in_ = features.names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _keep_coefficients(self, features, coef, intercept):
        """``coef_`` and ``intercept_``, from those of the columns that were fitted."""
        if self.fit_intercept == PENALIZED:
            coef, intercept = split(coef, self.intercept_scale)
        self.coef_, self.intercept_ = self._give(features, coef), self._give(features, intercept)

    def _give(self, features, tensor):
        """Coefficients in the form of X and in the dtype asked for."""
        dtype = read_dtype("", self.dtype) or features.dtype
        tensor = tensor.to(dtype)
        return tensor if features.is_torch else tensor.cpu().numpy()

    def _start(self, problem, *classes):
        """The last coefficients as float64, where ``warm_start`` is set and they fit."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        features = problem.features
        shape = (len(problem.tasks), *classes, features.values.shape[1])
        coef, intercept = (
            as_tensor(part).to(features.device) for part in (self.coef_, self.intercept_)
        )
        if self.fit_intercept == PENALIZED:
            coef, intercept = join(coef, intercept, self.intercept_scale), 0 * intercept
        if tuple(coef.shape) != shape or not np.array_equal(self.tasks_, problem.tasks):
            return None
        return coef, intercept

    def _keep_fits(self, function, fits):
        """What one fit or one for each class tells of its solver, and a warning if need be."""
        self.objective_ = sum(fit.objective for fit in fits)
        self.gap_ = max(fit.gap for fit in fits)
        self.n_iter_ = max(1, *(fit.n_iter for fit in fits))
        self.solver_ = fits[0].solver
        if not all(fit.converged for fit in fits):
            warnings.warn(
                f"{function}: stopped before tol={self.tol:g} was reached, with a gap of "
                f"{self.gap_:.3g}; raise max_iter={self.max_iter} or tol",
                ConvergenceWarning,
                stacklevel=outside(),
            )

    def _affine(self, method, X, task_ids):
        """(features, scores): x·w_k + b_k for each row, ``[N]`` or ``[N, C]``."""
        function = self._function(method)
        if not hasattr(self, "coef_"):
            raise NotFittedError(f"{function}: this model is not fitted yet, call fit first")
        features, task_ids = self._read_features(function, X, task_ids, is_fitted=True)
        codes = self._task_codes(function, task_ids, len(features))
        codes = torch.from_numpy(codes).to(features.device)
        coef, intercept = (
            as_tensor(part).to(features.device) for part in (self.coef_, self.intercept_)
        )
        if self.unknown == "mean" and bool((codes < 0).any()):
            codes = torch.where(codes < 0, len(coef), codes)
            coef = torch.cat([coef, coef.mean(0, keepdim=True)])
            intercept = torch.cat([intercept, intercept.mean(0, keepdim=True)])
        return features, affine(features.values, codes, coef, intercept)

    def _task_codes(self, function, task_ids, num_rows):
        """The row of coef_ for each row of X; −1 for an unknown task where that is allowed."""
        if task_ids is None:
            if len(self.tasks_) != 1:
                raise ValueError(
                    f"{function}: task_ids must be given for a model of {len(self.tasks_)} tasks, "
                    "got None"
                )
            return np.zeros(num_rows, dtype=np.int64)
        argument = self._tasks_argument()
        labels, codes = factorize(function, argument, task_ids, sort=False)
        check_task_count(function, codes, num_rows)
        codes = match(labels, self.tasks_)[codes]
        if self.unknown == "error":
            known = f"the {len(self.tasks_)} tasks of the fit"
            refuse_unknown(function, argument, task_ids, codes, known)
        return codes

    def _tasks_argument(self):
        """The name of the argument that says the task of a row."""
        return "task_ids" if self.task_column is None else "task_column"

    def _give_rows(self, features, tensor):
        """Predictions in the form of the X that was given, in the dtype of the coefficients."""
        tensor = tensor.to(as_tensor(self.coef_, keep=True).dtype)
        return tensor if features.is_torch else tensor.cpu().numpy()


def read_penalties(function, grid, device):
    """A list of terms for each penalty of a grid, on the device where they are needed."""
    terms = [check_penalties(function, penalty) for penalty in grid]
    if device.type != "cpu":
        terms = [[copy.deepcopy(term).to(device) for term in some] for some in terms]
    return terms


def probe_penalties(function, grid, tasks, features):
    """Whether the terms of a grid of penalties are what they declare, for K tasks and d columns."""
    for terms in grid:
        probe(function, terms, len(tasks), features.values.shape[1], features.device)


def read_dtype(function, dtype):
    """A torch dtype from torch's, NumPy's or a name; None stays None."""
    if dtype is None:
        return None
    if not isinstance(dtype, torch.dtype):
        try:
            dtype = getattr(torch, np.dtype(dtype).name, None)
        except TypeError:
            dtype = None
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{function}: dtype must be float32 or float64, got {dtype!r}")
    return dtype


def as_tensor(values, keep=False):
    """Coefficients as a tensor: of float64, or as they are."""
    is_tensor = isinstance(values, torch.Tensor)
    tensor = values if is_tensor else torch.as_tensor(np.array(values), device="cpu")
    return tensor if keep else tensor.to(torch.float64)


def affine(X, codes, coef, intercept):
    """Σ_j X_rj coef[codes_r, ..., j] + intercept[codes_r], a block of rows at a time.

    Args:
        X: float64 tensor or CSR matrix ``[N, d]``.
        codes: int64 tensor ``[N]``.
        coef, intercept: ``[K, d]`` and ``[K]``, or ``[K, C, d]`` and ``[K, C]``.
    """
    scores = torch.empty(len(codes), *intercept.shape[1:], dtype=torch.float64, device=codes.device)
    length = max(_BLOCK // max(coef[0].numel(), 1), 1)
    for first in range(0, len(codes), length):
        here = slice(first, first + length)
        weights = coef.index_select(0, codes[here])
        if isinstance(X, torch.Tensor):
            products = weights.view(len(weights), -1, X.shape[1]) @ X[here].unsqueeze(2)
            scores[here] = products.view(scores[here].shape)
        else:
            scores[here] = _sparse_products(X, here, weights)
    return scores.add_(intercept.index_select(0, codes))


def _sparse_products(X, here, weights):
    """The products of the rows of a CSR matrix with a row of weights each."""
    rows = X[here]
    entries = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    row, column = torch.from_numpy(entries), torch.from_numpy(rows.indices.astype(np.int64))
    data = torch.from_numpy(rows.data)
    picked = weights.movedim(-1, 1)[row, column]  # [nnz] or [nnz, C]
    data = data if picked.dim() == 1 else data.unsqueeze(1)
    result = torch.zeros((rows.shape[0], *picked.shape[1:]), dtype=torch.float64, device="cpu")
    return result.index_add_(0, row, picked * data)
