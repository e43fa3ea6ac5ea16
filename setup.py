"""Builds mtlfast._C from C++ and pybind11 alone; torch is not needed to build.

Every source in csrc/cpu is compiled once per instruction set and picked at run time; those in
csrc/cuda by nvcc where it is found, for use with any torch. Switches:
MTLFAST_ISAS (instruction sets beside the baseline, such as "x86_64_v3"; all by default),
MTLFAST_CUDA (auto, 0 or 1: must be built), MTLFAST_CUDA_ARCHS ("80,90"), MAX_JOBS (parallel
compilations), MTLFAST_SANITIZE (for example "address,undefined"), MTLFAST_WERROR (warnings are
errors, and so are register spills of CUDA kernels), MTLFAST_OBJECTS (a folder of object files that
the next build uses again), MTLFAST_LIMITED_API (one binary for every Python ≥ 3.11, as wheels have
it, by that API instead of pybind11), CXX, LDFLAGS, CUDA_HOME.
Without a C++ compiler the build fails, for pip would keep a package without kernels and install it
again after there is one; MTLFAST_PURE=1 asks for that package. What is built for an installation
lies in a temporary folder: the source tree may be read-only, and nothing is left in it.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def is_set(switch):
    return os.environ.get(switch, "0") not in ("", "0")


ROOT = Path(__file__).resolve().parent
X86_64 = platform.machine().lower() in ("x86_64", "amd64")
AVX2 = ["-mavx2", "-mf16c", "-mfma", "-mbmi", "-mbmi2", "-mpopcnt"]
AVX512 = [f"-mavx512{part}" for part in ("f", "bw", "cd", "dq", "vl")]
LIMITED_API = is_set("MTLFAST_LIMITED_API")


def instruction_sets():
    """The flags of each set to compile for."""
    if not X86_64:
        return {"baseline": []}
    # baseline is for machines without AVX2: lanes in pairs of numbers, slow to compile with -O3
    flags = {"baseline": ["-O1"], "x86_64_v3": AVX2, "x86_64_v4": [*AVX2, *AVX512]}
    asked = os.environ.get("MTLFAST_ISAS", " ".join(flags)).replace(",", " ").split()
    if not flags.keys() >= set(asked):
        known = ", ".join(flags)
        raise SystemExit(f"mtlfast: MTLFAST_ISAS must name some of {known}, got {' '.join(asked)}")
    return {isa: flags[isa] for isa in flags if isa in ("baseline", *asked)}


ISA_FLAGS = instruction_sets()

# -ffp-contract=off: no fused multiply-add behind our back, so that every instruction set gives the
# same bits. -Wno-psabi: vectors are passed between inlined functions only.
FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-Werror=return-type", "-Wno-psabi", "-Wno-unknown-pragmas"),
    *(["-DMTLFAST_X86_64"] if X86_64 else []),
]

# sources in csrc/cpu that have no instruction set
ONCE = ("dispatch", "graph_elimination", "graph_order", "graph_pieces", "interrupt", "memory")


def ninja_program():
    """PyPI's ninja where it is installed, else the one on PATH, as Debian and conda have it."""
    try:
        import ninja
    except ImportError:
        found = next(filter(None, map(shutil.which, ("ninja", "ninja-build"))), None)
        if found is None:
            raise SystemExit("mtlfast: ninja is needed to build, and none is on PATH") from None
        return found
    return str(Path(ninja.BIN_DIR) / "ninja")


def compiler():
    """The C++ compiler, and whether it has OpenMP."""
    cxx = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if cxx is None:
        raise SystemExit(
            "mtlfast: a C++ compiler is needed to build (g++, clang++, or CXX); MTLFAST_PURE=1 "
            "installs mtlfast without its kernels, on plain PyTorch"
        )
    if shutil.which(cxx.split()[0]) is None:
        raise SystemExit(f"mtlfast: CXX must name a C++ compiler, got {cxx!r}, which is not there")
    probe = subprocess.run(
        [*cxx.split(), "-fopenmp", "-x", "c++", "-", "-o", os.devnull],
        input="#include <omp.h>\nint main() { return omp_get_max_threads() < 0; }",
        capture_output=True,
        text=True,
    )
    return cxx, probe.returncode == 0


