"""The trace norm (nuclear norm) of matrices and its prox."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch
from torch.autograd.function import once_differentiable

from mtlfast import _ops, reference
from mtlfast._checks import (
    as_rows,
    check_float_tensor,
    check_number,
    check_same,
    is_several,
    rows_like,
)
from mtlfast._compat import (
    concrete,
    copy_each_,
    is_batched,
    needs_reference,
    wants_double_backward,
    wants_grad,
)

if TYPE_CHECKING:
    from mtlfast._typing import FormT, Number, Rows, RowsT, Several


def _as_matrices(function, W):
    if is_several(W):
        return as_rows(function, W)
    check_float_tensor(function, "W", W)
    if W.dim() < 2:
        raise ValueError(f"{function}: W must have shape [..., m, n], got {list(W.shape)}")
    return W


def _check_concrete(check, *args):
    """Checks values also where the reference runs, as far as there are values to look at."""
    *words, tensor = args
    tensor = concrete(tensor)
    if tensor is not None:
        check(*words, tensor)


def _looks(function, check, w):
    """Whether values are looked at: unasked where nothing has to be waited for."""
    if check is not None and not isinstance(check, bool):
        raise TypeError(f"{function}: check must be None, True or False, got {check!r}")
    return w.device.type == "cpu" if check is None else check


class _Subgradient(torch.autograd.Function):
    """The saved subgradient as a function of W, for double backward, inside a vmap too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w, unit):
        return unit.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (w,) = ctx.saved_tensors
        return reference.trace_norm_hessian(w, upstream), None


def subgradient(w):
    """The subgradient that :func:`trace_norm` takes for its gradient, differentiable once."""
    return _Subgradient.apply(w, _ops.trace_norm_value(w.detach(), True, False)[1])


_LARGE = 1 << 16  # elements on the CPU for which a look at the upstream gradient pays


def _scale_(unit, upstream):
    """``unit`` times ``upstream`` in place; a factor of 1 costs no pass over a large one."""
    looks = unit.is_cpu and unit.numel() > _LARGE and not torch.compiler.is_compiling()
    if looks and (upstream == 1).all():
        return unit
    return unit.mul_(upstream[..., None, None])


class _TraceNorm(torch.autograd.Function):
    """The subgradient comes with the value and is kept for one backward, which scales it in place
    and gives it away; a further backward computes it again from W.
    """

    @staticmethod
    def forward(ctx, w, check):
        value, ctx.unit = _ops.trace_norm_value(w, True, check)
        ctx.save_for_backward(w)
        return value

    @staticmethod
    def backward(ctx, upstream):
        (w,) = ctx.saved_tensors
        unit, ctx.unit = ctx.unit, None
        if unit is None:
            unit = _ops.trace_norm_value(w.detach(), True, False)[1]
        if wants_double_backward():
            unit = _Subgradient.apply(w, unit)
        elif unit.dtype == upstream.dtype and not is_batched(upstream):
            return _scale_(unit, upstream), None
        return (upstream[..., None, None] * unit).to(w.dtype), None


