"""The Python side of the CUDA kernels, on tensors in host memory: the kernels run in the shim."""

import ctypes
import re

import pytest
import torch
from cuda_shim import build

from mtlfast import _native, _native_cuda

pytestmark = [
    pytest.mark.skipif(bool(build.why_not()), reason=build.why_not()),
    pytest.mark.skipif(_native._C is None, reason=f"no native module: {_native.missing}"),
]
each_dtype = pytest.mark.parametrize("dtype", list(_native._CODES), ids=str)


class Shim:
    """The functions of the compiled module that start CUDA kernels, by way of the shim."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        names = re.findall(r"m\.def\(\"cuda_(\w+)\"", (build.ROOT / "csrc/module.cpp").read_text())
        for name in names:
            setattr(self, f"cuda_{name}", self._function(name))

    def _function(self, name):
        function = getattr(self._library, name)
        is_size = name.endswith("_workspace")
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
    monkeypatch.setattr(_native_cuda, "_kernels", Shim(library))
    monkeypatch.setattr(_native_cuda, "current_stream", lambda index: 4711)


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
        (*_native_cuda.pairwise_value(w), *_native_cuda.pairwise_value_grad(w)),
        (*_native.pairwise_value(w), *_native.pairwise_value_grad(w)),
        strict=True,
    ):
        close(actual, expected)


@each_dtype
@pytest.mark.parametrize("add_mean", [False, True])
def test_pairwise_affine(dtype, add_mean):
    w = tasks(dtype)
    _, mean = _native.pairwise_value(w)
    upstream = torch.tensor(0.75, dtype=dtype)
    actual = _native_cuda.pairwise_affine(w, mean, upstream, 0.3, add_mean)
    close(actual, _native.pairwise_affine(w, mean, upstream, 0.3, add_mean))


@each_dtype
@pytest.mark.parametrize("strided", [False, True])
def test_in_place(dtype, strided):
    w = tasks(dtype)
    _, mean = _native.pairwise_value(w)
    for name, args in (("pairwise_add_", (w, mean, 0.3)), ("pairwise_shrink_", (mean, 0.3))):
        results = []
        for room in (_native, _native_cuda):
            out = tasks(dtype, (37, 42))[:, ::2] if strided else tasks(dtype)
            version = out._version
            getattr(room, name)(out, *args)
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
    weight = (weight + weight.T)[row, col].to(_native.real_dtype(dtype))
    return row_ptr, col.int(), weight


@each_dtype
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_graph_value(dtype, ordered, scaled):
    w, order = tasks(dtype, (300, 21)), None
    csr = graph(dtype, 300)
    if ordered:
        order = torch.randperm(300, generator=torch.Generator().manual_seed(2)).int()
        csr = _native.graph_reorder(*csr, order)
    scale = torch.tensor(0.75, dtype=dtype) if scaled else None
    results = [room.graph_value(w, *csr, order, scale) for room in (_native, _native_cuda)]
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)


@each_dtype
@pytest.mark.parametrize("strided", [False, True])
def test_graph_in_place(dtype, strided):
    w, csr = tasks(dtype, (60, 21)), graph(dtype, 60)
    results = []
    for room in (_native, _native_cuda):
        out = tasks(dtype, (60, 42))[:, ::2] if strided else tasks(dtype, (60, 21))
        version = out._version
        value = room.graph_add_(out, w, *csr, None, 0.3)
        assert out._version > version
        results.append((value, out))
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)


@each_dtype
def test_edge_distance(dtype):
    w, make = tasks(dtype, (60, 21)), torch.Generator().manual_seed(3)
    src, dst = (torch.randint(60, (100,), generator=make) for _ in range(2))
    close(_native_cuda.edge_distance(w, src, dst), _native.edge_distance(w, src, dst))


@each_dtype
@pytest.mark.parametrize("scaled", [False, True])
def test_dense_graph(dtype, scaled):
    w, make = tasks(dtype, (60, 21)), torch.Generator().manual_seed(4)
    a = torch.rand((60, 60), generator=make, dtype=_native.real_dtype(dtype))
    scale = torch.tensor(0.75, dtype=dtype) if scaled else None
    results = [room.dense_graph_value(w, a, scale) for room in (_native, _native_cuda)]
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)
    close(_native_cuda.dense_distance(w), _native.dense_distance(w))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_elements(shape):
    w = torch.empty(shape)
    value, mean = _native_cuda.pairwise_value(w)
    assert value == 0
    assert torch.equal(mean, torch.zeros(2, shape[1]))
    assert _native_cuda.pairwise_value_grad(w)[1].shape == shape
    no_edges = torch.zeros(shape[0] + 1, dtype=torch.int64), torch.empty(0).int(), torch.empty(0)
    value, grad = _native_cuda.graph_value(w, *no_edges, None, torch.ones(()))
    assert value == 0
    assert grad.shape == shape
    value, grad = _native_cuda.dense_graph_value(w, torch.ones(shape[0], shape[0]), torch.ones(()))
    assert value == 0
    assert grad.shape == shape
    assert not _native_cuda.dense_distance(w).any()
    assert _native_cuda.edge_distance(w, *torch.empty(2, 0).long()).shape == (0,)
