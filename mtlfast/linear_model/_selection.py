"""Choosing a penalty: fits along a grid, and cross-validation inside the tasks."""

import numpy as np
import torch

from mtlfast._checks import check_number
from mtlfast.linear_model._base import copy_unfitted
from mtlfast.linear_model._estimators import SquaresModel
from mtlfast.linear_model._folds import read_folds
from mtlfast.linear_model._model import TaskModel, affine
from mtlfast.nn import Regularizer


def strengths(penalty, factors):
    """A grid of penalties: one copy of ``penalty`` for each factor, its strengths multiplied by it.

    Args:
        penalty: a regularizer, a sum or a list of them.
        factors: numbers ≥ 0, from the largest to the smallest for :func:`path`.

    Returns:
        A list of penalties. Graphs are shared, not copied.

    Raises:
        TypeError: a penalty that is no regularizer, a factor that is no number.
        ValueError: a factor that is negative, NaN or infinite.

    Example:
        >>> from mtlfast.linear_model import strengths
        >>> from mtlfast.nn import PairwiseReg, TraceNorm
        >>> [term.strength for term in strengths(TraceNorm(2.0), [10, 1])]
        [20.0, 2.0]
        >>> [[t.strength for t in both] for both in strengths([PairwiseReg(), TraceNorm(3)], [2])]
        [[2.0, 6.0]]
    """
    if not hasattr(factors, "__iter__"):
        raise TypeError(
            f"strengths: factors must be a list of numbers, got {type(factors).__name__}"
        )
    factors = [check_number("strengths", "factors", factor) for factor in factors]
    if isinstance(penalty, (list, tuple)):
        columns = [strengths(term, factors) for term in penalty]
        return [[column[place] for column in columns] for place in range(len(factors))]
    if not isinstance(penalty, Regularizer):
        raise TypeError(f"strengths: penalty must be a regularizer, got {type(penalty).__name__}")
    return [_scaled(penalty, factor) for factor in factors]


def _scaled(penalty, factor):
    penalty = penalty.__sklearn_clone__()
    for term in penalty.modules():
        if isinstance(term, Regularizer) and term.summands == (term,):  # a sum has no strength
            term._scale_(factor)
    return penalty


def path(estimator, penalty_grid, X, y, task_ids=None, sample_weight=None):
    """Fits one copy of an estimator for each penalty of a grid, each from the one before.

    Data are checked, and a regressor's statistics computed, once for the whole grid.

    Args:
        estimator: a :class:`MultiTaskRegressor` or :class:`MultiTaskClassifier`; its own penalty
            is not used, and it stays as it is. With ``warm_start`` the first fit starts from its
            ``coef_``.
        penalty_grid: penalties, each as the estimator's ``penalty``; from strong to weak is the
            cheapest order, for a strong penalty is quickly solved from nothing.
        X, y, task_ids, sample_weight: as in ``fit``.

    Returns:
        A list of fitted estimators, with ``penalty``, ``coef_``, ``intercept_``, ``objective_``,
        ``gap_`` and ``n_iter_`` each.

    Raises:
        TypeError: an estimator of another kind.
        ValueError: an empty grid; what ``fit`` raises.

    Cost: O(N d²) once, and each penalty's solver; K d numbers are kept for each penalty.

    Example:
        >>> import torch
        >>> from mtlfast.linear_model import MultiTaskRegressor, path, strengths
        >>> from mtlfast.nn import PairwiseReg
        >>> X, y = torch.tensor([[0.0], [1.0], [0.0], [1.0]]), torch.tensor([0.0, 1.0, 0.0, 3.0])
        >>> grid = strengths(PairwiseReg(), [1e6, 1e-6])
        >>> fits = path(MultiTaskRegressor(), grid, X, y, [0, 0, 1, 1])
        >>> [fit.coef_.flatten().round(decimals=2).tolist() for fit in fits]
        [[2.0, 2.0], [1.0, 3.0]]
    """
    if not isinstance(estimator, TaskModel) or not hasattr(estimator, "penalty"):
        raise TypeError(
            "path: estimator must be a MultiTaskRegressor or a MultiTaskClassifier, "
            f"got {type(estimator).__name__}"
        )
    grid = _read_grid("path", penalty_grid)
    copies = [copy_unfitted(estimator).set_params(penalty=penalty) for penalty in grid]
    return estimator._fit_path(grid, X, y, task_ids, sample_weight, copies)


