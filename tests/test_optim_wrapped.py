"""What a wrapped optimiser offers is reached through its wrapper; checkpoints of torch's tools."""

import copy
import io
import pickle

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)

from mtlfast.nn import GraphReg, PairwiseReg, TaskLinear
from mtlfast.optim import Alternating, Proximal


class Averaging(torch.optim.SGD):
    """One with modes, a setting, a method of its own, and a step that takes more."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.mode, self.setting, self.calls = "train", 1, []

    def train(self):
        self.mode = "train"
        return self

    def eval(self):
        self.mode = "eval"
        return self

    def average(self, weight, *, power=1):
        return weight**power

    def step(self, closure=None, *, epoch=0):
        self.calls.append(epoch)
        return super().step(closure)


def heads():
    return [torch.nn.Parameter(torch.arange(6.0).view(3, 2)) for _ in range(2)]


def wrappers(first=Averaging, second=Averaging):
    W, V = heads()
    one, two = first([W], lr=0.1), second([V], lr=0.2)
    return {
        "proximal": (Proximal(one, {W: PairwiseReg(0.1)}), [one]),
        "mapping": (Alternating(one, {W: PairwiseReg(0.1)}), [one]),
        "alternating": (Alternating(one, two), [one, two]),
    }


every_wrapper = pytest.mark.parametrize("name", wrappers())


@every_wrapper
def test_modes_reach_every_wrapped_optimiser(name):
    wrapper, wrapped = wrappers()[name]
    for mode in ("eval", "train", "eval"):
        getattr(wrapper, mode)()
        assert [inner.mode for inner in wrapped] == [mode] * len(wrapped)
    results = wrapper.average(3, power=2)
    assert results == (9 if len(wrapped) == 1 else (9, 9))
    assert {"train", "average", "setting"} <= set(dir(wrapper))


@every_wrapper
def test_what_nobody_has_is_missing(name):
    wrapper, _ = wrappers()[name]
    assert not hasattr(wrapper, "swap")
    with pytest.raises(AttributeError, match=r"'(Proximal|Alternating)' object has no attribute"):
        wrapper.swap()


@pytest.mark.parametrize("name", ["proximal", "mapping"])
def test_attributes_are_read_and_set_where_they_live(name):
    wrapper, (inner,) = wrappers()[name]
    wrapper.setting = 5
    assert (inner.setting, wrapper.setting) == (5, 5)
    assert "setting" not in vars(wrapper)
    wrapper.note = "mine"
    assert not hasattr(inner, "note") and wrapper.note == "mine"


def test_an_attribute_of_both_is_asked_of_one():
    wrapper, wrapped = wrappers()["alternating"]
    words = "attribute setting must be taken from one optimizer, got task_optimizer and relation_"
    with pytest.raises(AttributeError, match=words):
        _ = wrapper.setting
    with pytest.raises(AttributeError, match=words):
        wrapper.setting = 5
    assert [inner.setting for inner in wrapped] == [1, 1]
    wrapper, (one, _) = wrappers(second=torch.optim.SGD)["alternating"]
    wrapper.setting = 5
    assert (one.setting, wrapper.setting) == (5, 5)
    wrapper.eval()
    assert one.mode == "eval"


@every_wrapper
@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_forward_to_their_own(name, how):
    wrapper, wrapped = wrappers()[name]
    copied = how(wrapper)
    copied.eval()
    assert all(inner.mode == "train" for inner in wrapped)
    assert copied._wrapped().keys() == wrapper._wrapped().keys()
    assert all(inner.mode == "eval" for inner in copied._wrapped().values())


def test_step_passes_on_what_it_does_not_know():
    wrapper, (inner,) = wrappers()["proximal"]
    wrapper.step(epoch=7)
    assert wrapper.step(lambda: 3.0, epoch=8) == 3.0
    assert inner.calls == [7, 8]
    with pytest.raises(TypeError, match="season"):
        wrapper.step(season=1)


@every_wrapper
def test_hooks_of_the_state_are_called_with_the_wrapper(name):
    wrapper, _ = wrappers()[name]
    seen = []

    def note(what, result=None):
        def hook(optimizer, *args):
            seen.append((what, optimizer is wrapper))
            return result(*args) if result else None

        return hook

    wrapper.register_state_dict_pre_hook(note("before saving"))
    wrapper.register_state_dict_post_hook(note("saved", lambda state: state | {"extra": 1}))
    wrapper.register_load_state_dict_pre_hook(
        note("before loading", lambda state: {k: v for k, v in state.items() if k != "extra"})
    )
    wrapper.register_load_state_dict_post_hook(note("loaded"))
    state = wrapper.state_dict()
    assert state["extra"] == 1
    wrapper.load_state_dict(state)
    assert state["extra"] == 1, "the caller's dict is left alone"
    order = ["before saving", "saved", "before loading", "loaded"]
    assert seen == [(what, True) for what in order]


# Checkpoints ------------------------------------------------------------------------------------


class Model(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = TaskLinear(4, 3, 1)
        self.weight = torch.nn.Parameter(torch.rand(3))
        self.relation = GraphReg((torch.tensor([[0, 1, 2], [1, 2, 3]]), self.weight), 0.1)

    def loss(self):
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(12, 3, generator=generator)
        return self.layer(x, torch.arange(12) % 4).square().sum() + self.relation(self.layer.weight)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.1)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


PAIRS = [(adam, adam), (adam, momentum), (adam, sgd), (momentum, adam)]


def made(kind, seed, first=adam, second=momentum):
    """A model, its optimiser, and one step."""
    model = Model(seed)
    W, bias = model.layer.weight, model.layer.bias
    task = first([{"params": [W]}, {"params": [bias], "lr": 0.03}])
    if kind == "proximal":
        optimizer = Proximal(task, {W: PairwiseReg(0.1)}, smooth={bias: PairwiseReg(0.1)})
    elif kind == "mapping":
        optimizer = Alternating(task, {W: PairwiseReg(0.1)}, task_steps=2)
    else:
        optimizer = Alternating(task, second([model.weight]), relation_steps=2)

    def closure():
        optimizer.zero_grad()
        value = model.loss()
        value.backward()
        return value

    return model, optimizer, lambda: optimizer.step(closure=closure)


KINDS = ["proximal", "mapping", "alternating"]
OPTIONS = {
    "plain": StateDictOptions(),
    "flattened": StateDictOptions(flatten_optimizer_state_dict=True),
    "on the cpu": StateDictOptions(cpu_offload=True),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("first, second", PAIRS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_distributed_checkpoint_resumes_with_the_same_bits(kind, first, second, options):
    options = OPTIONS[options]
    model, optimizer, step = made(kind, 0, first, second)
    for _ in range(3):
        step()
    saved = copy.deepcopy(get_state_dict(model, optimizer, options=options))
    for _ in range(3):
        step()
    other, resumed, other_step = made(kind, 1, first, second)
    resumed.param_groups[0]["lr"] = 1.0
    set_state_dict(
        other, resumed, model_state_dict=saved[0], optim_state_dict=saved[1], options=options
    )
    for _ in range(3):
        other_step()
    assert resumed.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_a_fresh_optimiser_moves_nothing(kind):
    model, optimizer, _ = made(kind, 0)
    before = [p.detach().clone() for p in model.parameters()]
    get_optimizer_state_dict(model, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


class Shared:
    """Two optimisers that own W, and one parameter each."""

    def __init__(self):
        self.a, self.W, self.b = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
        self.optimizer = Alternating(adam([self.a, self.W]), momentum([self.W, self.b]))

    def step(self):
        def closure():
            self.optimizer.zero_grad()
            value = (self.a * self.W * self.b).square().sum() + (self.a - self.b).sum()
            value.backward()
            return value

        self.optimizer.step(closure=closure)

    def parameters(self):
        return [self.a, self.W, self.b]


def test_a_parameter_of_both_keeps_both_states():
    one, other = Shared(), Shared()
    for _ in range(3):
        one.step()
    file = io.BytesIO()
    torch.save(one.optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    assert [group["params"] for group in state["param_groups"]] == [[0, 2], [2, 3]]
    want = {"task.step", "task.exp_avg", "task.exp_avg_sq", "relation.momentum_buffer"}
    assert set(state["state"][2]) == want == set(one.optimizer.state[one.W])
    other.optimizer.load_state_dict(state)
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), one.parameters(), strict=True):
            mine.copy_(theirs)
    for _ in range(3):
        one.step()
        other.step()
    for mine, theirs in zip(other.parameters(), one.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_torch_loses_of_a_parameter_of_both_is_refused():
    one = Shared()
    one.step()
    model = torch.nn.ParameterDict({"a": one.a, "W": one.W, "b": one.b})
    state = get_optimizer_state_dict(model, one.optimizer)
    one.optimizer.task_optimizer.param_groups[0]["params"].pop(0)  # the shared one alone
    one.optimizer.relation_optimizer.param_groups[0]["params"].pop()
    state["param_groups"] = [{"params": ["W"]}, state["param_groups"][1] | {"params": ["W"]}]
    with pytest.raises(ValueError, match=r"must hold the options of each group, got none for"):
        one.optimizer.load_state_dict(state)


class WithMore(torch.optim.SGD):
    """Its state holds what belongs to no parameter, and its state_dict more than the usual."""

    def state_dict(self):
        return super().state_dict() | {"rounds": self.rounds}

    def load_state_dict(self, state_dict):
        self.rounds = state_dict["rounds"]
        super().load_state_dict(state_dict)


def test_states_of_no_parameter_are_kept():
    def make(rounds):
        W, V = heads()
        optimizer = Alternating(WithMore([W], lr=0.1), WithMore([V], lr=0.1))
        for name, inner in optimizer._wrapped().items():
            inner.rounds = f"{name} {rounds}"
            inner.state["whole"] = {"count": f"{name} {rounds}"}
        return optimizer

    one, other = make(1), make(2)
    other.load_state_dict(one.state_dict())
    for mine, theirs in zip(other._wrapped().values(), one._wrapped().values(), strict=True):
        assert mine.rounds == theirs.rounds
        assert mine.state["whole"] == theirs.state["whole"]


def test_a_state_of_other_groups_is_refused_before_anything_is_loaded():
    W, V = heads()
    optimizer = Alternating(adam([W]), adam([V]))
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 9.0
    state["param_groups"][1]["params"] = [1, 2]
    with pytest.raises(ValueError, match=r"groups of \[1, 1\] parameters, got \[1, 2\]"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_one_closure_serves_both_phases():
    W, V = heads()
    calls = []

    def closure():
        calls.append([W.requires_grad, V.requires_grad])
        return 1.0

    two = Alternating(sgd([W]), sgd([V]), relation_steps=2)
    assert two.step(closure=closure) == (1.0, 1.0)
    assert calls == [[True, False], [False, True], [False, True]]
    assert Alternating(sgd([W]), {W: PairwiseReg()}).step(closure=closure) == (1.0, None)
    with pytest.raises(ValueError, match="closure must be the only one, got another for a phase"):
        two.step(closure, closure=closure)
