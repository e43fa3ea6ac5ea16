"""When the gradients of ``Proximal(…, smooth=)`` join: once a step, before clipping if told to."""

import copy

import pytest
import torch

from mtlfast.graphs import TaskGraph
from mtlfast.nn import GraphReg, PairwiseReg, TraceNorm
from mtlfast.optim import Proximal

LIMIT = 0.5


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


class Smooth:
    """W under a graph term that is smooth and a trace norm, with a target, and what clips."""

    def __init__(self, inner=momentum, **options):
        generator = torch.Generator().manual_seed(5)
        like = {"generator": generator, "dtype": torch.float64}
        self.target = torch.randn(6, 4, **like)
        self.W = torch.nn.Parameter(torch.randn(6, 4, **like))
        self.relation = GraphReg(TaskGraph.chain(6), 0.3)
        self.optimizer = Proximal(
            inner([self.W]), {self.W: TraceNorm(0.05)}, smooth={self.W: self.relation}, **options
        )

    def loss(self, whole=False):
        value = 0.5 * (self.W - self.target).square().sum()
        return value + self.relation(self.W) if whole else value

    def backward(self, whole=False, scale=1.0):
        value = self.loss(whole)
        (scale * value).backward()
        return value

    def clip(self):
        torch.nn.utils.clip_grad_norm_([self.W], LIMIT)


def wanted(steps=4):
    """With the term in the loss, clipped whole."""
    run = Smooth()
    plain = Proximal(run.optimizer.optimizer, {run.W: TraceNorm(0.05)})
    for _ in range(steps):
        plain.zero_grad()
        run.backward(whole=True)
        run.clip()
        plain.step()
    return run.W.detach()


def test_smooth_terms_can_join_before_clipping():
    run = Smooth()
    for _ in range(4):
        run.optimizer.zero_grad()
        run.backward()
        run.optimizer.add_smooth_()
        run.clip()
        run.optimizer.step()
    torch.testing.assert_close(run.W.detach(), wanted())
    late = Smooth()
    for _ in range(4):
        late.optimizer.zero_grad()
        late.backward()
        late.clip()
        late.optimizer.step()
    assert (late.W - run.W).abs().max() > 1e-3, "clipping without them is another thing"


@pytest.mark.parametrize("zero", ["optimizer", "in place", "model", "none"])
def test_they_join_once_a_step_however_gradients_are_zeroed(zero):
    run = Smooth()
    for _ in range(4):
        if zero == "optimizer":
            run.optimizer.zero_grad()
        elif zero == "in place":
            run.optimizer.zero_grad(set_to_none=False)
        elif zero == "model":
            torch.nn.ParameterList([run.W]).zero_grad()
        else:
            run.W.grad = None
        run.backward()
        run.optimizer.add_smooth_()
        run.optimizer.add_smooth_()
        run.clip()
        run.optimizer.add_smooth_()
        run.optimizer.step()
    torch.testing.assert_close(run.W.detach(), wanted())


@pytest.mark.parametrize("zero", ["optimizer", "in place", "model"])
def test_a_step_that_was_left_out_takes_nothing_along(zero):
    run = Smooth()
    for attempt in range(8):
        if zero == "model":
            torch.nn.ParameterList([run.W]).zero_grad()
        else:
            run.optimizer.zero_grad(set_to_none=zero == "optimizer")
        run.backward()
        run.optimizer.add_smooth_()
        run.clip()
        if attempt % 2:
            run.optimizer.step()
    torch.testing.assert_close(run.W.detach(), wanted())


def test_gradients_that_were_cleared_do_not_hold_them():
    run, other = Smooth(sgd), Smooth(sgd)
    run.optimizer.add_smooth_()
    run.W.grad = None
    run.optimizer.step()
    other.optimizer.step()
    assert torch.equal(run.W, other.W)


def test_a_clipping_that_makes_new_gradients_is_no_reason_to_repeat():
    run, other = Smooth(sgd), Smooth(sgd)
    for one, in_place in ((run, False), (other, True)):
        one.backward()
        one.optimizer.add_smooth_()
        if in_place:
            one.W.grad.clamp_(-0.1, 0.1)
        else:
            one.W.grad = one.W.grad.clamp(-0.1, 0.1)
        one.optimizer.step()
    assert torch.equal(run.W, other.W)


def test_each_step_has_its_own():
    """Gradients that are kept between steps grow by the terms at each, as those of a loss would."""
    run, whole = Smooth(sgd), Smooth(sgd)
    plain = Proximal(whole.optimizer.optimizer, {whole.W: TraceNorm(0.05)})
    for early in (True, False, True):
        run.backward()
        if early:
            run.optimizer.add_smooth_()
        run.optimizer.step()
        whole.backward(whole=True)
        plain.step()
    torch.testing.assert_close(run.W, whole.W)


