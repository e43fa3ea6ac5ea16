"""The School data (139 tasks): splitting with our proxes reaches optima that are proven here.

MALSAR 1.1 stopped at 725915.3618 (trace norm) and 748933.701 (pairwise) after 5,000 iterations of
accelerated proximal gradient on the same objectives. Those are upper bounds: the minima lie 1.0e-4
and 6.6e-4 below, as a duality gap and a direct linear solve show.
"""

from pathlib import Path

import pytest
import torch

from mtlfast import pairwise_prox, pairwise_reg, trace_norm, trace_norm_prox

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "school.mat"
TASKS, RHO = 139, 100.0


@pytest.fixture(scope="module")
def school():
    """(X_kᵀX_k [K, d, d], X_kᵀy_k [K, d], Σ½‖y_k‖²): all that the squared loss needs."""
    if not DATA.exists():
        pytest.skip(f"needs the School data, not found at {DATA}")
    io = pytest.importorskip("scipy.io")
    cells = io.loadmat(DATA)
    X = [torch.as_tensor(x, dtype=torch.float64) for x in cells["X"].ravel()]
    Y = [torch.as_tensor(y, dtype=torch.float64).ravel() for y in cells["Y"].ravel()]
    assert len(X) == len(Y) == TASKS
    gram = torch.stack([x.mT @ x for x in X])
    cross = torch.stack([x.mT @ y for x, y in zip(X, Y, strict=True)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of small LAPACK calls
    yield gram, cross, 0.5 * sum(y.square().sum() for y in Y)
    torch.set_num_threads(threads)


def loss(school, W):
    """Σ_k ½‖y_k − X_k w_k‖² and its gradient."""
    gram, cross, constant = school
    product = torch.einsum("kde,ke->kd", gram, W)
    return (0.5 * (W * product).sum() - (cross * W).sum() + constant).item(), product - cross


def minimise(school, prox, beta, steps):
    """ADMM: exact least squares for each task, then ``prox(·, 1/beta)`` over all of them."""
    gram, cross, _ = school
    factor = torch.linalg.cholesky(gram + beta * torch.eye(gram.shape[1], dtype=gram.dtype))
    Z = dual = torch.zeros_like(cross)
    for _ in range(steps):
        right = cross + beta * (Z - dual)
        W = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
        Z = prox(W + dual, 1 / beta)
        dual = dual + W - Z
    return Z


def test_trace_norm_reaches_the_optimum(school):
    W = minimise(school, lambda W, step: trace_norm_prox(W, step * RHO), 10.0, 600)
    value, gradient = loss(school, W)
    penalty = RHO * trace_norm(W).item()
    objective = value + penalty
    # by convexity F(W) − F* ≤ ρ‖W‖_* + ⟨g, W⟩ + (‖g‖₂ − ρ)₊‖W*‖_*, and ρ‖W*‖_* ≤ F(W)
    excess = max(torch.linalg.matrix_norm(gradient, 2).item() / RHO - 1, 0)
    gap = penalty + (gradient * W).sum().item() + excess * objective
    assert abs(gap) <= 1e-8 * objective
    assert objective == pytest.approx(725844.677837, rel=1e-8)
    assert torch.linalg.matrix_rank(W) == 14
    assert 0 < 725915.3618 / objective - 1 < 1e-4


def test_pairwise_reaches_the_optimum(school):
    """ρ‖W(I − 11ᵀ/K)‖_F² = ρ Σ_k ‖w_k − w̄‖² = ρ/(2K)·pairwise_reg(W)."""
    weight = RHO / (2 * TASKS)
    W = minimise(school, lambda W, step: pairwise_prox(W, step * weight), 3.0, 1000)
    objective = loss(school, W)[0] + weight * pairwise_reg(W).item()

    gram, cross, _ = school
    dim = cross.shape[1]
    centre = torch.eye(TASKS, dtype=torch.float64) - 1 / TASKS
    system = 2 * RHO * torch.kron(centre, torch.eye(dim, dtype=torch.float64))
    system += torch.block_diag(*gram)
    exact = torch.linalg.solve(system, cross.reshape(-1)).reshape(cross.shape)
    minimum = loss(school, exact)[0] + RHO * (exact - exact.mean(0)).square().sum().item()
    assert objective == pytest.approx(minimum, rel=1e-8)
    assert 0 < 748933.701 / objective - 1 < 1e-3
