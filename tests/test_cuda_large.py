"""More than 2³¹ elements, peak memory, and several devices.

On the CPU (MTLFAST_TEST_DEVICE=cpu) the same tests run with fewer tasks.
"""

import cuda_jobs
import devices
import pytest
import torch
from cases import HALVES, ROUNDOFF, bits, upstream_like
from cuda_jobs import JOBS
from devices import DEVICE, ON_GPU

import mtlfast
from mtlfast import TaskGraph, graph_reg, pairwise_prox_, pairwise_reg

pytestmark = devices.any_device
gpu = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
each_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)

ELEMENTS = 2**31 if ON_GPU else 2**15
CHUNK = ELEMENTS // 2**6 + 1000  # elements met at once in float64
SMALL = 32 * 2**20  # bytes that a call may take beside its results


def needs(gigabytes):
    if ON_GPU:
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(DEVICE)[0] / 2**30
        if free < gigabytes:
            pytest.skip(f"needs {gigabytes:.0f} GiB, {free:.0f} GiB are free")


def ranges(num_tasks, dim):
    rows = CHUNK // dim
    return [slice(i, min(i + rows, num_tasks)) for i in range(0, num_tasks, rows)]


def numbers(rows, dim, dtype):
    """Those rows of W, the same at every call: what was overwritten can be made again."""
    make = torch.Generator(DEVICE).manual_seed(rows.start)
    shape = (rows.stop - rows.start, dim)
    noise = torch.randn(shape, generator=make, device=DEVICE, dtype=torch.float32)
    return (1 + 0.25 * noise).to(dtype)


def tasks(dim, dtype):
    """W with just more than ``ELEMENTS`` elements."""
    W = torch.empty(ELEMENTS // dim + 1, dim, dtype=dtype, device=DEVICE)
    for rows in ranges(*W.shape):
        W[rows] = numbers(rows, dim, dtype)
    return W


def mean_of(num_tasks, dim, dtype):
    total = torch.zeros(dim, dtype=torch.float64, device=DEVICE)
    for rows in ranges(num_tasks, dim):
        total += numbers(rows, dim, dtype).double().sum(0)
    return total / num_tasks


class Distance:
    """‖got − want‖ and ‖want‖, chunk by chunk."""

    def __init__(self):
        self.error = self.size = 0.0

    def add(self, got, want):
        self.error += (got.double() - want).square().sum().item()
        self.size += want.square().sum().item()

    def check(self, gate, dtype):
        bound = gate * ROUNDOFF[torch.float32] + (ROUNDOFF[dtype] if dtype in HALVES else 0)
        assert self.size > 0
        assert (self.error / self.size) ** 0.5 <= bound


def close(value, want, gate=32):
    assert abs(value.item() - want) <= gate * ROUNDOFF[torch.float32] * want


@each_dtype
@pytest.mark.parametrize("dim", [64, 1000])
def test_pairwise(dim, dtype):
    needs(2.6 * ELEMENTS * dtype.itemsize / 2**30)
    W = tasks(dim, dtype).requires_grad_()
    assert W.numel() > ELEMENTS
    value = pairwise_reg(W, reduction="mean")
    upstream = upstream_like(value)
    value.backward(upstream)
    K, mean = len(W), mean_of(*W.shape, dtype)
    total, grad = 0.0, Distance()
    for rows in ranges(*W.shape):
        centred = W.detach()[rows].double() - mean
        total += centred.square().sum().item()
        grad.add(W.grad[rows], upstream.item() * 4 / (K - 1) * centred)
    close(value, 2 / (K - 1) * total)
    grad.check(16 + 4, dtype)  # the quotient by the number of pairs is rounded too


@each_dtype
def test_prox_in_place(dtype):
    needs(1.6 * ELEMENTS * dtype.itemsize / 2**30)
    W = tasks(64, dtype)
    K, mean, moved = len(W), mean_of(*W.shape, dtype), Distance()
    step = 0.25 / K  # shrinks by two
    assert pairwise_prox_(W, step) is W
    for rows in ranges(*W.shape):
        moved.add(W[rows], mean + (numbers(rows, 64, dtype).double() - mean) / 2)
    moved.check(64, dtype)


@each_dtype
def test_graph(dtype):
    """A chain with a link from the first task to the last."""
    dim = 1024
    needs(2.8 * ELEMENTS * dtype.itemsize / 2**30)
    W = tasks(dim, dtype).requires_grad_()
    K = len(W)
    here = torch.arange(K, device=DEVICE)
    graph = TaskGraph.from_edges(torch.stack([here, (here + 1) % K]))
    value = graph_reg(W, graph)
    upstream = upstream_like(value)
    value.backward(upstream)
    total, grad = 0.0, Distance()
    for rows in ranges(K, dim):
        around = torch.arange(rows.start - 1, rows.stop + 1, device=DEVICE) % K
        w = W.detach()[around].double()
        steps = w[1:] - w[:-1]
        total += steps[1:].square().sum().item()
        grad.add(W.grad[rows], 2 * upstream.item() * (steps[:-1] - steps[1:]))
    close(value, total)
    grad.check(64, dtype)


def peak_of(call):
    """Bytes that a call takes at most, beside what was there, and those that it leaves."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    kept = call()
    torch.cuda.synchronize()
    peak, after = torch.cuda.max_memory_allocated(DEVICE), torch.cuda.memory_allocated(DEVICE)
    return peak - before, after - before, kept


@gpu
@each_dtype
@pytest.mark.parametrize("name", ["pairwise", "graph", "groups"])
def test_peak_memory(name, dtype):
    """The gradient and little more: no copy of W, nothing of size E·d or K×K."""
    job = cuda_jobs.make(name, DEVICE, dtype, K=2**20, d=64)
    if job.by_reference():
        pytest.skip(f"{name}: the reference runs {', '.join(job.by_reference())}")
    job.run()
    peak, _, results = peak_of(job.run)
    gradient = sum(t.numel() * t.itemsize for t in results)
    assert gradient >= 2**26 * dtype.itemsize
    assert peak <= gradient + SMALL


@gpu
def test_in_place_forms_take_no_memory():
    W, grad = (torch.randn(2**20, 64, device=DEVICE) for _ in range(2))
    for call in (
        lambda: mtlfast.pairwise_add_grad_(grad, W),
        lambda: mtlfast.pairwise_prox_(W, 1e-9),
    ):
        call()
        assert peak_of(call)[0] <= SMALL


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", JOBS)
def test_the_device_of_the_tensors_counts(name):
    """Not the current one, which stays what it was."""
    here, there = torch.device("cuda", 0), torch.device("cuda", 1)
    job = cuda_jobs.make(name, here)
    other = cuda_jobs.make(name, there)
    with torch.cuda.device(here):
        results = other.run()
        assert torch.cuda.current_device() == 0
    assert all(t.device == there for t in results)
    if not (job.by_reference() or job.waits):
        assert [bits(t) for t in results] == [bits(t) for t in job.run()]
