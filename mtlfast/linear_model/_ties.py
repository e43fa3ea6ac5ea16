"""Preconditioners: blocks of tasks, and sets of tasks that are tied to each other, exactly.

The pairwise distance and a graph of groups have the Hessian 4s(n I − 1 1ᵀ) on each of their sets of
n tasks: a multiple of I, which goes into the blocks B of the tasks, and a matrix of rank d. With
S = I − 4s 1ᵀB⁻¹1 = mean of B⁻¹(B − 4sn I) over the set, which does not cancel, and Woodbury's
identity, (B − 4s 1 1ᵀ)⁻¹R = Z + B⁻¹1·4s S⁻¹ 1ᵀZ with Z = B⁻¹R.
"""

import torch


class Blocks:
    """B⁻¹ for matrices ``[K, d, d]``, or the diagonals ``[K, d]`` of some, inverted already."""

    def __init__(self, inverse):
        self.inverse = inverse

    def apply(self, R):
        if self.inverse.dim() == 2:
            return self.inverse * R
        return torch.bmm(self.inverse, R[:, :, None])[:, :, 0]

    def ties(self, Z):
        """What couples the tasks, Σ strength·1 1ᵀ of all sets, at Z."""
        return torch.zeros_like(Z)


class Tied:
    """(B − Σ strength·1 1ᵀ)⁻¹ for disjoint sets of tasks, ``inner`` applying B⁻¹.

    Args:
        inner: B⁻¹, itself perhaps with ties.
        gram: G ``[K, d, d]``, or its diagonals ``[K, d]``.
        rest: ``[K]``, what B − strength·n I has beside G on a constant over each set.
        ptr, member: int64, the tasks ``member[ptr[g]:ptr[g + 1]]`` of each set.
    """

    def __init__(self, inner, gram, rest, strength, ptr, member):
        self.inner, self.strength = inner, strength
        self._sizes, self._member = ptr.diff(), member
        if gram.dim() == 2:
            self._pull = strength / self._means(inner.apply(gram + rest[:, None]))
            return
        d = gram.shape[-1]
        columns = []
        for j in range(d):
            column = gram[:, :, j].clone()
            column[:, j] += rest
            columns.append(self._means(inner.apply(column)))
        S = torch.stack(columns, -1)  # [sets, d, d]
        root = gram.diagonal(dim1=1, dim2=2).mean(0).sqrt()  # features may differ in scale
        root = torch.where(root > 0, root, 1.0)
        scale = root[:, None] / root
        self._pull = strength * torch.linalg.pinv(S * scale, rtol=1e-13) / scale

    def _sums(self, Z):
        return torch.segment_reduce(Z[self._member], "sum", lengths=self._sizes, axis=0)

    def _means(self, Z):
        return self._sums(Z) / self._sizes[:, None]

    def _spread(self, values, like):
        """A row for each set, at each of its tasks; 0 elsewhere."""
        out = torch.zeros_like(like)
        out[self._member] = values.repeat_interleave(self._sizes, dim=0)
        return out

    def apply(self, R):
        Z = self.inner.apply(R)
        total = self._sums(Z)
        if self._pull.dim() == 2:
            pull = self._pull * total
        else:
            pull = torch.bmm(self._pull, total[:, :, None])[:, :, 0]
        return Z.add_(self.inner.apply(self._spread(pull, R)))

    def ties(self, Z):
        return self.inner.ties(Z).add_(self._spread(self._sums(Z), Z), alpha=self.strength)
