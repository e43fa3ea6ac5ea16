"""graph_prox with weights and steps of any size: elimination in 60 digits, limits, clusters."""

import mpmath
import numpy as np
import pytest
import torch

from mtlfast import TaskGraph, _native, graph_prox, pairwise_prox, reference
from mtlfast.nn import GraphReg

GATES = {torch.float64: 1e-8, torch.float32: 64 * 2.0**-24}
SHAPES = ("chain", "complete", "near", "pieces", "tree")


def pairs_of(shape, num_tasks, random):
    """Pairs (i, j) of the shape, some tasks at the end without any."""
    linked = max(num_tasks - int(random.integers(0, 4)), 1)
    i, j = np.triu_indices(linked, 1)
    if shape == "chain":
        return np.arange(linked - 1), np.arange(1, linked)
    if shape == "tree":
        child = np.arange(1, linked)
        return (child * random.random(linked - 1)).astype(int), child
    if shape == "near":  # of points in the plane
        points = random.random((num_tasks, 2))
        near = np.square(points[:linked, None] - points[:linked]).sum(-1).argsort(1)[:, 1:4]
        return np.arange(linked).repeat(near.shape[1]), near.reshape(-1)
    if shape == "pieces":
        kind = random.integers(0, 4, linked)
        kept = (kind[i] == kind[j]) & (random.random(len(i)) < 0.6)
        return i[kept], j[kept]
    return i, j


def problem(shape, seed, largest=60):
    """A graph with weights 10^uniform(−12, 12), a step 10^uniform(0, 12), and W."""
    random = np.random.default_rng(seed)
    num_tasks = int(random.integers(2, largest + 1))
    pairs = np.stack(pairs_of(shape, num_tasks, random)).astype(np.int64)
    weight = 10.0 ** random.uniform(-12, 12, pairs.shape[1])
    step = float(10.0 ** random.uniform(0, 12))
    W = random.normal(size=(num_tasks, 2)) + random.choice([0.0, 3.0])
    graph = TaskGraph.from_edges(pairs, torch.from_numpy(weight), num_tasks)
    return graph, step, torch.from_numpy(W)


def eliminated(graph, step, W):
    """(I + 4·step·L)⁻¹ W by Gaussian elimination in 60 digits; L of the graph as it is stored."""
    count, dim = W.shape
    with mpmath.workdps(60):
        matrix = [[mpmath.mpf(i == j) for j in range(count)] for i in range(count)]
        right = [[mpmath.mpf(x) for x in row] for row in W.double().tolist()]
        ptr, col, weight = graph.row_ptr.tolist(), graph.col.tolist(), graph.weight.tolist()
        for i in range(count):
            for k in range(ptr[i], ptr[i + 1]):
                tie = 2 * mpmath.mpf(step) * mpmath.mpf(weight[k])
                matrix[i][i] += tie
                matrix[i][col[k]] -= tie
        for k in range(count):
            linked = [j for j in range(k + 1, count) if matrix[k][j]]
            for i in linked:
                f = matrix[i][k] / matrix[k][k]
                for j in linked:
                    matrix[i][j] -= f * matrix[k][j]
                for c in range(dim):
                    right[i][c] -= f * right[k][c]
        for k in reversed(range(count)):
            linked = [j for j in range(k + 1, count) if matrix[k][j]]
            for c in range(dim):
                right[k][c] -= mpmath.fsum(matrix[k][j] * right[j][c] for j in linked)
                right[k][c] /= matrix[k][k]
        return torch.tensor([[float(x) for x in row] for row in right], dtype=torch.float64)


def by_reference(W, graph, step):
    tol = 1e-10 if W.dtype == torch.float64 else 1e-7
    return reference.graph_prox(W, *graph.by_pieces(), step, tol, 1000)


def by_transform(W, graph, step):
    """Inside vmap the dense inverse is used."""
    return torch.func.vmap(lambda w: graph_prox(w, graph, step))(W[None])[0]


def require_near(Z, want, W, gate):
    error = (Z.double() - want).norm() / W.double().norm()
    assert error <= gate, float(error)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", SHAPES)
def test_against_elimination_in_60_digits(shape, seed):
    graph, step, W = problem(shape, seed)
    for dtype, gate in GATES.items():
        w = W.to(dtype)
        want = eliminated(graph, step, w)
        alone = (graph.row_ptr.diff() == 0).nonzero()[:, 0]
        for way in (graph_prox, by_reference, by_transform):
            Z = way(w, graph, step)
            assert Z.dtype == dtype
            require_near(Z, want, w, gate)
            assert torch.equal(Z[alone], w[alone])


