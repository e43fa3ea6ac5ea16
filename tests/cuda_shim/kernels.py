"""The CUDA launchers in a shim library, called with numpy arrays.

Every array lies in a buffer that ends where the array ends, so that AddressSanitizer sees an
element too many; ``shift`` elements in front of it move it off the alignment of vectors.
"""

import contextlib
import ctypes
from dataclasses import dataclass

import numpy as np

PLUS_NOTHING, PLUS_MEAN, PLUS_OUT = range(3)


@dataclass(frozen=True)
class Element:
    """An element type of W: its code, how it is stored, its arithmetic type and unit roundoffs."""

    name: str
    code: int
    storage: type
    real: type
    unit: float  # of the arithmetic type
    rounding: float  # of the stored type

    def encode(self, x):
        if self.name != "bfloat16":
            return np.asarray(x, self.storage)
        bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # finite x

    def decode(self, stored):
        if self.name != "bfloat16":
            return stored.astype(np.longdouble)
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.longdouble)


ELEMENTS = [
    Element("float32", 0, np.float32, np.float32, 2.0**-24, 2.0**-24),
    Element("float64", 1, np.float64, np.float64, 2.0**-53, 2.0**-53),
    Element("bfloat16", 2, np.uint16, np.float32, 2.0**-24, 2.0**-8),
    Element("float16", 3, np.float16, np.float32, 2.0**-24, 2.0**-11),
]


def tight(array, shift=0):
    """A copy that ends with its buffer and begins ``shift`` elements into it."""
    array = np.ascontiguousarray(array)
    buffer = np.empty(array.size + shift, array.dtype)
    buffer[shift:] = array.reshape(-1)
    return buffer[shift:].reshape(array.shape)


