"""Trace norm and its prox against a float64 SVD, optimality certificates and exact properties."""

import math

import pytest
import torch

import mtlfast
from mtlfast import _native, _spectral, trace_norm, trace_norm_prox

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# small ones take the Jacobi kernel, those past 64 take LAPACK
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 4), (8, 8), (17, 16), (3, 40), (33, 64), (70, 5)]
LARGE = [(66, 65), (65, 90), (300, 70)]
native = pytest.mark.skipif(bool(_native.missing), reason="needs the compiled module")


def unit(dtype):
    return 2.0**-53 if dtype == torch.float64 else 2.0**-24


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(seed)).to(dtype)


def spectrum(m, n, sigma, batch=5):
    """Matrices with the given singular values."""
    u = torch.linalg.qr(randn(batch, m, len(sigma)))[0]
    v = torch.linalg.qr(randn(batch, n, len(sigma), seed=1))[0]
    return (u * torch.as_tensor(sigma, dtype=torch.float64)) @ v.mT


def exact_norm(w):
    return torch.linalg.svdvals(w.double()).sum(-1)


def exact_prox(w, t):
    u, s, vh = torch.linalg.svd(w.double(), full_matrices=False)
    t = torch.as_tensor(t, dtype=torch.float64)
    return (u * (s - t.unsqueeze(-1)).clamp_min(0).unsqueeze(-2)) @ vh


def exact_subgradient(w):
    u, s, vh = torch.linalg.svd(w.double(), full_matrices=False)
    eps = torch.finfo(torch.float64 if w.dtype == torch.float64 else torch.float32).eps
    return (u * (s > s[..., :1] * max(w.shape[-2:]) * eps).unsqueeze(-2)) @ vh


def norm(x):
    return torch.linalg.vector_norm(x.double(), dim=(-2, -1))


def assert_accurate(w, t):
    u = unit(w.dtype)
    value, expected = trace_norm(w), exact_norm(w)
    assert value.dtype == (torch.float64 if w.dtype == torch.float64 else torch.float32)
    assert value.shape == w.shape[:-2]
    assert ((value.double() - expected).abs() <= 64 * u * expected).all()
    z = trace_norm_prox(w, t)
    assert z.dtype == w.dtype and z.shape == w.shape
    error = norm(z.double() - exact_prox(w, t))
    storage = torch.finfo(w.dtype).eps / 2 if w.dtype.itemsize == 2 else 0  # rounding of the result
    tiny = torch.finfo(w.dtype).tiny * math.sqrt(w[..., :, :].numel()) if storage else 0
    assert (error <= (64 * u + storage) * norm(w) + tiny).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES + LARGE, ids=str)
def test_value_and_prox_within_the_gates(shape, dtype):
    w = randn(19, *shape, dtype=dtype)
    assert_accurate(w, 0.4 * math.sqrt(max(shape)))
    assert_accurate(w[3], 0.01)
    assert_accurate(w[:1], 0.0)


SPECTRA = {
    "graded": torch.logspace(0, -6, 12),
    "rank one": [3.0],
    "repeated": [2.0] * 6 + [1.0] * 6,
    "orthogonal": [1.0] * 12,
    "near the rank cut": [1.0, 1e-5, 3e-7, 1e-8, 1e-12],
}


