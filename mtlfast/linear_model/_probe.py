"""Whether terms are what they declare, tried at a random W before a fit relies on it.

For a convex and positively homogeneous f, Z = prox(W, t) is right where (W − Z)/t is a subgradient
of f at Z, that is ⟨W − Z, Z⟩ = t·f(Z) and ⟨W − Z, V⟩ ≤ t·f(V) for every V: what the certificates of
the splitting methods take for granted.
"""

import math

import torch

from mtlfast.graphs._prepare import prepare
from mtlfast.linear_model._penalties import EdgeNorm, Norm, declared
from mtlfast.nn._fused import Parts, sum_reg

_CLOSE = 1e-5  # of what is compared: a term may compute in float32


def probe(name, terms, num_tasks, num_features, device):
    """ValueError, with the name of the class, for a term that is not what it declares."""
    if not terms:
        return
    generator, shape = torch.Generator("cpu").manual_seed(0), (num_tasks, num_features)
    W = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(device)
    for term in terms:
        part = declared(name, term, num_tasks, device)
        if isinstance(part, Norm):
            _probe_norm(name, term, part, W)
        else:
            _probe_formula(name, term, part, W)


def _value(name, term, W):
    """``term(W)`` as a float."""
    with torch.no_grad():
        value = term(W)
    if isinstance(value, torch.Tensor):
        if value.dim():
            raise ValueError(
                f"{name}: {type(term).__name__}.forward must return a scalar, "
                f"got a tensor of shape {list(value.shape)}"
            )
        value = value.item()
    return float(value)


def _probe_formula(name, term, part, W):
    """A quadratic or a sum over edges has the value that its numbers say."""
    if isinstance(part, EdgeNorm):
        told, what = float(part(W)), "edges"
        parts = [told]
    else:
        what = "a quadratic"
        forms = [(prepare(name, graph, W).fixed(W), strength) for graph, strength in part.graphs]
        each = [Parts(ridge=part.ridge), Parts(pairs=part.pairs)]
        each += [Parts(graphs=(pair,)) for pair in forms]
        parts = [float(sum_reg(W, some)) for some in each]
        told = sum(parts)
    value = _value(name, term, W)
    if math.isinf(told) and value == told:
        return  # a strength so large is refused elsewhere
    if not _near(value, told, sum(map(abs, parts)) + abs(value)):
        raise ValueError(
            f"{name}: {type(term).__name__}.forward must be what it declares as {what}, "
            f"{told:.7g} at a random W, got {value:.7g}"
        )


def _probe_norm(name, term, norm, W):
    def refuse(rule, got):
        raise ValueError(
            f"{name}: {type(term).__name__} declares is_norm, so {rule}, got {got} at a random W"
        )

    f = lambda X: _value(name, term, X)  # noqa: E731
    V = W.clone()  # every other entry
    V.view(-1)[1::2] = 0
    zero, at_w, twice = f(torch.zeros_like(W)), f(W), f(2 * W)
    if not (math.isfinite(at_w) and at_w >= 0):
        refuse("forward(W) must be finite and >= 0", f"{at_w:.7g}")
    if not _near(zero, 0.0, at_w):
        refuse("forward(0) must be 0", f"{zero:.7g}")
    if not _near(twice, 2 * at_w, at_w):
        refuse("forward(2W) must be 2 forward(W)", f"{twice:.7g} for {2 * at_w:.7g}")
    at_v = f(V)
    parts = at_v + f(W - V)
    if at_w > parts * (1 + _CLOSE):
        refuse(
            "forward(W) must be at most forward(V) + forward(W − V)",
            f"{at_w:.7g} above {parts:.7g}",
        )
    size = float(W.square().sum())
    step = size / (2 * at_w) if at_w > 0 else 1.0  # so that Z is neither W nor 0
    Z = norm.prox(W, step)
    if not isinstance(Z, torch.Tensor) or Z.shape != W.shape or Z.dtype != W.dtype:
        what = (
            f"shape {list(Z.shape)}, {Z.dtype}" if isinstance(Z, torch.Tensor) else type(Z).__name__
        )
        refuse(f"prox must return a tensor like W, {list(W.shape)}, {W.dtype}", what)
    pull = W - Z
    along, wanted = float((pull * Z).sum()), step * f(Z)
    if not _near(along, wanted, size):
        refuse(
            "⟨W − Z, Z⟩ must be step · forward(Z) for Z = prox(W, step)",
            f"{along:.7g} for {wanted:.7g}",
        )
    for X, value in ((W, at_w), (V, at_v), (pull, f(pull))):
        along = float((pull * X).sum())
        if along > step * value + _CLOSE * size:
            refuse(
                "⟨W − Z, V⟩ must be at most step · forward(V) for Z = prox(W, step)",
                f"{along:.7g} above {step * value:.7g}",
            )


def _near(a, b, scale):
    return abs(a - b) <= _CLOSE * scale
