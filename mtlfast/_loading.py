"""What ``torch.load`` may make of a file by default: the package's own values, and nothing else.

By default torch makes tensors and containers alone, and of further classes those that were declared
to be safe. Declared here are the classes that hold arguments: modules of :mod:`mtlfast.nn`, a
:class:`mtlfast.LowRank`, a :class:`mtlfast.TaskGraph`, whose indices are checked again, for kernels
trust them. None of them runs code that comes from the file. ``ModuleList`` is what holds the
terms of a sum.
"""

import torch

from mtlfast import nn
from mtlfast.gram import LowRank
from mtlfast.graphs._task_graph import restore_checked

_MODULES = [vars(nn)[name] for name in nn.__all__ if issubclass(vars(nn)[name], torch.nn.Module)]

torch.serialization.add_safe_globals([*_MODULES, LowRank, restore_checked, torch.nn.ModuleList])
