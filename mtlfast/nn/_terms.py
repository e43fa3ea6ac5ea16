"""The regularizers that need nothing but W, and the Gram distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from mtlfast._checks import (
    as_rows,
    check_number,
    check_reduction,
    check_writable,
    rows_like,
    write_rows_,
)
from mtlfast.gram import LowRank, gram_reg
from mtlfast.group_lasso import (
    group_lasso,
    group_lasso_add_grad_,
    group_lasso_prox,
    group_lasso_prox_,
)
from mtlfast.nn._base import Regularizer
from mtlfast.nn._fused import Parts
from mtlfast.nn._quadratic import Quadratic
from mtlfast.pairwise import pairwise_add_grad_, pairwise_prox, pairwise_prox_, pairwise_reg
from mtlfast.ridge import ridge_add_grad_, ridge_prox, ridge_prox_, ridge_reg
from mtlfast.trace_norm import trace_norm, trace_norm_prox, trace_norm_prox_

if TYPE_CHECKING:
    from mtlfast._typing import FormT, Number, Reduction, Rows, RowsT, Several


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

    def __init__(self, strength: Number = 1.0, reduction: Reduction = "sum") -> None:
        super().__init__(strength)
        check_reduction("PairwiseReg", reduction)
        self.reduction: Reduction = reduction

    if TYPE_CHECKING:

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def forward(self, W: Rows) -> torch.Tensor:
        return self.strength * pairwise_reg(W, reduction=self.reduction)

    _formula = forward

    def quadratic(self, num_tasks: int) -> Quadratic:
        return Quadratic(pairs=self._factor(num_tasks))

    def _parts(self, rows, *, constants=False):
        return Parts(pairs=self._factor(rows.shape[0]))

    @overload
    def prox(self, W: FormT, step: Number) -> FormT: ...
    @overload
    def prox(self, W: Several, step: Number) -> list[torch.Tensor]: ...
    def prox(self, W: Rows, step: Number) -> Rows:
        step = check_number("PairwiseReg.prox", "step", step)
        return pairwise_prox(W, step * self._factor(len(W)))

    def prox_(self, W: RowsT, step: Number) -> RowsT:
        step = check_number("PairwiseReg.prox_", "step", step)
        return pairwise_prox_(W, step * self._factor(len(W)))

    def add_grad_(self, grad: Rows, W: Rows, *, alpha: Number = 1.0) -> torch.Tensor:
        alpha = check_number("PairwiseReg.add_grad_", "alpha", alpha, signed=True)
        strength = self.strength
        value = pairwise_add_grad_(grad, W, alpha=alpha * strength, reduction=self.reduction)
        return strength * value

    def _factor(self, num_tasks):
        """What the sum over ordered pairs is multiplied by."""
        if self.reduction == "mean":
            return self.strength / max(num_tasks * (num_tasks - 1), 1)
        return self.strength

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, reduction="{self.reduction}"'


class GramReg(Regularizer):
    """``strength · gram_reg(W, omega, reduction=reduction)``, see :func:`mtlfast.gram_reg`.

    Not convex in W, and without a prox. ``omega`` as in ``gram_reg``; a tensor becomes a buffer,
    a ``nn.Parameter`` a parameter of the module, and the factor of a :class:`mtlfast.LowRank` is
    held likewise as ``factor``.
    """

    if TYPE_CHECKING:
        omega: torch.Tensor
        factor: torch.Tensor

    def __init__(
        self,
        omega: torch.Tensor | LowRank,
        strength: Number = 1.0,
        reduction: Reduction = "sum",
    ) -> None:
        super().__init__(strength)
        check_reduction("GramReg", reduction)
        self.reduction: Reduction = reduction
        self._is_low_rank = isinstance(omega, LowRank)
        if isinstance(omega, LowRank):
            self._hold("factor", omega.factor)
        else:
            self._hold("omega", omega)

    def _argument(self, name):
        low_rank = name == "omega" and self._is_low_rank
        return LowRank(self.factor) if low_rank else super()._argument(name)

    if TYPE_CHECKING:

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def forward(self, W: Rows) -> torch.Tensor:
        return self.strength * gram_reg(W, self._argument("omega"), reduction=self.reduction)

    def extra_repr(self) -> str:
        omega = self._argument("omega")
        omega = omega if self._is_low_rank else list(omega.shape)
        return f'{omega}, {super().extra_repr()}, reduction="{self.reduction}"'


class TraceNorm(Regularizer):
    """``strength · ‖W‖_*``, the nuclear norm of the tasks' rows, see :func:`mtlfast.trace_norm`.

    Where the function takes a batch of matrices ``[..., m, n]``, this module, like the others, sees
    ``[K, *]`` as one matrix of K rows.
    """

    has_prox = True
    is_norm = True

    if TYPE_CHECKING:

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def forward(self, W: Rows) -> torch.Tensor:
        return self.strength * trace_norm(as_rows("TraceNorm", W))

    _formula = forward

    def _parts(self, rows, *, constants=False):
        return Parts(trace_norm=self.strength)

    def dual_norm(self, Y: Rows) -> float:
        return _over(torch.linalg.matrix_norm(as_rows("TraceNorm.dual_norm", Y), 2), self.strength)

    @overload
    def prox(self, W: FormT, step: Number) -> FormT: ...
    @overload
    def prox(self, W: Several, step: Number) -> list[torch.Tensor]: ...
    def prox(self, W: Rows, step: Number) -> Rows:
        step = check_number("TraceNorm.prox", "step", step)
        rows = trace_norm_prox(as_rows("TraceNorm.prox", W), step * self.strength)
        return rows_like(W, rows)

    @torch.no_grad()
    def prox_(self, W: RowsT, step: Number) -> RowsT:
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
    is_norm = True

    if TYPE_CHECKING:

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def forward(self, W: Rows) -> torch.Tensor:
        return self.strength * group_lasso(W)

    def dual_norm(self, Y: Rows) -> float:
        lengths = torch.linalg.vector_norm(as_rows("GroupLasso.dual_norm", Y), dim=0)
        return _over(lengths.max(), self.strength)

    @overload
    def prox(self, W: FormT, step: Number) -> FormT: ...
    @overload
    def prox(self, W: Several, step: Number) -> list[torch.Tensor]: ...
    def prox(self, W: Rows, step: Number) -> Rows:
        step = check_number("GroupLasso.prox", "step", step)
        return group_lasso_prox(W, step * self.strength)

    def prox_(self, W: RowsT, step: Number) -> RowsT:
        step = check_number("GroupLasso.prox_", "step", step)
        return group_lasso_prox_(W, step * self.strength)

    def add_grad_(self, grad: Rows, W: Rows, *, alpha: Number = 1.0) -> torch.Tensor:
        alpha = check_number("GroupLasso.add_grad_", "alpha", alpha, signed=True)
        return self.strength * group_lasso_add_grad_(grad, W, alpha=alpha * self.strength)


class Ridge(Regularizer):
    r"""``strength · ‖W‖_F²``, weight decay with its own strength, see :func:`mtlfast.ridge_reg`.

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

    if TYPE_CHECKING:

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def forward(self, W: Rows) -> torch.Tensor:
        return ridge_reg(W, strength=self.strength)

    _formula = forward

    def quadratic(self, num_tasks: int) -> Quadratic:
        return Quadratic(ridge=self.strength)

    def _parts(self, rows, *, constants=False):
        return Parts(ridge=self.strength)

    @overload
    def prox(self, W: FormT, step: Number) -> FormT: ...
    @overload
    def prox(self, W: Several, step: Number) -> list[torch.Tensor]: ...
    def prox(self, W: Rows, step: Number) -> Rows:
        step = check_number("Ridge.prox", "step", step)
        return ridge_prox(W, step * self.strength)

    def prox_(self, W: RowsT, step: Number) -> RowsT:
        step = check_number("Ridge.prox_", "step", step)
        return ridge_prox_(W, step * self.strength)

    def add_grad_(self, grad: Rows, W: Rows, *, alpha: Number = 1.0) -> torch.Tensor:
        alpha = check_number("Ridge.add_grad_", "alpha", alpha, signed=True)
        return ridge_add_grad_(grad, W, alpha=alpha, strength=self.strength)


def _over(value, strength):
    return float(value) / strength if strength else (float("inf") if value else 0.0)
