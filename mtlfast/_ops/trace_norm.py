"""Trace norms and their prox."""

from mtlfast import reference
from mtlfast._native import trace_norm as kernels
from mtlfast._ops._registry import define, nothing, value

trace_norm_value = define(
    "trace_norm_value(Tensor w, bool grad, bool check=True) -> (Tensor, Tensor)",
    lambda w, grad, check=True: (value(w, w.shape[:-2]), w.new_empty(w.shape if grad else (0,))),
    reference.trace_norm_value,
    kernels.trace_norm_value,
    kernels.cuda_trace_norm_value,
)
trace_norm_shrink = define(
    "trace_norm_shrink(Tensor w, Tensor threshold, bool check=True) -> Tensor",
    lambda w, threshold, check=True: w.new_empty(w.shape),
    reference.trace_norm_shrink,
    kernels.trace_norm_shrink,
    kernels.cuda_trace_norm_shrink,
)
trace_norm_shrink_ = define(
    "trace_norm_shrink_(Tensor(a!) w, Tensor threshold, bool check=True) -> ()",
    nothing,
    reference.trace_norm_shrink_,
    kernels.trace_norm_shrink_,
    kernels.cuda_trace_norm_shrink_,
)
