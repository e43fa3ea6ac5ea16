"""Bad inputs: the class, the whole message, and that nothing was modified.

One row per bad input: a call, what it is given, the class, the message after "function: ". The
same table runs without the native module in test_contracts_fallback.py.
"""

import re

import pytest
import torch
from cases import bits

import mtlfast
from mtlfast import pairwise_prox, pairwise_reg

W = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
HEAD = torch.ones(2, 3)
FLOATS = "float64, float32, bfloat16 or float16"


def w_rows(form="[K, *]", lists=True):
    """What is refused as W."""
    rows = [
        ("W", TypeError, "W must be a tensor, got str"),
        (None, TypeError, "W must be a tensor, got NoneType"),
        (W.numpy(), TypeError, "W must be a tensor, got ndarray"),
        (W.long(), TypeError, f"W must be {FLOATS}, got torch.int64"),
        (W.bool(), TypeError, f"W must be {FLOATS}, got torch.bool"),
        (W.to(torch.complex64), TypeError, f"W must be {FLOATS}, got torch.complex64"),
        (W.to(torch.float8_e4m3fn), TypeError, f"W must be {FLOATS}, got torch.float8_e4m3fn"),
        (W.to_sparse(), TypeError, "W must be a dense tensor, got torch.sparse_coo"),
        (
            torch.tensor(1.0),
            ValueError,
            f"W must have shape {form}, got a tensor without dimensions",
        ),
    ]
    if not lists:
        return rows
    same = "all tensors of W must have the same"
    return rows + [
        ([], ValueError, "W must hold at least one tensor, got an empty list"),
        ([W, 3], TypeError, "W[1] must be a tensor, got int"),
        ([W, W.int()], TypeError, f"W[1] must be {FLOATS}, got torch.int32"),
        (
            [HEAD, HEAD, HEAD.t()],
            ValueError,
            f"{same} shape, got [2, 3] at position 0 and [3, 2] at position 2",
        ),
        (
            (HEAD, HEAD.double()),
            TypeError,
            f"{same} dtype, got torch.float32 at position 0 and torch.float64 at position 1",
        ),
        (
            [HEAD, HEAD.to("meta")],
            ValueError,
            f"{same} device, got cpu at position 0 and meta at position 1",
        ),
    ]


def reduction_rows():
    rule = 'reduction must be "sum" or "mean", got'
    return [(bad, ValueError, f"{rule} {bad!r}") for bad in ("none", None, 1)]


def number_rows(argument):
    rule = f"{argument} must be"
    tensor = f"{rule} a number, got a tensor of shape"
    return [
        (-0.5, ValueError, f"{rule} finite and >= 0, got -0.5"),
        (float("nan"), ValueError, f"{rule} finite and >= 0, got nan"),
        (float("inf"), ValueError, f"{rule} finite and >= 0, got inf"),
        ("1", TypeError, f"{rule} a number, got str"),
        (True, TypeError, f"{rule} a number, got bool"),
        (1j, TypeError, f"{rule} a number, got complex"),
        (torch.ones(2), TypeError, f"{tensor} [2], dtype torch.float32, requires_grad=False"),
        (torch.tensor(1), TypeError, f"{tensor} [], dtype torch.int64, requires_grad=False"),
    ]


# function → [(call, what it refuses), …]
TABLE = {
    "pairwise_reg": [
        (pairwise_reg, w_rows()),
        (lambda bad: pairwise_reg(W, reduction=bad), reduction_rows()),
    ],
    "pairwise_prox": [
        (lambda bad: pairwise_prox(bad, 0.1), w_rows()),
        (lambda bad: pairwise_prox(W, bad), number_rows("step")),
    ],
}

ROWS = [
    pytest.param(call, bad, kind, f"{name}: {rule}", id=re.sub(r"\W+", "-", f"{name} {rule}")[:70])
    for name, groups in TABLE.items()
    for call, rows in groups
    for bad, kind, rule in rows
]


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value] if value.layout == torch.strided and value.device.type == "cpu" else []
    return [t for v in value for t in tensors_in(v)] if isinstance(value, (list, tuple)) else []


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


def test_errors_under_autograd_leave_no_gradient():
    leaf = W.clone().requires_grad_()
    with pytest.raises(ValueError):
        pairwise_reg(leaf, reduction="average").backward()
    assert leaf.grad is None
