"""Joint linear models written out with NumPy: problems, objectives by loops, dense solutions.

A penalty is a list of (kind, strength). Nothing here calls the package but ``modules``, which turns
such a list into the regularizers that are tested.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch

from mtlfast import TaskGraph
from mtlfast import nn as regularizers

QUADRATIC = ("pairwise", "graph", "ridge")


@dataclass
class Problem:
    """Rows of K tasks in random order; some tasks may have none."""

    X: np.ndarray  # [N, d]
    y: np.ndarray  # [N]
    task: np.ndarray  # [N]
    A: np.ndarray  # [K, K] weights of ordered pairs, not symmetric
    weight: np.ndarray = None
    tasks: list = field(init=False)

    def __post_init__(self):
        self.tasks = list(range(len(self.A)))

    @property
    def weights(self):
        return np.ones(len(self.y)) if self.weight is None else self.weight


def problem(K=6, d=3, rows=7, *, seed=0, empty=(), weighted=False, logistic=False, noise=0.5):
    """Ragged tasks around two common directions; the graph is a ring with a chord, one-way."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=d) + 0.5 * rng.normal(size=(K, 1)) * rng.normal(size=d)
    truth += 0.2 * rng.normal(size=(K, d))
    counts = rng.integers(max(rows - 3, 1), rows + 4, K)
    counts[list(empty)] = 0
    task = rng.permutation(np.repeat(np.arange(K), counts))
    X = rng.normal(size=(len(task), d)) * np.linspace(0.5, 2, d) + 0.3
    score = (X * truth[task]).sum(1) + 0.7 * task / K - 0.2 + noise * rng.normal(size=len(task))
    y = (rng.random(len(task)) < 1 / (1 + np.exp(-score))).astype(float) if logistic else score
    if logistic:  # both classes in every task, so that each intercept is finite
        for k in range(K):
            y[np.flatnonzero(task == k)[:2]] = [0, 1][: min(2, counts[k])]
    A = np.zeros((K, K))
    for k in range(K - 1):
        A[k, k + 1] = rng.uniform(0.5, 2)
    if K > 3:
        A[K - 1, 0], A[2, 0], A[0, 2] = 1.5, 0.4, 0.7
    weight = rng.uniform(0.2, 3, len(task)) if weighted else None
    return Problem(X, y, task, A, weight)


def modules(penalty, A):
    """The list as regularizers of mtlfast."""
    graph = TaskGraph.from_dense(torch.from_numpy(A))
    make = {
        "pairwise": lambda s: regularizers.PairwiseReg(s),
        "graph": lambda s: regularizers.GraphReg(graph, s),
        "ridge": lambda s: regularizers.Ridge(s),
        "trace": lambda s: regularizers.TraceNorm(s),
        "group": lambda s: regularizers.GroupLasso(s),
        "tv": lambda s: regularizers.GraphTotalVariation(graph, s),
    }
    return [make[kind](strength) for kind, strength in penalty]


def penalty_value(penalty, W, A):
    """The sum of the penalties, pair by pair."""
    K = len(W)
    pairs = [(i, j) for i in range(K) for j in range(K)]
    value = {
        "pairwise": lambda: sum(np.sum((W[i] - W[j]) ** 2) for i, j in pairs),
        "graph": lambda: sum(A[i, j] * np.sum((W[i] - W[j]) ** 2) for i, j in pairs),
        "ridge": lambda: sum(np.sum(w**2) for w in W),
        "trace": lambda: np.sum(np.linalg.svd(W, compute_uv=False)),
        "group": lambda: sum(np.sqrt(np.sum(column**2)) for column in W.T),
        "tv": lambda: sum(A[i, j] * np.sqrt(np.sum((W[i] - W[j]) ** 2)) for i, j in pairs),
    }
    return sum(strength * value[kind]() for kind, strength in penalty)


def objective(data, penalty, W, b, *, logistic=False):
    """The whole objective, row by row."""
    loss = 0.0
    for x, y, k, s in zip(data.X, data.y, data.task, data.weights, strict=True):
        score = x @ W[k] + b[k]
        if logistic:
            loss += s * np.logaddexp(0, -(2 * y - 1) * score)
        else:
            loss += 0.5 * s * (y - score) ** 2
    return loss + penalty_value(penalty, W, data.A)


def dense_solution(data, penalty, fit_intercept):
    """W and b of a quadratic sum by one dense system of K(d + 1) unknowns."""
    K, d = len(data.A), data.X.shape[1]
    pull = np.zeros((K, K))  # the penalties are tr(Wᵀ · pull/2 · W)
    S = data.A + data.A.T
    for kind, strength in penalty:
        pull += (
            strength
            * {
                "pairwise": 4 * (K * np.eye(K) - np.ones((K, K))),
                "graph": 2 * (np.diag(S.sum(1)) - S),
                "ridge": 2 * np.eye(K),
            }[kind]
        )
    H = np.zeros((K, d + 1, K, d + 1))
    right = np.zeros((K, d + 1))
    for i in range(K):
        for j in range(K):
            H[i, :d, j, :d] = pull[i, j] * np.eye(d)
    for x, y, k, s in zip(data.X, data.y, data.task, data.weights, strict=True):
        z = np.append(x, float(fit_intercept))
        H[k, :, k, :] += s * np.outer(z, z)
        right[k] += s * y * z
    size = K * (d + 1)
    solution = np.linalg.lstsq(H.reshape(size, size), right.ravel(), rcond=1e-14)[0]
    solution = solution.reshape(K, d + 1)
    return solution[:, :d], solution[:, d]


def cvxpy_solution(data, penalty, fit_intercept, *, logistic=False):
    """W and b by an interior point method on the problem as it is written."""
    import cvxpy as cp

    K, d = len(data.A), data.X.shape[1]
    W, b = cp.Variable((K, d)), cp.Variable(K)
    score = cp.sum(cp.multiply(data.X, W[data.task]), axis=1)
    if fit_intercept:
        score = score + b[data.task]
    if logistic:
        loss = cp.sum(cp.multiply(data.weights, cp.logistic(-cp.multiply(2 * data.y - 1, score))))
    else:
        loss = 0.5 * cp.sum_squares(cp.multiply(np.sqrt(data.weights), data.y - score))
    edges = list(zip(*np.nonzero(data.A), strict=True))
    pairs = [(i, j) for i in range(K) for j in range(K) if i != j]
    for kind, strength in penalty:
        loss = (
            loss
            + strength
            * {
                "pairwise": lambda: cp.sum([cp.sum_squares(W[i] - W[j]) for i, j in pairs]),
                "graph": lambda: cp.sum(
                    [data.A[i, j] * cp.sum_squares(W[i] - W[j]) for i, j in edges]
                ),
                "ridge": lambda: cp.sum_squares(W),
                "trace": lambda: cp.normNuc(W),
                "group": lambda: cp.sum(cp.norm(W, 2, axis=0)),
                "tv": lambda: cp.sum([data.A[i, j] * cp.norm(W[i] - W[j], 2) for i, j in edges]),
            }[kind]()
        )
    fit = cp.Problem(cp.Minimize(loss))
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
    with warnings.catch_warnings():  # where the last of the digits asked for was not reached
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        fit.solve(solver=cp.CLARABEL, **tight, max_iter=200)
    if fit.status not in ("optimal", "optimal_inaccurate"):
        raise RuntimeError(f"cvxpy found no optimum: {fit.status}")
    return W.value, b.value if fit_intercept else np.zeros(K)
