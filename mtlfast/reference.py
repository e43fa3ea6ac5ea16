"""Every formula in plain torch, in the order of the papers: the oracle and the fallback.

Functions named ``*_reg``, ``*_norm`` and ``*_prox`` are differentiable any number of times and work
under every torch transform. Functions named like an op of :mod:`mtlfast._ops` have that op's
signature and stand in for it where no native kernel exists. Inputs are rows ``w [K, d]`` and
have been checked. 16-bit types are computed in float32, and autocast is off.
"""

import functools

import torch


def real(w):
    """``w`` in its arithmetic type: float64 stays, everything else is float32."""
    return w if w.dtype == torch.float64 else w.float()


def plain(function):
    """Runs ``function`` with autocast off, as every formula here must."""

    @functools.wraps(function)
    def wrapper(w, *args):
        if not torch.is_autocast_enabled(w.device.type):
            return function(w, *args)
        with torch.autocast(w.device.type, enabled=False):
            return function(w, *args)

    return wrapper


def centred(w):
    """``w − w̄``, with rows first taken relative to the first: exact also for nearly equal rows."""
    shifted = w - w[:1]
    return shifted - shifted.mean(0)


@plain
def pairwise_reg(w):
    """Σ_{i≠j} ‖w_i − w_j‖² = 2K Σ_i ‖w_i − w̄‖²."""
    return 2 * w.shape[0] * centred(real(w)).square().sum()


@plain
def pairwise_grad(w):
    """4K (w_i − w̄), in the arithmetic type."""
    return 4 * w.shape[0] * centred(real(w))


@plain
def pairwise_prox(w, step):
    """w̄ + (w_i − w̄)/(1 + 4K·step), written as w_i − 4K·step/(1 + 4K·step)·(w_i − w̄)."""
    shrink = 4 * w.shape[0] * step / (1 + 4 * w.shape[0] * step)
    x = real(w)  # once: the gradients of two casts would be added up in 16 bits
    return (x - shrink * centred(x)).to(w.dtype)


@plain
def pairwise_value(w):
    x = real(w)
    if not w.shape[0]:
        return x.sum(), x.new_zeros((2, w.shape[1]))
    hi = x[0] + (x - x[:1]).mean(0)
    return pairwise_reg(w), torch.stack([hi, (x - hi).mean(0)])


@plain
def pairwise_affine(w, mean, scale, factor, add_mean):
    out = scale * factor * ((real(w) - mean[0]) - mean[1])
    return (out + mean[1] + mean[0] if add_mean else out).to(w.dtype)
