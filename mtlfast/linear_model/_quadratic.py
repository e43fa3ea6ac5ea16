"""Sums of squares with quadratic penalties: the optimum, and a bound of what it misses.

The optimum of Σ_k ½⟨w_k, G_k w_k⟩ − ⟨c_k, w_k⟩ + q(W), q quadratic with Hessian Q ⊗ I, solves
(G + Q) W = C. Few unknowns are solved for at once (``_direct``), more by conjugate gradients with
the preconditioner P of ``_preconditioner``, W in the parts that ``_coupling`` tells apart.

With the residual R the objective is ½⟨R, (G + Q)⁻¹R⟩ above its minimum. Directly solved systems
know this number; conjugate gradients bound it by ⟨R, P⁻¹R⟩ over the smallest eigenvalue of P⁻¹(G +
Q) that their own coefficients show.
"""

from dataclasses import dataclass

import torch

from mtlfast.linear_model._blocks import INDEFINITE, Spectral, apply, equilibrated, ratio
from mtlfast.linear_model._direct import MOST_NUMBERS, MOST_TASKS, Direct
from mtlfast.linear_model._preconditioner import Preconditioner

_LOOK = 50  # iterations after which the residual is formed anew
_IDLE = 3  # true residuals that did not fall, after which a solve ends
FIT = 1e-6  # of the squares at W = 0: below, an objective counts as so much


@dataclass
class Dual:
    """A dual point: R = −∇f(W) − Σ AᵀY, ⟨R, H⁻¹R⟩ or more, and how far outside its balls Y is."""

    W: torch.Tensor
    R: torch.Tensor
    energy: float
    factor: float = 1.0


@dataclass
class Solved:
    W: torch.Tensor
    gap: float  # see System.gap, or of norms how far the objective may be above its minimum
    n_iter: int
    is_exact: bool  # what is left is rounding
    duals: list  # of :class:`Dual`
    energy: object = None  # of quadratic penalties, ⟨R, H⁻¹R⟩ or more as a function of R


def gap_of(squares, energy, gained):
    """How far from the minimum an energy ⟨R, (G + Q)⁻¹R⟩ is, by the stricter of two measures.

    Its root, relative to that of C, whose square is what W = 0 is above the minimum: the error of W
    in the norm of the Hessian. And what the objective is above its minimum, relative to it, or to
    1e-6 of it at W = 0. ``gained`` is twice what W is below W = 0.
    """
    left = max(squares.yy - gained, FIT * squares.yy)
    return max(ratio(energy, max(gained, 0.0)) ** 0.5, ratio(energy, left))


class System:
    """(G + Q) W = C for changing C."""

    def __init__(self, squares, coupling):
        self.squares, self.coupling = squares, coupling
        K, d = squares.num_tasks, squares.num_features
        self.is_direct = squares.gram is not None and K <= MOST_TASKS and K * d <= MOST_NUMBERS
        self._direct = self._preconditioner = None
        self.least_eigenvalue = 1.0  # of P⁻¹(G + Q), seen so far

    @property
    def direct(self):
        if self._direct is None:
            coupling = self.coupling
            self._direct = Direct(self.squares.gram, coupling.hierarchy, 2 * coupling.ridge)
        return self._direct

    @property
    def preconditioner(self):
        if self._preconditioner is None:
            self._preconditioner = Preconditioner(self.squares, self.coupling)
        return self._preconditioner

    def product(self, W):
        return self.squares.product(W).add_(self.coupling.grad(W))

    def solve(self, C, *, start=None, tol, max_iter, progress=None, certified=True):
        """W with a gap of at most ``tol``, or as small as its digits let it be.

        Not ``certified``, a direct solution comes without a gap and what is left of its gradient.
        """
        if not C.any():
            W = torch.zeros_like(C)
            return Solved(W, 0.0, 0, True, [Dual(W, W, 0.0)], self.energy)
        if not self.is_direct:
            return self._iterate(C, start, tol, max_iter, progress)
        W = self.direct.solve(C)
        if not certified:
            return Solved(W, float("nan"), 1, True, [Dual(W, None, None)], self.energy)
        R = C - self.product(W)
        energy = self.direct.energy(R)
        gap = gap_of(self.squares, energy, float((C * W).sum()))
        return Solved(W, gap, 1, True, [Dual(W, R, energy)], self.energy)

    def energy(self, R):
        """⟨R, (G + Q)⁻¹R⟩, or more as far as it is known."""
        if self.is_direct:
            return self.direct.energy(R)
        parts = self.preconditioner.apply(R)
        return max(inner(R, parts, self.coupling.levels), 0.0) / self.least_eigenvalue

    def _iterate(self, C, start, tol, max_iter, progress):
        run, best, idle = _Gradients(self, C, start), float("inf"), 0
        while True:
            due = run.gap() <= tol or run.stands or run.n_iter >= max_iter
            if due or run.n_iter % _LOOK == _LOOK - 1:
                run.look()
            if due:
                idle = idle + 1 if run.gap() > 0.5 * best else 0
                best = min(best, run.gap())
                if run.gap() <= tol or run.stands or idle == _IDLE or run.n_iter >= max_iter:
                    break
            run.step()
            if progress is not None:
                progress(run.n_iter, run.gap())
        W, energy = self.coupling.join(run.W), run.energy / self.least_eigenvalue
        is_exact = run.stands or idle == _IDLE
        return Solved(W, run.gap(), run.n_iter, is_exact, [Dual(W, run.R, energy)], self.energy)


