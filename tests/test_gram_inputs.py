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
    "dtype": (lambda: torch.eye(3).double(), TypeError, "omega must have W's dtype torch.float32"),
    "integers": (lambda: torch.eye(3).long(), TypeError, "dtype torch.float32, got torch.int64"),
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
    "factor dtype": (lambda: LowRank(torch.ones(3, 1).half()), TypeError, "got torch.float16"),
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


def test_bad_w_and_reduction():
    with pytest.raises(ValueError, match='gram_reg: reduction must be "sum" or "mean", got 3'):
        gram_reg(W3, torch.eye(3), reduction=3)
    with pytest.raises(TypeError, match=r"gram_reg: W must be float64, .* got torch.int64"):
        gram_reg(W3.long(), torch.eye(3))
    with pytest.raises(ValueError, match=r"gram_reg: W must have shape \[K, \*\]"):
        gram_reg(torch.tensor(1.0), torch.eye(1))


def test_public_names():
    assert {"gram_reg", "LowRank"} <= set(mtlfast.__all__)
