"""Which way a trace norm goes on the CPU, and the way by torch of matrices too large for kernels.

float32 and 16-bit matrices go through the Gram matrix of their short side, accumulated in float64,
and its eigenvectors: as accurate as a float32 SVD and much cheaper, for the long side is only read.
float64 matrices take the SVD itself. A matrix that is not finite gives NaN, as in the kernels, and
so does a threshold that is negative or not finite.
"""

import torch

_EPS = torch.finfo(torch.float64).eps
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


def _limits(w):
    """Elements of the matrices decomposed at once, and of W converted to float64 at once.

    A Gram matrix on the CPU is one matrix's, from parts that stay in L2. A device takes batches, of
    which only eigenvectors and a part of W lie there in float64.
    """
    return (1, 1 << 18) if w.is_cpu and w.dtype != torch.float64 else (1 << 26, 1 << 24)


def _tall(w):
    return w if w.shape[-2] >= w.shape[-1] else w.mT


def _slices(w, *others):
    """Slices of a batch, and those of other tensors that belong to them."""
    count = max(1, _limits(w)[0] // (w.shape[-2] * w.shape[-1]))
    return zip(*(t.split(count) for t in (w, *others)), strict=True)


def _row_chunks(w):
    return w.split(max(1, _limits(w)[1] // (len(w) * w.shape[-1])), dim=-2)


def _eigen(w):
    """Singular values, descending ones last, and right vectors of tall matrices ``[B, p, q]``."""
    gram = w.new_zeros((len(w), w.shape[-1], w.shape[-1]), dtype=torch.float64)
    for rows in _row_chunks(w):
        rows = rows.double()
        gram.baddbmm_(rows.mT, rows)
    finite = gram.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)  # squares of float32 are
    squares, v = torch.linalg.eigh(torch.where(finite[:, None, None], gram, 0.0))
    noise = squares[:, -1:] * (w.shape[-2] * _EPS)
    return finite, torch.where(squares > noise, squares, 0.0).sqrt(), v, noise


def _sums(w, sigma, v, noise):
    """Σ σ_i; where the noise of a Gram matrix could show in the sum, from the columns of W·V."""
    error = torch.minimum(noise.sqrt(), noise / sigma).sum(-1)
    total = sigma.sum(-1)
    safe = error <= 2.0**-21 * total
    if safe.all():
        return total
    squares = sum((rows.double() @ v).square().sum(-2) for rows in _row_chunks(w))
    return torch.where(safe, total, squares.sqrt().sum(-1))


def trace_norm_value(w, unit):
    """Σ σ_i of each matrix of ``w [B, m, n]``; ``unit``, if given, receives the subgradients."""
    value = w.new_empty(len(w), dtype=torch.float64)
    one_slice = _value_float64 if w.dtype == torch.float64 else _value
    for part, total, target in _slices(w, value, w if unit is None else unit):
        total.copy_(one_slice(part, None if unit is None else target))
    return value


def trace_norm_prox(w, threshold, out):
    """The prox of each matrix of ``w [B, m, n]`` into ``out``; threshold is ``[B]``.

    ``out`` may be ``w``: it is written to once nothing is left to be allocated.
    """
    one_slice = _prox_float64 if w.dtype == torch.float64 else _prox
    slices = list(_slices(w, threshold.unsqueeze(-1)))
    aside = len(slices) > 1 and out.data_ptr() == w.data_ptr()
    result = torch.empty_like(w) if aside else out
    for (part, t), target in zip(slices, result.split(len(slices[0][0])), strict=True):
        one_slice(part, t, target)
    if aside:
        out.copy_(result)


def _illegal(finite, threshold):
    """Which matrices become NaN, ``[B, 1, 1]``."""
    return ~(finite & (threshold.isfinite() & (threshold >= 0)).squeeze(-1))[:, None, None]


def _value(w, unit):
    tall = _tall(w)
    finite, sigma, v, noise = _eigen(tall)
    value = _sums(tall, sigma, v, noise)
    if unit is not None:
        kept = sigma > sigma[:, -1:] * (max(w.shape[1:]) * torch.finfo(torch.float32).eps)
        weight = torch.where(kept, 1 / torch.where(kept, sigma, 1.0), 0.0)
        _apply(tall, (v * weight.unsqueeze(-2)) @ v.mT, _tall(unit))
        unit.masked_fill_(~finite[:, None, None], torch.nan)
    return torch.where(finite, value, torch.nan)


def _prox(w, threshold, out):
    tall = _tall(w)
    finite, sigma, v, _ = _eigen(tall)
    active = sigma > threshold
    weight = torch.where(active, 1 - threshold / torch.where(active, sigma, 1.0), 0.0)
    matrix = (v * weight.unsqueeze(-2)) @ v.mT
    bad = _illegal(finite, threshold)
    # ‖weights‖ ≤ 1: the product may be taken in float32, but a device might make TF32 of it
    _apply(tall, matrix.float() if w.is_cpu else matrix, _tall(out))
    out.masked_fill_(bad, torch.nan)


def _apply(tall, matrix, out):
    """``out``, which may be ``tall``, becomes ``tall @ matrix``: all memory is there before."""
    chunks = _row_chunks(tall)
    product = torch.empty_like(chunks[0], dtype=matrix.dtype, memory_format=torch.contiguous_format)
    wide = None if tall.dtype == matrix.dtype else torch.empty_like(product)
    for rows, target in zip(chunks, _row_chunks(out), strict=True):
        count = rows.shape[-2]
        if wide is not None:
            rows = wide[..., :count, :].copy_(rows)
        target.copy_(torch.matmul(rows, matrix, out=product[..., :count, :]))


def _finite_float64(w):
    """Which matrices are finite, and w with zeros in place of the others."""
    finite = w.abs().amax((-2, -1)).isfinite()
    return finite, torch.where(finite[:, None, None], w, 0.0)


def _value_float64(w, unit):
    finite, x = _finite_float64(w)
    if unit is None:
        return torch.where(finite, torch.linalg.svdvals(x).sum(-1), torch.nan)
    u, sigma, vh = torch.linalg.svd(x, full_matrices=False)
    kept = sigma > sigma[:, :1] * (max(w.shape[1:]) * _EPS)
    torch.matmul(u * kept.unsqueeze(-2), vh, out=unit)
    unit.masked_fill_(~finite[:, None, None], torch.nan)
    return torch.where(finite, sigma.sum(-1), torch.nan)


def _prox_float64(w, threshold, out):
    finite, x = _finite_float64(w)
    u, sigma, vh = torch.linalg.svd(x, full_matrices=False)
    u *= (sigma - threshold).clamp_min(0).unsqueeze(-2)
    bad = _illegal(finite, threshold)
    torch.matmul(u, vh, out=out)
    out.masked_fill_(bad, torch.nan)
