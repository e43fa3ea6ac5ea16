"""Jobs of the group lasso and its prox, and what one would write instead."""

import floor
import torch
from jobs_pairwise import tasks
from timing import Job, gradient_of

from mtlfast import group_lasso, group_lasso_prox

WAYS = {
    "mtlfast": group_lasso,
    "eager norm": lambda W: W.norm(dim=0).sum(),  # loses digits over many tasks
    "eager norm in float64": lambda W: torch.linalg.vector_norm(
        W, dim=0, dtype=torch.float64
    ).sum(),
}


def value_and_gradient(num_tasks, dim):
    W = tasks(num_tasks, dim).requires_grad_()
    calls = {name: gradient_of(lambda way=way: way(W), W) for name, way in WAYS.items()}
    return Job(calls, floor.value_and_gradient(W.detach()), 3 * 4 * W.numel(), tolerance=2e-3)


def prox(num_tasks, dim, threshold=0.5):
    W = tasks(num_tasks, dim)

    def eager():
        return W * (1 - threshold / W.norm(dim=0)).clamp(min=0)

    ways = {"mtlfast": lambda: group_lasso_prox(W, threshold), "eager": eager}
    return Job(ways, floor.value_and_gradient(W), 3 * 4 * W.numel())
