"""setup.py with a compiler that writes nothing but the files it is asked for."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77", reason="what builds is not installed")
ROOT = Path(__file__).resolve().parent.parent
# What it reads must be there: a path that was cut at a space is not.
COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo compiler of nothing && exit
while [ $# -gt 0 ]; do
  case "$1" in
    -o) output=$2; shift ;;
    -MF) echo "$output:" > "$2"; shift ;;
    -I*) [ -d "${1#-I}" ] || { echo "no folder $1" >&2; exit 1; } ;;
    *.cpp | *.o) [ -f "$1" ] || { echo "no file $1" >&2; exit 1; } ;;
  esac
  shift
done
echo nothing > "$output"
"""


@pytest.fixture
def tree(tmp_path):
    """A read-only copy of the sources in a folder with a space."""
    tree = tmp_path / "a tree of sources"
    for name in ("csrc", "mtlfast"):
        left_out = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, tree / name, ignore=left_out)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tree)
    for path in (*tree.rglob("*"), tree):
        path.chmod(path.stat().st_mode & ~0o222)
    yield tree
    for path in (tree, *tree.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def built(tree, folder, **switches):
    """The wheel that setup.py makes, by the steps that pip asks for."""
    compiler = folder / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MTLFAST_")}
    environment |= {"CXX": str(compiler), "MTLFAST_CUDA": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    before = sorted(tree.rglob("*"))
    for step in ("prepare_metadata_for_build_wheel", "build_wheel"):
        code = f"import sys; from setuptools.build_meta import {step}; {step}(sys.argv[1])"
        run = subprocess.run(
            [sys.executable, "-c", code, folder],
            cwd=tree,
            env=environment | switches,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(tree.rglob("*")) == before
    (wheel,) = folder.glob("*.whl")
    return wheel


def binaries(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.endswith(".so")]


def test_a_read_only_tree_with_a_space_in_its_path(tree, tmp_path):
    pytest.importorskip("pybind11", reason="what builds is not installed")
    pytest.importorskip("ninja", reason="what builds is not installed")
    wheel = built(tree, tmp_path)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.startswith(f"mtlfast-0.1.0-{tag}-{tag}")
    assert len(binaries(wheel)) == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the limited API has no buffers")
def test_the_limited_api_is_for_every_python(tree, tmp_path):
    pytest.importorskip("ninja", reason="what builds is not installed")
    wheel = built(tree, tmp_path, MTLFAST_LIMITED_API="1")
    assert wheel.name.startswith("mtlfast-0.1.0-cp311-abi3-")
    assert binaries(wheel) == ["mtlfast/_C.abi3.so"]


def test_without_kernels_a_wheel_is_for_every_platform(tree, tmp_path):
    wheel = built(tree, tmp_path, MTLFAST_PURE="1")
    assert wheel.name == "mtlfast-0.1.0-py3-none-any.whl"
    assert binaries(wheel) == []


def test_both_bindings_use_the_same_objects(tree, tmp_path):
    pytest.importorskip("pybind11", reason="what builds is not installed")
    pytest.importorskip("ninja", reason="what builds is not installed")
    if sys.version_info < (3, 11):
        pytest.skip("the limited API has no buffers")
    folder = tmp_path / "some objects"
    built(tree, tmp_path, MTLFAST_OBJECTS=str(folder)).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.o")}
    built(tree, tmp_path, MTLFAST_OBJECTS=str(folder), MTLFAST_LIMITED_API="1")
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.o")}
    assert after.keys() - before.keys() == {"module.abi3.o"}
    assert before.items() <= after.items()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere there is one instruction set")
def test_instruction_sets_can_be_chosen(tree, tmp_path):
    pytest.importorskip("pybind11", reason="what builds is not installed")
    pytest.importorskip("ninja", reason="what builds is not installed")
    folder = tmp_path / "objects"
    built(tree, tmp_path, MTLFAST_OBJECTS=str(folder), MTLFAST_ISAS="x86_64_v4")
    assert {path.suffixes[0] for path in folder.glob("table.*.o")} == {".baseline", ".x86_64_v4"}
    environment = os.environ | {"MTLFAST_ISAS": "z80"}
    run = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "MTLFAST_ISAS must name some of baseline, x86_64_v3, x86_64_v4, got z80" in run.stderr
