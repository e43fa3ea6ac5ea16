"""mtlfast against what one would write instead: everything in one run, under 20 minutes on 2 cores.

    python benchmarks/run.py            all cases and curves, JSON, table and figure in results/
    python benchmarks/run.py --tiny     the same jobs at sizes that only show that they run

Each case is checked, then timed in turn with its rivals; a case that fails is recorded and the run
goes on. results/results.json is written after every case, so that nothing is lost.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
import traceback
from pathlib import Path

import floor
import jobs_pairwise
import memory
import plot
import torch
from jobs import CASES, OVERHEAD, TINY
from timing import assert_equal, measure, medians

import mtlfast

RESULTS = Path(__file__).parent / "results"
CURVE_SIZES = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
MEMORY_SIZES = (1_000, 10_000, 100_000, 1_000_000)
SPREADS = [10.0 ** (-k / 2) for k in range(15)]


def describe():
    """The machine, and what ran on it."""
    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    caches = {}
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line for line in lines if line.startswith("model name")]
        cpu = f"{len(names)} × {names[0].partition(':')[2].strip()}" if names else cpu
        for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
            level = (index / "level").read_text().strip()
            kind = (index / "type").read_text().strip()
            caches[f"L{level} {kind}"] = (index / "size").read_text().strip()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "caches": caches,
        "memory GiB": round(pages / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "config": mtlfast.show_config().splitlines(),
        "threads": torch.get_num_threads(),
        "commit": commit.stdout.strip() or "unknown",
    }


def run_case(case, *, budget, with_memory):
    """Seconds of all ways, ratios to mtlfast, GB/s, and the peak memory where it is asked for."""
    job = case.make()
    assert_equal(job)
    times = measure(job, budget=budget)
    middle = medians(times)
    ours = middle["mtlfast"]
    result = {
        "group": case.group,
        "size": case.size,
        "commit": describe()["commit"],
        "seconds": times,
        "median": middle,
        "ratio": {name: t / ours for name, t in middle.items() if name != "mtlfast"},
        "wanted": case.wanted,
    }
    if job.bytes:
        result["GB/s"] = job.bytes / ours / 1e9
    if "floor" in middle:
        result["times the floor"] = ours / middle["floor"]
        result["wanted floor"] = case.floor
    del job
    if with_memory:
        threads = torch.get_num_threads()
        result["MiB"] = {way: memory.measure(case.name, way, threads) for way in case.memory}
        result["wanted MiB"] = case.most_memory
    return result


def overheads(rounds):
    """Microseconds of a call at K = 3, d = 16."""
    found = {}
    for name, make in OVERHEAD.items():
        for mode, call in make().items():
            for _ in range(50):
                call()
            samples = []
            for _ in range(rounds):
                start = time.perf_counter()
                for _ in range(20):
                    call()
                samples.append((time.perf_counter() - start) / 20 * 1e6)
            found[f"{name}, {mode}"] = statistics.median(samples)
    return found


def same_bits(num_tasks):
    """Whether 1 and 2 threads give the same bits, by function."""
    edges = torch.randint(num_tasks, (2, 10 * num_tasks))
    graph = mtlfast.TaskGraph.from_edges(edges, None, num_tasks)
    W, omega = torch.randn(num_tasks, 33), torch.randn(num_tasks, num_tasks)
    calls = {
        "pairwise_reg": lambda leaf: mtlfast.pairwise_reg(leaf),
        "graph_reg": lambda leaf: mtlfast.graph_reg(leaf, graph),
        "gram_reg, dense": lambda leaf: mtlfast.gram_reg(leaf, omega),
        "trace_norm": lambda leaf: mtlfast.trace_norm(leaf),
        "trace_norm, batch": lambda leaf: mtlfast.trace_norm(leaf.view(-1, 11, 3)).sum(),
        "graph_prox": lambda leaf: mtlfast.graph_prox(leaf, graph, 0.1).square().sum(),
        "trace_norm_prox, with backward (LAPACK)": lambda leaf: (
            mtlfast.trace_norm_prox(leaf, 1.0).square().sum()
        ),
        "trace_norm_prox": lambda leaf: mtlfast.trace_norm_prox(leaf.detach(), 1.0),
    }
    kept, same = torch.get_num_threads(), {}
    for name, call in calls.items():
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaf = W.clone().requires_grad_()
            value = call(leaf)
            if value.requires_grad:
                value.backward()
                results.append((value.detach(), leaf.grad))
            else:
                results.append((value,))
        same[name] = all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    torch.set_num_threads(kept)
    return same


def time_curve(sizes, budget):
    """name → [(tasks, median seconds of value + gradient)]."""
    curves = {}
    for num_tasks in sizes:
        job = jobs_pairwise.value_and_gradient(
            num_tasks, 64, wide=3_000, loop=100, compile=num_tasks >= 1_000
        )
        assert_equal(job)
        for name, seconds in medians(measure(job, budget=budget)).items():
            curves.setdefault(name, []).append((num_tasks, seconds))
    return curves


def memory_curve(sizes, threads):
    """name → [(tasks, MiB of value + gradient)], each in a process of its own."""
    curves = {}
    for num_tasks in sizes:
        for way in ("mtlfast", "eager expanded", "eager centred", "cdist²"):
            if way == "cdist²" and num_tasks > 10_000:
                continue
            found = memory.measure(f"curve {num_tasks:,}", way, threads)
            if not isinstance(found, str):
                curves.setdefault(way, []).append((num_tasks, found))
    return curves


def error_curve(num_tasks, trials):
    """name → [(spread, largest relative error of the value)], against float64, in float32."""
    ways = {
        "mtlfast": mtlfast.pairwise_reg,
        "eager expanded": jobs_pairwise.expanded,
        "eager centred": jobs_pairwise.centred,
    }
    curves = {name: [] for name in ways}
    for spread in SPREADS:
        worst = dict.fromkeys(ways, 0.0)
        for seed in range(trials):
            make = torch.Generator().manual_seed(seed)
            W = (1 + spread * torch.randn(num_tasks, 64, generator=make)).float()
            shifted = W.double() - W[0].double()
            truth = 2 * num_tasks * (shifted - shifted.mean(0)).square().sum()
            for name, way in ways.items():
                worst[name] = max(worst[name], (abs(way(W).double() - truth) / truth).item())
        for name in ways:
            curves[name].append((spread, worst[name]))
    return curves


def attempt(result, key, call, *args, **kwargs):
    """Keeps what a call returns, or why it returned nothing."""
    start = time.perf_counter()
    try:
        result[key] = call(*args, **kwargs)
    except Exception as error:  # the run goes on, the failure is recorded
        traceback.print_exc()
        result[key] = {"failed": f"{type(error).__name__}: {error}"}
    return time.perf_counter() - start


def line_of(name, found):
    if "failed" in found:
        return f"{name}: {found['failed']}"
    parts = [f"{other} {ratio:.3g}×" for other, ratio in found["ratio"].items()]
    parts += [f"{found['GB/s']:.3g} GB/s"] if "GB/s" in found else []
    parts += [f"{way} {mib} MiB" for way, mib in found.get("MiB", {}).items()]
    return f"{name}: {found['median']['mtlfast'] * 1e3:.4g} ms; " + ", ".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=2.5, help="seconds for each way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name contains this; curves")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--output", type=Path, default=RESULTS / "results.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    floor.library()
    output = None if args.tiny and args.output == RESULTS / "results.json" else args.output
    result = {"machine": describe(), "cases": {}}
    if args.only and output is not None and output.exists():  # measured anew, among the others
        result = json.loads(output.read_text())
    print(*result["machine"]["config"], f"CPU: {result['machine']['cpu']}", sep="\n")

    def save():
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(result, indent=1) + "\n")

    budget = 0.01 if args.tiny else args.budget
    for case in TINY if args.tiny else CASES:
        if args.only not in case.name:
            continue
        cases = result["cases"]
        took = attempt(cases, case.name, run_case, case, budget=budget, with_memory=not args.tiny)
        print(f"[{took:.0f} s] {line_of(case.name, cases[case.name])}", flush=True)
        mtlfast.release_memory()
        save()
    if args.only and args.only != "curves":
        if output is not None and "time" in result:
            plot.main(output)
        return
    small = args.tiny
    parts = {
        "overhead µs": (overheads, 3 if small else 200),
        "same bits": (same_bits, 33 if small else 3_000),
        "preparing": (jobs_preparing, *((300, 3, 16) if small else (1_000_000, 7, 64))),
        "error": (error_curve, 100, 2) if small else (error_curve, 1_000, 20),
        "time": (time_curve, (10,) if small else CURVE_SIZES, budget / 3),
        "memory": (memory_curve, () if small else MEMORY_SIZES, args.threads),
    }
    for key, (call, *arguments) in parts.items():
        took = attempt(result, key, call, *arguments)
        shown = "" if key in ("error", "time", "memory") else result[key]
        print(f"[{took:.0f} s] {key} {shown}", flush=True)
        save()
    bad = [n for n, found in result["cases"].items() if "failed" in found]
    bad += [key for key in parts if isinstance(result[key], dict) and "failed" in result[key]]
    if output is not None:
        plot.main(output)
    if bad:
        raise SystemExit(f"failed: {', '.join(bad)}")


def jobs_preparing(num_tasks, k, dim):
    from jobs_graph import preparing

    found = preparing(num_tasks, k, dim)
    saved = found["step without"] - found["step with"]
    found["steps until it pays"] = found["prepare"] / saved if saved > 0 else math.inf
    return found


if __name__ == "__main__":
    main()
