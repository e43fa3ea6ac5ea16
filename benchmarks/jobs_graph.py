"""Jobs of the graph-weighted distance and its prox, and what one would write instead."""

import time

import floor
import numpy as np
import torch
from timing import Job, gradient_of

from mtlfast import TaskGraph, graph_prox, graph_reg
from mtlfast._native.graph import graph_value


def random_edges(num_tasks, num_edges):
    make = torch.Generator().manual_seed(0)
    return torch.randint(num_tasks, (2, num_edges), generator=make)


def knn_edges(num_tasks, k):
    """Each task and its k nearest of points in space that are numbered at random."""
    from scipy.spatial import cKDTree

    points = np.random.default_rng(0).random((num_tasks, 3))
    nearest = cKDTree(points).query(points, k=k + 1, workers=2)[1][:, 1:]
    source = np.repeat(np.arange(num_tasks), k)
    return torch.from_numpy(np.stack([source, nearest.reshape(-1)]).astype(np.int64))


def _laplacian(graph):
    """L of (A + Aᵀ)/2 as torch CSR with 32-bit indices, and A's symmetric part without it."""
    num_tasks = graph.num_tasks
    row = torch.arange(num_tasks).repeat_interleave(graph.row_ptr.diff())
    weight = graph.weight_as(torch.float32)
    degree = torch.zeros(num_tasks).index_add_(0, row, weight) / 2
    index = torch.stack([row, graph.col.long()])
    index = torch.cat([index, torch.arange(num_tasks).expand(2, -1)], 1)
    values = torch.cat([-weight / 2, degree])
    coo = torch.sparse_coo_tensor(
        index, values, (num_tasks, num_tasks), check_invariants=False
    ).coalesce()
    csr = coo.to_sparse_csr()
    small = torch.sparse_csr_tensor(
        csr.crow_indices().int(), csr.col_indices().int(), csr.values(), coo.shape,
        check_invariants=False,
    )  # fmt: skip
    return coo, csr, small


def value_and_gradient(
    edges, num_tasks, dim, *, loop=0, gather=True, sparse=True, scipy=True, device="cpu"
):
    W = torch.randn(num_tasks, dim, generator=torch.Generator().manual_seed(1)).to(device)
    W.requires_grad_()
    graph = TaskGraph.from_edges(edges, None, num_tasks)
    coo, csr, small = (form.to(device) for form in _laplacian(graph))
    graph = graph.to(device)
    plain, (src, dst) = W.detach(), edges.to(device)

    def spmm():
        LW = small @ plain
        value = 2 * (plain * LW).sum()
        return value, LW.mul_(4)

    ways = {
        "mtlfast": gradient_of(lambda: graph_reg(W, graph), W),
        "SpMM by hand": spmm,
    }
    if scipy:
        import scipy.sparse

        parts = small.values().numpy(), small.col_indices().numpy(), small.crow_indices().numpy()
        matrix, array = scipy.sparse.csr_matrix(parts, (num_tasks,) * 2), plain.numpy()

        def scipy_spmm():
            LW = matrix @ array
            return torch.tensor(2 * np.vdot(array, LW)), torch.from_numpy(LW).mul_(4)

        ways["scipy SpMM by hand"] = scipy_spmm
    if sparse:
        ways["torch CSR, autograd"] = gradient_of(lambda: 2 * (W * (csr @ W)).sum(), W)
        ways["torch COO, autograd"] = gradient_of(lambda: 2 * (W * (coo @ W)).sum(), W)
    if gather:
        ways["gather over edges"] = gradient_of(lambda: (W[src] - W[dst]).square().sum(), W)
    if num_tasks <= loop:

        def edge_loop():
            pairs = zip(src.tolist(), dst.tolist(), strict=True)
            return sum(((W[i] - W[j]) ** 2).sum() for i, j in pairs)

        ways["loop over edges"] = gradient_of(edge_loop, W)
    row_ptr, col, _, _ = graph.rows_as(torch.float32)
    bytes_ = 4 * dim * (int(row_ptr[-1]) + num_tasks) + 8 * int(row_ptr[-1])
    gathered = floor.gather(plain, col) if W.is_cpu else _sum_neighbours(plain, row_ptr, col)
    return Job(ways, gathered, bytes_, tolerance=1e-3)


