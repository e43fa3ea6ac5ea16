"""Few tasks with few features: (G + Q) W = C at once, for ties of any strengths.

In the basis of a :class:`Hierarchy`, brought to a diagonal of 1, the matrix is as well conditioned
as the rows let it be, whatever the scales of features and the strengths of penalties are.
"""

import math

import torch

from mtlfast.linear_model._blocks import INDEFINITE, TOO_LARGE, Spectral

MOST_TASKS, MOST_NUMBERS = 128, 512  # K, and K·d


class Direct:
    """(G + Q)⁻¹ in factors.

    Args:
        gram: G ``[K, d, d]``.
        hierarchy: that of the ties, Q but for its diagonal and its sign.
        ridge: what Q adds to the diagonal, a number or ``[K]``.
    """

    def __init__(self, gram, hierarchy, ridge=0.0):
        K, d = gram.shape[:2]
        self._hierarchy = hierarchy
        basis, laplacian, products = (part.to(gram.device) for part in hierarchy.tensors)
        if isinstance(ridge, torch.Tensor):
            laplacian = laplacian + (basis.mT * ridge) @ basis
        elif ridge:
            laplacian = laplacian + ridge * torch.eye(K, dtype=gram.dtype, device=gram.device)
        M = (products @ gram.view(K, d * d)).view(K, K, d, d).transpose(1, 2).contiguous()
        penalty = M.diagonal(dim1=1, dim2=3)  # [K, K, d]
        penalty += laplacian[:, :, None]
        M = M.view(K * d, K * d)
        diagonal = M.diagonal()
        least, most = map(float, diagonal.aminmax())
        if not math.isfinite(most):  # NaN is the extreme of all
            raise ValueError(TOO_LARGE)
        if least < 0:
            raise ValueError(INDEFINITE)
        self._root = (torch.where(diagonal > 0, diagonal, 1.0) if least == 0 else diagonal).sqrt()
        M /= self._root[:, None]
        M /= self._root
        diagonal.fill_(1.0)
        self._basis = basis
        self._matrix, self._shape, self._modes = M, (K, d), None
        self._inverse = Spectral(M[None], hierarchy.has_negative)

    def _scaled(self, R):
        return (self._basis.mT @ R).view(1, -1) / self._root

    def solve(self, C):
        """W ``[K, d]``; of several the one of least norm in the scaled basis."""
        return torch.from_numpy(self._hierarchy.values(self._coefficients(C).numpy())).to(C.device)

    def solve_for_differences(self, C, src, dst):
        """(W, its differences ``[E, d]`` between tasks), these to their own digits.

        Tasks whose rows agree to the last digit have differences too.
        """
        coefficients = self._coefficients(C)
        W = torch.from_numpy(self._hierarchy.values(coefficients.numpy())).to(C.device)
        basis = torch.from_numpy(self._hierarchy.basis)
        return W, ((basis[src.cpu()] - basis[dst.cpu()]) @ coefficients).to(C.device)

    def _coefficients(self, C):
        right = self._scaled(C)
        w = self._inverse.solve(right)
        w += self._inverse.solve(right - w @ self._matrix)
        return (w / self._root).view(self._shape).cpu()

    def energy(self, R):
        """⟨R, (G + Q)⁻¹R⟩; directions that the matrix hardly has count by its rounding."""
        return self._inverse.energy(self._scaled(R))

    def misses(self, R):
        """The share of R, in the scaled basis, along directions that the matrix does not have."""
        return float(self._inverse.missed(self._scaled(R)).norm())

    def size(self, R):
        """The length of R in the scaled basis."""
        return float(self._scaled(R).norm())

    def split(self, R, least):
        """(energy, rest): of R without ``rest``, where the scaled matrix is < ``least``."""
        if self._modes is None:
            self._modes = torch.linalg.eigh(self._matrix)
        values, vectors = self._modes
        along = vectors.mT @ self._scaled(R)[0]
        stiff = values >= least
        energy = float((along.square() / torch.where(stiff, values, float("inf"))).sum())
        weak = (vectors @ torch.where(stiff, 0.0, along)) * self._root
        return energy, self._basis @ weak.view(self._shape)
