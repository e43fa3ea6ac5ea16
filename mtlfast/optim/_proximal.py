"""Proximal steps: an ordinary optimiser on the loss, then the prox of each regularizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from mtlfast.optim._terms import Gradients, Proxes
from mtlfast.optim._wrapper import Wrapper, check_optimizer

if TYPE_CHECKING:
    from collections import defaultdict
    from collections.abc import Sequence
    from typing import Any

    import torch

    from mtlfast._typing import Closure, LossT, Terms


class Proximal(Wrapper):
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
            shared; ``zero_grad``, ``add_param_group``, ``state_dict``, ``load_state_dict`` and all
            that this class does not have are its own. Hooks that are registered here frame both
            steps.
        regularizers: ``{parameter: regularizer}``. A key is a parameter ``[K, *]``, or a tuple of K
            equally shaped parameters, one a task, with equal learning rates. A value is a
            :class:`mtlfast.nn.Regularizer` that has a prox. The prox runs also at a step at which
            the parameter has no gradient. May be empty where ``smooth`` is given.
        smooth: ``{parameter: regularizer}``, keys as above; the values need no prox. The
            regularizer's gradient is added to ``parameter.grad`` in place
            (:meth:`mtlfast.nn.Regularizer.add_grad_`): as if it stood in the loss. Pairwise, ridge,
            group lasso and graphs with stored edges, also added up, need neither an autograd graph
            nor memory of W's size for it. It joins when :meth:`step` begins, after everything that
            was done to the gradients before, such as unscaling and clipping; with a closure, at the
            end of each of its calls. :meth:`add_smooth_` lets it join earlier. A loss stays without
            the regularizer.

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

    if TYPE_CHECKING:
        optimizer: torch.optim.Optimizer

    inner = ("optimizer",)
    _kept = ("optimizer", "_proxes", "_gradients")
    # (parameter, its gradient) where the smooth terms have joined
    _held: Sequence[tuple[Any, Any]] = ()

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        regularizers: Terms,
        *,
        smooth: Terms | None = None,
    ) -> None:
        check_optimizer("Proximal", "optimizer", optimizer)
        proxes = Proxes("Proximal", optimizer, regularizers, optional=smooth is not None)
        gradients = None if smooth is None else Gradients("Proximal", optimizer, smooth)
        super().__init__(optimizer=optimizer, _proxes=proxes, _gradients=gradients)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.optimizer.param_groups

    @property
    def state(self) -> defaultdict[torch.Tensor, Any]:  # type: ignore[override]
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.optimizer.defaults

    @overload
    def step(self, closure: None = ..., **options: Any) -> None: ...
    @overload
    def step(self, closure: Closure[LossT], **options: Any) -> LossT: ...
    def step(self, closure: Closure[Any] | None = None, **options: Any) -> Any:
        """One step of both; returns what the wrapped optimiser's ``step`` returns.

        Args:
            closure: as in ``torch.optim.Optimizer.step``.
            options: what else the wrapped optimiser's ``step`` takes by name.
        """
        lengths = self._proxes.lengths(self.optimizer)
        if self._gradients is not None:
            if closure is None:
                self._join()
            else:
                closure = self._with_smooth(closure)
        loss = self.optimizer.step(closure, **options)
        self._held = ()
        if any(lengths):  # else nothing moves, not even by rounding
            self._proxes.apply(lengths)
        return loss

    def add_smooth_(self) -> None:
        """Adds the gradients of ``smooth`` now; the :meth:`step` that follows does not repeat it.

        For what must see whole gradients before a step, such as clipping: call it once all
        ``backward`` of the step are done, after ``GradScaler.unscale_`` where there is a scaler,
        or in a closure before that returns. A further call before the step adds nothing, unless
        gradients have been renewed since; ``zero_grad`` takes everything back. Gradients
        that something else than this optimiser sets to zero *in place* are not noticed.

        Example:
            >>> import torch
            >>> from mtlfast.nn import PairwiseReg
            >>> from mtlfast.optim import Proximal
            >>> W = torch.nn.Parameter(torch.tensor([[0.0], [9.0]]))
            >>> sgd = torch.optim.SGD([W], lr=1.0)
            >>> optimizer = Proximal(sgd, {}, smooth={W: PairwiseReg(strength=0.5)})
            >>> W.sum().backward()
            >>> optimizer.add_smooth_()
            >>> W.grad.flatten().tolist()
            [-17.0, 19.0]
            >>> norm = torch.nn.utils.clip_grad_norm_([W], 5.0)
            >>> optimizer.step()
            >>> W.grad.norm().round().item()
            5.0
        """
        renewed = any(parameter.grad is not grad for parameter, grad in self._held)
        if self._gradients is not None and (renewed or not self._held):
            self._gradients.add()
            self._held = [
                (parameter, parameter.grad)
                for parameters, *_ in self._gradients.entries
                for parameter in parameters
            ]

    def _join(self):
        """Adds the smooth terms, unless they are in the gradients; those may be other tensors by
        now, of a clipping that is not in place."""
        if all(parameter.grad is None for parameter, _ in self._held):
            self._held = ()
            self.add_smooth_()

    def _with_smooth(self, closure):
        """``closure``, and then the smooth terms, unless it has added them itself."""

        def with_smooth():
            self._held = ()
            loss = closure()
            self._join()
            return loss

        return with_smooth

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._held = ()
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.optimizer.add_param_group(param_group)

    def _pack(self):
        return self.optimizer.state_dict()

    def _unpack(self, state_dict):
        self.optimizer.load_state_dict(state_dict)
