"""Penalised intercepts: a constant beside the features, under the penalty like each of them."""

from dataclasses import replace

import numpy as np
import torch

PENALIZED = "penalized"


def check_intercept(function, fit_intercept):
    if isinstance(fit_intercept, (bool, np.bool_)):
        return
    if isinstance(fit_intercept, str):
        if fit_intercept == PENALIZED:
            return
        raise ValueError(
            f'{function}: fit_intercept must be True, False or "{PENALIZED}", got {fit_intercept!r}'
        )
    raise TypeError(
        f'{function}: fit_intercept must be a bool or "{PENALIZED}", '
        f"got {type(fit_intercept).__name__}"
    )


def with_constant(features, scale):
    """The features with one more column, ``scale`` in each row."""
    values = features.values
    if isinstance(values, torch.Tensor):
        values = torch.cat([values, values.new_full((len(values), 1), scale)], 1)
    else:
        from scipy import sparse

        constant = sparse.csr_matrix(np.full((values.shape[0], 1), scale))
        values = sparse.hstack([values, constant], format="csr")
    return replace(features, values=values)


def join(coef, intercept, scale):
    """Coefficients of all columns, ``[..., d+1]``, of :func:`with_constant`."""
    return torch.cat([coef, (intercept / scale).unsqueeze(-1)], -1)


def split(coef, scale):
    """(coefficients ``[..., d]``, intercepts ``[...]``): the inverse of :func:`join`."""
    return coef[..., :-1].contiguous(), scale * coef[..., -1]
