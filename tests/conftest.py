"""Every test starts from the same seed, two threads, and the widest instruction set.

OMP_NUM_THREADS asks for another number of threads: one where processes share the cores.
"""

import os

import devices
import pytest
import torch

from mtlfast import _native

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


@pytest.fixture(autouse=True)
def same_start():
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(THREADS)
    if _native._C is not None:
        _native.use_isa(_native.cpu_isas()[-1])


@pytest.fixture
def device():
    """Where a test makes its tensors; the files test_cuda_*.py say otherwise."""
    return "cpu"


def pytest_collection_modifyitems(config, items):
    items[:], left_out = devices.prepare(items)
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def fresh_compiler():
    """torch.compile silently runs eagerly after a few recompilations: start from none."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def each_isa_and_thread_count():
    """Yields once under each instruction set and thread count; restores both."""
    if _native.missing:
        pytest.skip(f"needs the compiled module: {_native.missing}")
    threads, isa = torch.get_num_threads(), _native.use_isa()

    def run():
        for name in _native.cpu_isas():
            _native.use_isa(name)
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                yield

    yield run
    torch.set_num_threads(threads)
    _native.use_isa(isa)
