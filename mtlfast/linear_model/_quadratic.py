"""Sums of squares: preconditioned conjugate gradients on Gram matrices plus the relations.

The optimum of Σ_k ½⟨w_k, G_k w_k⟩ − ⟨c_k, w_k⟩ + q(W), q quadratic with Hessian Q ⊗ I, solves
(G + Q) W = C. The preconditioner inverts the blocks G_k + Q_kk I of the tasks, and beside them the
pairwise distance exactly: its Hessian 4Kρ(I − 11ᵀ/K) is a multiple of I and a matrix of rank d
(Woodbury), so that ridge and pairwise alone need one step.
"""

from dataclasses import dataclass

import torch

_INDEFINITE = (
    "the penalties must be convex: a graph's negative weights make their sum with the loss "
    "indefinite"
)
_ROUNDING = 16 * torch.finfo(torch.float64).eps


@dataclass
class Solved:
    W: torch.Tensor
    residual: float  # ‖C − (G + Q)W‖ / ‖C‖
    n_iter: int
    is_exact: bool  # the residual is that of rounding


class System:
    """(G + Q) W = C for changing C."""

    def __init__(self, squares, quadratic):
        self.squares, self.quadratic = squares, quadratic
        self._inverse = self._pull = None

    def product(self, W):
        return self.squares.product(W).add_(self.quadratic.grad(W))

    def _prepare(self):
        squares, quadratic = self.squares, self.quadratic
        shift = quadratic.diagonal(squares.device) + 4 * quadratic.pairs
        if squares.gram is None:
            diagonal = squares.diagonal() + shift[:, None]
            self._inverse = 1 / torch.where(diagonal > 0, diagonal, 1.0)
            if quadratic.pairs:
                self._pull = self._woodbury(self._inverse * squares.diagonal(), shift)
            return
        self._inverse = inverses(squares.gram, shift)
        if quadratic.pairs:
            part = torch.bmm(self._inverse, squares.gram)
            self._pull = self._woodbury(part, shift)

    def _woodbury(self, part, shift):
        """4ρ S⁻¹ with S = I − 4ρ Σ M_k⁻¹ = mean_k M_k⁻¹ (M_k − 4Kρ I), which does not cancel."""
        rho, K = self.quadratic.pairs, self.squares.num_tasks
        rest = shift - 4 * K * rho
        if part.dim() == 2:
            S = (part + self._inverse * rest[:, None]).mean(0).diag()
        else:
            S = part.mean(0) + torch.einsum("k,kij->ij", rest / K, self._inverse)
        return 4 * rho * torch.linalg.pinv(S, rtol=1e-13)

    def _blocks(self, R):
        if self._inverse.dim() == 2:
            return self._inverse * R
        return torch.bmm(self._inverse, R[:, :, None])[:, :, 0]

    def precondition(self, R):
        if self._inverse is None:
            self._prepare()
        Z = self._blocks(R)
        if self._pull is not None:
            Z += self._blocks((self._pull @ Z.sum(0)).expand_as(R))
        return Z

    def solve(self, C, *, start=None, tol, max_iter, progress=None):
        """W with ‖C − (G + Q)W‖ ≤ tol·‖C‖, or as small as the digits of W let it be."""
        norm, is_exact = float(C.norm()), False
        W = torch.zeros_like(C) if start is None else start.clone()
        R = C.clone() if start is None else C - self.product(W)
        residual, n_iter = float(R.norm()), 0
        direction = energy = None
        goal = tol * norm
        while residual > goal and n_iter < max_iter:
            Z = self.precondition(R)
            before, energy = energy, float((R * Z).sum())
            direction = Z if direction is None else Z.add_(direction, alpha=energy / before)
            image = self.product(direction)
            curvature = float((direction * image).sum())
            if curvature <= 0:
                if curvature < -1e-10 * float(direction.norm() * image.norm()):
                    raise ValueError(_INDEFINITE)
                break
            n_iter += 1
            W.add_(direction, alpha=energy / curvature)
            R.sub_(image, alpha=energy / curvature)
            residual = float(R.norm())
            if residual <= goal or n_iter % 50 == 0:  # what was updated drifts
                R = C - self.product(W)
                residual, drifted = float(R.norm()), residual
                if residual > goal and residual <= _ROUNDING * self._size(W):
                    is_exact = True
                    break
                if residual > 2 * drifted:
                    direction = None  # start anew from the true residual
            if progress is not None:
                progress(n_iter, residual / norm)
        return Solved(W, residual / norm if norm else 0.0, n_iter, is_exact)

    def _size(self, W):
        """‖diag(G + Q) W‖, by whose rounding the residual is off."""
        diagonal = self.squares.diagonal() + self.quadratic.diagonal(W.device)[:, None].abs()
        return float((diagonal * W).norm())


def inverses(gram, shift):
    """(G_k + shift_k I)⁻¹ for all k; of singular ones, with the least multiple of I that helps."""
    M = gram.clone()
    diagonal = M.diagonal(dim1=1, dim2=2)
    diagonal += shift[:, None]
    factor, info = torch.linalg.cholesky_ex(M)
    scale = diagonal.mean(1)
    small = factor.diagonal(dim1=1, dim2=2).amin(1).square() < 1e-13 * scale
    bad = torch.nonzero((info != 0) | small)[:, 0]
    if bad.numel():
        lift = 1e-11 * scale[bad] + torch.where(scale[bad] > 0, 0.0, 1.0)
        M = M[bad]
        M.diagonal(dim1=1, dim2=2).add_(lift[:, None])
        factor[bad], info = torch.linalg.cholesky_ex(M)
        if info.any():
            raise ValueError(_INDEFINITE)
    return torch.cholesky_inverse(factor)


def independent(squares, ridge):
    """The minimiser of least norm for tasks that nothing relates, directly."""
    gram, moment = squares.gram, squares.moment
    d = gram.shape[-1]
    values, vectors = torch.linalg.eigh(gram)
    values = values + 2 * ridge
    keep = values > d * torch.finfo(torch.float64).eps * values[:, -1:].clamp(min=0)
    along = torch.bmm(vectors.mT, moment[:, :, None])[:, :, 0]
    along = torch.where(keep, along / torch.where(keep, values, 1.0), 0.0)
    return torch.bmm(vectors, along[:, :, None])[:, :, 0]
