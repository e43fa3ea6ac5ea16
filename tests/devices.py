"""The device that tests marked ``cuda`` run on: a GPU.

MTLFAST_TEST_DEVICE=cpu runs those that need no stream, graph or launch on CPU tensors, and of the
contracts, which the CPU meets anyway, the first few: it shows that the tests themselves work.
"""

import functools
import os
import warnings

import cases
import pytest
import torch

from mtlfast import FallbackWarning, _native
from mtlfast._ops import _registry

NAME = os.environ.get("MTLFAST_TEST_DEVICE", "cuda")
if NAME not in ("cuda", "cpu"):
    raise ValueError(f"MTLFAST_TEST_DEVICE must be cuda or cpu, got {NAME!r}")
ON_GPU = NAME == "cuda" and torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if NAME == "cuda" else torch.device("cpu")
if ON_GPU:  # before the first matrix product: with it, torch's own keep their bits
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Ops without a kernel for CUDA in this build: they take the reference there, and say so.
BY_REFERENCE = {
    name
    for name, fallback in _registry.FALLBACK.items()
    if fallback.__module__.startswith("mtlfast.reference")
}
BY_REFERENCE -= {"edge_structure", *_registry.cuda_ops()}  # the first is torch's on every device

_NO_GPU = "torch sees no CUDA device"
any_device = [
    pytest.mark.cuda,
    pytest.mark.skipif(not ON_GPU and NAME == "cuda", reason=_NO_GPU),
]
gpu_only = [
    pytest.mark.cuda,
    pytest.mark.skipif(not ON_GPU, reason=_NO_GPU if NAME == "cuda" else "needs a CUDA device"),
]


@pytest.fixture
def device():
    """Overrides the fixture of conftest.py: contracts imported beside it run on ``DEVICE``."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch's own sums keep their bits
    yield DEVICE
    torch.use_deterministic_algorithms(False)


def said_to_fall_back(call, *args):
    """Whether a call took the reference for want of a kernel."""
    before = set(_native._warned)
    _native._warned.clear()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            call(*args)
    finally:
        _native._warned.update(before)
    return any(w.category is FallbackWarning for w in said)


@functools.cache
def takes_reference(case, device):
    return said_to_fall_back(cases.value_and_grads, case, case.tensors(5, 3, device=device))


def prepare(items):
    """The collected tests to be run, and those to be left out.

    MTLFAST_TEST_PART=1/4 keeps the second of every four: for processes side by side.
    """
    kept, left_out, seen = [], [], {}
    part, parts = map(int, os.environ.get("MTLFAST_TEST_PART", "0/1").split("/"))
    for position, item in enumerate(items):
        if item.get_closest_marker("cuda") is None:
            kept.append(item)
            continue
        if position % parts != part:
            left_out.append(item)
            continue
        if BY_REFERENCE:
            item.add_marker(pytest.mark.filterwarnings("ignore::mtlfast.FallbackWarning"))
        function = item.path.name, item.function.__name__
        seen[function] = seen.get(function, 0) + 1
        imported = item.function.__module__ != item.module.__name__
        few = seen[function] <= 2 and "fresh_compiler" not in item.fixturenames
        (left_out if NAME == "cpu" and imported and not few else kept).append(item)
    return kept, left_out
