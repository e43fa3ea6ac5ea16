"""An orthonormal basis in which ties of any strengths are told apart: differences of merged sets.

Tasks merge along a spanning forest of the largest ties, strongest first; each merge of the sets A
and B gives the vector that is √(|B|/|A|(|A|+|B|)) on A and −√(|A|/|B|(|A|+|B|)) on B, and each
tree that is left its constant. A tie outside the forest is no stronger than any on its path through
it, so the Laplacian in this basis, brought to a diagonal of 1, has a condition that depends on the
number of tasks alone, be ties 1e-12 and 1e28 at once.
"""

from functools import cached_property

import numpy as np
import torch


class Hierarchy:
    """For ties T ``[K, K]``, symmetric float64 in NumPy, of which those < 0 do not merge.

    Attributes:
        has_negative: whether there are any of these.
        basis: ``[K, K]``, orthonormal columns from the coarsest on: constants of the trees first,
            then merges, weakest first.
        laplacian: ``[K, K]``, that of T in this basis, each entry as exact as its row and column.
    """

    def __init__(self, ties):
        K = len(ties)
        repelling, ties = ties.clip(max=0), ties.clip(min=0)
        trees, merges = _merged(K, _spanning_forest(ties))
        columns = []
        for tree in trees:
            column = np.zeros(K)
            column[tree] = len(tree) ** -0.5
            columns.append(column)
        images = [np.zeros(K)] * len(trees)
        for left, right in merges[::-1]:
            column, image = _difference(ties, left, right)
            columns.append(column)
            images.append(image)
        self.basis = np.stack(columns, 1)
        # An image is exact to the ties that leave its sets: the coarser of two has the weaker ones.
        products = self.basis.T @ np.stack(images, 1)
        self.laplacian = np.tril(products) + np.tril(products, -1).T
        self.has_negative = bool(repelling.any())
        if self.has_negative:
            negative = np.diag(repelling.sum(1)) - repelling
            self.laplacian += self.basis.T @ negative @ self.basis
        self._sets = [(tree,) for tree in trees] + merges[::-1]

    @cached_property
    def tensors(self):
        """(basis, laplacian, products of two entries of a column ``[K·K, K]``) on the CPU."""
        basis = torch.from_numpy(self.basis)
        products = (basis.mT[:, None] * basis.mT).flatten(0, 1)
        return basis, torch.from_numpy(self.laplacian), products

    def values(self, coefficients):
        """``basis @ coefficients`` ``[K, d]``, from the coarsest on.

        What is below the last digit of a coarser value leaves tasks equal, bit by bit.
        """
        W = np.zeros_like(coefficients)
        for place, sets in enumerate(self._sets):
            for members in sets:
                W[members] += self.basis[members[0], place] * coefficients[place]
        return W


def _spanning_forest(ties):
    """Edges (tie, i, j) of a forest of the largest ties > 0, by Prim's algorithm."""
    K = len(ties)
    edges, outside = [], np.ones(K, dtype=bool)
    best, parent = np.zeros(K), np.zeros(K, dtype=int)
    for _ in range(K):
        reach = np.where(outside, best, -1.0)
        i = int(reach.argmax())
        if best[i] > 0:
            edges.append((best[i], int(parent[i]), i))
        outside[i] = False
        nearer = outside & (ties[i] > best)
        best[nearer], parent[nearer] = ties[i][nearer], i
    return edges


def _merged(K, edges):
    """(trees, merges), sets as arrays of tasks, merges from the strongest to the weakest tie."""
    root, members = list(range(K)), {k: np.array([k]) for k in range(K)}

    def find(k):
        while root[k] != k:
            root[k] = root[root[k]]
            k = root[k]
        return k

    merges = []
    for _, i, j in sorted(edges, reverse=True):
        i, j = find(i), find(j)
        merges.append((members[i], members.pop(j)))
        members[i] = np.concatenate(merges[-1])
        root[j] = i
    return list(members.values()), merges


def _difference(ties, left, right):
    """The vector of a merge, and what the Laplacian makes of it, summed from terms of one sign."""
    a, b = len(left), len(right)
    high, low = (b / (a * (a + b))) ** 0.5, (a / (b * (a + b))) ** 0.5
    column = np.zeros(len(ties))
    column[left], column[right] = high, -low
    to_left, to_right = ties[:, left].sum(1), ties[:, right].sum(1)
    away = np.ones(len(ties), dtype=bool)
    away[left] = away[right] = False
    beyond = ties[:, away].sum(1)
    image = low * to_right - high * to_left
    image[left] = (high + low) * to_right[left] + high * beyond[left]
    image[right] = -(high + low) * to_left[right] - low * beyond[right]
    return column, image
