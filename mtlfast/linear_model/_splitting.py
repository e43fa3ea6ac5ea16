"""Norms beside a quadratic: the alternating direction method, and accelerated proximal gradients.

minimise f(W) + Σ_m g_m(A_m W), f the squares and the quadratic penalties with Hessian H, g_m a norm
with A_m = I or the differences over the edges of a graph. In the scaled duals U_m the alternating
direction method is

    U_m ← V − prox_{g_m/ρ}(V),  V = U_m + A_m W
    W   ← W + (H + ρ Σ A_mᵀA_m)⁻¹ (C − H W − ρ Σ A_mᵀ(2 U_m − U_m before))

The duals Y_m = ρ U_m lie in the dual balls at every step. The Lagrangian f(W) + Σ ⟨Y_m, A_m W⟩ has
the gradient −R, R = C − H W − Σ A_mᵀ Y_m, and its minimum over W, ½⟨R, H⁻¹R⟩ below its value, is a
bound from below of the objective's. Of H the blocks of the tasks are taken, which it is no smaller
than, and a millionth of their diagonals more, for they may be singular. ρ is brought to where the
relative residuals of Z − A W and of R are alike, in units in which features are.

Source: S. Boyd et al., Distributed Optimization and Statistical Learning via the Alternating
Direction Method of Multipliers, 2011, sections 3.3 and 3.4; A. Beck and M. Teboulle, A Fast
Iterative Shrinkage-Thresholding Algorithm, 2009; B. O'Donoghue and E. Candès, Adaptive Restart for
Accelerated Gradient Schemes, 2015.
"""

from dataclasses import dataclass

import torch

from mtlfast._edge_dual import EdgeDual
from mtlfast.graph import graph_reg
from mtlfast.linear_model._quadratic import System, inverses, ratio
from mtlfast.linear_model._statistics import typical
from mtlfast.linear_model._ties import Blocks

_INNER = 0.1  # how far conjugate gradients bring down the residual of one step
_CHECK = 10  # steps between two looks at the gap
_LEAST = 0.03  # of the norm of W: below, differences over edges count as closed
_CURVATURE = 1e-6  # of a feature by itself: a direction counts as curved by no less
_FIT = 1e-6  # of the squares at W = 0: below, an objective counts as so much
_RELAX = 1.6  # over-relaxation of the norms of W


@dataclass
class Split:
    W: torch.Tensor
    gap: float
    n_iter: int


class _Norm:
    """A norm of W itself; Z is what its prox gave last."""

    weight = 1.0  # the mean of the diagonal of AᵀA

    def __init__(self, term, W):
        self.term = term
        self.U, self.Z = torch.zeros_like(W), W.clone()

    def step(self, W, rho, metric=None):
        """The step on U, and Aᵀ(A W − Z + U), by which W misses its target.

        With a metric, the squares of features by themselves, ``primal`` is by how much A W and Z
        differ, relative to A W.
        """
        before = None if metric is None else self.U.clone()
        self.U += _RELAX * W + (1 - _RELAX) * self.Z
        self.Z = self.term.prox(self.U, 1.0 / rho)
        self.U -= self.Z
        if metric is not None:
            root = metric.sqrt()
            self.primal = ratio(float((root * (self.U - before)).norm()), float((root * W).norm()))
        return W - self.Z + self.U

    def adjoint(self):
        return self.U

    def value(self, W):
        return float(self.term(W))

    def rounding(self, W):
        """By how much that may be off, where it is more than the last digit of the result."""
        return 0.0

    def quadratic(self, rho):
        return {"ridge": rho / 2}


