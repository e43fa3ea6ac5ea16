"""A user's program that touches everything public: type checkers take it, and it runs."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import assert_type

import mtlfast
from mtlfast import LowRank, TaskGraph, linear_model, nn, optim
from mtlfast.linear_model import MultiTaskClassifier, MultiTaskRegressor, strengths
from mtlfast.relations import Relations

Edges = tuple[list[list[int]], list[float]]


class Sparse(nn.Regularizer):
    """strength · Σ |w|, a term of one's own."""

    has_prox = True
    is_norm = True

    def forward(self, W: Tensor) -> Tensor:
        return self.strength * W.abs().sum()

    def prox(self, W: Tensor, step: float) -> Tensor:
        return torch.nn.functional.softshrink(W, float(step) * self.strength)


class Decay(nn.Regularizer):
    """strength · ½‖W‖²"""

    def forward(self, W: Tensor) -> Tensor:
        return self.strength / 2 * W.square().sum()

    def quadratic(self, num_tasks: int) -> nn.Quadratic:
        return nn.Quadratic(ridge=self.strength / 2)


def graphs() -> list[TaskGraph]:
    chain = TaskGraph.chain(4)
    assert_type(chain.num_edges, int)
    assert_type(chain.weight, Tensor | None)
    assert_type(chain.is_groups, bool)
    features = np.arange(8.0).reshape(4, 2)
    return [
        chain.to("cpu").to(chain.device),
        TaskGraph.from_edges([[0, 1], [1, 2]], np.ones(2), num_tasks=4),
        TaskGraph.from_dense(chain.to_dense()),
        TaskGraph.from_sparse(chain.to_dense().to_sparse()),
        TaskGraph.knn(features, k=1),
        TaskGraph.groups(["a", "b", "a", "b"]),
    ]


def functions(W: Tensor, heads: list[torch.nn.Parameter], graph: TaskGraph) -> Tensor:
    edges: Edges = [[0, 1], [1, 2]], [1.0, 0.5]
    matrix: NDArray[np.float64] = graph.to_dense().double().numpy()
    stored = torch.nn.ParameterList(heads)
    named = {str(k): head for k, head in enumerate(heads)}
    value = mtlfast.pairwise_reg(W)
    value = value + mtlfast.pairwise_reg(W, reduction="mean") + mtlfast.ridge_reg(heads)
    value = value + mtlfast.graph_reg(stored, edges) + mtlfast.graph_reg(W, matrix)
    value = value + mtlfast.graph_total_variation(named.values(), graph)
    value = value + mtlfast.group_lasso(tuple(heads)) + mtlfast.trace_norm(W, check=False)
    value = value + mtlfast.gram_reg(W, LowRank(torch.ones(4, 1))) + mtlfast.gram_reg(W, W @ W.T)
    assert_type(value, Tensor)

    grad = torch.zeros_like(W)
    W = W.detach().clone()
    assert_type(mtlfast.pairwise_add_grad_(grad, W, alpha=0.5), Tensor)
    mtlfast.ridge_add_grad_(grad, W, strength=np.float32(0.5))
    mtlfast.graph_add_grad_(grad, W, graph, reduction="mean")
    mtlfast.graph_total_variation_add_grad_(grad, W, graph)
    mtlfast.group_lasso_add_grad_([grad], [W], alpha=torch.tensor(2.0))

    assert_type(mtlfast.pairwise_prox(W, 0.1), Tensor)  # what comes back has the form of W
    assert_type(mtlfast.ridge_prox(heads[0], 1), Tensor)
    assert_type(mtlfast.group_lasso_prox((W, W), 0.1), tuple[Tensor, ...])
    assert_type(mtlfast.graph_prox(heads, edges, 0.1, tol=1e-9), list[Tensor])
    assert_type(mtlfast.trace_norm_prox(named.values(), 0.1), list[Tensor])
    with torch.no_grad():
        assert_type(mtlfast.graph_total_variation_prox(stored, graph, 0.1), list[Tensor])
    assert_type(mtlfast.pairwise_prox_(stored, 0.1), torch.nn.ParameterList)
    assert_type(mtlfast.ridge_prox_(heads, 0.1), list[torch.nn.Parameter])
    assert_type(mtlfast.graph_prox_(W, graph, 0.1), Tensor)
    mtlfast.group_lasso_prox_(mtlfast.trace_norm_prox_(W, 0.1), 0.1)
    return value


