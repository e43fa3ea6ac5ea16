"""Linker flags for a library that runs where glibc is as old as a wheel promises.

The linker takes the newest version of a function that this machine has, and the wheel would ask for
this machine's glibc. With 2.34 the functions for threads, semaphores, dlopen and shared memory got
new versions, unchanged, for they moved into libc.so.6. The old versions are there too, but no
linker picks them. So it is first given libraries that hold the old versions alone, and no code.
Where nothing newer is found there are no such libraries.
"""

import os
import re
import subprocess
from pathlib import Path

# where each function lay before; libm.so.6 keeps its own
FORMER = {
    "libpthread.so.0": ("pthread_", "sem_"),
    "libdl.so.2": ("dl",),
    "librt.so.1": ("shm_",),
}
# Since 2.32 the C++ runtime asks glibc whether it may leave out atomic instructions. It may not.
SINGLE_THREADED = "char __libc_single_threaded = 0;\n"


def number(version):
    return tuple(map(int, version.split(".")))


def versions(library):
    """{function: its versions} of a library of glibc."""
    listed = subprocess.run(
        ["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for name, version in re.findall(r" I?FUNC .* (\w+)@@?GLIBC_(\d[\d.]*)$", listed, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def older(functions, limit):
    """{function: newest version that is not newer than the limit}, where there is a newer one."""
    chosen = {}
    for name, known in functions.items():
        old = [version for version in known if number(version) <= limit]
        if old and len(old) < len(known):
            chosen[name] = max(old, key=number)
    return chosen


def write_library(path, functions, cxx):
    """A library that holds these versions of these functions, and no code."""
    lines = [
        f'void f{i}(void) {{}}\n__asm__(".symver f{i}, {name}@@@GLIBC_{version}");'
        for i, (name, version) in enumerate(sorted(functions.items()))
    ]
    script = path.with_suffix(".map")
    script.write_text("".join(f"GLIBC_{v} {{}};\n" for v in sorted(set(functions.values()))))
    linked = ["-shared", "-nostdlib", f"-Wl,--version-script={script}", f"-Wl,-soname,{path.name}"]
    compile_c(path, "\n".join(lines) + "\n", cxx, linked)


def compile_c(path, text, cxx, options):
    source = path.with_suffix(".c")
    source.write_text(text)
    command = [*cxx.split(), "-x", "c", source, "-fPIC", "-fno-lto", "-o", path, *options]
    subprocess.run(command, check=True)


def linker_flags(folder, newest):
    """Flags for LDFLAGS, with libraries in ``folder``, that keep to glibc ``newest``, as "2.28"."""
    folder, cxx = Path(folder), os.environ.get("CXX", "g++")
    parts = {}
    for library in ("libc.so.6", "libm.so.6"):
        command = [*cxx.split(), f"-print-file-name={library}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for name, version in older(versions(found), number(newest)).items():
            homes = [home for home, starts in FORMER.items() if name.startswith(starts)]
            home = library if library == "libm.so.6" else next(iter(homes), None)
            if home is not None:
                parts.setdefault(home, {})[name] = version
    for home, functions in parts.items():
        write_library(folder / home, functions, cxx)
    compile_c(folder / "single_threaded.o", SINGLE_THREADED, cxx, ["-c"])
    return [str(folder / "single_threaded.o"), f"-L{folder}", *(f"-l:{home}" for home in parts)]
