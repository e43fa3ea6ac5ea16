"""What is special about the sum of squares: its range, its memory, its forms in place."""

import cases
import pytest
import torch
from cases import DTYPES, bits

import mtlfast
from mtlfast import _native, nn, ridge_add_grad_, ridge_prox, ridge_prox_, ridge_reg
from mtlfast._dtypes import real_dtype

native = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ROUNDING = {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 1e-2, torch.float16: 2e-3}
LARGE = 1 << 19  # elements: above the size at which value and gradient are taken together


def strided(tensor):
    """The same values with gaps between them."""
    padded = tensor.new_full((*tensor.shape, 2), torch.nan)
    padded[..., 0] = tensor
    return padded[..., 0]


# (dtype, entries of W, strength, value), all within the range of the dtype
RANGE = [
    (torch.float32, 1e20, 1e-10, 1e30),
    (torch.float32, 1e-25, 1e20, 1e-30),
    (torch.float32, 3e38, 1e-40, 9e36),
    (torch.float64, 1e200, 1e-150, 1e250),
    (torch.float64, 1e-200, 1e250, 1e-150),
    (torch.float64, 1.5e308, 1e-320, 2.25e296),
    (torch.bfloat16, 1e20, 1e-10, 1e30),
    (torch.float16, 6e4, 1e25, 3.6e34),
]


@pytest.mark.parametrize(("dtype", "entry", "strength", "wanted"), RANGE)
def test_a_value_is_finite_wherever_it_can_be(dtype, entry, strength, wanted):
    W = torch.full((2, 3), entry, dtype=torch.float64).to(dtype)
    exact = 6 * strength * W.double()[0, 0] * W.double()[0, 0]
    for value in (
        ridge_reg(W, strength=strength),
        ridge_reg(W.clone().requires_grad_(), strength=strength).detach(),
        ridge_add_grad_(torch.zeros_like(W), W, alpha=0.0, strength=strength),
        nn.Ridge(strength)(W),
    ):
        assert value.isfinite()
        assert 5 * wanted < float(value) < 7 * wanted
        if exact.isfinite() and exact > 1e-300:
            assert abs(float(value) / float(exact) - 1) < 2e-7


def test_a_value_beyond_the_range_is_infinite():
    assert ridge_reg(torch.full((2, 2), 1e20)).isinf()
    assert ridge_reg(torch.full((2, 2), 1e160, dtype=torch.float64)).isinf()
    assert ridge_reg(torch.full((2, 2), 1e-30)) == 0
    assert ridge_reg(torch.full((2, 2), -torch.inf)).isinf()
    assert ridge_reg(torch.full((2, 2), torch.nan)).isnan()


@pytest.mark.parametrize("upstream", [1.0, -2.0])
def test_the_gradient_of_a_large_w_has_the_bits_of_a_small_one(upstream):
    W = torch.randn(LARGE // 16, 16)
    large, small = (w.clone().requires_grad_() for w in (W, W[:100]))
    for leaf in (large, small):
        (upstream * ridge_reg(leaf, strength=0.3)).backward()
    assert torch.equal(large.grad[:100], small.grad)
    torch.testing.assert_close(large.grad, upstream * 0.6 * W)


def test_a_second_backward_is_the_first():
    W = torch.randn(7, 3, requires_grad=True)
    value = ridge_reg(W, strength=0.3)
    first = torch.autograd.grad(value, W, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, W, retain_graph=True)[0], first)
    assert torch.equal(torch.autograd.grad(2 * value, W)[0], 2 * first)


def test_batched_gradients():
    W = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    value = ridge_reg(W, strength=0.5)
    grads = torch.autograd.grad(value, W, upstream, is_grads_batched=True)[0]
    torch.testing.assert_close(grads, upstream[:, None, None] * W.detach())
    Z, V = ridge_prox(W, 0.5), torch.randn(4, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(Z, W, V, is_grads_batched=True)[0], V / 2)


@every_dtype
@pytest.mark.parametrize("shape", [(5, 3), (7,), (6, 2, 5), (3000, 65), (0, 4), (4, 0)], ids=str)
@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_adding_the_gradient_is_what_backward_does(dtype, shape, layout):
    W, before = (torch.randn(shape).to(dtype) for _ in range(2))
    want = before.double() + 0.3 * 2 * 0.7 * W.double()
    grad = layout(before)
    version = grad._version
    value = ridge_add_grad_(grad, W.requires_grad_(), alpha=0.3, strength=0.7)
    assert not value.requires_grad
    assert grad._version > version or not grad.numel()
    exact = 0.7 * W.detach().double().square().sum()
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)
    scale = float(want.abs().max()) if want.numel() else 1
    torch.testing.assert_close(grad.double(), want, rtol=0, atol=2 * ROUNDING[dtype] * scale)