def trace_norm(W: Rows, *, check: bool | None = None) -> torch.Tensor:
    r"""Trace norm (nuclear norm) of each matrix: the sum of its singular values.

    .. math:: R(W) = \|W\|_* = \sum_i \sigma_i, \qquad
              \partial R / \partial W = \sum_{\sigma_i > \text{cut}} u_i v_i^T

    Equivalent to ``torch.linalg.matrix_norm(W, "nuc")``, with a gradient defined everywhere: the
    subgradient of least norm over the numerical rank, whose cut is σ_1·max(m, n)·eps of the
    arithmetic type (float64 for float64, else float32). It is 0 for a zero matrix. Double backward
    is finite at repeated singular values too.

    Args:
        W: tensor ``[..., m, n]``, or a list or tuple of K equally shaped tensors, taken as one
            matrix ``[K, d]``; float64, float32, bfloat16 or float16; any device, any strides.
        check: whether NaN or Inf in W raises. ``None`` looks on the CPU alone: elsewhere a look
            waits for the device. ``True`` looks everywhere, ``False`` nowhere. Where nobody looks,
            the value and the gradient of the matrix concerned are NaN, others are not touched.

    Returns:
        Shape ``[...]``: float64 for float64 input, else float32. Gradients have W's dtype.

    Raises:
        TypeError: W is no dense floating-point tensor, the list mixes dtypes, or check is no bool.
        ValueError: fewer than two dimensions, an empty list, mixed shapes, or NaN or Inf in W
            (``trace_norm: W must be finite, got nan at index (0, 3, 1)``).

    Cost: O(m·n·min(m, n)) a matrix. When a gradient is needed it comes with the value, and is kept.
    On CUDA nothing waits where the kernel is present, min(m, n) ≤ 64, and a matrix in float64 takes
    up to about 90 KiB (150 × 64); larger ones take torch's decompositions, which wait.
    Deterministic: where min(m, n) ≤ 256 (float64: ≤ 64 in batches) the same bits for any number of
    threads and any CPU; elsewhere as LAPACK is. On CUDA the kernel's bits do not change.

    Example:
        >>> import torch
        >>> from mtlfast import trace_norm
        >>> W = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]], requires_grad=True)
        >>> value = trace_norm(W)
        >>> value.backward()
        >>> value.item(), W.grad.tolist()
        (7.0, [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])

    Source: T. K. Pong, P. Tseng, S. Ji and J. Ye, Trace norm regularization: reformulations,
    algorithms, and multi-task learning, SIAM J. Optim. 2010.
    """
    w = _as_matrices("trace_norm", W)
    check = _looks("trace_norm", check, w)
    if needs_reference(w):
        if check:
            _check_concrete(reference.require_finite, "trace_norm", w)
        return reference.trace_norm(w)
    if wants_grad(w):
        return _TraceNorm.apply(w, check)
    return _ops.trace_norm_value(w, False, check)[0]


class _ProxGrad(torch.autograd.Function):
    """The gradient of the prox as a function, for double backward (generic singular values)."""

    @staticmethod
    def forward(ctx, w, threshold, upstream):
        ctx.save_for_backward(w, threshold, upstream)
        return reference.trace_norm_prox_grad(w, threshold, upstream)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_w, grad_t):
        inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
        with torch.enable_grad():
            z = reference.trace_norm_prox(*inputs[:2])
            first = torch.autograd.grad(z, inputs[:2], inputs[2], create_graph=True)
            return torch.autograd.grad(
                first, inputs, (grad_w, grad_t), allow_unused=True, materialize_grads=True
            )


def _recorded_prox_grads(w, threshold, upstream):
    """The same by autograd's own record, for several upstream gradients at once."""
    inputs = [t.view_as(t) for t in (w, threshold)]
    wanted = [t for t in inputs if t.requires_grad]
    z = reference.trace_norm_prox(*inputs)
    grads = iter(torch.autograd.grad(z, wanted, upstream, create_graph=True))
    return [next(grads) if t.requires_grad else None for t in inputs]


class _TraceNormProx(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, threshold, check):
        ctx.save_for_backward(w, threshold)
        return _ops.trace_norm_shrink(w, threshold, check)

    @staticmethod
    def backward(ctx, upstream):
        if wants_double_backward():
            several = is_batched(upstream)
            grads = (_recorded_prox_grads if several else _ProxGrad.apply)(
                *ctx.saved_tensors, upstream
            )
            return *grads, None
        return *reference.trace_norm_prox_grad(*ctx.saved_tensors, upstream), None


def _as_threshold(function, threshold, w):
    """``threshold`` as float64, one for each matrix; its values are checked with those of W."""
    if not isinstance(threshold, torch.Tensor):
        value = check_number(function, "threshold", threshold)
        return torch.full(w.shape[:-2], value, dtype=torch.float64, device=w.device)
    check_float_tensor(function, "threshold", threshold)
    check_same(function, "threshold", threshold, w, dtype=False)
    try:
        broadcast = threshold.expand(w.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"{function}: threshold must broadcast to the batch shape {list(w.shape[:-2])}, "
            f"got {list(threshold.shape)}"
        ) from None
    return broadcast.to(torch.float64)


