"""Everything that needs a GPU, in one command: build, tests, sanitizers, times.

    python tools/gpu.py                       all of it, in under ten minutes; `make gpu`
    python tools/gpu.py --only test,time      some steps
    python tools/gpu.py --device cpu --tiny   without a GPU: shows that the steps themselves work

The steps stand for themselves: one that fails is reported, the others still run, and the exit
status is 1. Results of the last step go to benchmarks/results/cuda/.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("build", "test", "sanitize", "time")
CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
PARTS = max(1, min(8, (os.cpu_count() or 1) // 2))  # processes: the truth comes from the CPU
LIMITS = {"build": 170, "test": 200, "sanitize": 70, "time": 150}  # seconds
DTYPES = ("float32", "float64", "bfloat16", "float16")
LINES = 150  # of what a step says
SHAPES = ((37, 21), (300, 64))  # elements off and on the alignment of vectors


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


def python(*arguments):
    return [sys.executable, *map(str, arguments)]


def run_all(commands, limit):
    """Runs (name, command, environment) side by side; whether all succeed within the limit."""
    with contextlib.ExitStack() as stack:
        jobs = []
        for name, command, env in commands:
            # a pipe would fill up while another job is waited for
            told = stack.enter_context(tempfile.TemporaryFile("w+"))
            job = subprocess.Popen(command, cwd=ROOT, env=env, stdout=told, stderr=told)
            jobs.append((name, job, told))
        end = time.monotonic() + limit
        return all([_finish(*job, end - time.monotonic(), limit) for job in jobs])


def _finish(name, job, told, left, limit):
    """Waits for a job and prints the end of what it told; whether it succeeded."""
    try:
        status = job.wait(timeout=max(0.1, left))
        outcome = f"exit status {status}" if status else "ok"
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()
        outcome = f"stopped after {limit:.0f} s"
    told.seek(0)
    print(f"-- {name}: {outcome}", *told.read().splitlines()[-LINES:], sep="\n", flush=True)
    return outcome == "ok"


def build(args):
    command = python("setup.py", "-q", "build_ext", "--inplace")
    return run_all([("setup.py", command, environment(MTLFAST_CUDA="1"))], LIMITS["build"])


def test(args):
    """The contracts in processes side by side; then, undisturbed, streams, bits and sizes."""
    pytest = python("-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "--tb=short")
    files = sorted((ROOT / "tests").glob("test_cuda_*.py"))
    shared = [f for f in files if f.stem in ("test_cuda_contracts", "test_cuda_errors")]
    alone = [f for f in files if f not in shared and not f.stem.startswith("test_cuda_shim")]
    device = {"MTLFAST_TEST_DEVICE": args.device}
    side_by_side = [
        (
            f"contracts, part {part + 1} of {PARTS}",
            [*pytest, *shared],
            environment(MTLFAST_TEST_PART=f"{part}/{PARTS}", OMP_NUM_THREADS="2", **device),
        )
        for part in range(PARTS)
    ]
    start = time.monotonic()
    good = run_all(side_by_side, LIMITS["test"])
    left = max(60, LIMITS["test"] - (time.monotonic() - start))
    rest = ("streams, bits, sizes", [*pytest, *alone], environment(**device))
    return run_all([rest], left) and good


def sanitize(args):
    """Every kernel under compute-sanitizer; without it, or a GPU, the exercise alone."""
    exercise = python("tools/gpu.py", "--exercise", "--device", args.device)
    tool = shutil.which("compute-sanitizer")
    if tool is None or args.device == "cpu":
        print("compute-sanitizer is not on PATH or there is no GPU: the exercise runs without it")
        return run_all([("exercise", exercise, environment())], LIMITS["sanitize"])
    # each allocation by itself, or an overrun would stay within torch's block
    alone = environment(PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    prefix = [tool, "--error-exitcode", "9", "--print-limit", "5", "--tool"]
    commands = [(check, [*prefix, check, *exercise], alone) for check in CHECKS]
    return run_all(commands, LIMITS["sanitize"])


def measure(args):
    command = python("benchmarks/run_gpu.py", "--device", args.device)
    command += ["--tiny"] if args.tiny else []
    return run_all([("run_gpu.py", command, environment())], LIMITS["time"])


RUNS = dict(zip(STEPS, (build, test, sanitize, measure), strict=True))


def exercise(device):
    """Calls every op that has a kernel once for each type and alignment."""
    sys.path.insert(0, str(ROOT / "tests"))
    import cuda_jobs
    import torch

    import mtlfast

    warnings.simplefilter("ignore", mtlfast.FallbackWarning)
    torch.manual_seed(0)
    called, left_out = set(), {}
    for name in cuda_jobs.JOBS:
        if name.endswith("of a large matrix"):  # torch's own kernels
            continue
        for dtype in DTYPES:
            for num_tasks, dim in SHAPES:
                job = cuda_jobs.make(name, device, getattr(torch, dtype), num_tasks, dim)
                if device == "cuda" and job.by_reference():
                    left_out[name] = job.by_reference()
                    continue
                for result in job.run():
                    assert not result.isnan().any(), f"{name} {dtype}"
                called.update(job.ops)
    print(f"exercised: {', '.join(sorted(called))}")
    for name, ops in left_out.items():
        print(f"left out: {name}, for the reference runs {', '.join(ops)}")


def require_device(device):
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu: torch sees no CUDA device; --device cpu --tiny tries the steps without one")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(STEPS), help="steps, with commas between them")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="times at tiny sizes")
    parser.add_argument("--exercise", action="store_true", help="call each kernel, nothing else")
    args = parser.parse_args(arguments)
    chosen = args.only.split(",")
    if not set(chosen) <= set(STEPS):
        parser.error(f"--only takes {', '.join(STEPS)}, got {args.only}")
    require_device(args.device)
    if args.exercise:
        exercise(args.device)
        return
    outcomes = {}
    for step in (s for s in STEPS if s in chosen):
        print(f"== {step}", flush=True)
        start = time.monotonic()
        try:
            good = RUNS[step](args)
        except Exception as error:  # the other steps still run
            print(f"{type(error).__name__}: {error}")
            good = False
        outcomes[step] = good
        took = time.monotonic() - start
        print(f"== {step}: {'ok' if good else 'FAILED'}, {took:.0f} s", flush=True)
    failed = [step for step, good in outcomes.items() if not good]
    if failed:
        sys.exit(f"gpu: failed: {', '.join(failed)}")
    print(f"gpu: {', '.join(outcomes)}: ok")


if __name__ == "__main__":
    main()
