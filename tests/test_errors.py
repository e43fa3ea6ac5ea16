"""Bad inputs: the class, the whole message, and that nothing was modified.

The table is in bad_inputs.py; test_contracts_fallback.py runs it again without the native module.
"""

import re

import pytest
import torch
from bad_inputs import CHAIN, W, rows_for, table
from cases import bits

import mtlfast
from mtlfast import pairwise_reg, trace_norm


def row_id(row):
    return re.sub(r"\W+", "-", row[-1])[:70]


ROWS = list(rows_for(W))


def tensors_in(value):
    """The dense tensors that hold the numbers of a bad input."""
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v)]
    if not isinstance(value, torch.Tensor) or value.device.type == "meta":
        return []
    value = value.detach()
    if value.layout == torch.strided:
        return [value]
    if value.layout == torch.sparse_coo:
        return [value._indices(), value._values()]
    if value.layout == torch.sparse_csr:
        return [value.crow_indices(), value.col_indices(), value.values()]
    return [value.ccol_indices(), value.row_indices(), value.values()]


def check_refused(w, call, bad, kind, message):
    """The class, the words, and that nothing was written to."""
    tensors = [w, *tensors_in(bad)]
    before = [bits(t) for t in tensors]
    with pytest.raises((TypeError, ValueError, NotImplementedError)) as caught:
        call(bad)
    assert caught.type is kind
    assert str(caught.value) == message
    assert [bits(t) for t in tensors] == before


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_bad_input(row):
    check_refused(W, *row)


def test_every_public_function_is_in_the_table():
    endings = ("_reg", "_norm", "_lasso", "_variation", "_prox")
    public = {name for name in mtlfast.__all__ if name.endswith(endings)}
    assert public == set(table(W, CHAIN))


@pytest.mark.parametrize(
    "fail",
    [lambda leaf: pairwise_reg(leaf, reduction="average"), lambda leaf: trace_norm(leaf / 0)],
)
def test_errors_under_autograd_leave_no_gradient(fail):
    leaf = W.clone().requires_grad_()
    with pytest.raises(ValueError):
        fail(leaf).backward()
    assert leaf.grad is None
