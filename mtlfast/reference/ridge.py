"""The sum of squares of W, which pulls every task to zero, and its prox."""

import math

from mtlfast.reference._base import plain, real


@plain
def ridge_reg(w, strength=1.0):
    """strength · Σ w² as Σ (√strength·w)² in float64: in range wherever the result is."""
    return (math.sqrt(strength) * w.double()).square().sum().to(real(w).dtype)


@plain
def ridge_grad(w):
    """2 w, in the arithmetic type."""
    return 2 * real(w)


@plain
def ridge_prox(w, step):
    """w/(1 + 2·step)."""
    return (real(w) * (1 / (1 + 2 * step))).to(w.dtype)