@pytest.mark.parametrize("scale", (1.0, 1e-30, 1e30), ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("shape", [(20, 12), (12, 12), (12, 50), (90, 80)], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_hard_spectra(name, shape, dtype, scale):
    w = (spectrum(*shape, SPECTRA[name]) * scale).to(dtype)
    for t in (0.0, 1e-4, 0.5):
        assert_accurate(w, t * scale)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("shape", [(9, 6), (6, 30), (64, 40), (100, 70)], ids=str)
def test_prox_is_optimal(shape, dtype):
    """‖W − Z‖₂ ≤ t and ⟨W − Z, Z⟩ = t‖Z‖_*: a certificate that holds for the minimiser alone."""
    w = randn(6, *shape, dtype=dtype)
    for t in (1e-3, 1.0, 0.5 * math.sqrt(max(shape))):
        z = trace_norm_prox(w, t).double()
        rest = w.double() - z
        slack = 64 * unit(dtype) * norm(w)
        assert (torch.linalg.matrix_norm(rest, 2) <= t + slack).all()
        gap = (rest * z).sum((-2, -1)) - t * exact_norm(z)
        assert (gap.abs() <= slack * (norm(z) + t * math.sqrt(min(shape)))).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES + LARGE, ids=str)
def test_gradient_is_the_subgradient_times_upstream(shape, dtype):
    w = randn(4, *shape, dtype=dtype).requires_grad_()
    upstream = torch.tensor([2.0, -0.5, 0.0, 3.0])
    value = trace_norm(w)
    (grad,) = torch.autograd.grad(value, w, upstream.to(value.dtype))
    expected = upstream[:, None, None] * exact_subgradient(w.detach())
    assert grad.dtype == dtype
    # u_k v_kᵀ moves by the relative size of what was rounded away, over σ_min/σ_max
    s = torch.linalg.svdvals(w.detach().double())
    bound = 32 * 2.0**-53 * s[:, 0] / s[:, -1] * max(shape) + torch.finfo(dtype).eps
    assert (norm(grad.double() - expected) <= bound * norm(expected) + 1e-300).all()


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("shape", [(20, 12), (12, 40), (90, 80)], ids=str)
def test_gradient_stops_at_the_numerical_rank(shape, dtype):
    w = spectrum(*shape, [5.0, 2.0, 2.0, 1e-3]).to(dtype).requires_grad_()
    trace_norm(w).sum().backward()
    assert torch.allclose(norm(w.grad).square(), torch.tensor(4.0, dtype=torch.float64), rtol=1e-5)
    exact = exact_subgradient(w.detach())
    assert (norm(w.grad.double() - exact) <= 1e3 * torch.finfo(dtype).eps * 2).all()


@pytest.mark.parametrize("shape", [(4, 3), (70, 66)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_matrix(shape, dtype):
    w = torch.zeros((2, *shape), dtype=dtype, requires_grad=True)
    value = trace_norm(w)
    value.sum().backward()
    assert value.tolist() == [0, 0] and not w.grad.any()
    assert not trace_norm_prox(w, 0.5).any() and not trace_norm_prox(w, 0).any()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 4, 0), (2, 0, 0), (0, 3)], ids=str)
def test_empty(shape):
    w = torch.zeros(shape, requires_grad=True)
    value = trace_norm(w)
    assert value.shape == shape[:-2] and not value.any()
    out = trace_norm_prox(w, 0.5)
    assert out.shape == w.shape
    (value.sum() + out.sum()).backward()
    assert w.grad.shape == w.shape


def test_batch_shapes_lists_and_strides():
    w = randn(2, 3, 5, 4)
    assert torch.equal(trace_norm(w), trace_norm(w.reshape(6, 5, 4)).reshape(2, 3))
    heads = [row.reshape(2, 2) for row in w[0, 0]]
    assert torch.equal(trace_norm(heads), trace_norm(w[0, 0]))
    proxed = trace_norm_prox(heads, 0.7)
    assert isinstance(proxed, list) and proxed[0].shape == (2, 2)
    assert torch.equal(torch.stack(proxed).reshape(5, 4), trace_norm_prox(w[0, 0], 0.7))
    wide = torch.full((7, 40, 9), math.nan, dtype=torch.float64)
    for view in (wide[1:, ::2, 2:7], wide.mT[:, 1:6, 3:20], wide[0, :6, :5].expand(4, 6, 5)):
        view.copy_(randn(*view.shape)) if view.stride(0) else view[0].copy_(randn(6, 5))
        assert torch.equal(trace_norm(view), trace_norm(view.clone()))
        assert torch.equal(trace_norm_prox(view, 0.3), trace_norm_prox(view.clone(), 0.3))


