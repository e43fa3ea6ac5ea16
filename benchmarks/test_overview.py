"""The cases of the overview as benchmarks; in an ordinary test run they are tiny and untimed."""

import pytest
from rivals import TINY, assert_equal


@pytest.mark.parametrize("name", TINY)
def test_all_ways_agree(name):
    make, size, options = TINY[name]
    assert_equal(make(*size, **options))


@pytest.mark.parametrize("name", TINY)
def test_mtlfast(name, benchmark):
    make, size, options = TINY[name]
    benchmark.group = name
    assert all(t.isfinite().all() for t in benchmark(make(*size, **options)["mtlfast"]))
