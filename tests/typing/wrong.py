"""Wrong uses that type checkers refuse: a comment that is not needed any more is an error.

Nothing here runs.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true
import numpy as np
import torch

from mtlfast import (
    LowRank,
    TaskGraph,
    graph_reg,
    linear_model,
    nn,
    optim,
    pairwise_prox,
    pairwise_reg,
    relations,
    ridge_prox_,
    trace_norm,
)

W = torch.ones(3, 2)
graph = TaskGraph.chain(3)

pairwise_reg("W")  # type: ignore[arg-type]
pairwise_reg(W, reduction="max")  # type: ignore[arg-type]
pairwise_reg(W, "mean")  # type: ignore[call-arg]
pairwise_reg([1.0, 2.0])  # type: ignore[arg-type]
pairwise_prox(W, "0.1")  # type: ignore[call-overload]
pairwise_prox(W)  # type: ignore[call-overload]
ridge_prox_(W, step=None)  # type: ignore[arg-type]
trace_norm(W, check="yes")  # type: ignore[arg-type]
graph_reg(W, graph=3)  # type: ignore[arg-type]
graph_reg(W, (torch.ones(2, 3),))  # type: ignore[arg-type]
LowRank(factor=np.ones((3, 1)))  # type: ignore[arg-type]

graph.num_tasks = 4  # type: ignore[misc]
TaskGraph.from_edges(3)  # type: ignore[arg-type]
TaskGraph.from_sparse(np.ones((3, 3)))  # type: ignore[arg-type]
TaskGraph.knn(W, k="2")  # type: ignore[arg-type]
TaskGraph.knn(W, neighbours=2)  # type: ignore[call-arg]

nn.PairwiseReg(strength="a")  # type: ignore[arg-type]
nn.GraphReg(3)  # type: ignore[arg-type]
nn.Ridge(1.0)(0.5)  # type: ignore[arg-type]
nn.Ridge(1.0) + 1.0  # type: ignore[operator]
nn.Sum([1.0])  # type: ignore[list-item]
nn.Quadratic(graphs=[(3, 1.0)])  # type: ignore[list-item]
nn.TaskLinear(3, 2)  # type: ignore[call-arg]
nn.TaskLinear(3, 2, 1)(W, 0.5)  # type: ignore[arg-type]

sgd = torch.optim.SGD([W], lr=0.1)
optim.Proximal([W], {W: nn.Ridge()})  # type: ignore[arg-type]
optim.Proximal(sgd, {W: "ridge"})  # type: ignore[dict-item]
optim.Alternating(sgd, sgd, task_steps=0.5)  # type: ignore[arg-type]

linear_model.MultiTaskRegressor(penalty="ridge")  # type: ignore[arg-type]
linear_model.MultiTaskRegressor(solver="newton")  # type: ignore[arg-type]
linear_model.MultiTaskRegressor(strength=1.0)  # type: ignore[call-arg]
linear_model.MultiTaskRegressor().fit(W)  # type: ignore[call-arg]
linear_model.strengths("ridge", [1.0])  # type: ignore[arg-type]

relations(3)  # type: ignore[arg-type]
relations(W).nearest(0, metric="angle")  # type: ignore[arg-type]
