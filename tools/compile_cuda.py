"""Compiles every CUDA source for every architecture: warnings and register spills are errors.

python tools/compile_cuda.py        needs nvcc; says so and succeeds where there is none
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"
ARCHITECTURES = ("sm_80", "sm_90")
FLAGS = ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v", "-DMTLFAST_ISA=cuda"]


def start(source, architecture, folder):
    target = Path(folder) / f"{source.stem}.{architecture}.o"
    command = ["nvcc", *FLAGS, f"-arch={architecture}", f"-I{CSRC}", "-c", source, "-o", target]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def kernels_of(report):
    """(name, registers, bytes spilled) of every kernel that ptxas tells of."""
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    for name, stores, loads, registers in re.findall(pattern, report, re.DOTALL):
        yield name, int(registers), int(stores) + int(loads)


def main():
    if shutil.which("nvcc") is None:
        print("compile_cuda: nvcc is not installed, nothing was compiled")
        return
    sources = sorted((CSRC / "cuda").glob("*.cu"))
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            jobs = [(source, start(source, architecture, folder)) for source in sources]
            for source, job in jobs:
                report = job.communicate()[1]
                if job.returncode:
                    sys.exit(report)
                kernels = list(kernels_of(report))
                most = max(registers for _, registers, _ in kernels)
                print(f"{source.name} {architecture}: {len(kernels)} kernels, ≤ {most} registers")
                bad += [f"{name} spills {n} bytes ({architecture})" for name, _, n in kernels if n]
    if bad:
        sys.exit("\n".join(bad))


if __name__ == "__main__":
    main()
