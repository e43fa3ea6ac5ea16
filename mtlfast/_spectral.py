"""Which way a trace norm goes, and the way by LAPACK for matrices too large for the kernels.

float32 and 16-bit matrices go through the Gram matrix of their short side, accumulated in float64,
and its eigenvectors: as accurate as a float32 SVD and much cheaper, for the long side is only read.
float64 matrices take the SVD itself. A matrix that is not finite gives NaN, as in the kernel.
"""

import torch

_EPS = torch.finfo(torch.float64).eps
_CHUNK = 1 << 18  # elements converted to float64 at once: they stay in L2
_LARGEST = 256  # short side that the Gram kernel takes


def route(batch, rows, columns, dtype, grad=False):
    """``"jacobi"`` or ``"gram"``, the kernels, or ``"lapack"``: the fastest for a batch.

    Fitted to times in milliseconds, for sides 8 to 100,000 and batches 1 to 16,384: the Jacobi
    kernel takes as long for one matrix as for a full register of them; both kernels share a batch
    among the threads (two are assumed: the choice must not depend on their number, or the bits
    would), LAPACK does not.
    """
    short, long = min(rows, columns), max(rows, columns)
    double = dtype == torch.float64
    groups = -(-batch // (8 if grad or double else 16))
    work = 1e-6 * long * short * short
    if double:
        jacobi = 11 * work * groups / min(groups, 2)
        lapack = 0.1 + batch * (1.4e-4 * short * short + 0.4 * work)
        return "jacobi" if short <= 64 and jacobi <= lapack else "lapack"
    if short > _LARGEST:
        return "lapack"
    return "jacobi" if short <= (4 if grad else 8) and long <= 4 * short else "gram"


def _tall(w):
    return w if w.shape[-2] >= w.shape[-1] else w.mT


def _row_chunks(w):
    return w.split(max(1, _CHUNK // w.shape[-1]))


def _eigen(w):
    """Singular values, descending ones last, and right vectors of a tall matrix ``[p, q]``."""
    gram = torch.zeros((w.shape[1], w.shape[1]), dtype=torch.float64)
    for rows in _row_chunks(w):
        rows = rows.double()
        gram.addmm_(rows.mT, rows)
    if not gram.diagonal().isfinite().all():
        return None
    squares, v = torch.linalg.eigh(gram)
    noise = squares[-1] * (w.shape[0] * _EPS)
    return torch.where(squares > noise, squares, 0.0).sqrt(), v, noise


def _value_one(w, sigma, v, noise):
    """Σ σ_i; where the noise of the Gram matrix could show in the sum, from the columns of W·V."""
    error = torch.minimum(noise.sqrt(), noise / sigma).sum()
    total = sigma.sum()
    if error <= 2.0**-21 * total:
        return total
    squares = sum((rows.double() @ v).square().sum(0) for rows in _row_chunks(w))
    return squares.sqrt().sum()


def trace_norm_value(w, unit):
    """Σ σ_i of each matrix of ``w [B, m, n]``; ``unit``, if given, receives the subgradients."""
    if w.dtype == torch.float64:
        return _value_float64(w, unit)
    value = torch.full((w.shape[0],), torch.nan, dtype=torch.float64)
    cut = max(w.shape[1:]) * torch.finfo(torch.float32).eps
    for b, tall in enumerate(_tall(w)):
        eigen = _eigen(tall)
        if eigen is None:
            continue
        sigma, v, noise = eigen
        value[b] = _value_one(tall, sigma, v, noise)
        if unit is not None:
            kept = sigma > sigma[-1] * cut
            weight = torch.where(kept, 1 / torch.where(kept, sigma, 1.0), 0.0)
            _apply(tall, (v * weight) @ v.mT, _tall(unit)[b])
    return value


def trace_norm_prox(w, threshold, out):
    """The prox of each matrix of ``w [B, m, n]`` into ``out``; threshold is ``[B]``."""
    if w.dtype == torch.float64:
        return _prox_float64(w, threshold, out)
    for b, tall in enumerate(_tall(w)):
        eigen = _eigen(tall)
        result = _tall(out)[b]
        if eigen is None:
            result.fill_(torch.nan)
            continue
        sigma, v, _ = eigen
        active = sigma > threshold[b]
        weight = torch.where(active, 1 - threshold[b] / torch.where(active, sigma, 1.0), 0.0)
        # ‖weights‖ ≤ 1: the product may be taken in float32
        _apply(tall, ((v * weight) @ v.mT).float(), result)


def _apply(tall, matrix, out):
    for rows, target in zip(_row_chunks(tall), _row_chunks(out), strict=True):
        target.copy_(rows.to(matrix.dtype) @ matrix)


def _finite_float64(w):
    """Which matrices are finite, and w with zeros in place of the others."""
    finite = w.abs().amax((-2, -1)).isfinite()
    return finite, w if finite.all() else torch.where(finite[:, None, None], w, 0.0)


def _value_float64(w, unit):
    finite, x = _finite_float64(w)
    if unit is None:
        return torch.where(finite, torch.linalg.svdvals(x).sum(-1), torch.nan)
    u, sigma, vh = torch.linalg.svd(x, full_matrices=False)
    kept = sigma > sigma[:, :1] * (max(w.shape[1:]) * _EPS)
    torch.matmul(u * kept.unsqueeze(-2), vh, out=unit)
    return torch.where(finite, sigma.sum(-1), torch.nan)


def _prox_float64(w, threshold, out):
    finite, x = _finite_float64(w)
    u, sigma, vh = torch.linalg.svd(x, full_matrices=False)
    shrunk = (sigma - threshold.unsqueeze(-1)).clamp_min(0)
    torch.matmul(u * shrunk.unsqueeze(-2), vh, out=out)
    out[~finite] = torch.nan
