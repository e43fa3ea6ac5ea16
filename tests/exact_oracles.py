"""Small joint fits in 150 digits: what is exact whatever the scales of features and strengths are.

A penalty is a list of (kind, strength, relation): "ridge" and "pairwise" with None, "groups" with a
label a task, "graph" with edges (i, j, weight). Nothing here calls the package but ``modules``.
"""

from dataclasses import dataclass

import mpmath as mp
import numpy as np
import torch

from mtlfast import TaskGraph
from mtlfast.nn import GraphReg, PairwiseReg, Ridge

DIGITS = 150
_NONE = mp.mpf(10) ** -100  # of a pivot: a direction that costs nothing


@dataclass
class Small:
    """Rows of K tasks, in order, with a penalty."""

    X: np.ndarray  # [N, d]
    y: np.ndarray  # [N]
    task: np.ndarray  # [N]
    K: int
    penalty: list
    fit_intercept: bool


def exact(x):
    return mp.mpf(float(x))


def modules(problem):
    """The penalty as regularizers of mtlfast."""
    out = []
    for kind, strength, relation in problem.penalty:
        if kind == "pairwise":
            out.append(PairwiseReg(strength))
        elif kind == "ridge":
            out.append(Ridge(strength))
        elif kind == "groups":
            out.append(GraphReg(TaskGraph.groups(relation), strength))
        elif relation:
            i, j, weight = zip(*relation, strict=True)
            weight = torch.tensor(weight, dtype=torch.float64)
            graph = TaskGraph.from_edges(torch.tensor([i, j]), weight, problem.K)
            out.append(GraphReg(graph, strength))
    return out


def ties(problem):
    """(edges (i, j, t) of Σ t ‖w_i − w_j‖², ridge)."""
    K, ridge = problem.K, mp.mpf(0)
    A = mp.zeros(K, K)
    for kind, strength, relation in problem.penalty:
        strength = exact(strength)
        if kind == "ridge":
            ridge += strength
        elif kind == "graph":
            for i, j, weight in relation:
                A[i, j] += strength * exact(weight)
        else:
            for i in range(K):
                for j in range(K):
                    if i != j and (kind == "pairwise" or relation[i] == relation[j]):
                        A[i, j] += strength
    edges = [(i, j, A[i, j] + A[j, i]) for i in range(K) for j in range(i)]
    return [edge for edge in edges if edge[2]], ridge


def penalty_value(problem, W):
    edges, ridge = ties(problem)
    value = ridge * sum(v * v for row in W for v in row)
    for i, j, tie in edges:
        value += tie * sum((a - b) ** 2 for a, b in zip(W[i], W[j], strict=True))
    return value


def squares(problem, W):
    """½ Σ (y − x·w − b)² at the best b, and the penalty, of a W in float64."""
    W = [[exact(v) for v in row] for row in W]
    value = penalty_value(problem, W)
    for k in range(problem.K):
        rows = np.flatnonzero(problem.task == k)
        left = [exact(problem.y[r]) - _dot(problem.X[r], W[k]) for r in rows]
        mean = sum(left) / len(left) if problem.fit_intercept and len(rows) else mp.mpf(0)
        value += sum((v - mean) ** 2 for v in left) / 2
    return value


def least_squares(problem):
    """The minimum of :func:`squares`, by elimination."""
    K, d = problem.K, problem.X.shape[1]
    D = d + problem.fit_intercept
    H, c, yy = _zeros(K * D), [mp.mpf(0)] * (K * D), mp.mpf(0)
    for x, y, k in zip(problem.X, problem.y, problem.task, strict=True):
        row, y = _row(problem, x), exact(y)
        yy += y * y
        _add_square(H, row, mp.mpf(1), k * D)
        for i in range(D):
            c[k * D + i] += row[i] * y
    _add_penalty(problem, H, D)
    gained, _ = _eliminated(H, c)
    return (yy - gained) / 2


def logistic(problem, W, b):
    """Σ log(1 + exp(−t(x·w + b))) and the penalty at W and b in float64, y in {0, 1}."""
    W = [[exact(v) for v in row] for row in W]
    return penalty_value(problem, W) + _logistic_loss(problem, W, [exact(v) for v in b])


