"""The group lasso over the columns of W, features that all tasks share, and its prox."""

import torch

from mtlfast.reference._base import plain, real


def _scaled(x):
    """W_·j in a scale of its own, so that squares stay in range; that scale; its length.

    The length has a derivative of 0, not NaN, at a zero column.
    """
    if not x.numel():
        return x, x.new_ones(x.shape[1]), x.square().sum(0)
    scale = x.detach().abs().amax(0)
    scale = torch.where((scale > 0) & scale.isfinite(), scale, 1)
    x = x / scale
    squares = x.square().sum(0)
    positive = squares != 0  # NaN too
    return x, scale, torch.where(positive, torch.where(positive, squares, 1).sqrt(), 0)


@plain
def group_lasso(w):
    """Σ_j ‖W_·j‖₂."""
    _, scale, lengths = _scaled(real(w))
    return (scale * lengths).sum()


@plain
def group_lasso_grad(w):
    """W_·j/‖W_·j‖, 0 for a zero column, in the arithmetic type."""
    x, _, lengths = _scaled(real(w))
    return x / torch.where(lengths == 0, 1, lengths)


@plain
def group_lasso_prox(w, threshold):
    """(1 − t/‖W_·j‖)₊ W_·j."""
    x = real(w)
    _, scale, lengths = _scaled(x)
    lengths = scale * lengths
    stays = ~(lengths <= threshold)
    factor = torch.where(stays, 1 - threshold / torch.where(stays, lengths, 1), 0)
    return (factor * x).to(w.dtype)
