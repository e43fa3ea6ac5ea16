"""The group lasso over the columns of W, features that all tasks share, and its prox."""

import torch

from mtlfast.reference._base import plain, real


def _lengths(x):
    """‖W_·j‖; a derivative of 0, not NaN, at a zero column."""
    squares = x.square().sum(0)
    positive = squares != 0  # NaN too
    return torch.where(positive, torch.where(positive, squares, 1).sqrt(), 0)


@plain
def group_lasso(w):
    """Σ_j ‖W_·j‖₂, from W over its largest entry, so that squares stay in range."""
    x = real(w)
    if not x.numel():
        return x.sum()
    scale = x.detach().abs().amax(0)
    scale = torch.where((scale > 0) & scale.isfinite(), scale, 1)
    return (scale * _lengths(x / scale)).sum()


@plain
def group_lasso_grad(w):
    """W_·j/‖W_·j‖, 0 for a zero column, in the arithmetic type."""
    x = real(w)
    lengths = _lengths(x)
    return x / torch.where(lengths == 0, 1, lengths)


@plain
def group_lasso_prox(w, threshold):
    """(1 − t/‖W_·j‖)₊ W_·j."""
    x = real(w)
    lengths = _lengths(x)
    stays = ~(lengths <= threshold)
    factor = torch.where(stays, 1 - threshold / torch.where(stays, lengths, 1), 0)
    return (factor * x).to(w.dtype)
