"""The form of the input changes nothing: views, lists, grad-needed combinations, autocast."""

import itertools

import cases
import devices
import pytest
import torch
from cases import CASES, DTYPES, bits, value_and_grads
from torch.utils.checkpoint import checkpoint

every_case = pytest.mark.parametrize("case", CASES, ids=cases.names)


def strided(t):
    big = t.new_full([2 * n for n in t.shape], torch.nan)
    view = big[tuple(slice(None, None, 2) for _ in t.shape)]
    return view.copy_(t)


def transposed(t):
    return t.t().contiguous().t() if t.dim() == 2 else strided(t)


def offset(t):
    """A start that is not aligned to anything but the element."""
    flat = t.new_full((t.numel() + 1,), torch.nan)
    flat[1:] = t.flatten()
    return flat[1:].view(t.shape)


def padded(t):
    """NaN before, behind and between the rows: reading one element too many shows."""
    big = t.new_full([n + 7 for n in t.shape], torch.nan)
    view = big[tuple(slice(3, 3 + n) for n in t.shape)]
    return view.copy_(t)


def tight(t):
    """Dense, with NaN directly before and behind."""
    flat = t.new_full((t.numel() + 32,), torch.nan)
    flat[16:-16] = t.flatten()
    return flat[16:-16].view(t.shape)


def outcome(case, tensors, needs=None):
    value, grads = value_and_grads(case, tensors, needs)
    return [bits(value), *(bits(g) for g in grads)]


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", [strided, transposed, offset, padded, tight])
@pytest.mark.parametrize("K, d", [(5, 3), (33, 37), (300, 129)])
def test_views_give_the_bits_of_dense_input(case, form, dtype, K, d, device):
    tensors = case.tensors(K, d, dtype, device=device)
    before = [bits(t) for t in tensors]
    views = [form(t) for t in tensors]
    if case.fixed_bits and not devices.takes_reference(case, device):
        assert outcome(case, views) == outcome(case, tensors)
    else:  # torch's own sums and products depend on alignment
        cases.assert_right(case, views)
    assert [bits(v) for v in views] == before  # nothing was written to


@every_case
def test_expanded_rows(case, device):
    W, *extras = case.tensors(40, 9, device=device)
    row = W[0]
    dense = outcome(case, (row.repeat(40, 1), *extras))
    assert outcome(case, (row.expand(40, 9), *extras)) == dense


@every_case
def test_only_the_needed_gradients(case, device):
    """Every combination gives the value and the gradients of the full call, and no other."""
    tensors = case.tensors(9, 4, torch.float32, device=device)
    value, *grads = outcome(case, tensors)
    for needs in itertools.product([False, True], repeat=len(tensors)):
        if not case.one_path:
            got = value_and_grads(case, tensors, needs)
            assert [g is not None for g in got[1]] == list(needs)
            cases.assert_right(case, tensors, got)
            continue
        got_value, *got_grads = outcome(case, tensors, needs)
        assert got_value == value, needs
        assert got_grads == [g if n else None for g, n in zip(grads, needs, strict=True)], needs


@every_case
def test_no_graph_where_none_is_wanted(case, device):
    tensors = [t.requires_grad_() for t in case.tensors(6, 4, device=device)]
    want = bits(case.function(*tensors))
    with torch.no_grad():
        value = case.function(*tensors)
    assert not value.requires_grad
    assert bits(value) == want
    with torch.inference_mode():
        assert bits(case.function(*tensors)) == want
    assert not case.function(*(t.detach() for t in tensors)).requires_grad


@every_case
def test_gradients_accumulate(case, device):
    tensors = [t.requires_grad_() for t in case.tensors(6, 4, device=device)]
    for _ in range(2):
        value = case.function(*tensors)
        value.backward(cases.upstream_like(value))
    _, once = value_and_grads(case, tensors)
    for t, g in zip(tensors, once, strict=True):
        assert torch.equal(t.grad, 2 * g)


@pytest.mark.parametrize("case", [c for c in CASES if c.lists], ids=cases.names)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_is_its_stack(case, kind, dtype, device):
    W, *extras = case.tensors(5, 6, dtype, device=device)
    value, grads = value_and_grads(case, (W, *extras))
    heads = kind(row.reshape(2, 3).clone().requires_grad_() for row in W)
    got = case.function(heads, *extras)
    if case.prox:
        assert type(got) is kind
        assert [z.shape for z in got] == [(2, 3)] * 5
        got = torch.stack([z.flatten() for z in got])
    assert bits(got) == bits(value)
    got.backward(cases.upstream_like(value))
    assert bits(torch.stack([h.grad.flatten() for h in heads])) == bits(grads[0])


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_autocast_changes_nothing(case, dtype, device):
    tensors = case.tensors(20, 7, dtype, device=device)
    want = outcome(case, tensors)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        assert outcome(case, tensors) == want


@every_case
def test_checkpoint(case, device):
    tensors = [t.requires_grad_() for t in case.tensors(9, 4, device=device)]
    value = checkpoint(case.function, *tensors, use_reentrant=False)
    value.backward(cases.upstream_like(value))
    assert [bits(value), *(bits(t.grad) for t in tensors)] == outcome(case, tensors)


@every_case
def test_parameters_are_tensors(case, device):
    tensors = case.tensors(9, 4, device=device)
    parameters = [torch.nn.Parameter(t) for t in tensors]
    learned = [t.clone().requires_grad_() for t in tensors]
    assert bits(case.function(*parameters)) == bits(case.function(*learned))
