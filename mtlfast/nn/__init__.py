"""Modules: regularizers that store their arguments and add up, and K linear heads as one layer.

A module stores, a function computes: each regularizer here calls the function of its name with a
strength. All see the parameters of K tasks, a tensor ``[K, *]`` or a list of K equally shaped
tensors, as K rows.
"""

from mtlfast.nn._base import Regularizer
from mtlfast.nn._graphs import GraphReg, GraphTotalVariation
from mtlfast.nn._quadratic import Quadratic
from mtlfast.nn._sum import Sum
from mtlfast.nn._terms import GramReg, GroupLasso, PairwiseReg, Ridge, TraceNorm
from mtlfast.task_linear import TaskLinear

__all__ = [
    "GramReg",
    "GraphReg",
    "GraphTotalVariation",
    "GroupLasso",
    "PairwiseReg",
    "Quadratic",
    "Regularizer",
    "Ridge",
    "Sum",
    "TaskLinear",
    "TraceNorm",
]
