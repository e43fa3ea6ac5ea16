"""The regularizers over a graph of the tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from mtlfast._checks import as_rows, check_number, check_reduction
from mtlfast.graph import graph_add_grad_, graph_prox, graph_reg
from mtlfast.graph_total_variation import (
    graph_total_variation,
    graph_total_variation_add_grad_,
    graph_total_variation_prox,
)
from mtlfast.graphs import TaskGraph
from mtlfast.graphs._prepare import prepare, prepare_task_graph
from mtlfast.nn._base import Regularizer
from mtlfast.nn._fused import Parts
from mtlfast.nn._quadratic import Quadratic, Shape

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from mtlfast._typing import Array, FormT, Graph, Number, Reduction, Rows, Several, SparseMatrix


class _OnGraph(Regularizer):
    """What regularizers over a graph share: they hold it, move it and divide by its edges."""

    if TYPE_CHECKING:
        graph: TaskGraph | torch.Tensor | NDArray[Any] | SparseMatrix
        edge_index: Array
        edge_weight: Array | None

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def __init__(self, graph: Graph, strength: Number = 1.0, reduction: Reduction = "sum") -> None:
        super().__init__(strength)
        name = type(self).__name__
        check_reduction(name, reduction)
        self.reduction: Reduction = reduction
        self._is_edge_list = isinstance(graph, (tuple, list))
        if isinstance(graph, (tuple, list)):
            if len(graph) != 2:
                raise ValueError(
                    f"{name}: a graph of plain tensors must be (edge_index, edge_weight), "
                    f"got {len(graph)} entries"
                )
            self._hold("edge_index", graph[0])
            self._hold("edge_weight", graph[1])
        else:
            self._hold("graph", graph)
        if isinstance(graph, TaskGraph):  # an empty tensor to learn from where the module went
            anchor = torch.empty(0, device=graph.device)
            self.register_buffer("_anchor", anchor, persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        graph = self._stored()
        if isinstance(graph, TaskGraph):
            self.graph = graph.to(self._anchor.device)
        return self

    def _task_graph(self, method, W):
        """The graph with its weights as they are now: proxes and solvers take them as constants."""
        function = f"{type(self).__name__}.{method}"
        return prepare_task_graph(function, self._stored(), as_rows(function, W), detach=True)

    def _strong_graph(self, method, num_tasks):
        """(TaskGraph, strength), the graph of as many tasks as it says itself."""
        graph = self._stored()
        if not isinstance(graph, TaskGraph):
            tensor = self.edge_index if self._is_edge_list else graph
            device = tensor.device if isinstance(tensor, torch.Tensor) else "cpu"
            rows = torch.empty((self._num_tasks() or num_tasks, 1), device=device)
            graph = self._task_graph(method, rows)
        return graph, self._factor(graph)

    def _num_tasks(self):
        graph = self._stored()
        if isinstance(graph, TaskGraph):
            return graph.num_tasks
        shape = getattr(graph, "shape", ())  # of a matrix; a list of edges says no number
        return int(shape[0]) if len(shape) else None

    def _factor(self, graph):
        """What the sum over edges is multiplied by."""
        return self.strength / (max(graph.num_edges, 1) if self.reduction == "mean" else 1)

    def _stored(self):
        return (self.edge_index, self.edge_weight) if self._is_edge_list else self.graph

    def _argument(self, name):
        return self._stored() if name == "graph" else super()._argument(name)

    def extra_repr(self) -> str:
        graph = "(edge_index, edge_weight)" if self._is_edge_list else self.graph
        if isinstance(graph, torch.Tensor):
            graph = f"{graph.layout} {list(graph.shape)}".removeprefix("torch.")
        elif hasattr(graph, "shape"):  # of NumPy or scipy
            graph = f"{type(graph).__name__} {list(graph.shape)}"
        return f'{graph}, {super().extra_repr()}, reduction="{self.reduction}"'


class GraphReg(_OnGraph):
    """``strength · graph_reg(W, graph, reduction=reduction)``, see :func:`mtlfast.graph_reg`.

    Args:
        graph: a :class:`mtlfast.TaskGraph`, or any plain form that ``graph_reg`` takes. A TaskGraph
            moves with the module; it is a constant and no part of ``state_dict``. Plain tensors
            become buffers (``graph``, or ``edge_index`` and ``edge_weight``); weights given as a
            ``nn.Parameter`` become a parameter of the module, to be learned by the gradient of the
            value; ``prox`` takes them as constants.
        strength: a finite number ≥ 0.
        reduction: ``"sum"`` or ``"mean"``.
    """

    has_prox = True

    def forward(self, W: Rows) -> torch.Tensor:
        return self.strength * graph_reg(W, self._stored(), reduction=self.reduction)

    _formula = forward

    def quadratic(self, num_tasks: int) -> Quadratic:
        return Quadratic(graphs=[self._strong_graph("quadratic", num_tasks)])

    def _shape(self):
        return Shape(pairs=False, graphs=int(self.strength > 0))

    def _parts(self, rows, *, constants=False):
        form = prepare("graph_reg", self._stored(), rows)
        if form.is_learnable and not constants:
            return None
        count = form.count if self.reduction == "mean" else 1
        return Parts(graphs=((form.fixed(rows), self.strength / float(count)),))

    @overload
    def prox(self, W: FormT, step: Number) -> FormT: ...
    @overload
    def prox(self, W: Several, step: Number) -> list[torch.Tensor]: ...
    def prox(self, W: Rows, step: Number) -> Rows:
        step = check_number("GraphReg.prox", "step", step)
        graph = self._task_graph("prox", W)
        return graph_prox(W, graph, step * self._factor(graph))

    def add_grad_(self, grad: Rows, W: Rows, *, alpha: Number = 1.0) -> torch.Tensor:
        alpha = check_number("GraphReg.add_grad_", "alpha", alpha, signed=True)
        graph, strength = self._stored(), self.strength
        value = graph_add_grad_(grad, W, graph, alpha=alpha * strength, reduction=self.reduction)
        return strength * value


class GraphTotalVariation(_OnGraph):
    """``strength · graph_total_variation(W, graph)``, see :func:`mtlfast.graph_total_variation`.

    Args:
        graph: as for :class:`GraphReg`, but with weights that are constants; the prox wants
            A_ij + A_ji ≥ 0.
        strength: a finite number ≥ 0.
        reduction: ``"sum"`` or ``"mean"``.

    Example:
        >>> import torch
        >>> from mtlfast import TaskGraph
        >>> from mtlfast.nn import GraphTotalVariation
        >>> total_variation = GraphTotalVariation(TaskGraph.chain(2), strength=0.5)
        >>> W = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> total_variation(W).item()   # 0.5 · (5 + 5)
        5.0
        >>> total_variation.prox(W, step=1.0)
        tensor([[0.6000, 0.8000],
                [2.4000, 3.2000]])
    """

    has_prox = True

    def forward(self, W: Rows) -> torch.Tensor:
        value = graph_total_variation(W, self._stored(), reduction=self.reduction)
        return self.strength * value

    def edges(self, num_tasks: int) -> tuple[TaskGraph, float]:
        return self._strong_graph("edges", num_tasks)

    @overload
    def prox(self, W: FormT, step: Number) -> FormT: ...
    @overload
    def prox(self, W: Several, step: Number) -> list[torch.Tensor]: ...
    def prox(self, W: Rows, step: Number) -> Rows:
        step = check_number("GraphTotalVariation.prox", "step", step)
        graph = self._task_graph("prox", W)
        return graph_total_variation_prox(W, graph, step * self._factor(graph))

    def add_grad_(self, grad: Rows, W: Rows, *, alpha: Number = 1.0) -> torch.Tensor:
        alpha = check_number("GraphTotalVariation.add_grad_", "alpha", alpha, signed=True)
        strength = self.strength
        return strength * graph_total_variation_add_grad_(
            grad, W, self._stored(), alpha=alpha * strength, reduction=self.reduction
        )
