"""What a fitted W says about its tasks, against dense formulas written out."""

import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from mtlfast import relations, trace_norm
from mtlfast.nn import TaskLinear

SHAPES = [(1, 1), (1, 4), (5, 3), (3, 5), (30, 7), (7, 30)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def table(K, d, rank=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(K, d, generator=generator, dtype=torch.float64)
    return table(K, rank, seed=seed) @ table(rank, d, seed=seed + 1)


def dense_covariance(W):
    """(W Wᵀ)^(1/2) / ‖W‖_*, by the eigenvectors of a K×K matrix: another route to Ω."""
    value, vector = torch.linalg.eigh(W @ W.mT)
    return vector @ torch.diag(value.clamp(min=0).sqrt()) @ vector.mT / trace_norm(W)


@every_shape
def test_the_covariance_is_the_dense_one(shape):
    W = table(*shape)
    found = relations(W)
    Omega = dense_covariance(W)
    torch.testing.assert_close(found.covariance(), Omega, rtol=1e-7, atol=1e-7)
    F = found.covariance_factor()
    assert F.shape == (shape[0], min(shape))
    torch.testing.assert_close(F @ F.mT, found.covariance())
    torch.testing.assert_close(torch.trace(Omega), torch.ones((), dtype=torch.float64))


@every_shape
def test_covariance_by_the_formula_of_c(shape):
    """Ω = W C Wᵀ with C = (WᵀW)^(−1/2)/‖W‖_*, the pseudo-inverse where d > K."""
    W = table(*shape)
    value, vector = torch.linalg.eigh(W.mT @ W)
    kept = value > 1e-9 * value.max()
    C = (vector[:, kept] / value[kept].sqrt()) @ vector[:, kept].mT / trace_norm(W)
    torch.testing.assert_close(relations(W).covariance(), W @ C @ W.mT, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize(("K", "d"), [(12, 4), (4, 12), (60, 9)])
def test_the_covariance_solves_the_relationship_problem(K, d, rank):
    """tr Ω = 1, tr(WᵀΩ⁺W) = ‖W‖_*², and no other Ω of trace 1 does better."""
    W = table(K, d, rank)
    found = relations(W)
    assert found.rank == rank
    Omega = found.covariance()
    assert torch.trace(Omega).item() == pytest.approx(1, rel=1e-12)
    objective = torch.trace(W.mT @ torch.linalg.pinv(Omega, rtol=1e-9) @ W)
    assert objective.item() == pytest.approx(trace_norm(W).item() ** 2, rel=1e-8)
    for seed in range(5):  # nearby covariances of trace 1
        step = found.covariance_factor() + 0.05 * table(K, rank, seed=seed)
        other = step @ step.mT + 1e-6 * torch.eye(K)
        other /= torch.trace(other)
        assert torch.trace(W.mT @ torch.linalg.solve(other, W)) >= objective * (1 - 1e-9)


def test_the_gradient_of_the_trace_norm_is_what_the_covariance_gives():
    """d‖W‖_*²/2 = ‖W‖_* U Vᵀ = Ω⁺ W: the two forms have one stationary point."""
    W = table(9, 4).requires_grad_()
    (0.5 * trace_norm(W) ** 2).backward()
    Omega = relations(W).covariance()
    torch.testing.assert_close(torch.linalg.pinv(Omega, rtol=1e-9) @ W.detach(), W.grad)


def test_entries_rows_and_blocks():
    W = table(6, 3)
    found = relations(W, names=list("abcdef"))
    full = found.covariance()
    assert found.covariance("b", "e") == pytest.approx(full[1, 4].item(), rel=1e-12)
    torch.testing.assert_close(found.covariance("b"), full[1])
    torch.testing.assert_close(found.covariance(None, "b"), full[:, 1])
    torch.testing.assert_close(found.covariance(["a", "f"], "c"), full[[0, 5], 2])
    torch.testing.assert_close(found.covariance(["a", "f"], ["c"]), full[[0, 5]][:, [2]])
    scale = full.diagonal().rsqrt()
    torch.testing.assert_close(found.correlation(), scale[:, None] * full * scale)
    assert found.correlation("d", "d") == pytest.approx(1, rel=1e-12)
    by_number = relations(W)
    torch.testing.assert_close(
        by_number.covariance(range(2), torch.tensor([0, 3])), full[:2, [0, 3]]
    )
    assert by_number.covariance(np.int64(1), torch.tensor(4)) == found.covariance("b", "e")


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scale_changes_nothing(scale):
    W = table(8, 3)
    torch.testing.assert_close(relations(W * scale).covariance(), relations(W).covariance())
    torch.testing.assert_close(relations(W * scale).energies, relations(W).energies)


def test_small_directions_are_kept():
    """A direction at 1e-9 of the largest is no rounding: WᵀW in float64 would lose it."""
    u, _, vh = torch.linalg.svd(table(20, 3), full_matrices=False)
    s = torch.tensor([1.0, 1e-5, 1e-9], dtype=torch.float64)
    found = relations((u * s) @ vh)
    assert found.rank == 3
    torch.testing.assert_close(found.singular_values, s, rtol=1e-6, atol=0)
    exact = (u * s) @ u.mT / s.sum()
    torch.testing.assert_close(found.covariance(), exact, rtol=0, atol=1e-14)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_nearest_against_all_pairs(metric):
    W = table(40, 5)
    found = relations(W)
    for task in (0, 7, 39):
        others = [k for k in range(40) if k != task]
        if metric == "euclidean":
            value = {k: (W[k] - W[task]).norm().item() for k in others}
        elif metric == "cosine":
            value = {k: torch.cosine_similarity(W[k], W[task], dim=0).item() for k in others}
        else:
            value = {k: found.correlation(task, k) for k in others}
        want = sorted(others, key=lambda k: value[k] if metric == "euclidean" else -value[k])
        near = found.nearest(task, n=6, metric=metric)
        assert [k for k, _ in near] == want[:6]
        assert [v for _, v in near] == pytest.approx([value[k] for k in want[:6]], rel=1e-9)
        assert len(found.nearest(task, n=100, metric=metric)) == 39


def test_ties_go_to_the_first_task():
    W = torch.tensor([[0.0], [1.0], [-1.0], [1.0], [-1.0], [1.0]])
    assert [k for k, _ in relations(W).nearest(0, n=3)] == [1, 2, 3]
    assert relations(torch.ones(7, 2)).nearest(3, n=2) == [(0, 0.0), (1, 0.0)]


def test_near_rows_keep_their_digits():
    """Distances of rows that differ by 1e-9 of their length come from differences."""
    W = torch.ones(3, 4, dtype=torch.float64)
    W[1, 0] += 2e-9
    W[2, 1] += 1e-9
    near = relations(W).nearest(0)
    assert [k for k, _ in near] == [2, 1]
    assert near[0][1] == pytest.approx(1e-9, rel=1e-6)


def blobs(count=4, each=25, spread=0.05):
    centers = 10 * table(count, 3, seed=3)
    truth = torch.arange(count).repeat_interleave(each)
    return centers[truth] + spread * table(count * each, 3, seed=4), truth


@pytest.mark.parametrize("arguments", [{"n_clusters": 4}, {"threshold": 1.0}], ids=str)
def test_clusters_that_are_there_are_found(arguments):
    W, truth = blobs()
    found = relations(W).clusters(**arguments)
    assert len(found) == 4
    assert found.sizes.tolist() == [25] * 4
    assert torch.equal(found.labels, truth)  # equal sizes: the earliest task's cluster first
    assert (found.spreads < 0.2).all()
    assert found.members(1) == list(range(25, 50))
    squares = (W - found.centers[truth]).square().sum()
    assert found.inertia == pytest.approx(squares.item(), rel=1e-9)


def test_k_means_is_a_fixed_point_and_repeats():
    W = table(300, 4)
    found = relations(W)
    first, second = found.clusters(7, seed=5), found.clusters(7, seed=5)
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.centers, second.centers)
    for c in range(7):
        torch.testing.assert_close(first.centers[c], W[first.labels == c].mean(0))
    distance = torch.cdist(W, first.centers)
    assert torch.equal(distance.argmin(1), first.labels)
    assert first.sizes.tolist() == sorted(first.sizes.tolist(), reverse=True)
    alone = [found.clusters(7, seed=seed, restarts=1).inertia for seed in range(8)]
    assert len({round(value, 9) for value in alone}) > 1  # so there is something to choose from
    assert found.clusters(7, seed=0, restarts=8).inertia <= max(alone)


def test_k_means_is_as_good_as_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    W = table(300, 4)
    theirs = cluster.KMeans(6, n_init=10, random_state=0).fit(W.numpy()).inertia_
    assert relations(W).clusters(6, restarts=10).inertia <= 1.02 * theirs


def test_a_threshold_bounds_the_distance_to_the_leader():
    W = table(200, 3)
    for threshold in (0.5, 1.5, 100.0):
        found = relations(W).clusters(threshold=threshold)
        assert ((W - found.centers[found.labels]).norm(dim=1) <= threshold).all()
        apart = torch.pdist(found.centers)
        assert len(found) == 1 or (apart > threshold).all()
    assert len(relations(W).clusters(threshold=0.0)) == 200


def test_fewer_clusters_where_fewer_rows_differ():
    W = torch.tensor([[1.0], [1.0], [5.0]]).repeat(4, 1)
    found = relations(W).clusters(6)
    assert found.sizes.tolist() == [8, 4]
    assert found.inertia < 1e-28
    assert len(relations(torch.ones(5, 2)).clusters(3)) == 1


@pytest.mark.parametrize("shape", [(1, 3), (4, 3), (5, 0), (1, 1)], ids=str)
def test_zeros(shape):
    found = relations(torch.zeros(shape))
    K = shape[0]
    assert found.rank == 0 and found.energies.numel() == 0
    assert found.covariance_factor().shape == (K, 0)
    assert torch.equal(found.covariance(), torch.zeros(K, K, dtype=torch.float64))
    assert found.correlation(0, K - 1) == 0
    assert found.nearest(0) == [(k, 0.0) for k in range(1, K)]
    assert "rank 0" in str(found)


def test_one_task():
    found = relations(torch.tensor([[3.0, 4.0]]), names=["only"])
    assert found.covariance("only", "only") == pytest.approx(1)
    assert found.nearest("only") == []
    assert len(found.clusters(1)) == 1
    assert "1 tasks, 2 features, rank 1" in found.summary()


def test_a_zero_row_among_others():
    W = table(4, 2)
    W[2] = 0
    found = relations(W)
    assert found.covariance(2, 2) == 0 and found.correlation(2, 0) == 0
    assert found.correlation().isfinite().all()
    assert dict(found.nearest(0, metric="cosine"))[2] == 0


def test_what_w_may_be():
    layer = TaskLinear(4, 3, 2)
    rows = layer.weight.detach().flatten(1).double()
    estimator = types.SimpleNamespace(coef_=rows.numpy(), tasks_=np.array(["a", "b", "c", "d"]))
    others = types.SimpleNamespace(
        coef_=layer.weight.detach().numpy(), tasks_=np.array([3, 5, 7, 9])
    )
    forms = [layer, layer.weight, [*layer.weight], rows.numpy(), rows.tolist(), others, estimator]
    for form in forms:
        assert torch.equal(relations(form).W, rows)
    assert relations(estimator).nearest("c", n=1)[0][0] in "abd"
    assert relations(others).covariance(5, 9) == relations(rows).covariance(1, 3)
    assert relations(estimator, names=range(4)).names == [0, 1, 2, 3]
    assert relations(np.arange(6).reshape(3, 2)).num_features == 2
    assert relations(torch.randn(5).bfloat16()).W.shape == (5, 1)


def test_w_is_copied():
    W = torch.ones(3, 2, dtype=torch.float64)
    found = relations(W)
    W.zero_()
    assert found.W.sum() == 6


ONES = torch.ones(3, 2)
BAD = [
    (lambda: relations("W"), TypeError, "relations: W must be a tensor"),
    (lambda: relations(7), TypeError, "relations: W must be a tensor"),
    (lambda: relations(ONES.int()), TypeError, "relations: W must be float64"),
    (lambda: relations([["a"]]), TypeError, "relations: W must hold real numbers"),
    (lambda: relations([[1.0], [1.0, 2.0]]), ValueError, "relations: W must have rows of equal"),
    (lambda: relations([ONES, ONES[1:]]), ValueError, "all tensors of W must have the same shape"),
    (
        lambda: relations(torch.nn.ReLU()),
        TypeError,
        "a module with a tensor named weight, got ReLU",
    ),
    (lambda: relations(torch.ones(0, 2)), ValueError, "W must have at least one row"),
    (lambda: relations(torch.tensor(1.0)), ValueError, r"W must have shape \[K, \*\]"),
    (lambda: relations([[1.0], [np.nan]]), ValueError, "W must be finite, got nan in row 1"),
    (lambda: relations(ONES / 0), ValueError, "W must be finite, got inf in row 0"),
    (lambda: relations(ONES, names=["a"]), ValueError, "names must be K=3 names, got 1"),
    (lambda: relations(ONES, names="aab"), ValueError, "names must be distinct, got 2 for K=3"),
    (lambda: relations(ONES, names=[[], 1, 2]), TypeError, "names must be hashable"),
    (lambda: relations(ONES).nearest(3), ValueError, r"nearest: task must be one of the 3 names"),
    (lambda: relations(ONES).nearest([1]), TypeError, "nearest: a task must be a name, got list"),
    (lambda: relations(ONES).nearest(0, n=0), ValueError, "n must be >= 1, got 0"),
    (lambda: relations(ONES).nearest(0, n=1.0), TypeError, "n must be an int, got float"),
    (lambda: relations(ONES).nearest(0, metric="l1"), ValueError, "metric must be one of"),
    (lambda: relations(ONES).covariance(0, 9), ValueError, "covariance: task must be one of"),
    (lambda: relations(ONES).clusters(), ValueError, "exactly one of n_clusters and threshold"),
    (lambda: relations(ONES).clusters(2, 0.1), ValueError, "exactly one of n_clusters and thresh"),
    (lambda: relations(ONES).clusters(4), ValueError, "n_clusters must be <= K=3, got 4"),
    (lambda: relations(ONES).clusters(0), ValueError, "n_clusters must be >= 1, got 0"),
    (lambda: relations(ONES).clusters(True), TypeError, "n_clusters must be an int, got bool"),
    (
        lambda: relations(ONES).clusters(threshold=-1),
        ValueError,
        "threshold must be finite and >= 0",
    ),
    (lambda: relations(ONES).clusters(2, seed="x"), TypeError, "seed must be an int, got str"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_many_tasks_have_no_square_matrix():
    """Entries of 200,000 tasks' covariance, which as a matrix would take 300 GB."""
    code = """if True:
        import resource, torch
        from mtlfast import relations
        W = torch.randn(200_000, 20, dtype=torch.float64)
        found = relations(W)
        found.covariance(3, 199_999), found.nearest(7), found.covariance([1, 2, 3], range(1000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(100):
            found.correlation(i, 10 * i)
        found.covariance(5), found.nearest(9, metric="correlation")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        try:
            found.covariance()
        except ValueError as error:
            print(error)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, refused = run.stdout.splitlines()
    assert int(grown) < 300_000  # KiB: a few arrays of the size of W
    assert "got 40,000,000,000; take covariance_factor()" in refused


def test_the_summary_names_the_extremes():
    W = torch.tensor([[0.0, 0.0], [0.0, 0.5], [9.0, 0.0]])
    text = str(relations(W, names=["x", "y", "z"]))
    assert "3 tasks, 2 features, rank 2" in text
    assert "closest pair: x and y, distance 0.5" in text
    assert "farthest pair: y and z, distance 9.014" in text
    assert repr(relations(W)) == "Relations(K=3, d=2)"
    many = str(relations(table(2_000, 3)))
    assert "closest" not in many and "5 clusters" in many


@pytest.mark.parametrize("K", [1, 12, 250])
@pytest.mark.parametrize("d", [1, 4])
def test_plot(K, d):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = relations(table(K, d))
    ax = found.plot()
    if K <= 200:
        clusters = found.clusters(min(5, K))
        order = clusters.labels.sort(stable=True).indices
        picture = torch.from_numpy(np.asarray(ax.images[0].get_array()))
        torch.testing.assert_close(picture, found.correlation()[order][:, order])
    else:
        points = ax.collections[0].get_offsets()
        assert np.allclose(points, found.embedding().numpy())
    mine = plt.figure().add_subplot()
    assert found.plot(mine) is mine
    plt.close("all")


def test_the_embedding_is_that_of_the_principal_components():
    W = table(50, 4) * torch.tensor([5.0, 2.0, 1.0, 0.1])
    points = relations(W).embedding()
    u, s, _ = torch.linalg.svd(W - W.mean(0), full_matrices=False)
    torch.testing.assert_close(points.abs(), (u * s)[:, :2].abs(), check_dtype=False)
    assert (points.amax(0) >= -points.amin(0)).all()


def test_no_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "mtlfast\[examples\]"'):
        relations(ONES).plot(n_clusters=1)
