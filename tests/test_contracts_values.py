"""Values and gradients hold their gates: all dtypes, odd sizes, nearly equal tasks."""

import cases
import pytest
import torch
from cases import CASES, DTYPES, assert_right

SIZES = [
    *((0, 0), (0, 3), (1, 0), (1, 1), (1, 33), (2, 0), (2, 1), (2, 2), (2, 1000), (3, 3)),
    *((3, 31), (3, 257), (31, 1), (31, 33), (33, 2), (33, 31), (33, 1000), (257, 3)),
    *((257, 33), (257, 257), (1000, 1), (1000, 31)),
]
every_case = pytest.mark.parametrize("case", CASES, ids=cases.names)


def value_only(case, tensors):
    """For a gradient that jumps where singular values meet the numerical rank."""
    return case.function(*tensors), [None] * len(tensors)


@pytest.mark.parametrize(
    "case, K, d",
    [
        pytest.param(case, K, d, id=f"{cases.names(case)}-{K}-{d}")
        for case in CASES
        for K, d in SIZES
        if K * d <= case.largest
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_value_and_gradient(case, K, d, dtype, device):
    assert_right(case, case.tensors(K, d, dtype, device=device))


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("exponent", range(8))
def test_nearly_equal_tasks(case, exponent, dtype, device):
    """Spread 1 … 1e-7 of the mean: an expanded square is wrong by 500 % at 1e-4."""
    for seed in range(3):
        tensors = case.tensors(200, 40, dtype, seed=seed, spread=10.0**-exponent, device=device)
        assert_right(case, tensors, None if case.smooth else value_only(case, tensors))


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("tightness", [1e-2, 1e-4, 1e-6])
def test_tight_clusters(case, tightness, dtype, device):
    """Five far clusters of nearly equal tasks; the graph cases link within clusters only."""
    W, *extras = case.tensors(100, 20, torch.float64, spread=tightness, device=device)
    centre = torch.randn(5, 20, dtype=torch.float64)[torch.arange(100) % 5]
    W = (W - 1 + centre.to(device)).to(dtype)
    tensors = (W, *(extra.to(dtype) for extra in extras))
    assert_right(case, tensors, None if case.smooth else value_only(case, tensors))


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_value_and_gradient_types(case, dtype, device):
    tensors = case.tensors(5, 3, dtype, device=device)
    value, grads = cases.value_and_grads(case, tensors)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    assert value.dtype == (dtype if case.prox else real)
    assert [g.dtype for g in grads] == [t.dtype for t in tensors]
    assert [g.shape for g in grads] == [t.shape for t in tensors]


@pytest.mark.parametrize("case", [c for c in CASES if c.shift_free], ids=cases.names)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_rows_give_exactly_zero(case, dtype, device):
    W, *extras = case.tensors(300, 70, dtype, device=device)
    value, grads = cases.value_and_grads(case, (W[:1].repeat(300, 1), *extras))
    assert value == 0
    assert not grads[0].any()


@pytest.mark.parametrize("case", [c for c in CASES if c.rows], ids=cases.names)
@pytest.mark.parametrize("shape", [(7,), (7, 2, 3), (7, 0, 3), (7, 1, 1, 5)])
def test_further_dimensions_are_flattened(case, shape, device):
    W, *extras = case.tensors(7, 1, device=device)
    W = torch.randn(shape, dtype=torch.float64).to(device)
    rows = W.reshape(7, -1) if W.numel() else W.new_zeros(7, 0)
    value, grads = cases.value_and_grads(case, (W, *extras))
    assert_right(case, (rows, *extras), (value.reshape(rows.shape) if case.prox else value, [
        grads[0].reshape(rows.shape), *grads[1:],
    ]))  # fmt: skip