class Cuda:
    """nvcc, the folder of its runtime library and the architectures to compile for.

    Raises RuntimeError where nvcc compiles nothing or there is no such library.
    """

    def __init__(self, nvcc):
        self.nvcc = nvcc
        numbers = os.environ.get("MTLFAST_CUDA_ARCHS", "80,90").replace(";", ",").split(",")
        numbers = [number.strip() for number in numbers]
        newest = max(numbers, key=lambda number: int(re.match(r"\d*", number)[0] or 0))
        self.archs = [*numbers, f"{newest}+PTX"]
        code = [f"-gencode arch=compute_{n},code=sm_{n}" for n in numbers]
        code.append(f"-gencode arch=compute_{newest},code=compute_{newest}")
        self.flags = " ".join(
            ["-std=c++17 -O3 -Xcompiler=-fPIC,-fvisibility=hidden -DMTLFAST_ISA=cuda", *code]
        )
        self.folder = self._library_folder()

    def _library_folder(self):
        """Where libcudart_static.a lies; nvcc itself may be a wrapper that lies elsewhere."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.cu"
            source.write_text("__global__ void probe() {}\n")
            command = [self.nvcc, *self.flags.split(), "-c", str(source), "-o", f"{source}.o"]
            probe = subprocess.run(command, capture_output=True, text=True)
            if probe.returncode:
                raise RuntimeError(f"{self.nvcc} fails: {probe.stderr.strip()}")
            plan = subprocess.run([*command, "--dryrun"], capture_output=True, text=True).stderr
        top = re.search(r"^#\$ TOP=(.*)$", plan, re.MULTILINE)
        root = Path(top[1] if top else Path(self.nvcc).resolve().parent.parent).resolve()
        found = next(root.glob("targets/*/lib/libcudart_static.a"), None) or next(
            root.glob("lib*/libcudart_static.a"), None
        )
        if found is None:
            raise RuntimeError(f"no libcudart_static.a in {root}")
        return found.parent


def cuda_compiler():
    """What compiles csrc/cuda, or None; MTLFAST_CUDA=1 makes None an error."""
    mode = os.environ.get("MTLFAST_CUDA", "auto").lower()
    if mode not in ("auto", "0", "1"):
        raise SystemExit(f"mtlfast: MTLFAST_CUDA must be auto, 0 or 1, got {mode!r}")
    if mode == "0":
        return None
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which(f"{home}/bin/nvcc") if home else shutil.which("nvcc")
    reason = f"no nvcc in {home}/bin" if home else "no nvcc on PATH"
    if nvcc is not None:
        try:
            return Cuda(nvcc)
        except (RuntimeError, OSError) as error:
            reason = str(error)
    if mode == "1":
        raise SystemExit(f"mtlfast: MTLFAST_CUDA=1, but {reason}")
    print(f"mtlfast: building without CUDA kernels: {reason}")
    return None


def version_of(cxx):
    out = subprocess.run([*cxx.split(), "--version"], capture_output=True, text=True).stdout
    return (out.splitlines() or [cxx])[0].replace('"', "")


def quoted(path):
    """A path as ninja takes it."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def cpu_objects():
    """(source, name of its object, flags of its own) of all in csrc/cpu."""
    folder = ROOT / "csrc" / "cpu"
    for name in ONCE:
        built = [f"-DMTLFAST_HAS_{isa}" for isa in ISA_FLAGS if name == "dispatch"]
        yield folder / f"{name}.cpp", name, built
    for isa, isa_flags in ISA_FLAGS.items():
        for source in sorted(folder.glob("*.cpp")):
            if source.stem not in ONCE:
                yield source, f"{source.stem}.{isa}", [f"-DMTLFAST_ISA={isa}", *isa_flags]


