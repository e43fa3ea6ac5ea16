"""Memory that runs out, anywhere in a native op: an exception, arguments as they were, no crash.

Scratch memory of a kernel that cannot be had is a MemoryError, a tensor that cannot be made torch's
own RuntimeError. A child process takes aligned memory from ``failing_allocations.c`` and lets every
request of every call fail in turn.
"""

import collections
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import native_calls
import pytest
import torch

from mtlfast import _native
from mtlfast._native import edge_dual
from mtlfast._ops import _registry

HERE = Path(__file__).resolve().parent
COMPILER = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
NOBODY, TORCH, KERNEL = range(3)  # whose request failed, says failing_allocations.c


@pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
@pytest.mark.skipif(sys.platform != "linux", reason="the preloaded library is for Linux")
@pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the failing allocator with")
def test_memory_that_runs_out(tmp_path):
    library = tmp_path / "failing_allocations.so"
    source = HERE / "failing_allocations.c"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([COMPILER, *flags, "-o", library, source, "-ldl"], check=True)
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "OMP_WAIT_POLICY": "passive",
    }
    child = subprocess.run(
        [sys.executable, __file__, library], env=environment, capture_output=True, text=True
    )
    assert child.returncode == 0, f"ended with {child.returncode}:\n{child.stdout}{child.stderr}"


def flat(value):
    """The tensors in an argument or a result."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value for t in flat(part)] if isinstance(value, (tuple, list)) else []


def bits(tensors):
    return [t.contiguous().reshape(-1).view(torch.uint8).clone() for t in tensors]


def bits_differ(first, second):
    return not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def try_every_request(allocator, function, arguments):
    """Lets each request of a call fail in turn; the kinds of errors that were seen, and faults."""
    own = flat(arguments)
    before = bits(own)
    outcome = function(*arguments)  # starts the threads, too
    want = bits(flat(outcome)) + bits(own)
    seen, faults = collections.Counter(), []
    for request in range(10_000):
        for tensor, saved in zip(own, before, strict=True):
            tensor.copy_(saved.view(tensor.dtype).view(tensor.shape))
        _native.release_memory()  # what is kept would hide a request
        error = None
        allocator.arm(request)
        try:
            outcome = function(*arguments)
        except (MemoryError, RuntimeError) as raised:
            error = raised
        asked = allocator.fired()
        allocator.arm(-1)
        if error is None:
            if bits_differ(bits(flat(outcome)) + bits(own), want):
                faults.append(f"request {request}: the result is another one")
            if asked == NOBODY:
                return seen, faults
            continue
        seen[type(error).__name__] += 1
        if isinstance(error, MemoryError) != (asked == KERNEL):
            faults.append(f"request {request}, by {asked}: {error!r}")
        if function is not edge_dual.edge_dual_step and bits_differ(bits(own), before):
            # it writes to the dual variables of a solver, which nobody sees then
            faults.append(f"request {request}: an argument has changed; {error!r}")
    raise AssertionError("no end of requests")


class Counted:
    """The compiled module; each use of one of its functions is counted."""

    def __init__(self, module):
        self.module, self.calls = module, collections.Counter()

    def __getattr__(self, name):
        self.calls[name] += 1
        return getattr(self.module, name)


def kernels(module):
    names = {name for name in dir(module) if not name.startswith(("_", "cuda_"))}
    return names - {"build_info", "runnable_isas", "use_isa"}


def main(path):
    allocator = ctypes.CDLL(path)
    torch.set_num_threads(2)
    torch.manual_seed(0)
    _native._C = counted = Counted(_native._C)
    bad, ops, total = [], set(), collections.Counter()
    for what, (function, arguments) in native_calls.calls():
        seen, faults = try_every_request(allocator, function, arguments)
        total += seen
        ops.add(function.__name__.partition(".")[0])
        bad += [f"{what}: {fault}" for fault in faults]
    bad += [f"no call of the op {name}" for name in sorted(_registry.CPU.keys() - ops)]
    bad += [
        f"no call of the kernel {name}"
        for name in sorted(kernels(counted.module) - counted.calls.keys())
    ]
    if not total["MemoryError"]:
        bad.append("no request of a kernel has failed")
    sys.exit("\n".join(bad[:50]) or None)


if __name__ == "__main__":
    main(sys.argv[1])
