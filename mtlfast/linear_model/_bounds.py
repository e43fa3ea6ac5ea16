"""How far above its minimum an objective with norms may be: bounds from below by dual points.

For f convex and quadratic, f ≥ 0, and norms g_m, any Y_m in the dual balls gives

    minimum ≥ D(Y) = min over W of f(W) + Σ ⟨Y_m, A_m W⟩ = f(W) + ⟨Σ A_mᵀY_m, W⟩ − ½⟨R, H⁻¹R⟩

at any W, H the Hessian of f and R = −∇f(W) − Σ A_mᵀY_m. Where H is all but singular the last term
has no bound. There R is made part of a Y_m instead, and where that leaves its ball, by a factor
1/s, concavity helps: D(sY) ≥ s·D(Y) + (1 − s)·D(0) ≥ s·D(Y). A graph's Y reaches what adds up to 0
over each of its connected components: as flows along its edges; the sums themselves are matched by
all tasks of a component moving together.

Source: M. Massias, A. Gramfort and J. Salmon, Celer: a fast solver for the Lasso with dual
extrapolation, 2018, for dual points by scaling.
"""

import torch

from mtlfast.linear_model._blocks import apply, equilibrated, in_slices, lower_solve
from mtlfast.linear_model._coupling import sets_of
from mtlfast.linear_model._direct import Direct
from mtlfast.linear_model._hierarchy import Hierarchy
from mtlfast.linear_model._statistics import typical

_LEAST = 1e-9  # of matrices with a diagonal of 1: directions less curved go to the norms
_CURVATURE = 1e-6  # of a feature by itself: where no norm takes a direction, it counts as so curved
_HALVINGS = 60
_DIGITS = 1e-12  # to which a dual norm is found
_MISSED = 1e-10  # of the sums of moments: what rounding leaves
_VANISHED = 1e-14  # of a matrix: what a prox leaves of what it takes to 0


class Bound:
    """The Hessian of the squares and quadratic penalties, as what it bounds.

    Attributes:
        metric: the squares of a feature in a task and on average, ``[K, d]``.
    """

    def __init__(self, system):
        squares, self._direct = system.squares, system.direct if system.is_direct else None
        self.system, ridge = system, 2 * system.coupling.ridge
        diagonal = squares.diagonal()
        # a task may have no rows, or one value of a feature
        self.metric = diagonal + typical(diagonal) + ridge
        self._blocks = None
        if self._direct is None and squares.gram is not None and not system.coupling.has_negative:
            self._blocks = _StiffBlocks(squares.gram, ridge)

    @property
    def is_direct(self):
        return self._direct is not None

    def norm(self, R):
        """The length of a gradient in units in which features are alike."""
        return float((R * self.metric.rsqrt()).norm())

    def split(self, R):
        """(energy, rest): ⟨R', H⁻¹R'⟩ or more of R' = R − rest, and what H is too flat for."""
        if self._direct is not None:
            return self._direct.split(R, _LEAST)
        if self._blocks is not None:
            return self._blocks.split(R)
        return 0.0, R

    def bottom(self):
        """A bound of f from below: 0, but with negative weights that of its minimiser."""
        if not self.system.coupling.has_negative:
            return 0.0
        squares = self.system.squares
        out = self.system.solve(squares.moment, tol=1e-9, max_iter=1000)
        f = squares.loss(out.W) + self.system.coupling.value(out.W)
        return f - 0.5 * out.duals[0].energy

    def leftover(self, rest):
        """An energy of what no norm takes, which is no bound where H is flatter than it says."""
        return float((rest.square() / (_CURVATURE * self.metric)).sum())


class _StiffBlocks:
    """The tasks' blocks, which H is no smaller than."""

    def __init__(self, gram, ridge):
        matrix, self._root = equilibrated(gram, ridge)
        factor, info = in_slices(torch.linalg.cholesky_ex, matrix)
        least = factor.diagonal(dim1=1, dim2=2).amin(1).square()
        self._many = torch.nonzero((info != 0) | (least < 1e-6))[:, 0]  # pivots are no eigenvalues
        self._factor = factor
        if self._many.numel():
            self._values, self._vectors = in_slices(torch.linalg.eigh, matrix[self._many])

    def split(self, R):
        r, many = R / self._root, self._many
        half = in_slices(lower_solve, self._factor, r[:, :, None])
        parts, rest = half.square().sum((1, 2)), torch.zeros_like(R)
        if many.numel():
            along = apply(self._vectors.mT, r[many])
            stiff = self._values >= _LEAST
            some = along.square() / torch.where(stiff, self._values, float("inf"))
            parts[many] = some.sum(1)
            rest[many] = apply(self._vectors, torch.where(stiff, 0.0, along)) * self._root[many]
        return float(parts.sum()), rest


