"""Choosing a penalty by cross-validation inside the tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from mtlfast.linear_model._classifier import ClassifierModel, joined, log_probabilities
from mtlfast.linear_model._estimators import SquaresModel
from mtlfast.linear_model._folds import read_folds
from mtlfast.linear_model._model import affine
from mtlfast.linear_model._selection import read_grid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, SupportsIndex

    from numpy.typing import NDArray
    from typing_extensions import Self

    from mtlfast._typing import (
        Column,
        Device,
        DType,
        Features,
        FitIntercept,
        Folds,
        Integer,
        Number,
        Penalty,
        RandomState,
        Solver,
        Unknown,
    )

_IMPOSSIBLE = math.log(2.0**-52)  # for a probability of 0, as sklearn.metrics.log_loss has it


class ChosenModel:
    """A search along a grid of penalties; beside a model that subclasses name.

    They define ``_loss_of_rows(held, fit)``, a number for each row, and ``_table``, the name of the
    attribute for the means.
    """

    if TYPE_CHECKING:
        best_index_: int
        _table: str
        _function: Any  # of the model beside
        _read: Any
        _fits: Any
        _keep: Any
        penalty_: Penalty

    def __init__(
        self,
        penalty_grid: Iterable[Penalty],
        cv: Folds = 5,
        one_standard_error: bool = False,
        random_state: RandomState = None,
        fit_intercept: FitIntercept = True,
        tol: Number = 1e-6,
        max_iter: SupportsIndex = 1000,
        solver: Solver = "auto",
        tasks: Column | None = None,
        device: Device | None = None,
        dtype: DType | None = None,
        verbose: bool = False,
        unknown: Unknown = "error",
        task_column: str | Integer | None = None,
        intercept_scale: Number = 1.0,
    ) -> None:
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

    def fit(
        self,
        X: Features,
        y: Column,
        task_ids: Column | None = None,
        sample_weight: Column | None = None,
    ) -> Self:
        """Chooses the penalty and fits it to all rows.

        Arguments are those of the same estimator without cross-validation.
        """
        function = self._function("fit")
        grid = read_grid(function, self.penalty_grid)
        problem, terms = self._read(function, grid, X, y, task_ids, sample_weight)
        folds = read_folds(function, self.cv, self.random_state, problem)
        losses = np.array([self._losses(function, problem, terms, *fold) for fold in folds]).T
        best = choose(losses, self.one_standard_error)
        *_, fit = self._fits(function, problem, terms[: best + 1])
        setattr(self, self._table, losses)
        self.best_index_, self.penalty_ = best, grid[best]
        return self._keep(function, problem, fit)

    def _losses(self, function, problem, terms, inside, outside):
        """The mean losses, along the grid, of the rows outside a fold."""
        held = problem.part(outside)
        weight = torch.ones_like(held.target) if held.weight is None else held.weight
        means = []
        for fit in self._fits(function, problem.part(inside), terms):
            loss = self._loss_of_rows(held, fit)
            means.append(float((weight * loss).sum() / weight.sum()))
        return means


def choose(losses, one_standard_error):
    """The place of the smallest mean loss, or of the first that is not clearly larger."""
    mean = losses.mean(1)
    best = int(mean.argmin())
    if not one_standard_error or losses.shape[1] < 2:
        return best
    error = losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return int(np.flatnonzero(mean <= mean[best] + error)[0])


def scores_of(held, coef, intercept):
    """x·w_k + b_k of the rows of a problem, in all its tasks."""
    codes = torch.from_numpy(held.codes).to(held.target.device)
    return affine(held.features.values, codes, coef, intercept)


class MultiTaskRegressorCV(ChosenModel, SquaresModel):
    """A :class:`MultiTaskRegressor` whose penalty is chosen by cross-validation inside the tasks.

    Each task's rows are spread evenly over the folds, so that a task is missing from a fold only
    where it has fewer rows than folds. In each fold the grid is fitted in its order, with
    statistics computed once and warm starts; the penalty with the smallest mean of the folds'
    errors is fitted to all rows. Attributes are those of :class:`MultiTaskRegressor` and more.

    Args:
        penalty_grid: penalties, each as ``penalty`` of :class:`MultiTaskRegressor`; see
            :func:`strengths`. Order it from strong to weak.
        cv: the number of folds, 2 to N; or pairs (rows to fit, rows to test) of indices; or a
            splitter with ``split(X, y, groups)``, which gets the tasks' numbers as groups.
        one_standard_error: whether the first penalty of the grid is taken whose error is at most
            one standard error above the smallest, instead of the smallest itself. The standard
            error is that of the mean over the folds of the best penalty.
        random_state: seed of the shuffle inside the tasks; None draws one.
        fit_intercept, tol, max_iter, solver, tasks: as in :class:`MultiTaskRegressor`.
        device, dtype, verbose: as in :class:`MultiTaskRegressor`.
        unknown, task_column, intercept_scale: as in :class:`MultiTaskRegressor`.

    Attributes:
        best_index_, penalty_: the chosen place in the grid, and the penalty there.
        cv_mse_: ``[len(penalty_grid), folds]``, mean squared errors of the rows left out, weighted
            by ``sample_weight``.

    Raises:
        TypeError, ValueError: in ``fit``; ``cv`` or the grid is not as above; what
            ``MultiTaskRegressor`` raises.

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

    if TYPE_CHECKING:
        cv_mse_: NDArray[Any]

    _table = "cv_mse_"

    def _loss_of_rows(self, held, fit):
        return (held.target - scores_of(held, fit.coef, fit.intercept)).square()


