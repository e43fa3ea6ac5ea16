"""Norms beside a quadratic, by the alternating direction method.

minimise f(W) + Σ_m g_m(A_m W), f the squares and the quadratic penalties with Hessian H, g_m a norm
with A_m = I or the differences over the edges of a graph. In the scaled duals U_m the alternating
direction method is

    U_m ← V − prox_{g_m/ρ}(V),  V = U_m + A_m W
    W   ← W + (H + ρ Σ A_mᵀA_m)⁻¹ (C − H W − ρ Σ A_mᵀ(2 U_m − U_m before))

The duals Y_m = ρ U_m lie in the dual balls at every step, so that each look gives a bound from
below of the objective (``_bounds``). Of all W that are looked at, W = 0 among them, the best is
given, and its gap is that to the best bound. ρ is brought to where the relative residuals of Z − A
W and of the gradient are alike, in units in which features are.

Source: S. Boyd et al., Distributed Optimization and Statistical Learning via the Alternating
Direction Method of Multipliers, 2011, sections 3.3 and 3.4.
"""

import torch

from mtlfast.linear_model._blocks import ratio
from mtlfast.linear_model._bounds import Bound, Flows
from mtlfast.linear_model._coupling import Coupling
from mtlfast.linear_model._norms import NormOfDifferences, NormOfTasks
from mtlfast.linear_model._preconditioner import Preconditioner
from mtlfast.linear_model._quadratic import System
from mtlfast.linear_model._search import Search
from mtlfast.linear_model._statistics import typical

CHECK = 10  # steps between two looks at the gap
_INNER = 0.1  # how far conjugate gradients bring down the error of one step
_LEAST = 0.03  # of the gradient at W = 0: a pull counts as no less
_IDLE = 200  # steps, from which on half of all without a better gap end a solve
_BETTER = 0.99


class Patience:
    """When a solver has to tell its gap, after twice as many steps each time, and when it gives
    up."""

    def __init__(self):
        self._due, self._gap = CHECK, float("inf")

    def is_due(self, n_iter):
        return n_iter >= self._due

    def ends(self, n_iter, gap):
        """Whether half of all steps have led nowhere."""
        stands = n_iter > _IDLE and gap > _BETTER * self._gap
        self._due, self._gap = 2 * self._due, gap
        return stands


class _Steps:
    """The steps on W for a ρ."""

    def __init__(self, squares, quadratic, norms, rho):
        self.squares, whole = squares, quadratic
        for norm in norms:
            whole = whole.plus(**norm.quadratic(rho))
        own = typical(squares.diagonal())
        system = System(squares, Coupling(whole, squares.device, own))
        # With Gram matrices and no graph among the squares, blocks that majorise the edges'
        # Laplacian take the place of the exact inverse: more steps, each several times cheaper.
        self.in_one = None
        if squares.gram is not None and not quadratic.graphs and not system.is_direct:
            majorant = Coupling(whole, squares.device, own, majorises=True)
            self.in_one = Preconditioner(squares, majorant)
        self.system = system

    def __call__(self, W, image, miss, target):
        """(W, its product with G); ``miss`` is −∇ and ``target()`` the right side for all of W."""
        if self.system.is_direct:
            W = self.system.direct.solve(target())
            return W, self.squares.product(W)
        if self.in_one is not None and self.in_one.is_moderate:
            parts = self.in_one.apply(miss)
            change = self.in_one.join(parts)
            return W + change, image + self.in_one.image(miss, parts, change)
        if self.in_one is not None:
            W = W + self.in_one.join(self.in_one.apply(miss))
        else:
            W = W + self.system.solve(miss, tol=_INNER, max_iter=50).W
        return W, self.squares.product(W)


