"""Everything that touches private or version-dependent parts of torch, in one place."""

import contextlib

import torch
from torch.autograd import forward_ad

OLDEST = (2, 8)  # also in pyproject.toml: what the tests of transforms and compiled code pass on
if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST:
    raise ImportError(
        f"mtlfast: torch must be >= {OLDEST[0]}.{OLDEST[1]}, got {torch.__version__}; older ones "
        "are not tested, and gradients in compiled code have been wrong on them"
    )

_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)
_transforms_active = torch._C._are_functorch_transforms_active


def needs_reference(*tensors):
    """True where an autograd.Function over a native op would be silently wrong.

    That is inside a functorch transform (``torch.func.grad``, ``vmap``, ``jvp``, …), in
    forward-mode automatic differentiation, and for tensor subclasses (DTensor, FakeTensor): there
    the public functions run the differentiable reference instead. The transform probe comes first:
    the others see nothing under ``torch.compile(torch.func.grad(f))``.
    """
    if _transforms_active() or forward_ad._current_level >= 0:
        return True
    return any(type(t) not in _PLAIN_TYPES for t in tensors)


def calls_directly():
    """True where nobody records the ops that are called: no compiler, dispatch mode or profiler."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch.autograd._profiler_enabled()
    )


def outside_transforms():
    """Suspends functorch transforms: under them, a CSR tensor that takes no part raises."""
    return torch._C._DisableFuncTorch() if _transforms_active() else contextlib.nullcontext()


def wants_grad(*tensors):
    """True when autograd must record an operation on these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def wants_double_backward():
    """Inside ``backward``: True when the gradient itself must be differentiable."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def is_batched(upstream):
    """Inside ``backward``: True where the gradients of several losses are taken at once.

    That is ``is_grads_batched`` of ``torch.autograd.grad``, which has a vmap of its own, or a
    ``torch.func.vmap`` around it: ``upstream`` hides a dimension that saved tensors do not have. An
    address, an item and an operation in place are out of the question.
    """
    if torch.compiler.is_compiling():
        return False
    return _transforms_active() or torch._C._functorch.is_legacy_batchedtensor(upstream)


def for_each(upstream, gradient, w):
    """``gradient(w, upstream)``, linear in the scalar ``upstream``.

    Of several losses it is taken once, in the arithmetic type, and scaled for each.
    """
    if not is_batched(upstream):
        return gradient(w, upstream)
    one = torch.ones((), dtype=upstream.dtype, device=w.device)
    return (upstream * gradient(w.to(upstream.dtype), one)).to(w.dtype)


def has_hooks(module):
    """Whether a call of the module does more than its ``forward``."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        or torch.nn.modules.module._has_any_global_hook()
    )


def scaled_(grad, upstream):
    """``grad`` times the scalar ``upstream`` in place, without a pass over it where that is 1."""
    if is_batched(upstream):
        return grad * upstream
    if upstream.is_cpu and calls_directly() and upstream.item() == 1:
        return grad
    return grad.mul_(upstream)


def copy_each_(targets, sources):
    """Copies tensors in one call: a signal's exception would leave a loop half-way."""
    targets, sources = list(targets), list(sources)
    if targets and not needs_reference(*targets, *sources):
        torch._foreach_copy_(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def current_stream(index):
    """The address of the current stream of a CUDA device."""
    return torch._C._cuda_getCurrentRawStream(index)


def concrete(tensor):
    """The plain tensor inside functorch's wrappers, to look at its values; None while tracing."""
    if torch.compiler.is_compiling():
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor if type(tensor) in _PLAIN_TYPES else None