def least_logistic(problem, fixed):
    """The minimum of :func:`logistic`, by Newton's method; ``fixed`` are intercepts or None."""
    K, d = problem.K, problem.X.shape[1]
    D = d + 1
    free = [i for i in range(K * D) if i % D < d or fixed[i // D] is None]
    w = [mp.mpf(0)] * (K * D)
    for k in range(K):
        w[k * D + d] = exact(fixed[k] or 0.0)

    def parts(w):
        return [w[k * D : k * D + d] for k in range(K)], w[d::D]

    def value(w):
        W, b = parts(w)
        return penalty_value(problem, W) + _logistic_loss(problem, W, b)

    penalty = _zeros(K * D)
    _add_penalty(problem, penalty, D)
    best = value(w)
    for _ in range(200):
        H = [list(row) for row in penalty]
        g = [-_dot(row, w) for row in penalty]
        for x, y, k in zip(problem.X, problem.y, problem.task, strict=True):
            row = [*(exact(v) for v in x), mp.mpf(1)]
            p = 1 / (1 + mp.exp(-_dot(row, w[k * D : k * D + D])))
            _add_square(H, row, p * (1 - p), k * D)
            for i in range(D):
                g[k * D + i] += (int(y) - p) * row[i]
        part = [[H[i][j] for j in free] for i in free]
        gained, step = _eliminated(part, [g[i] for i in free])
        if best < mp.mpf(10) ** -9:  # classes that can be separated
            return mp.mpf(0)
        if gained < mp.mpf(10) ** -25 * best:
            return best
        scale = mp.mpf(1)
        while True:
            moved = list(w)
            for i, v in zip(free, step, strict=True):
                moved[i] += scale * v
            after = value(moved)
            if after <= best:
                break
            scale /= 2
            if scale < mp.mpf(10) ** -12:
                return best
        w, best = moved, after
    return best


def _logistic_loss(problem, W, b):
    value = mp.mpf(0)
    for x, y, k in zip(problem.X, problem.y, problem.task, strict=True):
        z = _dot(x, W[k]) + b[k]
        value += mp.log1p(mp.exp(-z if y else z))
    return value


def _row(problem, x):
    return [exact(v) for v in x] + [mp.mpf(1)] * problem.fit_intercept


def _dot(x, w):
    return sum((v if isinstance(v, mp.mpf) else exact(v)) * u for v, u in zip(x, w, strict=True))


def _zeros(n):
    return [[mp.mpf(0)] * n for _ in range(n)]


def _add_square(H, row, scale, begin):
    for i, a in enumerate(row):
        for j, b in enumerate(row):
            H[begin + i][begin + j] += scale * a * b


def _add_penalty(problem, H, D):
    """The Hessian of the penalty; rows of D unknowns a task, of which intercepts are free."""
    edges, ridge = ties(problem)
    for j in range(problem.X.shape[1]):
        for k in range(problem.K):
            H[k * D + j][k * D + j] += 2 * ridge
        for a, b, tie in edges:
            a, b = a * D + j, b * D + j
            for place, other in ((a, b), (b, a)):
                H[place][place] += 2 * tie
                H[place][other] -= 2 * tie


def _eliminated(H, c):
    """(⟨c, H⁺c⟩, a solution of H x = c), the largest pivot first."""
    n, gained, order = len(c), mp.mpf(0), []
    own = [H[i][i] for i in range(n)]
    left = [i for i in range(n) if own[i] > 0]
    while left:
        pivot = max(left, key=lambda i: H[i][i] / own[i])
        if H[pivot][pivot] < _NONE * own[pivot]:
            break
        left.remove(pivot)
        gained += c[pivot] ** 2 / H[pivot][pivot]
        order.append((pivot, list(left)))
        for i in left:
            share = H[i][pivot] / H[pivot][pivot]
            if share:
                c[i] -= share * c[pivot]
                for j in left:
                    H[i][j] -= share * H[pivot][j]
    x = [mp.mpf(0)] * n
    for pivot, rest in reversed(order):
        x[pivot] = (c[pivot] - sum(H[pivot][j] * x[j] for j in rest)) / H[pivot][pivot]
    return gained, x