class Flows:
    """The sums of norms over the edges of a graph of few tasks: what their duals can take.

    Flows are spread as electric currents are, with resistances 1/radius²; ``some`` is a bool for
    each edge, of those that may take any.
    """

    def __init__(self, dual, system, some=None):
        self._dual, self._system = dual, system
        radius = dual.radius if some is None else dual.radius * some
        largest = float(radius.max()) if len(radius) else 0.0
        radius = (radius / largest if largest > 0 else radius).cpu()
        ties = torch.zeros((dual.num_tasks,) * 2, dtype=torch.float64, device="cpu")
        src, dst = dual.src.cpu(), dual.dst.cpu()
        ties[src, dst] = ties[dst, src] = radius.square()
        self._hierarchy = hierarchy = Hierarchy(ties.numpy())
        self._ties = ties[src, dst].to(dual.radius.device)[:, None]
        self._basis = torch.from_numpy(hierarchy.basis).to(dual.radius.device)
        laplacian = torch.from_numpy(hierarchy.laplacian)
        self._trees = int((laplacian.diagonal() == 0).sum())
        inner = laplacian[self._trees :, self._trees :]
        if len(inner):
            (self._laplacian,), (self._root,) = equilibrated(inner[None])
        linked = ties[src, dst] > 0
        self._sets = sets_of(dual.num_tasks, dual.src[linked], dual.dst[linked])
        self._moves = None  # the Hessian of components that move as one

    def take(self, rest):
        """(flows, energy, is_whole): flows whose adjoint is ``rest`` but for a part with an energy.

        ``is_whole`` is False where sums are left that nothing takes.
        """
        energy, is_whole = 0.0, True
        sums = self._sets.sums(rest)
        if sums.any():
            if self._moves is None:
                self._moves = contracted(self._system, self._sets)
            moves = self._moves
            together = self._sets.add_(torch.zeros_like(rest), moves.solve(sums))
            energy, rest = moves.energy(sums), rest - self._system.product(together)
            whole = moves.size(self._sets.sums(self._system.squares.moment.abs()))
            is_whole = moves.misses(sums) <= _MISSED * whole
        flows = torch.zeros_like(self._dual.zeros())
        if self._trees < len(self._basis):
            right = (self._basis[:, self._trees :].mT @ rest).cpu() / self._root[:, None]
            inside = torch.linalg.solve(self._laplacian, right) / self._root[:, None]
            constant = inside.new_zeros(self._trees, rest.shape[1])
            level = self._hierarchy.values(torch.cat([constant, inside]).numpy())
            flows = self._ties * self._dual.differences(torch.from_numpy(level).to(rest.device))
        return flows, energy, is_whole


def contracted(system, sets, ties=None):
    """The :class:`Direct` of sets of tasks that move together, beside ``ties`` those of Q."""
    ties = system.coupling.ties if ties is None else ties
    shape = system.coupling.num_tasks, len(sets.ptr) - 1
    P = torch.zeros(shape, dtype=torch.float64, device="cpu")
    P[sets.member.cpu(), sets.of.cpu()] = 1.0
    ties = (P.mT @ ties @ P).fill_diagonal_(0)
    size = sets.ptr.diff().double()
    return Direct(
        sets.sums(system.squares.gram), Hierarchy(ties.numpy()), 2 * system.coupling.ridge * size
    )


def dual_norm(term, Y):
    """The dual of a norm at Y, or 1 where it is less: Y is in as many times the dual ball.

    A term may have a ``dual_norm`` of its own. Else the prox tells: with the step t it takes Y to 0
    exactly where the dual norm is at most t.
    """
    known = term.dual_norm(Y)
    if known is not None:
        return max(1.0, float(known))
    least = _VANISHED * float(Y.norm())

    def holds(step):
        return float(term.prox(Y, step).norm()) <= least

    if holds(1.0):
        return 1.0
    value, square = float(term(Y)), float(Y.square().sum())
    low = max(1.0, square / value if value > 0 else 1.0)
    high = low
    for _ in range(_HALVINGS):
        if holds(high):
            break
        low, high = high, 2 * high
    else:
        return float("inf")
    while high > low * (1 + _DIGITS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
