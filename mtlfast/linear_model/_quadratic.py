"""Sums of squares: preconditioned conjugate gradients on Gram matrices plus the relations.

The optimum of Σ_k ½⟨w_k, G_k w_k⟩ − ⟨c_k, w_k⟩ + q(W), q quadratic with Hessian Q ⊗ I, solves
(G + Q) W = C. The preconditioner inverts the blocks G_k + Q_kk I of the tasks, and beside them the
pairwise distance and a graph of groups exactly, so that with ridge they need one step.

Residuals are relative to C in the Euclidean norm and in the one that the preconditioner P gives,
√⟨R, P⁻¹R⟩, and the larger one counts. The square of the second is the error of the objective,
relative to what there is to gain over W = 0, as far as P is G + Q, whatever the scales of tasks and
features; the first says little about a feature that is small beside another.
"""

from dataclasses import dataclass

import torch

from mtlfast.linear_model._ties import Blocks, Tied

_INDEFINITE = (
    "the penalties must be convex: a graph's negative weights make their sum with the loss "
    "indefinite, or strengths overflow"
)
_ROUNDING = 16 * torch.finfo(torch.float64).eps


@dataclass
class Solved:
    W: torch.Tensor
    residual: float  # ‖C − (G + Q)W‖ / ‖C‖, the larger of two norms
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
            self._inverse = Blocks(inverses(gram, shift[:, None]))
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

    def relative(self, R, C):
        """The residual R relative to C, the larger of two norms."""
        energy, whole = (max(float((X * self.precondition(X)).sum()), 0.0) for X in (R, C))
        return max(ratio(float(R.norm()), float(C.norm())), ratio(energy, whole) ** 0.5)

    def _stepped(self, R, by_steps):
        """The preconditioned R, its product with G, and their share of the energy."""
        if by_steps:
            Z, image = self.step(R)
        else:
            Z = self.precondition(R)
            image = self.squares.product(Z)
        return Z, image, max(float((R * Z).sum()), 0.0)

    def solve(self, C, *, start=None, tol, max_iter, progress=None):
        """W with a relative residual of at most ``tol``, or as small as its digits let it be."""
        norm = float(C.norm())
        if norm == 0:
            return Solved(torch.zeros_like(C), 0.0, 0, True)
        W = torch.zeros_like(C) if start is None else start.clone()
        by_steps, is_exact, n_iter = self.squares.gram is not None, False, 0
        R = C.clone() if start is None else C - self.product(W)
        Z, image, energy = self._stepped(R, by_steps)
        whole = energy if start is None else float((C * self.precondition(C)).sum())

        def now():
            return max(ratio(float(R.norm()), norm), ratio(energy, whole) ** 0.5)

        residual = now()
        direction, along, growth = None, None, 0.0  # along: G · direction
        while residual > tol and energy != 0 and n_iter < max_iter:
            if direction is None:
                direction, along = Z, image
            else:
                direction = Z.add_(direction, alpha=growth)
                along = image.add_(along, alpha=growth)
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
            drifted = float(R.norm())
            looks = drifted <= tol * norm or n_iter % 50 == 0
            if looks:  # what was updated drifts
                R = C - self.product(W)
                if float(R.norm()) > 2 * drifted:  # start anew from the true residual
                    direction, by_steps = None, False
            Z, image, new = self._stepped(R, by_steps)
            growth, energy = new / energy, new
            residual = now()
            is_exact = looks and residual > tol and self._is_rounding(R, energy, W)
            if is_exact:
                break
            if progress is not None:
                progress(n_iter, residual)
        return Solved(W, residual, n_iter, is_exact)

    def _is_rounding(self, R, energy, W):
        """Whether the residual R at W is no more than what diag(G + Q) W is rounded by."""
        diagonal = self.squares.diagonal() + self.quadratic.diagonal(W.device)[:, None].abs()
        least = _ROUNDING * diagonal * W.abs()
        if float(R.norm()) > float(least.norm()):
            return False
        return energy <= float((least * self.precondition(least)).sum())


def ratio(part, whole):
    return abs(part) / whole if whole > 0 else (0.0 if part == 0 else float("inf"))


def inverses(gram, shift):
    """(G_k + diag(shift_k))⁻¹; of singular ones, with what little more on the diagonal helps.

    ``shift`` is ``[K, 1]`` or ``[K, d]``. Rows and columns are brought to a diagonal of 1 first,
    for features may differ in scale.
    """
    M, root = _equilibrated(gram, shift)
    factor, singular = _cholesky(M)
    bad = torch.nonzero(singular)[:, 0]
    if bad.numel():
        M = M[bad]
        M.diagonal(dim1=1, dim2=2).add_(1e-11)
        factor[bad], info = torch.linalg.cholesky_ex(M)
        if info.any():
            raise ValueError(_INDEFINITE)
    inverse = torch.cholesky_inverse(factor)
    return inverse.div_(root[:, :, None]).div_(root[:, None])


def _cholesky(M):
    """Factors of matrices with a diagonal of 1, and which of them are singular but for rounding."""
    factor, info = torch.linalg.cholesky_ex(M)
    return factor, (info != 0) | (factor.diagonal(dim1=1, dim2=2).amin(1).square() < 1e-13)


def _equilibrated(gram, shift):
    """M = (G + diag(shift))_ij / (root_i root_j) with a diagonal of 1, and the roots ``[K, d]``."""
    M = gram.clone()
    diagonal = M.diagonal(dim1=1, dim2=2)
    diagonal += shift
    if (diagonal < 0).any():
        raise ValueError(_INDEFINITE)
    diagonal += diagonal == 0  # a constant feature that nothing shrinks
    root = diagonal.sqrt()
    return M.div_(root[:, :, None]).div_(root[:, None]), root


def independent(squares, ridge):
    """The minimiser for tasks that nothing relates, directly; of several the one of least norm."""
    gram, moment = squares.gram, squares.moment
    M, root = _equilibrated(gram, gram.new_full((len(gram), 1), 2.0 * ridge))
    factor, singular = _cholesky(M)
    W = torch.cholesky_solve((moment / root)[:, :, None], factor)[:, :, 0] / root
    many = torch.nonzero(singular)[:, 0]
    if not many.numel():
        return W
    values, vectors = torch.linalg.eigh(gram[many])
    values = values + 2 * ridge
    keep = values > values.shape[1] * torch.finfo(values.dtype).eps * values[:, -1:].clamp(min=0)
    along = torch.bmm(vectors.mT, moment[many, :, None])[:, :, 0]
    along = torch.where(keep, along / torch.where(keep, values, 1.0), 0.0)
    W[many] = torch.bmm(vectors, along[:, :, None])[:, :, 0]
    return W
