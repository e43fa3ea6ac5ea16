"""Gram distances; opaque to the compiler, which would unroll their loops over tiles."""

from mtlfast._native import gram as kernels
from mtlfast._ops._registry import define, like, rows, value
from mtlfast._torch import gram as composed

gram_dense = define(
    "gram_dense(Tensor w, Tensor omega, bool want_grad) -> (Tensor, Tensor)",
    lambda w, omega, want_grad: (value(w), rows(w, want_grad)),
    composed.gram_dense,
    kernels.gram_dense,
    is_slow=False,
)
gram_dense_omega_grad = define(
    "gram_dense_omega_grad(Tensor w, Tensor omega, Tensor scale) -> Tensor",
    lambda w, omega, scale: like(omega),
    composed.gram_dense_omega_grad,
    is_slow=False,
)
gram_edges = define(
    "gram_edges(Tensor w, Tensor row, Tensor col, Tensor values, bool want_w, bool want_values)"
    " -> (Tensor, Tensor, Tensor)",
    lambda w, row, col, values, want_w, want_values: (
        value(w),
        rows(w, want_w),
        value(w, values.shape if want_values else (0,)),
    ),
    composed.gram_edges,
    kernels.gram_edges,
    kernels.cuda_gram_edges,
    is_slow=False,
)
gram_factor = define(
    "gram_factor(Tensor w, Tensor factor, bool want_w, bool want_factor)"
    " -> (Tensor, Tensor, Tensor)",
    lambda w, factor, want_w, want_factor: (value(w), rows(w, want_w), rows(factor, want_factor)),
    composed.gram_factor,
    is_slow=False,
)