def _sum_neighbours(W, row_ptr, col):
    """Reads row col[k] of W for every k and writes their sums: torch's own kernel for it."""
    bag, col, starts = torch.nn.functional.embedding_bag, col.int(), row_ptr.int()
    return lambda: bag(col, W, starts, mode="sum", include_last_offset=True)


def preparing(num_tasks, k, dim):
    """Seconds to find and apply the order, and of a step with and without it."""
    edges = knn_edges(num_tasks, k)
    graph = TaskGraph.from_edges(edges, None, num_tasks)
    W, one = torch.randn(num_tasks, dim), torch.ones(())
    start = time.perf_counter()
    rows = graph.rows_as(torch.float32)
    prepared = time.perf_counter() - start
    natural = graph.row_ptr, graph.col, graph.weight_as(torch.float32), None
    steps = {"with": rows, "without": natural}
    times = {name: [] for name in steps}
    for _ in range(7):
        for name, parts in steps.items():
            start = time.perf_counter()
            graph_value(W, *parts, one)
            times[name].append(time.perf_counter() - start)
    return {
        "order found": rows[3] is not None,
        "prepare": prepared,
        **{f"step {name}": sorted(t)[len(t) // 2] for name, t in times.items()},
    }


def prox(num_tasks, num_edges, dim, *, step=1.0, tol=1e-6, columns=3):
    """(I + 4·step·L) Z = W; scipy's conjugate gradients run on a few columns and count for all."""
    import scipy.sparse
    import scipy.sparse.linalg

    edges = random_edges(num_tasks, num_edges)
    graph = TaskGraph.from_edges(edges, None, num_tasks)
    W = torch.randn(num_tasks, dim, generator=torch.Generator().manual_seed(1))
    parts = graph.weight.double().numpy(), graph.col.numpy(), graph.row_ptr.numpy()
    s = scipy.sparse.csr_matrix(parts, (num_tasks, num_tasks))
    degree = scipy.sparse.diags(np.asarray(s.sum(1)).ravel())
    system = (scipy.sparse.identity(num_tasks) + 2 * step * (degree - s)).tocsr()
    inverse = scipy.sparse.diags(1 / system.diagonal())
    few = [W[:, j].double().numpy() for j in range(columns)]
    name = "scipy cg, column by column"

    def scipy_cg():
        solved = []
        for b in few:
            z, info = scipy.sparse.linalg.cg(system, b, x0=b.copy(), rtol=tol, M=inverse)
            assert info == 0
            solved.append(z)
        return torch.from_numpy(np.stack(solved, 1))

    def ours():
        return graph_prox(W, graph, step, tol=tol)

    error = (ours()[:, :columns].double() - scipy_cg()).norm() / W[:, :columns].norm()
    assert error < 10 * tol, f"{name} differs by {error:.1e}"
    return Job({"mtlfast": ours, name: scipy_cg}, share={name: columns / dim})


def snapvx(num_tasks=125_145, num_edges=4_129_676, dim=3):
    """The size at which SnapVX ends in a segmentation fault (SnapVX#5): its quadratic problem."""
    graph = TaskGraph.from_edges(random_edges(num_tasks, num_edges), None, num_tasks)
    W = torch.randn(num_tasks, dim).requires_grad_()

    def ours():
        return graph_prox(W.detach(), graph, 1.0), *gradient_of(lambda: graph_reg(W, graph), W)()

    return Job({"mtlfast": ours})


def learnable(num_tasks=110_000, num_edges=860_000, dim=200):
    """Learned edge weights, for which the backward of torch.sparse.mm asks for 45 GiB
    (pytorch#41128): that figure is its users'; it is not run here."""
    edges = random_edges(num_tasks, num_edges)
    weight = torch.rand(num_edges).requires_grad_()
    W = torch.randn(num_tasks, dim).requires_grad_()
    return Job({"mtlfast": gradient_of(lambda: graph_reg(W, (edges, weight)), W, weight)})


def overhead():
    W, graph = torch.randn(3, 16), TaskGraph.chain(3)
    leaf = W.clone().requires_grad_()

    def backward():
        graph_reg(leaf, graph).backward()
        leaf.grad = None

    return {"no grad": lambda: graph_reg(W, graph), "with backward": backward}
