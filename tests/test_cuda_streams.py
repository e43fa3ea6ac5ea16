"""Streams, threads, CUDA graphs, waiting and launches: what only a GPU shows."""

import threading

import cuda_jobs
import devices
import pytest
import torch
from cases import bits
from cuda_jobs import JOBS
from devices import DEVICE, device  # noqa: F401
from torch.autograd import DeviceType

import mtlfast

pytestmark = devices.gpu_only

SLEEP = 400_000_000  # cycles, about 0.2 s: far longer than any call takes
each_dtype = pytest.mark.parametrize("dtype", cuda_jobs.DTYPES, ids=str)
every_job = pytest.mark.parametrize("name", JOBS)


def job_of(name, dtype=torch.float32, *, native=True):
    """A job, warm; skipped where it may wait for the device or ``native`` kernels are missing."""
    job = cuda_jobs.make(name, DEVICE, dtype)
    if native and job.waits:
        pytest.skip(f"{name}: {job.waits}")
    if native and job.by_reference():
        pytest.skip(f"{name}: the reference runs {', '.join(job.by_reference())}")
    job.run()
    torch.cuda.synchronize()
    return job


def bits_of(results):
    return [bits(t) for t in results]


def fresh(job, seed=1):
    """Other numbers for the job, on the device already."""
    values = list(job.values(seed))
    torch.cuda.synchronize()
    return values


@each_dtype
@every_job
def test_a_job_on_a_side_stream_waits_for_its_producer(name, dtype, device):  # noqa: F811
    """Its inputs are written behind a long kernel of that stream; a launch elsewhere is early."""
    job = job_of(name, dtype, native=False)
    values, stream = fresh(job), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        job.run()  # its memory is there
        torch.cuda.synchronize()
        torch.cuda._sleep(SLEEP)
        job.load(values)
        results = job.run()
        pending = not stream.record_event().query()
    torch.cuda.synchronize()
    assert pending or job.waits or job.by_reference(), "the call waited for the device"
    assert bits_of(results) == bits_of(job.run())


@each_dtype
@pytest.mark.parametrize("name", [n for n in JOBS if n not in ("in place", "trace norm prox")])
def test_backward_in_another_thread_and_stream(name, dtype, device):  # noqa: F811
    """The upstream gradient comes late, on the other stream; kernels run on the forward's."""
    job = job_of(name, dtype, native=False)
    if job.upstream is None:
        pytest.skip(f"{name} has no backward")
    *_, late = fresh(job)
    first, second, found = torch.cuda.Stream(), torch.cuda.Stream(), []
    with torch.cuda.stream(first):
        value = job.call()
    second.wait_stream(first)

    def backward():
        with torch.cuda.stream(second):
            torch.cuda._sleep(SLEEP)
            job.upstream.copy_(late)
            found.extend(torch.autograd.grad(value, job.leaves, job.upstream))
            found[:] = [grad.clone() for grad in found]

    thread = threading.Thread(target=backward)
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    assert bits_of(found) == bits_of(job.run()[1:])


@each_dtype
@every_job
def test_a_captured_graph_replays_with_other_inputs(name, dtype):
    job = job_of(name, dtype)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            job.run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = job.run()
    seen = []
    for seed in (1, 2, 1):
        job.load(job.values(seed))
        graph.replay()
        torch.cuda.synchronize()
        seen.append(bits_of(results))
        assert seen[-1] == bits_of(job.run())
    assert seen[0] == seen[2] != seen[1]


@each_dtype
@every_job
def test_nothing_waits_for_the_device(name, dtype):
    job = job_of(name, dtype)
    torch.cuda.set_sync_debug_mode("error")
    try:
        job.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_waiting_would_be_noticed():
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            torch.ones((), device=DEVICE).item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def kernels_of(call):
    """The names of the kernels that a call launches, and what it returns."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        result = call()
        torch.cuda.synchronize()
    names = [
        event.name
        for event in profile.events()
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    return [name for name in names if not name.startswith(("Memcpy", "Memset"))], result


def test_launches_are_counted():
    kernels_of(lambda: torch.ones(5, device=DEVICE))  # the profiler has its own first call
    assert len(kernels_of(lambda: torch.ones(5, device=DEVICE).sin().cos())[0]) == 3


# forward and backward; a graph's gradient comes with the value, 2 are torch's: the unit upstream
# gradient beforehand, and the scaling
@each_dtype
@pytest.mark.parametrize("name, forward, backward", [("pairwise", 2, 1), ("graph", 4, 3)])
def test_launches(name, forward, backward, dtype):
    job = job_of(name, dtype)
    kernels_of(job.run)
    launched, value = kernels_of(job.call)
    assert 0 < len(launched) <= forward, launched
    grad = lambda: torch.autograd.grad(value, job.leaves, job.upstream)  # noqa: E731
    launched, _ = kernels_of(grad)
    assert 0 < len(launched) <= backward, launched


def test_an_in_place_prox_makes_three_launches():
    W = torch.randn(3000, 65, device=DEVICE)
    kernels_of(lambda: mtlfast.pairwise_prox_(W, 0.1))
    launched, _ = kernels_of(lambda: mtlfast.pairwise_prox_(W, 0.1))
    assert 0 < len(launched) <= 3, launched