def test_threshold_for_each_matrix():
    w = randn(2, 3, 6, 4)
    t = torch.rand(2, 3, dtype=torch.float64) * 3
    z = trace_norm_prox(w, t)
    for i in range(2):
        for j in range(3):
            assert torch.equal(z[i, j], trace_norm_prox(w[i, j], t[i, j].item()))
    assert torch.equal(trace_norm_prox(w, t[0]), trace_norm_prox(w, t[0].expand(2, 3)))
    assert torch.equal(trace_norm_prox(w.float(), t.float()).double(),
                       trace_norm_prox(w.float(), t.float().double()).double())  # fmt: skip
    huge = trace_norm_prox(w.float(), 1e300)
    assert not huge.any()


# Exact properties of the Jacobi kernel --------------------------------------------------------


def everything(w, t):
    w = w.clone().requires_grad_()
    value = trace_norm(w)
    (grad,) = torch.autograd.grad(value.sum(), w)
    with torch.no_grad():
        return trace_norm(w), value.detach(), grad, trace_norm_prox(w, t)


def hard_batch(dtype):
    w = torch.cat([randn(21, 13, 10), spectrum(13, 10, [1.0, 1e-4, 1e-4, 0]) * 7])
    w[2] *= 0
    w[5, :, 3:] = 0
    w[9, :, 1] = w[9, :, 0]
    return w.to(dtype)


@native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_do_not_depend_on_the_place_in_the_batch(dtype):
    w = hard_batch(dtype)
    t = torch.linspace(0, 3, len(w), dtype=torch.float64)
    order = torch.randperm(len(w), generator=torch.manual_seed(3))
    for whole, moved in zip(everything(w, t), everything(w[order], t[order]), strict=True):
        assert torch.equal(whole[order], moved)
    for whole, alone in zip(everything(w, t), everything(w[7:8], t[7:8]), strict=True):
        assert torch.equal(whole[7:8], alone)


@native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_do_not_depend_on_threads_or_instruction_set(dtype):
    w, threads, isa = (
        hard_batch(dtype).repeat(3, 1, 1),
        torch.get_num_threads(),
        _native._C.use_isa(),
    )
    expected = everything(w, 0.6)
    try:
        for name in _native._C.runnable_isas():
            _native._C.use_isa(name)
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                for a, b in zip(expected, everything(w, 0.6), strict=True):
                    assert torch.equal(a, b), name
    finally:
        torch.set_num_threads(threads)
        _native._C.use_isa(isa)


@native
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_powers_of_two_scale_exactly(dtype):
    w = hard_batch(dtype)
    expected = everything(w, 0.6)
    for k in (-90, -1, 1, 90):
        got = everything(w * 2.0**k, 0.6 * 2.0**k)
        for a, b, power in zip(expected, got, (k, k, 0, k), strict=True):
            assert torch.equal(a * 2.0**power, b)


@native
def test_routes_agree():
    """The Jacobi kernel and LAPACK give the same within the gates where either could be taken."""
    for dtype in DTYPES[:2]:
        w = randn(3, 90, 64, dtype=dtype)
        out, t = torch.empty_like(w), torch.full((3,), 4.0, dtype=torch.float64)
        _spectral.trace_norm_prox(w, t, out)
        assert (norm(out.double() - exact_prox(w, 4.0)) <= 64 * unit(dtype) * norm(w)).all()
        grad = torch.empty_like(w)
        value = _spectral.trace_norm_value(w, grad)
        assert ((value - exact_norm(w)).abs() <= 64 * unit(dtype) * exact_norm(w)).all()
        assert (norm(grad.double() - exact_subgradient(w)) <= 1e-5).all()


# Derivatives ----------------------------------------------------------------------------------


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
@pytest.mark.parametrize(
    "sigma", [[3, 3, 3, 1], [3, 3, 1, 1, 0][:4], [2], [4, 2, 0.5, 0.5]], ids=str
)
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


