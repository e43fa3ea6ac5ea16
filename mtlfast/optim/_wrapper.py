"""What an optimiser that wraps others owes to the code around it: to look like those others."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from typing import Any


class Wrapper(torch.optim.Optimizer):
    """An optimiser without parameters of its own: what it lacks is looked up in those it wraps.

    ``inner`` names the attributes that hold them, ``_kept`` those that are copied and pickled.
    """

    inner: tuple[str, ...] = ()
    _kept: tuple[str, ...] = ()
    # A fused optimiser says so that it undoes the scale of gradients by itself, from attributes
    # that a GradScaler sets. The scaler must do that before the terms of a wrapper join, and leave
    # out a step as a whole.
    _step_supports_amp_scaling = False

    def __init__(self, **attributes: Any) -> None:
        # The path of unpickling: it sets up the hooks of an Optimizer but no groups or state,
        # which are those of the wrapped optimisers.
        self.__setstate__(attributes)

    def __getstate__(self):
        return {name: self.__dict__[name] for name in self._kept}

    def _wrapped(self):
        """The wrapped optimisers by the names of their attributes."""
        held = ((name, self.__dict__.get(name)) for name in self.inner)
        return {name: optimizer for name, optimizer in held if optimizer is not None}

    def _owners(self, name):
        """Those of the wrapped optimisers that have an attribute."""
        if name.startswith("__"):  # looked for while a copy is still empty
            return {}
        return {k: o for k, o in self._wrapped().items() if hasattr(o, name)}

    def _ambiguous(self, name, owners):
        what = " and ".join(owners)
        return AttributeError(
            f"{type(self).__name__}: attribute {name} must be taken from one optimizer, got {what}"
        )

    def __getattr__(self, name: str) -> Any:
        owners = self._owners(name)
        found = [getattr(owner, name) for owner in owners.values()]
        if not found:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if len(found) == 1:
            return found[0]
        if not all(callable(one) for one in found):
            raise self._ambiguous(name, owners)

        def both(*args, **kwargs):
            return tuple(one(*args, **kwargs) for one in found)

        return both

    def __setattr__(self, name: str, value: Any) -> None:
        """What is public and a wrapped optimiser's own is set there: here it would hide that."""
        own = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        owners = {} if own else self._owners(name)
        if len(owners) > 1:
            raise self._ambiguous(name, owners)
        for owner in owners.values():
            setattr(owner, name, value)
        if not owners:
            super().__setattr__(name, value)

    def __dir__(self):
        return sorted({*super().__dir__(), *(n for o in self._wrapped().values() for n in dir(o))})

    def state_dict(self) -> dict[str, Any]:
        """The state, after and before the hooks that are registered here."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self._pack()
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, state)
            state = state if changed is None else changed
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave, after and before the hooks registered here."""
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        self._unpack(state_dict)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)


def check_optimizer(owner, argument, value):
    if not isinstance(value, torch.optim.Optimizer):
        raise TypeError(
            f"{owner}: {argument} must be a torch.optim.Optimizer, got {type(value).__name__}"
        )


def parameters_of(optimizer):
    """The parameters of all groups, in order; none where there is no optimiser."""
    groups = [] if optimizer is None else optimizer.param_groups
    return [parameter for group in groups for parameter in group["params"]]


