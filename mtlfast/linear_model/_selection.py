"""Grids of penalties, and fits along them."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from mtlfast._checks import check_number
from mtlfast.linear_model._base import copy_unfitted
from mtlfast.linear_model._model import TaskModel
from mtlfast.nn import Regularizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeVar

    from mtlfast._typing import Column, Features, Number, Penalty, RegularizerT

    ModelT = TypeVar("ModelT", bound=TaskModel)


@overload
def strengths(penalty: RegularizerT, factors: Iterable[Number]) -> list[RegularizerT]: ...
@overload
def strengths(
    penalty: Sequence[Regularizer], factors: Iterable[Number]
) -> list[list[Regularizer]]: ...
def strengths(penalty: Any, factors: Iterable[Number]) -> list[Any]:
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


def path(
    estimator: ModelT,
    penalty_grid: Iterable[Penalty],
    X: Features,
    y: Column,
    task_ids: Column | None = None,
    sample_weight: Column | None = None,
) -> list[ModelT]:
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
    grid = read_grid("path", penalty_grid)
    copies = [copy_unfitted(estimator).set_params(penalty=penalty) for penalty in grid]
    return estimator._fit_path(grid, X, y, task_ids, sample_weight, copies)


def read_grid(function, grid):
    if isinstance(grid, Regularizer) or not hasattr(grid, "__iter__"):
        raise TypeError(
            f"{function}: penalty_grid must be a list of penalties, got {type(grid).__name__}"
        )
    grid = list(grid)
    if not grid:
        raise ValueError(f"{function}: penalty_grid must hold at least one penalty, got none")
    return grid
