"""mtlfast: task-relation regularizers for multi-task learning in PyTorch."""

from mtlfast import nn, optim
from mtlfast._native import FallbackWarning
from mtlfast.pairwise import pairwise_prox, pairwise_reg
from mtlfast.task_graph import TaskGraph

__version__ = "0.1.0"

__all__ = ["FallbackWarning", "TaskGraph", "nn", "optim", "pairwise_prox", "pairwise_reg"]
