"""Optimisers over a task loss and a regularizer: proximal steps, and alternation.

Both wrap ordinary optimisers and are ones: they show the parameter groups of what they wrap, so
learning-rate schedulers accept either, and what a scheduler sets on one is seen by the other.
"""

import contextlib
from collections.abc import Mapping

import torch

from mtlfast._proxes import Gradients, Proxes

__all__ = ["Alternating", "Proximal"]


class _Wrapper(torch.optim.Optimizer):
    """An optimiser without parameters of its own."""

    def __init__(self, **attributes):
        # The path of unpickling: it sets up the hooks of an Optimizer but no groups or state,
        # which are those of the wrapped optimisers.
        self.__setstate__(attributes)

    def __getstate__(self):
        return {name: self.__dict__[name] for name in self._kept}


class Proximal(_Wrapper):
    r"""The wrapped optimiser's step on the loss, then the prox of each parameter's regularizer.

    .. math:: w \leftarrow \operatorname{prox}_{\eta R}(w - \eta \nabla L(w)), \qquad
              \operatorname{prox}_{\eta R}(v) = \arg\min_z \tfrac12 \|z - v\|^2 + \eta R(z)

    with the learning rate η that the parameter's group has at that step. With plain SGD, a convex
    L and η ≤ 1/Lipschitz constant of ∇L this is proximal gradient descent: it converges to a
    minimum of L + R for every strength of R, however stiff, and reaches exact zeros and exact low
    rank. The loss must not contain R again.

    Other optimisers move by something else than η∇L, so that the balance of L and R shifts:
    SGD with momentum μ (dampening 0) comes to rest at a minimum of L + (1−μ)·R: divide the
    strength by 1−μ. Adam and other adaptive methods rescale each coordinate, and rest where
    (scaled gradient) + ∂R = 0, a minimum of another problem. Weight decay counts as part of L.

    Args:
        optimizer: a ``torch.optim.Optimizer`` whose groups have ``lr``. Its groups and state are
            shared; ``zero_grad``, ``add_param_group``, ``state_dict`` and ``load_state_dict`` are
            its own.
        regularizers: ``{parameter: regularizer}``. A key is a parameter ``[K, *]``, or a tuple of K
            equally shaped parameters, one a task, with equal learning rates. A value is a
            :class:`mtlfast.nn.Regularizer` that has a prox. The prox runs also at a step at which
            the parameter has no gradient. May be empty where ``smooth`` is given.
        smooth: ``{parameter: regularizer}``, keys as above; the values need no prox. Before the
            wrapped optimiser steps, the regularizer's gradient is added to ``parameter.grad`` in
            place (:meth:`mtlfast.nn.Regularizer.add_grad_`): as if it stood in the loss. Pairwise,
            ridge, group lasso and graphs with stored edges, also added up, need neither an autograd
            graph nor memory of W's size for it. With a closure that happens at the end of each of
            its calls; the loss it returns stays without the regularizer.

    Raises:
        TypeError: a key is no parameter or a value no regularizer.
        ValueError: a parameter that is not the optimiser's, or is named twice; no parameter; at
            construction or in ``step``, before anything has moved: unequal rates in a tuple.
        NotImplementedError: a regularizer without a prox in ``regularizers``.

    Example:
        >>> import torch
        >>> from mtlfast.nn import PairwiseReg
        >>> from mtlfast.optim import Proximal
        >>> W = torch.nn.Parameter(torch.tensor([[0.0], [9.0]]))
        >>> optimizer = Proximal(torch.optim.SGD([W], lr=0.5), {W: PairwiseReg(strength=0.5)})
        >>> W.grad = torch.zeros_like(W)
        >>> optimizer.step()
        >>> W.tolist()
        [[3.0], [6.0]]

    Source: N. Parikh and S. Boyd, Proximal Algorithms, 2014, section 4.2.
    """

    _kept = ("optimizer", "_proxes", "_gradients")

    def __init__(self, optimizer, regularizers, *, smooth=None):
        _check_optimizer("Proximal", "optimizer", optimizer)
        proxes = Proxes("Proximal", optimizer, regularizers, optional=smooth is not None)
        gradients = None if smooth is None else Gradients("Proximal", optimizer, smooth)
        super().__init__(optimizer=optimizer, _proxes=proxes, _gradients=gradients)

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def state(self):
        return self.optimizer.state

    @property
    def defaults(self):
        return self.optimizer.defaults

    def step(self, closure=None):
        """One step of both; returns what the wrapped optimiser's ``step(closure)`` returns."""
        lengths = self._proxes.lengths(self.optimizer)
        if self._gradients is not None and closure is None:
            self._gradients.add()
        elif self._gradients is not None:
            closure = self._gradients.after(closure)
        loss = self.optimizer.step(closure)
        self._proxes.apply(lengths)
        return loss

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group):
        self.optimizer.add_param_group(param_group)

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict):
        self.optimizer.load_state_dict(state_dict)


