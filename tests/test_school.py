"""The School data (139 tasks): proximal gradient reaches the optima that MALSAR found."""

from pathlib import Path

import pytest
import torch

from mtlfast import pairwise_prox, pairwise_reg, trace_norm, trace_norm_prox

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "school.mat"
RHO = 100.0


@pytest.fixture(scope="module")
def school():
    """(X_kᵀX_k [K, d, d], X_kᵀy_k [K, d], Σ½‖y_k‖²): all that the squared loss needs."""
    if not DATA.exists():
        pytest.skip(f"needs the School data, not found at {DATA}")
    io = pytest.importorskip("scipy.io")
    cells = io.loadmat(DATA)
    X = [torch.as_tensor(x, dtype=torch.float64) for x in cells["X"].ravel()]
    Y = [torch.as_tensor(y, dtype=torch.float64).ravel() for y in cells["Y"].ravel()]
    assert len(X) == len(Y) == 139
    gram = torch.stack([x.mT @ x for x in X])
    cross = torch.stack([x.mT @ y for x, y in zip(X, Y, strict=True)])
    return gram, cross, 0.5 * sum(y.square().sum() for y in Y)


def minimise(school, penalty, prox, steps):
    """Accelerated proximal gradient with restart; returns the objective and W."""
    gram, cross, constant = school
    step = 1 / torch.linalg.eigvalsh(gram)[:, -1].max().item()
    W = momentum = torch.zeros_like(cross)
    t = 1.0
    for _ in range(steps):
        gradient = torch.einsum("kde,ke->kd", gram, momentum) - cross
        new = prox(momentum - step * gradient, step)
        if ((momentum - new) * (new - W)).sum() > 0:
            t = 1.0
        next_t = (1 + (1 + 4 * t * t) ** 0.5) / 2
        momentum = new + (t - 1) / next_t * (new - W)
        W, t = new, next_t
    quadratic = torch.einsum("kd,kde,ke->", W, gram, W)
    return (0.5 * quadratic - (cross * W).sum() + constant + penalty(W)).item(), W


def test_trace_norm_reaches_the_optimum(school):
    objective, W = minimise(
        school, lambda W: RHO * trace_norm(W), lambda W, s: trace_norm_prox(W, s * RHO), 3000
    )
    assert objective == pytest.approx(725915.3618, rel=1e-8)
    assert trace_norm(W).item() == pytest.approx(419.74402, rel=1e-4)
    assert torch.linalg.matrix_rank(W) == 16


def test_pairwise_reaches_the_optimum(school):
    """ρ‖W(I − 11ᵀ/K)‖_F² = ρ Σ_k ‖w_k − w̄‖² = ρ/(2K)·pairwise_reg(W)."""
    weight = RHO / (2 * 139)
    objective, _ = minimise(
        school, lambda W: weight * pairwise_reg(W), lambda W, s: pairwise_prox(W, s * weight), 3000
    )
    assert objective == pytest.approx(748933.701, rel=1e-8)
