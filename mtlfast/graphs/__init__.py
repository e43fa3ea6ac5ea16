"""Graphs of task relations: read, checked, prepared, and brought to what kernels take."""

from mtlfast.graphs._task_graph import TaskGraph

__all__ = ["TaskGraph"]
