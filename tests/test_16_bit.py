"""Conversions of 16-bit numbers: every one of them, on every instruction set and in every mode."""

import pytest
import torch

from mtlfast import _native
from mtlfast._native import ridge

pytestmark = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
DTYPES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=_native.cpu_isas() if _native._C is not None else [])
def isa(request):
    before = _native.use_isa()
    yield _native.use_isa(request.param)
    _native.use_isa(before)


@pytest.fixture(params=[False, True], ids=["", "flush"])
def flush(request):
    if not torch.set_flush_denormal(request.param):
        pytest.skip("this machine flushes no denormals")
    yield request.param
    torch.set_flush_denormal(False)


def every_number(dtype):
    return torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)[None]


def bits(x):
    return x.view(torch.int16).int() & 0xFFFF


def scaled(w, factor):
    """factor·w by a kernel that reads, multiplies and writes."""
    return ridge.ridge_scale(w, torch.ones(()), factor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_number_comes_back(isa, dtype):
    """NaNs are quiet afterwards, those of float16 without a payload."""
    w = every_number(dtype)
    want, nan = bits(w), w.isnan()
    quiet = want & 0x8000 | 0x7E00 if dtype == torch.float16 else want | 0x40
    assert torch.equal(bits(scaled(w, 1.0)), torch.where(nan, quiet, want))


@pytest.mark.parametrize("factor", [1 / 3, 3.0, 1.0009765625, 2.0**-13, 1e-6, 5e3, -1e9])
def test_float16_rounds_to_nearest_even(isa, flush, factor):
    w = every_number(torch.float16)
    got = scaled(w, factor)
    torch.set_flush_denormal(False)
    want = (w.float() * torch.tensor(factor, dtype=torch.float32)).half()
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(bits(got)[~want.isnan()], bits(want)[~want.isnan()])


@pytest.mark.parametrize("factor", [1 / 3, 3.0, 1.00390625, 2.0**-13, 1e9])
def test_bfloat16_rounds_to_nearest_even(isa, factor):
    w = every_number(torch.bfloat16)
    got, want = scaled(w, factor), (w.float() * torch.tensor(factor)).bfloat16()
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(bits(got)[~want.isnan()], bits(want)[~want.isnan()])
