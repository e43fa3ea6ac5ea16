"""The dense Gram distance of many tasks: expanded where nothing cancels, by residuals elsewhere."""

import pytest
import torch

from mtlfast import _native, gram_reg

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SIZES = [(512, 1), (700, 80), (1100, 17), (1500, 64), (1153, 130)]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(w, omega):
    """Value and gradient of the plain formula, in float64 on the given numbers."""
    w, omega = w.double(), omega.double()
    residual = w @ w.T - omega
    return residual.square().sum(), 2 * (residual + residual.T) @ w


def run(w, omega):
    w = w.clone().requires_grad_()
    value = gram_reg(w, omega)
    value.backward()
    return value.detach(), w.grad


def close(actual, expected, tolerance):
    error = (actual.double() - expected).norm() / expected.norm()
    assert error <= tolerance, float(error)


def check(w, omega):
    u = torch.finfo(w.dtype).eps / 2
    value, grad = run(w, omega)
    expected = oracle(w, omega)
    close(value, expected[0], 32 * min(u, 2.0**-24))
    close(grad, expected[1], 16 * u)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_far_from_the_optimum(size, dtype, scale):
    check((scale * randn(*size)).to(dtype), randn(size[0], size[0], seed=1).to(dtype))


@pytest.mark.parametrize("noise", [0, 1e-6, 1e-3, 0.1, 1])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_near_the_optimum(dtype, noise):
    w = (4 * randn(1100, 17)).round() / 4  # products and sums are exact: the oracle is right
    omega = w @ w.T + noise * randn(1100, 1100, seed=1)
    omega[0, 1] += 1e-3
    check(w.to(dtype), omega.to(dtype))


def test_tasks_that_fit_among_tasks_that_do_not():
    w = randn(1500, 20).float()
    omega = w.double() @ w.double().T
    omega[600:, 600:] += 3 * randn(900, 900, seed=1)
    omega = omega.float()
    _, grad = run(w, omega)
    expected = oracle(w, omega)[1]
    close(grad, expected, 16 * 2.0**-24)
    close(grad[:600], expected[:600], 16 * 2.0**-24)


@pytest.mark.parametrize("size", [1e-30, 1e20, 2e38])
def test_the_range_of_the_dtype(size):
    w = 1e-10 * randn(1100, 3).float()
    omega = (size * randn(1100, 1100, seed=1).clamp(-1.5, 1.5)).float()
    close(run(w, omega)[1], oracle(w, omega)[1], 16 * 2.0**-24)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_inf(bad):
    w, omega = randn(1100, 3).float(), randn(1100, 1100, seed=1).float()
    omega[5, 1090] = bad
    value, grad = run(w, omega)
    assert not value.isfinite()
    assert not grad[[5, 1090]].isfinite().any()
    assert grad[[*range(5), *range(6, 1090), *range(1091, 1100)]].isfinite().all()


@pytest.mark.skipif(_native._C is None, reason=f"no native module: {_native.missing}")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_on_any_threads_and_instructions(dtype):
    w, omega = randn(1300, 33).to(dtype), randn(1300, 1300, seed=1).to(dtype)
    expected, threads = run(w, omega), torch.get_num_threads()
    before = _native.use_isa()
    try:
        for isa in _native.cpu_isas():
            _native.use_isa(isa)
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                value, grad = run(w, omega)
                assert torch.equal(value, expected[0])
                assert torch.equal(grad, expected[1])
    finally:
        _native.use_isa(before)
        torch.set_num_threads(threads)
