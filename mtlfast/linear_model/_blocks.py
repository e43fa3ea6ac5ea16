"""Inverses of the tasks' blocks, whatever the scales of their features."""

import torch

INDEFINITE = (
    "the penalties must be convex: a graph's negative weights make their sum with the loss "
    "indefinite, or strengths overflow"
)
TOO_LARGE = (
    "X, y, sample_weight and strengths must be of a size for float64, got coefficients that are "
    "not finite; rescale them"
)
SINGULAR = 1e-13  # a square of a pivot, of matrices with a diagonal of 1
_LOUD = 16.0  # times rounding
_LIFTS = (1e-11, 1e-8, 1e-5)  # what helps a diagonal of 1 where rounding made it singular


_SLICE = 1 << 22  # of the sides' cubes, in a call of LAPACK: some ten milliseconds


def in_slices(function, *batches):
    """``function`` of batches of matrices ``[K, n, ·]``: a tensor or a tuple of them.

    On the CPU some matrices at a time, for no signal is heard within a call of LAPACK, which for
    all tasks at once may take seconds. Each matrix is an answer of its own, whatever the cut.
    """
    total, n = batches[0].shape[:2]
    count = max(1, _SLICE // (n**3 + 1024))
    if total <= count or not batches[0].is_cpu:
        return function(*batches)
    outs = None
    for begin in range(0, total, count):
        found = function(*(batch[begin : begin + count] for batch in batches))
        parts = [found] if isinstance(found, torch.Tensor) else found
        outs = outs or [_batch_like(total, part) for part in parts]
        for out, part in zip(outs, parts, strict=True):
            out[begin : begin + count] = part
    return outs[0] if isinstance(found, torch.Tensor) else tuple(outs)


def _batch_like(total, part):
    """A batch of ``total`` like ``part``, column-major where LAPACK has left it so."""
    by_columns = part.dim() == 3 and part.mT.is_contiguous() and not part.is_contiguous()
    out = part.new_empty(total, *(part.mT if by_columns else part).shape[1:])
    return out.mT if by_columns else out


def ratio(part, whole):
    return abs(part) / whole if whole > 0 else (0.0 if part == 0 else float("inf"))


def apply(inverse, R):
    """Matrices ``[K, d, d]``, or diagonals ``[K, d]``, times the rows of R."""
    if inverse.dim() == 2:
        return inverse * R
    return torch.bmm(inverse, R[:, :, None])[:, :, 0]


def inverses(matrices, shift=0.0):
    """(M_k + diag(shift_k))⁻¹; of singular ones, with what little more on the diagonal helps.

    ``shift`` is ``[K, 1]`` or ``[K, d]``. Rows and columns are brought to a diagonal of 1 first,
    for features may differ in scale.
    """
    M, root = equilibrated(matrices, shift)
    factor, singular = cholesky(M)
    bad = torch.nonzero(singular)[:, 0]
    for lift in _LIFTS:
        if not bad.numel():
            break
        part = M[bad]
        part.diagonal(dim1=1, dim2=2).add_(lift)
        factor[bad], info = in_slices(torch.linalg.cholesky_ex, part)
        bad = bad[info != 0]
    if bad.numel():
        raise ValueError(INDEFINITE)
    inverse = in_slices(torch.cholesky_inverse, factor)
    inverse = inverse.div_(root[:, :, None]).div_(root[:, None])
    return inverse if inverse.is_contiguous() else inverse.mT  # LAPACK's are column-major


def cholesky(M):
    """Factors of matrices with a diagonal of 1, and which of them are singular but for rounding."""
    factor, info = in_slices(torch.linalg.cholesky_ex, M)
    return factor, (info != 0) | (factor.diagonal(dim1=1, dim2=2).amin(1).square() < SINGULAR)


def lower_solve(factor, right):
    return torch.linalg.solve_triangular(factor, right, upper=False)


def equilibrated(matrices, shift=0.0):
    """M = (G + diag(shift))_ij / (root_i root_j) with a diagonal of 1, and the roots ``[K, d]``."""
    M = matrices.clone()
    diagonal = M.diagonal(dim1=1, dim2=2)
    diagonal += shift
    if (diagonal < 0).any():
        raise ValueError(INDEFINITE)
    diagonal += diagonal == 0  # a constant feature that nothing shrinks
    root = diagonal.sqrt()
    return M.div_(root[:, :, None]).div_(root[:, None]), root


class Spectral:
    """M⁻¹ for matrices with a diagonal of 1, in factors; of singular ones, in eigenvectors.

    Eigenvalues up to n·u of the largest are rounding: a solution leaves them out. An energy counts
    them as that large; but where more is left of the last right-hand side than rounding, nothing is
    known about what its minimiser would be, and the energy is infinite.
    """

    def __init__(self, M, may_be_indefinite=False):
        self.factor, singular = cholesky(M)
        self._size = M.new_zeros(())  # of right-hand sides and their solutions
        self.many = torch.nonzero(singular)[:, 0]
        if not self.many.numel():
            return
        self.values, self.vectors = in_slices(torch.linalg.eigh, M[self.many])
        largest = self.values[:, -1:].clamp(min=0)
        self.least = M.shape[-1] * torch.finfo(M.dtype).eps * largest
        if may_be_indefinite and (self.values < -self.least).any():
            raise ValueError(INDEFINITE)

    def solve(self, r):
        """M⁻¹r for rows ``[K, n]``."""
        out = in_slices(torch.cholesky_solve, r[:, :, None], self.factor)[:, :, 0]
        if self.many.numel():
            along = apply(self.vectors.mT, r[self.many])
            keep = self.values > self.least
            along = torch.where(keep, along / torch.where(keep, self.values, 1.0), 0.0)
            out[self.many] = apply(self.vectors, along)
            size = (r.norm(dim=1, keepdim=True) + out.norm(dim=1, keepdim=True))[self.many]
            self._size = torch.maximum(self._size, size)
        return out

    def energy(self, r):
        """Σ ⟨r, M⁻¹r⟩."""
        half = in_slices(lower_solve, self.factor, r[:, :, None])
        parts = half.square().sum((1, 2))
        if self.many.numel():
            along = apply(self.vectors.mT, r[self.many])
            least = torch.where(self.least > 0, self.least, 1.0)
            some = along.square() / torch.maximum(self.values, least)
            loud = (self.values <= self.least) & (along.abs() > _LOUD * self.least * self._size)
            parts[self.many] = torch.where(loud, float("inf"), some).sum(1)
        return float(parts.sum())

    def missed(self, r):
        """The part of r that no solution accounts for, of the singular matrices."""
        return apply(self.empty(), r[self.many]) if self.many.numel() else r[:0]

    def empty(self):
        """``[many, n, n]``: projections on what the singular matrices do not have."""
        null = self.vectors * (self.values <= self.least)[:, None]
        return torch.bmm(null, self.vectors.mT)
