"""Jobs of the trace norm and its prox, and what one would write instead."""

import torch
from timing import Job, gradient_of

from mtlfast import trace_norm, trace_norm_prox

THRESHOLD = 0.5


def svd_prox(W):
    u, sigma, vh = torch.linalg.svd(W, full_matrices=False)
    return (u * (sigma - THRESHOLD).clamp(min=0).unsqueeze(-2)) @ vh


def gram_prox(W):
    """By the eigenvectors of a Gram matrix in float64, for rows ≥ columns."""
    x = W.double()
    squares, v = torch.linalg.eigh(x.mT @ x)
    sigma = squares.clamp(min=1e-300).sqrt()
    shrink = (1 - THRESHOLD / sigma).clamp(min=0)
    return W @ ((v * shrink.unsqueeze(-2)) @ v.mT).float()


def _svd_in_worker(W):
    torch.set_num_threads(1)
    return svd_prox(W)


class Workers:
    """Two processes with LAPACK, started before anything is timed; batches are cut in two."""

    def __init__(self, W):
        import torch.multiprocessing

        self.pool = torch.multiprocessing.get_context("spawn").Pool(2)
        self.halves = [half.clone().share_memory_() for half in W.chunk(2)]
        self()

    def __call__(self):
        return torch.cat(self.pool.map(_svd_in_worker, self.halves))


def _matrices(batch, rows, columns):
    return torch.randn(batch, rows, columns, generator=torch.Generator().manual_seed(0))


def prox(batch, rows, columns, *, workers=False, device="cpu"):
    W = _matrices(batch, rows, columns).to(device)
    ways = {
        "mtlfast": lambda: trace_norm_prox(W, THRESHOLD),
        "linalg.svd": lambda: svd_prox(W),
        "float64 Gram + eigh": lambda: gram_prox(W),
    }
    if workers and batch > 1:
        ways["two processes of linalg.svd"] = Workers(W)
    return Job(ways, bytes=2 * 4 * W.numel())


def value_and_gradient(batch, rows, columns):
    W = _matrices(batch, rows, columns).requires_grad_()
    ways = {
        "mtlfast": lambda: trace_norm(W).sum(),
        'matrix_norm("nuc")': lambda: torch.linalg.matrix_norm(W, "nuc").sum(),
    }
    # a gradient moves by much where a singular value is all but zero: tests check it, not this
    return Job(
        {name: gradient_of(way, W) for name, way in ways.items()},
        bytes=3 * 4 * W.numel(),
        tolerance=0.05,
    )


def overhead():
    W = torch.randn(3, 16)
    leaf = W.clone().requires_grad_()

    def backward():
        trace_norm(leaf).backward()
        leaf.grad = None

    return {"no grad": lambda: trace_norm(W), "with backward": backward}
