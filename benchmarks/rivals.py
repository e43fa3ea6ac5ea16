"""What is measured: each case with mtlfast and what a user would write instead, on equal inputs.

A case is built by a function of a size and returns its ways, name → a call that returns tensors;
the first way is mtlfast. All ways of a case must agree before they are timed.
"""

import torch

from mtlfast import TaskGraph, graph_reg, pairwise_reg, trace_norm_prox


def _value_and_grad(W, value_of):
    """A call that returns the value and the gradient in W, through autograd."""
    W.requires_grad_()

    def run():
        value = value_of(W)
        return value.detach(), *torch.autograd.grad(value, W)

    return run


def _pairwise_loop(W):
    total = 0
    for i in range(len(W)):
        for j in range(len(W)):
            if i != j:
                total = total + ((W[i] - W[j]) ** 2).sum()
    return total


def _pairwise_expanded(W):
    return 2 * len(W) * (W**2).sum() - 2 * (W.sum(0) ** 2).sum()


def _pairwise_centred(W):
    return 2 * len(W) * ((W - W.mean(0)) ** 2).sum()


def pairwise(num_tasks, dim, *, loop=False):
    W = torch.randn(num_tasks, dim, generator=torch.Generator().manual_seed(0))
    ways = {"mtlfast": pairwise_reg, "eager expanded": _pairwise_expanded}
    ways["eager centred"] = _pairwise_centred
    if loop:
        ways["double loop"] = _pairwise_loop
    return {name: _value_and_grad(W, way) for name, way in ways.items()}


def graph(num_tasks, num_edges, dim, *, loop=False):
    make = torch.Generator().manual_seed(0)
    W = torch.randn(num_tasks, dim, generator=make)
    src, dst = torch.randint(0, num_tasks, (2, num_edges), generator=make)
    weight = torch.rand(num_edges, generator=make)
    prepared = TaskGraph.from_edges(torch.stack([src, dst]), weight, num_tasks)

    def gather(W):
        return (weight * ((W[src] - W[dst]) ** 2).sum(1)).sum()

    def edge_loop(W):
        total = 0
        for i, j, a in zip(src.tolist(), dst.tolist(), weight, strict=True):
            total = total + a * ((W[i] - W[j]) ** 2).sum()
        return total

    ways = {"mtlfast": lambda W: graph_reg(W, prepared), "gather over edges": gather}
    if loop:
        ways["loop over edges"] = edge_loop
    return {name: _value_and_grad(W, way) for name, way in ways.items()}


def _svd_prox(W, threshold):
    u, sigma, vh = torch.linalg.svd(W, full_matrices=False)
    return (u * (sigma - threshold).clamp(min=0).unsqueeze(-2)) @ vh


def prox(batch, rows, columns, *, loop=False):
    W = torch.randn(batch, rows, columns, generator=torch.Generator().manual_seed(0))
    ways = {
        "mtlfast": lambda: (trace_norm_prox(W, 0.5),),
        "batched linalg.svd": lambda: (_svd_prox(W, 0.5),),
    }
    if loop:
        ways["loop of linalg.svd"] = lambda: (torch.stack([_svd_prox(w, 0.5) for w in W]),)
    return ways


# name → (function, size, options); sizes of the README's table
OVERVIEW = {
    "pairwise 200×64": (pairwise, (200, 64), {"loop": True}),
    "pairwise 10,000×64": (pairwise, (10_000, 64), {}),
    "pairwise 1,000,000×64": (pairwise, (1_000_000, 64), {}),
    "graph 1,000 tasks, 5,000 edges, d=64": (graph, (1_000, 5_000, 64), {"loop": True}),
    "graph 10,000 tasks, 100,000 edges, d=64": (graph, (10_000, 100_000, 64), {}),
    "graph 100,000 tasks, 1,000,000 edges, d=64": (graph, (100_000, 1_000_000, 64), {}),
    "trace-norm prox 16,384×8×8": (prox, (16_384, 8, 8), {"loop": True}),
    "trace-norm prox 4,096×32×32": (prox, (4_096, 32, 32), {"loop": True}),
    "trace-norm prox 512×128×64": (prox, (512, 128, 64), {"loop": True}),
    "trace-norm prox 1×100,000×64": (prox, (1, 100_000, 64), {}),
}

# the same cases, small enough for every test run
TINY = {
    "pairwise": (pairwise, (12, 5), {"loop": True}),
    "graph": (graph, (20, 60, 5), {"loop": True}),
    "trace-norm prox": (prox, (6, 8, 5), {"loop": True}),
}


def assert_equal(ways):
    """All ways give what mtlfast gives, to the rounding of float32 sums."""
    (first, expected), *others = [(name, run()) for name, run in ways.items()]
    for name, results in others:
        for got, want in zip(results, expected, strict=True):
            error = (got - want).norm() / want.norm()
            assert error < 1e-4, f"{name} differs from {first} by {error:.1e}"
