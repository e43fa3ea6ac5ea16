"""Calls of every kernel, recorded here, replayed by a program without Python: the same bits?

Builds tests/replay and csrc with the flags of setup.py, with any C++ compiler, also one for another
machine whose programs are run by an emulator. The calls are those under which tools/sanitize.py
watches every kernel, with every dtype. Planted differences must be noticed, too.

    python tools/replay.py
    python tools/replay.py --cxx clang++
    python tools/replay.py --cxx aarch64-linux-gnu-g++ \\
        --runner "qemu-aarch64 -L /usr/aarch64-linux-gnu"

Needs the compiled module, and ninja.
"""

import argparse
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PROGRAM = ROOT / "tests" / "replay"
# the last two are of more than one panel of columns and more than one block of rows
SIZES = [(1, 1), (3, 17), (5, 64), (17, 33), (65, 2), (130, 40), (300, 5), (3, 2100), (2100, 3)]
MATRICES = [(1, 1, 1), (3, 2, 3), (17, 3, 17), (9, 17, 5), (2, 65, 33), (3, 64, 65), (1, 700, 40)]


def setup_for(cxx, baseline):
    """What setup.py would do for the machine that a compiler makes programs for.

    With ``baseline``, as if it were one with a single instruction set.
    """
    command = [*cxx.split(), "-dumpmachine"]
    target = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    machine = "any" if baseline else target.strip().split("-")[0]
    os.environ["CXX"] = cxx
    with mock.patch("setuptools.setup"), mock.patch("platform.machine", lambda: machine):
        return runpy.run_path(str(ROOT / "setup.py")), target.strip()


def ninja_file(build, cxx, openmp, optimize):
    """The text of build.ninja: the objects of the module, but Python's, and the program."""
    flags = [*build["FLAGS"], "-Werror", *(["-fopenmp"] if openmp else [])]
    flags += [f"'-I{ROOT / 'csrc'}'", f"'-I{PROGRAM}'"]
    lines = [
        f"cxx = {cxx}",
        f"flags = {' '.join(flags)}",
        "rule compile\n  command = $cxx $flags $extra -MMD -MF $out.d -c $in -o $out\n"
        "  depfile = $out.d\n  deps = gcc\n  description = $out",
        "rule link\n  command = $cxx $flags $in -o $out\n  description = $out",
    ]
    objects = []

    def add(source, name, *extra):
        objects.append(f"{name}.o")
        lines.append(f"build {name}.o: compile {build['quoted'](source)}")
        lines.append(f"  extra = {' '.join([*extra, optimize])}")

    about = ("'-DMTLFAST_COMPILER=\"\"'", "'-DMTLFAST_ISA_NAMES=\"\"'")
    add(ROOT / "csrc" / "module.cpp", "module", "'-DMTLFAST_BINDING_HEADER=<binding.h>'", *about)
    add(PROGRAM / "replay.cpp", "replay")
    for source, name, extra in build["cpu_objects"]():
        add(source, name, *extra)
    lines.append(f"build replay: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build_program(folder, cxx, baseline, optimize):
    build, target = setup_for(cxx, baseline)
    cxx, openmp = build["compiler"]()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(ninja_file(build, cxx, openmp, optimize))
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
    command = [build["ninja_program"](), "-C", str(folder), "-j", jobs, "--quiet"]
    if subprocess.run(command).returncode:
        sys.exit(f"replay: {cxx} fails")
    print(f"{build['version_of'](cxx)}, for {target}, OpenMP {'yes' if openmp else 'no'}")
    return folder / "replay"


def record(path):
    import sanitize
    import torch
    from recording import Recorder

    torch.set_num_threads(1)
    torch.manual_seed(0)
    native = sanitize.all_callers()
    assert native._C is not None, native.missing
    recorder = Recorder()
    with recorder.active():
        sanitize.exercise(native, native.CODES, SIZES, MATRICES)
        for dtype in native.CODES:
            sanitize.run_many_tasks(native, dtype)
    recorder.write(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cxx", default=os.environ.get("CXX", "g++"), help="the compiler")
    parser.add_argument("--runner", default="", help="what runs its programs, with arguments")
    parser.add_argument("--folder", type=Path, help="where objects are kept for the next time")
    parser.add_argument(
        "--record", type=Path, help="a file to keep the calls in, or to take them from"
    )
    parser.add_argument("--baseline", action="store_true", help="one instruction set alone")
    parser.add_argument("--optimize", default="", help="a flag after all others, as -O1")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mtlfast-replay-") as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        start = time.monotonic()
        program = build_program(folder, args.cxx, args.baseline, args.optimize)
        built = time.monotonic()
        calls = args.record or Path(temporary) / "calls"
        if not calls.exists():
            record(calls)
        recorded = time.monotonic()
        failed = subprocess.run([*shlex.split(args.runner), program, calls]).returncode
        end = time.monotonic()
        print(
            f"built in {built - start:.0f} s, recorded in {recorded - built:.0f} s "
            f"({calls.stat().st_size / 1e6:.0f} MB), replayed in {end - recorded:.0f} s"
        )
        if failed:
            sys.exit("replay: not the same bits, see above")


if __name__ == "__main__":
    main()