@pytest.mark.parametrize("step", [1e6, 1e8, 1e10, 1e12, 1e160, 1e300, 1.7e308])
@pytest.mark.parametrize("num_tasks", [3, 20, 70, 3000])
def test_a_strong_step_gives_the_means_of_the_pieces(num_tasks, step):
    """With as many features as it takes for every way of solving."""
    random = np.random.default_rng(0)
    half = num_tasks // 2
    ends = random.integers(0, half, (2, 30 * half))
    edges = np.concatenate([ends, np.stack([np.arange(half - 1), np.arange(1, half)])], 1)
    graph = TaskGraph.from_edges(np.concatenate([edges, edges + half], 1), None, num_tasks + 1)
    W = torch.from_numpy(random.normal(size=(num_tasks + 1, 3)))
    want = W.clone()
    for rows in (slice(0, half), slice(half, 2 * half)):
        want[rows] = W[rows].mean(0)
    for way in (graph_prox, by_reference) if num_tasks < 100 else (graph_prox,):
        require_near(way(W, graph, step), want, W, 1e-8 + num_tasks / step)


def test_weights_that_overflow_times_the_step():
    weight = torch.tensor([1e300, 1e-300, 1e200], dtype=torch.float64)
    graph = TaskGraph.from_edges([[0, 1, 2], [1, 2, 3]], weight, 5)
    W = torch.randn(5, 2, dtype=torch.float64)
    for way in (graph_prox, by_reference):
        Z = way(W, graph, 1e200)
        want = torch.stack([W[:2].mean(0)] * 2 + [W[2:4].mean(0)] * 2 + [W[4]])
        require_near(Z, want, W, 1e-15)


def clusters(count, size, strong, weak, seed=0):
    """Connected clusters of ``strong`` edges, joined one to the other by single ``weak`` ones."""
    random = np.random.default_rng(seed)
    edges, weight = [], []
    for k in range(count):
        near = np.arange(size)[:, None] + np.array([1, 2, 5])  # so that elimination fills little in
        inside = np.stack([np.arange(size).repeat(3), near.reshape(-1) % size])
        edges.append(inside + k * size)
        weight.append(np.full(inside.shape[1], strong))
        if k:
            join = random.integers(0, size, (2, 1)) + size * np.array([[random.integers(k)], [k]])
            edges.append(join)
            weight.append(np.full(1, weak))
    weight = torch.from_numpy(np.concatenate(weight))
    return TaskGraph.from_edges(np.concatenate(edges, 1), weight, count * size)


def sparse_elimination(graph, step, W):
    """Task by task, those with the fewest neighbours first, in long double without subtraction."""
    ptr, col, weight = graph.row_ptr.tolist(), graph.col.tolist(), graph.weight.tolist()
    count = len(W)
    scale = 2 * np.longdouble(step)
    ties = [
        {col[k]: scale * np.longdouble(weight[k]) for k in range(ptr[i], ptr[i + 1])}
        for i in range(count)
    ]
    excess = np.ones(count, dtype=np.longdouble)
    x = W.double().numpy().astype(np.longdouble)
    steps, left = [], {}
    for i in range(count):
        left.setdefault(len(ties[i]), set()).add(i)
    for _ in range(count):
        fewest = next(n for n in sorted(left) if left[n])
        k = min(left[fewest])
        left[fewest].remove(k)
        pivot = excess[k] + sum(ties[k].values())
        factors = {j: c / pivot for j, c in ties[k].items()}
        for i, f in factors.items():
            before = len(ties[i])
            del ties[i][k]
            excess[i] += f * excess[k]
            x[i] += f * x[k]
            for j, c in ties[k].items():
                if j != i:
                    ties[i][j] = ties[i].get(j, 0) + f * c
            if len(ties[i]) != before:
                left[before].remove(i)
                left.setdefault(len(ties[i]), set()).add(i)
        steps.append((k, pivot, factors))
    for k, pivot, factors in reversed(steps):
        x[k] = x[k] / pivot + sum(f * x[j] for j, f in factors.items())
    return torch.from_numpy(x.astype(np.float64))


@pytest.mark.parametrize(
    ("count", "size"), [(2, 500), (2, 1500), (40, 30), (30, 100)], ids=lambda n: str(n)
)
def test_tightly_tied_clusters_in_a_large_piece(count, size):
    """A float64 solve with the diagonal is off by 1e-6 here."""
    graph = clusters(count, size, 1e12, 1.0)
    W = torch.from_numpy(np.random.default_rng(1).normal(size=(graph.num_tasks, 2)))
    for step in (1.0, 1e4):
        want = sparse_elimination(graph, step, W)
        require_near(graph_prox(W, graph, step), want, W, 1e-8)
        require_near(graph_prox(W.float(), graph, step), want, W, GATES[torch.float32])


