"""The tasks' blocks where a task has fewer rows than features: matrices of rows, not of features.

With the centred rows X̃ of a task and the shift σ, X̃ᵀX̃ + σI has the inverse
(I − X̃ᵀ(σI + X̃X̃ᵀ)⁻¹X̃)/σ, which costs n² numbers and two looks at the rows. What sets of tasks do
together, Σ pull (I − pull B⁻¹), is Σ pull (σ − pull)/σ I + pull²/σ X̃ᵀ(σI + X̃X̃ᵀ)⁻¹X̃: terms ≥ 0 only.
"""

import torch

_LEAST = 1e-10  # of a task's largest square: a smaller shift would leave nothing but rounding
MOST = 1 << 23  # numbers of the matrices that sets of tasks have together


class RowBlocks:
    """B⁻¹ for :class:`~mtlfast.linear_model._statistics.RowSquares` and shifts ``[K, 1]``."""

    def __init__(self, squares, shift):
        largest = squares.diagonal().amax(1, keepdim=True)
        shift = torch.maximum(shift, _LEAST * largest)
        self.shift = torch.where(shift > 0, shift, 1.0)
        self._squares, self._factors = squares, []
        for tasks, x in squares.weighted_chunks():
            kernel = torch.bmm(x, x.mT)
            kernel.diagonal(dim1=1, dim2=2).add_(self.shift[tasks])
            self._factors.append(torch.linalg.cholesky(kernel))

    def apply(self, R):
        out = R / self.shift
        for (tasks, x), factor in zip(self._squares.weighted_chunks(), self._factors, strict=True):
            along = torch.cholesky_solve(torch.bmm(x, R[tasks, :, None]), factor)
            out[tasks] -= torch.bmm(along.mT, x)[:, 0] / self.shift[tasks]
        return out

    def centres(self, level, pull):
        """N⁻¹ of a level, as a function of rows ``[sets, d]``."""
        sets, d = len(level.ptr) - 1, self._squares.num_features
        N = torch.zeros(sets, d, d, dtype=torch.float64, device=pull.device)
        of = torch.full((len(pull),), -1, dtype=torch.int64, device=pull.device)
        of[level.member] = level.of
        for (tasks, x), factor in zip(self._squares.weighted_chunks(), self._factors, strict=True):
            root = pull[tasks] / self.shift[tasks].sqrt()
            half = torch.linalg.solve_triangular(factor, x, upper=False).mul_(root[:, :, None])
            for place, task in enumerate(tasks.tolist()):
                if of[task] >= 0:
                    N[of[task]].addmm_(half[place].mT, half[place])
        own = level.sums(pull * (self.shift - pull) / self.shift)
        N.diagonal(dim1=1, dim2=2).add_(own)
        diagonal = N.diagonal(dim1=1, dim2=2)
        root = torch.where(diagonal > 0, diagonal, 1.0).sqrt()
        N.div_(root[:, :, None]).div_(root[:, None])
        N.diagonal(dim1=1, dim2=2).add_(1e-13)
        # in place, column-major as LAPACK wants it: with d = 2,000 each copy is 30 MiB
        factor = torch.linalg.cholesky(N.mT, out=N.mT)

        def solve(f):
            half = torch.linalg.solve_triangular(factor, (f / root)[:, :, None], upper=False)
            return torch.linalg.solve_triangular(factor.mT, half, upper=True)[:, :, 0] / root

        return solve
