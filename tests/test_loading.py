"""torch.load in its default mode: what of this package it makes of a file, and what it refuses."""

import copy
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import mtlfast
from mtlfast import LowRank, TaskGraph, nn
from mtlfast.graphs import _task_graph
from mtlfast.nn import (
    GramReg,
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Ridge,
    Sum,
    TaskLinear,
    TraceNorm,
)

GRAPH = TaskGraph.from_edges([[0, 1, 2, 2], [1, 2, 3, 0]], [1.0, 0.5, 2.0, 0.0])
GROUPS = TaskGraph.groups(["a", "b", "a", "b"])
PAIR = torch.tensor([[0, 1], [1, 3]]), torch.nn.Parameter(torch.rand(2))
W = torch.randn(4, 3)

REGULARIZERS = [
    PairwiseReg(0.1, reduction="mean"),
    GraphReg(GRAPH, 0.2),
    GraphReg(GROUPS, 0.2),
    GraphReg(PAIR, 0.2),
    GraphReg(torch.rand(4, 4), 0.2),
    GraphReg(torch.eye(4).roll(1, 0).to_sparse(), 0.2),
    GraphReg(torch.eye(4).roll(1, 0).to_sparse_csr(), 0.2),
    GramReg(torch.eye(4), 0.3),
    GramReg(torch.eye(4).to_sparse(), 0.3),
    GramReg(LowRank(torch.nn.Parameter(torch.rand(4, 2)))),
    TraceNorm(0.4),
    GroupLasso(0.5),
    GraphTotalVariation(GRAPH, 0.6),
    Ridge(0.7),
    PairwiseReg(0.1) + GraphReg(GRAPH) + Ridge(2.0),
]
LAYERS = [TaskLinear(4, 3, 2), TaskLinear(4, 3, 1, bias=False, dtype=torch.float64)]
OTHERS = [GRAPH, GROUPS, TaskGraph.chain(0), TaskGraph.from_edges([[0], [1]], [3.0]),
          LowRank(torch.rand(4, 2))]  # fmt: skip


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def named(values):
    return pytest.mark.parametrize("value", values, ids=lambda value: type(value).__name__)


def same(first, second):
    if isinstance(first, TaskGraph):
        assert repr(first) == repr(second)
        first, second = first._tensors(), second._tensors()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[k], second[k]) and first[k].dtype == second[k].dtype
                   for k in first)  # fmt: skip
    else:
        assert torch.equal(first.factor, second.factor)
    return True


@named(REGULARIZERS)
def test_a_saved_regularizer(value):
    loaded = torch.load(saved(value.eval()))
    assert type(loaded) is type(value) and repr(loaded) == repr(value) and not loaded.training
    assert torch.equal(loaded(W), value(W))
    assert len(list(loaded.parameters())) == len(list(value.parameters()))
    if value.has_prox:
        assert torch.equal(loaded.prox(W, 0.1), value.prox(W, 0.1))


@named(LAYERS)
def test_a_saved_layer(value):
    loaded = torch.load(saved({"model": value, "epoch": 3}))["model"]
    x = torch.randn(5, 3, dtype=value.weight.dtype)
    assert torch.equal(loaded(x, torch.arange(5) % 4), value(x, torch.arange(5) % 4))
    assert isinstance(loaded.weight, torch.nn.Parameter)


@named(OTHERS)
def test_a_saved_graph_or_matrix(value):
    assert same(value, torch.load(saved(value)))
    assert same(value, torch.load(saved([value]), mmap=False)[0])
    assert same(value, pickle.loads(pickle.dumps(value)))
    assert same(value, copy.deepcopy(value))


def test_every_public_module_is_tried():
    tried = {type(value) for value in REGULARIZERS + LAYERS} | {nn.Regularizer}
    assert tried >= {v for v in map(vars(nn).get, nn.__all__) if issubclass(v, torch.nn.Module)}
    assert Sum in tried


def test_a_graph_is_loaded_for_another_device():
    loaded = torch.load(saved(GRAPH), map_location="meta")
    assert loaded.device.type == "meta" and loaded.num_tasks == 4


def test_a_fresh_process_loads_after_the_import_alone(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.ModuleList([*REGULARIZERS, *LAYERS]), path)
    code = "import sys, torch, mtlfast; print(len(torch.load(sys.argv[1])))"
    run = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.stdout.strip() == str(len(REGULARIZERS + LAYERS)), run.stderr


# What a file must not do --------------------------------------------------------------------------


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_but_values_was_declared_safe():
    declared = [
        value
        for value in torch.serialization.get_safe_globals()
        if value.__module__.split(".")[0] == "mtlfast"
    ]
    assert {LowRank, TaskLinear, GraphReg, _task_graph.restore_checked} <= set(declared)
    for value in declared:
        of_values = isinstance(value, type) and issubclass(value, (torch.nn.Module, LowRank))
        assert of_values or value is _task_graph.restore_checked, value
        assert not hasattr(value, "__setstate__") or issubclass(value, torch.nn.Module)


