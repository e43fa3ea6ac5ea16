"""Blocks of tasks, and exactly what sets of tasks do together: the preconditioner P of a joint fit.

Tasks have the blocks E_k = G_k + 2·ridge·I. Each level of the coupling adds a star: a centre c for
each of its sets, with ½ pull_k ‖w_k − c‖². Centres are eliminated as all unknowns are,

    B_k = E_k + Σ pull_k I,   N c = Σ_k pull_k B_k⁻¹ r_k,   w_k = B_k⁻¹(r_k + pull_k c),

with N = Σ_k pull_k (I − pull_k B_k⁻¹), the force on the centre where it moves by one unit. That
force is also the one on the tasks, N = Σ_k E_k B_k⁻¹ pull_k. The first form loses its digits where
the pull is strong beside E, the second where it is weak, so each row of each task takes the one
that keeps them. The pairwise distance and a graph of groups are stars, and P is G + Q itself; of
other graphs a star has the diagonal and the directions that cost nothing.
"""

from functools import partial

import torch

from mtlfast.linear_model._blocks import apply, inverses
from mtlfast.linear_model._row_blocks import MOST, RowBlocks

_STRONG = 1e3  # a pull beside E, from which on the force is taken from the tasks
_MODERATE = 1e6  # a shift beside G, up to which R tells what G makes of P⁻¹R
_FEW = 64  # sets of a chunk, whose sums are a product with a matrix of weights
_CHUNK = 1 << 18  # numbers of the blocks that are looked at together


class Preconditioner:
    """P⁻¹ for the statistics of tasks and a :class:`Coupling`.

    ``is_moderate`` tells whether the product of P⁻¹R with G follows from R and what blocks have
    beside G, which saves looking at G.
    """

    def __init__(self, squares, coupling):
        self.levels, self.join = coupling.levels, coupling.join
        self._pulls = [level.pulls(squares.num_tasks)[:, None] for level in self.levels]
        self._shift = coupling.block_shift[:, None]
        shift = sum(self._pulls, self._shift)
        self.is_moderate = False
        if squares.gram is not None:
            self._from_grams(squares.gram, shift)
        elif self._takes_rows(squares):
            self._from_rows(squares, shift)
        else:
            self._from_diagonals(squares.diagonal(), shift)

    def _from_grams(self, gram, shift):
        own = gram.diagonal(dim1=1, dim2=2)
        self.is_moderate = bool(shift.max() <= _MODERATE * own.mean())
        inverse = inverses(gram, shift)
        self._block = partial(apply, inverse)
        found = _Centres(gram, self._shift, inverse, self.levels, self._pulls).found
        self._centres = [partial(apply, centre) for centre in found]

    def _takes_rows(self, squares):
        sizes, d = squares.rows.ptr.diff(), squares.num_features
        sets = sum(len(level.ptr) - 1 for level in self.levels)
        few = int(sizes.square().sum()) <= max(MOST, len(squares.rows.y) * d)
        return hasattr(squares, "weighted_chunks") and few and sets * d * d <= MOST

    def _from_rows(self, squares, shift):
        blocks = RowBlocks(squares, shift)
        self._block = blocks.apply
        pairs = zip(self.levels, self._pulls, strict=True)
        self._centres = [blocks.centres(level, pull) for level, pull in pairs]

    def _from_diagonals(self, diagonal, shift):
        whole = diagonal + shift
        inverse = 1 / torch.where(whole > 0, whole, 1.0)
        self._block = partial(apply, inverse)
        found = _DiagonalCentres(diagonal, self._shift, inverse, self.levels, self._pulls).found
        self._centres = [partial(apply, centre) for centre in found]

    def apply(self, R):
        """P⁻¹R as parts: what tasks do for themselves, and the centres of each level."""
        if not self.levels:
            return [self._block(R)]
        *inner, last = range(len(self.levels))
        if not inner:
            w, centre = self._with_centres(last, R)
            return [self.levels[last].add_(w, centre, -1.0), centre]
        middle = inner[0]  # two levels: centres of components, then of all tasks
        w, _ = self._with_centres(middle, R)
        total = self.levels[last].sums(self._pulls[last] * w)
        top = self._centres[last](total)
        w, centre = self._with_centres(middle, R + self._pulls[last] * top)
        alone = torch.ones(len(w), 1, dtype=torch.bool, device=w.device)
        alone[self.levels[middle].member] = False
        rest = torch.where(alone, w - top, w)
        return [self.levels[middle].add_(rest, centre, -1.0), centre - top, top]

    def image(self, R, parts, whole):
        """G·P⁻¹R from R, P⁻¹R as parts, and their sum; only where ``is_moderate``."""
        out = R - self._shift * whole
        near = parts[0]
        for place, pull in enumerate(self._pulls):
            out.addcmul_(pull, near, value=-1.0)
            if place + 1 < len(self.levels):
                near = self.levels[place].add_(near.clone(), parts[place + 1])
        return out

    def _with_centres(self, level, R):
        Z = self._block(R)
        pull, sets = self._pulls[level], self.levels[level]
        centre = self._centres[level](sets.sums(pull * Z))
        pulled = sets.add_(torch.zeros_like(R), centre).mul_(pull)
        return Z.add_(self._block(pulled)), centre