def ninja_file(target, cxx, openmp, cuda, include):
    """The text of build.ninja: one object per source and instruction set, one link."""
    flags = [*FLAGS, *(["-fopenmp"] if openmp else [])]
    if is_set("MTLFAST_WERROR"):
        flags.append("-Werror")
    sanitize = os.environ.get("MTLFAST_SANITIZE")
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g1", "-Og"]
    compile_line = "$cxx $flags $extra -MMD -MF $out.d -c $in -o $out"
    lines = [
        f"cxx = {cxx}",
        f"flags = {' '.join(flags)}",
        f"rule compile\n  command = {compile_line}\n  depfile = $out.d\n  deps = gcc\n"
        "  description = $out",
        "rule link\n  command = $cxx $flags -shared $in -o $out $libs\n  description = $out",
    ]
    csrc = ROOT / "csrc"
    objects = []

    # Objects have names relative to their folder: a copy of it serves as well.
    def add(source, name, extra, rule="compile"):
        objects.append(f"{name}.o")
        lines.append(f"build {name}.o: {rule} {quoted(source)}\n  extra = {extra}")

    own = f"'-I{csrc}'"
    names = ",".join(f'\\"{isa}\\"' for isa in ISA_FLAGS)
    defines = f'"-DMTLFAST_COMPILER=\\"{version_of(cxx)}\\"" "-DMTLFAST_ISA_NAMES={names}"'
    if cuda:
        archs = ",".join(f'\\"{arch}\\"' for arch in cuda.archs)
        defines += f' -DMTLFAST_CUDA "-DMTLFAST_CUDA_ARCHS={archs}"'
    python = " ".join(f"'-I{path}'" for path in include)
    if LIMITED_API:
        name, binding = "module.abi3", "-DMTLFAST_LIMITED_API"
    else:
        import pybind11

        name, binding = "module", f"'-I{pybind11.get_include()}'"
    add(csrc / "module.cpp", name, f"{own} {python} {binding} {defines}")
    add(csrc / "python_signals.cpp", "python_signals", f"{own} {python}")
    for source, name, flags_of_its_own in cpu_objects():
        add(source, name, " ".join([own, *flags_of_its_own]))
    libs = "-undefined dynamic_lookup" if sys.platform == "darwin" else ""
    if cuda:
        strict = ""
        if is_set("MTLFAST_WERROR"):
            strict = " -Werror all-warnings -Xptxas=-warn-spills,-Werror"
        command = f"{cuda.nvcc} {cuda.flags}{strict} $extra -MMD -MF $out.d -c $in -o $out"
        lines.append(
            f"rule compile_cuda\n  command = {command}\n  depfile = $out.d\n  deps = gcc\n"
            "  description = $out"
        )
        for source in sorted((csrc / "cuda").glob("*.cu")):
            add(source, f"{source.stem}.cuda", own, "compile_cuda")
        libs += f" '-L{cuda.folder}' -lcudart_static -ldl -lrt -lpthread"
    libs += " " + os.environ.get("LDFLAGS", "").replace("$", "$$")  # last: others may need them
    lines.append(f"build {quoted(target)}: link {' '.join(objects)}\n  libs = {libs}")
    return "\n".join(lines) + "\n"


class NinjaBuild(build_ext):
    def build_extension(self, ext):
        cxx, openmp = compiler()
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        kept = os.environ.get("MTLFAST_OBJECTS")
        temp = Path(kept or f"{self.build_temp}/mtlfast").resolve()
        temp.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        include = list(dict.fromkeys(self.compiler.include_dirs))
        text = ninja_file(target, cxx, openmp, cuda_compiler(), include)
        (temp / "build.ninja").write_text(text)
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        command = [ninja_program(), "-C", temp, "-j", jobs]
        subprocess.run([str(part) for part in command], check=True)


extension = Extension("mtlfast._C", sources=[], py_limited_api=LIMITED_API)
options = {"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {}
if {"bdist_wheel", "dist_info", "egg_info"} & set(sys.argv):  # what pip asks for
    kept = tempfile.TemporaryDirectory(prefix="mtlfast-build-")
    options |= {"build": {"build_base": kept.name}, "egg_info": {"egg_base": kept.name}}
setup(
    ext_modules=[] if is_set("MTLFAST_PURE") else [extension],
    cmdclass={"build_ext": NinjaBuild},
    options=options,
)
