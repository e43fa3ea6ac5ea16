"""Trace norm and its prox against a float64 SVD, optimality certificates and exact properties."""

import math

import pytest
import torch
from matrices import DTYPES, exact_norm, exact_prox, exact_subgradient, norm, randn, spectrum, unit

import mtlfast
from mtlfast import _native, reference, trace_norm, trace_norm_prox, trace_norm_prox_
from mtlfast._dtypes import CODES
from mtlfast._torch import trace_norm as _spectral

# small ones take the Jacobi kernel or the Gram kernel, float64 past 64 takes LAPACK
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 4), (8, 8), (17, 16), (3, 40), (33, 64), (70, 5)]
LARGE = [(66, 65), (65, 90), (300, 70)]
native = pytest.mark.skipif(bool(_native.missing), reason="needs the compiled module")


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
    # LAPACK's SVD is off by up to 93u itself, as its reconstruction of W shows
    oracle = norm(exact_prox(w, 0.0) - w.double())
    assert (error <= (64 * u + storage) * norm(w) + oracle).all()


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


def even_slack(dtype):
    """Rounding of a subgradient: its last multiplication may be in float32 for σ_1 ≤ 4σ_min."""
    return {torch.float64: 2 * unit(dtype), torch.float32: 8 * unit(dtype)}.get(
        dtype, torch.finfo(dtype).eps
    )


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
    bound = 32 * 2.0**-53 * s[:, 0] / s[:, -1] * max(shape) + even_slack(dtype)
    assert (norm(grad.double() - expected) <= bound * norm(expected) + 1e-300).all()


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("shape", [(20, 12), (12, 40), (90, 80)], ids=str)
def test_gradient_stops_at_the_numerical_rank(shape, dtype):
    w = spectrum(*shape, [5.0, 2.0, 2.0, 1e-3]).to(dtype).requires_grad_()
    trace_norm(w).sum().backward()
    assert torch.allclose(norm(w.grad).square(), torch.tensor(4.0, dtype=torch.float64), rtol=1e-5)
    exact = exact_subgradient(w.detach())
    bound = 8 * 5e3 * 2.0**-53 + 2 * torch.finfo(dtype).eps  # σ_1/σ_4 = 5e3
    assert (norm(w.grad.double() - exact) <= bound).all()


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
        _native.use_isa(),
    )
    expected = everything(w, 0.6)
    try:
        for name in _native.cpu_isas():
            _native.use_isa(name)
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                for a, b in zip(expected, everything(w, 0.6), strict=True):
                    assert torch.equal(a, b), name
    finally:
        torch.set_num_threads(threads)
        _native.use_isa(isa)


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


def test_fallback_agrees():
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


# The Gram kernel ------------------------------------------------------------------------------


def by_gram(w, t, grad=True, out=None):
    """Value, subgradient, prox and finite flags of w [B, m, n] from the Gram kernel itself."""
    batch, m, n = w.shape
    unit, out = torch.empty_like(w), torch.empty_like(w) if out is None else out
    value = torch.empty(batch, dtype=torch.float64)
    finite = torch.empty(batch, dtype=torch.int64)
    t = torch.full((batch,), t, dtype=torch.float64)
    head = (CODES[w.dtype], w.data_ptr())
    threads = torch.get_num_threads()
    address = unit.data_ptr() if grad else 0
    _native._C.trace_norm_gram_value(*head, batch, m, n, value.data_ptr(), address, threads)
    _native._C.trace_norm_gram_prox(
        *head, t.data_ptr(), batch, m, n, out.data_ptr(), finite.data_ptr(), threads
    )
    return value, unit, out, finite


GRAM_SHAPES = [*SHAPES, *LARGE, (700, 20), (20, 1100), (256, 250), (9, 256)]
LANES_SHAPES = [(17, 17), (33, 48), (48, 128), (24, 240), (6, 1000)]


