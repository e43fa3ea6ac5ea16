"""Sums of regularizers."""

import torch
from torch import nn

from mtlfast._checks import as_rows, check_grad, check_number
from mtlfast.nn._base import Regularizer
from mtlfast.nn._graphs import GraphReg
from mtlfast.nn._terms import PairwiseReg, Ridge
from mtlfast.pairwise import pairwise_prox


class Sum(Regularizer):
    """The sum of regularizers, also written ``a + b`` or ``sum([a, b, c])``.

    Its prox is exact where one is known: for a single term with a prox, and for any number of
    :class:`PairwiseReg` with at most one :class:`GraphReg`, each also together with any number of
    :class:`Ridge`; ``has_prox`` tells.

    Args:
        terms: an iterable of regularizers; a sum among them contributes its own terms.

    Raises:
        TypeError: a term is no :class:`Regularizer`.
        ValueError: there is no term.

    Example:
        >>> from mtlfast.nn import PairwiseReg, TraceNorm
        >>> both = PairwiseReg(0.1) + TraceNorm(2.0)
        >>> both
        Sum(
          (terms): ModuleList(
            (0): PairwiseReg(strength=0.1, reduction="sum")
            (1): TraceNorm(strength=2)
          )
        )
        >>> both.has_prox
        False
    """

    def __init__(self, terms):
        super().__init__()
        flat = []
        for term in terms:
            if not isinstance(term, Regularizer):
                raise TypeError(f"Sum: terms must be regularizers, got {type(term).__name__}")
            flat += term.terms if isinstance(term, Sum) else [term]
        if not flat:
            raise ValueError("Sum: terms must hold at least one regularizer, got none")
        self.terms = nn.ModuleList(flat)

    @property
    def has_prox(self):
        rest = self._without_ridge()
        if len(rest) <= 1:
            return all(term.has_prox for term in rest)
        kinds = [type(term) for term in rest]
        return kinds.count(PairwiseReg) >= len(kinds) - 1 and {*kinds} <= {PairwiseReg, GraphReg}

    def _without_ridge(self):
        return [term for term in self.terms if not isinstance(term, Ridge)]

    def forward(self, W):
        rows = as_rows("Sum", W)
        values = [term(rows) for term in self.terms]
        return torch.stack(values).sum()

    def prox(self, W, step):
        if not self.has_prox:
            names = " + ".join(type(term).__name__ for term in self.terms)
            raise NotImplementedError(
                f"Sum.prox: no exact prox is known for {names}; there is one for a single term "
                "with a prox, and for any number of PairwiseReg with at most one GraphReg, "
                "each also with Ridge"
            )
        if len(self.terms) == 1:
            return self.terms[0].prox(W, step)
        step = check_number("Sum.prox", "step", step)
        # Completing the square of ½‖Z − W‖² + step·r‖Z‖²: with s = 1 + 2·step·r, the prox of q and
        # a ridge is that of q at W/s, with step/s.
        terms = self._without_ridge()
        if len(terms) < len(self.terms):
            ridge = Ridge(sum(term.strength for term in self.terms if isinstance(term, Ridge)))
            W, step = ridge.prox(W, step), step / (1 + 2 * step * ridge.strength)
            return Sum(terms).prox(W, step) if terms else W
        # With C = I − 11ᵀ/K and the graph's Laplacian L, the prox of a·pairwise + b·graph solves
        # (I + 4Ka·C + 4b·L) Z = W. C and L both send the mean to 0, so it stays; on the rest C is
        # the identity, and dividing by s = 1 + 4Ka leaves (I + 4(b/s)·L) Z = W/s. Together:
        # graph_prox(pairwise_prox(W, a), graph, b/s).
        num_tasks = len(W)
        pairs = [term for term in self.terms if isinstance(term, PairwiseReg)]
        pull = step * sum(term._factor(num_tasks) for term in pairs)
        rows = pairwise_prox(W, pull)
        for term in self.terms:
            if isinstance(term, GraphReg):
                rows = term.prox(rows, step / (1 + 4 * num_tasks * pull))
        return rows

    def prox_(self, W, step):
        if self.has_prox and len(self.terms) == 1:
            return self.terms[0].prox_(W, step)
        return super().prox_(W, step)

    def add_grad_(self, grad, W, *, alpha=1.0):
        check_grad("Sum.add_grad_", grad, W)
        # what can still fail goes first, so that grad is unchanged if it does
        safe = [term for term in self.terms if isinstance(term, (PairwiseReg, Ridge))]
        terms = [term for term in self.terms if not isinstance(term, (PairwiseReg, Ridge))] + safe
        if len(terms) - len(safe) > 1:
            return super().add_grad_(grad, W, alpha=alpha)
        return torch.stack([term.add_grad_(grad, W, alpha=alpha) for term in terms]).sum()

    def extra_repr(self):
        return ""


Regularizer._sum = Sum
