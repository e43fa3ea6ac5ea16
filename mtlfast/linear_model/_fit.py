"""From statistics and penalties to the optimum: which solver, and what it certifies."""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from mtlfast.linear_model._blocks import TOO_LARGE, ratio
from mtlfast.linear_model._coupling import Coupling
from mtlfast.linear_model._gradients import fista
from mtlfast.linear_model._penalties import check_penalties, split
from mtlfast.linear_model._progress import Progress
from mtlfast.linear_model._quadratic import FIT, Independent, System
from mtlfast.linear_model._splitting import admm
from mtlfast.linear_model._statistics import squares, typical

__all__ = ["Fit", "check_penalties", "fit_squares", "squares"]

SOLVERS = ("auto", "cg", "fista", "admm")
ROUNDED = 1e-6  # a gap that is due to rounding alone and up to this counts as converged


@dataclass(frozen=True)
class Fit:
    """coef ``[K, d]``, intercept ``[K]``, and how they were found."""

    coef: torch.Tensor
    intercept: torch.Tensor
    objective: float
    gap: float
    n_iter: int
    converged: bool
    solver: str


def choose(name, solver, penalty, has_blocks):
    """The solver of a penalty; ValueError where the one that is asked for cannot do it."""
    norms = [term.name for term in penalty.norms + penalty.edges]
    if solver not in SOLVERS:
        raise ValueError(f"{name}: solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    if solver == "cg" and norms:
        raise ValueError(
            f'{name}: solver "cg" needs quadratic penalties, got {" + ".join(norms)}; '
            'use "admm" or "auto"'
        )
    if solver == "fista" and (len(norms) != 1 or penalty.edges):
        raise ValueError(
            f'{name}: solver "fista" needs exactly one norm of W with a prox, '
            f'got {" + ".join(norms) or "none"}; use "admm" or "auto"'
        )
    if solver == "admm" and not norms:
        raise ValueError(f'{name}: solver "admm" needs a norm, got none; use "cg" or "auto"')
    if solver != "auto":
        return solver
    if not norms:
        return "cg"
    alone = len(norms) == 1 and not penalty.edges
    return "fista" if alone and not has_blocks else "admm"


@contextmanager
def progress_of(name, solver, tol, verbose):
    progress = Progress(f"{name} ({solver})", tol) if verbose else None
    try:
        yield progress
    finally:
        if verbose:
            progress.close()


@contextmanager
def _named(name):
    """Refusals of the solvers, which do not know for whom they solve, with the name in front."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_range(name, statistics):
    """The sums of squares are finite; solvers would end in NaN or in errors of LAPACK."""
    parts = statistics.moment, statistics.diagonal()
    if not (math.isfinite(statistics.yy) and all(torch.isfinite(part).all() for part in parts)):
        raise ValueError(
            f"{name}: X, y and sample_weight must be such that sums of squares are finite in "
            "float64, got an overflow; rescale them"
        )


def check_finite(name, W):
    if not torch.isfinite(W).all():
        raise ValueError(f"{name}: {TOO_LARGE}")


def coupling_of(squares, penalty):
    """What the quadratic penalties make of the tasks of these statistics, and of like ones."""
    own, nested = typical(squares.diagonal()), squares.gram is not None
    return Coupling(penalty.quadratic, squares.device, own, nested=nested)


def solve(
    name, squares, penalty, coupling, *,
    tol, max_iter, solver, start=None, progress=None, certified=True,
):  # fmt: skip
    """The optimum of squares and a ``Penalty``, as a ``Solved`` of ``_quadratic``."""
    _check_range(name, squares)
    with _named(name):
        if not penalty.is_smooth:
            run = fista if solver == "fista" else admm
            settings = {"tol": tol, "max_iter": max_iter, "start": start, "progress": progress}
            return run(squares, penalty, coupling, **settings)
        if squares.gram is not None and not coupling.couples:
            return Independent(squares, coupling.ridge).solve()
        return System(squares, coupling).solve(
            squares.moment, start=start, tol=tol, max_iter=max_iter, progress=progress,
            certified=certified,
        )  # fmt: skip


def fit_squares(name, statistics, penalties, *, tol, max_iter, solver, verbose, start=None):
    """The optimum of ½ Σ s(y − x·w − b)² + Σ penalties."""
    K, device = statistics.num_tasks, statistics.device
    penalty = split(name, check_penalties(name, penalties), K, device)
    coupling = coupling_of(statistics, penalty)
    solver = choose(name, solver, penalty, statistics.gram is not None)
    with progress_of(name, solver, tol, verbose) as progress:
        out = solve(
            name, statistics, penalty, coupling,
            tol=tol, max_iter=max_iter, solver=solver, start=start, progress=progress,
        )  # fmt: skip
    W, gap, is_exact = out.W, out.gap, out.is_exact
    check_finite(name, W)
    objective = statistics.loss(W) + penalty.value(W, coupling)
    nothing = 0.5 * statistics.yy
    if not objective <= nothing:
        W, objective, gap, is_exact = torch.zeros_like(W), nothing, float("inf"), False
    if not coupling.has_negative:  # the minimum is no smaller than 0
        gap = min(gap, ratio(objective, max(objective, FIT * nothing)))
    converged = gap <= tol or (is_exact and gap <= ROUNDED)
    return Fit(W, statistics.intercept(W), objective, gap, out.n_iter, converged, solver)
