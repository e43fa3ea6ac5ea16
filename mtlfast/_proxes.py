"""The mapping ``{parameter: regularizer}`` of an optimiser, checked once and applied each step."""

import torch

from mtlfast.nn import Regularizer


class Proxes:
    """The proxes ``{parameter: regularizer}`` of an optimiser's parameters, checked."""

    def __init__(self, owner, optimizer, regularizers):
        self.owner = owner
        self.entries = []  # (parameters, whether the key was one parameter, groups, regularizer)
        group_of = {
            parameter: index
            for index, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
        }
        if not regularizers:
            raise ValueError(f"{owner}: regularizers must name at least one parameter, got none")
        seen = set()
        for position, (key, regularizer) in enumerate(regularizers.items()):
            if not isinstance(regularizer, Regularizer):
                raise TypeError(
                    f"{owner}: the values of regularizers must be mtlfast.nn regularizers, "
                    f"got {type(regularizer).__name__} at position {position}"
                )
            if not regularizer.has_prox:
                raise NotImplementedError(
                    f"{owner}: the regularizer at position {position} must have a prox, got "
                    f"{_name(regularizer)}; minimise it by gradient instead, as part of the loss"
                )
            parameters = key if isinstance(key, tuple) else (key,)
            for parameter in parameters:
                if not isinstance(parameter, torch.Tensor):
                    raise TypeError(
                        f"{owner}: the keys of regularizers must be parameters or tuples of them, "
                        f"got {type(parameter).__name__} at position {position}"
                    )
                if parameter not in group_of:
                    raise ValueError(
                        f"{owner}: the parameters in regularizers must be the optimizer's own, got "
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
        self.lengths(optimizer)

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
            moved = regularizer.prox(parameters[0] if single else parameters, length)
            for parameter, value in zip(parameters, (moved,) if single else moved, strict=True):
                parameter.copy_(value)


def _name(regularizer):
    terms = getattr(regularizer, "terms", [regularizer])
    return " + ".join(type(term).__name__ for term in terms)