def test_fallback_agrees():
    from mtlfast import reference

    for dtype in DTYPES:
        w, t = randn(6, 8, 5, dtype=dtype), torch.linspace(0, 3, 6, dtype=torch.float64)
        value, grad = reference.trace_norm_value(w, True)
        x = w.clone().requires_grad_()
        trace_norm(x).sum().backward()
        assert value.dtype == trace_norm(w).dtype and grad.dtype == dtype
        assert torch.allclose(value, trace_norm(w), rtol=64 * unit(dtype))
        tolerance = 4 * torch.finfo(dtype).eps
        assert (norm(grad - x.grad) <= tolerance * norm(grad) + 1e-12).all()
        z = reference.trace_norm_shrink(w, t)
        assert (norm(z - trace_norm_prox(w, t)) <= 16 * torch.finfo(dtype).eps * norm(w)).all()


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 80, 70)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", ("nan", "inf", "-inf"))
def test_not_finite(bad, dtype, shape):
    w = randn(*shape, dtype=dtype)
    w[1, 3, 1] = float(bad)
    text = rf"W must be finite, got {bad} at index \(1, 3, 1\)$"
    before = w.clone()
    for grad in (False, True):
        x = w.clone().requires_grad_(grad)
        with pytest.raises(ValueError, match="^trace_norm: " + text):
            trace_norm(x)
        with pytest.raises(ValueError, match="^trace_norm_prox: " + text):
            trace_norm_prox(x, 0.5)
    with pytest.raises(ValueError, match="^trace_norm: " + text):
        torch.func.grad(lambda x: trace_norm(x).sum())(w)
    with pytest.raises(ValueError, match="^trace_norm_prox: " + text):
        torch.vmap(lambda x: trace_norm_prox(x, 0.5))(w)
    with pytest.raises(ValueError, match="^trace_norm: " + text):
        torch.compile(trace_norm, backend="eager")(w)
    assert torch.equal(w.nan_to_num(), before.nan_to_num())


W = torch.zeros(2, 3, 4)
BAD = [
    (trace_norm, ("W",), TypeError, "trace_norm: W must be a tensor, got str"),
    (trace_norm, (W.int(),), TypeError, "trace_norm: W must be float64, float32, bfloat16 or"),
    (trace_norm, (W.to_sparse(),), TypeError, "trace_norm: W must be a dense tensor, got"),
    (trace_norm, (W[0, 0],), ValueError, r"W must have shape \[..., m, n\], got \[4\]"),
    (trace_norm, (torch.tensor(1.0),), ValueError, r"W must have shape \[..., m, n\], got \[\]"),
    (trace_norm, ([],), ValueError, "trace_norm: W must hold at least one tensor, got an empty"),
    (trace_norm, ([W, W[0]],), ValueError, "all tensors of W must have the same shape"),
    (trace_norm, ([W, W.double()],), TypeError, "all tensors of W must have the same dtype"),
    (trace_norm_prox, (W[0, 0], 1), ValueError, r"_prox: W must have shape \[..., m, n\]"),
    (trace_norm_prox, (W, -1), ValueError, "threshold must be finite and >= 0, got -1.0"),
    (trace_norm_prox, (W, math.nan), ValueError, "threshold must be finite and >= 0, got nan"),
    (trace_norm_prox, (W, math.inf), ValueError, "threshold must be finite and >= 0, got inf"),
    (trace_norm_prox, (W, "1"), TypeError, "threshold must be a number, got str"),
    (trace_norm_prox, (W, True), TypeError, "threshold must be a number, got bool"),
    (trace_norm_prox, (W, torch.tensor([1, 1])), TypeError, "threshold must be float64, float32"),
    (trace_norm_prox, (W, torch.ones(3)), ValueError,
     r"threshold must broadcast to the batch shape \[2\], got \[3\]"),
    (trace_norm_prox, (W[0], torch.ones(2)), ValueError,
     r"threshold must broadcast to the batch shape \[\], got \[2\]"),
    (trace_norm_prox, (W, torch.ones(2, device="meta")), ValueError, "threshold must be on W's"),
    (trace_norm_prox, (W, torch.tensor([1.0, -2.0])), ValueError,
     r"threshold must be finite and >= 0, got -2.0 at index \(1,\)"),
    (trace_norm_prox, (W, torch.tensor([math.nan, 0])), ValueError,
     r"threshold must be finite and >= 0, got nan at index \(0,\)"),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[3][:50])
def test_bad_input(case):
    function, args, error, text = case
    with pytest.raises(error, match=text):
        function(*args)


def test_public_names():
    assert {"trace_norm", "trace_norm_prox"} <= set(mtlfast.__all__)
