"""Random task graphs in every form that graph_reg takes, and their brute-force oracle."""

import torch

from mtlfast import TaskGraph


def random_graph(num_tasks, share, seed=0, signed=False):
    make = torch.Generator().manual_seed(seed)
    a = torch.rand(num_tasks, num_tasks, generator=make, dtype=torch.float64)
    if signed:
        a = a - 0.5
    return a * (torch.rand(num_tasks, num_tasks, generator=make) < share)


def tasks(num_tasks, dim, spread=1.0, seed=1, dtype=torch.float64):
    make = torch.Generator().manual_seed(seed)
    return (1 + spread * torch.randn(num_tasks, dim, generator=make, dtype=torch.float64)).to(dtype)


def hard_to_eliminate():
    """A graph of 8,000 tasks whose elimination fills too much in: its prox is by iterations."""
    edges = torch.randint(8000, (2, 40_000), generator=torch.Generator().manual_seed(0))
    return TaskGraph.from_edges(edges, None, 8000)


def oracle(W, A):
    """Value, gradient in W, sum of absolute contributions to it, and distances, in float64."""
    W, A = W.double(), A.double()
    difference = W[:, None] - W
    distance = difference.square().sum(2)
    both = (A + A.T).fill_diagonal_(0)[:, :, None]
    return (
        (A * distance).sum(),
        2 * (both * difference).sum(1),
        2 * (both.abs() * difference.abs()).sum(1),
        distance,
    )


def edges_of(A):
    edge_index = A.nonzero().T.contiguous()
    return edge_index, A[edge_index[0], edge_index[1]]


FORMS = {
    "TaskGraph": TaskGraph.from_dense,
    "dense": lambda A: A,
    "coo": lambda A: A.to_sparse(),
    "csr": lambda A: A.to_sparse_csr(),
    "pair": edges_of,
    "learnable dense": lambda A: A.clone().requires_grad_(),
    "learnable coo": lambda A: A.to_sparse().requires_grad_(),
    "learnable csr": lambda A: A.to_sparse_csr().requires_grad_(),
    "learnable pair": lambda A: (edges_of(A)[0], edges_of(A)[1].requires_grad_()),
}
