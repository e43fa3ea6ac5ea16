"""The trace norm, its prox and their derivatives."""

import torch

from mtlfast.reference._base import plain, real


def wide(w):
    """``w`` in the widest arithmetic of its device: singular vectors need it near the rank cut."""
    return w.to(torch.float32 if w.device.type == "mps" else torch.float64)


def rank_cut(w, sigma):
    """σ_1·max(m, n)·eps of the arithmetic type: at or below it a singular value counts as zero."""
    return sigma.amax(-1, keepdim=True) * (max(w.shape[-2:]) * torch.finfo(real(w[:0]).dtype).eps)


def require_finite(function, w):
    """The one error of the trace-norm functions for NaN and Inf."""
    bad = ~w.isfinite()
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{function}: W must be finite, got {w[index].item()} at index {index}")


def require_threshold(threshold, function="trace_norm_prox"):
    bad = ~(threshold.isfinite() & (threshold >= 0))
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{function}: threshold must be finite and >= 0, "
            f"got {threshold[index].item()} at index {index}"
        )


def _finite(w):
    """Which matrices are finite, and ``w`` with zeros in place of the others."""
    good = w.isfinite().all(-1).all(-1)
    return good, torch.where(good[..., None, None], w, 0.0)


def _or_nan(good, result):
    """``result``, NaN for the matrices that are not good."""
    return torch.where(
        good if result.dim() == good.dim() else good[..., None, None], result, torch.nan
    )


@plain
def trace_norm(w):
    """Σ σ_i for each matrix of w [..., m, n]; singular values under the rank cut are constants."""
    if not w.numel():
        return real(w).sum((-2, -1))
    good, x = _finite(w)
    _, sigma, _ = torch.linalg.svd(wide(x), full_matrices=False)
    sigma = torch.where(sigma > rank_cut(w, sigma), sigma, sigma.detach())
    return _or_nan(good, sigma.sum(-1).to(real(w).dtype))


@plain
def trace_norm_prox(w, threshold):
    """U diag((σ − threshold)₊) Vᵀ for each matrix; threshold has the shape of the batch."""
    if not w.numel():
        return w.clone()
    good, x = _finite(w)
    good = good & threshold.isfinite() & (threshold >= 0)
    u, sigma, vh = torch.linalg.svd(wide(x), full_matrices=False)
    shrunk = (sigma - threshold.to(sigma.dtype).unsqueeze(-1)).clamp_min(0)
    return _or_nan(good, ((u * shrunk.unsqueeze(-2)) @ vh).to(w.dtype))


@plain
def trace_norm_value(w, grad, check=True):
    if check:
        require_finite("trace_norm", w)
    if not w.numel():
        return real(w).sum((-2, -1)), torch.zeros_like(w if grad else w.new_empty(0))
    good, x = _finite(w)
    u, sigma, vh = torch.linalg.svd(wide(x), full_matrices=False)
    value = _or_nan(good, sigma.sum(-1).to(real(w).dtype))
    if not grad:
        return value, w.new_empty(0)
    unit = (u * (sigma > rank_cut(w, sigma)).unsqueeze(-2)) @ vh
    return value, _or_nan(good, unit.to(w.dtype))


@plain
def trace_norm_shrink(w, threshold, check=True):
    if check:
        require_threshold(threshold)
        require_finite("trace_norm_prox", w)
    return trace_norm_prox(w, threshold)


def trace_norm_shrink_(w, threshold, check=True):
    if check:
        require_threshold(threshold, "trace_norm_prox_")
        require_finite("trace_norm_prox_", w)
    w.copy_(trace_norm_prox(w, threshold))


def spectral_derivative(svd, minus, plus, outer, direction):
    """Derivative of A ↦ U diag(h(σ)) Vᵀ in a direction: a symmetric map, so also its adjoint.

    With M = Uᵀ·direction·V, the symmetric part of M is weighted by ``minus`` = (h_i−h_j)/(σ_i−σ_j),
    the antisymmetric one by ``plus`` = (h_i+h_j)/(σ_i+σ_j), and what lies outside the column or row
    space by ``outer`` = h_j/σ_j. Nothing is divided here: the caller takes the limits.
    """
    u, _, vh = svd
    v = vh.mT
    left, right = u.mT @ direction, direction @ v
    m = left @ v
    inner = (minus * (m + m.mT) + plus * (m - m.mT)) / 2
    columns = ((right - u @ m) * outer.unsqueeze(-2)) @ vh
    rows = (u * outer.unsqueeze(-2)) @ (left - m @ vh)
    return u @ inner @ vh + columns + rows


def _pairs(values):
    return values.unsqueeze(-1), values.unsqueeze(-2)


@plain
def trace_norm_prox_grad(w, threshold, upstream):
    """Gradients of the prox in w and threshold; finite for zero and for equal singular values."""
    if not w.numel():
        return torch.zeros_like(w), torch.zeros_like(threshold)
    good, x = _finite(w)
    svd = torch.linalg.svd(wide(x), full_matrices=False)
    u, sigma, vh = svd
    g = wide(upstream)
    t = threshold.to(sigma.dtype).unsqueeze(-1)
    active = (sigma > t) | (t == 0)  # at t = 0 the prox is the identity
    h = (sigma - t).clamp_min(0)
    (h_i, h_j), (s_i, s_j), (on_i, on_j) = _pairs(h), _pairs(sigma), _pairs(active)
    both, one = on_i & on_j, on_i ^ on_j
    minus = torch.where(one, (h_i - h_j) / torch.where(one, s_i - s_j, 1.0), both.to(h.dtype))
    total = torch.where(s_i + s_j > 0, s_i + s_j, 1.0)
    plus = torch.where((s_i + s_j == 0) & both, 1.0, (h_i + h_j) / total)
    outer = torch.where((sigma == 0) & active, 1.0, h / torch.where(sigma > 0, sigma, 1.0))
    grad_w = spectral_derivative(svd, minus, plus, outer, g)
    diagonal = (u * (g @ vh.mT)).sum(-2)
    counted = (sigma > t) & (sigma > rank_cut(w, sigma))
    grad_t = -(diagonal * counted).sum(-1)
    return _or_nan(good, grad_w.to(w.dtype)), _or_nan(good, grad_t.to(threshold.dtype))


@plain
def trace_norm_hessian(w, direction):
    """Derivative of the subgradient Σ_{rank} u_i v_iᵀ in a direction: h = 1 on the rank, else 0."""
    if not w.numel():
        return torch.zeros_like(w)
    good, x = _finite(w)
    svd = torch.linalg.svd(wide(x), full_matrices=False)
    sigma = svd[1]
    active = sigma > rank_cut(w, sigma)
    h = active.to(sigma.dtype)
    (h_i, h_j), (s_i, s_j), (on_i, on_j) = _pairs(h), _pairs(sigma), _pairs(active)
    one, some = on_i ^ on_j, on_i | on_j
    minus = torch.where(one, (h_i - h_j) / torch.where(one, s_i - s_j, 1.0), 0.0)
    plus = (h_i + h_j) / torch.where(some, s_i + s_j, 1.0)
    outer = h / torch.where(active, sigma, 1.0)
    second = spectral_derivative(svd, minus, plus, outer, wide(direction))
    return _or_nan(good, second.to(w.dtype))
