"""Parameters in scikit-learn's sense: the constructor's arguments by name, to be read and set."""

from __future__ import annotations

import contextlib
import copy
import inspect
from typing import TYPE_CHECKING

from torch import nn

from mtlfast.graphs import TaskGraph

if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

_MODULE = frozenset(vars(nn.Module()))  # what every module keeps for itself
_REGISTERED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
_PLAIN = (str, bool, int, float, type(None))


class Parameters:
    """``get_params`` and ``set_params`` of a module, by the signature of its constructor.

    An argument is a parameter where the module keeps it as an attribute of its name.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; with ``deep`` also those of terms of a sum.

        Example:
            >>> from mtlfast.nn import PairwiseReg, TraceNorm
            >>> PairwiseReg(0.5, reduction="mean").get_params()
            {'strength': 0.5, 'reduction': 'mean'}
            >>> both = PairwiseReg(0.5) + TraceNorm(2.0)
            >>> both.set_params(**{"1__strength": 3.0}).get_params()["1__strength"]
            3.0
        """
        found = {}
        for name in self._names():
            with contextlib.suppress(AttributeError):
                found[name] = self._argument(name)
        return found

    def _argument(self, name):
        """A constructor's argument as it was given."""
        return getattr(self, name)

    def set_params(self, **params: Any) -> Self:
        """Sets arguments by name and returns the module; nothing is set when one is refused.

        The constructor judges the new values. What it derived from numbers is derived anew; tensors
        and parameters are kept, but where an argument other than a number or a string is set.
        """
        if not params:
            return self
        known = self.get_params(deep=False)
        for name in params:
            if name not in known:
                raise ValueError(invalid(self, name, known))
        if not self._keeps_all(known):
            raise ValueError(
                f"{type(self).__name__}.set_params: the constructor's arguments must be kept as "
                f"attributes of their names, got none for "
                f"{', '.join(name for name in self._names() if name not in known)}"
            )
        self._adopt(type(self)(**(known | params)), params)
        return self

    def _adopt(self, other, params):
        plain = all(isinstance(value, _PLAIN) for value in params.values())
        for name in params:  # what was a plain attribute may be registered now
            self.__dict__.pop(name, None)
        for name, value in vars(other).items():
            if name not in _MODULE or (not plain and name in _REGISTERED):
                self.__dict__[name] = value

    def _keeps_all(self, known):
        """Whether the constructor can be called anew."""
        return len(known) == len(self._names())

    def _names(self):
        """The names of the constructor's arguments."""
        kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        arguments = list(inspect.signature(type(self).__init__).parameters.values())[1:]
        return [argument.name for argument in arguments if argument.kind not in kinds]

    def __sklearn_clone__(self):
        """A deep copy that shares the TaskGraphs, which nobody can change."""
        shared = {}
        for module in self.modules():
            _find_graphs(vars(module).values(), shared)
        return copy.deepcopy(self, shared)


def _find_graphs(values, found):
    for value in values:
        if isinstance(value, TaskGraph):
            found[id(value)] = value
        elif isinstance(value, (list, tuple)):
            _find_graphs(value, found)
        elif isinstance(value, dict):
            _find_graphs(value.values(), found)


def invalid(owner, name, known):
    """The words of scikit-learn for a parameter that is not there."""
    return (
        f"Invalid parameter {name!r} for {type(owner).__name__}. "
        f"Valid parameters are: {sorted(known)}."
    )


def nested_params(name, value):
    """The parameters of ``value`` under its name, in lists by position, as scikit-learn does."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        return {f"{name}__{key}": part for key, part in value.get_params().items()}
    found = {}
    if isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            inside = nested_params(f"{name}__{place}", part)
            if inside or hasattr(part, "get_params"):
                found |= {f"{name}__{place}": part} | inside
    return found


def with_params(name, value, params):
    """A copy of ``value`` with parameters set in it; their names are those inside of it."""
    if hasattr(value, "set_params") and not isinstance(value, type):
        return _cloned(value).set_params(**params)
    if not isinstance(value, (list, tuple)):
        raise ValueError(
            f"Invalid parameter {next(iter(params))!r} for {name}, which is "
            f"{'None' if value is None else type(value).__name__}."
        )
    parts = list(value)
    for key, rest in grouped(params).items():
        if not key.isdecimal() or int(key) >= len(parts):
            raise ValueError(
                f"Invalid parameter {key!r} for {name}, which holds {len(parts)} entries."
            )
        place = int(key)
        if "" in rest:
            parts[place] = rest.pop("")
        if rest:
            parts[place] = with_params(f"{name}__{place}", parts[place], rest)
    return type(value)(parts)


def grouped(params):
    """``{"a": {"": x, "b": y}}`` of ``{"a": x, "a__b": y}``."""
    groups = {}
    for name, value in params.items():
        first, _, rest = name.partition("__")
        groups.setdefault(first, {})[rest] = value
    return groups


def _cloned(value):
    return value.__sklearn_clone__() if hasattr(value, "__sklearn_clone__") else copy.copy(value)
