"""LowRank as a value, and what gram_reg says of bad input."""

import copy
import pickle

import pytest
import torch

import mtlfast
from mtlfast import LowRank, gram_reg

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_lowrank_is_an_immutable_value():
    omega = LowRank(randn(7, 2))
    assert repr(omega) == "LowRank(num_tasks=7, rank=2, dtype=torch.float64)"
    with pytest.raises(AttributeError):
        omega.factor = randn(7, 2)
    for copied in (copy.deepcopy(omega), pickle.loads(pickle.dumps(omega))):
        assert torch.equal(copied.factor, omega.factor)


def coo(index, size=(3, 3)):
    index = torch.tensor(index)
    return torch.sparse_coo_tensor(index, torch.ones(index.shape[1]), size, check_invariants=False)


def csr(start, col):
    values = torch.ones(len(col))
    start, col = torch.tensor(start), torch.tensor(col)
    return torch.sparse_csr_tensor(start, col, values, (3, 3), check_invariants=False)


W3 = torch.ones(3, 2)
BAD = {
    "type": (lambda: [[1.0]], TypeError, "dense tensor, a sparse COO or CSR .* LowRank, got list"),
    "layout": (lambda: torch.eye(3).to_sparse_csc(), TypeError, "got torch.sparse_csc"),
    "complex": (lambda: torch.eye(3) * 1j, TypeError, "omega must hold real .* torch.complex64"),
    "float8": (
        lambda: torch.eye(3).to(torch.float8_e5m2),
        TypeError,
        "omega must hold real numbers, got torch.float8_e5m2",
    ),
    "device": (lambda: torch.eye(3, device="meta"), ValueError, "W's device cpu, got meta"),
    "shape": (lambda: torch.ones(3, 4), ValueError, r"\[K=3, K=3\], got \[3, 4\]"),
    "dims": (lambda: torch.ones(3, 3, 1), ValueError, r"\[K=3, K=3\], got \[3, 3, 1\]"),
    "coo row": (lambda: coo([[0, 3], [1, 1]]), ValueError, r"row indices .* got 3 at position 1"),
    "coo column": (lambda: coo([[0], [-1]]), ValueError, r"column indices .*K=3\), got -1 at"),
    "hybrid": (lambda: torch.eye(3).to_sparse(1), ValueError, "both dimensions, got sparse_dim=1"),
    "csr column": (lambda: csr([0, 1, 1, 2], [0, 99]), ValueError, "got 99 at position 1"),
    "csr negative": (lambda: csr([0, 1, 1, 2], [0, -7]), ValueError, "got -7 at position 1"),
    "csr falling": (lambda: csr([0, 2, 1, 2], [0, 1]), ValueError, "smallest step -1"),
    "csr start": (lambda: csr([1, 1, 1, 2], [0, 1]), ValueError, "got first 1, last 2"),
    "csr end": (lambda: csr([0, 1, 1, 9], [0, 1]), ValueError, "entries 2, got first 0, last 9"),
    "csr length": (lambda: csr([0, 1, 2], [0, 1]), ValueError, r"4 row pointers .* got shapes \[3"),
    "csr unsorted": (lambda: csr([0, 2, 2, 2], [1, 0]), ValueError, "rise within each row"),
    "csr repeated": (lambda: csr([0, 0, 2, 2], [1, 1]), ValueError, "a repeated column"),
    "factor": (lambda: LowRank(torch.ones(4, 1)), ValueError, r"\[K=3, r\], got \[4, 1\]"),
    "factor dtype": (lambda: LowRank(torch.ones(3, 1).int()), TypeError, "got torch.int32"),
    "factor dims": (lambda: LowRank(torch.ones(3)), ValueError, r"LowRank: .*\[K, r\], got \[3\]"),
    "factor type": (
        lambda: LowRank([1.0]),
        TypeError,
        "LowRank: factor must be a tensor, got list",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_omega(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        gram_reg(W3, make())


LAYOUTS = {
    "dense": lambda A: A,
    "coo": lambda A: A.to_sparse(),
    "csr": lambda A: A.to_sparse_csr(),
}
NUMBERS = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_omega_of_another_dtype(dtype, numbers, layout):
    """Compared in W's arithmetic type; gradients keep their own."""
    real = torch.float64 if dtype == torch.float64 else torch.float32
    W = randn(5, 3).to(dtype).requires_grad_()
    omega = LAYOUTS[layout]((randn(5, 5) > -0.3).to(numbers)).detach()
    wanted = omega.to(real)
    if numbers.is_floating_point:
        omega.requires_grad_(), wanted.requires_grad_()
    value = gram_reg(W, omega)
    value.backward()
    other = W.detach().to(real).requires_grad_()
    right = gram_reg(other, wanted)
    right.backward()
    assert value.dtype == real and value == right
    assert W.grad.dtype == dtype and torch.equal(W.grad, other.grad.to(dtype))
    if numbers.is_floating_point:
        assert omega.grad.dtype == numbers and omega.grad.layout == omega.layout
        torch.testing.assert_close(
            omega.grad.to_dense(), wanted.grad.to_dense().to(numbers), rtol=1e-2, atol=0
        )


@pytest.mark.parametrize("numbers", [torch.bool, torch.int8])
def test_repeated_entries_of_integers_add_up(numbers):
    index = torch.tensor([[0] * 130, [1] * 130])
    omega = torch.sparse_coo_tensor(index, torch.ones(130, dtype=numbers), (3, 3))
    right = torch.zeros(3, 3)
    right[0, 1] = 130
    assert gram_reg(W3, omega) == gram_reg(W3, right)


def test_a_factor_of_another_dtype():
    W, factor = randn(4, 2).float().requires_grad_(), randn(4, 1).requires_grad_()
    value = gram_reg(W, LowRank(factor))
    value.backward()
    assert value == gram_reg(W, LowRank(factor.float()))
    assert W.grad.dtype == torch.float32 and factor.grad.dtype == torch.float64


def test_bad_w_and_reduction():
    with pytest.raises(ValueError, match='gram_reg: reduction must be "sum" or "mean", got 3'):
        gram_reg(W3, torch.eye(3), reduction=3)
    with pytest.raises(TypeError, match=r"gram_reg: W must be float64, .* got torch.int64"):
        gram_reg(W3.long(), torch.eye(3))
    with pytest.raises(ValueError, match=r"gram_reg: W must have shape \[K, \*\]"):
        gram_reg(torch.tensor(1.0), torch.eye(1))


def test_public_names():
    assert {"gram_reg", "LowRank"} <= set(mtlfast.__all__)
