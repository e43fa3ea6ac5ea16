"""Exact k nearest neighbours: a cheap search proposes candidates, differences decide.

The proposal is a k-d tree (scipy, low dimension) or a float64 matrix product on centred rows, whose
rounding can swap near neighbours. So a few more than k are proposed, their distances are
recomputed as sums of squared differences, and a row is accepted only when every row that was not
proposed is provably farther than its k-th neighbour. The other rows ask for more proposals.
"""

import importlib.util
import math

import numpy as np
import torch

_CHUNK = 1 << 22  # numbers in a temporary: 32 MiB of float64
# Where a k-d tree takes over from products: estimates, either way the neighbours are the same.
_TREE_DIM = 12
_TREE_ROWS = 2_000
_EPS = torch.finfo(torch.float64).eps


def nearest(x, k):
    """Indices int64 ``[K, k]`` of the k nearest other rows of ``x [K, p]`` (float64, finite).

    Nearest first; equal distances in order of index. 1 ≤ k < K.
    """
    num_tasks, dim = x.shape
    if x.numel():  # by a power of two, so exactly; squares then neither overflow nor vanish
        exponent = math.frexp(x.abs().max().item())[1]
        x = x * math.ldexp(1.0, -min(max(exponent, -1000), 1000))
    tree = _use_tree(num_tasks, dim)
    propose = _tree(x) if tree else _products(x)
    out = torch.empty((num_tasks, k), dtype=torch.int64, device=x.device)
    every = torch.arange(num_tasks, device=x.device)
    rows, m = every, min(num_tasks, k + 9)  # a row proposes itself too
    while rows.numel():
        again = []
        width = m if tree else num_tasks
        for part in rows.split(max(_CHUNK // width, 1)):
            if m < num_tasks:
                index, beyond = propose(part, m)
                index = index.sort(1).values
            else:
                index = every.expand(part.numel(), -1)
                beyond = x.new_full((part.numel(),), torch.inf)
            distance = _distance(x, part, index)
            distance[index == part[:, None]] = torch.inf
            distance, order = torch.sort(distance, dim=1, stable=True)
            out[part] = index.gather(1, order[:, :k])
            again.append(part[distance[:, k - 1] >= beyond])
        if m == num_tasks:
            break
        rows, m = torch.cat(again), min(4 * m, num_tasks)
    return out


def _use_tree(num_tasks, dim):
    fits = 1 <= dim <= _TREE_DIM and num_tasks >= _TREE_ROWS
    return fits and importlib.util.find_spec("scipy") is not None


def _distance(x, rows, index):
    """‖x_rows − x_index‖² ``[R, m]``, summed one column at a time: the same bits for any m."""
    total = x.new_zeros(index.shape)
    for column in x.unbind(1):
        total += (column[rows][:, None] - column[index]).square_()
    return total


def _tree(x):
    """Proposals by k-d tree; ``beyond`` is a lower bound of every distance not proposed."""
    from scipy import spatial  # here: it takes longer than the import of mtlfast

    tree = spatial.cKDTree(x.numpy(), balanced_tree=False, compact_nodes=False)
    slack = 1 - 8 * (x.shape[1] + 4) * _EPS

    def propose(rows, m):
        distance, index = tree.query(x[rows].numpy(), k=m, workers=torch.get_num_threads())
        beyond = torch.from_numpy(np.square(distance[:, -1]) * slack)
        return torch.from_numpy(index.astype(np.int64, copy=False)), beyond

    return propose


def _products(x):
    """Proposals by ‖a‖² + ‖b‖² − 2⟨a, b⟩ on centred rows, with a bound of its rounding error."""
    x = x - x.mean(0)
    square = x.square().sum(1)
    # Each of the three sums is off by at most (p + 2)·eps of a magnitude ≤ ‖a‖² + max ‖b‖²; the
    # centred rows themselves are off by eps/2 of an entry, which the factor covers as well.
    error = 8 * (x.shape[1] + 4) * _EPS * (square + square.max())

    def propose(rows, m):
        distance = torch.addmm(square, x[rows], x.T, alpha=-2).add_(square[rows][:, None])
        value, index = distance.topk(m, dim=1, largest=False)
        return index, value[:, -1] - error[rows]

    return propose