def modules(graph: TaskGraph) -> nn.Sum:
    layer = nn.TaskLinear(num_tasks=4, in_features=3, out_features=2)
    assert_type(layer(torch.ones(5, 3), [0, 1, 3, 2, 0]), Tensor)
    assert_type(nn.TaskLinear.from_modules([torch.nn.Linear(3, 2)]).rows, Tensor)
    assert_type(layer.bias, torch.nn.Parameter | None)
    penalty = nn.PairwiseReg(0.1, reduction="mean") + nn.TraceNorm(0.2) + nn.GroupLasso()
    penalty += nn.GraphTotalVariation(graph) + nn.Sum([nn.Ridge(0.1), Decay(0.3)])
    assert_type(penalty(layer.rows), Tensor)
    assert_type(penalty.summands, tuple[nn.Regularizer, ...])
    learned = nn.GraphReg(([[0, 1], [1, 2]], torch.nn.Parameter(torch.ones(2))), strength=0.5)
    assert_type(learned.set_params(strength=0.3), nn.GraphReg)
    assert_type(nn.Ridge(0.1).prox((layer.weight, layer.weight), 0.5), tuple[Tensor, ...])
    assert_type(nn.Ridge(0.1).quadratic(num_tasks=4) + nn.Quadratic(pairs=2), nn.Quadratic)
    nn.GramReg(torch.eye(4), reduction="mean").add_grad_(torch.zeros(4, 8), layer.rows.detach())
    return penalty


def steps(graph: TaskGraph) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3))

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (weight - 1).square().sum()
        torch.autograd.backward([value])
        return value

    sgd = torch.optim.SGD([weight], lr=0.1)
    optimizer = optim.Proximal(sgd, {weight: Sparse(0.1)}, smooth={weight: nn.GraphReg(graph)})
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    assert_type(optimizer.step(loss), Tensor)
    optimizer.add_smooth_()
    scheduler.step()
    alternating = optim.Alternating(sgd, {weight: nn.Ridge(0.1)}, task_steps=2)
    assert_type(alternating.step(loss), tuple[Tensor, None])
    optimizer.load_state_dict(optimizer.state_dict())


def models(graph: TaskGraph, penalty: nn.Sum) -> Relations:
    rng = np.random.default_rng(0)
    X, task = rng.normal(size=(60, 3)), np.arange(60) % 4
    y = X.sum(1) + 0.1 * task
    model = MultiTaskRegressor(Sparse(0.1) + nn.GraphReg(graph), tol=1e-4).fit(X, y, task)
    assert_type(model, MultiTaskRegressor)
    assert_type(model.predict(X, task), NDArray[Any])
    assert_type(model.predict(torch.from_numpy(X), task.tolist()), Tensor)
    assert_type(model.score(X, y, task), float)
    classifier = MultiTaskClassifier([nn.Ridge(0.1)], unknown="mean", dtype="float32")
    labels = ["yes" if value > 0 else "no" for value in y]
    assert_type(classifier.fit(X, labels, task).predict_proba(X, task), NDArray[Any])
    grid = strengths(nn.PairwiseReg(), [1, 0.1])
    assert_type(grid, list[nn.PairwiseReg])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linear_model.ConvergenceWarning)
        chosen = linear_model.MultiTaskRegressorCV(grid, cv=3, random_state=0).fit(X, y, task)
        linear_model.MultiTaskClassifierCV(grid, cv=3).fit(X, labels, task)
    assert_type(chosen.best_index_, int)
    assert_type(linear_model.path(model, grid, X, y, task), list[MultiTaskRegressor])

    found = mtlfast.relations(model, names=["north", "south", "east", "west"])
    assert_type(found, Relations)
    assert_type(found.correlation("north", "south"), float)
    assert_type(found.covariance(), Tensor)
    assert_type(found.clusters(2).labels, Tensor)
    for name, distance in mtlfast.relations([[0.0, 1.0], [2.0, 3.0]]).nearest(0, n=1):
        print(name, f"{distance:.1f}")
    return found


def main() -> None:
    warnings.simplefilter("ignore", mtlfast.FallbackWarning)
    torch.manual_seed(0)
    W = torch.randn(4, 4, requires_grad=True)
    chain = graphs()[0]
    heads = [torch.nn.Parameter(torch.randn(4)) for _ in range(4)]
    torch.autograd.backward([functions(W, heads, chain)])
    penalty = modules(chain)
    steps(chain)
    print(models(chain, penalty).summary(n_clusters=2))
    print(mtlfast.show_config(), mtlfast.build_info()["version"], mtlfast.release_memory() >= 0)


if __name__ == "__main__":
    main()
