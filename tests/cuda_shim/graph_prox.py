"""Checks of graph_prox.cu against a dense solution, for one graph and element type."""

import numpy as np

from cuda_shim.graph import Case, make_graph
from cuda_shim.kernels import blank, tight
from cuda_shim.pairwise import norm, require, tasks

# columns that fill a block and more; rows that cover tiles, rows without an edge
CASES = [
    Case(1, 1, 2.0),
    Case(30, 1, 2.0),
    Case(33, 3, 4.0),
    Case(5, 70, 3.0),
    Case(2, 260, 2.0),
    Case(40, 8, 3.0, (256, 0, 255, 257, 511, 600)),
]
STEP, TOLERANCE = 0.05, 1e-13


def make_system(case, element):
    """A symmetric graph of the case with weights ≥ 0, and the dense matrix of the system."""
    row_ptr, col, _, _ = make_graph(case, element, with_order=False)
    row = np.repeat(np.arange(case.num_tasks), np.diff(row_ptr))
    entries = np.sort(np.stack([np.r_[row, col], np.r_[col, row]]), axis=0).T
    weight = 0.1 + (entries[:, 0] * 7 + entries[:, 1]) % 5  # the same in both directions
    weight[entries[:, 0] % 3 == 2] = 0
    order = np.argsort(np.r_[row, col], kind="stable")
    row, col, weight = np.r_[row, col][order], np.r_[col, row][order], weight[order]
    a = np.zeros((case.num_tasks, case.num_tasks))
    np.add.at(a, (row, col), weight)
    system = np.eye(case.num_tasks) + 2 * STEP * (np.diag(a.sum(1)) - a)
    row_ptr = np.searchsorted(row, np.arange(case.num_tasks + 1))
    return (tight(row_ptr), tight(col.astype(np.int32)), tight(weight)), system


def check(kernels, element, case, shift=0, out_shift=0):
    """The solution, for columns of zeros and of Inf as well; the same for any distance of looks."""
    graph, system = make_system(case, element)
    stored = tight(tasks(element, case.num_tasks, case.dim, 1.0), shift)
    good = np.arange(case.dim) != 2
    if not good.all():
        stored[0, 2] = 0x7F80 if element.name == "bfloat16" else np.inf
    stored[:, 1:2] = 0
    w = element.decode(stored)[:, good]
    results = []
    for poll in (1, 7):
        out = blank(stored.shape, stored.dtype, out_shift)
        state = kernels.graph_prox(element, stored, graph, STEP, TOLERANCE, 100, out, poll)
        assert state[0] <= TOLERANCE and not state[3], ("residual", state)
        results.append(state.tobytes() + out.tobytes())
    assert results[0] == results[1], "bits of another distance between looks"
    found = element.decode(out)
    assert np.isnan(found[:, ~good]).all(), "value of a column that is not finite"
    wanted = np.linalg.solve(system, w.astype(np.float64))
    rounding = element.rounding if element.name != "float64" else 0
    require(norm(found[:, good] - wanted), (1e-12 + rounding) * norm(wanted), "value")
    return results[0]


def check_limits(kernels, element):
    """A slow chain stops at the limit; an indefinite system is told from one that is not."""
    count = 60
    i = np.arange(count - 1)
    row, col = np.r_[i, i + 1], np.r_[i + 1, i]
    order = np.argsort(row, kind="stable")
    row_ptr = tight(np.searchsorted(row[order], np.arange(count + 1)))
    col = tight(col[order].astype(np.int32))
    stored = tight(tasks(element, count, 2, 1.0))
    out = blank(stored.shape, stored.dtype)
    chain = row_ptr, col, tight(np.ones(len(col)))
    state = kernels.graph_prox(element, stored, chain, 1e3, 1e-9, 5, out, 2)
    assert state[0] > 1e-9 and state[1:].tolist() == [5, 0, 0], ("value at the limit", state)
    repelled = row_ptr, col, tight(np.full(len(col), -1.0))
    state = kernels.graph_prox(element, stored, repelled, 1.0, 1e-9, 50, out, 2)
    assert state[1] == 0 and state[3] == 1, ("value of a negative diagonal", state)
    triangle = tight(np.array([0, 2, 4, 6])), tight(np.array([1, 2, 0, 2, 0, 1], np.int32))
    mixed = *triangle, tight(np.array([3.0, -2.0, 3.0, 3.0, -2.0, 3.0]))  # the diagonal is positive
    stored = tight(tasks(element, 3, 2, 1.0))
    out = blank(stored.shape, stored.dtype)
    state = kernels.graph_prox(element, stored, mixed, 10.0, 1e-9, 50, out, 3)
    assert state[1] > 0 and state[3] == 1, ("value of a negative curvature", state)
