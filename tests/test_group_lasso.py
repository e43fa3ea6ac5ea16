"""What is special about the group lasso: a certificate, removed columns, the range of floats."""

import pytest
import torch
from cases import DTYPES, bits
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlfast import (
    group_lasso,
    group_lasso_add_grad_,
    group_lasso_prox,
    group_lasso_prox_,
    reference,
)
from mtlfast._native import group_lasso as native
from mtlfast._torch import group_lasso as composed
from mtlfast.nn import GroupLasso, PairwiseReg, Sum

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
SHAPES = [(1, 1), (1, 3), (5, 3), (7,), (6, 2, 5), (3000, 65), (70_000, 3), (40, 2500), (0, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def strided(tensor):
    padded = torch.full((*tensor.shape, 2), torch.nan, dtype=tensor.dtype)
    padded[..., 0] = tensor
    return padded[..., 0]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 30), st.floats(0, 8), st.integers(0, 2**32 - 1))
def test_the_prox_is_optimal(num_tasks, dim, threshold, seed):
    """W − Z is t times a subgradient at Z: no column longer than t, and ⟨W − Z, Z⟩ = t·R(Z)."""
    W = torch.randn(num_tasks, dim, generator=torch.Generator().manual_seed(seed)).double()
    Z = group_lasso_prox(W, threshold)
    slack = 1e-13 * (1 + W.norm())
    assert ((W - Z).norm(dim=0) <= threshold + slack).all()
    assert abs(((W - Z) * Z).sum() - threshold * group_lasso(Z)) <= slack * (1 + W.norm())


def test_short_columns_are_removed():
    W = torch.tensor([[3.0, 0.3, 0.0], [4.0, 0.4, 0.0]])
    assert not group_lasso_prox(W, 0.51)[:, 1:].any()
    assert (group_lasso_prox(W, 0.51)[:, 0] != 0).all()
    assert torch.equal(group_lasso_prox(W, 0.0), W)
    assert not group_lasso_prox(W, 1e30).any()


def test_the_gradient_at_a_zero_column_is_zero():
    W = torch.zeros(3, 2)
    W[:, 0] = 1
    W.requires_grad_()
    group_lasso(W).backward()
    assert not W.grad[:, 1].any()
    torch.testing.assert_close(W.grad[:, 0], torch.full((3,), 3**-0.5))


@pytest.mark.parametrize("exponent", [-140, -100, 60, 120])
def test_float32_at_the_ends_of_its_range(exponent):
    """Squares are taken in double, so that a length is right wherever it can be written."""
    W = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    W = torch.ldexp(W, torch.tensor(exponent))
    want = W.double().norm(dim=0).sum()
    torch.testing.assert_close(group_lasso(W).double(), want, rtol=1e-6, atol=2.0**-149)
    leaf = W.clone().requires_grad_()
    group_lasso(leaf).backward()
    assert leaf.grad.isfinite().all()
    if exponent > -126:
        right = W.double() / W.double().norm(dim=0)
        torch.testing.assert_close(leaf.grad.double(), right, rtol=1e-5, atol=1e-6)


@every_dtype
@every_shape
@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_in_place_forms(dtype, shape, layout):
    W, before = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    exact = W.double().requires_grad_()
    value = group_lasso(exact)
    value.backward()
    grad = layout(before)
    version = grad._version
    found = group_lasso_add_grad_(grad, layout(W), alpha=-0.3)
    assert grad._version > version or not grad.numel()
    torch.testing.assert_close(found.double(), value.detach(), rtol=1e-6, atol=0)
    want = before.double() - 0.3 * exact.grad
    torch.testing.assert_close(grad.double(), want, rtol=ROUNDING[dtype], atol=5 * ROUNDING[dtype])
    target = layout(W).requires_grad_()
    assert group_lasso_prox_(target, 0.7) is target
    assert bits(target.clone(memory_format=torch.contiguous_format)) == bits(
        group_lasso_prox(W, 0.7)
    )


def test_one_path_is_like_the_other():
    """The torch calls that stand in for the kernels give what the kernels give."""
    for dtype in DTYPES:
        w = torch.randn(300, 33).to(dtype)
        lengths = composed.column_lengths(w)
        torch.testing.assert_close(lengths, native.column_lengths(w), rtol=1e-14, atol=0)
        assert bits(composed.column_scale(w, lengths)) == bits(native.column_scale(w, lengths))
        both = [w.clone(), w.clone()]
        for kernels, out in zip((composed, native), both, strict=True):
            kernels.column_add_(out, w.flip(0), lengths)
            kernels.column_scale_(out, lengths)
        assert bits(both[0]) == bits(both[1])


def test_nan_and_inf_stay_in_their_column():
    W = torch.ones(3, 3)
    W[1, 1], W[1, 2] = torch.nan, torch.inf
    for threshold in (0.0, 0.5):
        Z = group_lasso_prox(W, threshold)
        assert Z[:, 0].isfinite().all()
        assert Z[:, 1].isnan().all()
        assert Z[1, 2] == torch.inf
    assert group_lasso(W).isnan()
    assert group_lasso(W[:, ::2]) == torch.inf


@pytest.mark.parametrize("threshold", [0.0, 0.9, 3.0])
def test_second_derivatives(threshold):
    W = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    W.requires_grad_()
    assert torch.autograd.gradcheck(lambda w: group_lasso_prox(w, threshold), W)
    assert torch.autograd.gradgradcheck(lambda w: group_lasso_prox(w, threshold), W)
    assert torch.autograd.gradgradcheck(group_lasso, W)


def test_the_module():
    W = torch.randn(6, 4, dtype=torch.float64)
    module = GroupLasso(0.5)
    assert module.has_prox
    assert module(W) == 0.5 * group_lasso(W)
    assert torch.equal(module.prox(W, 0.4), group_lasso_prox(W, 0.2))
    assert not Sum([module, PairwiseReg()]).has_prox
    grad, moved = torch.zeros_like(W), W.clone()
    assert module.add_grad_(grad, W, alpha=2.0) == module(W)
    torch.testing.assert_close(grad, W / W.norm(dim=0))
    assert torch.equal(module.prox_(moved, 0.4), group_lasso_prox(W, 0.2))
    heads = [torch.nn.Linear(3, 2).weight for _ in range(4)]
    assert [type(row) for row in module.prox(heads, 0.1)] == [torch.Tensor] * 4
    assert torch.equal(module.prox(heads, 0.1)[0], module.prox(torch.stack(heads), 0.1)[0])


def test_the_reference_agrees_with_torch():
    W = torch.randn(6, 4, dtype=torch.float64)
    W[:, 2] = 0
    torch.testing.assert_close(reference.group_lasso(W), W.norm(dim=0).sum())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda W: group_lasso_prox(W, -1.0), ValueError, "threshold must be finite and >= 0"),
        (lambda W: group_lasso_prox_(W.expand(2, 3, 3), 1.0), ValueError, "memory of its own"),
        (lambda W: group_lasso(W.int()), TypeError, "W must be"),
        (lambda W: group_lasso_add_grad_(W, W), ValueError, "must not share memory"),
        (lambda W: GroupLasso(-1), ValueError, "GroupLasso: strength must be finite"),
    ],
)
def test_bad_input(call, error, message):
    W = torch.ones(3, 3)
    with pytest.raises(error, match=message):
        call(W)
    assert torch.equal(W, torch.ones(3, 3))
