"""What the GPU tests do over and over: one call of each op, forward and backward, as jobs.

A job reads its inputs from buffers that stay where they are, so that it can be captured in a CUDA
graph, and be given other numbers between two runs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cases
import torch

import mtlfast
from mtlfast import TaskGraph
from mtlfast._ops import _registry

DTYPES = (torch.float32, torch.bfloat16)


@dataclass
class Job:
    ops: tuple  # those that it calls
    call: Callable  # () -> a tensor or, without an upstream gradient, a tuple of them
    leaves: tuple  # tensors that it is differentiated in
    others: tuple = ()  # further inputs
    upstream: torch.Tensor | None = None
    waits: str = ""  # why it may wait for the device

    @property
    def buffers(self):
        rest = () if self.upstream is None else (self.upstream,)
        return (*self.leaves, *self.others, *rest)

    def values(self, seed):
        """Other numbers for every buffer: near 1, positive."""
        make = torch.Generator().manual_seed(seed)
        for t in self.buffers:
            noise = torch.rand(t.shape, generator=make, dtype=torch.float64)
            yield (0.5 + noise).to(t.device, t.dtype)

    def load(self, values):
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.detach().copy_(value)

    def run(self):
        """The value, and the gradients for the upstream gradient, as a tuple."""
        result = self.call()
        if self.upstream is None:
            return result
        grads = torch.autograd.grad(result, self.leaves, self.upstream)
        return (result.detach(), *grads)

    def by_reference(self):
        """Its ops that have no kernel for CUDA in this build."""
        return sorted(set(self.ops) - set(_registry.cuda_ops()))


def make(name, device, dtype=torch.float32, K=3000, d=65):
    """The job of that name, its buffers filled from seed 0."""
    job = JOBS[name](_Place(device, dtype, K, d))
    job.load(job.values(0))
    return job


@dataclass
class _Place:
    device: object
    dtype: torch.dtype
    K: int
    d: int

    def leaf(self, *shape, dtype=None):
        shape = shape or (self.K, self.d)
        return torch.zeros(shape, dtype=dtype or self.dtype, device=self.device).requires_grad_()

    def buffer(self, *shape):
        return self.leaf(*shape).detach()

    def scalar(self):
        return self.buffer(1)[0].to(torch.float64 if self.dtype == torch.float64 else torch.float32)

    def graph(self):
        return TaskGraph.from_edges(torch.from_numpy(cases.edges(self.K)).to(self.device))

    def groups(self):
        return TaskGraph.groups((torch.arange(self.K) % 5).to(self.device))


def _scalar(ops, function):
    """A function of W [K, d] with a scalar value."""

    def build(place):
        W, call = place.leaf(), function(place)
        return Job(ops, lambda: call(W), (W,), upstream=place.scalar())

    return build


def _map(ops, function, **more):
    """A function from W [K, d] to its like."""

    def build(place):
        W, call = place.leaf(), function(place)
        return Job(ops, lambda: call(W), (W,), upstream=place.buffer(), **more)

    return build


def _edge_distance(place):
    index = torch.from_numpy(cases.edges(place.K)).to(place.device)
    W, weight = place.leaf(), place.leaf(index.shape[1])
    ops = ("graph_value", "edge_distance")
    call = lambda: mtlfast.graph_reg(W, (index, weight))  # noqa: E731
    return Job(ops, call, (W, weight), upstream=place.scalar())


def _dense_graph(place):
    tasks = min(place.K, 300)
    W, A = place.leaf(tasks, place.d), place.leaf(tasks, tasks)
    ops = ("dense_graph_value", "dense_distance")
    return Job(ops, lambda: mtlfast.graph_reg(W, A), (W, A), upstream=place.scalar())


def _gram_edges(place):
    index = torch.unique(torch.from_numpy(cases.edges(place.K)), dim=1).to(place.device)
    omega = torch.sparse_coo_tensor(
        index, torch.ones(index.shape[1], dtype=place.dtype, device=place.device),
        (place.K, place.K), is_coalesced=True, check_invariants=False,
    )  # fmt: skip
    W = place.leaf()
    call = lambda: mtlfast.gram_reg(W, omega)  # noqa: E731
    waits = "the indices of a sparse Ω are looked at in every call"
    return Job(("gram_edges",), call, (W,), upstream=place.scalar(), waits=waits)


def _trace_norm(place):
    W = place.leaf(1100, 8, 8)
    upstream = place.buffer(1100).to(place.scalar().dtype)
    call = lambda: mtlfast.trace_norm(W)  # noqa: E731
    return Job(("trace_norm_value",), call, (W,), upstream=upstream)


def _trace_norm_prox(place, shape=(67, 8, 5), **more):
    W = place.buffer(*shape)  # its backward is torch's own SVD
    call = lambda: (mtlfast.trace_norm_prox(W, 0.5),)  # noqa: E731
    return Job(("trace_norm_shrink",), call, (), (W,), **more)


def _in_place(place):
    """Every in-place form, on copies, for the buffers must keep their numbers."""
    W, grad, batch = place.buffer(), place.buffer(), place.buffer(67, 8, 5)
    graph = place.graph()

    def call():
        added, linked, varied = (grad.clone() for _ in range(3))
        moved, shrunk = W.clone(), batch.clone()
        first = mtlfast.pairwise_add_grad_(added, W, alpha=0.25)
        second = mtlfast.graph_add_grad_(linked, W, graph, alpha=0.25)
        third = mtlfast.graph_total_variation_add_grad_(varied, W, graph, alpha=0.25)
        mtlfast.pairwise_prox_(moved, 0.25)
        mtlfast.trace_norm_prox_(shrunk, 0.5)
        return first, second, third, added, linked, varied, moved, shrunk

    pairwise = ("pairwise_value", "pairwise_add_", "pairwise_shrink_")
    others = "graph_add_", "graph_total_variation_add_", "trace_norm_shrink_"
    return Job((*pairwise, *others), call, (), (W, grad, batch))


def _graph_prox(place):
    graph = place.graph()
    return lambda W: mtlfast.graph_prox(W, graph, 0.03)


def _graph(place):
    graph = place.graph()
    return lambda W: mtlfast.graph_reg(W, graph)


def _total_variation(place):
    graph = place.graph()
    return lambda W: mtlfast.graph_total_variation(W, graph)


def _sum(place):
    terms = mtlfast.nn.PairwiseReg(0.02), mtlfast.nn.GraphReg(place.graph()), mtlfast.nn.Ridge(0.3)
    return mtlfast.nn.Sum(terms)


def _sum_in_place(place):
    W, grad, both = place.buffer(), place.buffer(), _sum(place)

    def call():
        added = grad.clone()
        return both.add_grad_(added, W, alpha=0.25), added

    return Job(("quadratic_add_",), call, (), (W, grad))


def _groups(place):
    groups = place.groups()
    return lambda W: mtlfast.graph_reg(W, groups)


def _groups_prox(place):
    groups = place.groups()
    return lambda W: mtlfast.graph_prox(W, groups, 0.03)


JOBS = {
    "pairwise": _scalar(("pairwise_value", "pairwise_affine"), lambda place: mtlfast.pairwise_reg),
    "pairwise prox": _map(
        ("pairwise_value", "pairwise_affine"),
        lambda place: lambda W: mtlfast.pairwise_prox(W, 0.03),
    ),
    "graph": _scalar(("graph_value",), _graph),
    "total variation": _scalar(("graph_total_variation_value",), _total_variation),
    "sum": _scalar(("quadratic_value",), _sum),
    "sum in place": _sum_in_place,
    "edge distance": _edge_distance,
    "dense graph": _dense_graph,
    "groups": _scalar(("group_value",), _groups),
    "groups prox": _map(("group_prox",), _groups_prox),
    "gram edges": _gram_edges,
    "trace norm": _trace_norm,
    "trace norm prox": _trace_norm_prox,
    "in place": _in_place,
    "graph prox": _map(
        ("graph_prox",), _graph_prox, waits="it looks whether its iterations have converged"
    ),
    "trace norm prox of a large matrix": lambda place: _trace_norm_prox(
        place, (1, 400, 300), waits="torch's eigensolver looks at its result"
    ),
}
