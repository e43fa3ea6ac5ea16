"""Norms beside a quadratic: the alternating direction method, and accelerated proximal gradients.

minimise f(W) + Σ_m g_m(A_m W), f the squares and the quadratic penalties with Hessian H, g_m a norm
with A_m = I or the differences over the edges of a graph. In the scaled duals U_m the alternating
direction method is

    U_m ← V − prox_{g_m/ρ}(V),  V = U_m + A_m W
    W   ← W + (H + ρ Σ A_mᵀA_m)⁻¹ (C − H W − ρ Σ A_mᵀ(2 U_m − U_m before))

The duals Y_m = ρ U_m lie in the dual balls at every step. Where C − H W = Σ A_mᵀ Y_m, W minimises
the Lagrangian, and Σ g_m(A_m W) − ⟨Y_m, A_m W⟩ is the duality gap: both are asked for.

Source: S. Boyd et al., Distributed Optimization and Statistical Learning via the Alternating
Direction Method of Multipliers, 2011, sections 3.3 and 3.4; A. Beck and M. Teboulle, A Fast
Iterative Shrinkage-Thresholding Algorithm, 2009; B. O'Donoghue and E. Candès, Adaptive Restart for
Accelerated Gradient Schemes, 2015.
"""

from dataclasses import dataclass

import torch

from mtlfast._edge_dual import EdgeDual
from mtlfast.graph import graph_reg
from mtlfast.linear_model._quadratic import System, ratio
from mtlfast.linear_model._statistics import like_scales

_INNER = 0.1  # how far conjugate gradients bring down the residual of one step
_CHECK = 10  # steps between two looks at the gap
_LEAST = 0.03  # of the norm of W: below, differences over edges count as closed
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

    def step(self, W, rho, look):
        """The step on U, and Aᵀ(A W − Z + U), by which W misses its target."""
        before = self.U.clone() if look else None
        self.U += _RELAX * W + (1 - _RELAX) * self.Z
        self.Z = self.term.prox(self.U, 1.0 / rho)
        self.U -= self.Z
        if look:
            self.primal = ratio(float(torch.dist(self.U, before)), float(W.norm()))
        return W - self.Z + self.U

    def adjoint(self):
        return self.U

    def value(self, W):
        return float(self.term(W))

    def quadratic(self, rho):
        return {"ridge": rho / 2}


class _Edges:
    """A sum of norms of differences over the edges of a graph."""

    def __init__(self, term, W):
        graph = term._task_graph(W).to(W.device)
        strength = term._factor(graph)
        self.dual = EdgeDual(graph, W.shape[1], strength=strength, function=type(term).__name__)
        self.U, self.graph = self.dual.zeros(), self.dual.laplacian()
        self.weight = max(1.0, 2 * self.dual.num_edges / max(1, self.dual.num_tasks))

    def step(self, W, rho, look):
        before = self.U.clone() if look else None
        out = self.dual.step_(self.U, W, 1.0 / rho)
        if look:
            # where every edge closes, A W tends to 0: then a share of W is the measure, or the
            # penalty ρ would grow without end
            least = _LEAST * self.weight**0.5 * float(W.norm())
            length = max(float(graph_reg(W, self.graph)) ** 0.5, least)
            self.primal = ratio(float(torch.dist(self.U, before)), length)
        return out

    def adjoint(self):
        return self.dual.adjoint(self.U)

    def value(self, W):
        return self.dual.value(W)

    def quadratic(self, rho):
        return {"graphs": [(self.graph, rho / 2)]}


def _with(quadratic, blocks, rho):
    for block in blocks:
        quadratic = quadratic.plus(**block.quadratic(rho))
    return quadratic


class _Look:
    """The gap and the residuals at W, with the duals of the blocks."""

    def __init__(self, squares, quadratic, scales, blocks, W, product, rho):
        pull = rho * sum(block.adjoint() for block in blocks)
        miss = squares.moment - product - quadratic.grad(W) - pull
        self.smooth = squares.loss(W, product) + quadratic.value(W)
        self.lagrangian = self.smooth + float((pull * W).sum())
        whole = float((scales * squares.moment).norm())
        self.stationary = ratio(float((scales * miss).norm()), whole)
        # of a perfect fit the objective tends to 0, and no gap is small beside it
        self.least = _FIT * 0.5 * squares.yy
        self.gap = self.above(self.smooth + sum(block.value(W) for block in blocks))
        self.primal = max(block.primal for block in blocks)
        pulled = max(float(pull.norm()), _LEAST * float(squares.moment.norm()))
        self.dual = ratio(float(miss.norm()), pulled)

    def above(self, objective):
        gap = ratio(objective - self.lagrangian, max(objective, self.least))
        return max(gap, self.stationary)


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
    scales = _scales(squares, quadratic)
    balance, result = _CHECK, None
    for n_iter in range(1, max_iter + 1):
        looks = n_iter % _CHECK == 0 or n_iter == max_iter
        miss = squares.moment - image - quadratic.grad(W)
        for block in blocks:
            miss.sub_(block.step(W, rho, looks), alpha=rho)
        if in_one:
            change, image_of_change = system.step(miss)
            W, image = W + change, image + image_of_change
        else:
            W = W + system.solve(miss, tol=_INNER, max_iter=50).W
            image = squares.product(W)
        if not looks:
            continue
        image = squares.product(W)  # what was updated drifts
        look = _Look(squares, quadratic, scales, blocks, W, image, rho)
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
    scales = _scales(squares, quadratic)
    V, t, norm, gap = W, 1.0, float((scales * squares.moment).norm()), float("inf")
    for n_iter in range(1, max_iter + 1):
        slope = system.product(V) - squares.moment
        Z = term.prox(V - slope / L, 1.0 / L)
        moved = V - Z
        if float((moved * (Z - W)).sum()) > 0:
            t = 1.0  # restart: momentum points uphill
        if n_iter % _CHECK == 0 or n_iter == max_iter:
            # L(V − Z) − slope is a subgradient of the norm at Z
            subgradient = L * moved - system.product(moved)
            gap = ratio(float((scales * subgradient).norm()), norm)
            if progress is not None:
                progress(n_iter, gap)
        later = (1 + (1 + 4 * t * t) ** 0.5) / 2
        V, W, t = Z + (t - 1) / later * (Z - W), Z, later
        if gap <= tol:
            break
    return Split(W, gap, n_iter)


def _scales(squares, quadratic):
    """Factors with which the features and tasks of a gradient count alike."""
    return like_scales(squares.diagonal() + quadratic.diagonal(squares.device)[:, None])


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
