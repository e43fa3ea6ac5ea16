"""Gradients of several losses at once, as multi-objective optimisers take them, loss by loss."""

import warnings

import cases
import pytest
import torch
from cases import CASES, DTYPES, upstream_like

every_case = pytest.mark.parametrize("case", CASES, ids=cases.names)
LOSSES = 4


def by_autograd(value, leaves, upstreams, **options):
    """What ``is_grads_batched`` does: a vmap of autograd's own."""
    return torch.autograd.grad(value, leaves, upstreams, is_grads_batched=True, **options)


def by_vmap(value, leaves, upstreams, **options):
    """A vmap of functorch around the call."""

    def one(upstream):
        return torch.autograd.grad(value, leaves, upstream, **options)

    return torch.func.vmap(one)(upstreams)


both_ways = pytest.mark.parametrize("batched", [by_autograd, by_vmap])


def prepared(case, dtype=torch.float64, spread=0.25):
    leaves = [t.requires_grad_() for t in case.tensors(6, 3, dtype, spread=spread)]
    value = case.function(*leaves)
    upstreams = torch.stack([upstream_like(value, seed) for seed in range(LOSSES)])
    upstreams[1], upstreams[2] = 1, 0
    return leaves, value, upstreams


def one_by_one(case, leaves, upstreams):
    """The gradients of each loss from a call of its own, stacked."""
    each = [torch.autograd.grad(case.function(*leaves), leaves, u) for u in upstreams]
    return [torch.stack(grads) for grads in zip(*each, strict=True)]


def assert_close(got, want):
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == theirs.dtype
        eps = max(torch.finfo(theirs.dtype).eps, 1e-13)
        scale = max(float(theirs.abs().max()), 1.0)
        torch.testing.assert_close(mine, theirs, rtol=4 * eps, atol=4 * eps * scale)


@every_case
@both_ways
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_loss_has_its_gradient(case, dtype, batched):
    leaves, value, upstreams = prepared(case, dtype)
    want = one_by_one(case, leaves, upstreams)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        for _ in range(2):  # what was kept for one backward is computed again
            assert_close(batched(value, leaves, upstreams, retain_graph=True), want)
        (single,) = torch.autograd.grad(value, leaves[:1], upstreams[0], retain_graph=True)
        assert_close([single], [want[0][0]])


@every_case
@both_ways
def test_only_w_is_asked_for(case, batched):
    leaves, value, upstreams = prepared(case)
    want = one_by_one(case, leaves, upstreams)
    assert_close(batched(value, leaves[:1], upstreams), want[:1])


@every_case
@both_ways
def test_several_gradients_are_differentiated_again(case, batched):
    leaves, value, upstreams = prepared(case, spread=1.0)
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(LOSSES, 6, 3, generator=generator, dtype=torch.float64)

    def second(grads):
        if not grads.requires_grad:  # linear in W
            return torch.zeros_like(leaves[0])
        return torch.autograd.grad((weights * grads).sum(), leaves[0])[0]

    each = [
        torch.autograd.grad(case.function(*leaves), leaves[0], u, create_graph=True)[0]
        for u in upstreams
    ]
    want = second(torch.stack(each))
    got = second(batched(value, leaves[:1], upstreams, create_graph=True)[0])
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * max(1.0, float(want.abs().max())))


@every_case
def test_vectorized_derivatives(case):
    W, *extras = case.tensors(4, 3, spread=1.0)
    function = lambda w: case.function(w, *extras)  # noqa: E731
    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(
        jacobian(function, W, vectorize=True), jacobian(function, W), rtol=1e-11, atol=1e-11
    )
    weight = upstream_like(function(W))
    scalar = lambda w: (weight * function(w)).sum()  # noqa: E731
    hessian = torch.autograd.functional.hessian
    got, want = hessian(scalar, W, vectorize=True), hessian(scalar, W)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_losses_that_share_parameters():
    """Two losses and a term, as such an optimiser has them: rows of a Jacobian."""
    case = next(case for case in CASES if case.name == "pairwise_reg")
    W = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    losses = torch.stack([case.function(W), W.square().sum(), W.sum()])
    (rows,) = torch.autograd.grad(losses, W, torch.eye(3).double(), is_grads_batched=True)
    torch.testing.assert_close(rows[0], 4 * 5 * (W - W.mean(0)).detach())
    torch.testing.assert_close(rows[1], 2 * W.detach())
    assert (rows[2] == 1).all()
