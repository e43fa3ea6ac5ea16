"""mtlfast on a GPU against what one would write instead, with what was aimed at beside each ratio.

    python benchmarks/run_gpu.py                      all cases; results/cuda/<GPU>.json and .txt
    python benchmarks/run_gpu.py --device cpu --tiny  shows that they run, where there is no GPU

A floor is the time in which a large copy on the device, measured in the same run, moves the bytes
that a job cannot do without: for a graph, each neighbour's row once. A rival that cannot run is
left out and named; one that differs from mtlfast is a failure.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import re
import statistics
import subprocess
import time
import traceback
from pathlib import Path

import jobs_graph
import jobs_pairwise
import jobs_trace_norm
import torch
from jobs import Case
from timing import assert_equal, measure, medians

import mtlfast

RESULTS = Path(__file__).parent / "results" / "cuda"
NEAR = 1 / 0.85  # at least 85 % of the floor's speed
PAIRWISE = {
    "eager expanded": 4,
    "torch.compile expanded": 1.1,
}
GRAPH = {
    "SpMM by hand": 1.3,
    "torch CSR, autograd": 3,
    "torch COO, autograd": 3,
    "gather over edges": 10,
}


def pairwise_cases(sizes, device, compile=True):
    for (tasks, dim), dtype in itertools.product(sizes, (torch.float32, torch.bfloat16)):
        make = functools.partial(
            jobs_pairwise.value_and_gradient,
            *(tasks, dim), loop=0, wide=0, compile=compile, device=device, dtype=dtype,
        )  # fmt: skip
        size = f"{tasks:,}×{dim} {str(dtype).removeprefix('torch.')}"
        floor = NEAR if tasks * dim >= 2**26 else 0
        yield Case("pairwise value + gradient", size, make, PAIRWISE, floor)


def graph_cases(sizes, device):
    for tasks, edges, dim in sizes:

        def make(tasks=tasks, edges=edges, dim=dim):
            index = jobs_graph.random_edges(tasks, edges)
            return jobs_graph.value_and_gradient(index, tasks, dim, scipy=False, device=device)

        size = f"{tasks:,} tasks, {edges:,} edges, d={dim}"
        yield Case("graph value + gradient", size, make, GRAPH, NEAR if tasks >= 2**19 else 0)


def trace_norm_cases(sizes, device):
    for batch, rows, columns, svd in sizes:
        make = functools.partial(jobs_trace_norm.prox, batch, rows, columns, device=device)
        wanted = {"linalg.svd": svd, "float64 Gram + eigh": 2}
        yield Case("trace norm prox", f"{batch:,}×{rows}×{columns}", make, wanted)


def cases(device):
    yield from pairwise_cases([(100_000, 64), (2**20, 64), (2**22, 64)], device)
    yield from graph_cases([(100_000, 1_000_000, 64), (1_000_000, 10_000_000, 64)], device)
    matrices = [(16_384, 8, 8, 10), (4_096, 32, 32, 10), (8_716, 3, 2, 10), (512, 128, 64, 50)]
    yield from trace_norm_cases(matrices, device)


def tiny(device):
    yield from pairwise_cases([(12, 32)], device, compile=False)
    yield from graph_cases([(20, 60, 16)], device)
    yield from trace_norm_cases([(6, 8, 5, 10)], device)


def gpu_seconds(call, repeats):
    """Seconds of a call by events of the device, calls following one another without a wait."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def host_seconds(call, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def bandwidth(device, clock, numbers, rounds=21):
    """Bytes that a copy on the device reads and writes in a second."""
    source, target = torch.ones(numbers, device=device), torch.empty(numbers, device=device)
    copy = functools.partial(target.copy_, source)
    clock(copy, 3)
    seconds = statistics.median(clock(copy, 2) for _ in range(rounds))
    assert torch.equal(source, target)
    return 2 * source.nbytes / seconds


def output_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"
    return (done.stdout.strip().splitlines() or ["unknown"])[-1]


def describe(device):
    found = {
        "device": "cpu",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "nvcc": output_of("nvcc", "--version"),
        "config": mtlfast.show_config().splitlines(),
        "commit": output_of("git", "describe", "--always", "--dirty"),
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory GiB": round(properties.total_memory / 2**30, 1),
            "driver": output_of(
                "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
            ),
        }
    return found


