"""Two curves of the pairwise distance: time against the number of tasks, error against the spread.

Writes benchmarks/results/curves.json; plot.py draws the README's figure from it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from overview import describe
from rivals import assert_equal, pairwise

from mtlfast import pairwise_reg

SIZES = (3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
LOOP_ENDS = 100  # tasks; the double loop takes seconds beyond
SPREADS = [10.0 ** (-k / 2) for k in range(15)]


def times(dim, rounds):
    """name → [(tasks, median seconds of value + gradient)], interleaved.

    The double loop is timed by itself: it leaves cold caches to whoever comes next.
    """
    curves = {}
    for num_tasks in SIZES:
        ways = pairwise(num_tasks, dim, loop=num_tasks <= LOOP_ENDS)
        assert_equal(ways)
        seconds = {name: [] for name in ways}
        for together in ([name for name in ways if name != "double loop"], ["double loop"]):
            for _ in range(rounds):
                for name in together:
                    if name in ways:
                        start = time.perf_counter()
                        ways[name]()
                        seconds[name].append(time.perf_counter() - start)
        for name, measured in seconds.items():
            curves.setdefault(name, []).append((num_tasks, statistics.median(measured)))
    return curves


def errors(num_tasks, dim, trials):
    """name → [(spread, largest relative error of the value)], against float64, in float32."""
    ways = {
        "mtlfast": pairwise_reg,
        "eager expanded": lambda W: 2 * len(W) * (W**2).sum() - 2 * (W.sum(0) ** 2).sum(),
        "eager centred": lambda W: 2 * len(W) * ((W - W.mean(0)) ** 2).sum(),
    }
    curves = {name: [] for name in ways}
    for spread in SPREADS:
        worst = dict.fromkeys(ways, 0.0)
        for seed in range(trials):
            make = torch.Generator().manual_seed(seed)
            W = (1 + spread * torch.randn(num_tasks, dim, generator=make)).float()
            shifted = W.double() - W[0].double()
            truth = 2 * num_tasks * (shifted - shifted.mean(0)).square().sum()
            for name, way in ways.items():
                worst[name] = max(worst[name], (abs(way(W).double() - truth) / truth).item())
        for name in ways:
            curves[name].append((spread, worst[name]))
    return curves


def main():
    default = Path(__file__).parent / "results" / "curves.json"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {
        "machine": describe(),
        "dim": 64,
        "seconds": times(64, args.rounds),
        "error_tasks": 1_000,
        "error": errors(1_000, 64, trials=20),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
