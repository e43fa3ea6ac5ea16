"""Terms taken together as one function: ridge, pairs and graphs in one pass over the edges.

One gradient buffer serves all of them and a trace norm beside, strengths are factors inside the
kernels, and one scalar comes out: what sums of regularizers are made of.
"""

from typing import NamedTuple

import torch

from mtlfast import _ops, reference
from mtlfast._compat import is_batched, scaled_, wants_double_backward, wants_grad
from mtlfast._dtypes import real_dtype
from mtlfast.graphs._forms import FORMS, Edges
from mtlfast.trace_norm import subgradient, trace_norm


class Parts(NamedTuple):
    """``ridge ‖W‖² + pairs Σ_{i≠j} ‖w_i − w_j‖² + trace_norm ‖W‖_* + Σ s Σ_ij A_ij ‖w_i − w_j‖²``.

    ``graphs`` holds (form, strength) of graphs with fixed weights, :mod:`mtlfast.graphs._forms`.
    """

    ridge: float = 0.0
    pairs: float = 0.0
    trace_norm: float = 0.0
    graphs: tuple = ()

    def plus(self, other):
        return Parts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class _Sum(torch.autograd.Function):
    """Value and gradient in one go; the gradient is kept for one backward, which gives it away."""

    @staticmethod
    def forward(ctx, w, numbers, graphs, *tensors):
        ctx.numbers, ctx.graphs = numbers, graphs
        ctx.save_for_backward(w, *tensors)
        value, ctx.grad = _value_and_grad(w, _parts(ctx, tensors))
        return value

    @staticmethod
    def backward(ctx, upstream):
        w, *tensors = ctx.saved_tensors
        none = (None,) * (len(tensors) + 2)
        parts = _parts(ctx, tensors)
        if wants_double_backward() or is_batched(upstream):
            return (upstream * _reference_grad(w, parts)).to(w.dtype), *none
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            _, grad = _value_and_grad(w, parts)
        return scaled_(grad, upstream), *none


def _parts(ctx, tensors):
    """The parts again, from their numbers and the saved tensors of all graphs in a row."""
    rest = iter(tensors)
    graphs = ((FORMS[kind](tuple(next(rest) for _ in range(n))), s) for kind, n, s in ctx.graphs)
    return Parts(*ctx.numbers, tuple(graphs))


def _reference_grad(w, parts):
    x = reference.real(w)
    grad = parts.ridge * reference.ridge_grad(x)
    if parts.pairs:
        grad = grad + parts.pairs * reference.pairwise_grad(x)
    if parts.trace_norm:
        grad = grad + parts.trace_norm * subgradient(x)
    for form, strength in parts.graphs:
        grad = grad + strength * form.reference_grad(x)
    return grad


def sum_reg(w, parts):
    """The value for rows ``w [K, d]`` of float32 or float64; gradients are in w alone."""
    if not wants_grad(w):
        return _value(w, parts)
    graphs = tuple((form.kind, len(form.tensors), strength) for form, strength in parts.graphs)
    tensors = [tensor for form, _ in parts.graphs for tensor in form.tensors]
    return _Sum.apply(w, parts[:3], graphs, *tensors)


def norm_of(w, parts):
    """Value and subgradient of the trace norm, if any: the one part that may refuse W."""
    return _ops.trace_norm_value(w, True, w.is_cpu) if parts.trace_norm else None


def _first_edges(parts):
    """A graph of edges, whose kernel takes ridge and pairs along, or None, and the others."""
    graphs = enumerate(parts.graphs)
    first = next((k for k, (form, _) in graphs if isinstance(form, Edges)), None)
    if first is None:
        return None, parts.graphs
    return parts.graphs[first], parts.graphs[:first] + parts.graphs[first + 1 :]


def _zero(w):
    return torch.zeros((), dtype=real_dtype(w.dtype), device=w.device)


def _value(w, parts):
    norm = trace_norm(w) if parts.trace_norm else None
    first, others = _first_edges(parts)
    if first is not None:
        form, strength = first
        value = _ops.quadratic_value(w, *form.tensors, parts.ridge, parts.pairs, strength, False)[0]
    else:
        value = _ops.ridge_value(w, parts.ridge) if parts.ridge else _zero(w)
        if parts.pairs:
            value = value + parts.pairs * _ops.pairwise_value(w)[0]
    for form, strength in others:
        value = value + strength * form.value(w)[0]
    return value if norm is None else value + parts.trace_norm * norm


def _value_and_grad(w, parts):
    norm = norm_of(w, parts)
    first, others = _first_edges(parts)
    if first is not None:
        form, strength = first
        strengths = parts.ridge, parts.pairs, strength
        value, grad = _ops.quadratic_value(w, *form.tensors, *strengths, True)
    elif parts.pairs:
        value, mean = _ops.pairwise_value(w)
        value = parts.pairs * value
        factor = 4.0 * w.shape[0] * parts.pairs
        grad = _ops.pairwise_affine(w, mean, _zero(w) + 1, factor, False)
        if parts.ridge:
            value = _ops.ridge_add_(grad, w, parts.ridge, 1.0) + value
    elif parts.ridge:
        value, grad = _ops.ridge_value_grad(w, parts.ridge)
    else:
        value, grad = _zero(w), torch.zeros_like(w, memory_format=torch.contiguous_format)
    return _add_rest_(value, grad, w, parts, norm, others, 1.0), grad


def sum_add_grad_(grad, w, parts, norm, alpha):
    """``grad += alpha·gradient`` in place, for rows of any of the four types; returns the value.

    ``norm`` is what :func:`norm_of` gave; nothing can fail after that.
    """
    first, others = _first_edges(parts)
    if first is not None:
        form, strength = first
        strengths = parts.ridge, parts.pairs, strength
        value = _ops.quadratic_add_(grad, w, *form.tensors, *strengths, alpha)
    else:
        value = _ops.ridge_add_(grad, w, parts.ridge, alpha) if parts.ridge else _zero(w)
        if parts.pairs:
            distance, mean = _ops.pairwise_value(w)
            value = value + parts.pairs * distance
            _ops.pairwise_add_(grad, w, mean, 4.0 * w.shape[0] * parts.pairs * alpha)
    return _add_rest_(value, grad, w, parts, norm, others, alpha)


def _add_rest_(total, grad, w, parts, norm, graphs, alpha):
    """``total`` plus the values of a norm and of further graphs; gradients go to ``grad``."""
    if norm is not None:
        value, unit = norm
        grad.add_(unit, alpha=alpha * parts.trace_norm)
        total = total + parts.trace_norm * value
    for form, strength in graphs:
        total = total + strength * form.add_(grad, w, alpha * strength)
    return total
