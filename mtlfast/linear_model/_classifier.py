"""The classifier: logistic regressions, one for two classes, else one class against the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from mtlfast.linear_model._base import ClassifierMixin
from mtlfast.linear_model._data import Problem, one_column, read_weights
from mtlfast.linear_model._labels import factorize, label_array
from mtlfast.linear_model._logistic import fit_logistic
from mtlfast.linear_model._model import TaskModel

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    from typing_extensions import Self

    from mtlfast._typing import Column, Features, NotTensor


class ClassifierModel(ClassifierMixin, TaskModel):
    """Prediction and score of logistic fits; subclasses choose the penalty."""

    if TYPE_CHECKING:
        classes_: NDArray[Any]

    @overload
    def decision_function(self, X: torch.Tensor, task_ids: Column | None = ...) -> torch.Tensor: ...
    @overload
    def decision_function(self, X: NotTensor, task_ids: Column | None = ...) -> NDArray[Any]: ...
    def decision_function(
        self, X: Features, task_ids: Column | None = None
    ) -> torch.Tensor | NDArray[Any]:
        """``x·w_k + b_k``: ``[N]`` for two classes, > 0 for ``classes_[1]``; else ``[N, C]``."""
        return self._give_rows(*self._affine("decision_function", X, task_ids))

    @overload
    def predict(
        self, X: torch.Tensor, task_ids: Column | None = ...
    ) -> torch.Tensor | NDArray[Any]: ...
    @overload
    def predict(self, X: NotTensor, task_ids: Column | None = ...) -> NDArray[Any]: ...
    def predict(self, X: Features, task_ids: Column | None = None) -> torch.Tensor | NDArray[Any]:
        """The label of the most probable class for each row, ``[N]``.

        A tensor where X is one and labels are numbers, else a NumPy array.
        """
        features, scores = self._affine("predict", X, task_ids)
        return self._labels_of(features, scores)

    @overload
    def predict_proba(self, X: torch.Tensor, task_ids: Column | None = ...) -> torch.Tensor: ...
    @overload
    def predict_proba(self, X: NotTensor, task_ids: Column | None = ...) -> NDArray[Any]: ...
    def predict_proba(
        self, X: Features, task_ids: Column | None = None
    ) -> torch.Tensor | NDArray[Any]:
        """Probabilities ``[N, C]`` that add up to 1 in each row.

        For C > 2 classes the C logistic functions are divided by their sum.
        """
        features, scores = self._affine("predict_proba", X, task_ids)
        return self._give_rows(features, log_probabilities(scores).exp())

    @overload
    def predict_log_proba(self, X: torch.Tensor, task_ids: Column | None = ...) -> torch.Tensor: ...
    @overload
    def predict_log_proba(self, X: NotTensor, task_ids: Column | None = ...) -> NDArray[Any]: ...
    def predict_log_proba(
        self, X: Features, task_ids: Column | None = None
    ) -> torch.Tensor | NDArray[Any]:
        """Logarithms of :meth:`predict_proba`, finite where probabilities underflow."""
        features, scores = self._affine("predict_log_proba", X, task_ids)
        return self._give_rows(features, log_probabilities(scores))

    def score(
        self,
        X: Features,
        y: Column,
        task_ids: Column | None = None,
        sample_weight: Column | None = None,
    ) -> float:
        """The share of rows, by weight, whose class is predicted."""
        features, scores = self._affine("score", X, task_ids)
        function = self._function("score")
        y = label_array(function, "y", one_column(function, y, len(features)))
        weight = read_weights(function, sample_weight, features)
        right = torch.from_numpy(self.classes_[_best(scores)] == y).to(torch.float64)
        if weight is None:
            return float(right.mean())
        weight = weight.cpu()
        return float((weight * right).sum() / weight.sum())

    def _labels_of(self, features, scores):
        labels = self.classes_[_best(scores)]
        if features.is_torch and labels.dtype.kind in "iufb":
            return torch.from_numpy(labels).to(features.device)
        return labels

    def _read(self, function, grid, X, y, task_ids, sample_weight):
        """The checked problem, and a list of terms for each penalty of the grid."""
        features, terms, tasks, codes = self._read_tasks(function, grid, X, task_ids)
        weight = read_weights(function, sample_weight, features)
        classes, target = _read_classes(function, y, len(features), weight)
        target = torch.from_numpy(target).to(features.device, torch.float64)
        return Problem(features, target, weight, tasks, codes, classes), terms

    def _fits(self, function, problem, grid, starts=None):
        """For each list of terms one fit of each of the C problems, from those before.

        There are C of them, or the one of two classes, whatever classes the rows have.
        """
        parts = _against_the_rest(problem.rows(), len(problem.classes))
        starts = starts or [None] * len(parts)
        for terms in grid:
            fits = [
                fit_logistic(
                    function, rows, terms, start=start,
                    fit_intercept=self._has_free_intercepts(),
                    **self._solver_settings(),
                )
                for rows, start in zip(parts, starts, strict=True)
            ]  # fmt: skip
            starts = [(fit.coef, fit.intercept) for fit in fits]
            yield fits

    def _keep(self, function, problem, fits):
        """The attributes of a fitted classifier."""
        self._remember(problem)
        self.classes_ = problem.classes
        self._keep_coefficients(problem.features, *joined(fits))
        self._keep_fits(function, fits)
        return self


class MultiTaskClassifier(ClassifierModel):
    r"""K logistic regressions under task-relation penalties, fitted together to the optimum.

    .. math:: \min_{W, b} \sum_k \sum_{r \in k} s_r \log(1 + e^{-t_r (x_r \cdot w_k + b_k)})
              + \sum_p R_p(W), \qquad t_r = \pm 1

    Two classes are one such problem, with t = 1 for ``classes_[1]``; C > 2 classes are C of them,
    one class against the rest each. The cost is as in :class:`MultiTaskRegressor`, and attributes
    are those and more.

    Args:
        max_iter: Newton's steps at most, and iterations inside each of them; all together take no
            more than five times as many.
        penalty, fit_intercept, tol, solver, tasks, device: as in :class:`MultiTaskRegressor`.
        dtype, verbose, warm_start: as in :class:`MultiTaskRegressor`.
        unknown, task_column, intercept_scale: as in :class:`MultiTaskRegressor`.

    Attributes:
        classes_: NumPy array ``[C]`` of the sorted labels in y with a weight > 0.
        coef_, intercept_: ``[K, d]`` and ``[K]`` for two classes, else ``[K, C, d]`` and
            ``[K, C]``.
        objective_: the sum over the C problems.
        gap_, n_iter_: the largest of the C problems. Steps are Newton's, each a fit of weighted
            squares, whose slopes are the dual point behind ``gap_``; with quadratic penalties that
            is also the gradient in the norm of the inverse Hessian, relative to W in that of the
            Hessian.

    Raises:
        ValueError: in ``fit``; y is continuous, or all rows are of one class.

    A task whose rows are all of one class has no finite intercept of its own: it takes that of
    all rows together. Data that can be separated have no optimum without a penalty that bounds W:
    the fit ends where the loss is almost flat, within ``tol``, at large coefficients; or, if that
    takes more than ``max_iter`` steps, with a ConvergenceWarning.

    All of scikit-learn's estimator checks pass, but the one of the array API, which does not apply.

    Example:
        >>> import numpy as np
        >>> from mtlfast.linear_model import MultiTaskClassifier
        >>> from mtlfast.nn import PairwiseReg, Ridge
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [1.0], [2.0]])
        >>> y = ["no", "no", "yes", "yes", "no", "yes"]
        >>> person = [7, 7, 7, 7, 9, 9]
        >>> model = MultiTaskClassifier([Ridge(0.1), PairwiseReg(1.0)]).fit(X, y, person)
        >>> model.predict([[0.0], [3.0]], [9, 9])
        array(['no', 'yes'], dtype='<U3')
        >>> model.predict_proba([[1.5]], [7]).round(2)
        array([[0.5, 0.5]])

    Source: Evgeniou and Pontil, Regularized multi-task learning, KDD 2004.
    """

    def fit(
        self,
        X: Features,
        y: Column,
        task_ids: Column | None = None,
        sample_weight: Column | None = None,
    ) -> Self:
        """Fits all tasks together; see :meth:`MultiTaskRegressor.fit`.

        Args:
            y: ``[N]`` labels of classes: integers, strings, any hashable type that sorts.
        """
        return self._fit_path([self.penalty], X, y, task_ids, sample_weight)[0]

    def _fit_path(self, grid, X, y, task_ids, sample_weight, copies=None):
        """One fit for each penalty, kept in ``copies`` or in itself."""
        function = self._function("fit")
        problem, terms = self._read(function, grid, X, y, task_ids, sample_weight)
        along = self._fits(function, problem, terms, self._starts(problem))
        models = copies or [self]
        return [
            model._keep(function, problem, fits) for model, fits in zip(models, along, strict=True)
        ]

    def _starts(self, problem):
        """A start for each of the C problems, or for the one of two classes; None without any."""
        classes = problem.classes
        several = [] if len(classes) == 2 else [len(classes)]
        start = self._start(problem, *several)
        if start is None or not np.array_equal(self.classes_, classes):
            return None
        if not several:
            return [tuple(start)]
        return [tuple(part[:, c].contiguous() for part in start) for c in range(len(classes))]


def _read_classes(function, y, num_rows, weight):
    """(sorted labels ``[C]`` of rows that count, C ≥ 2; codes ``[N]``, any for other rows)."""
    y = one_column(function, y, num_rows)
    array = label_array(function, "y", y)
    if array.dtype.kind == "c":
        raise ValueError(f"{function}: Complex data not supported, y must hold labels of classes")
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"{function}: y must be finite, without NaN or inf, got {array[row]} at row {row}"
            )
        broken = array != np.round(array)
        if broken.any():
            row = int(broken.argmax())
            raise ValueError(
                f"{function}: y must hold labels of classes, got {array[row]} at row {row}. "
                "Unknown label type: continuous"
            )
    classes, codes = factorize(function, "y", y)
    if weight is not None:
        counted = np.bincount(codes[(weight > 0).cpu().numpy()], minlength=len(classes)) > 0
        classes, codes = classes[counted], (np.cumsum(counted) - 1)[codes].clip(min=0)
    if len(classes) < 2:
        raise ValueError(
            f"{function}: y must hold at least two classes, got one class, {classes.tolist()[0]!r}"
        )
    return classes, codes


def _against_the_rest(rows, num_classes):
    """The problems to solve, with y in {0, 1}: one for two classes, else one for each class."""
    if num_classes == 2:
        return [rows]
    return [replace(rows, y=(rows.y == code).to(torch.float64)) for code in range(num_classes)]


def joined(fits):
    """Coefficients and intercepts of one fit, or of C: ``[K, C, d]`` and ``[K, C]``."""
    parts = [fit.coef for fit in fits], [fit.intercept for fit in fits]
    return [torch.stack(some, 1) if len(some) > 1 else some[0] for some in parts]


def log_probabilities(scores):
    """Logarithms ``[N, C]`` from scores ``[N]`` of two classes, or ``[N, C]``."""
    if scores.dim() == 1:
        scores = torch.stack([-scores, scores], 1)
        return torch.nn.functional.logsigmoid(scores)
    logs = torch.nn.functional.logsigmoid(scores)
    return logs - logs.logsumexp(1, keepdim=True)


def _best(scores):
    """The place of the most probable class, as a NumPy array."""
    best = (scores > 0).long() if scores.dim() == 1 else scores.argmax(1)
    return best.cpu().numpy()