def admm(squares, penalty, coupling, *, tol, max_iter, start=None, progress=None):
    """The optimum for any sum of norms, see above."""
    W = torch.zeros_like(squares.moment) if start is None else start.clone()
    norms = [NormOfTasks(term, W) for term in penalty.norms]
    norms += [NormOfDifferences(term, W) for term in penalty.edges]
    run = _Run(squares, penalty.quadratic, norms, coupling)
    search, patience = run.search, Patience()
    if run.edges is not None:
        inside = torch.ones_like(run.edges.dual.radius, dtype=torch.bool)
        search.polish(run.edges, run.edges.U, inside)
        if search.gap <= tol:
            return search.solved(1)
    run.begin(W, start is not None)
    for n_iter in range(1, max_iter + 1):
        looks = n_iter % CHECK == 0 or n_iter == max_iter
        run.step(looks)
        if not looks:
            continue
        must = patience.is_due(n_iter) or n_iter == max_iter
        gap = run.look(tol, must)
        if run.edges is not None and must:
            search.polish(run.edges, run.rho * run.edges.U, run.edges.inside(run.rho))
            if search.gap > tol:
                search.descend(run.edges, n_iter // 4 + 4)
            gap = search.gap
        if progress is not None:
            progress(n_iter, gap)
        if search.gap <= tol or (must and patience.ends(n_iter, search.gap)):
            break
        if must:
            run.balance()
    return search.solved(n_iter)


class _Run:
    """W, the duals of the norms, ρ, and what was found so far."""

    def __init__(self, squares, quadratic, norms, coupling):
        self.squares, self.quadratic, self.norms = squares, quadratic, norms
        self.coupling, self.bound = coupling, Bound(System(squares, coupling))
        mean = float(squares.diagonal().mean()) + 2 * coupling.ridge
        self.rho = (mean if mean > 0 else 1.0) / max(norm.weight for norm in norms)
        self._steps = _Steps(squares, quadratic, norms, self.rho)
        self.search = Search(self.bound, norms)
        with_edges = [norm for norm in norms if isinstance(norm, NormOfDifferences)]
        if self.bound.is_direct:
            for norm in with_edges:
                norm.flows = Flows(norm.dual, self.bound.system)
        # one graph of few tasks is solved another way too
        alone = self.bound.is_direct and len(norms) == 1 and with_edges
        self.edges = norms[0] if alone else None

    def begin(self, W, is_start):
        self.W, self._image = W, self.squares.product(W)
        if is_start:
            self.search.offer(W)
            if len(self.norms) == 1 and isinstance(self.norms[0], NormOfTasks):
                # the subgradient that the optimality of a like problem left here
                miss = self.squares.moment - self._image - self.coupling.grad(W)
                self.norms[0].U = miss / self.rho

    def step(self, looks):
        W, moment = self.W, self.squares.moment
        miss = moment - self._image - self.coupling.grad(W)
        metric = self.bound.metric if looks else None
        missed = [norm.step(W, self.rho, metric) for norm in self.norms]
        for part in missed:
            miss.sub_(part, alpha=self.rho)

        def target():
            pairs = zip(self.norms, missed, strict=True)
            return moment + self.rho * sum(norm.target(W, part) for norm, part in pairs)

        self.W, self._image = self._steps(W, self._image, miss, target)

    def look(self, tol, must):
        """Offers what was found; an estimate of the gap."""
        W, squares, search = self.W, self.squares, self.search
        self._image = squares.product(W)  # what was updated drifts
        self._pull = self.rho * sum(norm.adjoint() for norm in self.norms)
        self._miss = squares.moment - self._image - self.coupling.grad(W) - self._pull
        smooth = squares.loss(W, self._image) + self.coupling.value(W)
        search.offer(W, smooth)
        for norm in self.norms:
            if norm.is_cheap or self.bound.is_direct or search.gap <= 100 * tol:
                search.offer(norm.candidate(W, self.rho))
        return search.look(W, self._miss, self._pull, smooth, self.rho, None if must else tol)

    def balance(self):
        """Brings ρ to where both residuals are alike, relative to what they are residuals of."""
        norm = self.bound.norm
        whole = max(norm(self._pull), _LEAST * norm(self.squares.moment))
        dual = ratio(norm(self._miss), whole)
        primal = max(part.primal for part in self.norms)
        factor = min(10.0, max(0.1, (primal / max(dual, 1e-300)) ** 0.5))
        if not 0.7 < factor < 1.5:
            self.rho *= factor
            for part in self.norms:
                part.U /= factor
            self._steps = _Steps(self.squares, self.quadratic, self.norms, self.rho)
