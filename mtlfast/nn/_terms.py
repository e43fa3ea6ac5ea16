"""The regularizers that need nothing but W, and the Gram distance."""

import torch

from mtlfast._checks import (
    as_rows,
    check_grad,
    check_number,
    check_reduction,
    check_writable,
    rows_like,
    write_rows_,
)
from mtlfast._native import real_dtype
from mtlfast.gram import LowRank, gram_reg
from mtlfast.group_lasso import (
    group_lasso,
    group_lasso_add_grad_,
    group_lasso_prox,
    group_lasso_prox_,
)
from mtlfast.nn._base import Regularizer
from mtlfast.pairwise import pairwise_add_grad_, pairwise_prox, pairwise_prox_, pairwise_reg
from mtlfast.trace_norm import trace_norm, trace_norm_prox, trace_norm_prox_


class PairwiseReg(Regularizer):
    """``strength · pairwise_reg(W, reduction=reduction)``, see :func:`mtlfast.pairwise_reg`.

    Example:
        >>> import torch
        >>> from mtlfast.nn import PairwiseReg
        >>> W = torch.tensor([[0.0], [9.0]])
        >>> PairwiseReg(strength=0.5)(W).item()
        81.0
        >>> PairwiseReg(strength=0.5).prox(W, step=0.5)
        tensor([[3.],
                [6.]])
    """

    has_prox = True

    def __init__(self, strength=1.0, reduction="sum"):
        super().__init__(strength)
        check_reduction("PairwiseReg", reduction)
        self.reduction = reduction

    def forward(self, W):
        return self.strength * pairwise_reg(W, reduction=self.reduction)

    def prox(self, W, step):
        step = check_number("PairwiseReg.prox", "step", step)
        return pairwise_prox(W, step * self._factor(len(W)))

    def prox_(self, W, step):
        step = check_number("PairwiseReg.prox_", "step", step)
        return pairwise_prox_(W, step * self._factor(len(W)))

    def add_grad_(self, grad, W, *, alpha=1.0):
        alpha = check_number("PairwiseReg.add_grad_", "alpha", alpha, signed=True)
        strength = self.strength
        value = pairwise_add_grad_(grad, W, alpha=alpha * strength, reduction=self.reduction)
        return strength * value

    def _factor(self, num_tasks):
        """What the sum over ordered pairs is multiplied by."""
        if self.reduction == "mean":
            return self.strength / max(num_tasks * (num_tasks - 1), 1)
        return self.strength

    def extra_repr(self):
        return f'{super().extra_repr()}, reduction="{self.reduction}"'


class GramReg(Regularizer):
    """``strength · gram_reg(W, omega, reduction=reduction)``, see :func:`mtlfast.gram_reg`.

    Not convex in W, and without a prox. ``omega`` as in ``gram_reg``; a tensor becomes a buffer,
    a ``nn.Parameter`` a parameter of the module, and the factor of a :class:`mtlfast.LowRank` is
    held likewise as ``factor``.
    """

    def __init__(self, omega, strength=1.0, reduction="sum"):
        super().__init__(strength)
        check_reduction("GramReg", reduction)
        self.reduction = reduction
        self._is_low_rank = isinstance(omega, LowRank)
        if self._is_low_rank:
            self._hold("factor", omega.factor)
        else:
            self._hold("omega", omega)

    def forward(self, W):
        omega = LowRank(self.factor) if self._is_low_rank else self.omega
        return self.strength * gram_reg(W, omega, reduction=self.reduction)

    def extra_repr(self):
        omega = LowRank(self.factor) if self._is_low_rank else list(self.omega.shape)
        return f'{omega}, {super().extra_repr()}, reduction="{self.reduction}"'


