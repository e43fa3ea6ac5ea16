"""TaskLinear against K nn.Linear modules, in values and gradients."""

import numpy as np
import pandas as pd
import pytest
import torch

from mtlfast import pairwise_reg
from mtlfast.nn import TaskLinear, TraceNorm


def heads_and_layer(num_tasks=5, out_features=2, bias=True):
    torch.manual_seed(0)
    heads = torch.nn.ModuleList(
        torch.nn.Linear(3, out_features, bias=bias).double() for _ in range(num_tasks)
    )
    return heads, TaskLinear.from_modules(heads)


def assert_same_as_heads(heads, layer, x, task, ids):
    """Outputs and all gradients of ``layer(x, task)`` against one nn.Linear a row."""
    x = x.clone().requires_grad_()
    mine = layer(x, task)
    upstream = torch.arange(mine.numel(), dtype=torch.float64).view_as(mine).cos()
    mine.backward(upstream)
    mine_x, x.grad = x.grad, None
    rows = [heads[k](row) for k, row in zip(ids, x, strict=True)]
    expected = torch.stack(rows) if rows else x.new_zeros(mine.shape)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-13)
    if rows:
        expected.backward(upstream)
        torch.testing.assert_close(mine_x, x.grad, rtol=0, atol=1e-12)
    for name, parameter in layer.named_parameters():
        grads = [getattr(head, name).grad for head in heads]
        grads = [
            torch.zeros_like(g_of) if g is None else g
            for g, g_of in zip(grads, parameter, strict=True)
        ]
        torch.testing.assert_close(parameter.grad, torch.stack(grads), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("task", [3, torch.tensor(3), torch.tensor(3, dtype=torch.int32)])
def test_task_linear_with_one_task_is_that_linear(task, bias):
    heads, layer = heads_and_layer(bias=bias)
    x = torch.randn(6, 3, dtype=torch.float64)
    assert_same_as_heads(heads, layer, x, task, [3] * 6)
    assert layer(x.view(2, 3, 3), task).shape == (2, 3, 2)
    assert layer(x[0], task).shape == (2,)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("out_features", [1, 4])
@pytest.mark.parametrize("batch", [0, 1, 8, 60, "one of five", "two of five"])
def test_task_linear_with_an_id_a_row_is_that_many_linears(batch, out_features, bias):
    heads, layer = heads_and_layer(out_features=out_features, bias=bias)
    if batch == "one of five":  # all rows in one task: padding would be 5 times the batch
        task = torch.full((50,), 2)
    elif batch == "two of five":
        task = torch.tensor([4, 1]).repeat(25)
    else:
        task = torch.randint(5, (batch,), generator=torch.Generator().manual_seed(batch))
    x = torch.randn(len(task), 3, dtype=torch.float64)
    assert_same_as_heads(heads, layer, x, task, task.tolist())


def test_rows_are_grouped_only_where_the_padding_stays_small():
    layer = TaskLinear(5, 3, 2)
    x, spread, crowded = torch.ones(50, 3), torch.arange(50) % 5, torch.full((50,), 2)
    torch.testing.assert_close(layer._grouped(x, spread), layer._gathered(x, spread))
    assert layer._grouped(x, crowded) is None


def test_task_linear_starts_like_k_linears_and_as_one_parameter_each():
    layer = TaskLinear(50, 16, 8)
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "weight": (50, 8, 16),
        "bias": (50, 8),
    }
    for parameter in layer.parameters():
        assert 0.2 < parameter.abs().max() <= 0.25  # 1/√16
        assert parameter.abs().flatten(1).amax(1).min() > 0.1  # in every task
    assert TaskLinear(2, 3, 4, dtype=torch.bfloat16, device="meta").weight.device.type == "meta"


def test_repr_names_the_sizes():
    assert repr(TaskLinear(3, 4, 2, bias=False)) == (
        "TaskLinear(num_tasks=3, in_features=4, out_features=2, bias=False)"
    )


def test_task_linear_from_and_to_modules():
    heads, layer = heads_and_layer()
    random_state = torch.get_rng_state()
    back = TaskLinear.from_modules(heads).to_modules()
    assert torch.equal(random_state, torch.get_rng_state())
    for head, copied in zip(heads, back, strict=True):
        assert torch.equal(head.weight, copied.weight) and torch.equal(head.bias, copied.bias)
        assert head.weight is not copied.weight and copied.weight.requires_grad
    with torch.no_grad():
        layer.weight.zero_()
    assert heads[0].weight.abs().sum() > 0


