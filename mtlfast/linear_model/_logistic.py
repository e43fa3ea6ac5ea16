"""Logistic regression for K tasks: Newton steps, each a least-squares problem with the penalties.

At scores z with p = 1/(1 + exp(−z)) the loss Σ s·log(1 + exp(−t z)) has the model
½ Σ h (z' − u)², h = s·p(1 − p), u = z + s(y − p)/h: weighted squares, which the solvers of the
regressor take with any penalty. Steps are shortened until the objective falls.

The slope of the model at its solution, θ = h(z' − u), is a dual point: with the dual Y of the norms
and the gradient of the quadratic penalties q at W' it adds up to 0, so that

    minimum ≥ −Σ s·e(y + τθ/s) − τ² q(W'),  e(p) = p log p + (1 − p) log(1 − p),

for any τ in [0, 1] with which y + τθ/s are probabilities and τY is in its balls. What the solver
left of that sum enters by its energy. The bound is as near to the minimum as a Newton step is
small.

Source: J. Lee, Y. Sun and M. Saunders, Proximal Newton-Type Methods for Minimizing Composite
Functions, SIAM Journal on Optimization 2014.
"""

from dataclasses import replace

import torch
from torch.nn.functional import softplus

from mtlfast.linear_model._blocks import ratio
from mtlfast.linear_model._fit import (
    Fit,
    check_finite,
    choose,
    coupling_of,
    progress_of,
    solve,
)
from mtlfast.linear_model._penalties import check_penalties, split
from mtlfast.linear_model._quadratic import FIT
from mtlfast.linear_model._statistics import decision, moments, shifted, squares

_LEAST = 1e-280  # of a probability: less is none
_STEPS = 30  # halvings of a step
_REMOVALS, _LITTLE = 5, 1e-3  # of rows from the dual point, and their share of the objective
_NEAR = 1e-6  # of the objective: the energy up to which a model's solution is one
_CLOSE = 10.0  # times √tol: what a step that comes near the optimum lowers the objective by
_IDLE = 5  # steps without a better gap or value, after which a fit stands still
_INSIDE = 5  # times max_iter, iterations inside all steps together
_LONG = 30  # steps, after which the second half of them has to lead somewhere
_SHIFT = 8.0  # spreads of a column away from 0, from which on it is shifted


class _Loss:
    """The rows' loss, its slope and its model."""

    def __init__(self, rows, fit_intercept):
        self.rows = rows
        self.weight = torch.ones_like(rows.y) if rows.weight is None else rows.weight
        self.sign = 2 * rows.y - 1
        self._minus, self._slopes = -self.sign, -self.sign * self.weight
        ones = rows.layout.sums(self.weight * rows.y)
        total = rows.layout.sums(self.weight)
        share = ones.sum() / total.sum()
        pooled = torch.logit(share) if fit_intercept else share.new_zeros(())
        # no finite intercept fits a task of one class
        self.free = (ones > 0) & (ones < total) & fit_intercept
        self.fixed = torch.where(self.free, 0.0, pooled)
        self._all_free = bool(self.free.all())
        self.begin = torch.where(self.free, torch.logit(ones / total), self.fixed)

    def value(self, z):
        return float((self.weight * softplus(self._minus * z)).sum())

    def slope(self, z):
        return self._slopes * torch.sigmoid(self._minus * z)

    def model(self, z):
        """(u, h)"""
        wrong = torch.sigmoid(self._minus * z)
        # exact far out too, where the probability of the right class rounds to 1
        h = self.weight * (wrong * torch.sigmoid(self.sign * z)).clamp(min=_LEAST)
        return z - self._slopes * wrong / h, h

    def statistics(self, u, h):
        if not self._all_free:
            u = u - self.rows.layout.spread(self.fixed)
        return squares(replace(self.rows, y=u, weight=h), self.free)

    def intercepts(self, fitted):
        """Those that are fitted, and of the other tasks what is theirs."""
        return fitted if self._all_free else torch.where(self.free, fitted, self.fixed)

    def balanced(self, slope, h):
        """A slope without what an intercept can do about it in a model with weights h."""
        layout = self.rows.layout
        share = layout.sums(slope) / layout.sums(h).clamp(min=1e-300) * self.free
        return slope - h * layout.spread(share)

    def wrong(self, slope):
        """The probability of the wrong class that belongs to a slope."""
        wrong = slope / self._slopes
        return torch.where(wrong.abs() < _LEAST, 0.0, wrong)

    def conjugate(self, slope, most):
        """(τ, −Σ s·e(y + τ·slope/s)), the largest τ ≤ ``most`` that leaves probabilities."""
        wrong = self.wrong(slope)
        if (wrong < 0).any():
            return 0.0, 0.0
        scale = min(most, 1.0 / max(float(wrong.max()), 1.0))
        wrong = scale * wrong
        entropy = torch.special.entr(wrong) + torch.special.entr((1 - wrong).clamp(min=0))
        return scale, float((self.weight * entropy).sum())


