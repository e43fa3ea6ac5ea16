"""Lengths and scaling of W's columns as torch calls, for every device without a kernel for them."""

import math

import torch

from mtlfast.reference import real


def scale_of(x):
    """A power of two by which squares of x stay in range; 1 where they do anyway."""
    largest = float(x.abs().max()) if x.numel() else 0.0
    exponent = math.frexp(largest)[1]
    return 1.0 if largest == 0 or abs(exponent) < 400 else math.ldexp(1.0, -max(exponent, -1000))


def column_lengths(w):
    """‖W_·j‖ in float64."""
    if w.dtype != torch.float64 or not w.numel():  # no square of another type leaves its range
        return torch.linalg.vector_norm(w, dim=0, dtype=torch.float64)
    exponent = torch.frexp(w.abs().amax(0).nan_to_num(1, 1)).exponent.clamp(-1000, 1000)
    scale = torch.ldexp(torch.ones_like(w[0]), -exponent)
    return torch.linalg.vector_norm(w * scale, dim=0) / scale


def _scaled(w, factor):
    x = real(w)
    return x * factor.to(x.dtype)


def column_scale(w, factor):
    """factor_j W_·j."""
    return _scaled(w, factor).to(w.dtype).contiguous()


def column_scale_(w, factor):
    w.copy_(_scaled(w, factor))


def column_add_(out, w, factor):
    """out_·j += factor_j W_·j."""
    out.copy_(real(out) + _scaled(w, factor))
