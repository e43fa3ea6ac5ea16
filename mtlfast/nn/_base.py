"""What every regularizer is: a strength times a function of W, which says what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from mtlfast._checks import check_grad, check_number, is_several
from mtlfast._compat import copy_each_, has_hooks
from mtlfast.nn._contract import num_tasks_of, quadratic_of
from mtlfast.nn._parameters import Parameters

if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from mtlfast._typing import Number, Rows, RowsT
    from mtlfast.graphs import TaskGraph
    from mtlfast.nn._quadratic import Quadratic
    from mtlfast.nn._sum import Sum


class Regularizer(Parameters, nn.Module):
    r"""A strength times a function of the parameters of K tasks; regularizers add up with ``+``.

    Write your own as a subclass: ``forward(W)`` is its value, strength included, for any tensor
    ``[K, *]``. That alone can be minimised by gradient. What else a term can do it declares, and
    sums, :mod:`mtlfast.optim` and :mod:`mtlfast.linear_model` ask for that and nothing more, so a
    term of yours goes wherever a built-in one does:

    ``has_prox = True``
        There is ``prox(W, step)``, the minimiser of ½‖Z − W‖² + step · forward(Z): the strength is
        part of the step. :class:`mtlfast.optim.Proximal` takes the term.
    ``is_norm = True``
        Beside a prox: forward is convex and positively homogeneous, forward(2W) = 2 forward(W), as
        norms and seminorms are. The splitting solvers of ``linear_model`` take the term.
    ``dual_norm(Y)``
        Of such a norm the largest ⟨Y, W⟩ over forward(W) ≤ 1. Without it the solvers find it by
        some forty proxes where they tell how far from the minimum they are.
    ``quadratic(num_tasks)``
        forward is a sum of three quadratics, as a :class:`Quadratic` tells, strength and reduction
        included. Every solver takes it, with or without a prox, and sums know its prox.
    ``edges(num_tasks)``
        forward is s Σ_ij A_ij ‖w_i − w_j‖, told by the pair (A, s) of a
        :class:`mtlfast.TaskGraph` and a number ≥ 0. The splitting solvers take it.

    The methods return None where forward is no such thing, and may be asked for any number of
    tasks before it is known; a graph says its own. Of several declarations the solvers take the
    first of quadratic, edges, norm. They try them once a fit, at a random W, and raise a ValueError
    with the name of the class where forward is something else.

    The constructor's arguments are parameters in scikit-learn's sense where they are kept under
    their names: :meth:`get_params`, :meth:`set_params`, and ``penalty__strength`` in a search.

    Args:
        strength: a finite number ≥ 0.

    Raises:
        TypeError, ValueError: the strength is no number, negative, NaN or infinite.

    Example:
        >>> import torch
        >>> from mtlfast.linear_model import MultiTaskRegressor
        >>> from mtlfast.nn import Quadratic, Regularizer
        >>> class Sparse(Regularizer):
        ...     '''strength · Σ |w|: few parameters in all tasks.'''
        ...     has_prox = True
        ...     is_norm = True
        ...     def forward(self, W):
        ...         return self.strength * W.abs().sum()
        ...     def prox(self, W, step):
        ...         return torch.nn.functional.softshrink(W, float(step) * self.strength)
        >>> class Decay(Regularizer):
        ...     '''strength · ½‖W‖²'''
        ...     def forward(self, W):
        ...         return self.strength / 2 * W.square().sum()
        ...     def quadratic(self, num_tasks):
        ...         return Quadratic(ridge=self.strength / 2)
        >>> penalty = Sparse(1.0) + Decay(0.5)
        >>> penalty.has_prox
        True
        >>> X, y = torch.eye(4), torch.tensor([3.0, 0.5, -4.0, 1.0])
        >>> model = MultiTaskRegressor(penalty, fit_intercept=False).fit(X, y, [0] * 4)
        >>> model.coef_.round(decimals=3) + 0.0   # (|y| − 1)₊ / (1 + 0.5)
        tensor([[ 1.3330,  0.0000, -2.0000,  0.0000]])
    """

    if TYPE_CHECKING:
        _formula: Any
        _sum: Any

        def __call__(self, W: torch.Tensor) -> torch.Tensor: ...

    has_prox = False
    is_norm = False
    strength = 1.0
    _sum = None  # the class of sums, which is a regularizer itself
    _formula = None  # the forward that _parts speaks of

    def __init__(self, strength: Number = 1.0) -> None:
        super().__init__()
        self.strength = check_number(type(self).__name__, "strength", strength)

    def quadratic(self, num_tasks: int) -> Quadratic | None:
        """The :class:`Quadratic` that ``forward`` is with K tasks, or None."""
        return None

    def edges(self, num_tasks: int) -> tuple[TaskGraph, float] | None:
        """(TaskGraph A, s) where ``forward`` is s Σ_ij A_ij ‖w_i − w_j‖ with K tasks, or None."""
        return None

    def dual_norm(self, Y: torch.Tensor) -> float | torch.Tensor | None:
        """The largest ⟨Y, W⟩ over ``forward(W)`` ≤ 1 of a norm, or None where it is not known."""
        return None

    @property
    def summands(self) -> tuple[Regularizer, ...]:
        """The terms of a sum; of any other regularizer, itself."""
        return (self,)

    def prox(self, W: torch.Tensor, step: float) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__}.prox: this regularizer has no prox")

    @torch.no_grad()
    def prox_(self, W: RowsT, step: float) -> RowsT:
        """Writes ``prox(W, step)`` into W, outside autograd, and returns W.

        W is unchanged when an error is raised. A subclass that can do without a copy of W
        overrides this.
        """
        moved: Any = self.prox(W, step)  # type: ignore[arg-type]  # a list where it takes one
        copy_each_(*((W, moved) if is_several(W) else ([W], [moved])))
        return W

    def add_grad_(self, grad: Rows, W: Rows, *, alpha: float = 1.0) -> torch.Tensor:
        """Adds ``alpha`` times the gradient of ``forward`` to ``grad`` and returns the value.

        ``grad`` is like W: a tensor, or a list of tensors. Nothing else is recorded, and no other
        parameter gets a gradient. A subclass with a gradient in closed form overrides this.
        """
        check_grad(type(self).__name__ + ".add_grad_", grad, W)
        several = is_several(W)
        with torch.enable_grad():
            listed: Any = W if several else [W]
            leaves: Any = [w.detach().requires_grad_() for w in listed]
            value = self(leaves if several else leaves[0])
            parts = torch.autograd.grad(value, leaves)
        with torch.no_grad():
            for target, part in zip(grad if several else [grad], parts, strict=True):
                target.add_(part, alpha=alpha)
        return value.detach()

    def __add__(self, other: Regularizer) -> Sum:
        if not isinstance(other, Regularizer):
            return NotImplemented
        return self._sum([self, other])

    def __radd__(self, other: int) -> Self:  # sum([...]) starts from 0
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented

    def _scale_(self, factor):
        """Multiplies the strength, and has what a constructor derived from it derived anew."""
        strength, known = self.strength * factor, self.get_params(deep=False)
        if "strength" in known and self._keeps_all(known):
            return self.set_params(strength=strength)
        self.strength = strength
        return self

    def extra_repr(self) -> str:
        return f"strength={self.strength:g}"

    def _hold(self, name, value):
        """Keeps an argument so that it moves with the module and is saved where it can be."""
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, value)
        else:
            setattr(self, name, value)

    # What sums ask beside the contract.

    def _shape(self):
        """What decides whether the prox of its quadratic is known; None where it declares none."""
        quadratic = quadratic_of(self, 2)
        return None if quadratic is None else quadratic.shape

    def _num_tasks(self):
        """The number of tasks that a graph of its says; None where any will do."""
        return num_tasks_of(self)

    def _parts(self, rows, *, constants=False):
        """What ``forward`` is of rows, as :class:`mtlfast.nn._fused.Parts`, or None.

        Weights to be learned are none of it, but with ``constants``.
        """
        return None

    def _known_parts(self, rows, *, constants=False):
        """``_parts`` where nobody has changed what a call of the module does."""
        if (
            type(self).forward is not type(self)._formula
            or "forward" in vars(self)
            or has_hooks(self)
        ):
            return None
        return self._parts(rows, constants=constants) if self.strength > 0 else None