class _Gradients:
    """Conjugate gradients on parts, from a start."""

    def __init__(self, system, C, start):
        self.system, self.C = system, C
        self.coupling, self.squares = system.coupling, system.squares
        zero = torch.zeros_like(C)
        self.W = self.coupling.split(zero if start is None else start)
        self.n_iter, self.stands = 0, False
        self._coefficients = []  # (α, β) since the last start
        self._by_steps = system.preconditioner.is_moderate
        self.R = C.clone() if start is None else self._residual()
        self._start()
        self._gained = self.energy if start is None else system.energy(C)

    def _residual(self):
        whole = self.coupling.join(self.W)
        out = self.C - self.squares.product(whole)
        return out.sub_(self.coupling.grad_of(self.W, whole))

    def _start(self):
        self._direction, self._coefficients, self._growth = None, [], 0.0
        self._prepare()

    def _prepare(self):
        """P⁻¹R as parts, its product with G, and their share of the energy."""
        preconditioner = self.system.preconditioner
        self.Z = preconditioner.apply(self.R)
        whole = self.coupling.join(self.Z)
        if self._by_steps:
            self.image = preconditioner.image(self.R, self.Z, whole)
        else:
            self.image = self.squares.product(whole)
        self.energy = max(inner(self.R, self.Z, self.coupling.levels), 0.0)

    def gap(self):
        energy = self.energy / self.system.least_eigenvalue
        return gap_of(self.squares, energy, self._gained)

    def step(self):
        if self._direction is None:
            self._direction, self._along = self.Z, self.image
        else:
            for part, new in zip(self._direction, self.Z, strict=True):
                part.mul_(self._growth).add_(new)
            self._along.mul_(self._growth).add_(self.image)
        whole = self.coupling.join(self._direction)
        image = self.coupling.grad_of(self._direction, whole).add_(self._along)
        curvature = inner(image, self._direction, self.coupling.levels)
        if not curvature > 0:
            # without negative weights it is that of rounding
            least = -1e-10 * float(whole.norm() * image.norm())
            if curvature < least and self.coupling.has_negative:
                raise ValueError(INDEFINITE)
            self.stands = True
            return
        self.n_iter += 1
        length = self.energy / curvature
        for part, along in zip(self.W, self._direction, strict=True):
            part.add_(along, alpha=length)
        self.R.sub_(image, alpha=length)
        before = self.energy
        self._prepare()
        self._growth = self.energy / before
        self._coefficients.append((length, self._growth))
        self.stands = self.energy == 0

    def look(self):
        """Forms the residual anew, for what is updated drifts, and learns what the steps showed."""
        system, drifted = self.system, self.energy
        seen = _least_eigenvalue(self._coefficients)
        system.least_eigenvalue = min(system.least_eigenvalue, seen)
        self._gained = max(float((self.C * self.coupling.join(self.W)).sum()), 0.0)
        self.R = self._residual()
        self._prepare()
        if self.energy > 2 * drifted:  # start anew from the true residual
            self._by_steps = False
            self._start()


def inner(R, parts, levels):
    """⟨R, W⟩ for W in parts, each by itself."""
    value = float((R * parts[0]).sum())
    for level, centres in zip(levels, parts[1:], strict=True):
        value += float((level.sums(R) * centres).sum())
    return value


def _least_eigenvalue(coefficients):
    """Of the preconditioned matrix, as far as the steps of conjugate gradients have seen it."""
    if not coefficients:
        return 1.0
    alpha, beta = torch.tensor(coefficients, dtype=torch.float64, device="cpu").T
    diagonal = 1 / alpha
    diagonal[1:] += beta[:-1] / alpha[:-1]
    beside = beta[:-1].sqrt() / alpha[:-1]
    T = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
    return max(float(torch.linalg.eigvalsh(T)[0]), 1e-16)


class Independent:
    """Tasks that nothing relates, each solved by itself."""

    def __init__(self, squares, ridge):
        self.squares, self._ridge = squares, ridge
        self._matrix, self._root = equilibrated(squares.gram, 2.0 * ridge)
        self._inverse = Spectral(self._matrix)

    def solve(self):
        """A :class:`Solved` with the minimiser; of several the one of least norm."""
        W = self._minimiser()
        R = self.squares.moment - self.squares.product(W) - 2 * self._ridge * W
        energy = self.energy(R)
        gap = gap_of(self.squares, energy, float((self.squares.moment * W).sum()))
        return Solved(W, gap, 1, True, [Dual(W, R, energy)], self.energy)

    def energy(self, R):
        """⟨R, (G + 2·ridge)⁻¹R⟩."""
        return self._inverse.energy(R / self._root)

    def _minimiser(self):
        right = self.squares.moment / self._root
        w = self._inverse.solve(right)
        w += self._inverse.solve(right - apply(self._matrix, w))
        w /= self._root
        many = self._inverse.many
        if many.numel() and not self._ridge:  # the null space, in the units of W
            null = self._inverse.empty() / self._root[many, :, None]
            w[many] -= apply(null @ torch.linalg.pinv(null), w[many])
        return w
