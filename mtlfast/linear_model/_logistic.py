"""Logistic regression for K tasks: Newton steps, each a least-squares problem with the penalties.

At scores z with p = 1/(1 + exp(−z)) the loss Σ s·log(1 + exp(−t z)) has the model
½ Σ h (z' − u)², h = s·p(1 − p), u = z + s(y − p)/h: weighted squares, which the solvers of the
regressor take with any penalty. Steps are shortened until the objective falls.

Source: J. Lee, Y. Sun and M. Saunders, Proximal Newton-Type Methods for Minimizing Composite
Functions, SIAM Journal on Optimization 2014.
"""

from dataclasses import replace

import torch
from torch.nn.functional import softplus

from mtlfast.linear_model._fit import Fit, check_finite, choose, progress_of, solve
from mtlfast.linear_model._penalties import check_penalties, split
from mtlfast.linear_model._statistics import decision, like_scales, moments, squares, sums

_LEAST = 1e-9  # of p(1 − p) in the model: gradients stay exact
_STEPS = 30  # halvings of a step


class _Loss:
    """The rows' loss, its slope and its model."""

    def __init__(self, rows, fit_intercept):
        self.rows = rows
        self.weight = torch.ones_like(rows.y) if rows.weight is None else rows.weight
        ones, total = sums(rows, self.weight * rows.y), sums(rows, self.weight)
        share = ones.sum() / total.sum()
        pooled = torch.logit(share) if fit_intercept else share.new_zeros(())
        # no finite intercept fits a task of one class
        self.free = (ones > 0) & (ones < total) & fit_intercept
        self.fixed = torch.where(self.free, 0.0, pooled)
        self.begin = torch.where(self.free, torch.logit(ones / total), self.fixed)
        diagonal = squares(rows, self.free, blocks=False).diagonal()
        self._scales = like_scales(torch.cat([diagonal, total[:, None]], 1))

    def value(self, z):
        return float((self.weight * (softplus(z) - self.rows.y * z)).sum())

    def slope(self, z):
        return self.weight * (torch.sigmoid(z) - self.rows.y)

    def model(self, z):
        """(u, h)"""
        p = torch.sigmoid(z)
        h = self.weight * (p * (1 - p)).clamp(min=_LEAST)
        return z - self.slope(z) / h, h

    def statistics(self, u, h):
        offset = self.fixed.repeat_interleave(self.rows.ptr.diff())
        return squares(replace(self.rows, y=u - offset, weight=h), self.free)

    def norm(self, slope):
        """The length of the gradient in W and b that belongs to a slope in z, in like scales."""
        b = sums(self.rows, slope) * self.free
        gradient = torch.cat([moments(self.rows, slope), b[:, None]], 1)
        return float((self._scales * gradient).norm())


def fit_logistic(
    name, rows, penalties, *, fit_intercept, tol, max_iter, solver, verbose, start=None
):
    """The optimum of Σ s·log(1 + exp(−t(x·w + b))) + Σ penalties for y in {0, 1}.

    With ``fit_intercept``, a task whose rows are all of one class has no finite intercept of its
    own: it takes the log odds of all rows together, as does a task without rows.
    """
    K, d = rows.ptr.numel() - 1, rows.X.shape[1]
    penalty = split(name, check_penalties(name, penalties), K, rows.ptr.device)
    loss = _Loss(rows, fit_intercept)
    W = torch.zeros(K, d, dtype=torch.float64, device=rows.ptr.device)
    b = loss.begin
    whole = loss.norm(loss.slope(decision(rows, W, b)))
    if start is not None:
        W, b = start[0], torch.where(loss.free, start[1], loss.fixed)
    z = decision(rows, W, b)
    value, gap, n_iter, used = loss.value(z) + penalty.value(W), float("inf"), 0, solver
    sharp, sharpest = False, 0.1 * tol
    with progress_of(name, "newton", tol, verbose) as progress:
        while gap > tol and n_iter < max_iter:
            n_iter += 1
            u, h = loss.model(z)
            statistics = loss.statistics(u, h)
            used = choose(name, solver, penalty, statistics.gram is not None)
            inner = sharpest if sharp else max(sharpest, min(1e-3, 0.01 * gap))
            W_new, inner_gap, _, is_exact = solve(
                name, statistics, penalty,
                tol=inner, max_iter=max_iter, solver=used, start=W,
            )  # fmt: skip
            b_new = torch.where(loss.free, statistics.intercept(W_new), loss.fixed)
            z_new = decision(rows, W_new, b_new)
            step, value_new = _search(loss, penalty, value, (W, z), (W_new, z_new))
            # where the model was, its solution is optimal up to how the slopes differ
            miss = loss.norm(loss.slope(z_new) - h * (z_new - u))
            reached = max(miss / whole if whole else 0.0, 0.0 if is_exact else inner_gap)
            if step < 1 and reached <= tol:  # what it rises by is within the tolerance
                whole_step = loss.value(z_new) + penalty.value(W_new)
                if whole_step <= value * (1 + tol):
                    step, value_new = 1.0, whole_step
            if step == 0 and inner == sharpest:
                break  # no digits are left
            sharp |= step < 0.5  # near the optimum a rough step leads uphill
            if step == 0:
                continue
            if step < 1:
                W_new, b_new, z_new = (
                    a + step * (n - a) for a, n in ((W, W_new), (b, b_new), (z, z_new))
                )
            else:
                gap = reached
            # max_iter steps did not solve the model to tol, and what they gave is no better
            idle = not is_exact and inner_gap > tol and value - value_new <= 0.1 * tol * value
            W, b, z, value = W_new, b_new, z_new, value_new
            if progress is not None:
                progress(n_iter, gap)
            if idle and inner == sharpest:
                break
            sharp |= idle
    check_finite(name, W)
    return Fit(W, b, value, gap, n_iter, gap <= tol, used)


def _search(loss, penalty, value, old, new):
    """(step, objective): the largest 2⁻ⁱ with which the objective does not rise."""
    (W, z), (W_new, z_new) = old, new
    step = 1.0
    for _ in range(_STEPS):
        if step == 1:
            moved = loss.value(z_new) + penalty.value(W_new)
        else:
            moved = loss.value(z + step * (z_new - z)) + penalty.value(W + step * (W_new - W))
        if moved <= value * (1 + 1e-14):
            return step, moved
        step /= 2
    return 0.0, value
