"""Optimisers over a task loss and a regularizer: proximal steps, and alternation.

Both wrap ordinary optimisers and are ones: they show the parameter groups of what they wrap, so
learning-rate schedulers accept either, and what a scheduler sets on one is seen by the other. What
else a wrapped optimiser offers (``train()``, ``eval()``, attributes of its own) is found on them.
"""

from mtlfast.optim._alternating import Alternating
from mtlfast.optim._proximal import Proximal

__all__ = ["Alternating", "Proximal"]
