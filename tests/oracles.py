"""The truth in numpy's long double, from the definitions, one function per formula.

Each takes the upstream gradient, W and the further tensors, all long double, and gives the value,
the gradients of <upstream, value>, and the scale that errors are measured against.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    value: np.ndarray
    value_scale: float
    grads: tuple
    grad_scales: tuple
    grad_sizes: tuple = ()  # of what is rounded to a 16-bit type, where that is not the sum


def norm(x):
    return np.sqrt(np.sum(np.square(x)))


def relative(value, *grads):
    """Errors relative to the value and to the Frobenius norm of each gradient."""
    return Truth(value, np.abs(value), grads, tuple(norm(g) for g in grads))


def ordered_pairs(K):
    return K * (K - 1)


def mean(oracle, count=ordered_pairs):
    """The same, divided by the number of terms."""

    def run(upstream, w, *extras):
        pairs = max(count(len(w)), 1)
        sums = oracle(upstream, w, *extras)
        return Truth(
            sums.value / pairs,
            sums.value_scale / pairs,
            tuple(g / pairs for g in sums.grads),
            tuple(s / pairs for s in sums.grad_scales),
        )

    return run


def pairwise_reg(upstream, w):
    """Σ_{i≠j} ‖w_i − w_j‖², row by row as a double loop; the gradient likewise."""
    value, grad = np.longdouble(0), np.zeros_like(w)
    for i in range(len(w)):
        difference = w[i] - w
        value += np.sum(np.square(difference))
        grad[i] = 4 * np.sum(difference, axis=0)
    return relative(value, upstream * grad)


def centred(w):
    return w - w.mean(axis=0) if len(w) else w


def pairwise_prox(step):
    def run(upstream, w):
        def shrink(x):
            return x - centred(x) * (1 - 1 / (1 + 4 * len(x) * np.longdouble(step)))

        return Truth(shrink(w), norm(w), (shrink(upstream),), (norm(upstream),))

    return run


def ridge_reg(upstream, w):
    """Σ w²."""
    return relative(np.sum(np.square(w)), upstream * 2 * w)


def ridge_prox(step):
    def run(upstream, w):
        shrink = 1 + 2 * np.longdouble(step)
        return Truth(w / shrink, norm(w), (upstream / shrink,), (norm(upstream),))

    return run


def combined(*weighed):
    """Σ strength · oracle over (strength, oracle); errors relative to the sum of the scales.

    Gradients in a 16-bit type are those of the terms, added up.
    """

    def run(upstream, w):
        parts = [(np.longdouble(strength), oracle(upstream, w)) for strength, oracle in weighed]
        return Truth(
            sum(s * part.value for s, part in parts),
            sum(s * part.value_scale for s, part in parts),
            (sum(s * part.grads[0] for s, part in parts),),
            (sum(s * part.grad_scales[0] for s, part in parts),),
            (sum(s * norm(part.grads[0]) for s, part in parts),),
        )

    return run


def _column_lengths(w):
    return np.sqrt(np.sum(np.square(w), axis=0))


def group_lasso(upstream, w):
    """Σ_j ‖W_·j‖₂; a zero column has the gradient 0."""
    lengths = _column_lengths(w)
    return relative(lengths.sum(), upstream * w / np.where(lengths == 0, 1, lengths))


def group_lasso_prox(threshold):
    """(1 − t/n)₊ w, and (1 − t/n)₊ u + t/n³ ⟨w, u⟩ w in the columns that stay."""

    def run(upstream, w):
        lengths = _column_lengths(w)
        stays = lengths > threshold
        n = np.where(stays, lengths, 1)
        factor = np.where(stays, 1 - threshold / n, 0)
        along = np.where(stays, threshold / n**3 * np.sum(w * upstream, axis=0), 0)
        return Truth(factor * w, norm(w), (factor * upstream + along * w,), (norm(upstream),))

    return run


def gram_reg(upstream, w, omega):
    """‖W Wᵀ − Ω‖²; errors relative to what the sums are made of, not to what is left of them."""
    residual = w @ w.T - omega
    half = (omega + omega.T) / 2
    size = norm(w @ w.T) + norm(omega)
    return Truth(
        np.sum(np.square(residual)),
        norm(residual) * size,
        (upstream * 4 * (w @ (w.T @ w) - half @ w), upstream * -2 * residual),
        (np.abs(upstream) * 4 * size * norm(w), np.abs(upstream) * 2 * size),
    )


def gram_factor(upstream, w, factor):
    """‖W Wᵀ − F Fᵀ‖²: the same with Ω = F Fᵀ, its gradient carried on to F."""
    right = gram_reg(upstream, w, factor @ factor.T)
    size = norm(w @ w.T) + norm(factor @ factor.T)
    return Truth(
        right.value,
        size * size,
        (right.grads[0], 2 * right.grads[1] @ factor),
        (right.grad_scales[0], 4 * np.abs(upstream) * size * norm(factor)),
    )


def svd(w):
    """Factors of a matrix with at least one entry; float64, for numpy's long double has none."""
    return np.linalg.svd(w.astype(np.float64), full_matrices=True)