def blank(shape, dtype, shift=0):
    """An array of NaN (all bits set) to be written to."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return tight(np.full(count, 255, np.uint8).view(dtype).reshape(shape), shift)


class ShimError(Exception):
    """What the shim saw: a barrier that cannot be passed, an overrun, a bad launch."""


class Kernels:
    """The launchers of one library."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))

    def seed(self, value):
        self._library.shim_seed(ctypes.c_uint64(value))

    @contextlib.contextmanager
    def only_block(self, block):
        """Launches run one block alone, so that arrays may be larger than time allows to read."""
        self._library.shim_only_block(ctypes.c_int64(block))
        yield
        self._library.shim_only_block(ctypes.c_int64(-1))

    def plant(self, number):
        """Switches a planted bug on; 0 is none. For a library that was built with them."""
        ctypes.c_int.in_dll(self._library, "mtlfast_planted").value = number

    def call(self, name, *args):
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        error = function(*(_as_c(arg) for arg in args))
        if error is not None:
            raise ShimError(error.decode())

    def workspace(self, name, *args):
        """How many bytes a launcher needs."""
        function = getattr(self._library, name)
        function.restype = ctypes.c_int64
        return function(*(_as_c(arg) for arg in args))

    def pairwise_value(self, element, w, scale):
        num_tasks, dim = w.shape
        value, mean = blank((1,), element.real), blank((2, dim), element.real)
        count = self.workspace("pairwise_workspace", element.code, num_tasks, dim)
        work = blank((count,), np.uint8)
        self.call("pairwise_value", element.code, w, num_tasks, dim, scale, value, mean, work)
        return value, mean

    def pairwise_affine(self, element, w, mean, factor, upstream, plus, out):
        self.call("pairwise_affine", element.code, w, mean, *w.shape, factor, upstream, plus, out)
        return out

    def graph_value(self, element, w, graph, scale, grad, factor, upstream, plus):
        """``graph`` is (row_ptr, col, weight, order or None)."""
        edges = len(graph[1])
        value = blank((1,), element.real)
        count = self.workspace("graph_workspace", element.code, *w.shape, edges)
        work = blank((count,), np.uint8)
        self.call(
            "graph_value", element.code, w, *graph, *w.shape, edges, scale, value, grad, factor,
            upstream, plus, work,
        )  # fmt: skip
        return value

    def edge_distance(self, element, w, src, dst):
        out = blank(src.shape, element.real)
        self.call("edge_distance", element.code, w, src, dst, len(src), w.shape[1], out)
        return out

    def dense_graph_value(self, element, w, a, scale, grad, factor, upstream, plus):
        value = blank((1,), element.real)
        work = blank((self.workspace("dense_graph_workspace", *w.shape),), np.uint8)
        self.call(
            "dense_graph_value", element.code, w, a, *w.shape, scale, value, grad, factor,
            upstream, plus, work,
        )  # fmt: skip
        return value

    def dense_distance(self, element, w):
        out = blank((len(w), len(w)), element.real)
        self.call("dense_distance", element.code, w, *w.shape, out)
        return out

    def edge_product(self, element, w, row, col):
        out = blank(row.shape, np.float64)
        self.call("edge_product", element.code, w, row, col, len(row), w.shape[1], out)
        return out

    def edge_sum(self, element, w, task, other, weight, factor, out):
        sizes = len(task), w.shape[1]
        work = blank((self.workspace("edge_sum_workspace", *sizes),), np.uint8)
        self.call("edge_sum", element.code, w, task, other, weight, *sizes, factor, out, work)
        return out

    def group_value(self, element, w, groups, scale, grad, factor, upstream):
        """``groups`` is (ptr, member)."""
        value = blank((1,), element.real)
        sizes = len(groups[0]) - 1, len(groups[1]), w.shape[1]
        work = blank((self.workspace("group_workspace", element.code, *sizes),), np.uint8)
        self.call(
            "group_value", element.code, w, *groups, *sizes, scale, value, grad, factor, upstream,
            work,
        )  # fmt: skip
        return value

    def group_prox(self, element, w, groups, step, out):
        sizes = len(groups[0]) - 1, len(groups[1]), w.shape[1]
        work = blank((self.workspace("group_workspace", element.code, *sizes),), np.uint8)
        self.call("group_prox", element.code, w, *groups, *sizes, step, out, work)
        return out

    def trace_norm_value(self, element, w, grad):
        value = blank(w.shape[:1], element.real)
        self.call("trace_norm_value", element.code, w, *w.shape, value, grad)
        return value

    def trace_norm_prox(self, element, w, threshold, out):
        self.call("trace_norm_prox", element.code, w, threshold, *w.shape, out)
        return out

    def graph_prox_small(self, element, w, graph, member, first, step, out):
        """``graph`` is (row_ptr, col, weight) by pieces; which of them are indefinite."""
        bad = blank((len(first) - 1,), np.int32)
        self.call(
            "graph_prox_small", element.code, w, *graph, member, first, len(first) - 1, w.shape[1],
            step, out, bad,
        )  # fmt: skip
        return bad

    def graph_prox(self, element, w, graph, step, tol, max_iter, out, poll, member=None):
        """``graph`` is (row_ptr, col, weight); gives the state, as the Python side goes on."""
        state = blank((6,), np.float64)
        sizes = len(graph[0]) - 1, w.shape[1], len(graph[1])
        work = blank((self.workspace("graph_prox_workspace", *sizes),), np.uint8)
        system = *graph, member, *sizes, step, state
        source = element.code, w, w.shape[1], 0
        self.call("graph_prox_load", *source, *system, work)
        for restart in range(10):
            self.call("graph_prox_residual", *source, *system, work)
            if not (state[0] > tol and state[1] < max_iter) or state[3]:
                break
            while not state[2]:
                self.call(
                    "graph_prox_iterate", *system, int(restart > 0), tol, max_iter, poll, work
                )
            if restart and not state[3]:
                self.call("graph_prox_correct", *system, work)
                if state[4] and state[5] <= tol:
                    state[0] = state[5]
                    break
        self.call("graph_prox_store", element.code, out, w.shape[1], 0, *system, work)
        return state


def _as_c(arg):
    if arg is None:
        return ctypes.c_void_p(None)
    if isinstance(arg, np.ndarray):
        return ctypes.c_void_p(arg.ctypes.data)
    return ctypes.c_double(arg) if isinstance(arg, float) else ctypes.c_int64(arg)


# seed of the order (0 is the natural one), elements off the alignment of W and of the result
SCHEDULES = [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 0, 1)]


def same_bits(kernels, run, schedules=SCHEDULES):
    """Runs with every schedule; the results, given as bytes, must not depend on it."""
    results = set()
    for seed, *shifts in schedules:
        kernels.seed(seed)
        results.add(run(*shifts))
    kernels.seed(0)
    assert len(results) == 1, "bits"
