"""Derivatives of the trace norm and its prox: by value, at degenerate points, under transforms."""

import pytest
import torch
from matrices import exact_prox, exact_subgradient, randn, spectrum

from mtlfast import trace_norm, trace_norm_prox


def test_gradcheck_and_gradgradcheck():
    w = randn(2, 4, 3).requires_grad_()
    t = torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True)
    for case in (w, randn(3, 5).requires_grad_()):
        torch.autograd.gradcheck(trace_norm, case, nondet_tol=0)
        torch.autograd.gradgradcheck(trace_norm, case, nondet_tol=0)
    torch.autograd.gradcheck(trace_norm_prox, (w, t), nondet_tol=0)
    torch.autograd.gradgradcheck(trace_norm_prox, (w, t))
    torch.autograd.gradcheck(lambda t: trace_norm_prox(w.detach(), t), t, nondet_tol=0)


def directional(w, t, direction, step=1e-6):
    """Central difference of the exact prox."""
    ahead, behind = exact_prox(w + step * direction, t), exact_prox(w - step * direction, t)
    return (ahead - behind) / (2 * step)


@pytest.mark.parametrize("shape", [(7, 5), (5, 5), (4, 9)], ids=str)
@pytest.mark.parametrize("sigma", [[3, 3, 3, 1], [3, 3, 1, 0], [2], [4, 2, 0.5, 0.5]], ids=str)
def test_prox_gradient_at_repeated_and_zero_singular_values(shape, sigma):
    t = 0.7
    w = spectrum(*shape, [float(s) for s in sigma], batch=3).requires_grad_()
    threshold = torch.full((3,), t, dtype=torch.float64, requires_grad=True)
    upstream, direction = randn(3, *shape, seed=2), randn(3, *shape, seed=3)
    grad_w, grad_t = torch.autograd.grad(trace_norm_prox(w, threshold), (w, threshold), upstream)
    slope = (directional(w.detach(), t, direction) * upstream).sum((-2, -1))
    assert torch.allclose((grad_w * direction).sum((-2, -1)), slope, rtol=1e-5, atol=1e-7)
    change = (exact_prox(w.detach(), t + 1e-6) - exact_prox(w.detach(), t - 1e-6)) / 2e-6
    assert torch.allclose(grad_t, (change * upstream).sum((-2, -1)), rtol=1e-5, atol=1e-7)


def test_prox_gradient_without_threshold_is_the_identity():
    w = torch.cat([spectrum(5, 4, [1.0, 1.0, 0.0]), torch.zeros(1, 5, 4, dtype=torch.float64)])
    w.requires_grad_()
    upstream = randn(6, 5, 4)
    (grad,) = torch.autograd.grad(trace_norm_prox(w, 0.0), w, upstream)
    assert torch.allclose(grad, upstream, rtol=0, atol=1e-12)


def test_double_backward_at_repeated_singular_values():
    """The derivative of U Vᵀ needs no gap between singular values: compare with differences."""
    w = torch.eye(4, 3, dtype=torch.float64).requires_grad_()
    upstream = randn(4, 3, seed=5)
    (grad,) = torch.autograd.grad(trace_norm(w), w, create_graph=True)
    (second,) = torch.autograd.grad(grad, w, upstream)
    step = 1e-6
    exact = exact_subgradient(w.detach() + step * upstream)
    exact = (exact - exact_subgradient(w.detach() - step * upstream)) / (2 * step)
    assert torch.allclose(second, exact, rtol=1e-6, atol=1e-8)
    prox = trace_norm_prox(w, 0.5)
    (grad,) = torch.autograd.grad(prox, w, upstream, create_graph=True)
    (plain,) = torch.autograd.grad(trace_norm_prox(w, 0.5), w, upstream)
    assert torch.equal(grad, plain) and grad.isfinite().all()


@pytest.mark.parametrize("function", (trace_norm, lambda w: trace_norm_prox(w, 0.6).sin().sum()))
def test_transforms(function):
    w, v = randn(5, 4), randn(5, 4, seed=1)
    x = w.clone().requires_grad_()
    value = function(x)
    (grad,) = torch.autograd.grad(value, x, create_graph=True)
    (hvp,) = torch.autograd.grad((grad * v).sum(), x)
    close = {"rtol": 1e-9, "atol": 1e-9}
    assert torch.allclose(torch.func.grad(function)(w), grad, **close)
    out, slope = torch.func.jvp(function, (w,), (v,))
    assert torch.allclose(out, value, **close)
    assert torch.allclose(slope, (grad * v).sum(), **close)
    hessian = torch.func.hessian(function)(w)
    assert torch.allclose(torch.einsum("ijkl,kl->ij", hessian, v), hvp, **close)
    batch = torch.stack([w, v, w + v])
    each = torch.stack([function(b) for b in batch])
    assert torch.allclose(torch.vmap(function)(batch), each, **close)
    grads = torch.vmap(torch.func.grad(function))(batch)
    assert torch.allclose(grads[0], grad, **close)


@pytest.mark.parametrize("function", (trace_norm, lambda w: trace_norm_prox(w, 0.6).sin().sum()))
def test_compile(function):
    torch._dynamo.reset()
    w = randn(5, 4)
    x, y = w.clone().requires_grad_(), w.clone().requires_grad_()
    function(x).backward()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    value = compiled(y)
    value.backward()
    assert torch.allclose(value, function(w)) and torch.allclose(x.grad, y.grad)
    grad = torch.compile(torch.func.grad(function), backend="aot_eager")(w)
    assert torch.allclose(grad, x.grad, rtol=1e-9, atol=1e-9)


def test_ops_satisfy_opcheck():
    for w in (randn(3, 5, 4), randn(70, 66, dtype=torch.float32)):
        for grad in (True, False):
            torch.library.opcheck(torch.ops.mtlfast.trace_norm_value.default, (w, grad))
        t = torch.full(w.shape[:-2], 0.3, dtype=torch.float64)
        torch.library.opcheck(torch.ops.mtlfast.trace_norm_shrink.default, (w, t))
