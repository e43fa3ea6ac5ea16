"""tools/wheel.py refuses what it is there to refuse. `make wheel` is the other half of its test."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def loaded(name):
    """A module of tools/, whose names are those of others too."""
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "tools")
    tool = loaded("wheel")
old_glibc = tool.old_glibc

MACHINE = os.uname().machine if hasattr(os, "uname") else "none"
in_git = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="git lists the sources"
)


@pytest.mark.parametrize(
    "tag, fits",
    [
        (f"cp311-abi3-manylinux_2_17_{MACHINE}.manylinux2014_{MACHINE}", True),
        (f"cp311-abi3-manylinux_2_28_{MACHINE}", True),
        (f"cp311-abi3-manylinux_2_34_{MACHINE}", False),
        (f"cp311-abi3-linux_{MACHINE}", False),
        ("cp311-abi3-manylinux_2_28_other", False),
        (f"cp311-cp311-manylinux_2_28_{MACHINE}", False),
    ],
)
def test_tags(tag, fits):
    wheel = Path(f"mtlfast-0.1.0-{tag}.whl")
    if fits:
        tool.check_tag(wheel)
    else:
        with pytest.raises(SystemExit, match=wheel.name):
            tool.check_tag(wheel)


def package(folder, more=(), without=()):
    """A wheel without kernels that holds the package, and more or less than that."""
    path = folder / "mtlfast-0.1.0-py3-none-any.whl"
    names = {name for name in tool.tracked("mtlfast") if not name.endswith(".md")}
    info = "mtlfast-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (names | {f"{info}/licenses/LICENSE", *more}) - set(without):
            archive.writestr(name, "")
    return path


@in_git
@pytest.mark.parametrize(
    "change",
    [
        {"more": ["tests/cases.py"]},
        {"more": ["csrc/types.h"]},
        {"more": ["mtlfast/_C.abi3.so"]},
        {"more": ["mtlfast/__pycache__/x.pyc"]},
        {"without": ["mtlfast/ridge.py"]},
        {"without": ["mtlfast/py.typed"]},
        {"without": ["mtlfast-0.1.0.dist-info/licenses/LICENSE"]},
    ],
    ids=lambda change: re.sub(r"\W+", " ", str(change)),
)
def test_contents(change, tmp_path):
    tool.check_contents(package(tmp_path))
    with pytest.raises(SystemExit, match=r"wheel: mtlfast-0\.1\.0"):
        tool.check_contents(package(tmp_path, **change))


@in_git
def test_the_sdist_holds_all_that_a_build_needs(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="what builds is not installed")
    target = tmp_path / "dist"
    target.mkdir()
    sdist = tool.build_sdist(sys.executable, tmp_path / "copy", target)
    tool.check_sdist(sdist)
    manifest = tmp_path / "copy/MANIFEST.in"
    manifest.write_text(manifest.read_text().replace("graft csrc", ""))
    shutil.rmtree(tmp_path / "copy/mtlfast.egg-info")  # a list of files from the first time
    less = tmp_path / "less"
    less.mkdir()
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, less]
    subprocess.run(command, cwd=tmp_path / "copy", check=True, capture_output=True)
    with pytest.raises(SystemExit, match="has no csrc/"):
        tool.check_sdist(less / sdist.name)


def test_the_newest_of_the_older_versions():
    known = {
        "dlsym": {"2.2.5", "2.34"},
        "pthread_sigmask": {"2.2.5", "2.12", "2.32"},
        "malloc": {"2.2.5"},
        "arc4random": {"2.36"},
        "memcpy": {"2.2.5", "2.14"},
    }
    assert old_glibc.older(known, (2, 28)) == {"dlsym": "2.2.5", "pthread_sigmask": "2.12"}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
@pytest.mark.skipif(shutil.which("readelf") is None, reason="binutils are not installed")
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_a_library_asks_for_an_old_glibc(tmp_path):
    (tmp_path / "glibc").mkdir()
    source, library = tmp_path / "uses.cpp", tmp_path / "uses.so"
    source.write_text(
        "#include <dlfcn.h>\n#include <pthread.h>\n#include <semaphore.h>\n#include <cmath>\n"
        "pthread_key_t key;\nsem_t semaphore;\n"
        'extern "C" void* use(double* x) {\n'
        "  pthread_key_create(&key, nullptr);\n  sem_post(&semaphore);\n  *x = std::pow(*x, 1.5);\n"
        '  return dlsym(RTLD_DEFAULT, "use");\n}\n'
    )
    flags = old_glibc.linker_flags(tmp_path / "glibc", "2.28")
    command = ["g++", "-shared", "-fPIC", source, "-o", library, *flags]
    subprocess.run(command, check=True)
    listed = subprocess.run(
        ["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True
    ).stdout
    asked = dict(re.findall(r" UND (\w+)@GLIBC_([\d.]+)", listed))
    assert asked.keys() >= {"pthread_key_create", "sem_post", "pow", "dlsym"}
    assert max(map(old_glibc.number, asked.values())) <= (2, 28)
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).use(ctypes.byref(ctypes.c_double(2)))"
    subprocess.run([sys.executable, "-c", code, library], check=True)
