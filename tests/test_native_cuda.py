"""The Python side of the CUDA kernels, on tensors in host memory: the kernels run in the shim."""

import ctypes
import math
import re
from types import SimpleNamespace

import pytest
import torch
from cuda_shim import build
from torch.utils._python_dispatch import TorchDispatchMode

from mtlfast import TaskGraph, _native
from mtlfast._dtypes import CODES, real_dtype
from mtlfast._ops import _registry

pytestmark = [
    pytest.mark.skipif(bool(build.why_not()), reason=build.why_not()),
    pytest.mark.skipif(_native._C is None, reason=f"no native module: {_native.missing}"),
]
NATIVE = _native._C
CPU, CUDA = (SimpleNamespace(**kernels) for kernels in (_registry.CPU, _registry.CUDA))
each_dtype = pytest.mark.parametrize("dtype", list(CODES), ids=str)


class Shim:
    """The functions of the compiled module that start CUDA kernels, by way of the shim."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        texts = [path.read_text() for path in (build.ROOT / "csrc/bind").glob("*.h")]
        for name in re.findall(r"m\.def\(\"cuda_(\w+)\"", "".join(texts)):
            setattr(self, f"cuda_{name}", self._function(name))

    def __getattr__(self, name):  # kernels for the CPU
        return getattr(NATIVE, name)

    def _function(self, name):
        function = getattr(self._library, name)
        is_size = name.endswith(("_workspace", "_matrices"))
        function.restype = ctypes.c_int64 if is_size else ctypes.c_char_p

        def call(*args):
            if not is_size:
                *args, device, stream = args
                assert (device, stream) == (-1, 4711)  # a tensor on the CPU has no index
            error = function(*(ctypes.c_double(a) if type(a) is float else _wide(a) for a in args))
            assert is_size or error is None, error
            return error

        return call


def _wide(number):
    return ctypes.c_uint64(number) if number >= 0 else ctypes.c_int64(number)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build.build(tmp_path_factory.mktemp("cuda_shim"))


@pytest.fixture(autouse=True)
def shim(library, monkeypatch):
    monkeypatch.setattr(_native, "_C", Shim(library))
    monkeypatch.setattr(_native, "current_stream", lambda index: 4711)


def tasks(dtype, shape=(37, 21)):
    return (1 + torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)


def close(actual, expected, units=4):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    u = torch.finfo(actual.dtype).eps / 2
    error = (actual - expected).double().norm()
    assert error <= units * u * expected.double().norm(), float(error)


@each_dtype
@pytest.mark.parametrize("transposed", [False, True])
def test_pairwise_value(dtype, transposed):
    w = tasks(dtype).T if transposed else tasks(dtype)
    for actual, expected in zip(
        (*CUDA.pairwise_value(w), *CUDA.pairwise_value_grad(w)),
        (*CPU.pairwise_value(w), *CPU.pairwise_value_grad(w)),
        strict=True,
    ):
        close(actual, expected)


@each_dtype
@pytest.mark.parametrize("add_mean", [False, True])
def test_pairwise_affine(dtype, add_mean):
    w = tasks(dtype)
    _, mean = CPU.pairwise_value(w)
    upstream = torch.tensor(0.75, dtype=dtype)
    actual = CUDA.pairwise_affine(w, mean, upstream, 0.3, add_mean)
    close(actual, CPU.pairwise_affine(w, mean, upstream, 0.3, add_mean))


@each_dtype
@pytest.mark.parametrize("strided", [False, True])
def test_in_place(dtype, strided):
    w = tasks(dtype)
    _, mean = CPU.pairwise_value(w)
    for name, args in (("pairwise_add_", (w, mean, 0.3)), ("pairwise_shrink_", (mean, 0.3))):
        results = []
        for kernels in (CPU, CUDA):
            out = tasks(dtype, (37, 42))[:, ::2] if strided else tasks(dtype)
            version = out._version
            getattr(kernels, name)(out, *args)
            assert out._version > version
            results.append(out)
        close(*results)


def graph(dtype, num_tasks):
    """CSR rows, in an order, of a graph with a hub and a task without edges."""
    make = torch.Generator().manual_seed(1)
    weight = torch.rand((num_tasks, num_tasks), generator=make) + 0.1
    linked = weight < 0.3
    linked[0] = True
    linked |= linked.T.clone()
    linked[-1] = linked[:, -1] = False
    linked.fill_diagonal_(False)
    row, col = linked.nonzero(as_tuple=True)
    row_ptr = torch.cat([torch.zeros(1, dtype=torch.int64), linked.sum(1).cumsum(0)])
    weight = (weight + weight.T)[row, col].to(real_dtype(dtype))
    return row_ptr, col.int(), weight


@each_dtype
@pytest.mark.parametrize("strengths", [(0.5, 0.01, 2.0), (0.0, 0.01, 1.0), (0.5, 0.0, 1.0)])
@pytest.mark.parametrize("edges", [True, False])
def test_quadratic(dtype, strengths, edges):
    w, order = tasks(dtype, (300, 21)), torch.arange(300).flip(0).int()
    csr = _native.graph_order.graph_reorder(*graph(dtype, 300), order)
    if not edges:
        csr = torch.zeros_like(csr[0]), csr[1][:0], csr[2][:0]
    results = []
    for kernels in (CPU, CUDA):
        added = tasks(dtype, (300, 42))[:, ::2]
        version = added._version
        value = kernels.quadratic_add_(added, w, *csr, order, *strengths, 0.3)
        assert added._version > version
        both = (
            kernels.quadratic_value(w, *csr, order, *strengths, grad)[:part]
            for grad, part in ((True, 2), (False, 1))
        )
        results.append((value, added, *(tensor for some in both for tensor in some)))
    for expected, actual in zip(*results, strict=True):
        close(actual, expected, units=16)


@each_dtype
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_graph_value(dtype, ordered, scaled):
    w, order = tasks(dtype, (300, 21)), None
    csr = graph(dtype, 300)
    if ordered:
        order = torch.randperm(300, generator=torch.Generator().manual_seed(2)).int()
        csr = _native.graph_order.graph_reorder(*csr, order)
    scale = torch.tensor(0.75, dtype=dtype) if scaled else None
    results = [kernels.graph_value(w, *csr, order, scale) for kernels in (CPU, CUDA)]
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)


@each_dtype
@pytest.mark.parametrize("strided", [False, True])
def test_graph_in_place(dtype, strided):
    w, csr = tasks(dtype, (60, 21)), graph(dtype, 60)
    results = []
    for kernels in (CPU, CUDA):
        out = tasks(dtype, (60, 42))[:, ::2] if strided else tasks(dtype, (60, 21))
        version = out._version
        value = kernels.graph_add_(out, w, *csr, None, 0.3)
        assert out._version > version
        results.append((value, out))
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)


@each_dtype
def test_edge_distance(dtype):
    w, make = tasks(dtype, (60, 21)), torch.Generator().manual_seed(3)
    src, dst = (torch.randint(60, (100,), generator=make) for _ in range(2))
    close(CUDA.edge_distance(w, src, dst), CPU.edge_distance(w, src, dst))


@each_dtype
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_graph_total_variation(dtype, size):
    w = tasks(torch.float32, (60, 21)).to(dtype)
    w = w * size if dtype in (torch.float32, torch.float64) else w
    w[5] = w[7]
    graph = TaskGraph.from_edges(torch.arange(120).view(2, 60) % 57, None, 60)
    csr = graph.row_ptr, graph.col, graph.weight_as(real_dtype(dtype)), None
    for scale in (None, torch.ones((), dtype=dtype)):
        results = [kernels.graph_total_variation_value(w, *csr, scale) for kernels in (CPU, CUDA)]
        close(results[1][0] / size, results[0][0] / size)
        close(results[1][1], results[0][1])
    outs = [torch.ones_like(w), torch.ones_like(w)]
    for kernels, out in zip((CPU, CUDA), outs, strict=True):
        kernels.graph_total_variation_add_(out, w, *csr, 0.5)
    close(outs[1], outs[0])


@each_dtype
@pytest.mark.parametrize("scaled", [False, True])
def test_dense_graph(dtype, scaled):
    w, make = tasks(dtype, (60, 21)), torch.Generator().manual_seed(4)
    a = torch.rand((60, 60), generator=make, dtype=real_dtype(dtype))
    scale = torch.tensor(0.75, dtype=dtype) if scaled else None
    results = [kernels.dense_graph_value(w, a, scale) for kernels in (CPU, CUDA)]
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)
    close(CUDA.dense_distance(w), CPU.dense_distance(w))


@each_dtype
@pytest.mark.parametrize("wanted", [(True, True), (False, True), (True, False), (False, False)])
def test_gram_edges(dtype, wanted):
    w, (row_ptr, col, values) = tasks(dtype, (60, 21)), graph(dtype, 60)
    row = torch.repeat_interleave(row_ptr.diff())
    results = [kernels.gram_edges(w, row, col.long(), values, *wanted) for kernels in (CPU, CUDA)]
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)


@each_dtype
@pytest.mark.parametrize("scaled", [False, True])
def test_group(dtype, scaled):
    w, make = tasks(dtype, (500, 21)), torch.Generator().manual_seed(5)
    ptr = torch.tensor([0, 2, 2, 52, 352, 490])  # ten tasks in no group
    member = torch.randperm(500, generator=make)[:490]
    scale = torch.tensor(0.75, dtype=dtype) if scaled else None
    results = [kernels.group_value(w, ptr, member, scale) for kernels in (CPU, CUDA)]
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)
    close(*(kernels.group_prox(w, ptr, member, 0.3) for kernels in (CUDA, CPU)))
    few = torch.tensor([0, 2, 9]), torch.arange(20, 2, -2)
    close(*(kernels.group_prox(w.T, *few, 0.3) for kernels in (CUDA, CPU)))


# float64 results are those of different roundings; 70 columns go through torch
MATRICES = [(5, 7, 4), (2, 3, 4, 9), (8, 8), (3, 70, 66)]


def both_trace_norms(w, t):
    """Value and subgradient, value alone, prox, and prox in place, of either kernels."""
    for kernels in (CPU, CUDA):
        out = w.clone()
        version = out._version
        kernels.trace_norm_shrink_(out, t)
        assert out._version > version or not w.numel()
        yield (
            *kernels.trace_norm_value(w, True),
            kernels.trace_norm_value(w, False)[0],
            (kernels.trace_norm_shrink(w, t)),
            out,
        )


@each_dtype
@pytest.mark.parametrize("shape", MATRICES, ids=str)
@pytest.mark.parametrize("strided", [False, True])
def test_trace_norm(dtype, shape, strided):
    w = tasks(dtype, shape)
    if strided:
        w = tasks(dtype, (*shape, 2))[..., 0].mT
    t = torch.linspace(0, 3, max(w[..., 0, 0].numel(), 1), dtype=torch.float64)
    expected, actual = both_trace_norms(w, t.reshape(w.shape[:-2]))
    for a, b in zip(expected, actual, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        error = torch.linalg.vector_norm(a.double() - b.double())
        tolerance = {torch.float64: 1e-11, torch.float32: 1e-5}.get(
            dtype, 2 * torch.finfo(dtype).eps
        )
        assert error <= tolerance * torch.linalg.vector_norm(a.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(5, 7, 4), (5, 70, 66)], ids=str)
@pytest.mark.parametrize("check", [False, True])
def test_trace_norm_of_bad_values(dtype, shape, check):
    """Asked to look, an op raises and has changed nothing; else NaN, in the matrices concerned."""
    w, t = tasks(dtype, shape), torch.full(shape[:1], 0.5, dtype=torch.float64)
    good = [CUDA.trace_norm_value(w, True), CUDA.trace_norm_shrink(w, t)]
    w[1, 2, 3], w[4, 0, 0] = math.nan, -math.inf
    t[2] = -1.0
    before = w.clone()
    if check:
        with pytest.raises(ValueError, match=r"trace_norm: W must be finite, got nan at index"):
            CUDA.trace_norm_value(w, True, True)
        with pytest.raises(ValueError, match="prox: threshold must be finite and >= 0"):
            CUDA.trace_norm_shrink(w, t, True)
        for bad_t in (t, t.abs()):
            with pytest.raises(ValueError, match="trace_norm_prox_: "):
                CUDA.trace_norm_shrink_(w, bad_t, True)
        assert torch.equal(w.nan_to_num(), before.nan_to_num())
        return
    value, unit = CUDA.trace_norm_value(w, True, False)
    z = CUDA.trace_norm_shrink(w, t, False)
    CUDA.trace_norm_shrink_(w, t, False)
    assert torch.equal(w.nan_to_num(), z.nan_to_num())
    for k in range(shape[0]):
        assert value[k].isnan() == (k in (1, 4))
        assert unit[k].isnan().all() if k in (1, 4) else torch.equal(unit[k], good[0][1][k])
        assert z[k].isnan().all() if k in (1, 2, 4) else torch.equal(z[k], good[1][k])


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function._schema.name)
        return function(*args, **(kwargs or {}))


def test_trace_norm_does_not_wait():
    """No tensor is read by the host, nor asked how many of its elements are set, unless told to."""
    w, t = tasks(torch.float32, (5, 7, 4)), torch.full((5,), 0.5, dtype=torch.float64)

    def seen(check):
        with Recorder() as recorder:
            CUDA.trace_norm_value(w, True, check)
            CUDA.trace_norm_shrink(w, t, check)
            CUDA.trace_norm_shrink_(w.mT.clone().mT, t, check)
        return {name.removeprefix("aten::") for name in recorder.seen}

    waits = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}
    assert seen(True) & waits
    assert not seen(False) & waits


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 4, 0), (0, 0)], ids=str)
def test_trace_norm_of_nothing(shape):
    w, t = torch.empty(shape), torch.zeros(shape[:-2], dtype=torch.float64)
    for expected, actual in zip(*both_trace_norms(w, t), strict=True):
        assert torch.equal(expected, actual)


def chain(num_tasks, weight=1.0):
    i = torch.arange(num_tasks - 1)
    row, order = torch.cat([i, i + 1]).sort(stable=True)
    row_ptr = torch.searchsorted(row, torch.arange(num_tasks + 1))
    return row_ptr, torch.cat([i + 1, i])[order].int(), torch.full(row.shape, weight)


@each_dtype
@pytest.mark.parametrize("panel", [2**27, 2**5])
@pytest.mark.parametrize("shape", [(300, 1), (40, 70), (2, 3)])
def test_graph_prox(dtype, shape, panel, monkeypatch):
    monkeypatch.setattr(_native.graph_prox, "_PANEL", panel)
    w = tasks(dtype, shape)
    if shape[1] > 1:
        w[1, 1] = torch.nan
    tol = 1e-10 if dtype == torch.float64 else 1e-7
    for csr, step in ((graph(dtype, shape[0]), 0.1), (chain(shape[0]), 30.0)):
        results = [r.graph_prox(w, *csr, None, None, step, tol, 1000) for r in (CUDA, CPU)]
        assert torch.equal(*(result.isnan() for result in results))
        actual, expected = (result.nan_to_num() for result in results)
        rounding = torch.finfo(dtype).eps * expected.double().norm()
        error = (actual - expected).double().norm()
        assert error <= 2 * tol * w.double().nan_to_num().norm() + 2 * rounding, float(error)


def test_graph_prox_starts_again(monkeypatch):
    """Where the recurrence strays from the true residual; looks change no bit."""
    w, csr = tasks(torch.float64, (400, 2)), chain(400)
    results = []
    for poll in (1, 8, 50):
        monkeypatch.setattr(_native.graph_prox, "_POLL", poll)
        results.append(CUDA.graph_prox(w, *csr, None, None, 1e3, 2e-13, 5000))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    expected = CPU.graph_prox(w, *csr, None, None, 1e3, 2e-13, 5000)
    assert (results[0] - expected).norm() <= 4e-13 * w.norm()


def random_csr(num_tasks, num_edges, weight=1.0):
    edges = torch.randint(num_tasks, (2, num_edges), generator=torch.Generator().manual_seed(1))
    found = TaskGraph.from_edges(edges, None, num_tasks)
    return found.row_ptr, found.col, weight * found.weight_as(torch.float64)


@pytest.mark.parametrize(
    ("csr", "step", "max_iter"),
    [
        (chain(40, -1.0), 1.0, 50),
        (chain(90, -1.0), 1.0, 50),
        (chain(90, -0.2), 1.5, 50),
        (random_csr(12000, 80000), 1e3, 2),
    ],
    ids=["small", "diagonal", "curvature", "slow"],
)
def test_graph_prox_without_a_solution(csr, step, max_iter):
    w, said = tasks(torch.float64, (csr[0].shape[0] - 1, 3)), []
    for kernels in (CPU, CUDA):
        with pytest.raises((ValueError, RuntimeError)) as caught:
            kernels.graph_prox(w, *csr, None, None, step, 1e-10, max_iter)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


@each_dtype
def test_graph_prox_by_pieces(dtype):
    """Small and large pieces, isolated tasks, weights and steps of any size, W far from 1."""
    random = torch.Generator().manual_seed(2)
    edges, first = [], 0
    for size in (1, 2, 63, 64, 70, 1, 150, 9):
        inside = torch.randint(size, (2, 4 * size), generator=random)
        path = torch.stack([torch.arange(size - 1), torch.arange(1, size)])
        edges += [inside + first, path + first]
        first += size
    edges, order = torch.cat(edges, 1), torch.randperm(first, generator=random)
    weight = 10 ** (24 * torch.rand(edges.shape[1], generator=random, dtype=torch.float64) - 12)
    found = TaskGraph.from_edges(order[edges], weight, first)
    scales = [1.0, 1e-200, 1e200] if dtype == torch.float64 else [1.0]
    for scale in scales:
        w = tasks(dtype, (first, 21)) * scale
        w[order[4], 3] = torch.inf
        for step in (1e-3, 1e6, 1e300):
            arguments = *found.by_pieces(), step, 1e-10, 4000
            results = [kernels.graph_prox(w, *arguments) for kernels in (CUDA, CPU)]
            assert torch.equal(*(result.isnan() for result in results))
            actual, expected = (result.nan_to_num() for result in results)
            apart = ((actual.double() - expected.double()) / scale).norm()
            rounding = torch.finfo(dtype).eps if dtype != torch.float64 else 1e-10
            assert apart <= 2 * rounding * (expected.double() / scale).norm(), float(apart)


def test_graph_prox_of_clusters():
    """Where the recurrence is right and the true residual is not: the error is solved for."""
    random = torch.Generator().manual_seed(3)
    edges = torch.cat([torch.randint(50, (2, 400), generator=random) + k for k in (0, 50)], 1)
    edges = torch.cat([edges, torch.tensor([[0], [99]])], 1)
    weight = torch.full(edges.shape[1:], 1e12, dtype=torch.float64)
    weight[-1] = 1
    found = TaskGraph.from_edges(edges, weight, 100)
    w = tasks(torch.float64, (100, 5))
    results = [
        kernels.graph_prox(w, *found.by_pieces(), 1.0, 1e-10, 1000) for kernels in (CUDA, CPU)
    ]
    assert (results[0] - results[1]).norm() <= 1e-9 * w.norm()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_elements(shape):
    w = torch.empty(shape)
    value, mean = CUDA.pairwise_value(w)
    assert value == 0
    assert torch.equal(mean, torch.zeros(2, shape[1]))
    assert CUDA.pairwise_value_grad(w)[1].shape == shape
    no_edges = torch.zeros(shape[0] + 1, dtype=torch.int64), torch.empty(0).int(), torch.empty(0)
    value, grad = CUDA.graph_value(w, *no_edges, None, torch.ones(()))
    assert value == 0
    assert grad.shape == shape
    groups = torch.zeros(1, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    value, grad = CUDA.group_value(w, *groups, torch.ones(()))
    assert value == 0
    assert CUDA.graph_prox(w, *no_edges, None, None, 0.3, 1e-7, 9).shape == shape
    assert grad.shape == CUDA.group_prox(w, *groups, 0.3).shape == shape
    value, grad = CUDA.dense_graph_value(w, torch.ones(shape[0], shape[0]), torch.ones(()))
    assert value == 0
    assert grad.shape == shape
    assert not CUDA.dense_distance(w).any()
    assert CUDA.edge_distance(w, *torch.empty(2, 0).long()).shape == (0,)
    edges = torch.empty(2, 0).long() if shape[0] == 0 else torch.zeros(2, 1).long()
    values = torch.ones(edges.shape[1])
    value, grad, values_grad = CUDA.gram_edges(w, *edges, values, True, True)
    assert value == values.square().sum()
    assert grad.shape == shape
    assert torch.equal(values_grad, 2 * values)
