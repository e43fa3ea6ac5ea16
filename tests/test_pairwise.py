"""What is special about the pairwise distance: the textbook loop, its mean form, its prox."""

import cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlfast import pairwise_prox, pairwise_reg


def test_a_loop_over_each_pair_once_gives_half():
    W = torch.randn(7, 4, dtype=torch.float64)
    loop = sum(((W[i] - W[j]) ** 2).sum() for i in range(7) for j in range(i))
    torch.testing.assert_close(pairwise_reg(W), 2 * loop)


def test_mean_does_not_grow_with_the_number_of_tasks():
    """For independent rows of unit variance the mean over pairs is 2d, whatever K is."""
    for K in (30, 3000):
        value = pairwise_reg(torch.randn(K, 50), reduction="mean")
        assert 2 * 50 * 0.8 < value < 2 * 50 * 1.2


@pytest.mark.parametrize("K", [0, 1])
def test_fewer_than_two_tasks_have_no_pairs(K):
    for reduction in ("sum", "mean"):
        W = torch.randn(K, 3, requires_grad=True)
        value = pairwise_reg(W, reduction=reduction)
        value.backward()
        assert value == 0
        assert not W.grad.any()


def test_float16_overflows_as_a_sum_and_not_as_a_mean():
    """As documented: 4K·(w − w̄) leaves float16's range at large K; the mean form does not."""
    W = torch.randn(40_000, 2).half().requires_grad_()
    pairwise_reg(W).backward()
    assert W.grad.isinf().any()
    W.grad = None
    value = pairwise_reg(W, reduction="mean")
    (1e4 * value).backward()
    assert W.grad.isfinite().all()
    assert W.grad.any()
    assert value.isfinite()


def test_the_value_is_never_negative():
    for seed in range(50):
        W, *_ = cases.CASES[0].tensors(1000, 3, torch.float32, seed=seed, spread=1e-7)
        assert pairwise_reg(W) >= 0


def test_a_million_tasks():
    """The distances of all pairs would fill 4 TB."""
    W = torch.randn(1_000_000, 4, requires_grad=True)
    value = pairwise_reg(W)
    value.backward()
    x = W.detach().double()
    centred = x - x.mean(0)
    torch.testing.assert_close(value.double(), 2e6 * centred.square().sum(), rtol=2e-6, atol=0)
    error = (W.grad - 4e6 * centred).norm() / (4e6 * centred).norm()
    assert error < 16 * 2**-24


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    K=st.integers(1, 30),
    d=st.integers(1, 10),
    step=st.floats(0, 1e6),
    seed=st.integers(0, 10**6),
)
def test_prox_certificate(K, d, step, seed):
    """Z is the minimiser exactly when W − Z = step·∇R(Z): strong convexity leaves no other."""
    W = torch.randn(K, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    Z = pairwise_prox(W, step)
    z, w = Z.numpy().astype(np.longdouble), W.numpy().astype(np.longdouble)
    residual = w - z - np.longdouble(step) * 4 * K * (z - z.mean(axis=0))
    bound = 64 * 2.0**-53 * np.linalg.norm(W) * (1 + 4 * K * step)
    assert np.sqrt(np.sum(residual**2)) <= bound


def test_prox_keeps_the_mean_and_ends_in_consensus():
    W = torch.randn(9, 4, dtype=torch.float64)
    torch.testing.assert_close(pairwise_prox(W, 0.0), W)
    torch.testing.assert_close(pairwise_prox(W, 0.3).mean(0), W.mean(0))
    torch.testing.assert_close(pairwise_prox(W, 1e300), W.mean(0).expand(9, 4))


def test_prox_takes_a_number_in_a_tensor():
    W = torch.randn(9, 4)
    assert torch.equal(pairwise_prox(W, torch.tensor(0.25)), pairwise_prox(W, 0.25))


def test_heads_of_a_module_list():
    """The one-line repair of a training script: the weights of a ModuleList as they are."""
    heads = torch.nn.ModuleList(torch.nn.Linear(5, 3) for _ in range(4))
    pairwise_reg([head.weight for head in heads]).backward()
    stacked = torch.stack([head.weight for head in heads]).detach().double()
    for head, want in zip(heads, 16 * (stacked - stacked.mean(0)), strict=True):
        torch.testing.assert_close(head.weight.grad.double(), want, rtol=1e-5, atol=1e-5)
        assert head.bias.grad is None