@native
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize(
    "shape",
    [(3, *shape) for shape in GRAM_SHAPES] + [(11, *shape) for shape in SHAPES + LANES_SHAPES],
    ids=str,
)
def test_gram_kernel_within_the_gates(shape, dtype):
    """At every shape, also where another route is taken; the same bits on all machines."""
    w = randn(*shape, dtype=dtype)
    shape = shape[1:]
    t = 0.4 * math.sqrt(max(shape))
    value, grad, z, finite = by_gram(w, t)
    assert finite.all()
    storage = torch.finfo(dtype).eps / 2 if dtype.itemsize == 2 else 0
    assert ((value - exact_norm(w)).abs() <= 64 * 2.0**-24 * exact_norm(w)).all()
    assert (norm(z.double() - exact_prox(w, t)) <= (64 * 2.0**-24 + storage) * norm(w)).all()
    expected = exact_subgradient(w)
    tolerance = 8 * 2.0**-24 + storage
    assert (norm(grad.double() - expected) <= tolerance * norm(expected)).all()
    assert torch.equal(by_gram(w, t, grad=False)[0], value)
    assert torch.equal(by_gram(w.clone(), t, out=(copy := w.clone()))[2], copy)
    isa, threads = _native.use_isa(), torch.get_num_threads()
    try:
        for name in _native.cpu_isas():
            _native.use_isa(name)
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                for got, want in zip(by_gram(w, t), (value, grad, z), strict=False):
                    assert torch.equal(got, want), (name, count)
    finally:
        torch.set_num_threads(threads)
        _native.use_isa(isa)