class TraceNorm(Regularizer):
    """``strength · ‖W‖_*``, the nuclear norm of the tasks' rows, see :func:`mtlfast.trace_norm`.

    Where the function takes a batch of matrices ``[..., m, n]``, this module, like the others, sees
    ``[K, *]`` as one matrix of K rows.
    """

    has_prox = True

    def forward(self, W):
        return self.strength * trace_norm(as_rows("TraceNorm", W))

    def prox(self, W, step):
        step = check_number("TraceNorm.prox", "step", step)
        rows = trace_norm_prox(as_rows("TraceNorm.prox", W), step * self.strength)
        return rows_like(W, rows)

    @torch.no_grad()
    def prox_(self, W, step):
        step = check_number("TraceNorm.prox_", "step", step)
        check_writable("TraceNorm.prox_", "W", W)
        rows = as_rows("TraceNorm.prox_", W)
        trace_norm_prox_(rows, step * self.strength)
        write_rows_(W, rows)
        return W


class GroupLasso(Regularizer):
    """``strength · ‖W‖_{2,1}``, whole features in or out, see :func:`mtlfast.group_lasso`.

    Example:
        >>> import torch
        >>> from mtlfast.nn import GroupLasso
        >>> W = torch.tensor([[3.0, 0.1], [4.0, 0.1]])
        >>> GroupLasso(strength=5.0).prox(W, step=0.5)
        tensor([[1.5000, 0.0000],
                [2.0000, 0.0000]])
    """

    has_prox = True

    def forward(self, W):
        return self.strength * group_lasso(W)

    def prox(self, W, step):
        step = check_number("GroupLasso.prox", "step", step)
        return group_lasso_prox(W, step * self.strength)

    def prox_(self, W, step):
        step = check_number("GroupLasso.prox_", "step", step)
        return group_lasso_prox_(W, step * self.strength)

    def add_grad_(self, grad, W, *, alpha=1.0):
        alpha = check_number("GroupLasso.add_grad_", "alpha", alpha, signed=True)
        return self.strength * group_lasso_add_grad_(grad, W, alpha=alpha * self.strength)


class Ridge(Regularizer):
    r"""``strength · ‖W‖_F²``, weight decay with its own strength: every task is pulled to zero.

    The gradient is 2·strength·W, the prox W/(1 + 2·step·strength). Squares are summed in float64;
    the value is float64 for float64 W, else float32.

    Example:
        >>> import torch
        >>> from mtlfast.nn import Ridge
        >>> W = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
        >>> Ridge(strength=0.5)(W).item()
        12.5
        >>> Ridge(strength=0.5).prox(W, step=1.0)
        tensor([[0.5000, 1.0000],
                [1.0000, 2.0000]])
    """

    has_prox = True

    def forward(self, W):
        rows = as_rows("Ridge", W)
        return (self.strength * rows.double().square().sum()).to(real_dtype(rows.dtype))

    def prox(self, W, step):
        step = check_number("Ridge.prox", "step", step)
        rows = as_rows("Ridge.prox", W)
        return rows_like(W, rows / (1 + 2 * step * self.strength))

    @torch.no_grad()
    def prox_(self, W, step):
        step = check_number("Ridge.prox_", "step", step)
        as_rows("Ridge.prox_", W)
        check_writable("Ridge.prox_", "W", W)
        for rows in W if isinstance(W, (list, tuple)) else [W]:
            rows.div_(1 + 2 * step * self.strength)
        return W

    @torch.no_grad()
    def add_grad_(self, grad, W, *, alpha=1.0):
        rows = as_rows("Ridge.add_grad_", W)
        check_grad("Ridge.add_grad_", grad, W)
        alpha = check_number("Ridge.add_grad_", "alpha", alpha, signed=True)
        several = isinstance(W, (list, tuple))
        for target, w in zip(grad, W, strict=True) if several else [(grad, W)]:
            target.add_(w, alpha=2 * alpha * self.strength)
        squares = torch.linalg.vector_norm(rows, dtype=torch.float64).square()
        return (self.strength * squares).to(real_dtype(rows.dtype))
