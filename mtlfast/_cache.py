"""Remembers what was prepared from a user's tensors, for as long as they live unchanged."""

import weakref

import torch


class TensorCache:
    """``get(tensors, stamp, build)``: ``build()``, once for these very tensors in this state.

    An entry dies with any of its tensors, and counts no more once one was modified in place (its
    version counter moved; not looked at with ``ignore_writes``) or ``stamp`` differs. Writes that
    torch does not see, through ``.data`` or a shared NumPy array, go unnoticed. Inference tensors
    carry no version: nothing is kept. What is built under ``inference_mode`` serves training too.
    """

    def __init__(self):
        self._entries = {}

    def get(self, tensors, stamp, build, *, ignore_writes=False):
        if any(t.is_inference() for t in tensors):
            return build()
        key = tuple(id(t) for t in tensors)
        state = (stamp, *(() if ignore_writes else (t._version for t in tensors)))
        entry = self._entries.get(key)
        if entry is not None:
            references, known_state, value = entry
            alive = all(r() is t for r, t in zip(references, tensors, strict=True))
            if alive and known_state == state:
                return value
        with torch.inference_mode(False):
            value = build()
        entries = self._entries
        references = tuple(weakref.ref(t, lambda _: entries.pop(key, None)) for t in tensors)
        entries[key] = (references, state, value)
        return value