def test_accumulated_gradients_hold_them_once():
    run, whole = Smooth(sgd), Smooth(sgd)
    plain = Proximal(whole.optimizer.optimizer, {whole.W: TraceNorm(0.05)})
    for _ in range(3):
        run.backward()
        run.optimizer.add_smooth_()
    run.optimizer.step()
    whole.backward()
    whole.backward()
    whole.backward(whole=True)
    plain.step()
    torch.testing.assert_close(run.W, whole.W)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("zeroes", [False, True])
def test_a_closure_may_add_them_itself(early, zeroes):
    run, whole = Smooth(), Smooth()
    plain = Proximal(whole.optimizer.optimizer, {whole.W: TraceNorm(0.05)})

    def closure_of(one, optimizer, add):
        def closure():
            if zeroes:
                optimizer.zero_grad()
            else:
                one.W.grad = None
            value = one.backward(whole=not add)
            if early:
                if add:
                    optimizer.add_smooth_()
                one.clip()
            return value

        return closure

    for _ in range(3):
        run.optimizer.add_smooth_()  # gradients that the closure renews
        run.optimizer.step(closure_of(run, run.optimizer, True))
        plain.step(closure_of(whole, plain, False))
    torch.testing.assert_close(run.W, whole.W)


def test_every_call_of_a_closure_has_them():
    """L-BFGS calls it many times a step."""

    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.5, max_iter=6)

    run, whole = Smooth(lbfgs), Smooth(lbfgs)
    plain = whole.optimizer.optimizer
    proxes = Proximal(plain, {whole.W: TraceNorm(0.05)})

    def closure():
        run.optimizer.zero_grad()
        value = run.backward()
        run.optimizer.add_smooth_()
        return value + run.relation(run.W.detach())  # its line search wants the whole

    def whole_closure():
        proxes.zero_grad()
        return whole.backward(whole=True)

    for _ in range(2):
        run.optimizer.step(closure)
        proxes.step(whole_closure)
    torch.testing.assert_close(run.W, whole.W)


@pytest.mark.parametrize("fused", [False, True])
def test_a_grad_scaler_clips_whole_gradients_and_leaves_out_what_overflows(fused):
    def inner(parameters):
        return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=fused)

    run, scaler = Smooth(inner), torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1000)
    for attempt in range(6):
        run.optimizer.zero_grad()
        value = run.loss()
        scaler.scale(value).backward()
        overflows = attempt in (1, 3)
        if overflows:
            run.W.grad[0, 0] = torch.inf
        before = run.W.detach().clone()
        scaler.unscale_(run.optimizer)
        run.optimizer.add_smooth_()
        run.clip()
        scaler.step(run.optimizer)
        scaler.update()
        assert torch.equal(run.W, before) == overflows
    torch.testing.assert_close(run.W.detach(), wanted())


@pytest.mark.parametrize("fused", [False, True])
def test_a_grad_scaler_alone_lets_them_join_after_unscaling(fused):
    def inner(parameters):
        return torch.optim.Adam(parameters, lr=0.01, fused=fused)

    run, whole = Smooth(inner), Smooth(inner)
    plain = Proximal(whole.optimizer.optimizer, {whole.W: TraceNorm(0.05)})
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(3):
        run.optimizer.zero_grad()
        scaler.scale(run.loss()).backward()
        scaler.step(run.optimizer)
        scaler.update()
        plain.zero_grad()
        whole.backward(whole=True)
        plain.step()
    torch.testing.assert_close(run.W, whole.W)


def test_a_failed_step_can_be_repeated():
    class Failing(torch.optim.SGD):
        fails = True

        def step(self, closure=None):
            if self.fails:
                raise RuntimeError("not now")
            return super().step(closure)

    run, other = Smooth(lambda p: Failing(p, lr=0.01)), Smooth(sgd)
    run.backward()
    with pytest.raises(RuntimeError, match="not now"):
        run.optimizer.step()
    run.optimizer.fails = False
    run.optimizer.step()
    other.backward()
    other.optimizer.step()
    assert torch.equal(run.W, other.W)


def test_without_smooth_terms_there_is_nothing_to_add():
    W = torch.nn.Parameter(torch.arange(6.0).view(3, 2))
    optimizer = Proximal(sgd([W]), {W: PairwiseReg()})
    optimizer.add_smooth_()
    assert W.grad is None


def test_a_copy_does_not_believe_to_hold_them():
    run = Smooth(sgd)
    run.optimizer.add_smooth_()
    copied = copy.deepcopy(run.optimizer)
    assert not copied._held