@native
@pytest.mark.parametrize("scale", (1.0, 1e-30, 1e30), ids=str)
@pytest.mark.parametrize("shape", [(20, 12), (12, 50), (40, 33), (90, 80)], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_gram_kernel_at_hard_spectra(name, shape, scale):
    w = (spectrum(*shape, SPECTRA[name]) * scale).float()
    u = 2.0**-24
    for t in (0.0, 1e-4, 0.5):
        value, grad, z, _ = by_gram(w, t * scale)
        assert ((value - exact_norm(w)).abs() <= 64 * u * exact_norm(w)).all()
        assert (norm(z.double() - exact_prox(w, t * scale)) <= 64 * u * norm(w)).all()
    # u_k v_kᵀ is as good as from a float64 SVD, on the side of the rank cut where it is
    s = torch.linalg.svdvals(w.double())
    cut = s[:, :1] * (max(shape) * torch.finfo(torch.float32).eps)
    for b in range(len(w)):
        if ((s[b] / cut[b] - 1).abs() > 0.1).all():
            smallest = s[b][s[b] > cut[b]].min()
            bound = 32 * 2.0**-53 * s[b, 0] / smallest * max(shape) + 8 * u
            expected = exact_subgradient(w[b])
            assert norm(grad[b].double() - expected) <= bound * norm(expected)


@native
def test_gram_kernel_powers_of_two():
    w = randn(5, 40, 30, dtype=torch.float32)
    expected = by_gram(w, 0.6)
    for k in (-90, -1, 1, 90):
        got = by_gram(w * 2.0**k, 0.6 * 2.0**k)
        for a, b, power in zip(expected, got, (k, 0, k, 0), strict=True):
            assert torch.equal(a * 2.0**power, b)


@native
def test_gram_kernel_at_the_ends_of_the_range():
    """Sums of entries near the largest float leave the range of float, results need not."""
    w = torch.full((1, 40, 30), 3e38)
    w[0, ::2] *= -1
    z = by_gram(w, 1.0)[2]
    assert norm(z.double() - exact_prox(w, 1.0)) <= 64 * 2.0**-24 * norm(w)
    tiny = torch.full((1, 40, 30), 1e-41)
    value, _, z, _ = by_gram(tiny, 0.0)
    assert torch.equal(z, tiny) and torch.allclose(value, exact_norm(tiny), rtol=1e-6, atol=0)


# In place -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE, (5, 8, 8), (2, 3, 40, 33)], ids=str)
def test_in_place(shape, dtype, device):
    w = randn(*shape, dtype=dtype).to(device)
    expected, version = trace_norm_prox(w, 0.7), w._version
    assert trace_norm_prox_(w, 0.7) is w
    assert torch.equal(w, expected) and w._version > version


def test_in_place_lists_strides_and_parameters():
    wide = torch.full((7, 40, 9), math.nan)
    for view in (wide[1:, ::2, 2:7], wide.mT[:, 1:6, 3:20]):
        view.copy_(randn(*view.shape))
        outside, t = wide.isnan(), torch.rand(view.shape[0], dtype=torch.float64)
        expected = trace_norm_prox(view, t)
        assert trace_norm_prox_(view, t) is view
        assert torch.equal(view, expected) and torch.equal(wide.isnan(), outside)
        wide.fill_(math.nan)
    heads = [torch.nn.Parameter(row.reshape(2, 2)) for row in randn(5, 4)]
    expected = trace_norm_prox([h.detach() for h in heads], 0.3)
    assert trace_norm_prox_(heads, 0.3) is heads
    assert all(
        torch.equal(h, e) and h.grad_fn is None for h, e in zip(heads, expected, strict=True)
    )
    weight = torch.nn.Parameter(randn(66, 70, dtype=torch.float32))
    loss = (weight**2).sum()
    trace_norm_prox_(weight, 0.5)
    assert weight.is_leaf and weight.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("shape", [(1, 5, 3), (18, 5, 3), (2, 80, 70), (1, 80, 70)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_leaves_a_bad_matrix_alone(dtype, shape):
    w = randn(*shape, dtype=dtype)
    for bad in (math.nan, math.inf):
        w[-1, 3, 1] = bad
        for view in (w, w.mT):
            before, version = view.clone(), w._version
            with pytest.raises(ValueError, match=r"^trace_norm_prox_: W must be finite, got "):
                trace_norm_prox_(view, 0.5)
            assert torch.equal(view.nan_to_num(), before.nan_to_num()) and w._version == version
    w[-1, 3, 1] = 0
    before = w.clone()
    for t in (-1.0, math.nan, torch.tensor(-1.0)):
        with pytest.raises(ValueError, match=r"^trace_norm_prox_: threshold must be finite"):
            trace_norm_prox_(w, t)
    assert torch.equal(w, before)


def test_in_place_under_compile():
    w = randn(6, 5)
    expected = trace_norm_prox(w, 0.4)
    torch.compile(lambda x: trace_norm_prox_(x, 0.4), fullgraph=True, backend="aot_eager")(w)
    assert torch.equal(w, expected)


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


@pytest.mark.parametrize("disabled", (False, True))
@pytest.mark.parametrize("shape", [(5, 6, 3), (18, 40, 30), (3, 300, 270)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nobody_looks(shape, dtype, disabled, monkeypatch):
    """check=False: NaN in the matrices concerned, and the others as if they were not there."""
    if disabled:
        monkeypatch.setattr(mtlfast.trace_norm.__globals__["_ops"], "trace_norm_value",
                            reference.trace_norm_value)  # fmt: skip
        monkeypatch.setattr(mtlfast.trace_norm.__globals__["_ops"], "trace_norm_shrink",
                            reference.trace_norm_shrink)  # fmt: skip
        monkeypatch.setattr(mtlfast.trace_norm.__globals__["_ops"], "trace_norm_shrink_",
                            reference.trace_norm_shrink_)  # fmt: skip
    w, t = randn(*shape, dtype=dtype), torch.full(shape[:1], 0.7, dtype=torch.float64)
    expected = (*everything(w, t)[1:3], trace_norm_prox(w, t))
    w[1, 2, 1], w[2, 0, 0], t[0] = math.nan, -math.inf, math.inf
    x, s = w.clone().requires_grad_(), t.clone().requires_grad_()
    value = trace_norm(x, check=False)
    (grad,) = torch.autograd.grad(value.sum(), x)
    z = trace_norm_prox(x, s, check=False)
    grad_w, grad_t = torch.autograd.grad(z.sum(), (x, s))
    assert grad_w[1:3].isnan().all() and grad_t[1:3].isnan().all()
    assert grad_w[3:].isfinite().all()
    copy = w.clone()
    assert trace_norm_prox_(copy, t, check=False) is copy
    for found, whole, bad in zip(
        (value, grad, z, copy), (*expected, expected[2]), ({1, 2}, {1, 2}, {0, 1, 2}, {0, 1, 2}),
        strict=True,
    ):  # fmt: skip
        for k in range(len(w)):
            if k in bad:
                assert found[k].isnan().all()
            else:
                assert torch.equal(found[k], whole[k])


def test_looking_is_asked_for_or_not():
    w = randn(2, 4, 3)
    w[0, 0, 0] = math.nan
    for check in (None, True):
        for call in (trace_norm, lambda w, check: trace_norm_prox(w, 0.5, check=check)):
            with pytest.raises(ValueError, match="W must be finite, got nan"):
                call(w, check=check)
            with pytest.raises(ValueError, match="W must be finite, got nan"):
                torch.vmap(lambda w, call=call, check=check: call(w, check=check))(w)
    each = torch.vmap(lambda w: trace_norm(w, check=False))(w)
    assert each[0].isnan() and torch.equal(each[1], reference.trace_norm(w[1]))
    assert trace_norm(torch.empty(2, 4, 3, device="meta"), check=False).shape == (2,)
    for check in (1, "all"):
        for call in (trace_norm, lambda w, check: trace_norm_prox(w, 0.5, check=check),
                     lambda w, check: trace_norm_prox_(w, 0.5, check=check)):  # fmt: skip
            with pytest.raises(TypeError, match="check must be None, True or False, got"):
                call(w, check=check)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(7, 30, 12), (5, 12, 30), (4, 90, 80)], ids=str)
def test_large_matrices_in_batches(shape, dtype, monkeypatch):
    """What a device does with them: several at once, in parts of their rows."""
    monkeypatch.setattr(_spectral, "_limits", lambda w: (3 * shape[1] * shape[2], 500))
    w = torch.cat([randn(*shape, dtype=dtype), spectrum(*shape[1:], [1.0, 1e-3, 0], 1).to(dtype)])
    w[-2] = 0
    t = torch.linspace(0, 3, len(w), dtype=torch.float64)
    grad, z, in_place = torch.empty_like(w), torch.empty_like(w), w.clone()
    value = _spectral.trace_norm_value(w, grad)
    _spectral.trace_norm_prox(w, t, z)
    _spectral.trace_norm_prox(in_place, t, in_place)
    assert torch.equal(in_place, z)
    u, storage = unit(dtype), torch.finfo(dtype).eps / 2 if dtype.itemsize == 2 else 0
    assert ((value - exact_norm(w)).abs() <= 64 * u * exact_norm(w)).all()
    oracle = norm(exact_prox(w, torch.zeros(len(w))) - w.double())
    assert (norm(z.double() - exact_prox(w, t)) <= (64 * u + storage) * norm(w) + oracle).all()
    tolerance = max(1e-11, even_slack(dtype))
    expected = exact_subgradient(w[:-1])
    assert (norm(grad[:-1].double() - expected) <= tolerance * norm(expected)).all()
    w[1, 2, 3], w[3, 0, 0], t[0] = math.nan, math.inf, -1.0
    bad_grad, bad_z = torch.empty_like(w), torch.empty_like(w)
    bad_value = _spectral.trace_norm_value(w, bad_grad)
    _spectral.trace_norm_prox(w, t, bad_z)
    for k in range(len(w)):
        if k in (1, 3):
            assert bad_value[k].isnan() and bad_grad[k].isnan().all()
        else:
            assert torch.allclose(bad_value[k], value[k], rtol=1e-7)
        assert bad_z[k].isnan().all() == (k in (0, 1, 3))


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
    (trace_norm_prox, (W[0, 0], 1), ValueError, r"prox: W must have shape \[..., m, n\]"),
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
