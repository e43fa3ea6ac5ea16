"""mtlfast against what a user would write instead: one table, interleaved, medians of ratios.

Every way of a case must first give the same result. Then all ways are timed in turn, round after
round, and a ratio is the median over the rounds of (its time / mtlfast's time in that round).
Writes the raw times as JSON with --output.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path

import torch
from rivals import OVERVIEW, TINY, assert_equal

import mtlfast

LONG = 2.0  # seconds; a way slower than this is run in a few rounds only


def measure(ways, rounds):
    """Seconds of each way in each round, name → list; None where a slow way sat a round out."""
    times = {name: [] for name in ways}
    for number in range(rounds):
        for name, run in ways.items():
            done = [t for t in times[name] if t is not None]
            if name != "mtlfast" and number >= 3 and min(done) > LONG:
                times[name].append(None)
                continue
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def ratios(times):
    """How many times longer than mtlfast each way takes: the median over rounds."""
    ours = times["mtlfast"]
    return {
        name: statistics.median(t / o for t, o in zip(seconds, ours, strict=True) if t is not None)
        for name, seconds in times.items()
    }


def describe():
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = f"{len(names)} × {names[0].partition(':')[2].strip()}" if names else cpu
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "cpu": cpu,
        "config": mtlfast.show_config().splitlines(),
        "threads": torch.get_num_threads(),
        "commit": commit.stdout.strip() or "unknown",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--output", type=Path, help="write the raw times here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {"machine": describe(), "cases": {}}
    print(*result["machine"]["config"], f"CPU: {result['machine']['cpu']}", sep="\n")
    for name, (make, size, options) in (TINY if args.tiny else OVERVIEW).items():
        if args.only not in name:
            continue
        ways = make(*size, **options)
        assert_equal(ways)  # and warms up
        times = measure(ways, args.rounds)
        result["cases"][name] = {"seconds": times, "ratio": ratios(times)}
        ours = statistics.median(times["mtlfast"])
        others = ", ".join(
            f"{other} {ratio:.3g}×" for other, ratio in ratios(times).items() if other != "mtlfast"
        )
        print(f"{name}: {ours * 1e3:.3g} ms; {others}", flush=True)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
