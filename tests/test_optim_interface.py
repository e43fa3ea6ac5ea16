"""Proximal and Alternating as torch optimisers: state, copies, hooks, frozen flags, errors."""

import copy
import io
import pickle

import pytest
import torch

from mtlfast.graphs import TaskGraph
from mtlfast.nn import GramReg, GraphReg, PairwiseReg, TaskLinear, TraceNorm
from mtlfast.optim import Alternating, Proximal

K, D = 20, 4


def new_parameter():
    return torch.nn.Parameter(torch.zeros(K, D, dtype=torch.float64))


def closure_of(optimizer, function):
    def closure():
        optimizer.zero_grad()
        value = function()
        value.backward()
        return value

    return closure


def trainings():
    """name → (parameters, optimiser, one step), all deterministic."""

    def proximal(inner):
        def make():
            layer = TaskLinear(5, 3, 2, dtype=torch.float64)
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.copy_(torch.arange(parameter.numel()).view_as(parameter).sin())
            both = PairwiseReg(0.1) + GraphReg(TaskGraph.chain(5), 0.2)
            optimizer = Proximal(inner(layer.parameters()), {layer.weight: both})
            x, ids = torch.ones(5, 3).double(), torch.arange(5)
            closure = closure_of(optimizer, lambda: (layer(x, ids) - 1).square().sum())
            return list(layer.parameters()), optimizer, lambda: optimizer.step(closure)

        return make

    def alternating():
        W, centre = new_parameter(), torch.nn.Parameter(torch.ones(D).double())
        optimizer = Alternating(
            torch.optim.Adam([W], lr=0.1), torch.optim.SGD([centre], lr=0.01, momentum=0.9)
        )
        target = torch.arange(K * D).view(K, D).cos()

        def joint():
            return (W - centre).square().sum() + (W - target).square().sum()

        closure = closure_of(optimizer, joint)
        return [W, centre], optimizer, lambda: optimizer.step(closure, closure)

    return {
        "sgd": proximal(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
        "adam": proximal(lambda p: torch.optim.Adam(p, lr=0.05)),
        "alternating": alternating,
    }


@pytest.mark.parametrize("name", trainings())
def test_a_saved_state_resumes_with_the_same_bits(name):
    make = trainings()[name]
    parameters, optimizer, step = make()
    for _ in range(3):
        step()
    file = io.BytesIO()
    torch.save({"parameters": parameters, "optimizer": optimizer.state_dict()}, file)
    for _ in range(3):
        step()
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    resumed, other, other_step = make()
    with torch.no_grad():
        for mine, theirs in zip(resumed, saved["parameters"], strict=True):
            mine.copy_(theirs)
    other.load_state_dict(saved["optimizer"])
    for _ in range(3):
        other_step()
    for mine, theirs in zip(resumed, parameters, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("name", trainings())
def test_copies_step_alike_and_apart(name, how):
    parameters, optimizer, step = trainings()[name]()
    step()
    before = [parameter.detach().clone() for parameter in parameters]
    copied = how(optimizer)
    for group, other in zip(optimizer.param_groups, copied.param_groups, strict=True):
        for parameter, mine in zip(group["params"], other["params"], strict=True):
            mine.grad = None if parameter.grad is None else parameter.grad.clone()
    copied.step()
    for parameter, old in zip(parameters, before, strict=True):
        assert torch.equal(parameter, old)
    optimizer.step()
    for group, other in zip(optimizer.param_groups, copied.param_groups, strict=True):
        for parameter, mine in zip(group["params"], other["params"], strict=True):
            assert parameter is not mine and torch.equal(parameter, mine)


def test_proximal_shares_groups_state_and_hooks_with_the_optimiser():
    W, bias = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))
    inner = torch.optim.Adam([W], lr=0.1)
    optimizer = Proximal(inner, {W: PairwiseReg()})
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is inner.param_groups and optimizer.state is inner.state
    optimizer.add_param_group({"params": [bias], "lr": 0.5})
    assert len(inner.param_groups) == 2
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    (W.sum() + bias.sum()).backward()
    optimizer.step()
    assert calls == ["pre", "post"] and set(inner.state) == {W, bias}
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is inner.param_groups and optimizer.state is inner.state
    optimizer.zero_grad()
    assert W.grad is None and bias.grad is None


def test_alternating_freezes_what_only_the_other_side_owns_and_restores_it():
    W, centre, both = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    untrained = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = Alternating(
        torch.optim.SGD([W, both], lr=0.1), torch.optim.SGD([centre, both, untrained], lr=0.1)
    )
    flags = []

    def closure():
        flags.append([p.requires_grad for p in (W, centre, both, untrained)])
        optimizer.zero_grad()
        loss = (W + centre + both).square().sum()
        loss.backward()
        return loss

    first, second = optimizer.step(closure, closure)
    assert flags == [[True, False, True, False], [False, True, True, False]]
    assert first.item() == 18 and second < first
    after = [True, True, True, False]
    assert [p.requires_grad for p in (W, centre, both, untrained)] == after

    def failing():
        assert not centre.requires_grad or not W.requires_grad
        raise RuntimeError("in the closure")

    for closures in ((failing, closure), (closure, failing)):
        with pytest.raises(RuntimeError, match="in the closure"):
            optimizer.step(*closures)
        assert [p.requires_grad for p in (W, centre, both, untrained)] == after


