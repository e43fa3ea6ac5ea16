"""Inside the solvers: statistics with and without Gram matrices, what a penalty needs, refusals."""

import numpy as np
import pytest
import torch

from mtlfast import TaskGraph
from mtlfast.linear_model._data import Rows
from mtlfast.linear_model._fit import coupling_of, fit_squares
from mtlfast.linear_model._gradients import fista
from mtlfast.linear_model._logistic import fit_logistic
from mtlfast.linear_model._penalties import check_penalties, split
from mtlfast.linear_model._progress import Progress
from mtlfast.linear_model._quadratic import System
from mtlfast.linear_model._splitting import admm
from mtlfast.linear_model._statistics import (
    GramSquares,
    RowSquares,
    SparseSquares,
    decision,
    moments,
)
from mtlfast.nn import (
    GramReg,
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Ridge,
    TraceNorm,
)

K, D = 7, 4
SIZES = [5, 0, 1, 9, 3, 5, 12]
CHAIN = TaskGraph.chain(K)
SETTINGS = {"tol": 1e-10, "max_iter": 5000, "solver": "auto", "verbose": False}


def rows(*, weighted=False, sparse=False, mean=3.0, sizes=SIZES, seed=0):
    g = torch.Generator().manual_seed(seed)
    N = sum(sizes)
    X = torch.randn(N, D, generator=g, dtype=torch.float64) + mean
    y = torch.randn(N, generator=g, dtype=torch.float64) + X[:, 0]
    weight = torch.rand(N, generator=g, dtype=torch.float64) + 0.1 if weighted else None
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    if sparse:
        X = pytest.importorskip("scipy.sparse").csr_matrix(X.numpy())
    return Rows(X, y, weight, ptr)


def by_hand(r, W, fit_intercept):
    """Σ ½ s (y − x·w − b)² at the best b, and its gradient in W, task by task in NumPy."""
    X = r.X if isinstance(r.X, torch.Tensor) else torch.from_numpy(r.X.toarray())
    X, y, W = X.numpy(), r.y.numpy(), W.numpy()
    s = np.ones(len(y)) if r.weight is None else r.weight.numpy()
    value, grad = 0.0, np.zeros_like(W)
    for k, (a, b) in enumerate(zip(r.ptr[:-1].tolist(), r.ptr[1:].tolist(), strict=True)):
        if a == b:
            continue
        part, miss = s[a:b], y[a:b] - X[a:b] @ W[k]
        if fit_intercept:
            miss = miss - (part * miss).sum() / part.sum()
        value += 0.5 * (part * miss**2).sum()
        grad[k] = -(part * miss) @ X[a:b]
    return value, torch.from_numpy(grad)


def names(terms):
    return terms if isinstance(terms, str) else "+".join(type(term).__name__ for term in terms)


