"""Ways of doing one job: checked against each other, then timed in turn."""

import dataclasses
import random
import statistics
import time
from collections.abc import Callable

import torch


@dataclasses.dataclass
class Job:
    """One job and the ways to do it, the first of them mtlfast's.

    A way returns what it computed, so that the results can be compared, and frees what it
    allocated before its time is up: none pays for another's memory. ``check`` has calls to compare
    instead where a timed call changes its arguments. The floor is a call that only moves the
    ``bytes`` that the job cannot do without.
    """

    ways: dict[str, Callable]
    floor: Callable | None = None
    bytes: int = 0
    check: dict[str, Callable] = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-4
    share: dict[str, float] = dataclasses.field(default_factory=dict)  # part of the job a way does


def _tensors(result):
    return result if isinstance(result, (tuple, list)) else (result,)


def assert_equal(job):
    """All ways give what mtlfast gives, to the rounding of float32 sums."""
    calls = {name: job.check.get(name, way) for name, way in job.ways.items()}
    (first, want), *others = [(name, _tensors(call())) for name, call in calls.items()]
    for name, results in others:
        if name in job.share:  # does a part of the job, and checks itself
            continue
        for got, expected in zip(results, want, strict=True):
            error = float((got.double() - expected.double()).norm())
            bound = job.tolerance * float(expected.double().norm())
            assert error <= bound, f"{name} differs from {first} by {error:.1e} > {bound:.1e}"


def _seconds(call, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


SLOW = 20  # times the quickest: such a way leaves cold caches and sleeping threads behind


def _take_turns(calls, budget, most, least, clock):
    once = {name: min(clock(call, 1) for _ in range(2)) for name, call in calls.items()}
    repeats = {name: max(1, min(200, int(4e-3 / t))) for name, t in once.items()}
    rounds = {
        name: 1 if t > budget else int(min(most, max(least, budget / (t * repeats[name]))))
        for name, t in once.items()
    }
    shuffle = random.Random(0)
    times = {name: [] for name in calls}
    for number in range(max(rounds.values(), default=0)):
        names = [name for name in calls if number < rounds[name]]
        shuffle.shuffle(names)
        for name in names:
            times[name].append(clock(calls[name], repeats[name]))
    return times


def measure(job, *, budget=3.0, most=41, least=3, clock=_seconds):
    """name → seconds of each round; the ways take turns in a new order each round.

    A way is given about ``budget`` seconds, and at least ``least`` rounds unless one alone takes
    longer than that. Calls of microseconds are repeated within a round. Ways that are slower by far
    take turns among themselves. ``clock(call, repeats)`` gives the seconds of one call.
    """
    calls = dict(job.ways)
    if job.floor is not None:
        calls["floor"] = job.floor
    once = {name: clock(call, 1) for name, call in calls.items()}
    slow = {name for name, t in once.items() if t > SLOW * min(once.values()) + 1e-3}
    times = _take_turns(
        {name: call for name, call in calls.items() if name not in slow}, budget, most, least, clock
    )
    rest = {name: calls[name] for name in calls if name in slow}
    times |= _take_turns(rest, budget, 7, least, clock)
    for name, part in job.share.items():
        times[name] = [t / part for t in times[name]]
    return times


def medians(times):
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def gradient_of(value_of, *leaves):
    """A call that returns the value and the gradients in the leaves, through autograd."""

    def run():
        value = value_of()
        return value.detach(), *torch.autograd.grad(value, leaves)

    return run


def compiled(function):
    """torch.compile from a clean slate: after a few recompilations it silently runs eagerly."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)