class Alternating(_Wrapper):
    r"""Alternates steps on the task loss and on the relation between the tasks.

    The strategy of methods that learn how tasks relate: with the relation fixed, ``task_steps``
    steps on the task loss; with the tasks fixed, ``relation_steps`` steps on the relation.

    The relation is either an optimiser of its own – over edge weights, Ω, a common centre – or a
    mapping ``{parameter: regularizer}`` as in :class:`Proximal`. While one side steps, the
    parameters that only the other side owns have ``requires_grad = False``, so that no gradient is
    computed for them; the flags come back also after an exception.

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

    _kept = ("task_optimizer", "relation_optimizer", "_proxes", "task_steps", "relation_steps")

    def __init__(self, task_optimizer, relation, *, task_steps=1, relation_steps=1):
        _check_optimizer("Alternating", "task_optimizer", task_optimizer)
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
    def param_groups(self):
        """The groups of the task optimiser, then those of the relation: a new list of them."""
        return [group for inner in self._optimizers.values() for group in inner.param_groups]

    @property
    def state(self):
        """The states of both, by parameter: a new dict, not to be written to."""
        return {
            key: value for inner in self._optimizers.values() for key, value in inner.state.items()
        }

    @property
    def defaults(self):
        return self.task_optimizer.defaults

    def step(self, task_closure=None, relation_closure=None):
        """Both phases once; returns (last task loss, last relation loss).

        A closure zeroes gradients, computes its loss, calls ``backward`` and returns the loss, as
        with any ``torch.optim`` optimiser. Without one, the gradients that are there are used, and
        its loss is None; several steps need one.

        Raises:
            ValueError: a closure is missing where a phase has several steps, or a relation closure
                is given where the relation is a mapping.
        """
        task, relation = self.task_optimizer, self.relation_optimizer
        steps = [("task_closure", task_closure, self.task_steps)]
        if relation is None:
            if relation_closure is not None:
                raise ValueError(
                    "Alternating: relation_closure must be None where the relation is a mapping "
                    "of regularizers, got a closure"
                )
        else:
            steps.append(("relation_closure", relation_closure, self.relation_steps))
        for name, closure, count in steps:
            if closure is None and count > 1:
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
        else:
            ratio = self.task_steps / self.relation_steps
            for _ in range(self.relation_steps):
                self._proxes.apply([ratio * length for length in lengths])
        return task_loss, relation_loss

    def zero_grad(self, set_to_none=True):
        for inner in self._optimizers.values():
            inner.zero_grad(set_to_none)

    def add_param_group(self, param_group):
        raise NotImplementedError(
            "Alternating: add_param_group must be called on the task or the relation optimizer"
        )

    def state_dict(self):
        """``{"task": …, "relation": …}``, the latter where the relation is an optimiser."""
        return {name: inner.state_dict() for name, inner in self._optimizers.items()}

    def load_state_dict(self, state_dict):
        optimizers = self._optimizers
        if state_dict.keys() != optimizers.keys():
            raise ValueError(
                f"Alternating: state_dict must have the keys {sorted(optimizers)}, "
                f"got {sorted(state_dict)}"
            )
        for name, inner in optimizers.items():
            inner.load_state_dict(state_dict[name])


def _check_optimizer(owner, argument, value):
    if not isinstance(value, torch.optim.Optimizer):
        raise TypeError(
            f"{owner}: {argument} must be a torch.optim.Optimizer, got {type(value).__name__}"
        )


def _parameters(optimizer):
    if optimizer is None:
        return []
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@contextlib.contextmanager
def _frozen(optimizer, other):
    """Parameters that ``optimizer`` owns and ``other`` does not need no gradient in here."""
    kept = set(_parameters(other))
    frozen = [p for p in _parameters(optimizer) if p.requires_grad and p not in kept]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