KINDS = {"gram": GramSquares, "rows": RowSquares, "sparse": SparseSquares}


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_the_loss_and_its_gradient(kind, weighted, fit_intercept):
    r = rows(weighted=weighted, sparse=kind == "sparse")
    statistics = KINDS[kind](r, fit_intercept)
    W = torch.randn(K, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, grad = by_hand(r, W, fit_intercept)
    assert statistics.loss(W) == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(statistics.product(W) - statistics.moment, grad)
    eye = torch.eye(D, dtype=torch.float64)
    columns = [statistics.product(e.expand(K, D).contiguous())[:, i] for i, e in enumerate(eye)]
    torch.testing.assert_close(statistics.diagonal(), torch.stack(columns, 1))


def test_gram_matrices_of_sparse_rows_are_those_of_dense_ones():
    dense, sparse = GramSquares(rows(), True), GramSquares(rows(sparse=True), True)
    assert torch.equal(dense.gram, sparse.gram) and torch.equal(dense.moment, sparse.moment)


@pytest.mark.parametrize("budget", [1, 20, 1 << 18])
def test_chunks_of_any_size_give_the_same_statistics(budget, monkeypatch):
    wanted = GramSquares(rows(weighted=True), True)
    monkeypatch.setattr("mtlfast.linear_model._layout._BUDGET", budget)
    r = rows(weighted=True)
    found = GramSquares(r, True)
    torch.testing.assert_close(found.gram, wanted.gram)
    torch.testing.assert_close(found.moment, wanted.moment)
    W = torch.ones(K, D, dtype=torch.float64)
    b = torch.arange(K).double()
    task = torch.arange(K).repeat_interleave(r.ptr.diff())
    torch.testing.assert_close(decision(r, W, b), (r.X * W[task]).sum(1) + b[task])
    torch.testing.assert_close(
        moments(r, r.y),
        torch.zeros(K, D, dtype=torch.float64).index_add(0, task, r.X * r.y[:, None]),
    )


def test_a_mean_far_from_zero_costs_no_digits():
    """Features at 1e6 with a spread of 1: XᵀX − n x̄x̄ᵀ would keep four digits of sixteen."""
    near, far = GramSquares(rows(mean=0.0), True), GramSquares(rows(mean=1e6), True)
    torch.testing.assert_close(far.gram, near.gram, rtol=1e-8, atol=1e-8)


def test_the_loss_of_a_perfect_fit_comes_from_the_rows():
    r = rows(mean=0.0)
    W = torch.randn(K, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    r = Rows(r.X, decision(r, W, torch.zeros(K, dtype=torch.float64)) + 1e-9 * r.y, None, r.ptr)
    statistics = GramSquares(r, False)
    wanted = by_hand(r, W, False)[0]
    assert 0 < wanted < 1e-15
    assert statistics.loss(W) == pytest.approx(wanted, rel=1e-6)


def fit(penalties, r=None, statistics=GramSquares, **settings):
    r = rows() if r is None else r
    return fit_squares("fit", statistics(r, True), penalties, **SETTINGS | settings)


@pytest.mark.parametrize(
    "penalties",
    [
        [Ridge(0.3), PairwiseReg(0.2)],
        [Ridge(0.3), GraphReg(CHAIN, 0.7)],
        [Ridge(0.3), PairwiseReg(0.1), GraphReg(CHAIN, 0.7)],
        [Ridge(0.3), TraceNorm(2.0)],
        [Ridge(0.3), GroupLasso(2.0)],
        [Ridge(0.3), GraphTotalVariation(CHAIN, 0.5)],
    ],
    ids=names,
)
@pytest.mark.parametrize("kind", ["rows", "sparse"])
def test_without_gram_matrices_the_optimum_is_the_same(kind, penalties):
    wanted = fit(penalties)
    found = fit(penalties, rows(sparse=kind == "sparse"), KINDS[kind])
    assert wanted.converged and found.converged
    assert found.objective == pytest.approx(wanted.objective, rel=1e-9)
    torch.testing.assert_close(found.coef, wanted.coef, rtol=1e-4, atol=1e-5)


def test_solvers_that_are_chosen():
    assert fit([Ridge(1.0)]).solver == fit([PairwiseReg(1.0)]).solver == "cg"
    assert fit([TraceNorm(1.0)]).solver == fit([TraceNorm(1.0), GroupLasso(1.0)]).solver == "admm"
    assert fit([TraceNorm(1.0), Ridge(0.1)], statistics=RowSquares).solver == "fista"


def dense(penalties, r=None):
    """The minimiser of quadratic penalties from all K·d equations at once."""
    statistics = GramSquares(rows() if r is None else r, True)
    penalty = split("fit", penalties, K, torch.device("cpu"))
    system = System(statistics, coupling_of(statistics, penalty))
    eye = torch.eye(K * D, dtype=torch.float64).view(-1, K, D)
    H = torch.stack([system.product(e).flatten() for e in eye])
    root = H.diagonal().sqrt()
    W = torch.linalg.solve(H / root[:, None] / root, statistics.moment.flatten() / root) / root
    return W.view(K, D)


UNLIKE = torch.tensor([1e-4, 1.0, 1e3, 1e6], dtype=torch.float64)  # scales of four features
QUADRATICS = {
    "ridge": [Ridge(1e-3)],
    "pairwise": [PairwiseReg(1e-2)],
    "graph": [GraphReg(CHAIN, 1e-2)],
    "groups": [GraphReg(TaskGraph.groups([0, 1, 0, 0, 2, 1, 0]), 1e-2), Ridge(1e-6)],
    "sum": [PairwiseReg(1e-3), GraphReg(CHAIN, 1.0), Ridge(1e-6)],
}


def unlike(sizes=(6, 9, 7, 20, 8, 9, 12), scales=UNLIKE):
    r = rows(sizes=sizes)
    return Rows(r.X * scales, r.y, None, r.ptr)


@pytest.mark.parametrize("name", QUADRATICS)
def test_features_of_unlike_scales_are_all_fitted(name):
    r = unlike()
    out = fit(QUADRATICS[name], r, tol=1e-6)
    wanted = dense(QUADRATICS[name], r)
    assert out.converged
    error = (out.coef - wanted).norm(dim=0) / wanted.norm(dim=0)
    assert error.max() <= 1e-4, error


def test_tasks_of_their_own_are_fitted_in_any_scale():
    r = rows(sizes=[9] * K)
    scaled = Rows(r.X * UNLIKE, r.y, None, r.ptr)
    torch.testing.assert_close(fit([], scaled).coef * UNLIKE, fit([], r).coef, rtol=1e-9, atol=0)


@pytest.mark.parametrize("scales", [UNLIKE[1:2].expand(D), UNLIKE.sqrt()], ids=["like", "unlike"])
@pytest.mark.parametrize("max_iter", [10, 100, 1000])
@pytest.mark.parametrize(
    ("solver", "penalties"),
    [
        ("admm", [TraceNorm(1.0)]),
        ("fista", [TraceNorm(1.0)]),
        ("admm", [GroupLasso(1.0)]),
        ("fista", [GroupLasso(1.0)]),
        ("admm", [TraceNorm(1.0), GraphReg(CHAIN, 0.1)]),
        ("fista", [TraceNorm(1.0), GraphReg(CHAIN, 0.1)]),
        ("admm", [GraphTotalVariation(CHAIN, 0.3)]),
    ],
    ids=names,
)
def test_a_gap_bounds_what_is_left(penalties, solver, max_iter, scales):
    """Of the objective, relative to it. Features of unlike scales are where a gap may mislead."""
    r = unlike(scales=scales)
    best = fit(penalties, r, tol=1e-9, max_iter=100_000)
    assert best.converged
    out = fit(penalties, r, tol=1e-6, max_iter=max_iter, solver=solver)
    assert out.objective - best.objective <= max(out.gap, 1e-8) * out.objective


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
@pytest.mark.parametrize(
    "penalties", [[Ridge(1e-3)], [GraphReg(CHAIN, 0.1), Ridge(1e-3)]], ids=["ridge", "graph+ridge"]
)
def test_a_logistic_gap_bounds_what_is_left(penalties, tol):
    r = unlike([20, 30, 0, 40, 20, 50, 25])
    flip = torch.rand(len(r.y), generator=torch.Generator().manual_seed(1)) < 0.3
    r = Rows(r.X, ((r.y > r.y.median()) ^ flip).double(), None, r.ptr)

    def fitted(tol):
        settings = SETTINGS | {"tol": tol}
        return fit_logistic("fit", r, penalties, fit_intercept=True, **settings)

    best, out = fitted(1e-10), fitted(tol)
    assert best.converged and out.converged
    assert out.objective - best.objective <= max(tol, 1e-8) * best.objective


@pytest.mark.parametrize("pairs", [1e-8, 1.0, 1e8])
def test_pairwise_and_ridge_take_one_step(pairs):
    out = fit([PairwiseReg(pairs), Ridge(0.1)])
    assert out.n_iter <= 2 and out.converged
    wanted = dense([PairwiseReg(pairs), Ridge(0.1)])
    torch.testing.assert_close(out.coef, wanted, rtol=1e-7, atol=1e-7)


GROUPS = TaskGraph.groups([0, 1, 0, 0, 2, 1, 0])


@pytest.mark.parametrize("statistics", [GramSquares, RowSquares])
@pytest.mark.parametrize("strength", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("pairs", [[], [PairwiseReg(0.2)]], ids=["", "pairs"])
def test_groups_are_inverted_exactly(pairs, strength, statistics):
    """One step with Gram matrices; with their diagonals alone, still far fewer than tasks."""
    penalties = [GraphReg(GROUPS, strength), Ridge(0.1), *pairs]
    out = fit(penalties, statistics=statistics)
    assert out.converged and out.n_iter <= (2 if statistics is GramSquares else 100)
    torch.testing.assert_close(out.coef, dense(penalties), rtol=1e-6, atol=1e-6)


def test_groups_beside_another_graph():
    penalties = [GraphReg(GROUPS, 3.0), GraphReg(CHAIN, 0.5), PairwiseReg(0.01), Ridge(0.1)]
    out = fit(penalties)
    assert out.converged
    torch.testing.assert_close(out.coef, dense(penalties), rtol=1e-7, atol=1e-7)


def test_a_zero_target_is_fitted_by_zero():
    r = rows()
    r = Rows(r.X, torch.zeros_like(r.y), None, r.ptr)
    for penalties in ([], [PairwiseReg(1.0)], [TraceNorm(1.0)], [GraphTotalVariation(CHAIN, 1.0)]):
        out = fit(penalties, r)
        assert out.converged and out.objective == 0 and not out.coef.any()


def test_negative_edges_that_make_the_sum_indefinite_are_refused():
    graph = TaskGraph.from_edges([[0], [1]], [-1e3], num_tasks=K)
    with pytest.raises(ValueError, match=r"^fit: the penalties must be convex"):
        fit([GraphReg(graph, 1.0)])


def test_negative_edges_beside_a_norm_are_refused_by_name():
    graph = TaskGraph.from_edges([[0], [1]], [-1e3], num_tasks=K)
    with pytest.raises(ValueError, match=r"^fit: the penalties must be convex"):
        fit([GraphReg(graph, 1.0), TraceNorm(1.0)])


def pooled(r):
    """The slopes of one regression with an intercept a task, by least squares on the rows."""
    task = torch.arange(K).repeat_interleave(r.ptr.diff())
    means = torch.zeros(K, D + 1, dtype=torch.float64)
    both = torch.cat([r.X, r.y[:, None]], 1)
    means.index_add_(0, task, both).div_(r.ptr.diff().clamp(min=1)[:, None])
    both = both - means[task]
    return torch.linalg.lstsq(both[:, :D], both[:, D:]).solution[:, 0]


@pytest.mark.parametrize("strength", [1e8, 1e13, 1e150])
@pytest.mark.parametrize("term", [PairwiseReg, lambda s: GraphReg(CHAIN, s)], ids=["pair", "chain"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_a_strong_penalty_is_pooled(kind, term, strength):
    r = rows(sparse=kind == "sparse")
    out = fit([term(strength)], r, KINDS[kind])
    assert out.converged
    torch.testing.assert_close(out.coef, pooled(rows()).expand(K, D), rtol=1e-5, atol=1e-6)


def test_groups_of_one_task_each_are_no_penalty():
    out = fit([GraphReg(TaskGraph.groups(list(range(K))), 2.0)])
    torch.testing.assert_close(out.coef, fit([]).coef)


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_a_perfect_fit_under_total_variation_converges(scale):
    r = rows(sizes=[5] * K)
    r = Rows(r.X, scale * r.X.sum(1), None, r.ptr)
    out = fit([GraphTotalVariation(CHAIN, 1.0)], r, tol=1e-6, max_iter=1000)
    assert out.converged
    torch.testing.assert_close(out.coef, torch.full_like(out.coef, scale), rtol=1e-5, atol=0)


@pytest.mark.parametrize("penalties", [[], [PairwiseReg(1.0)], [TraceNorm(1.0)]])
def test_squares_that_overflow_are_refused(penalties):
    r = rows()
    for part in (Rows(r.X * 1e200, r.y, None, r.ptr), Rows(r.X, r.y * 1e200, None, r.ptr)):
        with pytest.raises(ValueError, match=r"^fit: X, y and sample_weight must be such that"):
            fit(penalties, part)


def test_coefficients_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"^fit: X, y, sample_weight and strengths must be of"):
        fit([PairwiseReg(1e308)])


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1])
def test_a_constant_feature_leaves_no_rounding_to_fit(value, weighted):
    r = rows(weighted=weighted)
    r.X[:, 2] = value
    for penalties in ([], [Ridge(1e-30)]):
        assert fit(penalties, r).coef[:, 2].abs().max() < 1e-14


def test_negative_edges_beside_enough_ridge_are_solved():
    graph = TaskGraph.from_edges([[0], [1]], [-1.0], num_tasks=K)
    out = fit([GraphReg(graph, 1.0), Ridge(4.0)])
    assert out.converged
    wanted = dense([GraphReg(graph, 1.0), Ridge(4.0)])
    torch.testing.assert_close(out.coef, wanted)


@pytest.mark.parametrize("term", [TraceNorm(3.0), GroupLasso(3.0)], ids=["trace", "group"])
def test_a_subgradient_certifies_the_optimum(term):
    """λ·‖·‖ has C − H W in its subdifferential: in λ times the dual ball, and ⟨., W⟩ = λ‖W‖."""
    statistics = GramSquares(rows(), True)
    penalty = split("fit", [term, Ridge(0.2)], K, torch.device("cpu"))
    coupling = coupling_of(statistics, penalty)
    for solver in (admm, fista):
        W = solver(statistics, penalty, coupling, tol=0.0, max_iter=3000).W
        Y = statistics.moment - System(statistics, coupling).product(W)
        if isinstance(term, TraceNorm):
            length = torch.linalg.matrix_norm(Y, 2)
        else:
            length = Y.norm(dim=0).max()
        assert length <= 3.0 * (1 + 1e-8)
        assert float((Y * W).sum()) == pytest.approx(float(term(W)), rel=1e-8)


def test_a_like_problem_starts_near_its_optimum():
    cold = fit([TraceNorm(2.0)])
    warm = fit([TraceNorm(2.0)], start=cold.coef)
    assert warm.n_iter < cold.n_iter
    assert warm.objective == pytest.approx(cold.objective, rel=1e-10)


def test_a_bar_tells_how_far_it_is(capsys):
    fit([TraceNorm(1.0)], verbose=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("\rfit (admm) |") and told.err.endswith("s\n")
    assert "#" * 30 in told.err
    bar = Progress("fit", 1e-6)
    for n_iter, gap in ((1, 1.0), (2, 0.1), (3, 0.01)):
        bar(n_iter, gap)
    bar.close()
    assert " 3 iterations" in capsys.readouterr().err
    fit([TraceNorm(1.0)])
    assert capsys.readouterr().err == ""


BAD = [
    (3, TypeError, "penalty must be an mtlfast.nn regularizer, a list of them or None, got int"),
    ([Ridge(), 3], TypeError, "penalty must hold mtlfast.nn regularizers, got int at position 1"),
    (
        GramReg(torch.eye(K)),
        NotImplementedError,
        "penalty must be a sum of terms that declare a quadratic, edges or is_norm beside "
        "has_prox, as mtlfast.nn.Regularizer tells, got GramReg, which declares none of them",
    ),
]


@pytest.mark.parametrize(("penalties", "kind", "words"), BAD, ids=["number", "list", "gram"])
def test_penalties_that_are_refused(penalties, kind, words):
    with pytest.raises(kind) as caught:
        check_penalties("fit", penalties)
    assert str(caught.value).startswith(f"fit: {words}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solver": "newton"}, "solver must be one of auto, cg, fista, admm, got 'newton'"),
        ({"solver": "cg", "penalties": [TraceNorm()]}, 'solver "cg" needs quadratic penalties'),
        ({"solver": "fista", "penalties": [Ridge()]}, 'solver "fista" needs exactly one norm'),
        ({"solver": "admm", "penalties": [Ridge()]}, 'solver "admm" needs a norm, got none'),
        ({"penalties": [GraphReg(TaskGraph.chain(3))]}, "W must have 3 rows|K=7|K = 7"),
        ({"penalties": [GraphTotalVariation(TaskGraph.chain(3))]}, "3 rows|K=7|K = 7"),
    ],
)
def test_settings_that_are_refused(settings, words):
    settings = {"penalties": []} | settings
    with pytest.raises(ValueError, match=words):
        fit(settings.pop("penalties"), **settings)
