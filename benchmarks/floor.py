"""Floors: calls that move the bytes of a job and do nothing else, from floor.cpp, compiled here."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

STREAMED = 1 << 26  # bytes from which writing past the caches is the faster way


@functools.cache
def library():
    """The compiled floors, or None where there is no compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        print("no floors: g++ is not installed", flush=True)
        return None
    target = Path(tempfile.mkdtemp()) / "floor.so"
    flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi"]
    source = Path(__file__).with_name("floor.cpp")
    subprocess.run([compiler, *flags, str(source), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def _address(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def _call(*steps):
    """A call of floor functions in turn: (name, arguments)."""
    if library() is None:
        return None
    threads = ctypes.c_int(torch.get_num_threads())
    calls = [(getattr(library(), name), arguments) for name, arguments in steps]

    def run():
        for function, arguments in calls:
            function(*arguments, threads)

    return run


def _usable(W):
    return W.dtype == torch.float32 and W.numel() % 128 == 0


def value_and_gradient(W):
    """Reads W twice, writes a gradient once, into memory that is there."""
    out, n = torch.zeros_like(W), ctypes.c_int64(W.numel())
    mode = ctypes.c_int(2 if W.numel() * 4 >= STREAMED and out.data_ptr() % 64 == 0 else 0)
    run = _call(
        ("floor_read", (_address(W), n)), ("floor_write", (_address(W), _address(out), n, mode))
    )
    return _kept(run, W, out) if _usable(W) else None


def add_in_place(W, grad):
    """Reads W twice, reads and writes the gradient once."""
    n, mode = ctypes.c_int64(W.numel()), ctypes.c_int(1)
    run = _call(
        ("floor_read", (_address(W), n)), ("floor_write", (_address(W), _address(grad), n, mode))
    )
    return _kept(run, W, grad) if _usable(W) else None


def change_in_place(W):
    """Reads W twice, writes it once."""
    W = torch.zeros_like(W)
    n, mode = ctypes.c_int64(W.numel()), ctypes.c_int(0)
    run = _call(
        ("floor_read", (_address(W), n)), ("floor_write", (_address(W), _address(W), n, mode))
    )
    return _kept(run, W) if _usable(W) else None


def gather(W, col):
    """Reads row col[k] of W for every k."""
    edges, d = ctypes.c_int64(col.numel()), ctypes.c_int64(W.shape[1])
    run = _call(("floor_gather", (_address(W), _address(col), edges, d)))
    return _kept(run, W, col) if W.shape[1] % 16 == 0 and W.dtype == torch.float32 else None


def _kept(run, *tensors):
    """``run``, which keeps the tensors whose addresses it uses."""
    if run is None:
        return None
    return lambda: (run(), tensors)[0]
