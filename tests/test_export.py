"""torch.export: heads of tasks for a batch of any size, and losses that hold a term."""

import cases
import pytest
import torch
from cases import CASES

from mtlfast.nn import TaskLinear

K = 6


class Heads(torch.nn.Module):
    """Heads, and a loss that holds a case's function of their weights."""

    def __init__(self, out_features=2, case=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer = TaskLinear(K, 3, out_features, dtype=torch.float64)
        self.case, self.extras = case, ()
        if case is not None:
            _, *self.extras = case.tensors(K, 3 * out_features)

    def forward(self, x, task):
        y = self.layer(x, task)
        if self.case is None:
            return y
        term = self.case.function(self.layer.weight.flatten(1), *self.extras)
        return y.square().sum() + (term * term.detach().cos()).sum()


def exported(module, batch, strict):
    """The program of ``module`` for batches of any size, traced with one."""
    x, task = torch.randn(batch, 3, dtype=torch.float64), torch.arange(batch) % K
    rows = torch.export.Dim("rows", min=0, max=1 << 20)
    shapes = ({0: rows}, {0: rows})
    return torch.export.export(module, (x, task), dynamic_shapes=shapes, strict=strict).module()


def assert_same_for_any_batch(program, module):
    for rows in (0, 1, 2, 3, 8, 23, 24, 100, 1000):  # 24: from here on eager code groups the rows
        x, task = torch.randn(rows, 3, dtype=torch.float64), torch.randint(0, K, (rows,))
        torch.testing.assert_close(program(x, task), module(x, task))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("batch", [2, 100])
@pytest.mark.parametrize("out_features", [1, 2])
def test_heads_for_a_batch_of_any_size(out_features, batch, strict):
    module = Heads(out_features)
    assert_same_for_any_batch(exported(module, batch, strict), module)


@pytest.mark.parametrize("strict", [False, True])
def test_one_task_for_a_batch_of_any_size(strict):
    layer = TaskLinear(K, 3, 2)
    rows = torch.export.Dim("rows", min=0)
    for task, shape in ((4, None), (torch.tensor(4), None)):
        program = torch.export.export(
            layer, (torch.randn(8, 3), task), dynamic_shapes=({0: rows}, shape), strict=strict
        ).module()
        for count in (0, 1, 2, 100):
            x = torch.randn(count, 3)
            torch.testing.assert_close(program(x, task), layer(x, 4))


@pytest.mark.parametrize("case", CASES, ids=cases.names)
def test_a_loss_that_holds_a_term(case):
    cases.prepare_graphs(K)
    module = Heads(case=case)
    assert_same_for_any_batch(exported(module, 8, strict=False), module)


@pytest.mark.parametrize("out_features", [1, 2])
def test_one_compiled_program_for_batches_of_any_size(out_features, fresh_compiler):
    module = Heads(out_features)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    x, task = torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % K
    compiled(x, task)
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows in (2, 23, 24, 1000):
            x, task = torch.randn(rows, 3, dtype=torch.float64), torch.randint(0, K, (rows,))
            torch.testing.assert_close(compiled(x, task), module(x, task))
