"""Compiles csrc/cuda and the shim into a library that ctypes can load."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHIM = Path(__file__).resolve().parent
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-ffp-contract=off", "-DMTLFAST_ISA=cuda", *WARNINGS]


def cuda_include():
    """The folder of CUDA's headers, or None; nvcc itself may be a wrapper somewhere else."""
    if shutil.which("nvcc") is None:
        return None
    listed = subprocess.run(
        ["nvcc", "--dryrun", "-x", "cu", "-E", "/dev/null"], capture_output=True, text=True
    ).stderr
    top = re.search(r"^#\$ TOP=(.*)$", listed, re.MULTILINE)
    named = re.findall(r'-I([^"\s]+)', listed)
    folders = [*named, *([f"{top[1].strip()}/include"] if top else [])]
    return next((f for f in map(Path, folders) if (f / "cuda_fp16.h").is_file()), None)


def why_not():
    """What is missing for the shim; empty where it can be built."""
    if platform.machine() != "x86_64":
        return "the shim switches stacks with x86-64 instructions"
    if shutil.which("g++") is None:
        return "g++ is not installed"
    return "" if cuda_include() else "the CUDA toolkit's headers are not installed"


def build(folder, csrc=ROOT / "csrc", sanitize=None, flags=()):
    """The library, made in ``folder``; ``sanitize`` as in the compiler's option of that name."""
    flags = [*flags, *([f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"] if sanitize else [])]
    include = ["-I", csrc, "-I", SHIM, "-isystem", cuda_include()]
    jobs, objects = [], []
    for source in [*sorted((csrc / "cuda").glob("*.cu")), *sorted(SHIM.glob("*.cpp"))]:
        objects.append(folder / f"{source.name}.o")
        command = ["g++", *FLAGS, *flags, *include, "-x", "c++", "-c", source, "-o", objects[-1]]
        if sanitize == "thread" and source.name == "cuda_shim.cpp":
            command += ["-fno-sanitize=thread", "-DCUDA_SHIM_TSAN"]  # fibers are announced there
        jobs.append(subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True))
    reports = [job.communicate()[1] for job in jobs]
    if any(job.returncode for job in jobs):
        raise RuntimeError("".join(reports))
    library = folder / "libcuda_shim.so"
    subprocess.run(list(map(str, ["g++", "-shared", *flags, "-o", library, *objects])), check=True)
    return library


def run_sanitized(library, sanitize):
    """``python -m cuda_shim`` on a library with sanitizers, and what it printed."""
    name = f"lib{'tsan' if sanitize == 'thread' else 'asan'}.so"
    asked = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True)
    environment = os.environ | {
        # the C++ library as well, or a throw cannot be intercepted
        "LD_PRELOAD": f"{asked.stdout.strip()}:libstdc++.so.6",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory until the process ends
        "UBSAN_OPTIONS": "halt_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "cuda_shim", str(library), sanitize]
    return subprocess.run(
        command, cwd=SHIM.parent, env=environment, capture_output=True, text=True, timeout=900
    )
