"""Jobs of the ridge and of sums of regularizers, and what one would write instead."""

import floor
import torch
from jobs_graph import random_edges
from jobs_pairwise import tasks
from timing import Job, gradient_of

from mtlfast import TaskGraph, pairwise_reg, ridge_add_grad_, ridge_reg, trace_norm
from mtlfast.nn import GraphReg, PairwiseReg, Ridge, TraceNorm


def ridge(num_tasks, dim):
    """Value and gradient through autograd; the pairwise distance moves the same bytes."""
    W = tasks(num_tasks, dim).requires_grad_()
    ways = {
        "mtlfast": lambda: ridge_reg(W, strength=0.1),
        "eager": lambda: 0.1 * (W * W).sum(),
        "eager in float64": lambda: 0.1 * W.double().square().sum(),
        "the pairwise distance": lambda: pairwise_reg(W),
    }
    calls = {name: gradient_of(way, W) for name, way in ways.items()}
    moved = floor.value_and_gradient(W.detach())
    return Job(
        calls, moved, 3 * 4 * W.numel(), tolerance=2e-3, share={"the pairwise distance": 1.0}
    )


def ridge_in_place(num_tasks, dim):
    """Into a gradient that is there, without autograd."""
    W, grad = tasks(num_tasks, dim), torch.zeros(num_tasks, dim)

    def ours(grad):
        return ridge_add_grad_(grad, W, alpha=1e-9), grad

    def by_hand(grad):
        grad.add_(W, alpha=2e-9)
        return W.square().sum(), grad

    ways = {"mtlfast": ours, "eager, by hand": by_hand}
    return Job(
        {name: lambda way=way: way(grad) for name, way in ways.items()},
        floor.add_in_place(W, torch.zeros_like(W)),
        4 * 4 * W.numel(),
        {name: lambda way=way: way(torch.zeros_like(W)) for name, way in ways.items()},
    )


def sum_of(num_tasks, num_edges, dim, *, norm=False):
    """Pairwise + graph + ridge, with ``norm`` + trace norm, as one and term by term."""
    W = tasks(num_tasks, dim).requires_grad_()
    graph = TaskGraph.from_edges(random_edges(num_tasks, num_edges), None, num_tasks)
    terms = [PairwiseReg(1.0, "mean"), GraphReg(graph, 0.1), Ridge(0.01)]
    terms += [TraceNorm(0.1)] if norm else []
    alone, whole = terms[1], sum(terms)
    row = torch.arange(num_tasks).repeat_interleave(graph.row_ptr.diff())
    col, weight = graph.col.long(), graph.weight_as(torch.float32)

    def eager():
        distance = (weight * (W[row] - W[col]).square().sum(1)).sum() / 2
        pairs = 2 * num_tasks * (W - W.mean(0)).square().sum() / (num_tasks * (num_tasks - 1))
        value = pairs + 0.1 * distance + 0.01 * W.square().sum()
        return value + 0.1 * trace_norm(W) if norm else value

    ways = {
        "mtlfast": gradient_of(lambda: whole(W), W),
        "term by term": gradient_of(lambda: sum(term(W) for term in terms), W),
        "the graph term alone": gradient_of(lambda: alone(W), W),
        "eager": gradient_of(eager, W),
    }
    return Job(ways, tolerance=1e-3, share={"the graph term alone": 1.0})
