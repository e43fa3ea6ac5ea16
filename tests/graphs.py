"""Random task graphs in every form that graph_reg takes, and their brute-force oracle."""

import pytest
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


def scipy_matrix(kind):
    def made(A):
        return pytest.importorskip("scipy.sparse").coo_array(A.numpy()).asformat(kind)

    return made


def attributes_of(A, learnable=False):
    """Weights ``[E, 1]``, as edge attributes are in other packages."""
    edge_index, weight = edges_of(A)
    return edge_index, weight[:, None].requires_grad_(learnable)


FORMS = {
    "TaskGraph": TaskGraph.from_dense,
    "dense": lambda A: A,
    "coo": lambda A: A.to_sparse(),
    "csr": lambda A: A.to_sparse_csr(),
    "pair": edges_of,
    "pair of attributes": attributes_of,
    "pair of arrays": lambda A: tuple(part.numpy() for part in edges_of(A)),
    "pair of index and array": lambda A: (edges_of(A)[0], edges_of(A)[1].numpy()),
    "pair of lists": lambda A: tuple(part.tolist() for part in edges_of(A)),
    "array": lambda A: A.numpy(),
    "scipy coo": scipy_matrix("coo"),
    "scipy csr": scipy_matrix("csr"),
    "scipy csc": scipy_matrix("csc"),
    "learnable dense": lambda A: A.clone().requires_grad_(),
    "learnable coo": lambda A: A.to_sparse().requires_grad_(),
    "learnable csr": lambda A: A.to_sparse_csr().requires_grad_(),
    "learnable pair of attributes": lambda A: attributes_of(A, learnable=True),
    "learnable pair of array and weight": lambda A: (
        edges_of(A)[0].numpy(),
        edges_of(A)[1].requires_grad_(),
    ),
    "learnable pair": lambda A: (edges_of(A)[0], edges_of(A)[1].requires_grad_()),
}