@pytest.mark.parametrize("num_tasks", [500, 2500])
def test_one_edge_of_a_large_weight(num_tasks):
    random = np.random.default_rng(2)
    edges = random.integers(0, num_tasks, (2, 5 * num_tasks))
    weight = torch.ones(5 * num_tasks, dtype=torch.float64)
    weight[0] = 1e12
    graph = TaskGraph.from_edges(edges, weight, num_tasks)
    W = torch.from_numpy(random.normal(size=(num_tasks, 1)))
    Z = graph_prox(W, graph, 1.0)
    i, j = edges[:, 0]
    merged = np.where(edges == j, i, edges)  # the ends as one task with the mass of two
    unit, weights = np.where(np.arange(num_tasks) == i, 2.0, 1.0), weight.clone()
    weights[0] = 0
    both = TaskGraph.from_edges(merged, weights, num_tasks)
    B = W.clone()
    B[i] += W[j]
    dense = torch.diag(torch.from_numpy(unit)).double()
    s = 2 * both.to_dense()
    dense += 2 * (torch.diag(s.sum(1)) - s)
    want = torch.linalg.solve(dense, B)
    want[j] = want[i]
    require_near(Z, want, W, 1e-8)


@pytest.mark.parametrize("decades", [4, 12, 24])
@pytest.mark.parametrize("num_tasks", [150, 700])
def test_weights_of_all_sizes_in_a_large_piece(num_tasks, decades):
    random = np.random.default_rng(3)
    child = np.arange(1, num_tasks)
    tree = np.stack([(child * random.random(num_tasks - 1)).astype(int), child])
    edges = np.concatenate([tree, random.integers(0, num_tasks, (2, num_tasks // 3))], 1)
    weight = torch.from_numpy(10.0 ** random.uniform(-decades / 2, decades / 2, edges.shape[1]))
    graph = TaskGraph.from_edges(edges, weight, num_tasks)
    W = torch.from_numpy(random.normal(size=(num_tasks, 2)))
    for step in (1.0, 1e6):
        want = sparse_elimination(graph, step, W)
        require_near(graph_prox(W, graph, step), want, W, 1e-8)


def test_a_core_that_elimination_fills():
    """Random edges of all sizes: thousands of tasks are left when the sparse ones are gone."""
    random = np.random.default_rng(5)
    num_tasks = 2500
    chain = np.stack([np.arange(num_tasks - 1), np.arange(1, num_tasks)])
    edges = np.concatenate([chain, random.integers(0, num_tasks, (2, 5 * num_tasks))], 1)
    weight = torch.from_numpy(10.0 ** random.uniform(-12, 12, edges.shape[1]))
    graph = TaskGraph.from_edges(edges, weight, num_tasks)
    W = torch.from_numpy(random.normal(size=(num_tasks, 2)) + 2)
    mean = W.mean(0).expand_as(W)
    require_near(graph_prox(W, graph, 1e30), mean, W, 1e-13)
    require_near(graph_prox(W, graph, 1.0).mean(0), mean[0], W, 1e-15)


def test_negative_weights_of_a_definite_matrix_are_eliminated_too():
    random = np.random.default_rng(4)
    for num_tasks in (12, 200):
        edges = random.integers(0, num_tasks, (2, 4 * num_tasks))
        weight = torch.from_numpy(random.uniform(-0.2, 1, 4 * num_tasks))
        graph = TaskGraph.from_edges(edges, weight, num_tasks)
        s = 2 * graph.to_dense()
        W = torch.from_numpy(random.normal(size=(num_tasks, 3)))
        system = torch.eye(num_tasks).double() + 0.1 * (torch.diag(s.sum(1)) - s)
        assert torch.linalg.eigvalsh(system)[0] > 0.05
        want = torch.linalg.solve(system, W)
        for way in (graph_prox, by_reference, by_transform):
            require_near(way(W, graph, 0.05), want, W, 1e-8)


def test_an_indefinite_matrix_is_refused_whatever_w_is():
    graph = TaskGraph.from_edges([[0, 1, 0], [1, 2, 2]], [3.0, 3.0, -2.0], 5)
    for W in (torch.ones(5, 2), torch.zeros(5, 1)):
        for way in (graph_prox, by_reference):
            with pytest.raises(ValueError, match="indefinite"):
                way(W, graph, 10.0)


SCALES = [(torch.float32, 1e-25), (torch.float32, 1e25)]
SCALES += [(torch.float64, scale) for scale in (1e-200, 1e200, 1e-300, 1e300)]


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
@pytest.mark.parametrize("num_tasks", [40, 90, 2500])
def test_it_scales_with_w(num_tasks, dtype, scale):
    random = np.random.default_rng(5)
    edges = random.integers(0, num_tasks, (2, 3 * num_tasks))
    graph = TaskGraph.from_edges(edges, None, num_tasks)
    W = torch.from_numpy(random.normal(size=(num_tasks, 3)))
    for step in (0.1, 1e3):
        want = graph_prox(W, graph, step)
        for way in (graph_prox, by_reference):
            Z = way((W * scale).to(dtype), graph, step)
            require_near(Z.double() / scale, want, W, 1e-6 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_closed_forms_at_such_scales(offset):
    """Groups and pairs: the mean and what is left of the deviations."""
    W = torch.randn(12, 3, dtype=torch.float64) + offset
    labels = torch.tensor([0] * 5 + [1] * 6 + [2])
    for step in (1e6, 1e12, 1e16, 1e300):
        want = W.clone()
        for rows in (slice(0, 5), slice(5, 11)):
            mean, n = W[rows].mean(0), len(W[rows])
            want[rows] = mean + (W[rows] - mean) / (1 + 4 * n * step)
        groups = TaskGraph.groups(labels)
        unit = 4 * 2.0**-53 * W.abs().max()
        for Z in (
            graph_prox(W, groups, step),
            reference.group_prox(W, groups.group_ptr, groups.member, step),
        ):
            assert (Z - want).abs().max() <= unit
            assert torch.equal(Z[11], W[11])
        mean = W.mean(0)
        want = mean + (W - mean) / (1 + 4 * 12 * step)
        for Z in (pairwise_prox(W, step), reference.pairwise_prox(W, step)):
            assert (Z - want).abs().max() <= unit
    assert GraphReg(groups, 1e12).prox(W, 1e4).isfinite().all()


def test_pieces_are_found_alike():
    """By the compiled module and in torch: pieces by their first tasks, tasks in rising order."""
    random = np.random.default_rng(6)
    for num_tasks in (1, 2, 50, 400):
        for share in (0.0, 0.3, 0.6, 3.0):
            edges = random.integers(0, num_tasks, (2, int(share * num_tasks)))
            graph = TaskGraph.from_edges(edges, None, num_tasks)
            first, member = reference.graph_pieces(graph.row_ptr, graph.col)
            label = np.arange(num_tasks)
            for _ in range(num_tasks):
                for i, j in edges.T:
                    label[i] = label[j] = min(label[i], label[j])
                if (label[edges[0]] == label[edges[1]]).all():
                    break
            want = [np.flatnonzero(label == k) for k in np.unique(label)]
            got = member.tensor_split(first[1:-1])
            assert [piece.tolist() for piece in got] == [piece.tolist() for piece in want]
            if not _native.missing:
                native = _native.graph_order.graph_pieces(graph.row_ptr, graph.col)
                assert torch.equal(native[0], first)
                assert torch.equal(native[1], member)


def test_a_column_that_is_not_finite_spoils_its_piece_alone():
    graph = TaskGraph.from_edges([[0, 1, 3], [1, 2, 4]], None, 6)
    W = torch.randn(6, 3, dtype=torch.float64)
    want = graph_prox(W, graph, 2.0)
    W[1, 0], W[5, 1] = torch.nan, torch.inf
    for way in (graph_prox, by_reference, by_transform):
        Z = way(W, graph, 2.0)
        assert Z[:3, 0].isnan().all()
        assert Z[5, 1] == torch.inf or way is by_transform
        kept = Z.isfinite() & (torch.arange(6)[:, None] != 5)
        assert kept.sum() == 12
        torch.testing.assert_close(Z[kept], want[kept], rtol=1e-12, atol=0)


def test_the_same_bits_by_any_way_through_the_pieces(each_isa_and_thread_count):
    """Small, eliminated and iterated pieces, many columns."""
    random = np.random.default_rng(7)
    edges, first = [], 0
    for size in (3, 64, 65, 130, 2200, 1, 40):
        edges.append(random.integers(0, size, (2, 6 * size)) + first)
        first += size
    graph = TaskGraph.from_edges(np.concatenate(edges, 1), None, first)
    W = torch.randn(first, 37, generator=torch.Generator().manual_seed(0))
    results = [
        graph_prox(W, graph, step) for _ in each_isa_and_thread_count() for step in (0.1, 300.0)
    ]
    assert len(results) > 2
    assert all(torch.equal(results[k % 2], r) for k, r in enumerate(results))