class Merged:
    """Several optimisers as one: parameter groups one after the other, states by parameter.

    It has the form of one optimiser's ``state_dict``, so that torch's tools for distributed
    checkpoints can name the parameters and load it. A parameter of several optimisers has the
    number of its last place, and its states side by side, each under its optimiser's name.
    """

    def __init__(self, owner, optimizers):
        self.owner = owner
        self.optimizers = optimizers  # {name: optimizer}
        places = [p for optimizer in optimizers.values() for p in parameters_of(optimizer)]
        self.number = {parameter: place for place, parameter in enumerate(places)}
        own = [set(parameters_of(optimizer)) for optimizer in optimizers.values()]
        self.shared = {p for p in self.number if sum(p in parameters for parameters in own) > 1}

    def state(self):
        """``{parameter: state}``, as ``torch.optim.Optimizer.state``: empty where there is none."""
        merged = collections.defaultdict(dict)
        for name, optimizer in self.optimizers.items():
            for key, value in optimizer.state.items():
                if key in self.shared:
                    merged[key].update(_prefixed(name, value))
                else:
                    merged[key] = value
        return merged

    def state_dict(self):
        # Parameters without a state are listed too: torch's tools miss them otherwise.
        state, groups, more = {number: {} for number in self.number.values()}, [], {}
        for name, optimizer in self.optimizers.items():
            packed = optimizer.state_dict()
            shared = {self.number[p] for p in self.shared}
            number = self._numbers(optimizer, packed["param_groups"])
            for key, value in packed["state"].items():
                if key not in number:  # of no parameter
                    state[f"{name}.{key}"] = value
                elif number[key] in shared:
                    state[number[key]].update(_prefixed(name, value))
                else:
                    state[number[key]] = value
            for group in packed["param_groups"]:
                groups.append(group | {"params": [number[key] for key in group["params"]]})
            rest = {k: v for k, v in packed.items() if k not in ("state", "param_groups")}
            more |= _prefixed(name, rest)
        return {"state": state, "param_groups": groups, **more}

    def _numbers(self, optimizer, packed_groups):
        """{an optimiser's own number of a parameter: the number here}."""
        keys = [key for group in packed_groups for key in group["params"]]
        numbers = [self.number[p] for p in parameters_of(optimizer)]
        return dict(zip(keys, numbers, strict=True))

    def load_state_dict(self, state_dict):
        """Loads what :meth:`state_dict` gave, also with names in place of numbers."""
        if not {"state", "param_groups"} <= state_dict.keys():
            raise ValueError(
                f"{self.owner}: state_dict must have the keys ['param_groups', 'state'], "
                f"got {sorted(state_dict)}"
            )
        for optimizer, part in zip(self.optimizers.values(), self._parts(state_dict), strict=True):
            optimizer.load_state_dict(part)

    def _parts(self, state_dict):
        """The state of each optimiser, all checked before the first is loaded."""
        groups = list(state_dict["param_groups"])
        sizes = [len(g["params"]) for o in self.optimizers.values() for g in o.param_groups]
        got = [len(group["params"]) for group in groups]
        if sizes != got:
            raise ValueError(
                f"{self.owner}: state_dict must have groups of {sizes} parameters, got {got}"
            )
        everybody = {key for group in groups for key in group["params"]}
        parts, begin = [], 0
        for name, optimizer in self.optimizers.items():
            own = groups[begin : begin + len(optimizer.param_groups)]
            begin += len(own)
            for group, current in zip(own, optimizer.param_groups, strict=True):
                if "lr" in current and "lr" not in group:
                    raise ValueError(
                        f"{self.owner}: state_dict must hold the options of each group, got none "
                        f"for {group['params']}; torch's checkpoint tools lose those of a "
                        "parameter that two optimizers own"
                    )
            part = {"state": {}, "param_groups": own}
            shared = self._shared_keys(optimizer, own)
            mine = {key for group in own for key in group["params"]}
            for key, value in state_dict["state"].items():
                if key in shared:
                    value = _of_prefix(name, value)
                if key in mine and value:
                    part["state"][key] = value
                elif key not in everybody:
                    part["state"].update(_of_prefix(name, {key: value}))
            part.update(_of_prefix(name, state_dict, ("state", "param_groups")))
            parts.append(part)
        return parts

    def _shared_keys(self, optimizer, groups):
        keys = [key for group in groups for key in group["params"]]
        return {
            key
            for key, parameter in zip(keys, parameters_of(optimizer), strict=True)
            if parameter in self.shared
        }


def _prefixed(name, values):
    return {f"{name}.{key}": value for key, value in values.items()}


def _of_prefix(name, values, left_out=()):
    """The entries whose key begins with the name, without it."""
    return {
        key.removeprefix(f"{name}."): value
        for key, value in values.items()
        if isinstance(key, str) and key.startswith(f"{name}.") and key not in left_out
    }
