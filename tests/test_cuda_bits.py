"""The same bits on a GPU: every run, every stream, whatever torch's switches say."""

import contextlib

import cuda_jobs
import devices
import pytest
import torch
from cases import CASES, HALVES, bits, names, value_and_grads
from cuda_jobs import JOBS
from devices import DEVICE, ON_GPU, device  # noqa: F401

pytestmark = devices.any_device

REPEATS = 250 if ON_GPU else 3
STREAMS = 4
each_dtype = pytest.mark.parametrize("dtype", cuda_jobs.DTYPES, ids=str)
every_job = pytest.mark.parametrize("name", JOBS)


def bits_of(results):
    return [bits(t) for t in results]


def job_of(name, dtype):
    job = cuda_jobs.make(name, DEVICE, dtype)
    if ON_GPU and job.by_reference():
        pytest.skip(f"{name}: the reference runs {', '.join(job.by_reference())}")
    return job


@contextlib.contextmanager
def switched(read, write, setting):
    before = read()
    write(setting)
    try:
        yield
    finally:
        write(before)


def deterministic():
    """Torch refuses its own sums by atomics, and fills new memory with NaN."""
    read, write = torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    return switched(read, write, True)


@each_dtype
@every_job
def test_a_job_is_right(name, dtype):
    """Beside the same job in float64 on the CPU; the gates are those of the contracts."""
    job, exact = cuda_jobs.make(name, DEVICE, dtype), cuda_jobs.make(name, "cpu", torch.float64)
    exact.load([buffer.detach().double().cpu() for buffer in job.buffers])
    for got, want in zip(job.run(), exact.run(), strict=True):
        error = (got.double().cpu() - want).norm()
        rounding = 3e-3 if got.dtype in HALVES else 3e-6
        assert error <= rounding * want.norm()


@each_dtype
@every_job
def test_every_run_has_the_same_bits(name, dtype):
    job = job_of(name, dtype)
    with deterministic():
        want = job.run()
        for repeat in range(REPEATS):
            same = [torch.equal(a, b) for a, b in zip(job.run(), want, strict=True)]
            assert all(same), repeat
        assert bits_of(job.run()) == bits_of(want)


@pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
@every_job
def test_streams_side_by_side_have_the_same_bits(name):
    """No workspace is shared: blocks of several calls run at once."""
    job = job_of(name, torch.float32)
    want = bits_of(job.run())
    torch.cuda.synchronize()
    streams, results = [torch.cuda.Stream() for _ in range(STREAMS)], []
    with deterministic():
        for _ in range(REPEATS // STREAMS):
            for stream in streams:
                with torch.cuda.stream(stream):
                    results.append(job.run())
            if len(results) >= 10 * STREAMS:
                torch.cuda.synchronize()
                assert all(bits_of(result) == want for result in results)
                results.clear()
    torch.cuda.synchronize()
    assert all(bits_of(result) == want for result in results)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_tf32_changes_nothing(case, device):  # noqa: F811
    tensors = case.tensors(100, 40, torch.float32, device=device)
    outcomes = []
    for precision in ("highest", "high", "medium"):
        read, write = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        with switched(read, write, precision):
            value, grads = value_and_grads(case, tensors)
            outcomes.append(bits_of([value, *grads]))
    assert outcomes[0] == outcomes[1] == outcomes[2]
