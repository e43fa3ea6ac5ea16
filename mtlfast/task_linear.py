"""K linear heads as one layer with one parameter."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from mtlfast._compat import needs_reference
from mtlfast.graphs._read import as_tensor
from mtlfast.reference._base import autocast_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Self

    from mtlfast._typing import Device, TaskIds

# Rows a task from which grouping beats gathering. One thread, forward and backward, 4,096 rows of
# 64 features, 8 outputs: 100 tasks 2.3 ms grouped, 8.6 gathered; 1,000 tasks 7.0 and 8.6;
# 3,000 tasks 14 and 8.7.
_ROWS_A_TASK = 4


class TaskLinear(nn.Module):
    """K linear layers of equal shape, one for each task, as one parameter of K rows.

    .. math:: y = W_k x + b_k \\quad \\text{for task } k

    ``weight [K, out, in]`` and ``bias [K, out]`` are each a tensor ``[K, *]`` that a regularizer
    takes as it is; ``rows`` is both in one. Initialised as K ``nn.Linear``.

    Args:
        num_tasks, in_features, out_features: sizes ≥ 1.
        bias: whether each task has a bias.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: a size is no integer, or < 1.

    Cost: one id for the batch costs what ``nn.Linear`` costs. With one id a row, batches of at
    least 4 rows a task are grouped by task into one batched product, others gather a copy of their
    task's weights for every row.

    Example:
        >>> import torch
        >>> from mtlfast.nn import TaskLinear
        >>> layer = TaskLinear(num_tasks=5, in_features=3, out_features=2)
        >>> x = torch.randn(4, 3)
        >>> layer(x, 2).shape                             # the whole batch is of task 2
        torch.Size([4, 2])
        >>> layer(x, torch.tensor([0, 4, 4, 1])).shape    # one id a row
        torch.Size([4, 2])
    """

    if TYPE_CHECKING:
        num_tasks: int
        in_features: int
        out_features: int
        weight: nn.Parameter
        bias: nn.Parameter | None

        def __call__(self, x: torch.Tensor, task: TaskIds) -> torch.Tensor: ...

    def __init__(
        self,
        num_tasks: int,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"num_tasks": num_tasks, "in_features": in_features, "out_features": out_features}
        for name, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"TaskLinear: {name} must be an int, got {type(size).__name__}")
            if size < 1:
                raise ValueError(f"TaskLinear: {name} must be >= 1, got {size}")
            setattr(self, name, size)
        weight = torch.empty(num_tasks, out_features, in_features, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight)
        if bias:
            self.bias = nn.Parameter(weight.new_empty(num_tasks, out_features))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws every task's parameters as ``nn.Linear`` does: uniform in ±1/√in_features."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def rows(self) -> torch.Tensor:
        """``[K, out·in + out]``: weight and bias of a task in one row, differentiable.

        For a regularizer that ties columns together, such as the trace norm; pairwise and graph
        terms of ``rows`` are the sums of those of ``weight`` and ``bias``.
        """
        weight = self.weight.flatten(1)
        return weight if self.bias is None else torch.cat([weight, self.bias], 1)

    def forward(self, x: torch.Tensor, task: TaskIds) -> torch.Tensor:
        """``x`` through the layer of its task.

        Args:
            x: ``[*, in]``; ``[B, in]`` with one id a row.
            task: an int or integer tensor without dimensions, the task of the whole batch; or
                integers ``[B]`` with the task of each row, as a tensor, a numpy array or a list.
                Ids on the CPU are moved to x. Ids on an accelerator cost one synchronisation, for
                the check of their range; in compiled or exported code, transforms and graph
                capture, and on "meta", they are not checked.

        Returns:
            ``[*, out]``.

        Raises:
            TypeError: ``task`` is neither an int nor holds integers.
            ValueError: an id outside [0, K), or shapes that do not fit.
        """
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"TaskLinear: x must have shape [*, {self.in_features}], got {list(x.shape)}"
            )
        task = self._checked_ids(x, task)
        if isinstance(task, int):
            bias = None if self.bias is None else self.bias[task]
            return functional.linear(x, self.weight[task], bias)
        if task.dim() == 0:
            one = task.reshape(1)
            bias = None if self.bias is None else self.bias.index_select(0, one)[0]
            return functional.linear(x, self.weight.index_select(0, one)[0], bias)
        grouped = None
        # Whether it is traced is asked first: a size that is compared is not any size any more.
        if self.out_features > 1 and not _is_traced(task):
            enough = x.shape[0] >= _ROWS_A_TASK * self.num_tasks
            grouped = self._grouped(x, task) if enough else None
        y = self._gathered(x, task) if grouped is None else grouped
        return y if self.bias is None else y + self.bias.index_select(0, task).to(y.dtype)

    def _gathered(self, x, task):
        """A copy of its task's weights for every row of x."""
        y = (self.weight.index_select(0, task) * x.unsqueeze(1)).sum(-1)
        dtype = autocast_dtype(x.device.type)  # the dtype that nn.Linear returns
        return y if dtype is None else y.to(dtype)

    def _grouped(self, x, task):
        """One batched product over the rows of each task, padded to the most frequent task.

        None where the padding would be large.
        """
        order = task.argsort(stable=True)
        ids = task[order]
        bounds = torch.searchsorted(ids, torch.arange(self.num_tasks + 1, device=ids.device))
        longest = int(bounds.diff().max())
        if self.num_tasks * longest > 4 * len(x):
            return None
        place = torch.arange(len(x), device=ids.device) - bounds[ids]
        slot = ids * longest + place
        padded = x.new_zeros(self.num_tasks * longest, self.in_features)
        padded = padded.index_copy(0, slot, x[order])
        y = padded.view(self.num_tasks, longest, -1) @ self.weight.transpose(1, 2)
        return y.flatten(0, 1).index_select(0, torch.empty_like(slot).index_copy(0, order, slot))

    def _checked_ids(self, x: torch.Tensor, task: Any) -> int | torch.Tensor:
        """``task`` as an int, or as an int64 tensor on x's device."""
        if isinstance(task, int):
            return self._checked_id(task)
        if not isinstance(task, torch.Tensor):
            if not isinstance(task, (list, tuple)) and not hasattr(task, "__array__"):
                return self._checked_id(task)
            task = _as_ids(task)
        whole = not (task.is_floating_point() or task.is_complex() or task.dtype == torch.bool)
        if not whole and task.numel():  # nothing in an empty one is no integer
            raise TypeError(
                f"TaskLinear: task must be an int or an integer tensor, got dtype {task.dtype}"
            )
        if task.dim() > 1 or (task.dim() == 1 and x.shape != (task.shape[0], self.in_features)):
            raise ValueError(
                "TaskLinear: task must be one id, or one id for each row of x [B, in], "
                f"got shape {list(task.shape)} for x of shape {list(x.shape)}"
            )
        if task.device != x.device and task.device.type != "cpu":
            raise ValueError(
                f"TaskLinear: task must be on x's device {x.device} or the CPU, got {task.device}"
            )
        task = task.to(torch.int64)
        if not _is_traced(task):
            if task.dim() == 0:
                return self._checked_id(int(task))
            bad = (task < 0) | (task >= self.num_tasks)
            if bad.any():
                at = int(bad.nonzero()[0])
                raise ValueError(
                    f"TaskLinear: task must be in [0, K={self.num_tasks}), "
                    f"got {int(task[at])} at position {at}"
                )
        return task.to(x.device, non_blocking=True)

    def _checked_id(self, task):
        if isinstance(task, bool) or not hasattr(type(task), "__index__"):
            raise TypeError(
                f"TaskLinear: task must be an int or an integer tensor, got {type(task).__name__}"
            )
        task = operator.index(task)
        if not 0 <= task < self.num_tasks:
            raise ValueError(f"TaskLinear: task must be in [0, K={self.num_tasks}), got {task}")
        return task

    @classmethod
    def from_modules(cls, modules: Iterable[nn.Linear]) -> Self:
        """The K layers of an iterable of ``nn.Linear``, copied, as one.

        Raises:
            TypeError: an entry is no ``nn.Linear``, or dtypes differ.
            ValueError: no entry; shapes or devices differ; some have a bias and some have not.
        """
        modules = list(modules)
        if not modules:
            raise ValueError("TaskLinear.from_modules: modules must hold at least one nn.Linear")
        for k, module in enumerate(modules):
            if not isinstance(module, nn.Linear):
                raise TypeError(
                    "TaskLinear.from_modules: modules must be nn.Linear, "
                    f"got {type(module).__name__} at position {k}"
                )
            for what, of in _COMPARED.items():
                first, this = of(modules[0]), of(module)
                if this != first:
                    kind = TypeError if what == "dtype" else ValueError
                    raise kind(
                        f"TaskLinear.from_modules: all modules must have the same {what}, "
                        f"got {first} at position 0 and {this} at position {k}"
                    )
        first = modules[0]
        layer = cls(
            len(modules), first.in_features, first.out_features, first.bias is not None,
            device="meta", dtype=first.weight.dtype,
        )  # fmt: skip
        for name, _ in list(layer.named_parameters()):
            rows = torch.stack([getattr(module, name).detach() for module in modules])
            setattr(layer, name, nn.Parameter(rows))
        return layer

    def to_modules(self) -> nn.ModuleList:
        """The inverse of :meth:`from_modules`: an ``nn.ModuleList`` of K copied ``nn.Linear``."""
        heads = nn.ModuleList()
        for k in range(self.num_tasks):
            head = nn.Linear(
                self.in_features, self.out_features, self.bias is not None, device="meta"
            )
            for name, parameter in self.named_parameters():
                setattr(head, name, nn.Parameter(parameter[k].detach().clone()))
            heads.append(head)
        return heads

    def extra_repr(self) -> str:
        return (
            f"num_tasks={self.num_tasks}, in_features={self.in_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


_COMPARED = {
    "shape": lambda module: list(module.weight.shape),
    "bias": lambda module: module.bias is not None,
    "dtype": lambda module: module.weight.dtype,
    "device": lambda module: module.weight.device,
}


def _as_ids(task):
    """An array or a list as a tensor on the CPU."""
    if torch.compiler.is_compiling():
        return torch.as_tensor(task, device="cpu")
    return as_tensor("TaskLinear", "task", task)


def _is_traced(task):
    """True where no value of ``task`` can be looked at."""
    if torch.compiler.is_compiling() or needs_reference(task) or task.is_meta:
        return True
    return task.is_cuda and torch.cuda.is_current_stream_capturing()
