"""The Gram distance in tiles: ops composed of torch calls, in float64, for every device.

    R(W) = ‖W Wᵀ − Ω‖_F²,   ∂R/∂W = 2 (R + Rᵀ) W,   ∂R/∂Ω = −2 R,   R = W Wᵀ − Ω

The expanded square loses all digits near the optimum, where training ends, so a dense Ω is met by
its residual, tile by tile. W Wᵀ is symmetric: a tile of it serves both (i, j) and (j, i), and Ω
need not be symmetric. Tiles are visited in a fixed order. Gradients are returned for an upstream
gradient of 1 and in the arithmetic type, so that a scale can still save float16 from overflow.
"""

import torch


def _real(x, w):
    """``x`` in the type in which values and unit gradients for ``w`` are returned."""
    return x if w.dtype == torch.float64 else x.float()


def _side(x):
    """Rows of a tile: 2 MiB in float64 on the CPU, 32 MiB on accelerators."""
    return 512 if x.device.type == "cpu" else 2048


def _blocks(w):
    """Pairs of row ranges (I, J), I <= J, that cover W Wᵀ, in a fixed order."""
    side = _side(w)
    for i in range(0, w.shape[0], side):
        for j in range(i, w.shape[0], side):
            yield slice(i, min(i + side, w.shape[0])), slice(j, min(j + side, w.shape[0]))


class _Buffer:
    """One tile's memory, used again for each tile: fresh pages cost more than the arithmetic."""

    def __init__(self, x):
        side = min(_side(x), x.shape[0])
        self.flat = x.new_empty(side * side)

    def tile(self, i, j):
        rows, columns = i.stop - i.start, j.stop - j.start
        return self.flat[: rows * columns].view(rows, columns)


def _square(x):
    flat = x.reshape(-1)
    return flat.dot(flat)


def gram_dense(w, omega, want_grad):
    """The value and, where wanted, the gradient in W, from one pass over the tiles of Ω.

    A tile is transposed by a copy: torch has a fast one, and its other transposed reads are slow.
    """
    x = w.double()
    value = x.new_zeros(())
    grad = x.new_zeros(x.shape if want_grad else (0, x.shape[1]))
    first, second, third = (_Buffer(x) for _ in range(3))
    for i, j in _blocks(w):
        product, upper, lower = first.tile(i, j), second.tile(i, j), third.tile(j, i)
        torch.mm(x[i], x[j].T, out=product)
        torch.sub(product, omega[i, j], out=upper)
        value += _square(upper)
        if i != j:
            lower.copy_(product.T).sub_(omega[j, i])
            value += _square(lower)
        if want_grad:
            both = upper.add_(product.copy_((lower if i != j else lower.copy_(upper)).T))
            grad[i].addmm_(both, x[j])
            if i != j:
                grad[j].addmm_(lower.copy_(both.T), x[i])
    return _real(value, w), _real(grad.mul_(2), w)


def gram_dense_omega_grad(w, omega, scale):
    """−2 · scale · (W Wᵀ − Ω) in Ω's dtype; nothing else of its size is made."""
    x, factor = w.double().contiguous(), 2 * scale.double()
    grad = torch.empty_like(omega, memory_format=torch.contiguous_format)
    first, second = _Buffer(x), _Buffer(x)
    for i, j in _blocks(w):
        product = torch.mm(x[i], x[j].T, out=first.tile(i, j))
        other = second.tile(j, i).copy_(product.T)
        grad[i, j] = torch.sub(omega[i, j], product, out=product).mul_(factor)
        if i != j:
            grad[j, i] = torch.sub(omega[j, i], other, out=other).mul_(factor)
    return grad


def _edge_products(x, row, col):
    """<x_row, x_col> of each edge; the gathered rows take 2 MiB."""
    dim = x.shape[1]
    step = max((1 << 17) // max(dim, 1), 1)
    left, right = (x.new_empty((min(step, row.shape[0]), dim)) for _ in range(2))
    products = x.new_empty(row.shape)
    for start in range(0, row.shape[0], step):
        edges = slice(start, min(start + step, row.shape[0]))
        count = edges.stop - edges.start
        torch.index_select(x, 0, row[edges], out=left[:count])
        torch.index_select(x, 0, col[edges], out=right[:count])
        torch.sum(left[:count].mul_(right[:count]), 1, out=products[edges])
    return products


def small_gram(w):
    """WᵀW, from a part of W in float64 at a time."""
    small = w.new_zeros((w.shape[1],) * 2, dtype=torch.float64)
    for rows in _parts(w):
        rows = rows.double()
        small.addmm_(rows.T, rows)
    return small


def small_product(w, small):
    """W times a small matrix, in float64."""
    out = w.new_empty((w.shape[0], small.shape[1]), dtype=torch.float64)
    for rows, target in zip(_parts(w), _parts(out), strict=True):
        torch.mm(rows.double(), small, out=target)
    return out


def _parts(w):
    """Rows of W, 2²⁴ elements at a time."""
    return w.split(max(1, (1 << 24) // max(w.shape[1], 1)))


def edges_value(small, products, values):
    """‖WWᵀ − Ω‖² and the residuals at Ω's entries, from WᵀW and <w_r, w_c> there."""
    residual = products - values
    return (_square(small) - _square(products)).clamp(min=0) + _square(residual), residual


def gram_edges(w, row, col, values, want_w, want_values):
    """Sparse Ω with distinct entries: the value and the gradients in W and ``values``.

    Residuals at stored entries are exact; what W Wᵀ holds elsewhere is ‖WᵀW‖² − Σ <w_r, w_c>².
    """
    x, v = w.double(), values.double()
    small = small_gram(x)
    value, residual = edges_value(small, _edge_products(x, row, col), v)
    grad = x.new_empty((0, x.shape[1]))
    if want_w:
        grad = small_product(x, 4 * small)
        for index in (torch.stack([row, col]), torch.stack([col, row])):
            omega = torch.sparse_coo_tensor(
                index, v, (x.shape[0],) * 2, device=x.device, check_invariants=False
            )
            grad = torch.sparse.addmm(grad, omega, x, alpha=-2)
    values_grad = -2 * residual if want_values else residual.new_empty((0,))
    return _real(value, w), _real(grad, w), _real(values_grad, w)


# Below this share of ‖WᵀW‖², the expanded value in float64 keeps fewer than ten digits.
_CANCELLED = 1e-6


def gram_factor(w, factor, want_w, want_factor):
    """Ω = F Fᵀ: the value and the gradients in W and F, in O(K (d + r)²) and without K × K."""
    x, f = w.double(), factor.double()
    xx, xf, ff = x.T @ x, x.T @ f, f.T @ f
    value = _square(xx) - 2 * _square(xf) + _square(ff)
    if bool(value < _CANCELLED * _square(xx)):
        triangle = torch.linalg.qr(torch.cat([x, f], 1), mode="r")[1]
        left, right = triangle[:, : x.shape[1]], triangle[:, x.shape[1] :]
        value = _square(left @ left.T - right @ right.T)
    grad_w = 4 * (x @ xx - f @ xf.T) if want_w else x.new_empty((0, x.shape[1]))
    grad_f = 4 * (f @ ff - x @ xf) if want_factor else f.new_empty((0, f.shape[1]))
    return _real(value, w), _real(grad_w, w), _real(grad_f, w)
