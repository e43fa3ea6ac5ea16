"""Checks of graph.cu against the definition in long double, for one graph and element type."""

import mmap
from dataclasses import dataclass

import numpy as np

from cuda_shim.kernels import ELEMENTS, PLUS_NOTHING, PLUS_OUT, blank, tight
from cuda_shim.pairwise import norm, require, tasks


@dataclass(frozen=True)
class Case:
    """Tasks, columns, the degree of most rows, and degrees of the first rows."""

    num_tasks: int
    dim: int
    degree: float
    hubs: tuple = ()

    def __str__(self):
        return f"{self.num_tasks}x{self.dim}, degree {self.degree}, {len(self.hubs)} hubs"


# groups of all sizes, part vectors, panels; rows on both sides of a tile of 256 edges, rows that
# begin and end with one, rows of many
CASES = [
    Case(2, 1, 1.0),
    Case(33, 3, 4.0),
    Case(70, 16, 9.0),
    Case(40, 33, 30.0),
    Case(150, 64, 5.0),
    Case(9, 700, 3.0),
    Case(12, 1031, 3.0),
    Case(50, 8, 3.0, (256, 255, 257, 511, 512, 600)),
    Case(300, 64, 2.0, (1, 0, 2600, 0, 257)),
    Case(20, 520, 2.0, (700,)),
]
EMPTY = [Case(0, 3, 0.0), Case(3, 0, 1.0), Case(5, 4, 0.0), Case(1, 1, 1.0)]


def make_graph(case, element, with_order):
    """A CSR matrix with zero weights, self loops, edges given twice, and rows without an edge."""
    make = np.random.default_rng(case.num_tasks * 31 + case.dim)
    degree = make.poisson(case.degree, case.num_tasks)
    degree[: len(case.hubs)] = case.hubs
    row_ptr = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)
    count = int(row_ptr[-1])
    col = make.integers(0, max(case.num_tasks, 1), count).astype(np.int32)
    weight = make.standard_normal(count).astype(element.real)
    weight[::7] = 0
    order = make.permutation(case.num_tasks).astype(np.int32) if with_order else None
    return tuple(None if part is None else tight(part) for part in (row_ptr, col, weight, order))


def truth(w, graph):
    """Value, gradient with scale 1, and the sums of absolute contributions to both."""
    row_ptr, col, weight, order = graph
    i = np.repeat(np.arange(len(w)), np.diff(row_ptr))
    i = i if order is None else order[i]
    s = weight.astype(np.longdouble)
    difference = w[i] - w[col]
    distance = np.where(col > i, s, 0) * np.square(difference).sum(1)
    grad, size = np.zeros_like(w), np.zeros_like(w)
    np.add.at(grad, i, 2 * s[:, None] * difference)
    np.add.at(size, i, 2 * np.abs(s[:, None] * difference))
    return distance.sum(), grad, np.abs(distance).sum(), norm(size)


def check(kernels, element, case, spread, shift=0, out_shift=0, with_order=False):
    """The value alone and with a gradient that is written or added; gives results as bytes."""
    stored = tight(tasks(element, case.num_tasks, case.dim, spread), shift)
    graph = make_graph(case, element, with_order)
    w = element.decode(stored)
    value, grad, value_size, grad_size = truth(w, graph)
    upstream = tight(np.full(1, 0.75, element.real))
    before = tasks(element, *w.shape, 1.0)
    old = element.decode(before)
    results = []
    for plus, factor, given, scale in (
        (PLUS_NOTHING, 0.5, None, 0.5),
        (PLUS_NOTHING, 0.5, upstream, 0.375),
        (PLUS_OUT, -0.5, None, -0.5),
    ):
        out = blank(w.shape, stored.dtype, out_shift)
        if plus == PLUS_OUT:
            out[:] = before
        found = kernels.graph_value(element, stored, graph, 0.25, out, factor, given, plus)
        require(abs(found[0] - value / 4), 8 * element.unit * value_size, "value")
        wanted = scale * grad + (old if plus == PLUS_OUT else 0)
        gate = 64 * element.unit * (abs(scale) * grad_size + norm(wanted))
        error = norm(element.decode(out) - wanted)
        require(error, gate + element.rounding * norm(wanted), "gradient", plus, scale)
        results += [found, out]
    alone = kernels.graph_value(element, stored, graph, 0.25, None, 1.0, None, PLUS_NOTHING)
    assert abs(alone[0] - found[0]) <= 8 * element.unit * value_size, "value alone"
    return b"".join(result.tobytes() for result in [*results, alone])


def check_distance(kernels, element, case, spread, shift=0, out_shift=0):
    """Each edge's distance; ``out_shift`` moves the tasks that the edges join."""
    stored = tight(tasks(element, case.num_tasks, case.dim, spread), shift)
    w = element.decode(stored)
    make = np.random.default_rng(0)
    count = 3 * case.num_tasks + 5 if case.num_tasks else 0
    src, dst = (tight(make.integers(0, max(len(w), 1), count), out_shift) for _ in range(2))
    found = kernels.edge_distance(element, stored, src, dst)
    wanted = np.square(w[src] - w[dst]).sum(1)
    require(norm(found - wanted), 8 * element.unit * norm(wanted), "distance")
    assert not found[src == dst].any(), "distance of a task to itself"
    return found.tobytes()


def check_long_offsets(kernels):
    """The last row of more than 2³¹ elements, in memory that is never touched before it."""
    element = next(e for e in ELEMENTS if e.name == "bfloat16")
    num_tasks, dim, rows_of_block = 2**21, 1032, 32
    w, grad = (np.frombuffer(mmap.mmap(-1, 2 * num_tasks * dim), np.uint16) for _ in range(2))
    w[-dim:] = element.encode(np.full(dim, 1.5))
    row_ptr = np.zeros(num_tasks + 1, np.int64)
    row_ptr[-1] = 1
    graph = row_ptr, np.array([num_tasks - 2], np.int32), np.ones(1, np.float32), None
    shape = num_tasks, dim
    with kernels.only_block(num_tasks // rows_of_block - 1):
        kernels.graph_value(
            element, w.reshape(shape), graph, 1.0, grad.reshape(shape), 1.0, None, PLUS_NOTHING
        )
    assert (grad[-dim:] == element.encode(3.0)).all(), "gradient"


def check_no_edge(kernels, element):
    """A zero weight is no edge, nor is a loop: what lies behind them is not looked at."""
    stored = tasks(element, 3, 5, 1.0)
    stored[1] = element.encode(np.full(5, np.inf)) if element.name != "bfloat16" else 0x7F80
    row_ptr, col = tight(np.array([0, 2, 3, 4])), tight(np.array([1, 2, 1, 0], np.int32))
    weight = tight(np.array([0, 1, 1, 1], element.real))
    grad = blank(stored.shape, stored.dtype)
    graph = (row_ptr, col, weight, None)
    value = kernels.graph_value(element, tight(stored), graph, 1.0, grad, 1.0, None, PLUS_NOTHING)
    assert np.isfinite(value[0]), "value"
    assert np.isfinite(element.decode(grad)).all(), "gradient"
    assert not element.decode(grad)[1].any(), "gradient"
