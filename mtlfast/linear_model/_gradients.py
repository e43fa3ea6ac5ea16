"""One norm of W beside a quadratic, by accelerated proximal gradients with restarts.

Each step costs two products with the Hessian and no inverse: for rows that have no Gram matrices.

Source: A. Beck and M. Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm, 2009;
B. O'Donoghue and E. Candès, Adaptive Restart for Accelerated Gradient Schemes, 2015.
"""

import torch

from mtlfast.linear_model._bounds import Bound
from mtlfast.linear_model._norms import NormOfTasks
from mtlfast.linear_model._quadratic import System
from mtlfast.linear_model._search import Search
from mtlfast.linear_model._splitting import CHECK, Patience


def fista(squares, penalty, coupling, *, tol, max_iter, start=None, progress=None):
    """The optimum for one norm of W, by accelerated proximal gradients with restarts."""
    (term,) = penalty.norms
    system = System(squares, coupling)
    L = _largest(system)
    W = torch.zeros_like(squares.moment) if start is None else start.clone()
    norm = NormOfTasks(term, W)
    search, patience = Search(Bound(system), [norm]), Patience()
    if start is not None:
        search.offer(W)
    V, t = W, 1.0
    for n_iter in range(1, max_iter + 1):
        slope = system.product(V) - squares.moment
        Z = term.prox(V - slope / L, 1.0 / L)
        moved = V - Z
        if float((moved * (Z - W)).sum()) > 0:
            t = 1.0  # restart: momentum points uphill
        if n_iter % CHECK == 0 or n_iter == max_iter:
            # L(V − Z) − slope is a subgradient of the norm at Z
            norm.U = L * moved - slope
            miss = squares.moment - system.product(Z) - norm.U
            smooth = squares.loss(Z) + coupling.value(Z)
            search.offer(Z, smooth)
            must = patience.is_due(n_iter) or n_iter == max_iter
            gap = search.look(Z, miss, norm.U, smooth, 1.0, None if must else tol)
            if progress is not None:
                progress(n_iter, gap)
            if search.gap <= tol or (must and patience.ends(n_iter, search.gap)):
                break
        later = (1 + (1 + 4 * t * t) ** 0.5) / 2
        V, W, t = Z + (t - 1) / later * (Z - W), Z, later
    return search.solved(n_iter)


def _largest(system):
    """A bound of the largest eigenvalue of H, by a power iteration."""
    generator = torch.Generator("cpu").manual_seed(0)
    W = torch.randn(system.squares.moment.shape, generator=generator, device="cpu")
    W = W.to(system.squares.moment)
    value = 0.0
    for _ in range(30):
        W = W / W.norm().clamp(min=1e-300)
        W, before = system.product(W), value
        value = float(W.norm())
        if abs(value - before) <= 1e-3 * value:
            break
    return 1.02 * value if value > 0 else 1.0