class _Centred:
    """Shifts columns of a loss that are far from 0, and takes intercepts back and forth.

    ``statistics`` are those at W = 0, where all rows of a task weigh as their sample weights.
    """

    def __init__(self, loss, statistics):
        spread = (statistics.diagonal() / statistics.total.clamp(min=1e-300)[:, None]).sqrt()
        far = (statistics.x_first + statistics.x_away).abs() > _SHIFT * spread
        self.taken = None
        if (far & (statistics.x_first != 0)).any():
            X, self.taken = shifted(loss.rows, loss.free)
            loss.rows = replace(loss.rows, X=X)

    def inside(self, W, b):
        return b if self.taken is None else b + (self.taken * W).sum(1)

    def outside(self, W, b):
        return b if self.taken is None else b - (self.taken * W).sum(1)


def fit_logistic(
    name, rows, penalties, *, fit_intercept, tol, max_iter, solver, verbose, start=None
):
    """The optimum of Σ s·log(1 + exp(−t(x·w + b))) + Σ penalties for y in {0, 1}.

    With ``fit_intercept``, a task whose rows are all of one class has no finite intercept of its
    own: it takes the log odds of all rows together, as does a task without rows. Where all rows
    are of one class these are infinite, and with W = 0 what the objective tends to.
    """
    K, d = rows.ptr.numel() - 1, rows.X.shape[1]
    penalty = split(name, check_penalties(name, penalties), K, rows.ptr.device)
    loss = _Loss(rows, fit_intercept)
    zero = torch.zeros(K, d, dtype=torch.float64, device=rows.ptr.device)
    if torch.isinf(loss.fixed).any():
        return Fit(zero, loss.fixed, 0.0, 0.0, 0, True, solver)
    run = _Newton(name, loss, penalty, tol=tol, max_iter=max_iter, solver=solver)
    run.begin(zero, loss.begin)
    if start is not None:
        W, b = start[0], loss.intercepts(start[1])
        run.begin(W, torch.where(loss.free, run.centred.inside(W, b), b))
    with progress_of(name, "newton", tol, verbose) as progress:
        while run.gap > tol and run.n_iter < max_iter and not run.stands:
            run.step()
            if progress is not None:
                progress(run.n_iter, run.gap)
    check_finite(name, run.W)
    b = torch.where(loss.free, run.centred.outside(run.W, run.b), run.b)
    return Fit(run.W, b, run.value, run.gap, run.n_iter, run.gap <= tol, run.used)


