"""The regressor, with scikit-learn's conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from mtlfast.linear_model._base import RegressorMixin
from mtlfast.linear_model._data import Problem, read_target, read_weights
from mtlfast.linear_model._fit import fit_squares, squares
from mtlfast.linear_model._model import TaskModel

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    from typing_extensions import Self

    from mtlfast._typing import Column, Features, NotTensor


class SquaresModel(RegressorMixin, TaskModel):
    """Prediction and score of a least-squares fit; subclasses choose the penalty."""

    @overload
    def predict(self, X: torch.Tensor, task_ids: Column | None = ...) -> torch.Tensor: ...
    @overload
    def predict(self, X: NotTensor, task_ids: Column | None = ...) -> NDArray[Any]: ...
    def predict(self, X: Features, task_ids: Column | None = None) -> torch.Tensor | NDArray[Any]:
        """Predictions ``x·w_k + b_k``, ``[N]``.

        Args:
            X: ``[N, d]``, in any of the forms that ``fit`` takes.
            task_ids: the task of each row; may be None for a model of one task, and is None where
                ``task_column`` says it.

        Returns:
            A tensor for a tensor, else a NumPy array; in the dtype of ``coef_``.

        Raises:
            ValueError: a task that ``fit`` did not know, unless ``unknown="mean"``; X that does
                not fit; before ``fit``.

        Cost: O(N d). Deterministic: the same bits on every run.
        """
        return self._give_rows(*self._affine("predict", X, task_ids))

    def score(
        self,
        X: Features,
        y: Column,
        task_ids: Column | None = None,
        sample_weight: Column | None = None,
    ) -> float:
        """R² of the predictions, as ``sklearn.metrics.r2_score``: 1 for a perfect fit.

        Sums go over the rows of all tasks, and the mean of y is the mean of all rows. A constant
        y gives 1 where it is met exactly and 0 else; a single row gives NaN.
        """
        features, predicted = self._affine("score", X, task_ids)
        function = self._function("score")
        y = read_target(function, y, features)
        weight = read_weights(function, sample_weight, features)
        weight = torch.ones_like(y) if weight is None else weight
        if len(y) < 2:
            return float("nan")
        residual = (weight * (y - predicted).square()).sum()
        total = (weight * (y - (weight * y).sum() / weight.sum()).square()).sum()
        if total == 0:
            return float(residual == 0)
        return float(1 - residual / total)

    def _read(self, function, grid, X, y, task_ids, sample_weight):
        """The checked problem, and a list of terms for each penalty of the grid."""
        features, terms, tasks, codes = self._read_tasks(function, grid, X, task_ids)
        y = read_target(function, y, features)
        weight = read_weights(function, sample_weight, features)
        return Problem(features, y, weight, tasks, codes), terms

    def _fits(self, function, problem, grid, start=None):
        """One fit for each list of terms, with statistics in common, each from the one before."""
        statistics = squares(problem.rows(), self._has_free_intercepts())
        for terms in grid:
            settings = self._solver_settings()
            fit = fit_squares(function, statistics, terms, start=start, **settings)
            start = fit.coef
            yield fit

    def _keep(self, function, problem, fit):
        """The attributes of a fitted regressor."""
        self._remember(problem)
        self._keep_coefficients(problem.features, fit.coef, fit.intercept)
        self._keep_fits(function, [fit])
        return self


class MultiTaskRegressor(SquaresModel):
    r"""K linear regressions under task-relation penalties, fitted together to the optimum.

    .. math:: \min_{W, b} \sum_k \tfrac12 \sum_{r \in k} s_r (y_r - x_r \cdot w_k - b_k)^2
              + \sum_p R_p(W)

    with a row of W for each task. Intercepts are not penalised, unless that is asked for.

    Args:
        penalty: a regularizer of :mod:`mtlfast.nn`, a sum or a list of them; None or [] fits each
            task by itself. Terms of your own go too: what the solvers ask of one is told by
            :class:`mtlfast.nn.Regularizer`, what is missing by the error.
        fit_intercept: True, each task has an intercept, free of the penalty; False, ``intercept_``
            is 0; ``"penalized"``, it is shrunk like slopes, which serves tasks of few rows: X gets
            one more column, the constant ``intercept_scale``, whose coefficients the penalty sees
            like all others, and ``intercept_`` is ``intercept_scale`` times them.
        tol: relative optimality at which the solver stops, > 0.
        max_iter: iterations at most; a ConvergenceWarning tells that they did not suffice.
        solver: ``"cg"``, preconditioned conjugate gradients for quadratic penalties (pairwise,
            graph, ridge); ``"fista"``, accelerated proximal gradients with restarts for one norm of
            W (trace norm, group lasso) beside them; ``"admm"``, a splitting method for any sum with
            norms and total variations; ``"auto"``, the quickest of those that can.
        tasks: labels of all tasks, in the order of the rows of W and of the nodes of a graph.
            By default the sorted labels that occur; with a graph of K nodes and integer labels in
            [0, K), ``range(K)``. Needed where tasks without rows have other labels.
        device: where torch computes; by default where X is.
        dtype: of ``coef_``, float32 or float64; by default that of X where it is one of these,
            else float64. Computation is in float64.
        verbose: whether the solver shows a progress bar.
        warm_start: whether ``fit`` starts from the last ``coef_`` where shapes and tasks agree.
        unknown: what ``predict`` does with tasks that ``fit`` did not know: ``"error"``, or
            ``"mean"``, the mean of ``coef_`` and ``intercept_`` over the tasks.
        task_column: where the tasks are a column of X instead of ``task_ids``, in every method: its
            name in a data frame, or its position in any form of X, negative from the end. The
            column is taken out first, so that W has no entry for it. Floats in it must be whole,
            and become integers.
        intercept_scale: the constant of penalised intercepts, > 0. A larger one shrinks less:
            under a pairwise penalty of strength λ, s times it is λ/s² for the intercepts.

    Attributes:
        coef_, intercept_: ``[K, d]`` and ``[K]``; tensors where X was one, else NumPy arrays.
        tasks_: NumPy array ``[K]`` of labels, in the order of the rows of ``coef_``.
        objective_: the minimum found, of the sum above.
        gap_: what was at most ``tol`` where the fit converged. How far above its minimum the
            objective may be, relative to it, or to 1e-6 of the objective at W = 0 where it is
            smaller; with quadratic penalties also the error of W, relative to W, in the norm of the
            Hessian, of which the first is about the square. It comes from the residual in the norm
            of the inverse Hessian, which conjugate gradients bound by the smallest eigenvalue that
            they have seen; with norms from the best dual point found. 1 tells that nothing is known
            but that squares are no less than 0. Up to 1e-6 it passes for converged where rounding
            leaves no smaller one. The one estimate in it: total variations of more than 128 tasks,
            or 512 coefficients, count directions less curved than a millionth of a feature's
            squares as that much.
        n_iter_, solver_: iterations, and the solver that was used.
        n_features_in_, feature_names_in_: the number of columns of X as it was given, that of
            tasks included, and their names in a data frame.

    Raises:
        TypeError: in ``fit``, as the others; entries that are no numbers, a penalty that is no
            regularizer.
        ValueError: ``task_ids`` beside ``task_column``, or a column that X does not have; wrong
            shapes, NaN or Inf (the first such row is named), no rows, no features,
            labels that are missing or not among ``tasks``, weights < 0 or all 0; numbers whose
            squares overflow; graphs with negative weights that make the objective indefinite; a
            term that is not what it declares, tried at a random W.
        NotImplementedError: a term that no solver can take; the text says what it must declare.

    A task without rows gets its coefficients from its relations, and the intercept with which it
    predicts the mean of y at the mean of x over all rows. A constant feature is confounded with
    the intercept; it gets a coefficient of 0 without a penalty, and from one that wants it small.
    Penalties see coefficients: features of unlike scales are penalised unlike, and norms of W then
    take many steps. Bring them to like scales first. Quadratic penalties of any strength, and
    features in any units, are solved all the same; the objective is never above that at W = 0.

    Penalised intercepts are shrunk to where the penalty is small: a pairwise one draws them to each
    other, a ridge to 0. Nothing is centred for them: how far from 0 the features and y lie matters.

    Without ``task_ids`` and ``task_column`` all rows belong to one task, so that it works where
    scikit-learn passes X and y alone. All of scikit-learn's estimator checks pass, but the one of
    the array API, which does not apply: tensors are taken as they are.

    With ``task_column`` every tool of scikit-learn works, for each hands on X: searches with any
    scorer, ``cross_val_predict``, calibration, permutation importance, bagging, pipelines. Those
    that make an array of a frame need a position, not a name. By metadata routing,
    ``set_fit_request(task_ids=True)`` and the same for ``score`` and ``predict``, ``task_ids`` goes
    through pipelines, and through searches and cross-validation that use the estimator's own
    ``score``; nothing takes it to the ``predict`` of another scorer, of ``cross_val_predict``, of
    a calibration, or of a search that was fitted. In both ways a fold may lack tasks: give
    ``tasks``, or ``unknown="mean"``.

    Cost: O(N d²) time for the statistics of a dense X and O(K d²) memory; then the solver's.
    Deterministic: the same bits on every run with the same number of threads. Ctrl-C ends a fit
    within 0.2 s, but for single calls of torch on large data, and leaves the model as it was.

    Example:
        >>> import numpy as np
        >>> from mtlfast.linear_model import MultiTaskRegressor
        >>> from mtlfast.nn import PairwiseReg
        >>> X = np.array([[0.0], [1.0], [2.0], [0.0], [1.0]])
        >>> y = np.array([1.0, 3.0, 5.0, 0.0, 4.0])
        >>> shops = ["north", "north", "north", "south", "south"]
        >>> apart = MultiTaskRegressor().fit(X, y, shops)
        >>> apart.coef_.ravel().round(3)                      # slopes of two separate fits
        array([2., 4.])
        >>> close = MultiTaskRegressor(PairwiseReg(0.25)).fit(X, y, shops)
        >>> close.coef_.ravel().round(2)
        array([2.29, 2.86])
        >>> close.predict([[3.0]], ["south"]).shape
        (1,)

    Source: Evgeniou and Pontil, Regularized multi-task learning, KDD 2004.
    """

    def fit(
        self,
        X: Features,
        y: Column,
        task_ids: Column | None = None,
        sample_weight: Column | None = None,
    ) -> Self:
        """Fits all tasks together.

        Args:
            X: ``[N, d]`` finite numbers: a NumPy array, a tensor, a scipy.sparse matrix, a data
                frame or lists. Rows in any order; sorted by task they are not copied.
            y: ``[N]`` finite numbers.
            task_ids: ``[N]`` labels of any hashable type that sorts: integers, strings, dates,
                tuples, a pandas categorical, a tensor. None: one task, or those of
                ``task_column``.
            sample_weight: ``[N]`` numbers ≥ 0, s_r above; rows of weight 0 count as not there.

        Returns:
            The estimator.
        """
        return self._fit_path([self.penalty], X, y, task_ids, sample_weight)[0]

    def _fit_path(self, grid, X, y, task_ids, sample_weight, copies=None):
        """One fit for each penalty, kept in ``copies`` or in itself."""
        function = self._function("fit")
        problem, terms = self._read(function, grid, X, y, task_ids, sample_weight)
        start = self._start(problem)
        fits = self._fits(function, problem, terms, start and start[0])
        models = copies or [self]
        return [
            model._keep(function, problem, fit) for model, fit in zip(models, fits, strict=True)
        ]
