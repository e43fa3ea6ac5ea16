"""Mappings ``{parameter: regularizer}`` of an optimiser, checked once and applied each step."""

import torch

from mtlfast.nn import Regularizer
from mtlfast.nn._sum import names_of


class _Terms:
    """A mapping ``{parameter: regularizer}`` over parameters of an optimiser, checked."""

    argument = ""

    def __init__(self, owner, optimizer, regularizers, *, optional=False):
        self.owner = owner
        self.entries = []  # (parameters, whether the key was one parameter, groups, regularizer)
        group_of = {
            parameter: index
            for index, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
        }
        name = self.argument
        if not regularizers and not optional:
            raise ValueError(f"{owner}: {name} must name at least one parameter, got none")
        seen = set()
        for position, (key, regularizer) in enumerate(regularizers.items()):
            if not isinstance(regularizer, Regularizer):
                raise TypeError(
                    f"{owner}: the values of {name} must be mtlfast.nn regularizers, "
                    f"got {type(regularizer).__name__} at position {position}"
                )
            self._check(regularizer, position)
            parameters = key if isinstance(key, tuple) else (key,)
            for parameter in parameters:
                if not isinstance(parameter, torch.Tensor):
                    raise TypeError(
                        f"{owner}: the keys of {name} must be parameters or tuples of them, "
                        f"got {type(parameter).__name__} at position {position}"
                    )
                if parameter not in group_of:
                    raise ValueError(
                        f"{owner}: the parameters in {name} must be the optimizer's own, got "
                        f"one of shape {list(parameter.shape)} at position {position} that is in "
                        f"none of its {len(optimizer.param_groups)} groups"
                    )
                if parameter in seen:
                    raise ValueError(
                        f"{owner}: a parameter must have one regularizer, got a second one at "
                        f"position {position}; add regularizers up with +"
                    )
                seen.add(parameter)
            groups = sorted({group_of[parameter] for parameter in parameters})
            self.entries.append((parameters, not isinstance(key, tuple), groups, regularizer))

    def _check(self, regularizer, position):
        pass


class Gradients(_Terms):
    """Regularizers whose gradient is added to that of their parameters, in place."""

    argument = "smooth"

    @torch.no_grad()
    def add(self):
        for parameters, single, _, regularizer in self.entries:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            grads = tuple(parameter.grad for parameter in parameters)
            if single:
                regularizer.add_grad_(grads[0], parameters[0])
            else:
                regularizer.add_grad_(grads, parameters)

    def after(self, closure):
        """``closure``, and then the gradients."""

        def with_gradients():
            loss = closure()
            self.add()
            return loss

        return with_gradients


class Proxes(_Terms):
    """Regularizers whose prox follows a step of their parameters."""

    argument = "regularizers"

    def __init__(self, owner, optimizer, regularizers, *, optional=False):
        super().__init__(owner, optimizer, regularizers, optional=optional)
        self.lengths(optimizer)

    def _check(self, regularizer, position):
        if not regularizer.has_prox:
            raise NotImplementedError(
                f"{self.owner}: the regularizer at position {position} must have a prox, got "
                f"{names_of(regularizer)}; minimise it by gradient instead, as part of the loss"
            )

    def lengths(self, optimizer):
        """The step length of each entry: the learning rate of its parameters' group, now."""
        lengths = []
        for position, (_, _, groups, _) in enumerate(self.entries):
            rates = [float(optimizer.param_groups[index]["lr"]) for index in groups]
            if len(set(rates)) > 1:
                raise ValueError(
                    f"{self.owner}: all parameters of a tuple must have the same learning rate, "
                    f"got {rates} at position {position}"
                )
            lengths.append(rates[0])
        return lengths

    @torch.no_grad()
    def apply(self, lengths):
        for (parameters, single, _, regularizer), length in zip(self.entries, lengths, strict=True):
            regularizer.prox_(parameters[0] if single else parameters, length)
