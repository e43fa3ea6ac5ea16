"""Jobs of the Gram distance, and what one would write instead."""

import torch
from jobs_graph import random_edges
from timing import Job, gradient_of

from mtlfast import gram_reg


def dense(num_tasks, dim):
    make = torch.Generator().manual_seed(0)
    W = torch.randn(num_tasks, dim, generator=make).requires_grad_()
    omega = torch.randn(num_tasks, num_tasks, generator=make)
    omega = omega + omega.T

    def three_terms():
        return (W.T @ W).square().sum() - 2 * (W * (omega @ W)).sum() + omega.square().sum()

    ways = {
        "mtlfast": lambda: gram_reg(W, omega),
        "three terms, autograd": three_terms,
        "naive, autograd": lambda: (W @ W.T - omega).square().sum(),
    }
    return Job({name: gradient_of(way, W) for name, way in ways.items()}, tolerance=1e-3)


def sparse(num_tasks, num_edges, dim):
    """Its two matrix products WᵀW and W·(WᵀW) stand beside it: no other way does the job."""
    edges = random_edges(num_tasks, num_edges)
    W = torch.randn(num_tasks, dim, generator=torch.Generator().manual_seed(1)).requires_grad_()
    values = torch.ones(num_edges)
    omega = torch.sparse_coo_tensor(edges, values, (num_tasks,) * 2).coalesce()
    plain, wide = W.detach(), W.detach().double()
    return Job(
        {
            "mtlfast": gradient_of(lambda: gram_reg(W, omega), W),
            "two products, float32": lambda: plain @ (plain.T @ plain),
            "two products, float64": lambda: wide @ (wide.T @ wide),
        },
        share={"two products, float32": 1.0, "two products, float64": 1.0},
    )
