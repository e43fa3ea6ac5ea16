"""Runs tests on another version of torch, on its CPU path, whatever this environment has installed.

    python tools/torch_version.py 2.8.0                        transforms, compiled code, exports
    python tools/torch_version.py 2.8.0 -- tests/test_gram.py  what pytest is told instead

The version lies in a folder that comes first on the path of a child process; everything else, the
tests' own packages and the compiled module too, is what this interpreter has. On Linux the wheels
of PyPI are builds for CUDA, which want gigabytes of NVIDIA's libraries before they are imported:
``pip download --no-deps`` leaves these out, and an empty stand-in with the symbols that torch asks
for takes the place of each. Needs gcc, readelf and nm there.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["test_contracts_transforms.py", "test_contracts_batched.py", "test_export.py"]

# Libraries of every Linux; what else a library of torch needs and torch does not bring is NVIDIA's.
SYSTEM = re.compile(r"^(lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|util|z|zstd|gomp)|ld-linux.*)\.so")
NVIDIA = re.compile(r"^(cu[a-zA-Z]|nccl|nvrtc|nvtx|nvJit|__cuda|cupti|nvshmem)")


def printed(*command):
    run = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=True
    )
    return run.stdout


def fetch(version, folder):
    """The folder that holds the version's package, and that of its stand-ins."""
    place, stand_ins = folder / version, folder / f"{version}-stand-ins"
    if not (place / "torch").is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as wheels:
            command = [
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "-d",
                wheels,
                f"torch=={version}",
            ]
            subprocess.run([sys.executable, *command], check=True)
            (wheel,) = Path(wheels).glob("torch-*.whl")
            unpacked = Path(wheels) / "unpacked"
            zipfile.ZipFile(wheel).extractall(unpacked)
            unpacked.rename(place)
    if sys.platform == "linux" and not stand_ins.is_dir():
        make_stand_ins(place / "torch" / "lib", stand_ins)
    return place, stand_ins


def wanted_symbols(lib):
    """``{library: {symbol version: names}}`` of what ``lib`` needs and does not hold."""
    needed, owner, undefined, defined = set(), {}, set(), set()
    for path in sorted(lib.glob("*.so*")):
        file = None
        for line in printed("readelf", "-dVW", path).splitlines():
            if found := re.search(r"NEEDED.*\[(.*)\]", line):
                needed.add(found[1])
            elif found := re.search(r"File: (\S+)", line):
                file = found[1]
            elif found := re.search(r"\bName: (\S+)\s+Flags", line):
                owner[found[1]] = file
        for line in printed("nm", "-D", path).splitlines():
            *_, kind, name = line.split()
            name, _, version = name.partition("@")
            if kind in "Uwv":
                undefined.add((name, version.lstrip("@")))
            else:
                defined.add(name)
    held = {path.name for path in lib.iterdir()}
    missing = sorted(name for name in needed - held if not SYSTEM.match(name))
    symbols = {library: {} for library in missing}
    for version, library in owner.items():
        if library in symbols:
            symbols[library][version] = set()
    for name, version in undefined:
        library = owner.get(version) if version else None
        if library in symbols:
            symbols[library][version].add(name)
        elif missing and not version and name not in defined and NVIDIA.match(name):
            symbols[missing[0]].setdefault("", set()).add(name)
    return symbols


def make_stand_ins(lib, folder):
    folder.mkdir()
    for library, versions in wanted_symbols(lib).items():
        source, script = folder / "source.c", folder / "symbols.map"
        names = sorted(set().union(*versions.values()))
        source.write_text("".join(f"long {name}(void) {{ return 999; }}\n" for name in names))
        blocks = [
            f"{version} {{ global: {''.join(f'{name}; ' for name in sorted(names))}}};\n"
            for version, names in versions.items()
            if version
        ]
        script.write_text("".join(blocks))
        flags = ["-w", "-shared", "-fPIC", "-fno-builtin", f"-Wl,-soname,{library}"]
        if blocks:
            flags.append(f"-Wl,--version-script={script}")
        printed("gcc", *flags, source, "-o", folder / library)


def run(version, folder, arguments):
    place, stand_ins = fetch(version, folder)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (place, ROOT, ROOT / "tests"))),
        "LD_LIBRARY_PATH": str(stand_ins),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / f"{version}-compiled"),
    }
    code = "import torch; print('torch', torch.__version__)"
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", help="of torch, for example 2.8.0")
    parser.add_argument("--folder", type=Path, help="where versions are kept; else none is")
    parser.add_argument("--fetch", action="store_true", help="only fetch it")
    parser.epilog = "After -- comes what pytest is told in place of the default tests."
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args, told = parser.parse_args(words[:end]), words[end + 1 :]
    with tempfile.TemporaryDirectory(prefix="mtlfast-torch-") as own:
        folder = Path(args.folder or own).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if args.fetch:
            fetch(args.version, folder)
            return 0
        return run(args.version, folder, told or [str(ROOT / "tests" / name) for name in TESTS])


if __name__ == "__main__":
    sys.exit(main())