class _Newton:
    """The best W so far, the best bound, and steps."""

    def __init__(self, name, loss, penalty, *, tol, max_iter, solver):
        self.name, self.loss, self.penalty = name, loss, penalty
        self.tol, self.max_iter, self.solver = tol, max_iter, solver
        self.used, self.coupling, self.centred = solver, None, None
        self.value, self.least, self.n_iter = float("inf"), 0.0, 0
        self.stands, self._idle, self._sharp, self._root = False, 0, False, 0.0
        self._fell = float("inf")  # by which share the last step lowered the objective
        self._due, self._before, self._inside = 8, (float("inf"), float("inf")), 0

    @property
    def gap(self):
        above = max(self.value - self.least, 0.0)
        return max(ratio(above, max(self.value, FIT * self._whole)), self._root)

    def begin(self, W, b):
        """Takes W and b if nothing better is known; the first are W = 0."""
        z = decision(self.loss.rows, W, b)
        value = self.loss.value(z)
        if self.coupling is None:
            self._whole = value
            self._take(W, b, z, value)
            self.centred = _Centred(self.loss, self._model()[2])
            if self.centred.taken is not None:
                self._at_z = None
            self.coupling = coupling_of(self._model()[2], self.penalty)
            return
        value += self.penalty.value(W, self.coupling)
        if value < self.value:
            self._take(W, b, z, value)

    def _take(self, W, b, z, value):
        self.W, self.b, self.z, self.value, self._at_z = W, b, z, value, None

    def _model(self):
        """(u, h, statistics) at the best W, found when asked for."""
        if self._at_z is None:
            u, h = self.loss.model(self.z)
            self._at_z = u, h, self.loss.statistics(u, h)
        return self._at_z

    def step(self):
        self.n_iter += 1
        model = _, _, statistics = self._model()
        self.used = choose(self.name, self.solver, self.penalty, statistics.gram is not None)
        sharpest = 0.1 * self.tol
        inner = max(sharpest, min(1e-3, 0.01 * self.gap, 0.1 * self._fell))
        inner = sharpest if self._sharp else inner
        out = self._solve(statistics, inner)
        self._inside += out.n_iter
        before = self.gap
        b, z = self._place(statistics, out.W)
        W, (step, value) = out.W, self._search(out.W, z)
        self._fell = ratio(self.value - value, value)
        if self._fell <= _CLOSE * self.tol**0.5 or self.n_iter == self.max_iter:
            self._raise_bound(out, z, model, inner)
        if step > 0:
            if step < 1:
                W, b, z = (a + step * (n - a) for a, n in ((self.W, W), (self.b, b), (self.z, z)))
            self._root = 0.0
            self._take(W, b, z, value)
            if out.energy is not None and self.gap <= self.tol:
                self._root = self._error(model, out.energy)
        moved = step > 0 and (self._fell > 1e-3 * self.tol or self.gap < 0.9 * before)
        # near the optimum a rough step leads uphill
        self._sharp |= step < 0.5 or not moved
        self._idle = 0 if moved else self._idle + (inner == sharpest)
        self.stands = self._idle >= (_IDLE if step > 0 else 1)
        if self.n_iter >= self._due:  # half of all steps have hardly led anywhere
            value, gap = self._before
            fell = value - self.value > 100 * self.tol * self.value
            self.stands |= self.n_iter > _LONG and not fell and self.gap > 0.9 * gap
            self._due, self._before = 2 * self._due, (self.value, self.gap)
        self.stands |= self._inside > _INSIDE * self.max_iter

    def _solve(self, statistics, tol):
        return solve(
            self.name, statistics, self.penalty, self.coupling,
            tol=tol, max_iter=self.max_iter, solver=self.used, start=self.W, certified=False,
        )  # fmt: skip

    def _raise_bound(self, out, z, model, tol):
        """Takes the slope of the model at its solution as a dual point.

        Of rows that are fitted far better than others it may be no probability. Then the model is
        solved without them, where they count little.
        """
        u, h, statistics = model
        for _ in range(_REMOVALS):
            wrong = self.loss.weight.new_zeros(())
            for dual in out.duals:
                if dual.W is not out.W:
                    z = self._place(statistics, dual.W)[1]
                slope = self.loss.balanced(h * (z - u), h)
                wrong = self.loss.wrong(slope)
                if not (wrong < 0).any():
                    self._bound(dual, out.energy, slope)
            if not (wrong < 0).any():
                return
            if float((self.loss.weight * wrong.clamp(max=0)).sum()) < -_LITTLE * self.value:
                return
            h = torch.where(wrong < 0, 0.0, h)
            statistics = self.loss.statistics(u, h)
            out = self._solve(statistics, tol)
            z = self._place(statistics, out.W)[1]

    def _error(self, model, energy):
        """The gradient at W in the norm that the Hessian before gives it, relative to that of W."""
        _, h, statistics = model
        slope = self.loss.balanced(self.loss.slope(self.z), h)
        R = -moments(self.loss.rows, slope) - self.coupling.grad(self.W)
        image = statistics.product(self.W) + self.coupling.grad(self.W)
        gained = max(2 * (self._whole - self.value), float((self.W * image).sum()))
        return ratio(energy(R), gained) ** 0.5

    def _place(self, statistics, W):
        """(b, z) of W in the model."""
        b = self.loss.intercepts(statistics.intercept(W))
        return b, decision(self.loss.rows, W, b)

    def _bound(self, dual, energy_of, slope):
        """Raises the bound by the dual point of a model's solution."""
        R, energy = dual.R, dual.energy
        if energy_of is not None:  # the gradient of the rows, which statistics may have rounded
            R = -moments(self.loss.rows, slope) - self.coupling.grad(dual.W)
            energy = energy_of(R)
        if not energy <= (_NEAR if self.penalty.is_smooth else 100 * _NEAR) * self.value:
            return
        scale, entropy = self.loss.conjugate(slope, 1.0 / dual.factor)
        q = self.coupling.value(dual.W)
        fixed = self.loss.rows.layout.spread(self.loss.fixed)
        shift = scale * float((slope * fixed).sum())  # of intercepts that are not fitted
        left = float((R * dual.W).sum())
        if energy_of is not None:  # rounding, along directions that hardly count
            left = 2 * abs(left)
        value = entropy + shift - scale**2 * q - scale * left
        # what is left of the gradient acts on how far W' is from the optimum, whose square the
        # objective bounds
        above, energy = max(self.value - value, 0.0), scale * energy**0.5
        self.least = max(self.least, self.value - (energy + (energy**2 + above) ** 0.5) ** 2)

    def _search(self, W, z):
        """(step, objective): the largest 2⁻ⁱ with which the objective does not rise."""
        step = 1.0
        for _ in range(_STEPS):
            if step == 1:
                moved = self.loss.value(z) + self.penalty.value(W, self.coupling)
            else:
                moved = self.loss.value(self.z + step * (z - self.z))
                moved += self.penalty.value(self.W + step * (W - self.W), self.coupling)
            if moved <= self.value * (1 + 1e-14):
                return step, moved
            step /= 2
        return 0.0, self.value