def sort_out(job):
    """The job with the ways that run and agree; what became of the others."""
    first, *others = job.ways
    job.ways[first]()  # a failure of ours is one of the job
    absent, wrong = {}, {}
    for name in others:
        two = {way: job.ways[way] for way in (first, name)}
        try:
            assert_equal(dataclasses.replace(job, ways=two, floor=None))
        except AssertionError as error:
            wrong[name] = str(error)
        except (RuntimeError, NotImplementedError) as error:  # out of memory, not supported
            absent[name] = str(error).splitlines()[0]
    kept = {name: way for name, way in job.ways.items() if name not in absent | wrong}
    if len(kept) == 1 and not wrong:
        wrong["all"] = "there is nothing to compare with"
    return dataclasses.replace(job, ways=kept), absent, wrong


def run_case(case, clock, budget, speed):
    """Seconds of all ways, ratios to mtlfast, its multiple of the floor, and what was aimed at."""
    job, absent, wrong = sort_out(case.make())
    times = measure(job, budget=budget, clock=clock)
    middle = medians(times)
    ours, moves = middle["mtlfast"], job.bytes / speed
    moving = middle.pop("floor", None)
    result = {
        "median": middle,
        "seconds": times,
        "ratio": {name: t / ours for name, t in middle.items() if name != "mtlfast"},
        "wanted": case.wanted,
        "GB/s": job.bytes / ours / 1e9,
        "share of the floor": moves / ours,
        "wanted share": 1 / case.floor if case.floor else 0,
        "absent": absent,
        "wrong": wrong,
    }
    return result if moving is None else result | {"only moving": moving}


def verdict(found, wanted):
    return f"(≥ {wanted:.3g}: {'met' if found >= wanted else 'MISSED'})" if wanted else ""


def report_of(name, found):
    """Lines of text on one case."""
    if "failed" in found:
        yield f"{name}: FAILED, {found['failed']}"
        return
    yield f"{name}: {found['median']['mtlfast'] * 1e3:.4g} ms, {found['GB/s']:.4g} GB/s"
    share = found["share of the floor"]
    yield f"  {share:.1%} of the floor's speed {verdict(share, found['wanted share'])}".rstrip()
    for other, ratio in found["ratio"].items():
        yield f"  {other} {ratio:.3g}× {verdict(ratio, found['wanted'].get(other))}".rstrip()
    if "only moving" in found:  # for a graph torch's embedding_bag, which sums the neighbours' rows
        yield f"  a call that only moves the bytes takes {found['only moving'] * 1e3:.4g} ms"
    for other, why in found["absent"].items():
        yield f"  {other} cannot run: {why}"
    for other, why in found["wrong"].items():
        yield f"  {other} is WRONG: {why}"


def run(chosen, device, clock, budget, numbers):
    """Everything that was found, and the lines that say it."""
    machine, speed = describe(device), bandwidth(device, clock, numbers)
    result = {"machine": machine, "copy GB/s": speed / 1e9, "cases": {}}
    lines = [f"{key}: {value}" for key, value in machine.items()]
    lines.append(f"a large copy moves {speed / 1e9:.4g} GB/s")
    print(*lines, sep="\n", flush=True)
    for case in chosen:
        start = time.perf_counter()
        try:
            found = run_case(case, clock, budget, speed)
        except Exception as error:  # the run goes on, the failure is recorded
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"}
        result["cases"][case.name] = found
        told = list(report_of(case.name, found))
        print(*told, f"  [{time.perf_counter() - start:.0f} s]", sep="\n", flush=True)
        lines += told
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
    return result, lines


def failures(result):
    return [n for n, found in result["cases"].items() if found.get("wrong") or "failed" in found]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds for each way")
    parser.add_argument("--output", type=Path, help="folder for the results")
    args = parser.parse_args(arguments)
    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit("benchmarks/run_gpu.py: torch sees no CUDA device")
    chosen = [c for c in (tiny if args.tiny else cases)(args.device) if args.only in c.name]
    clock, numbers = gpu_seconds if on_gpu else host_seconds, 2**12 if args.tiny else 2**28
    result, lines = run(chosen, args.device, clock, 0.01 if args.tiny else args.budget, numbers)
    output = args.output or (RESULTS if on_gpu and not args.tiny and not args.only else None)
    if output is not None:
        name = re.sub(r"\W+", "-", result["machine"]["device"])
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        (output / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print(f"written: {name}.json and {name}.txt")
    if failures(result):
        raise SystemExit(f"failed: {', '.join(failures(result))}")


if __name__ == "__main__":
    main()