class _Edges:
    """A sum of norms of differences over the edges of a graph."""

    def __init__(self, term, W):
        self.dual = EdgeDual(
            term.graph.to(W.device), W.shape[1], strength=term.strength, function=term.name
        )
        self.U, self.graph = self.dual.zeros(), self.dual.laplacian()
        self.weight = max(1.0, 2 * self.dual.num_edges / max(1, self.dual.num_tasks))
        radius, ends = self.dual.radius, (self.dual.src, self.dual.dst)
        self.pull = sum(W.new_zeros(len(W)).index_add_(0, end, radius) for end in ends)

    def step(self, W, rho, metric=None):
        before = None if metric is None else self.U.clone()
        out = self.dual.step_(self.U, W, 1.0 / rho)
        if metric is not None:
            root = metric.mean(0).sqrt()
            # where every edge closes, A W tends to 0: then a share of W is the measure, or the
            # penalty ρ would grow without end
            least = _LEAST * self.weight**0.5 * float((root * W).norm())
            length = max(float(graph_reg(root * W, self.graph)) ** 0.5, least)
            self.primal = ratio(float((root * (self.U - before)).norm()), length)
        return out

    def adjoint(self):
        return self.dual.adjoint(self.U)

    def value(self, W):
        return self.dual.value(W)

    def rounding(self, W):
        """Differences of tasks that agree are those of their last digits."""
        return torch.finfo(W.dtype).eps * float((self.pull * W.norm(dim=1)).sum())

    def quadratic(self, rho):
        return {"graphs": [(self.graph, rho / 2)]}


def _with(quadratic, blocks, rho):
    for block in blocks:
        quadratic = quadratic.plus(**block.quadratic(rho))
    return quadratic


class Bound:
    """How far below its value a convex quadratic with the Hessian H can fall, given its gradient.

    ½⟨R, M⁻¹R⟩ with M no larger than H but for a millionth of ``metric``, the squares of a feature
    in a task and on average. Where Gram matrices are too many, or edges have negative weights, M is
    that millionth alone.
    """

    def __init__(self, squares, quadratic):
        diagonal = squares.diagonal()
        # a task may have no rows, or one value of a feature
        self.metric = diagonal + typical(diagonal) + 2 * quadratic.ridge
        least = _CURVATURE * self.metric + 2 * quadratic.ridge
        if squares.gram is None or quadratic.has_negative:
            self._inverse = Blocks(1 / least)
        else:
            self._inverse = Blocks(inverses(squares.gram, least))

    def __call__(self, R):
        return 0.5 * float((R * self._inverse.apply(R)).sum())

    def norm(self, R):
        """The length of a gradient in units in which features are alike."""
        return float((R * self.metric.rsqrt()).norm())


class _Look:
    """How far above its minimum the objective may be at W, given the duals of the blocks."""

    def __init__(self, squares, quadratic, bound, blocks, W, product, rho):
        pull = rho * sum(block.adjoint() for block in blocks)
        miss = squares.moment - product - quadratic.grad(W) - pull
        self.smooth = squares.loss(W, product) + quadratic.value(W)
        self.least = self.smooth + float((pull * W).sum()) - bound(miss)
        self.rounding = sum(block.rounding(W) for block in blocks)
        # of a perfect fit the objective tends to 0, and no gap is small beside it
        self.floor = _FIT * 0.5 * squares.yy
        self.gap = self.above(self.smooth + sum(block.value(W) for block in blocks))
        self.primal = max(block.primal for block in blocks)
        whole = max(bound.norm(pull), _LEAST * bound.norm(squares.moment))
        self.dual = ratio(bound.norm(miss), whole)

    def above(self, objective):
        above = max(objective - self.least - self.rounding, 0.0)
        return ratio(above, max(objective, self.floor))


