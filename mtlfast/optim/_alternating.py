"""Steps on the task loss and on the relation between the tasks, in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, overload

import torch

from mtlfast.optim._terms import Proxes
from mtlfast.optim._wrapper import Merged, Wrapper, check_optimizer, parameters_of

if TYPE_CHECKING:
    from collections import defaultdict
    from typing import Any, NoReturn

    from mtlfast._typing import Closure, LossT, OtherLossT, Terms


class Alternating(Wrapper):
    r"""Alternates steps on the task loss and on the relation between the tasks.

    The strategy of methods that learn how tasks relate: with the relation fixed, ``task_steps``
    steps on the task loss; with the tasks fixed, ``relation_steps`` steps on the relation.

    The relation is either an optimiser of its own – over edge weights, Ω, a common centre – or a
    mapping ``{parameter: regularizer}`` as in :class:`Proximal`. While one side steps, the
    parameters that only the other side owns have ``requires_grad = False``, so that no gradient is
    computed for them; the flags come back also after an exception.

    ``state_dict`` has the form of one optimiser's, with the groups of the task optimiser before
    those of the relation, so that ``torch.distributed.checkpoint.state_dict`` takes it. A method
    that this class does not have is called on the wrapped optimisers that have it; an attribute of
    both is to be taken from ``task_optimizer`` or ``relation_optimizer``.

    Where both sides minimise one objective that is jointly convex, over parameters of their own,
    alternation converges to the joint minimum. With one step each, the mapping form is
    :class:`Proximal`. When the relation optimiser steps on the *task* parameters with a loss of its
    own, the two take turns pulling: they rest within O(learning rate) of the joint minimum, not on
    it, unless the rates decay.

    Args:
        task_optimizer: a ``torch.optim.Optimizer``.
        relation: a ``torch.optim.Optimizer``, or ``{parameter: regularizer}`` over parameters of
            the task optimiser. The proxes of one relation phase together have the length of the
            task phase: each is ``lr · task_steps / relation_steps`` long.
        task_steps, relation_steps: steps of a phase, ints ≥ 1.

    Raises:
        TypeError, ValueError, NotImplementedError: as :class:`Proximal`; step counts that are no
            ints ≥ 1.

    Example:
        >>> import torch
        >>> from mtlfast.optim import Alternating
        >>> W = torch.nn.Parameter(torch.tensor([[0.0], [6.0]]))
        >>> centre = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = Alternating(
        ...     torch.optim.SGD([W], lr=0.1), torch.optim.SGD([centre], lr=0.25))
        >>> def loss():
        ...     optimizer.zero_grad()
        ...     value = (W - centre).square().sum() + (W - 3).square().sum()
        ...     value.backward()
        ...     return value
        >>> for _ in range(50):
        ...     task_loss, relation_loss = optimizer.step(loss, loss)
        >>> round(centre.item(), 3)
        3.0
    """

    if TYPE_CHECKING:
        task_optimizer: torch.optim.Optimizer
        relation_optimizer: torch.optim.Optimizer | None
        task_steps: int
        relation_steps: int

    inner = ("task_optimizer", "relation_optimizer")
    _kept = ("task_optimizer", "relation_optimizer", "_proxes", "task_steps", "relation_steps")

    def __init__(
        self,
        task_optimizer: torch.optim.Optimizer,
        relation: torch.optim.Optimizer | Terms,
        *,
        task_steps: int = 1,
        relation_steps: int = 1,
    ) -> None:
        check_optimizer("Alternating", "task_optimizer", task_optimizer)
        for name, value in (("task_steps", task_steps), ("relation_steps", relation_steps)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"Alternating: {name} must be an int, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"Alternating: {name} must be >= 1, got {value}")
        optimizer, proxes = None, None
        if isinstance(relation, torch.optim.Optimizer):
            optimizer = relation
        elif isinstance(relation, Mapping):
            proxes = Proxes("Alternating", task_optimizer, relation)
        else:
            raise TypeError(
                "Alternating: relation must be a torch.optim.Optimizer or a mapping "
                f"{{parameter: regularizer}}, got {type(relation).__name__}"
            )
        super().__init__(
            task_optimizer=task_optimizer, relation_optimizer=optimizer, _proxes=proxes,
            task_steps=task_steps, relation_steps=relation_steps,
        )  # fmt: skip

    @property
    def _optimizers(self):
        if self.relation_optimizer is None:
            return {"task": self.task_optimizer}
        return {"task": self.task_optimizer, "relation": self.relation_optimizer}

    @property
    def _merged(self):
        return Merged("Alternating", self._optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """A new list of the groups of the task optimiser, then those of the relation."""
        return [group for inner in self._optimizers.values() for group in inner.param_groups]

    @property
    def state(self) -> defaultdict[torch.Tensor, Any]:  # type: ignore[override]
        """A new dict of the states of both by parameter, not to be written to."""
        return self._merged.state()

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.task_optimizer.defaults

    @overload  # type: ignore[override]
    def step(self, task_closure: None = ..., relation_closure: None = ...) -> tuple[None, None]: ...
    @overload
    def step(
        self, task_closure: Closure[LossT], relation_closure: None = ...
    ) -> tuple[LossT, None]: ...
    @overload
    def step(
        self, task_closure: None = ..., *, relation_closure: Closure[OtherLossT]
    ) -> tuple[None, OtherLossT]: ...
    @overload
    def step(
        self, task_closure: Closure[LossT], relation_closure: Closure[OtherLossT]
    ) -> tuple[LossT, OtherLossT]: ...
    @overload
    def step(self, *, closure: Closure[LossT]) -> tuple[LossT, LossT | None]: ...
    def step(
        self,
        task_closure: Closure[Any] | None = None,
        relation_closure: Closure[Any] | None = None,
        *,
        closure: Closure[Any] | None = None,
    ) -> tuple[Any, Any]:
        """Both phases once; returns (last task loss, last relation loss).

        A closure zeroes gradients, computes its loss, calls ``backward`` and returns the loss, as
        with any ``torch.optim`` optimiser. Without one, the gradients that are there are used, and
        its loss is None; several steps need one, unless all their learning rates are 0.

        Args:
            task_closure, relation_closure: of the two phases.
            closure: in place of both, one for either: what code passes that knows of no phases.

        Raises:
            ValueError: a closure is missing where a phase has several steps, a relation closure
                is given where the relation is a mapping, or ``closure`` beside another.
        """
        task, relation = self.task_optimizer, self.relation_optimizer
        if closure is not None:
            if task_closure is not None or relation_closure is not None:
                raise ValueError(
                    "Alternating: closure must be the only one, got another for a phase"
                )
            task_closure, relation_closure = closure, None if relation is None else closure
        steps = [("task_closure", task_closure, self.task_steps, task)]
        if relation is None:
            if relation_closure is not None:
                raise ValueError(
                    "Alternating: relation_closure must be None where the relation is a mapping "
                    "of regularizers, got a closure"
                )
        else:
            steps.append(("relation_closure", relation_closure, self.relation_steps, relation))
        for name, given, count, optimizer in steps:
            rests = all(group.get("lr") == 0 for group in optimizer.param_groups)
            if given is None and count > 1 and not rests:
                raise ValueError(f"Alternating: {name} must be given for {count} steps, got None")
        lengths = [] if relation is not None else self._proxes.lengths(task)
        task_loss = relation_loss = None
        with _frozen(relation, task):
            for _ in range(self.task_steps):
                task_loss = task.step(task_closure)
        if relation is not None:
            with _frozen(task, relation):
                for _ in range(self.relation_steps):
                    relation_loss = relation.step(relation_closure)
        elif any(lengths):
            ratio = self.task_steps / self.relation_steps
            for _ in range(self.relation_steps):
                self._proxes.apply([ratio * length for length in lengths])
        return task_loss, relation_loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for inner in self._optimizers.values():
            inner.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> NoReturn:
        raise NotImplementedError(
            "Alternating: add_param_group must be called on the task or the relation optimizer"
        )

    def _pack(self):
        return self._merged.state_dict()

    def _unpack(self, state_dict):
        self._merged.load_state_dict(state_dict)


@contextlib.contextmanager
def _frozen(optimizer, other):
    """Parameters that ``optimizer`` owns and ``other`` does not need no gradient in here."""
    kept = set(parameters_of(other))
    frozen = [p for p in parameters_of(optimizer) if p.requires_grad and p not in kept]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
