"""The table and the plot of flights.py."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Outcome:
    """What one method reached, and at what cost; NaN where there is nothing to time."""

    strengths: tuple
    validation: float
    test: float
    epoch_seconds: float
    regularizer_seconds: float = float("nan")
    loop_seconds: float = float("nan")
    extrapolated: bool = False


def _seconds(value, digits):
    return "–" if math.isnan(value) else f"{value:.{digits}f} s"


def table(outcomes):
    """The results as text."""
    lines = [
        f"{'':25}{'RMSE, min':>10}  {'strength':14}{'s/epoch':>9}   regularizer, value + gradient",
        f"{'method':25}{'test':>10}  {'chosen':14}{'':9}   {'mtlfast':>11}   naive double loop",
    ]
    for name, outcome in outcomes.items():
        strength = ", ".join(f"{s:g}" for s in outcome.strengths) or "–"
        ours = _seconds(outcome.regularizer_seconds, 6)
        loop = _seconds(outcome.loop_seconds, 1)
        if outcome.extrapolated:
            loop = f"~ {loop} (extrapolated)"
        lines.append(
            f"{name:25}{outcome.test:10.2f}  {strength:14}{outcome.epoch_seconds:9.4f}   "
            f"{ours:>11}   {loop}"
        )
    return "\n".join(lines)


def plot(outcomes, path):
    """Errors on the left, time in the regularizer on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = list(outcomes)[::-1]
    errors = [outcomes[name].test for name in names]
    left.plot(errors, names, "o", color="tab:blue")
    for name, error in zip(names, errors, strict=True):
        left.annotate(
            f"{error:.2f}", (error, name), (8, 0), textcoords="offset points", va="center"
        )
    left.margins(x=0.2)
    left.set_xlabel("test RMSE, minutes")

    timed = [name for name in names if outcomes[name].loop_seconds > 0]
    position = np.arange(len(timed))
    loop = [outcomes[name].loop_seconds for name in timed]
    right.barh(position + 0.2, loop, 0.4, label="naive double loop", color="tab:gray")
    ours = [outcomes[name].regularizer_seconds for name in timed]
    right.barh(position - 0.2, ours, 0.4, label="mtlfast", color="tab:orange")
    right.set_yticks(position, timed)
    right.set_xscale("log")
    right.set_xlabel("seconds for one value and gradient")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