@pytest.mark.parametrize(
    "function", [_task_graph._restore, mtlfast.pairwise_reg, os.system], ids=lambda f: f.__name__
)
def test_other_calls_are_refused(function):
    with pytest.raises(pickle.UnpicklingError, match=r"Weights only load failed"):
        torch.load(saved(Calls(function, "echo")))


def edges(**changed):
    parts = {"row_ptr": [0, 1, 3, 4], "col": [1, 0, 2, 1], "weight": [1.0, 1.0, 2.0, 2.0]} | changed
    dtypes = {"row_ptr": torch.int64, "col": torch.int32, "weight": torch.float32}
    return {k: v if isinstance(v, torch.Tensor) else torch.tensor(v, dtype=dtypes[k])
            for k, v in parts.items()}  # fmt: skip


def groups(**changed):
    parts = {"group_ptr": [0, 2, 4], "member": [0, 2, 1, 3]} | changed
    return {k: torch.tensor(v, dtype=torch.int64) for k, v in parts.items()}


BAD = {
    "a column outside": ((3, 2, edges(col=[1, 0, 3, 1])), r"col must be in \[0, K=3\), got 3"),
    "a negative column": ((3, 2, edges(col=[1, 0, -2, 1])), r"col must be in \[0, K=3\), got -2"),
    "pointers past the end": ((3, 2, edges(row_ptr=[0, 1, 3, 9])), "row_ptr must rise from 0 to 4"),
    "falling pointers": ((3, 2, edges(row_ptr=[0, 5, 3, 4])), "row_ptr must rise from 0 to 4"),
    "late pointers": ((3, 2, edges(row_ptr=[1, 1, 3, 4])), "row_ptr must rise from 0 to 4"),
    "few pointers": ((3, 2, edges(row_ptr=[0, 4])), "row_ptr must have K . 1 = 4 entries"),
    "more tasks": ((1000, 2, edges()), "row_ptr must have K . 1 = 1001 entries"),
    "few weights": ((3, 2, edges(weight=[1.0])), "weight one for each of col, got 4, 1 and 4"),
    "not symmetric": ((3, 2, edges(col=[1, 0, 2, 0])), "the matrix must be symmetric"),
    "weights of one side": ((3, 2, edges(weight=[1.0, 1.0, 2.0, 3.0])), "must be symmetric"),
    "not finite": ((3, 2, edges(weight=[1.0, 1.0, np.nan, np.nan])), "with finite weights"),
    "not sorted": ((3, 2, edges(col=[1, 2, 0, 1])), "col must rise within a row"),
    "a self loop": ((3, 2, edges(col=[0, 0, 2, 1])), "leave out the task itself"),
    "few edges": ((3, 1, edges()), "num_edges must be at least 2, got 1"),
    "negative edges": ((3, -1, edges()), "num_edges must be >= 0, got -1"),
    "many tasks": ((2**31, 2, edges()), "limited to"),
    "tasks of no number": (("3", 2, edges()), "num_tasks must be an integer, got str"),
    "another dtype": ((3, 2, edges(col=torch.zeros(4, dtype=torch.int64))), "constants of torch.i"),
    "half weights": ((3, 2, edges(weight=torch.zeros(4).half())), "constants of torch.float32"),
    "another shape": ((3, 2, edges(col=torch.zeros(2, 2).int())), "in one dimension, got"),
    "sparse": ((3, 2, edges(weight=torch.eye(4).to_sparse())), "must be a dense tensor"),
    "no tensor": ((3, 2, edges() | {"col": [1, 0, 2, 1]}), "dense tensor, got list"),
    "learnable": ((3, 2, edges(weight=torch.ones(4).requires_grad_())), "requires_grad=True"),
    "two devices": ((3, 2, edges(weight=torch.ones(4, device="meta"))), "be on one device, got"),
    "a part too many": ((3, 2, edges() | groups()), "parts must be"),
    "a part too few": ((3, 2, {"col": torch.zeros(4).int()}), "parts must be"),
    "a member outside": ((4, 4, groups(member=[0, 2, 1, 4])), r"member must be in \[0, K=4\), got"),
    "a member twice": ((4, 4, groups(member=[0, 2, 1, 2])), "a task must be in one group at most"),
    "groups past the end": ((4, 4, groups(group_ptr=[0, 2, 9])), "group_ptr must rise from 0 to 4"),
    "no groups": ((4, 4, groups(group_ptr=[])), "group_ptr must rise from 0 to 4"),
    "edges of groups": ((4, 5, groups()), "num_edges must be 4, got 5"),
}


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("name", BAD)
def test_parts_that_kernels_could_not_trust_are_refused(name, weights_only):
    arguments, words = BAD[name]
    file = saved(Calls(_task_graph.restore_checked, *arguments))
    kinds = (pickle.UnpicklingError, ValueError, TypeError, NotImplementedError)
    with pytest.raises(kinds, match=f"TaskGraph: .*{words}"):
        torch.load(file, weights_only=weights_only)


def test_good_parts_are_taken():
    for arguments in ((3, 2, edges()), (3, 4, edges()), (4, 4, groups())):
        graph = torch.load(saved(Calls(_task_graph.restore_checked, *arguments)))
        assert graph.num_tasks == arguments[0]