def test_rows_give_weight_and_bias_to_a_regularizer():
    heads, layer = heads_and_layer()
    stacked = [torch.cat([h.weight.flatten(), h.bias]) for h in heads]
    assert torch.equal(layer.rows, torch.stack(stacked))
    TraceNorm()(layer.rows).backward()
    assert layer.bias.grad.abs().sum() > 0
    whole = pairwise_reg(layer.rows)
    parts = pairwise_reg(layer.weight) + pairwise_reg(layer.bias)
    torch.testing.assert_close(whole, parts)


def test_task_linear_under_compile_vmap_and_autocast():
    heads, layer = heads_and_layer()
    x, task = torch.randn(40, 3, dtype=torch.float64), torch.arange(40) % 5
    expected = torch.stack([heads[k](row) for k, row in zip(task, x, strict=True)])
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, task), expected)
    torch.testing.assert_close(compiled(x, 2), heads[2](x))
    mapped = torch.func.vmap(lambda row, k: layer(row, k))(x, task)
    torch.testing.assert_close(mapped, expected)
    layer.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for ids in (2, task, task[:3]):
            rows = x[: len(ids)] if isinstance(ids, torch.Tensor) else x
            assert layer(rows.float(), ids).dtype == torch.bfloat16


@pytest.mark.parametrize("out_features", [1, 2])
def test_ids_may_be_an_array_or_a_list(out_features):
    layer = TaskLinear(5, 3, out_features)
    ids = [0, 4, 4, 1] * 10
    x = torch.randn(40, 3)
    want = layer(x, torch.tensor(ids))
    forms = [
        ids,
        tuple(ids),
        np.array(ids),
        np.array(ids, dtype=np.uint64),
        np.repeat(np.array(ids, dtype=np.int16), 2)[::2],
        pd.Series(ids),
        torch.tensor(ids, dtype=torch.uint8),
        torch.tensor(ids, dtype=torch.uint32),
    ]
    for form in forms:
        assert torch.equal(layer(x, form), want)
    for one in (2, np.int64(2), np.array(2), np.uint8(2), torch.tensor(2), Index(2)):
        assert torch.equal(layer(x, one), layer(x, 2))


