"""Sums of squares: preconditioned conjugate gradients on Gram matrices plus the relations.

The optimum of Σ_k ½⟨w_k, G_k w_k⟩ − ⟨c_k, w_k⟩ + q(W), q quadratic with Hessian Q ⊗ I, solves
(G + Q) W = C. The preconditioner inverts the blocks G_k + Q_kk I of the tasks, and beside them the
pairwise distance and a graph of groups exactly, so that with ridge they need one step.
"""

from dataclasses import dataclass

import torch

from mtlfast.linear_model._ties import Blocks, Tied

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

    def __init__(self, squares, quadratic, *, majorises=False):
        """With ``majorises`` the preconditioner is no smaller than G + Q itself."""
        self.squares, self.quadratic, self._majorises = squares, quadratic, majorises
        self._inverse = None

    def product(self, W):
        return self.squares.product(W).add_(self.quadratic.grad(W))

    def _prepare(self):
        squares, quadratic = self.squares, self.quadratic
        device, K = squares.device, squares.num_tasks
        shift = quadratic.diagonal(device) + 4 * quadratic.pairs
        if self._majorises:  # a Laplacian is no larger than twice its diagonal
            shift += quadratic.graph_diagonal(device)
        groups = None if self._majorises else quadratic.groups()
        if groups is not None:
            graph, strength = groups
            size = torch.zeros(K, dtype=torch.float64, device=device)
            size[graph.member] = (
                graph.group_ptr.diff().double().repeat_interleave(graph.group_ptr.diff())
            )
            shift += 4 * strength * (size > 0)
        self._shift, rest = shift[:, None], shift
        gram = squares.gram
        if gram is None:
            gram = squares.diagonal()
            diagonal = gram + self._shift
            self._inverse = Blocks(1 / torch.where(diagonal > 0, diagonal, 1.0))
        else:
            self._inverse = Blocks(inverses(gram, shift))
        if groups is not None:
            rest = rest - 4 * strength * size
            sets = graph.group_ptr, graph.member
            self._inverse = Tied(self._inverse, gram, rest, 4 * strength, *sets)
        if quadratic.pairs:
            rest = rest - 4 * K * quadratic.pairs
            sets = torch.tensor([0, K], device=device), torch.arange(K, device=device)
            self._inverse = Tied(self._inverse, gram, rest, 4 * quadratic.pairs, *sets)

    def precondition(self, R):
        if self._inverse is None:
            self._prepare()
        return self._inverse.apply(R)

    def step(self, R):
        """The preconditioned R and its product with G, which needs no Gram matrices."""
        Z = self.precondition(R)
        return Z, (R - self._shift * Z).add_(self._inverse.ties(Z))

    def solve(self, C, *, start=None, tol, max_iter, progress=None):
        """W with ‖C − (G + Q)W‖ ≤ tol·‖C‖, or as small as the digits of W let it be."""
        norm, is_exact = float(C.norm()), False
        W = torch.zeros_like(C) if start is None else start.clone()
        R = C.clone() if start is None else C - self.product(W)
        residual, n_iter = float(R.norm()), 0
        direction = energy = along = None  # along: G · direction
        by_steps = self.squares.gram is not None
        goal = tol * norm
        while residual > goal and n_iter < max_iter:
            if by_steps:
                Z, image = self.step(R)
            else:
                Z = self.precondition(R)
                image = self.squares.product(Z)
            before, energy = energy, float((R * Z).sum())
            if direction is None:
                direction, along = Z, image
            else:
                direction = Z.add_(direction, alpha=energy / before)
                along = image.add_(along, alpha=energy / before)
            image = self.quadratic.grad(direction).add_(along)
            curvature = float((direction * image).sum())
            if curvature <= 0:
                # without negative weights it is that of rounding
                least = -1e-10 * float(direction.norm() * image.norm())
                if curvature < least and self.quadratic.has_negative:
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
                if residual > 2 * drifted:  # start anew from the true residual
                    direction, by_steps = None, False
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
