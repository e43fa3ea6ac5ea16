"""The best W and the best bound from below that a solver of norms has come by, and their gap."""

import torch

from mtlfast.linear_model._active import descend, polish
from mtlfast.linear_model._blocks import ratio
from mtlfast.linear_model._quadratic import FIT, Dual, Solved

_DIGITS = 4 * torch.finfo(torch.float64).eps  # by which equal objectives may differ


class Search:
    """The best W and the best bound so far.

    Args:
        bound: the :class:`~mtlfast.linear_model._bounds.Bound` of the quadratic part.
        norms: of :mod:`~mtlfast.linear_model._norms`.
    """

    def __init__(self, bound, norms):
        self.bound, self.norms = bound, norms
        self.squares, self.coupling = bound.system.squares, bound.system.coupling
        self.floor = FIT * 0.5 * self.squares.yy
        self.W, self.objective = torch.zeros_like(self.squares.moment), 0.5 * self.squares.yy
        # no smaller is the quadratic part alone, nor all together
        self._bottom = self.least = bound.bottom()
        self.dual, self._worse, self._descended, self._last = None, 1.0, None, None

    def solved(self, n_iter):
        """What was found, with duals at its end, of which a norm of W takes as much as it can."""
        duals, whole = [self.dual], [norm for norm in self.norms if norm.takes_all]
        if whole and self._last is not None:
            W, miss, rho = self._last
            for repeats in (0, None):
                taken, _, factor = whole[0].take(miss, rho, self.bound, repeats)
                energy, rest = self.bound.split(miss - taken)
                energy += self.bound.leftover(rest) if rest.any() else 0.0
                duals.append(Dual(W, miss - taken, energy, factor))
        return Solved(self.W, self.gap, n_iter, False, duals)

    @property
    def gap(self):
        return ratio(max(self.objective - self.least, 0.0), max(self.objective, self.floor))

    def offer(self, W, smooth=None):
        """Keeps W if nothing better is known."""
        if smooth is None:
            smooth = self.squares.loss(W) + self.coupling.value(W)
        objective = smooth + sum(norm.value(W) for norm in self.norms)
        if objective <= self.objective * (1 + _DIGITS):  # of equal ones the later is nearer
            self.W, self.objective = W.clone(), min(objective, self.objective)

    def look(self, W, miss, pull, smooth, rho, tol=None):
        """The bounds that the duals of the norms give, R = ``miss`` left of the gradient at W.

        With ``tol`` only if they may bring the gap to it: if what it is at best, if H bounded all
        of R, and by how much the last bound was worse than that, let them. Returns an estimate.
        """
        base = smooth + float((pull * W).sum())
        self._last = W, miss, rho
        energy, rest = self.bound.split(miss)
        best = max(base - 0.5 * energy, self.least)
        best = ratio(max(self.objective - best, 0.0), max(self.objective, self.floor))
        if tol is not None and best * self._worse > tol:
            return best * self._worse
        if not rest.any():
            self._keep(W, miss, energy, 1.0, base - 0.5 * energy)
            return self.gap
        takes = [norm for norm in self.norms if norm.takes]
        if not takes:
            energy += self.bound.leftover(rest)
            self._keep(W, miss, energy, 1.0, base - 0.5 * energy)
        for norm in takes:
            self._take(W, miss, base, norm.take(rest, rho, self.bound))
        self._worse = max(1.0, ratio(self.gap, best)) if best > 0 else 1.0
        return self.gap

    def descend(self, norm, steps):
        """Offers what further steps on the lengths of edges find, and where they lead."""
        system, dual = self.bound.system, norm.dual
        if self._descended is None:
            ends = dual.src, dual.dst
            self._descended = system.direct.solve_for_differences(self.squares.moment, *ends)
        W, z, U, inside = descend(system, dual, *self._descended, steps)
        self._descended = W, z
        self.offer(W)
        self.polish(norm, U, inside, z)

    def polish(self, norm, U, inside, z=None):
        """Offers what follows where the edges ``inside`` are closed, and its dual."""
        z = norm.dual.differences(self.W) if z is None else z
        found = polish(self.bound.system, norm.dual, U, inside, z)
        if found is None:
            return
        W, Y, flows = found
        product, pull = self.squares.product(W), norm.dual.adjoint(Y)
        miss = self.squares.moment - product - self.coupling.grad(W) - pull
        smooth = self.squares.loss(W, product) + self.coupling.value(W)
        self.offer(W, smooth)
        base = smooth + float((pull * W).sum())
        for rest in (self.bound.split(miss)[1], miss):
            self._take(W, miss, base, norm.taken(rest, Y, flows))

    def _take(self, W, miss, base, taken):
        """The bound where a dual takes a part of ``miss``, and leaves an energy."""
        part, together, factor = taken
        energy, rest = self.bound.split(miss - part)
        if together is not None:
            energy = (energy**0.5 + together**0.5) ** 2
        elif rest.any():
            energy += self.bound.leftover(rest)
        value = base + float((part * W).sum()) - 0.5 * energy
        value = self._bottom + (value - self._bottom) / factor
        self._keep(W, miss - part, energy, factor, value)

    def _keep(self, W, miss, energy, factor, value):
        if self.dual is None or value > self.least:
            self.least = max(value, self.least)
            self.dual = Dual(W.clone(), miss, energy, factor)
