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


def norm(x):
    return np.sqrt(np.sum(np.square(x)))


def relative(value, *grads):
    """Errors relative to the value and to the Frobenius norm of each gradient."""
    return Truth(value, np.abs(value), grads, tuple(norm(g) for g in grads))


def mean(oracle):
    """The same, divided by the number of ordered pairs of tasks."""

    def run(upstream, w, *extras):
        pairs = max(len(w) * (len(w) - 1), 1)
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
