"""The jobs as pytest benchmarks: all ways of a job agree, and each is timed in the job's group.

In an ordinary test run they are tiny and untimed. ``pytest benchmarks --benchmark-enable --full``
times the real sizes one after the other; ``run.py`` lets them take turns, which is fairer.
"""

import functools

import pytest
from jobs import CASES, TINY
from plot import table
from run import describe, error_curve, overheads, same_bits
from timing import Job, assert_equal, measure, medians


@functools.cache
def ways_of(group):
    """The names of all ways to do the jobs of a group, from its tiny cases."""
    jobs = [case.make() for case in TINY if case.group == group]
    return list(dict.fromkeys(name for job in jobs for name in job.ways))


@functools.lru_cache(maxsize=1)
def job_of(case):
    job = case.make()
    assert_equal(job)
    return job


def pytest_generate_tests(metafunc):
    cases = CASES if metafunc.config.getoption("--full") else TINY
    if "way" in metafunc.fixturenames:
        pairs = [(case, way) for case in cases for way in ways_of(case.group)]
        names = [f"{case.name}-{way}" for case, way in pairs]
        metafunc.parametrize("case, way", pairs, ids=names)


def test_every_way_agrees_and_can_be_timed(case, way, benchmark):
    job = job_of(case)
    if way not in job.ways:
        pytest.skip(f"{case.name} has no way {way!r}")
    benchmark.group = case.name
    machine = describe()
    benchmark.extra_info |= {key: machine[key] for key in ("threads", "torch", "commit", "config")}
    benchmark(job.ways[way])
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median
        if job.bytes:
            benchmark.extra_info["GB/s"] = job.bytes / median / 1e9
        if job.floor is not None:
            floor = medians(measure(Job({"floor": job.floor}), budget=0.3))["floor"]
            benchmark.extra_info["times the floor"] = median / floor


def test_a_wrong_way_is_not_timed():
    right, wrong = (lambda: describe_tensor(1.0)), (lambda: describe_tensor(1.1))
    with pytest.raises(AssertionError, match="wrong differs from mtlfast"):
        assert_equal(Job({"mtlfast": right, "wrong": wrong}))
    assert_equal(Job({"mtlfast": right, "wrong": right}))


def describe_tensor(value):
    import torch

    return torch.full((3,), value)


def test_tiny_groups_are_groups_of_the_table():
    assert {case.group for case in TINY} == {case.group for case in CASES}


def test_the_expanded_trick_goes_wrong_and_mtlfast_does_not():
    worst = {name: max(y for _, y in points) for name, points in error_curve(100, 2).items()}
    assert worst["mtlfast"] < 32 * 2**-24
    assert worst["eager expanded"] > 0.5


def test_the_table_says_what_was_met():
    case = {
        "group": "job",
        "size": "10×3",
        "median": {"mtlfast": 1e-3},
        "ratio": {"slow": 4.0, "quick": 0.5},
        "wanted": {"slow": 3, "quick": 2},
    }
    data = {
        "machine": describe(),
        "cases": {"job": case, "lost": {"failed": "MemoryError: none left"}},
        "same bits": same_bits(33),
        "overhead µs": overheads(2),
        "preparing": {"prepare": 0.1},
    }
    text = table(data)
    assert "| job, 10×3 | 1 | slow 4× (≥ 3); quick 0.5× (≥ 2) |  |  | no: quick |" in text
    assert "MemoryError: none left" in text
    assert all(data["same bits"][name] for name in ("pairwise_reg", "graph_reg", "graph_prox"))