@every_dtype
@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_the_prox_in_place_has_the_bits_of_the_prox(dtype, layout):
    W = layout(torch.randn(300, 65).to(dtype))
    want, version = ridge_prox(W, 0.3), W._version
    assert ridge_prox_(W, 0.3) is W
    assert bits(W) == bits(want)
    assert W._version > version
    rows = [row.clone() for row in want]
    ridge_prox_(rows, 0.3)
    assert bits(torch.stack(rows)) == bits(ridge_prox(want, 0.3))


@native
@every_dtype
def test_bits_in_place_depend_on_no_thread_count_and_no_instruction_set(dtype):
    W, before = torch.randn(3000, 65).to(dtype), torch.randn(3000, 65).to(dtype)
    seen = set()
    for threads in (1, 2, 3):
        for isa in _native.cpu_isas():
            torch.set_num_threads(threads)
            _native.use_isa(isa)
            grad, moved = before.clone(), W.clone()
            value = ridge_add_grad_(grad, W, alpha=0.1, strength=0.7)
            ridge_prox_(moved, 0.1)
            seen.add(str([bits(value), bits(grad), bits(moved)]))
    assert len(seen) == 1


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_results_larger_than_the_caches_have_the_same_bits(dtype):
    """They are written past the caches."""
    w = torch.randn(((1 << 26) // dtype.itemsize // 65) + 3, 65).to(dtype)
    half, one = len(w) // 2, torch.ones((), dtype=real_dtype(dtype))
    whole = _native.ridge.ridge_scale(w, one, 0.7)
    parts = [_native.ridge.ridge_scale(part, one, 0.7) for part in (w[:half], w[half:])]
    assert torch.equal(whole, torch.cat(parts))
    value, grad = _native.ridge.ridge_value_grad(w, 0.35)
    assert torch.equal(grad, whole)
    assert torch.equal(value, _native.ridge.ridge_value(w, 0.35))


def refused(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_bad_inputs_in_place_leave_everything_as_it_was():
    W, grad = torch.randn(5, 3), torch.ones(5, 3)
    refused(ValueError, "ridge_add_grad_: grad must have W's shape", lambda: add(grad[:4], W))
    refused(ValueError, "ridge_add_grad_: alpha must be finite", lambda: add(grad, W, alpha=1e999))
    refused(ValueError, "ridge_add_grad_: strength must be", lambda: add(grad, W, strength=-1))
    refused(ValueError, "ridge_add_grad_: grad must not share memory", lambda: add(W, W))
    refused(ValueError, "ridge_prox_: step must be", lambda: ridge_prox_(W, -1.0))
    refused(
        ValueError, "ridge_prox_: W must have memory", lambda: ridge_prox_(W[:1].expand(3, 3), 1)
    )
    assert grad.eq(1).all()


def add(grad, W, **settings):
    return ridge_add_grad_(grad, W, **settings)


def test_the_module_is_the_function():
    W = torch.randn(5, 3)
    module = nn.Ridge(0.3)
    assert torch.equal(module(W), ridge_reg(W, strength=0.3))
    assert torch.equal(module.prox(W, 0.5), ridge_prox(W, 0.15))
    a, b = torch.ones(5, 3), torch.ones(5, 3)
    module.add_grad_(a, W, alpha=2.0)
    ridge_add_grad_(b, W, alpha=2.0, strength=0.3)
    assert torch.equal(a, b)


@native
def test_no_temporary_of_the_size_of_w():
    """Value, gradient and the forms in place of 64 MB take the gradient and nothing else."""
    resource = pytest.importorskip("resource")
    W = torch.randn(1_000_000, 16)
    grad = torch.ones_like(W)
    leaf = W.requires_grad_()
    mtlfast.release_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ridge_add_grad_(grad, W.detach(), alpha=0.1)
    ridge_prox_(W.detach(), 0.1)
    ridge_reg(leaf).backward()
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert taken <= 1.1 * leaf.grad.nbytes / 1024


def test_every_case_of_this_family_is_in_the_contracts():
    names = {case.name for case in cases.CASES}
    assert {"ridge_reg", "ridge_prox", "nn.Sum", "nn.Sum without edges"} <= names