@overload
def trace_norm_prox(W: FormT, threshold: Number, *, check: bool | None = ...) -> FormT: ...
@overload
def trace_norm_prox(
    W: Several, threshold: Number, *, check: bool | None = ...
) -> list[torch.Tensor]: ...
def trace_norm_prox(W: Rows, threshold: Number, *, check: bool | None = None) -> Rows:
    r"""Proximal step of :func:`trace_norm`: soft-thresholding of the singular values.

    .. math:: \arg\min_Z \tfrac12 \|Z - W\|_F^2 + t \|Z\|_*
              = U \, \mathrm{diag}((\sigma_i - t)_+) \, V^T

    Args:
        W: as in :func:`trace_norm`.
        threshold: t, a finite number ≥ 0 (learning rate times strength), or a floating-point tensor
            on W's device that broadcasts to the batch shape ``[...]``: one for each matrix. The
            tensor may require a gradient.
        check: as in :func:`trace_norm`, for NaN and Inf in W and for a threshold tensor with values
            that are not finite or below 0: where nobody looks, the matrix concerned becomes NaN. A
            threshold that is a number is always checked.

    Returns:
        The minimiser in the form and dtype of W; differentiable in W and threshold, also where
        singular values are zero, equal, or removed (double backward: where they are distinct).

    Raises:
        TypeError, ValueError: as :func:`trace_norm`; a threshold that is negative, NaN or infinite,
            of a wrong type or device, or that does not broadcast to the batch shape.

    Cost: O(m·n·min(m, n)) a matrix; backward adds a float64 SVD. Deterministic as
    :func:`trace_norm`.

    Example:
        >>> import torch
        >>> from mtlfast import trace_norm_prox
        >>> trace_norm_prox(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), threshold=1.0)
        tensor([[2., 0.],
                [0., 0.]])

    Source: J.-F. Cai, E. J. Candès and Z. Shen, A singular value thresholding algorithm for matrix
    completion, SIAM J. Optim. 2010.
    """
    w = _as_matrices("trace_norm_prox", W)
    t = _as_threshold("trace_norm_prox", threshold, w)
    check = _looks("trace_norm_prox", check, w)
    if needs_reference(w, t):
        if check:
            _check_concrete(reference.require_threshold, t)
            _check_concrete(reference.require_finite, "trace_norm_prox", w)
        out = reference.trace_norm_prox(w, t)
    elif wants_grad(w, t):
        out = _TraceNormProx.apply(w, t, check)
    else:
        out = _ops.trace_norm_shrink(w, t, check)
    return rows_like(W, out) if is_several(W) else out


@torch.no_grad()
def trace_norm_prox_(W: RowsT, threshold: Number, *, check: bool | None = None) -> RowsT:
    r"""Proximal step of :func:`trace_norm` in place: W becomes the minimiser.

    .. math:: W \leftarrow \arg\min_Z \tfrac12 \|Z - W\|_F^2 + t \|Z\|_*

    It runs outside autograd, as an optimiser's step does: W may require a gradient, and nothing is
    recorded. A large contiguous W is read twice and written once, and no copy of it is made.

    Args:
        W: as in :func:`trace_norm_prox`; a list or tuple of tensors is written tensor by tensor.
        threshold: as in :func:`trace_norm_prox`.
        check: as in :func:`trace_norm_prox`.

    Returns:
        W itself.

    Raises:
        TypeError, ValueError: as :func:`trace_norm_prox`. W is unchanged then.

    Cost: O(m·n·min(m, n)) a matrix. Deterministic: the bits of :func:`trace_norm_prox`.

    Example:
        >>> import torch
        >>> from mtlfast import trace_norm_prox_
        >>> W = torch.nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 0.5]]))
        >>> trace_norm_prox_(W, threshold=1.0) is W, W.tolist()
        (True, [[2.0, 0.0], [0.0, 0.0]])

    Source: J.-F. Cai, E. J. Candès and Z. Shen, A singular value thresholding algorithm for matrix
    completion, SIAM J. Optim. 2010.
    """
    w = _as_matrices("trace_norm_prox_", W)
    t = _as_threshold("trace_norm_prox_", threshold, w)
    check = _looks("trace_norm_prox_", check, w)
    if needs_reference(w, t):
        if check:
            _check_concrete(reference.require_threshold, t)
            _check_concrete(reference.require_finite, "trace_norm_prox_", w)
        w.copy_(reference.trace_norm_prox(w, t))
    else:
        _ops.trace_norm_shrink_(w, t, check)
    if is_several(W):
        copy_each_(W, rows_like(W, w))
    return W
