"""A bar on stderr: how far an iteration has come towards its tolerance."""

import math
import sys
import time

_WIDTH = 30
_EVERY = 0.1  # seconds


class Progress:
    """Called with the iterations done and the gap; draws at most ten times a second."""

    def __init__(self, label, tol):
        self.label, self.tol = label, tol
        self._first, self._drawn, self._begin = None, 0.0, time.perf_counter()
        self._undrawn = None

    def __call__(self, n_iter, gap):
        now = time.perf_counter()
        if not math.isfinite(gap):
            return
        self._first = gap if self._first is None else max(self._first, gap)
        if now - self._drawn < _EVERY and gap > self.tol:
            self._undrawn = n_iter, gap
            return
        self._drawn = now
        self._draw(n_iter, gap)

    def _draw(self, n_iter, gap):
        now, self._undrawn = time.perf_counter(), None
        done = math.log(self._first / max(gap, self.tol)) if gap > 0 else math.inf
        whole = math.log(self._first / self.tol) if self._first > self.tol else 1.0
        bar = "#" * int(_WIDTH * min(1.0, done / whole if gap > self.tol else 1.0))
        sys.stderr.write(
            f"\r{self.label} |{bar:<{_WIDTH}}| {n_iter} iterations, gap {gap:.1e}, "
            f"{now - self._begin:.1f} s"
        )
        sys.stderr.flush()

    def close(self):
        if self._undrawn is not None:
            self._draw(*self._undrawn)
        sys.stderr.write("\n")
        sys.stderr.flush()
