"""Bad inputs: the class, the whole message, and that nothing was modified.

The table is in bad_inputs.py; test_contracts_fallback.py runs it again without the native module.
"""

import re

import pytest
import torch
from bad_inputs import HEAD, TABLE, W
from cases import bits

import mtlfast
from mtlfast import pairwise_reg, trace_norm

ROWS = [
    pytest.param(call, bad, kind, f"{name}: {rule}", id=re.sub(r"\W+", "-", f"{name} {rule}")[:70])
    for name, groups in TABLE.items()
    for call, rows in groups
    for bad, kind, rule in rows
]


def tensors_in(value):
    """The tensors, dense and on the CPU, that hold the numbers of a bad input."""
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v)]
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
        return []
    value = value.detach()
    if value.layout == torch.strided:
        return [value]
    if value.layout == torch.sparse_coo:
        return [value._indices(), value._values()]
    if value.layout == torch.sparse_csr:
        return [value.crow_indices(), value.col_indices(), value.values()]
    return [value.ccol_indices(), value.row_indices(), value.values()]


@pytest.mark.parametrize("call, bad, kind, message", ROWS)
def test_bad_input(call, bad, kind, message):
    before = [bits(t) for t in (W, HEAD, *tensors_in(bad))]
    with pytest.raises((TypeError, ValueError, NotImplementedError)) as caught:
        call(bad)
    assert caught.type is kind
    assert str(caught.value) == message
    assert [bits(t) for t in (W, HEAD, *tensors_in(bad))] == before


def test_every_public_function_is_in_the_table():
    public = {name for name in mtlfast.__all__ if name.endswith(("_reg", "_norm", "_prox"))}
    assert public == set(TABLE)


@pytest.mark.parametrize(
    "fail",
    [lambda leaf: pairwise_reg(leaf, reduction="average"), lambda leaf: trace_norm(leaf / 0)],
)
def test_errors_under_autograd_leave_no_gradient(fail):
    leaf = W.clone().requires_grad_()
    with pytest.raises(ValueError):
        fail(leaf).backward()
    assert leaf.grad is None