def test_alternating_learns_edge_weights_of_a_module():
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    term = GraphReg((edge_index, weight), 0.5)
    W = torch.nn.Parameter(torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64))
    optimizer = Alternating(
        torch.optim.SGD([W], lr=0.1), torch.optim.SGD(term.parameters(), lr=0.01)
    )
    task = closure_of(optimizer, lambda: 0 * W.sum())
    optimizer.step(task, closure_of(optimizer, lambda: term(W)))
    squares = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), 1 - 0.01 * 0.5 * squares)
    assert W.tolist() == [[0.0], [1.0], [3.0]]


def test_grad_scaler_accepts_proximal():
    W = torch.nn.Parameter(torch.tensor([[0.0], [9.0]]))
    optimizer = Proximal(torch.optim.SGD([W], lr=0.5), {W: PairwiseReg(0.5)})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(W.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert W.tolist() == [[2.5], [5.5]]  # minus lr·1, then 4 ± 4.5/3


def heads(*rates):
    """One parameter a group, with the given rates, and an SGD over them."""
    parameters = tuple(torch.nn.Parameter(torch.ones(2)) for _ in rates)
    groups = [{"params": [p], "lr": r} for p, r in zip(parameters, rates, strict=True)]
    return parameters, torch.optim.SGD(groups, lr=0.1)


def bad_inputs():
    (W,), sgd = heads(0.1)
    two, unequal = heads(0.1, 0.2)
    stranger = torch.nn.Parameter(torch.ones(3, 2))
    reg = PairwiseReg()
    return {
        "no optimizer": (
            lambda: Proximal([W], {W: reg}),
            TypeError,
            r"Proximal: optimizer must be a torch.optim.Optimizer, got list",
        ),
        "stranger": (
            lambda: Proximal(sgd, {stranger: reg}),
            ValueError,
            r"must be the optimizer's own, got one of shape \[3, 2\] at position 0 .* 1 groups",
        ),
        "no prox": (
            lambda: Proximal(sgd, {W: GramReg(torch.eye(2))}),
            NotImplementedError,
            r"the regularizer at position 0 must have a prox, got GramReg",
        ),
        "no prox of a sum": (
            lambda: Proximal(sgd, {W: reg + TraceNorm()}),
            NotImplementedError,
            r"must have a prox, got PairwiseReg \+ TraceNorm",
        ),
        "no regularizer": (
            lambda: Proximal(sgd, {W: 0.1}),
            TypeError,
            r"values of regularizers must be mtlfast.nn regularizers, got float at position 0",
        ),
        "no parameter": (
            lambda: Proximal(sgd, {"weight": reg}),
            TypeError,
            r"keys of regularizers must be parameters or tuples of them, got str",
        ),
        "nothing": (
            lambda: Proximal(sgd, {}),
            ValueError,
            r"regularizers must name at least one parameter, got none",
        ),
        "twice": (
            lambda: Proximal(sgd, {W: reg, (W,): reg}),
            ValueError,
            r"a parameter must have one regularizer, got a second one at position 1; add .*",
        ),
        "unequal rates": (
            lambda: Proximal(unequal, {two: reg}),
            ValueError,
            r"must have the same learning rate, got \[0.1, 0.2\] at position 0",
        ),
        "relation": (
            lambda: Alternating(sgd, 3),
            TypeError,
            r"Alternating: relation must be a torch.optim.Optimizer or a mapping .* got int",
        ),
        "relation without prox": (
            lambda: Alternating(sgd, {W: GramReg(torch.eye(2))}),
            NotImplementedError,
            r"Alternating: the regularizer at position 0 must have a prox, got GramReg",
        ),
        "steps": (
            lambda: Alternating(sgd, {W: reg}, task_steps=0),
            ValueError,
            r"Alternating: task_steps must be >= 1, got 0",
        ),
        "step type": (
            lambda: Alternating(sgd, {W: reg}, relation_steps=1.5),
            TypeError,
            r"Alternating: relation_steps must be an int, got float",
        ),
        "closure missing": (
            lambda: Alternating(sgd, {W: reg}, task_steps=2).step(),
            ValueError,
            r"Alternating: task_closure must be given for 2 steps, got None",
        ),
        "closure for a mapping": (
            lambda: Alternating(sgd, {W: reg}).step(None, lambda: None),
            ValueError,
            r"relation_closure must be None where the relation is a mapping",
        ),
        "add_param_group": (
            lambda: Alternating(sgd, unequal).add_param_group({"params": [stranger]}),
            NotImplementedError,
            r"Alternating: add_param_group must be called on the task or the relation optimizer",
        ),
        "state_dict": (
            lambda: Alternating(sgd, unequal).load_state_dict({"task": {}}),
            ValueError,
            r"state_dict must have the keys \['param_groups', 'state'\], got \['task'\]",
        ),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_inputs(name):
    call, error, message = bad_inputs()[name]
    with pytest.raises(error, match=message):
        call()


def test_rates_that_part_during_training_raise_before_anything_moves():
    parameters, sgd = heads(0.1, 0.1)
    optimizer = Proximal(sgd, {parameters: PairwiseReg()})
    sgd.param_groups[1]["lr"] = 0.2
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ValueError, match="the same learning rate"):
        optimizer.step()
    assert all(torch.equal(parameter, torch.ones(2)) for parameter in parameters)
