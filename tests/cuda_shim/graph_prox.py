"""Checks of graph_prox.cu and graph_prox_small.cu against dense solutions, for one element type."""

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
    # rows of W in another order than those of the graph
    member = tight((np.arange(case.num_tasks, dtype=np.int32) * 7 + 3) % case.num_tasks)
    member = None if case.num_tasks % 7 == 0 else member
    place = slice(None) if member is None else np.argsort(member)
    system = system[place][:, place]
    good = np.arange(case.dim) != 2
    if not good.all():
        stored[0, 2] = 0x7F80 if element.name == "bfloat16" else np.inf
    stored[:, 1:2] = 0
    w = element.decode(stored)[:, good]
    results = []
    for poll in (1, 7):
        out = blank(stored.shape, stored.dtype, out_shift)
        state = kernels.graph_prox(element, stored, graph, STEP, TOLERANCE, 100, out, poll, member)
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
    assert state[0] > 1e-9 and state[1:5].tolist() == [5, 0, 0, 0], ("value at the limit", state)
    repelled = row_ptr, col, tight(np.full(len(col), -1.0))
    state = kernels.graph_prox(element, stored, repelled, 1.0, 1e-9, 50, out, 2)
    assert state[1] == 0 and state[3] == 1, ("value of a negative diagonal", state)
    triangle = tight(np.array([0, 2, 4, 6])), tight(np.array([1, 2, 0, 2, 0, 1], np.int32))
    mixed = *triangle, tight(np.array([3.0, -2.0, 3.0, 3.0, -2.0, 3.0]))  # the diagonal is positive
    stored = tight(tasks(element, 3, 2, 1.0))
    out = blank(stored.shape, stored.dtype)
    state = kernels.graph_prox(element, stored, mixed, 10.0, 1e-9, 50, out, 3)
    assert state[1] > 0 and state[3] == 1, ("value of a negative curvature", state)


def eliminated(ties, b):
    """x_i + Σ_j c_ij (x_i − x_j) = b_i in long double, without subtraction."""
    c, x = ties.astype(np.longdouble), b.astype(np.longdouble)
    excess, pivots = np.ones(len(c), np.longdouble), []
    for k in range(len(c) - 1, -1, -1):
        row = c[k, :k].copy()
        pivots.insert(0, excess[k] + row.sum())
        f = row / pivots[0]
        c[:k, :k] += np.outer(f, row)
        excess[:k] += f * excess[k]
        x[:k] += np.outer(f, x[k])
        c[k, :k] = f
    for k in range(len(c)):
        x[k] = x[k] / pivots[k] + c[k, :k] @ x[:k]
    return x


def ties_between(num_tasks, scale, seed):
    """Symmetric ties of sizes that ``scale`` (in decades) spreads, some of them 0."""
    random = np.random.default_rng(seed)
    ties = 10.0 ** random.uniform(-scale, scale, (num_tasks, num_tasks))
    ties *= random.random((num_tasks, num_tasks)) < 0.5
    ties[np.arange(num_tasks - 1), np.arange(1, num_tasks)] = 1
    ties = np.triu(ties, 1)
    return ties + ties.T


SIZES = (3, 1, 64, 65, 2, 40, 1)


def check_small(kernels, element, dim, shift=0, out_shift=0):
    """Pieces of all sizes, in an order of their own; weights of any size; W of any size."""
    blocks = [ties_between(size, 12.0, k) for k, size in enumerate(SIZES)]
    first = tight(np.r_[0, np.cumsum(SIZES)])
    entries = [np.nonzero(block) for block in blocks]
    length = np.concatenate(
        [np.bincount(row, minlength=len(b)) for (row, _), b in zip(entries, blocks, strict=True)]
    )
    row_ptr = tight(np.r_[0, np.cumsum(length)])
    col = tight(np.concatenate([col for _, col in entries]).astype(np.int32))
    weight = tight(np.concatenate([b[e] for e, b in zip(entries, blocks, strict=True)]) / 2e3)
    total = int(first[-1])
    member = tight(np.random.default_rng(9).permutation(total).astype(np.int32))
    for scale in (1.0, 1e-200, 1e200) if element.name == "float64" else (1.0,):
        stored = tight((tasks(element, total, dim, 1.0) * scale).astype(element.storage), shift)
        if dim > 2:
            stored[member[70], 2] = 0x7F80 if element.name == "bfloat16" else np.inf
        out = blank(stored.shape, stored.dtype, out_shift)
        before = out.copy()
        bad = kernels.graph_prox_small(
            element, stored, (row_ptr, col, weight), member, first, 1e3, out
        )
        assert not bad.any(), ("value of the sign", bad)
        w, found = element.decode(stored), element.decode(out)
        for k, size in enumerate(SIZES):
            rows = member[first[k] : first[k + 1]]
            if size == 65:
                assert out[rows].tobytes() == before[rows].tobytes(), "value of a larger piece"
                continue
            if size == 1:
                assert out[rows].tobytes() == stored[rows].tobytes(), "value of a task alone"
                continue
            spoilt = ~np.isfinite(w[rows]).all(0)
            assert np.isnan(found[rows][:, spoilt]).all(), "value of a column that is not finite"
            wanted = eliminated(blocks[k], w[rows][:, ~spoilt] / scale)
            rounding = element.rounding if element.name != "float64" else 0
            apart = found[rows][:, ~spoilt] / scale - wanted
            require(norm(apart), (1e-13 + rounding) * norm(wanted), "value")
    return out.tobytes()


def check_signs(kernels, element):
    """Which pieces are not positive definite."""
    first, row_ptr = tight(np.array([0, 2, 4, 7])), tight(np.array([0, 1, 2, 3, 4, 6, 8, 10]))
    col = tight(np.array([1, 0, 1, 0, 1, 2, 0, 2, 0, 1], np.int32))
    weight = tight(np.array([-0.1, -0.1, -1, -1, 3, -2, 3, 3, -2, 3.0]))
    stored = tight(tasks(element, 7, 2, 1.0))
    out = blank(stored.shape, stored.dtype)
    bad = kernels.graph_prox_small(element, stored, (row_ptr, col, weight), None, first, 1.0, out)
    assert bad.tolist() == [0, 1, 1], ("value of the sign", bad)


def check_clusters(kernels, element):
    """Tightly tied clusters: the true residual stays large, the error is solved for."""
    blocks = [ties_between(30, 0.0, k) * 1e12 for k in (1, 2)]
    ties = np.zeros((60, 60))
    ties[:30, :30], ties[30:, 30:] = blocks
    ties[0, 59] = ties[59, 0] = 1
    row, col = np.nonzero(ties)
    row_ptr = tight(np.searchsorted(row, np.arange(61)))
    graph = row_ptr, tight(col.astype(np.int32)), tight(ties[row, col])
    stored = tight(tasks(element, 60, 3, 1.0))
    out = blank(stored.shape, stored.dtype)
    state = kernels.graph_prox(element, stored, graph, 0.5, 1e-11, 2000, out, 5)
    assert state[0] <= 1e-11, ("value of the error", state)
    wanted = eliminated(ties, element.decode(stored))
    rounding = element.rounding if element.name != "float64" else 0
    require(norm(element.decode(out) - wanted), (1e-10 + rounding) * norm(wanted), "value")
