"""Which rows are whose, and how tasks of like size are taken together: found once a fit."""

from functools import cached_property
from typing import NamedTuple

import torch

_BUDGET = 1 << 18  # numbers of a padded chunk of tasks: it stays in the cache


class Chunk(NamedTuple):
    """Tasks of like size.

    ``rows`` is a slice where these lie one after the other, all of one size, else indices
    ``[B, n]``; ``valid`` ``[B, n]`` is False where they are padding, None without any.
    """

    tasks: torch.Tensor
    shape: tuple
    rows: object
    valid: torch.Tensor | None


class Layout:
    """For rows sorted by task, those of task k at ``ptr[k]:ptr[k + 1]``."""

    def __init__(self, ptr):
        self.ptr = ptr
        self._chunks = {}

    @cached_property
    def size(self):
        """The number of rows of each task ``[K]``."""
        return self.ptr.diff()

    @cached_property
    def task(self):
        """The task of each row ``[N]``."""
        tasks = torch.arange(self.size.numel(), device=self.ptr.device)
        return tasks.repeat_interleave(self.size)

    @cached_property
    def first(self):
        """The first row of each task ``[K]``; of one without rows any."""
        return self.ptr[:-1].clamp(max=max(len(self.task) - 1, 0))

    def sums(self, values):
        """Sums of one number a row over the rows of each task, in order."""
        return torch.segment_reduce(values, "sum", offsets=self.ptr, initial=0.0)

    def spread(self, values):
        """One number a task, for each of its rows."""
        return values[self.task]

    def parts(self, d):
        """Slices of rows whose ``d`` columns stay in the cache."""
        step = max(1, _BUDGET // max(1, d))
        return [slice(i, min(i + step, len(self.task))) for i in range(0, len(self.task), step)]

    def chunks(self, d):
        """Chunks of rows with ``d`` columns, of all tasks that have rows."""
        if d not in self._chunks:
            self._chunks[d] = list(self._find_chunks(max(1, d)))
        return self._chunks[d]

    def _find_chunks(self, d):
        sizes, order = self.size.sort(stable=True)
        counts = sizes.tolist()
        begin = int((sizes == 0).sum())
        while begin < len(counts):
            end = begin + 1
            # a chunk ends where it is full, or where a third of it would be padding
            while end < len(counts) and counts[end] * (end + 1 - begin) * d <= _BUDGET:
                if 3 * counts[begin] < 2 * counts[end]:
                    break
                end += 1
            yield self._chunk(order[begin:end], counts[end - 1])
            begin = end

    def _chunk(self, tasks, n):
        size, first, shape = self.size[tasks], self.ptr[tasks], (tasks.numel(), n)
        last = int(first[-1] + size[-1])
        if int(first[0]) + n * tasks.numel() == last and bool((size == n).all()):
            return Chunk(tasks, shape, slice(int(first[0]), last), None)
        place = torch.arange(n, device=first.device)
        index = first[:, None] + torch.minimum(place, size[:, None] - 1)
        return Chunk(tasks, shape, index, place < size[:, None])
