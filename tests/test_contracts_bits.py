"""The same bits on every run, for every thread count and every instruction set."""

import cases
import pytest
import torch
from cases import CASES, DTYPES, bits, value_and_grads

from mtlfast import _native

SIZES = [(5, 3), (3000, 65), (40, 2500)]  # one block, several blocks, several column panels
every_size = pytest.mark.parametrize(
    "case, K, d",
    [
        pytest.param(case, K, d, id=f"{cases.names(case)}-{K}-{d}")
        for case in CASES
        for K, d in (SIZES if case.rows else [(5, 3), (300, 20)])
    ],
)
native = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")


def outcome(case, tensors):
    value, grads = value_and_grads(case, tensors)
    return [bits(value), *(bits(g) for g in grads)]


@every_size
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeats_and_thread_counts(case, dtype, K, d):
    torch.set_num_threads(2)
    tensors = case.tensors(K, d, dtype)
    want = outcome(case, tensors)
    for threads in (1, 2, 2, 3) if case.fixed_bits else (2, 2):
        torch.set_num_threads(threads)
        assert outcome(case, tensors) == want, f"{threads} threads"


@native
@every_size
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_instruction_sets(case, dtype, K, d):
    tensors = case.tensors(K, d, dtype)
    outcomes = {}
    for isa in _native.cpu_isas():
        assert _native.use_isa(isa) == isa
        outcomes[isa] = outcome(case, tensors)
    assert all(o == outcomes["baseline"] for o in outcomes.values())


@native
def test_unknown_instruction_set_is_refused():
    before = _native.use_isa()
    with pytest.raises(ValueError, match="cannot run instruction set z80"):
        _native.use_isa("z80")
    assert _native.use_isa() == before
