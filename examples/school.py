"""Exam scores of 15,362 pupils of 139 London schools: one linear model a school, fitted together.

The School (ILEA) data are the classic set of multi-task learning. In each of ten random splits 75 %
of a school's pupils are for training. Everything that is chosen – the strength, and how freely a
school's level may move – is chosen by cross-validation inside these; the other pupils are looked at
once. All fits are exact: the minimum of the squared loss plus the penalty.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mtlfast.linear_model import MultiTaskRegressor, MultiTaskRegressorCV, strengths
from mtlfast.nn import GroupLasso, PairwiseReg, Ridge, TraceNorm

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "school.mat"
LEVELS = (1.0, 4.0)  # intercept_scale: the larger, the freer is a school's level
TINY = 1e-3  # ridge of the pooled model: columns for each year and for each band sum to one


@dataclass(frozen=True)
class Rows:
    X: np.ndarray  # [N, d]
    y: np.ndarray  # [N]
    school: np.ndarray  # [N], 0 … K−1


@dataclass(frozen=True)
class Method:
    """A row of the table; strengths from strong to weak."""

    name: str
    penalty: object  # K → a regularizer, to be multiplied by a strength; None: one model for all
    strengths: tuple = ()


METHODS = [
    Method("single-task ridge", lambda K: Ridge(), (100, 30, 10, 3, 1)),
    Method("pooled", None),
    # ρ ‖W (I − 11ᵀ/K)‖², the distance of the schools from their mean
    Method("pairwise", lambda K: PairwiseReg(1 / (2 * K)), (800, 400, 200, 100, 50, 25)),
    Method("trace norm", lambda K: TraceNorm(), (1600, 800, 400, 200, 100)),
    Method("group lasso", lambda K: GroupLasso(), (1000, 300, 100, 30, 10)),
]


@dataclass
class Result:
    """One method in one split."""

    rmse: float
    strength: float
    level: float
    choose_seconds: float
    fit_seconds: float


def load(path):
    """The rows of all schools, in their order, without the constant in the last column of X."""
    if not Path(path).is_file():
        sys.exit(
            f"school.py needs the School data, which are not at {path}.\n"
            "They come with MALSAR (data/school.mat); name the file with --data."
        )
    try:
        from scipy import io
    except ImportError:
        sys.exit('school.py needs scipy to read the data: pip install "mtlfast[examples]"')
    cells = io.loadmat(path)
    X = [np.asarray(x, dtype=float)[:, :-1] for x in cells["X"].ravel()]
    y = [np.asarray(y, dtype=float).ravel() for y in cells["Y"].ravel()]
    school = np.repeat(np.arange(len(X)), [len(x) for x in X])
    return Rows(np.concatenate(X), np.concatenate(y), school)


def split(rows, share, seed):
    """``share`` of every school's rows, drawn at random, and the rest."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(rows.y))
    for k in np.unique(rows.school):
        at = np.flatnonzero(rows.school == k)
        place[at] = rng.permutation(len(at)) >= round(share * len(at))
    return [Rows(rows.X[p], rows.y[p], rows.school[p]) for p in (place == 0, place == 1)]


def standardised(train, test):
    """Features, and y about its mean, by what the training rows say; constants become 1."""
    mean, deviation = train.X.mean(0), train.X.std(0)
    constant = deviation < 1e-12
    shift, scale = np.where(constant, 0, mean), np.where(constant, mean, deviation)
    middle = train.y.mean()
    return [Rows((part.X - shift) / scale, part.y - middle, part.school) for part in (train, test)]


def rmse(model, test, pooled=False):
    error = test.y - model.predict(test.X, None if pooled else test.school)
    return float(np.sqrt(np.mean(error**2)))


def run(method, train, test, num_schools, seed, quick=False):
    """Chooses on the training rows, fits all of them, and looks at the test rows once."""
    exact = {"fit_intercept": "penalized", "tol": 1e-6}
    if method.penalty is None:
        began = time.perf_counter()
        model = MultiTaskRegressor(Ridge(TINY), **exact).fit(train.X, train.y)
        seconds = time.perf_counter() - began
        return Result(rmse(model, test, pooled=True), np.nan, 1.0, np.nan, seconds)
    exact["tasks"] = range(num_schools)
    factors = method.strengths[1:3] if quick else method.strengths
    grid = strengths(method.penalty(num_schools), factors)
    search = partial(
        MultiTaskRegressorCV, grid, cv=2 if quick else 5, random_state=seed, **exact
    )  # fmt: skip
    found = []
    began = time.perf_counter()
    for level in LEVELS[-1:] if quick else LEVELS:
        model = search(intercept_scale=level).fit(train.X, train.y, train.school)
        found.append((model.cv_mse_.mean(1).min(), level, model))
    _, level, model = min(found, key=lambda item: item[0])
    chosen = time.perf_counter()
    again = MultiTaskRegressor(model.penalty_, intercept_scale=level, **exact)
    again.fit(train.X, train.y, train.school)
    seconds = time.perf_counter() - chosen
    strength = factors[model.best_index_]
    return Result(rmse(again, test), strength, level, chosen - began, seconds)


def table(results):
    """The results as text; strengths and levels are medians over the splits."""
    lines = [
        f"{'':18}{'RMSE':>8}{'':10}{'strength':>10}{'level':>8}{'choose':>10}{'fit':>10}",
        f"{'method':18}{'mean':>8}  {'± sd':8}{'chosen':>10}{'chosen':>8}{'s':>10}{'s':>10}",
    ]
    for name, runs in results.items():
        error = [run.rmse for run in runs]
        spread = np.std(error, ddof=1) if len(error) > 1 else np.nan
        middle = {
            what: np.median([getattr(run, what) for run in runs])
            for what in ("strength", "level", "choose_seconds", "fit_seconds")
        }
        cells = {what: "–" if np.isnan(value) else f"{value:.3g}" for what, value in middle.items()}
        lines.append(
            f"{name:18}{np.mean(error):8.3f}  ± {spread:<6.3f}{cells['strength']:>10}"
            f"{cells['level']:>8}{cells['choose_seconds']:>10}{cells['fit_seconds']:>10}"
        )
    return "\n".join(lines)


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="school.mat as MALSAR has it")
    parser.add_argument("--splits", type=int, help="random splits (default 10)")
    parser.add_argument("--share", type=float, default=0.75, help="share of rows to train on")
    parser.add_argument("--seed", type=int, default=0, help="of the first split")
    parser.add_argument("--quick", action="store_true", help="smoke run: 2 splits, 2 strengths")
    options = parser.parse_args(argv)
    options.splits = options.splits or (2 if options.quick else 10)
    if not 0 < options.share < 1:
        parser.error(f"--share must be in (0, 1), got {options.share}")
    return options


def main(argv=None):
    options = parse(argv)
    rows = load(options.data)
    num_schools = int(rows.school.max()) + 1
    print(f"{len(rows.y):,} pupils, {num_schools} schools, {rows.X.shape[1]} features")
    results = {method.name: [] for method in METHODS}
    for seed in range(options.seed, options.seed + options.splits):
        train, test = standardised(*split(rows, options.share, seed))
        for method in METHODS:
            result = run(method, train, test, num_schools, seed, options.quick)
            results[method.name].append(result)
    print(f"\n{table(results)}")
    return results


if __name__ == "__main__":
    main()
