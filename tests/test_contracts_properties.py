"""Properties that hold for any input: scaling, invariances, identities, non-expansiveness."""

import cases
import numpy as np
import pytest
import torch
from cases import CASES, DTYPES, PROXES, bits, long_double, value_and_grads
from hypothesis import given, settings
from hypothesis import strategies as st

sizes = st.tuples(st.integers(0, 40), st.integers(0, 40))
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None, derandomize=True)


def having(attribute):
    chosen = [case for case in CASES if getattr(case, attribute)]
    return pytest.mark.parametrize("case", chosen, ids=cases.names)


def close(a, b, scale, gate, dtype):
    error = float((a.double() - b.double()).norm())
    assert error <= gate * cases.ROUNDOFF[dtype] * float(scale)


@having("degree")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@quick
@given(size=sizes, seed=seeds, k=st.integers(-5, 5))
def test_power_of_two_scaling_bit_by_bit(case, dtype, size, seed, k):
    """f(2ᵏ W) = 2^(degree·k) f(W): no hidden absolute tolerance, no rounding that moves."""
    W, *extras = case.tensors(*size, dtype, seed=seed)
    if torch.equal(W * 2.0**k * 2.0**-k, W):  # else W itself lost bits below float16's range
        value = case.function(W, *extras)
        scaled = case.function(W * 2.0**k, *extras)
        assert bits(scaled) == bits(value * 2.0 ** (case.degree * k))


@having("degree")
@quick
@given(size=sizes, seed=seeds)
def test_euler(case, size, seed):
    """A function of degree n has <gradient, W> = n·f."""
    W, *extras = case.tensors(*size, torch.float64, seed=seed)
    leaf = W.clone().requires_grad_()
    value = case.function(leaf, *extras)
    upstream = cases.upstream_like(value)
    value.backward(upstream)
    got = (leaf.grad * W).sum()
    want = case.degree * (upstream * value.detach()).sum()
    scale = leaf.grad.norm() * W.norm() + want.abs()
    close(got, want, scale, 64, torch.float64)


@having("shift_free")
@quick
@given(size=sizes, seed=seeds)
def test_translation(case, size, seed):
    """Adding the same numbers to all tasks changes nothing (up to the rounding of W itself)."""
    W, *extras = case.tensors(*size, torch.float64, seed=seed, spread=1.0)
    W = W.float().double()  # room for an exact sum
    shift = torch.randn(W.shape[1], dtype=torch.float32).double()
    value, grads = value_and_grads(case, (W, *extras))
    moved, moved_grads = value_and_grads(case, (W + shift, *extras))
    right = cases.truth(case, (W, *extras))
    close(value, moved, right.value_scale, 2 * case.value_gate + 4, torch.float64)
    for a, b, scale in zip(grads, moved_grads, right.grad_scales, strict=True):
        close(a, b, scale, 2 * case.grad_gate + 4, torch.float64)


@having("order_free")
@quick
@given(size=sizes, seed=seeds)
def test_order_of_the_tasks(case, size, seed):
    tensors = case.tensors(*size, torch.float64, seed=seed)
    order = torch.randperm(size[0], generator=torch.Generator().manual_seed(seed))
    value, grads = value_and_grads(case, tensors)
    moved, moved_grads = value_and_grads(case, (tensors[0][order], *tensors[1:]))
    right = cases.truth(case, tensors)
    close(value, moved, right.value_scale, 2 * case.value_gate, torch.float64)
    close(grads[0][order], moved_grads[0], right.grad_scales[0], 2 * case.grad_gate, torch.float64)


@having("linear_in_extra")
@quick
@given(size=sizes, seed=seeds, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linear_in_the_weights(case, size, seed, a, b):
    W, A = case.tensors(*size, torch.float64, seed=seed)
    B = case.tensors(*size, torch.float64, seed=seed ^ 1)[1]
    together = case.function(W, a * A + b * B)
    apart = a * case.function(W, A) + b * case.function(W, B)
    scale = sum(
        abs(c) * cases.truth(case, (W, weight)).value_scale for c, weight in ((a, A), (b, B))
    )
    close(together, apart, scale, 4 * case.value_gate, torch.float64)


@pytest.mark.parametrize("case", PROXES, ids=cases.names)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@quick
@given(size=sizes, seed=seeds, tightness=st.integers(0, 6))
def test_prox_is_firmly_non_expansive(case, dtype, size, seed, tightness):
    """‖P(X) − P(Y)‖² ≤ <P(X) − P(Y), X − Y>, up to the rounding of P."""
    X, *extras = case.tensors(*size, dtype, seed=seed)
    Y = X + 10.0**-tightness * torch.randn(X.shape, dtype=dtype)
    moved = long_double(case.function(X, *extras)) - long_double(case.function(Y, *extras))
    step = long_double(X) - long_double(Y)
    rounding = case.value_gate * cases.ROUNDOFF[dtype] * float(X.norm() + Y.norm())
    slack = 2 * rounding * float(np.sqrt(np.sum(step**2))) + 4 * rounding**2
    assert np.sum(moved**2) <= np.sum(moved * step) + slack


@pytest.mark.parametrize("case", [c for c in CASES if not c.prox], ids=cases.names)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_not_finite_input_is_never_hidden(case, bad, device):
    """NaN and Inf propagate (or raise the documented error): never a finite value."""
    for K, d, row in ((7, 3, 0), (300, 40, 299), (300, 700, 150)):
        W, *extras = case.tensors(K, d, device=device)
        W[row, d // 2] = bad
        try:
            value, grads = value_and_grads(case, (W, *extras))
        except ValueError as error:
            assert "finite" in str(error)
        else:
            assert not value.isfinite()
            assert not grads[0].isfinite().all()
