"""AddressSanitizer and UBSan over every native kernel, and a proof that they would notice.

Builds the package with both sanitizers in a temporary copy, runs every case of tests/cases.py on
tensors without slack (all dtypes, odd sizes, all instruction sets) and demands that every kernel
was called. Then plants one bug at a time in the copy; a plant that goes unnoticed is a failure.

    python tools/sanitize.py        needs g++, torch, pybind11, ninja, setuptools
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = [(1, 1), (2, 3), (3, 17), (5, 64), (33, 31), (300, 5), (257, 129), (3, 2500)]

# What is planted at the start of pairwise_value and switched on by the environment, one at a time,
# and what a sanitizer must say about it.
PLANTS = {
    "overrun": (
        "if (dtype == DType::float32) { volatile char past = "
        "static_cast<const volatile char*>(w)[K * d * 4]; (void)past; }",
        "heap-buffer-overflow",
    ),
    "use_after_free": (
        "double* freed = new double[4]; delete[] freed; "
        "volatile double gone = *const_cast<volatile double*>(freed); (void)gone;",
        "heap-use-after-free",
    ),
    "overflow": (
        "volatile int big = 2147483647; big = big + 1;",
        "signed integer overflow",
    ),
}


def exercise(only_pairwise):
    """Runs in the child, under the sanitizers: every kernel on tightly allocated tensors."""
    import cases
    import torch

    from mtlfast import _native

    native = _native._C
    assert native is not None, _native.missing
    kernels = re.findall(r"void \(\*(\w+)\)", Path("csrc/mtlfast.h").read_text())
    calls = dict.fromkeys(kernels, 0)

    def counted(name, kernel):
        def run(*args):
            calls[name] += 1
            return kernel(*args)

        return run

    for name in kernels:
        setattr(native, name, counted(name, getattr(native, name)))
    torch.set_num_threads(2)
    chosen = [c for c in cases.CASES if not only_pairwise or c.name == "pairwise_reg"]
    for isa in native.runnable_isas()[: 1 if only_pairwise else None]:
        native.use_isa(isa)
        for case in chosen:
            for dtype in cases.DTYPES:
                for K, d in SIZES:
                    tensors = [t.clone() for t in case.tensors(K, d, dtype)]
                    cases.value_and_grads(case, tensors)
    for name, count in calls.items():
        print(f"  {name}: {count} calls")
    if not only_pairwise:
        idle = [name for name, count in calls.items() if not count]
        assert not idle, f"kernels that no case calls: {idle}"
    print("exercise finished")


def build(copy):
    environment = os.environ | {"MTLFAST_SANITIZE": "address,undefined"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])


def run_exercise(copy, *arguments, planted=""):
    cxx = os.environ.get("CXX", "g++").split()[0]
    library = subprocess.run(
        [cxx, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python and torch keep memory until the process ends
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "tests")]),
        "MTLFAST_PLANTED": planted,
    }
    return subprocess.run(
        [sys.executable, "tools/sanitize.py", "--exercise", *arguments],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )


def plant(copy):
    """Writes all bugs into the copy's pairwise.cpp; MTLFAST_PLANTED chooses at run time."""
    path = copy / "csrc/cpu/pairwise.cpp"
    choice = "".join(
        f'  if (std::string_view(chosen) == "{name}") {{ {code} }}\n'
        for name, (code, _) in PLANTS.items()
    )
    choice = f'  const char* chosen = std::getenv("MTLFAST_PLANTED");\n{choice}'
    head = re.compile(r"\nvoid pairwise_value\(DType dtype[^{]*\{\n")
    planted, count = head.subn(lambda m: m[0] + choice, path.read_text())
    if count != 1:
        sys.exit("the bugs cannot be planted: pairwise_value not found in csrc/cpu/pairwise.cpp")
    path.write_text("#include <cstdlib>\n#include <string_view>\n" + planted)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exercise", action="store_true", help="the child's part")
    parser.add_argument("--only-pairwise", action="store_true", help="a quick try")
    arguments = parser.parse_args()
    if arguments.exercise:
        exercise(arguments.only_pairwise)
        return
    with tempfile.TemporaryDirectory(prefix="mtlfast-sanitize-") as folder:
        copy = Path(folder)
        for name in ("csrc", "mtlfast", "tests", "tools"):
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
            )
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy / name)
        build(copy)
        done = run_exercise(copy, *(["--only-pairwise"] if arguments.only_pairwise else []))
        print(done.stdout, end="")
        if done.returncode or "exercise finished" not in done.stdout:
            sys.exit(done.stderr[-6000:] + "\nsanitize: the kernels are not clean")
        plant(copy)
        build(copy)
        for name, (_, report) in PLANTS.items():
            done = run_exercise(copy, "--only-pairwise", planted=name)
            if done.returncode == 0 or report not in done.stderr:
                sys.exit(done.stderr[-6000:] + f"\nsanitize: the planted {name} went unnoticed")
            print(f"  planted {name}: noticed ({report})")
        done = run_exercise(copy, "--only-pairwise", planted="nothing")
        if done.returncode:
            sys.exit(done.stderr[-6000:] + "\nsanitize: a report without a planted bug")
    print("sanitize: all kernels are clean, all planted bugs were noticed")


if __name__ == "__main__":
    main()