class Index:
    """An integer of a user's own."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize("empty", [[], (), np.array([]), torch.empty(0), torch.empty(0).bool()])
def test_no_ids_of_any_dtype_belong_to_no_rows(empty):
    assert TaskLinear(5, 3, 2)(torch.empty(0, 3), empty).shape == (0, 2)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("out_features", [1, 2])
def test_shapes_flow_on_meta(out_features, bias):
    layer = TaskLinear(5, 3, out_features, bias, device="meta")
    x, ids = torch.empty(40, 3, device="meta"), torch.arange(40) % 5
    for task in (ids, ids.to("meta"), ids.tolist(), ids.numpy()):
        y = layer(x, task)
        assert (y.device.type, tuple(y.shape)) == ("meta", (40, out_features))
        y.sum().backward()
        assert layer.weight.grad.shape == layer.weight.shape
    for task in (2, ids[2], ids[2].to("meta")):
        assert layer(x, task).shape == (40, out_features)
    with pytest.raises(ValueError, match=r"in \[0, K=5\), got 7 at position 1"):
        layer(x[:2], [0, 7])


def test_a_default_device_changes_nothing():
    layer, x, ids = TaskLinear(5, 3, 2), torch.randn(40, 3), [0, 1, 2, 3, 4] * 8
    want = layer(x, ids)
    with torch.device("meta"):
        for task in (ids, np.array(ids), torch.tensor(ids, device="cpu")):
            assert torch.equal(layer(x, task), want)


X = torch.ones(3, 4)
LAYER = TaskLinear(5, 4, 2)
BAD = {
    "size": (
        lambda: TaskLinear(0, 3, 2),
        ValueError,
        r"TaskLinear: num_tasks must be >= 1, got 0",
    ),
    "size type": (
        lambda: TaskLinear(3, 2.5, 2),
        TypeError,
        r"TaskLinear: in_features must be an int, got float",
    ),
    "x": (
        lambda: LAYER(torch.ones(3, 5), 0),
        ValueError,
        r"TaskLinear: x must have shape \[\*, 4\], got \[3, 5\]",
    ),
    "id": (lambda: LAYER(X, 5), ValueError, r"TaskLinear: task must be in \[0, K=5\), got 5"),
    "negative id": (lambda: LAYER(X, -1), ValueError, r"in \[0, K=5\), got -1"),
    "id in a tensor": (lambda: LAYER(X, torch.tensor(7)), ValueError, r"\[0, K=5\), got 7"),
    "id of a row": (
        lambda: LAYER(X, torch.tensor([0, 1, 7])),
        ValueError,
        r"TaskLinear: task must be in \[0, K=5\), got 7 at position 2",
    ),
    "negative id of a row": (
        lambda: LAYER(X, torch.tensor([0, -2, 1])),
        ValueError,
        r"TaskLinear: task must be in \[0, K=5\), got -2 at position 1",
    ),
    "number of ids": (
        lambda: LAYER(X, torch.tensor([0, 1])),
        ValueError,
        r"one id for each row of x \[B, in\], got shape \[2\] for x of shape \[3, 4\]",
    ),
    "shape of ids": (
        lambda: LAYER(X, torch.tensor([[0, 1, 2]])),
        ValueError,
        r"got shape \[1, 3\] for x of shape \[3, 4\]",
    ),
    "float ids": (
        lambda: LAYER(X, torch.ones(3)),
        TypeError,
        r"TaskLinear: task must be an int or an integer tensor, got dtype torch.float32",
    ),
    "bool id": (lambda: LAYER(X, True), TypeError, r"an integer tensor, got bool"),
    "floats in an array": (
        lambda: LAYER(X, np.ones(3)),
        TypeError,
        r"TaskLinear: task must be an int or an integer tensor, got dtype torch.float64",
    ),
    "a float in an array": (
        lambda: LAYER(X, np.array(2.0)),
        TypeError,
        r"TaskLinear: task must be an int or an integer tensor, got dtype torch.float64",
    ),
    "bools in a list": (
        lambda: LAYER(X, [True, False, True]),
        TypeError,
        r"an integer tensor, got dtype torch.bool",
    ),
    "words": (
        lambda: LAYER(X, ["a", "b", "c"]),
        TypeError,
        r"TaskLinear: task must hold numbers, got dtype <U1",
    ),
    "ragged": (lambda: LAYER(X, [[0], [1, 2]]), ValueError, r"TaskLinear: task must be rectang"),
    "id in an array": (
        lambda: LAYER(X, np.array([0, 1, 9])),
        ValueError,
        r"TaskLinear: task must be in \[0, K=5\), got 9 at position 2",
    ),
    "id in a list": (lambda: LAYER(X, [0, -1, 2]), ValueError, r"got -1 at position 1"),
    "number of ids in a list": (lambda: LAYER(X, [0]), ValueError, r"got shape \[1\] for x of"),
    "float": (lambda: LAYER(X, 2.0), TypeError, r"an integer tensor, got float"),
    "string": (lambda: LAYER(X, "2"), TypeError, r"an integer tensor, got str"),
    "no id": (lambda: LAYER(X, None), TypeError, r"an integer tensor, got NoneType"),
    "ids elsewhere": (
        lambda: LAYER(X, torch.zeros(3, dtype=torch.int64, device="meta")),
        ValueError,
        r"TaskLinear: task must be on x's device cpu or the CPU, got meta",
    ),
    "no modules": (
        lambda: TaskLinear.from_modules([]),
        ValueError,
        r"modules must hold at least one nn.Linear",
    ),
    "other modules": (
        lambda: TaskLinear.from_modules([torch.nn.Linear(2, 3), torch.nn.ReLU()]),
        TypeError,
        r"modules must be nn.Linear, got ReLU at position 1",
    ),
    "shapes": (
        lambda: TaskLinear.from_modules([torch.nn.Linear(2, 3), torch.nn.Linear(2, 4)]),
        ValueError,
        r"the same shape, got \[3, 2\] at position 0 and \[4, 2\] at position 1",
    ),
    "biases": (
        lambda: TaskLinear.from_modules([torch.nn.Linear(2, 3), torch.nn.Linear(2, 3, bias=False)]),
        ValueError,
        r"the same bias, got True at position 0 and False at position 1",
    ),
    "dtypes": (
        lambda: TaskLinear.from_modules([torch.nn.Linear(2, 3), torch.nn.Linear(2, 3).double()]),
        TypeError,
        r"the same dtype, got torch.float32 at position 0 and torch.float64 at position 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
