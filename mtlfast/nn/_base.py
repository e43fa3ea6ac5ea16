"""What every regularizer is: a strength times a function of W, which adds up with others."""

import torch
from torch import nn

from mtlfast._checks import check_grad, check_number


class Regularizer(nn.Module):
    """A strength times a function of the parameters of K tasks; regularizers add up with ``+``.

    A subclass defines ``forward(W)``, the value, and declares with ``has_prox = True`` that it
    defines ``prox(W, step)``, the minimiser of ``½‖Z − W‖² + step · forward(Z)``: the strength is
    part of the step. :class:`mtlfast.optim.Proximal` takes any regularizer that declares one.

    Args:
        strength: a finite number ≥ 0.

    Raises:
        TypeError, ValueError: the strength is no number, negative, NaN or infinite.
    """

    has_prox = False
    _sum = None  # the class of sums, which is a regularizer itself

    def __init__(self, strength=1.0):
        super().__init__()
        self.strength = check_number(type(self).__name__, "strength", strength)

    def prox(self, W, step):
        raise NotImplementedError(f"{type(self).__name__}.prox: this regularizer has no prox")

    @torch.no_grad()
    def prox_(self, W, step):
        """Writes ``prox(W, step)`` into W, outside autograd, and returns W.

        W is unchanged when an error is raised. A subclass that can do without a copy of W
        overrides this.
        """
        several = isinstance(W, (list, tuple))
        moved = self.prox(W, step)
        for target, rows in zip(W, moved, strict=True) if several else [(W, moved)]:
            target.copy_(rows)
        return W

    def add_grad_(self, grad, W, *, alpha=1.0):
        """Adds ``alpha`` times the gradient of ``forward`` to ``grad`` and returns the value.

        ``grad`` is like W: a tensor, or a list of tensors. Nothing else is recorded, and no other
        parameter gets a gradient. A subclass with a gradient in closed form overrides this.
        """
        check_grad(type(self).__name__ + ".add_grad_", grad, W)
        several = isinstance(W, (list, tuple))
        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in (W if several else [W])]
            value = self(leaves if several else leaves[0])
            parts = torch.autograd.grad(value, leaves)
        with torch.no_grad():
            for target, part in zip(grad if several else [grad], parts, strict=True):
                target.add_(part, alpha=alpha)
        return value.detach()

    def __add__(self, other):
        if not isinstance(other, Regularizer):
            return NotImplemented
        return self._sum([self, other])

    def __radd__(self, other):  # sum([...]) starts from 0
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented

    def extra_repr(self):
        return f"strength={self.strength:g}"

    def _hold(self, name, value):
        """Keeps an argument so that it moves with the module and is saved where it can be."""
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, value)
        else:
            setattr(self, name, value)
