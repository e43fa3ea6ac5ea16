"""The pairwise distance of all tasks."""

import torch

from mtlfast.reference._base import plain, real


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
    """w̄ + (w_i − w̄)/(1 + 4K·step), written as w_i − (1 − 1/(1 + 4K·step))·(w_i − w̄)."""
    shrink = 1 - 1 / (1 + 4 * w.shape[0] * step)  # 1, not NaN, where the step overflows
    x = real(w)  # once: the gradients of two casts would be added up in 16 bits
    return (x - shrink * centred(x)).to(w.dtype)


@plain
def pairwise_value(w):
    x = real(w)
    if not w.shape[0]:
        return x.sum(), x.new_zeros((2, w.shape[1]))
    hi = x[0] + (x - x[:1]).mean(0)
    return pairwise_reg(w), torch.stack([hi, (x - hi).mean(0)])


def pairwise_value_grad(w):
    return pairwise_reg(w), pairwise_grad(w).to(w.dtype)


@plain
def pairwise_affine(w, mean, scale, factor, add_mean):
    out = scale * factor * ((real(w) - mean[0]) - mean[1])
    return (out + mean[1] + mean[0] if add_mean else out).to(w.dtype)


@plain
def pairwise_add_(out, w, mean, factor):
    """out += factor·(w − w̄)"""
    out.copy_(real(out) + factor * ((real(w) - mean[0]) - mean[1]))


@plain
def pairwise_shrink_(out, mean, factor):
    """out = w̄ + factor·(out − w̄)"""
    out.copy_(factor * ((real(out) - mean[0]) - mean[1]) + mean[1] + mean[0])
