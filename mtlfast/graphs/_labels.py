"""Labels of tasks, as the groups that they make."""

import numpy as np
import torch

from mtlfast._checks import is_missing
from mtlfast.graphs._read import as_tensor


def first_alike(function, labels):
    """For each task the first task with its label, int64 on the CPU, and the labels' device."""
    device = torch.device("cpu")
    if isinstance(labels, torch.Tensor):
        if not labels.numel():  # of any dtype: nothing in it is no integer
            labels = labels.to(torch.int64)
        if labels.dtype.is_floating_point or labels.dtype.is_complex:
            raise TypeError(f"{function}: labels must hold integers, got {labels.dtype}")
        device, labels = labels.device, as_tensor(function, "labels", labels).cpu().numpy()
    elif not isinstance(labels, (list, tuple)):
        if not hasattr(labels, "__array__"):
            raise TypeError(
                f"{function}: labels must be a tensor, a numpy array or a list, "
                f"got {type(labels).__name__}"
            )
        labels = np.asarray(labels)
    if isinstance(labels, np.ndarray):
        if labels.ndim != 1:
            raise ValueError(f"{function}: labels must have shape [K], got {list(labels.shape)}")
        if labels.dtype.kind in "biuSU":
            _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
            return torch.from_numpy(first[inverse].astype(np.int64, copy=False)), device
        labels = labels.tolist()
    seen, first = {}, []
    for i, label in enumerate(labels):
        if isinstance(label, torch.Tensor):  # hashes by identity: no two would be alike
            raise TypeError(f"{function}: labels must be hashable, got Tensor at position {i}")
        try:
            first.append(seen.setdefault(label, i))
        except TypeError:
            raise TypeError(
                f"{function}: labels must be hashable, got {type(label).__name__} at position {i}"
            ) from None
        if is_missing(label):
            raise ValueError(
                f"{function}: labels must equal themselves, got {label} at position {i}"
            )
    return torch.tensor(first, dtype=torch.int64, device="cpu"), device
