"""The distance of the tasks' Gram matrix from a wanted one."""

from mtlfast.reference._base import plain, real


@plain
def gram_reg(w, omega):
    """‖WWᵀ − Ω‖_F² for a dense Ω, in float64: its terms cancel where training ends."""
    x = w.double()
    return (x @ x.T - omega.double()).square().sum().to(real(w).dtype)


@plain
def gram_reg_edges(w, row, col, values):
    """The same for a sparse Ω: Σ_stored (<w_i, w_j> − Ω_ij)² + Σ_others <w_i, w_j>²."""
    x = w.double()
    products = (x[row] * x[col]).sum(1)
    others = (x.T @ x).square().sum() - products.square().sum()
    return (others + (products - values.double()).square().sum()).to(real(w).dtype)


@plain
def gram_reg_factor(w, factor):
    """The same for Ω = FFᵀ: ‖WᵀW‖² − 2‖WᵀF‖² + ‖FᵀF‖²."""
    x, f = w.double(), factor.double()
    value = (x.T @ x).square().sum() - 2 * (x.T @ f).square().sum() + (f.T @ f).square().sum()
    return value.to(real(w).dtype)