class _Centres:
    """N⁻¹ of each level, from Gram matrices."""

    def __init__(self, gram, shift, inverse, levels, pulls):
        self.gram, self.shift, self.inverse = gram, shift, inverse
        self.levels, self.pulls = levels, pulls
        self.found = [inverses(self._first())] if levels else []
        if len(levels) == 2:
            self.found.append(inverses(self._second()))

    def _summed(self, level, weigh, own_shift=None):
        """Sums over each set of diag(weights) times B_k⁻¹, or times E_k B_k⁻¹.

        ``weigh(tasks)`` gives the weights ``[n, d]`` or ``[n, 1]``, None for none; ``own_shift`` is
        what E has beside G.

        Where a chunk of tasks is of few sets, their sums are products of long matrices.
        """
        d = self.gram.shape[-1]
        out = self.gram.new_zeros(len(level.ptr) - 1, d, d)
        step = max(1, _CHUNK // (d * d))
        in_order = torch.equal(level.member, torch.arange(len(self.gram), device=out.device))
        for begin in range(0, len(level.member), step):
            tasks = level.member[begin : begin + step]
            here = slice(begin, begin + step) if in_order else tasks
            weights = weigh(here)
            if weights is None:
                continue
            sets, lengths = torch.unique_consecutive(
                level.of[begin : begin + step], return_counts=True
            )
            inverse = self.inverse[here]
            if own_shift is None and weights.shape[1] == 1 and len(sets) <= _FEW:
                share = weights.new_zeros(len(sets), len(weights))
                place = torch.arange(len(sets), device=out.device).repeat_interleave(lengths)
                share.scatter_(0, place[None], weights.T)
                out[sets] += (share @ inverse.reshape(len(inverse), -1)).view(-1, d, d)
                continue
            left = self._left(here, weights, own_shift)
            if own_shift is not None and len(sets) == 1:
                whole = left.transpose(0, 1).reshape(d, -1) @ inverse.reshape(-1, d)
                out[int(sets)] += whole
                continue
            part = left * inverse if own_shift is None else torch.bmm(left, inverse)
            out[sets] += torch.segment_reduce(part, "sum", lengths=lengths, axis=0)
        return out

    def _left(self, here, weights, own_shift):
        if own_shift is None:
            return weights[:, :, None]
        own = self.gram[here] * weights[:, :, None]
        own.diagonal(dim1=1, dim2=2).add_(weights * (self.shift[here] + own_shift[here]))
        return own

    def _first(self):
        """N of the first level; what further levels pull belongs to the tasks."""
        level, pull = self.levels[0], self.pulls[0]
        beyond = sum(self.pulls[1:], torch.zeros_like(pull))
        own = self.gram.diagonal(dim1=1, dim2=2) + self.shift + beyond
        none = bool(pull.max() <= _STRONG * own.min())
        strong = None if none else pull > _STRONG * own  # [K, d]
        every = not none and bool(strong[level.member].all())

        def weak(here):
            if every:
                return None
            return pull[here].square() if none else pull[here].square() * ~strong[here]

        def tied(here):
            if none or not strong[here].any():
                return None
            return pull[here] if every else pull[here] * strong[here]

        N = -self._summed(level, weak)
        N.diagonal(dim1=1, dim2=2).add_(level.sums(pull if none else pull * ~strong))
        N += self._summed(level, tied, beyond)
        return (N + N.mT) / 2

    def _second(self):
        """N of all tasks, over components with the centres found."""
        inner, outer = self.levels
        pull, K = float(self.pulls[1][0]), len(self.gram)
        through = self._summed(inner, lambda here: self.pulls[0][here])
        answer = torch.bmm(self.found[0], pull * through)  # of the centres to a unit of all
        N = -(pull**2) * self.inverse.sum(0) - pull * torch.bmm(through, answer).sum(0)
        N.diagonal().add_(K * pull)
        own = self.gram.diagonal(dim1=1, dim2=2).sum(0) + self.shift.sum()
        strong = pull * K > _STRONG * own
        if strong.any():
            nothing = torch.zeros_like(self.shift)
            tied = self._summed(inner, lambda here: self.pulls[0][here], nothing)
            every = self._summed(outer, lambda here: torch.ones_like(nothing[here]), nothing)
            from_tasks = pull * every[0] + torch.bmm(tied, answer).sum(0)
            N = torch.where(strong[:, None], from_tasks, N)
        return ((N + N.mT) / 2)[None]


class _DiagonalCentres:
    """N⁻¹ of each level, from diagonals alone: sums of numbers ≥ 0."""

    def __init__(self, diagonal, shift, inverse, levels, pulls):
        self.found = []
        if not levels:
            return
        beyond = sum(pulls[1:], torch.zeros_like(pulls[0]))
        own = diagonal + shift
        self.found.append(_reciprocal(levels[0].sums((own + beyond) * inverse * pulls[0])))
        if len(levels) == 2:
            answer = self.found[0] * levels[0].sums(pulls[0] * inverse * pulls[1])
            centre = levels[0].add_(torch.zeros_like(own), answer)
            moved = inverse * (pulls[1] + pulls[0] * centre)
            self.found.append(_reciprocal(levels[1].sums(own * moved)))


def _reciprocal(N):
    return torch.where(N > 0, 1 / torch.where(N > 0, N, 1.0), 0.0)
