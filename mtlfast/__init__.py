"""mtlfast: task-relation regularizers for multi-task learning in PyTorch."""

from mtlfast._native import FallbackWarning
from mtlfast.gram import LowRank, gram_reg
from mtlfast.pairwise import pairwise_prox, pairwise_reg

__version__ = "0.1.0"

__all__ = ["FallbackWarning", "LowRank", "gram_reg", "pairwise_prox", "pairwise_reg"]