def trace_norm(scale):
    """scale·Σ σ_i; the gradient U Vᵀ moves by σ_1/σ_min for each relative rounding of W."""

    def run(upstream, w):
        if not w.size:
            return relative(np.longdouble(0), np.zeros_like(w))
        u, sigma, vt = svd(w)
        rank = int(np.sum(sigma > sigma[0] * max(w.shape) * 2.0**-23))
        grad = upstream * scale * (u[:, :rank] @ vt[:rank])
        spread = sigma[0] / sigma[rank - 1] if rank else 1
        total = np.longdouble(scale) * np.sum(sigma)
        return Truth(total, total, (grad,), (norm(grad) * spread,))

    return run


def trace_norm_prox(upstream, w, threshold):
    """U (σ − t)₊ Vᵀ; derivatives by divided differences of f(σ) = (σ − t)₊, odd on the line."""
    if not w.size:
        return Truth(w, norm(w), (upstream, np.zeros_like(threshold)), (0.0, 0.0))
    if w.shape[0] < w.shape[1]:
        wide = trace_norm_prox(upstream.T, w.T, threshold)
        return Truth(
            wide.value.T, wide.value_scale, (wide.grads[0].T, wide.grads[1]), wide.grad_scales
        )
    t, n = float(threshold), w.shape[1]
    u, sigma, vt = svd(w)
    shrunk = np.maximum(sigma - t, 0)
    inner = u.T @ upstream.astype(np.float64) @ vt.T
    square, below = inner[:n], inner[n:]
    gap = sigma[:, None] - sigma
    same = np.abs(gap) < 1e-9 * sigma[0]
    difference = np.where(same, sigma > t, (shrunk[:, None] - shrunk) / np.where(same, 1, gap))
    total = sigma[:, None] + sigma
    mean = (shrunk[:, None] + shrunk) / np.where(total > 0, total, 1)
    ratio = shrunk / np.where(sigma > 0, sigma, 1)
    core = difference * (square + square.T) / 2 + mean * (square - square.T) / 2
    grad = u @ np.vstack([core, below * ratio]) @ vt
    grad_t = np.asarray(-np.sum(np.diag(square)[sigma > t]))
    spread = max(sigma[0] / t, 1)
    value = (u[:, :n] * shrunk) @ vt
    return Truth(
        value,
        norm(w),
        (grad, grad_t),
        (norm(upstream) * spread, norm(upstream) * spread * np.sqrt(n)),
    )


def graph_reg(edges):
    """Σ_e a_e ‖w_src − w_dst‖² over edges(K) = (src, dst); scales sum absolute contributions."""

    def run(upstream, w, weight=None):
        src, dst = edges(len(w))
        known = 2 if weight is not None else 1  # how many gradients are asked for
        weight = np.ones(len(src), dtype=np.longdouble) if weight is None else weight
        difference = w[src] - w[dst]
        distance = np.sum(np.square(difference), axis=1)
        grad, size = np.zeros_like(w), np.zeros_like(w)
        np.add.at(grad, src, 2 * weight[:, None] * difference)
        np.add.at(grad, dst, -2 * weight[:, None] * difference)
        np.add.at(size, src, 2 * np.abs(weight[:, None] * difference))
        np.add.at(size, dst, 2 * np.abs(weight[:, None] * difference))
        return Truth(
            np.sum(weight * distance),
            np.sum(np.abs(weight) * distance),
            (upstream * grad, upstream * distance)[:known],
            (np.abs(upstream) * norm(size), np.abs(upstream) * norm(distance))[:known],
        )

    return run


def graph_total_variation(edges):
    """Σ_e ‖w_src − w_dst‖ over edges(K); an edge between equal rows has the gradient 0."""

    def run(upstream, w):
        src, dst = edges(len(w))
        difference = w[src] - w[dst]
        length = np.sqrt(np.sum(np.square(difference), axis=1))
        pull = difference / np.where(length == 0, 1, length)[:, None]
        grad, size = np.zeros_like(w), np.zeros_like(w)
        for end, sign in ((src, 1), (dst, -1)):
            np.add.at(grad, end, sign * pull)
            np.add.at(size, end, np.abs(pull))
        total = np.sum(length)
        return Truth(total, total, (upstream * grad,), (np.abs(upstream) * norm(size),))

    return run


def dense_graph_reg(upstream, w, a):
    """The same over all entries of a dense A."""
    src, dst = np.indices(a.shape).reshape(2, -1)
    sums = graph_reg(lambda K: (src, dst))(upstream, w, a.reshape(-1))
    return Truth(
        sums.value, sums.value_scale, (sums.grads[0], sums.grads[1].reshape(a.shape)),
        sums.grad_scales,
    )  # fmt: skip


def graph_prox(edges, step):
    """(I + 4·step·L)⁻¹ W: a float64 solve, refined in long double."""

    def run(upstream, w):
        matrix = np.eye(len(w), dtype=np.longdouble)
        for i, j in zip(*edges(len(w)), strict=True):
            for here, there in ((i, j), (j, i)):
                matrix[here, here] += 2 * np.longdouble(step)
                matrix[here, there] -= 2 * np.longdouble(step)

        def solve(right):
            x = np.zeros_like(right)
            for _ in range(4):
                rest = (right - matrix @ x).astype(np.float64)
                x = x + np.linalg.solve(matrix.astype(np.float64), rest)
            return x

        return Truth(solve(w), norm(w), (solve(upstream),), (norm(upstream),))

    return run
