"""Sums of regularizers: what they are follows from what their terms declare."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, overload

import torch
from torch import nn

from mtlfast._checks import as_rows, check_grad, check_number, is_several, rows_like, write_rows_
from mtlfast._compat import needs_reference
from mtlfast._dtypes import FUSED
from mtlfast.nn._base import Regularizer
from mtlfast.nn._contract import quadratic_of
from mtlfast.nn._fused import norm_of, sum_add_grad_, sum_reg
from mtlfast.nn._parameters import grouped, invalid
from mtlfast.nn._quadratic import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from typing_extensions import Self

    from mtlfast._typing import FormT, Rows, RowsT, Several
    from mtlfast.graphs import TaskGraph
    from mtlfast.nn._quadratic import Quadratic

    class Terms(nn.ModuleList):
        def __iter__(self) -> Iterator[Regularizer]: ...
        def __getitem__(self, place: int) -> Regularizer: ...  # type: ignore[override]


class Sum(Regularizer):
    """The sum of regularizers, also written ``a + b`` or ``sum([a, b, c])``.

    Its prox is exact where one is known: for a single term with a prox; for any terms that declare
    a :meth:`Regularizer.quadratic`, with at most one graph among them; and for one other term with
    a prox beside quadratics that are ridge alone. ``has_prox`` tells.

    Value and gradient of ridge, pairwise, graphs with fixed weights and a trace norm are taken
    together, in one pass over the edges of a graph and into one gradient; the others follow.

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

    if TYPE_CHECKING:
        terms: Terms

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def __init__(self, terms: Iterable[Regularizer]) -> None:
        super().__init__()
        flat: list[Regularizer] = []
        for term in terms:
            if not isinstance(term, Regularizer):
                raise TypeError(f"Sum: terms must be regularizers, got {type(term).__name__}")
            flat += term.summands
        if not flat:
            raise ValueError("Sum: terms must hold at least one regularizer, got none")
        self.terms = cast("Terms", nn.ModuleList(flat))

    @property
    def summands(self) -> tuple[Regularizer, ...]:
        return tuple(self.terms)

    def quadratic(self, num_tasks: int) -> Quadratic | None:
        parts = [quadratic_of(term, num_tasks) for term in self.terms]
        return None if any(part is None for part in parts) else total(parts)

    @property
    def is_norm(self) -> bool:  # type: ignore[override]
        """Of a single term; the prox of several norms is not known."""
        return len(self.terms) == 1 and self.terms[0].is_norm

    def edges(self, num_tasks: int) -> tuple[TaskGraph, float] | None:
        return self.terms[0].edges(num_tasks) if len(self.terms) == 1 else None

    @property
    def has_prox(self) -> bool:  # type: ignore[override]
        return self._plan() is not None

    def _plan(self):
        """(the one term beside ridge whose own prox is taken or None,); None without a prox."""
        shapes = [term._shape() for term in self.terms]
        pairs = zip(self.terms, shapes, strict=True)
        others = [term for term, shape in pairs if shape is None or any(shape)]
        if len(others) == 1 and others[0].has_prox:
            return (others[0],)
        graphs = sum(shape.graphs for shape in shapes if shape is not None)
        return (None,) if None not in shapes and graphs <= 1 else None

    def forward(self, W: Rows) -> torch.Tensor:
        rows = as_rows("Sum", W)
        parts, rest = None, self.terms
        if not (torch.compiler.is_compiling() or needs_reference(rows)) and rows.dtype in FUSED:
            parts, rest = self._known(rows, least=2)
        values = [term(rows) for term in rest]
        if parts is not None:
            values.append(sum_reg(rows, parts))
        return sum(values[1:], values[0])

    def _known(self, rows, *, least, constants=False):
        """(what is known of ``least`` terms or more together, the other terms)."""
        found = [term._known_parts(rows, constants=constants) for term in self.terms]
        parts = [part for part in found if part is not None]
        if len(parts) < least:
            return None, list(self.terms)
        rest = [term for term, part in zip(self.terms, found, strict=True) if part is None]
        together = parts[0]
        for part in parts[1:]:
            together = together.plus(part)
        return together, rest

    @overload
    def prox(self, W: FormT, step: float) -> FormT: ...
    @overload
    def prox(self, W: Several, step: float) -> list[torch.Tensor]: ...
    def prox(self, W: Rows, step: float) -> Rows:
        if len(self.terms) == 1 and self.terms[0].has_prox:
            return self.terms[0].prox(W, step)  # type: ignore[arg-type]
        plan = self._plan()
        if plan is None:
            raise NotImplementedError(
                f"Sum.prox: no exact prox is known for {names_of(self)}; there is one for a single "
                "term with a prox, also with ridge, and for terms that declare a quadratic, with "
                "at most one graph among them"
            )
        step = check_number("Sum.prox", "step", step)
        rows, (alone,) = as_rows("Sum.prox", W), plan
        quadratic = total(quadratic_of(t, len(rows)) for t in self.terms if t is not alone)
        rows = quadratic.prox(rows, step)
        if alone is not None:  # completing the square: its prox at W/s, s = 1 + 2·step·ridge
            rows = alone.prox(rows, step / (1 + 2 * step * quadratic.ridge))
        return rows_like(W, rows)

    def prox_(self, W: RowsT, step: float) -> RowsT:
        if len(self.terms) == 1 and self.terms[0].has_prox:
            return self.terms[0].prox_(W, step)
        return super().prox_(W, step)

    def add_grad_(self, grad: Rows, W: Rows, *, alpha: float = 1.0) -> torch.Tensor:
        check_grad("Sum.add_grad_", grad, W)
        alpha = check_number("Sum.add_grad_", "alpha", alpha, signed=True)
        parts, rest = None, list(self.terms)
        with torch.no_grad():
            rows = as_rows("Sum.add_grad_", W).detach()
        if not needs_reference(rows, *(grad if is_several(grad) else [grad])):
            parts, rest = self._known(rows, least=1, constants=True)
        if len(rest) > 1:  # one that fails must find grad unchanged
            return super().add_grad_(grad, W, alpha=alpha)
        norm = None if parts is None else norm_of(rows, parts)
        values = [term.add_grad_(grad, W, alpha=alpha) for term in rest]
        if parts is not None:
            with torch.no_grad():
                target = as_rows("Sum.add_grad_", grad)
                values.append(sum_add_grad_(target, rows, parts, norm, alpha))
                write_rows_(grad, target)
        return sum(values[1:], values[0])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        params = {"terms": list(self.terms)}
        for place, term in enumerate(self.terms if deep else ()):
            inside = {f"{place}__{name}": value for name, value in term.get_params().items()}
            params |= {str(place): term} | inside
        return params

    def set_params(self, **params: Any) -> Self:
        if not params:
            return self
        terms = Sum(params.pop("terms", self.terms)).summands
        places = {str(place): term for place, term in enumerate(terms)}
        groups = grouped(params)
        for place, inside in groups.items():
            if place not in places:
                raise ValueError(invalid(self, place, {"terms", *places}))
            term = inside.pop("", places[place])
            if inside and isinstance(term, Regularizer):
                term.__sklearn_clone__().set_params(**inside)  # refused before anything is set
            places[place] = term
        self.terms = Sum(places.values()).terms
        for place, inside in groups.items():
            places[place].set_params(**inside)
        return self

    def extra_repr(self) -> str:
        return ""


def names_of(regularizer):
    """The classes of its terms, for messages."""
    return " + ".join(type(term).__name__ for term in regularizer.summands)


Regularizer._sum = Sum  # what + makes