def admm(squares, penalty, *, tol, max_iter, start=None, progress=None):
    """The optimum for any sum of norms, see above."""
    quadratic = penalty.quadratic
    W = torch.zeros_like(squares.moment) if start is None else start.clone()
    blocks = [_Norm(term, W) for term in penalty.norms]
    blocks += [_Edges(term, W) for term in penalty.edges]
    mean = float(squares.diagonal().mean()) + 2 * quadratic.ridge
    rho = (mean if mean > 0 else 1.0) / max(block.weight for block in blocks)
    # With Gram matrices and no graph among the squares, blocks that majorise the edges' Laplacian
    # take the place of the exact inverse: more steps, each several times cheaper.
    in_one = squares.gram is not None and not quadratic.graphs
    system = System(squares, _with(quadratic, blocks, rho), majorises=in_one)
    image = squares.product(W)
    if start is not None and len(blocks) == 1 and penalty.norms:
        # the subgradient that the optimality of a like problem left here
        blocks[0].U = (squares.moment - image - quadratic.grad(W)) / rho
    bound = Bound(squares, quadratic)
    balance, result = _CHECK, None
    for n_iter in range(1, max_iter + 1):
        looks = n_iter % _CHECK == 0 or n_iter == max_iter
        miss = squares.moment - image - quadratic.grad(W)
        for block in blocks:
            miss.sub_(block.step(W, rho, bound.metric if looks else None), alpha=rho)
        if in_one:
            change, image_of_change = system.step(miss)
            W, image = W + change, image + image_of_change
        else:
            W = W + system.solve(miss, tol=_INNER, max_iter=50).W
            image = squares.product(W)
        if not looks:
            continue
        image = squares.product(W)  # what was updated drifts
        look = _Look(squares, quadratic, bound, blocks, W, image, rho)
        result = Split(W, look.gap, n_iter)
        if len(blocks) == 1 and penalty.norms:  # whose prox leaves exact zeros
            Z = blocks[0].Z
            value = squares.loss(Z) + quadratic.value(Z) + blocks[0].value(Z)
            result = Split(Z, look.above(value), n_iter)
        if progress is not None:
            progress(n_iter, result.gap)
        if result.gap <= tol:
            break
        if n_iter >= balance:
            balance *= 2
            factor = min(10.0, max(0.1, (look.primal / max(look.dual, 1e-300)) ** 0.5))
            if not 0.7 < factor < 1.5:
                rho *= factor
                for block in blocks:
                    block.U /= factor
                system = System(squares, _with(quadratic, blocks, rho), majorises=in_one)
    return result


def fista(squares, penalty, *, tol, max_iter, start=None, progress=None):
    """The optimum for one norm of W, by accelerated proximal gradients with restarts."""
    (term,), quadratic = penalty.norms, penalty.quadratic
    system = System(squares, quadratic)
    L = _largest(system)
    W = torch.zeros_like(squares.moment) if start is None else start.clone()
    bound, floor = Bound(squares, quadratic), _FIT * 0.5 * squares.yy
    V, t, gap = W, 1.0, float("inf")
    for n_iter in range(1, max_iter + 1):
        slope = system.product(V) - squares.moment
        Z = term.prox(V - slope / L, 1.0 / L)
        moved = V - Z
        if float((moved * (Z - W)).sum()) > 0:
            t = 1.0  # restart: momentum points uphill
        if n_iter % _CHECK == 0 or n_iter == max_iter:
            # L(V − Z) − slope is a subgradient of the norm at Z, and this one of the objective
            subgradient = L * moved - system.product(moved)
            objective = squares.loss(Z) + quadratic.value(Z) + float(term(Z))
            gap = ratio(bound(subgradient), max(objective, floor))
            if progress is not None:
                progress(n_iter, gap)
        later = (1 + (1 + 4 * t * t) ** 0.5) / 2
        V, W, t = Z + (t - 1) / later * (Z - W), Z, later
        if gap <= tol:
            break
    return Split(W, gap, n_iter)


def _largest(system):
    """A bound of the largest eigenvalue of H, by a power iteration."""
    W = torch.randn(system.squares.moment.shape, generator=torch.Generator().manual_seed(0))
    W = W.to(system.squares.moment)
    value = 0.0
    for _ in range(30):
        W = W / W.norm().clamp(min=1e-300)
        W, before = system.product(W), value
        value = float(W.norm())
        if abs(value - before) <= 1e-3 * value:
            break
    return 1.02 * value if value > 0 else 1.0