class MultiTaskClassifierCV(ChosenModel, ClassifierModel):
    r"""A :class:`MultiTaskClassifier` whose penalty is chosen by cross-validation inside the tasks.

    The penalty is the one with the smallest mean, over the folds, of the log loss

    .. math:: -\frac{\sum_r s_r \log p(y_r \mid x_r, k_r)}{\sum_r s_r}

    of the rows r that a fold leaves out, with p of ``predict_proba`` from its logarithm, finite
    where p underflows. It is then fitted to all rows. In each fold the grid is fitted in its order,
    each penalty from the solution of the one before.

    Each task's rows are spread evenly over ``cv`` folds and, as far as that leaves a choice, so are
    those of each class in a task and of each class in all. A class of two or more rows is never
    left out as a whole. Attributes are those of :class:`MultiTaskClassifier` and more.

    Classes are those of all rows. Of one that the rows of a fold lack, the problem against the rest
    has no row of that class: with free intercepts its solution is a probability of 0, at W = 0 and
    an intercept of −∞. A row of the class counts :math:`52 \log 2 = 36.04` there, for a
    probability of 2⁻⁵², as in ``sklearn.metrics.log_loss``: the same for all penalties, so that the
    other rows choose. Where intercepts are not free it has an ordinary solution, which counts as it
    is.

    Args:
        penalty_grid: penalties, each as ``penalty`` of :class:`MultiTaskClassifier`; see
            :func:`strengths`. Order it from strong to weak.
        cv: the number of folds, 2 to N; or pairs (rows to fit, rows to test) of indices; or a
            splitter with ``split(X, y, groups)``, which gets the places of labels in ``classes_``
            as y and the tasks' numbers as groups.
        one_standard_error: whether the first penalty of the grid is taken whose log loss is at most
            one standard error above the smallest, instead of the smallest itself. The standard
            error is that of the mean over the folds of the best penalty.
        random_state: seed of the shuffle inside tasks and classes; None draws one.
        fit_intercept, tol, max_iter, solver, tasks: as in :class:`MultiTaskClassifier`.
        device, dtype, verbose: as in :class:`MultiTaskClassifier`.
        unknown, task_column, intercept_scale: as in :class:`MultiTaskClassifier`.

    Attributes:
        best_index_, penalty_: the chosen place in the grid, and the penalty there.
        cv_log_loss_: ``[len(penalty_grid), folds]``, mean log losses of the rows left out, weighted
            by ``sample_weight``.

    Raises:
        TypeError, ValueError: in ``fit``; ``cv`` or the grid is not as above; what
            ``MultiTaskClassifier`` raises.

    Cost: that of folds + 1 paths, each of C problems for C > 2 classes. Deterministic for a given
    ``random_state``.

    Example:
        >>> import numpy as np
        >>> from mtlfast.linear_model import MultiTaskClassifierCV, strengths
        >>> from mtlfast.nn import PairwiseReg
        >>> rng = np.random.default_rng(0)
        >>> X, task = rng.normal(size=(200, 5)), np.arange(200) % 20
        >>> y = np.where(X.sum(1) + rng.normal(size=200) > 0, "yes", "no")  # all tasks are alike
        >>> grid = strengths(PairwiseReg(), [1, 0.1, 0.01])
        >>> model = MultiTaskClassifierCV(grid, cv=3, random_state=0).fit(X, y, task)
        >>> model.penalty_.strength, model.cv_log_loss_.shape
        (1.0, (3, 3))
        >>> model.score(X, y, task) > 0.8
        True
    """

    if TYPE_CHECKING:
        cv_log_loss_: NDArray[Any]

    _table = "cv_log_loss_"

    def _loss_of_rows(self, held, fits):
        logs = log_probabilities(scores_of(held, *joined(fits)))
        own = logs.gather(1, held.target.long()[:, None])[:, 0]
        return -own.masked_fill(own.isneginf(), _IMPOSSIBLE)