class MultiTaskRegressorCV(SquaresModel):
    """A :class:`MultiTaskRegressor` whose penalty is chosen by cross-validation inside the tasks.

    Each task's rows are spread evenly over the folds, so that a task is missing from a fold only
    where it has fewer rows than folds. In each fold the grid is fitted in its order, with
    statistics computed once and warm starts; the penalty with the smallest mean of the folds'
    errors is fitted to all rows.

    Args:
        penalty_grid: penalties, each as ``penalty`` of :class:`MultiTaskRegressor`; see
            :func:`strengths`. Order it from strong to weak.
        cv: the number of folds, 2 to N; or pairs (rows to fit, rows to test) of indices; or a
            splitter with ``split(X, y, groups)``, which gets the tasks' numbers as groups.
        one_standard_error: whether the first penalty of the grid is taken whose error is at most
            one standard error above the smallest, instead of the smallest itself. The standard
            error is that of the mean over the folds of the best penalty.
        random_state: seed of the shuffle inside the tasks; None draws one.
        fit_intercept, tol, max_iter, solver, tasks, device, dtype, verbose, unknown, task_column,
            intercept_scale: as in :class:`MultiTaskRegressor`.

    Attributes:
        best_index_, penalty_: the chosen place in the grid, and the penalty there.
        cv_mse_: ``[len(penalty_grid), folds]``, mean squared errors of the rows left out, weighted
            by ``sample_weight``.
        Further, all of :class:`MultiTaskRegressor`.

    Raises (in ``fit``):
        TypeError, ValueError: ``cv`` or the grid is not as above; what ``MultiTaskRegressor``
            raises.

    Cost: that of folds + 1 paths. Deterministic for a given ``random_state``.

    Example:
        >>> import numpy as np
        >>> from mtlfast.linear_model import MultiTaskRegressorCV, strengths
        >>> from mtlfast.nn import PairwiseReg
        >>> rng = np.random.default_rng(0)
        >>> X, task = rng.normal(size=(200, 5)), np.arange(200) % 20
        >>> y = X.sum(1) + rng.normal(size=200)            # all tasks are alike
        >>> grid = strengths(PairwiseReg(), [100, 1, 0.01, 0])
        >>> model = MultiTaskRegressorCV(grid, random_state=0).fit(X, y, task)
        >>> model.penalty_.strength >= 1 and model.cv_mse_.shape
        (4, 5)
    """

    def __init__(
        self, penalty_grid, cv=5, one_standard_error=False, random_state=None, fit_intercept=True,
        tol=1e-6, max_iter=1000, solver="auto", tasks=None, device=None, dtype=None,
        verbose=False, unknown="error", task_column=None, intercept_scale=1.0,
    ):  # fmt: skip
        self.penalty_grid = penalty_grid
        self.cv = cv
        self.one_standard_error = one_standard_error
        self.random_state = random_state
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.tasks = tasks
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        self.unknown = unknown
        self.task_column = task_column
        self.intercept_scale = intercept_scale

    def fit(self, X, y, task_ids=None, sample_weight=None):
        """Chooses the penalty and fits it to all rows; arguments as in ``MultiTaskRegressor``."""
        function = self._function("fit")
        grid = _read_grid(function, self.penalty_grid)
        problem, terms = self._read(function, grid, X, y, task_ids, sample_weight)
        folds = read_folds(function, self.cv, self.random_state, problem)
        cv_mse = np.array([self._errors(function, problem, terms, *fold) for fold in folds]).T
        best = _choose(cv_mse, self.one_standard_error)
        *_, fit = self._fits(function, problem.rows(), terms[: best + 1])
        self.cv_mse_, self.best_index_, self.penalty_ = cv_mse, best, grid[best]
        return self._keep(function, problem, fit)

    def _errors(self, function, problem, terms, inside, outside):
        """The mean squared errors, along the grid, of the rows outside a fold."""
        held = problem.part(outside)
        codes = torch.from_numpy(held.codes).to(held.target.device)
        weight = torch.ones_like(held.target) if held.weight is None else held.weight
        errors = []
        for fit in self._fits(function, problem.part(inside).rows(), terms):
            predicted = affine(held.features.values, codes, fit.coef, fit.intercept)
            squared = weight * (held.target - predicted).square()
            errors.append(float(squared.sum() / weight.sum()))
        return errors


def _read_grid(function, grid):
    if isinstance(grid, Regularizer) or not hasattr(grid, "__iter__"):
        raise TypeError(
            f"{function}: penalty_grid must be a list of penalties, got {type(grid).__name__}"
        )
    grid = list(grid)
    if not grid:
        raise ValueError(f"{function}: penalty_grid must hold at least one penalty, got none")
    return grid


def _choose(cv_mse, one_standard_error):
    """The place of the smallest mean error, or of the first that is not clearly larger."""
    mean = cv_mse.mean(1)
    best = int(mean.argmin())
    if not one_standard_error or cv_mse.shape[1] < 2:
        return best
    error = cv_mse[best].std(ddof=1) / np.sqrt(cv_mse.shape[1])
    return int(np.flatnonzero(mean <= mean[best] + error)[0])
