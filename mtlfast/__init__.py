"""mtlfast: task-relation regularizers for multi-task learning in PyTorch."""

from mtlfast._native import FallbackWarning
from mtlfast.pairwise import pairwise_prox, pairwise_reg
from mtlfast.trace_norm import trace_norm, trace_norm_prox

__version__ = "0.1.0"

__all__ = ["FallbackWarning", "pairwise_prox", "pairwise_reg", "trace_norm", "trace_norm_prox"]
