"""Hints are complete, name what is there, and say what two type checkers make of a program."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from test_architecture import bound_names, is_for_type_checkers

import mtlfast
from mtlfast import _native, _typing, linear_model, nn, optim
from mtlfast.relations import Relations
from mtlfast.relations._clusters import Clusters

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "tests/typing/program.py"
STUB = ROOT / "mtlfast/_C.pyi"


def public_objects():
    """What users meet, by name: functions, classes, and classes that functions return."""
    yield from {"Relations": Relations, "Clusters": Clusters}.items()
    for module in (mtlfast, nn, optim, linear_model):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isroutine(thing) or inspect.isclass(thing):
                yield f"{module.__name__}.{name}", thing


def methods_of(cls):
    """Public methods and properties of a class that this package defines."""
    for base in cls.__mro__:
        if not base.__module__.startswith("mtlfast"):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") and name != "__init__":
                continue
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            made = getattr(member, "__module__", None)  # scikit-learn and dataclasses make some
            if inspect.isfunction(member) and made == base.__module__:
                yield f"{base.__name__}.{name}", member


def functions():
    for name, thing in public_objects():
        if inspect.isclass(thing):
            yield from methods_of(thing)
        else:
            yield name, thing


FUNCTIONS = dict(functions())


def names_for_hints(module):
    """The names of a module, with those that it has for type checkers alone."""
    module = importlib.import_module(module)
    known = dict(vars(module))
    for node in ast.parse(Path(module.__file__).read_text()).body:
        if is_for_type_checkers(node):
            code = compile(ast.Module(node.body, []), module.__file__, "exec")
            exec(code, known)
    return known


def without_hints(function):
    """Arguments of a function, and "return", that have none."""
    arguments = list(inspect.signature(function).parameters)
    wanted = [name for name in arguments if name not in ("self", "cls")] + ["return"]
    return [name for name in wanted if name not in function.__annotations__]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_hints_for_all_arguments_and_its_result(name):
    function = inspect.unwrap(FUNCTIONS[name])
    assert without_hints(function) == []
    found = typing.get_type_hints(function, names_for_hints(function.__module__))
    assert set(found) == set(function.__annotations__)


def test_a_missing_hint_is_noticed():
    def step(self, W: float, alpha=1.0):
        pass

    assert without_hints(step) == ["alpha", "return"]
    assert len(FUNCTIONS) > 100


def test_every_public_object_is_in_the_program():
    """What no program names is not checked."""
    words = set(re.findall(r"\w+", PROGRAM.read_text()))
    names = {name.rpartition(".")[2] for name, thing in public_objects()}
    assert names - words == {"Clusters"}  # of Relations.clusters


def test_the_program_runs():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(PROGRAM)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert "4 tasks, 3 features" in run.stdout


def test_mypy_takes_the_package_and_the_program_and_refuses_wrong_uses():
    """Pyright does the same in ``make types``."""
    pytest.importorskip("mypy")
    run = subprocess.run(
        [sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith("Success")


def test_the_names_for_hints_are_types():
    names = [name for name in vars(_typing) if not name.startswith("_")]
    assert {"Rows", "Graph", "Number", "Features"} <= set(names)


# -- the stub of the compiled module ---------------------------------------------------------------

PYTHON = {"Address": "Address", "int": "int", "int64_t": "int", "double": "float", "bool": "bool"}


def stub_signatures():
    """{name: (names and types of arguments, type of the result)} of the functions in the stub."""
    found = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args]
            hints = [(a.arg, ast.unparse(a.annotation)) for a in arguments]
            found[node.name] = hints, ast.unparse(node.returns)
    return found


def bound_signatures():
    """The same of csrc/bind/."""
    found = {}
    for path in sorted((ROOT / "csrc/bind").glob("*.h")):
        text = path.read_text()
        cuda = "".join(
            re.findall(r"^namespace cuda \{.*?^\}  // namespace cuda", text, re.M | re.S)
        )
        for name, place, function in re.findall(r'm\.def\("(\w+)", &(cuda::)?(\w+)\)', text):
            part = cuda if place else text.replace(cuda, "")
            result, arguments = re.search(rf"^(\w+) {function}\(([^)]*)\)", part, re.M).groups()
            pairs = [argument.rsplit(None, 1) for argument in arguments.split(",")]
            hints = [(name, PYTHON[kind.strip()]) for kind, name in pairs]
            found[name] = hints, "None" if result == "void" else PYTHON[result]
    return found


def test_the_stub_has_the_signatures_of_the_bindings():
    bound, stub = bound_signatures(), stub_signatures()
    assert set(bound) == bound_names()
    for name, signature in bound.items():
        assert stub[name] == signature, name
    module = set(re.findall(r'm\.def\("(\w+)"', (ROOT / "csrc/module.cpp").read_text()))
    assert set(stub) == set(bound) | module


@pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
def test_the_stub_has_the_names_of_the_module():
    there = {name for name in vars(_native._C) if not name.startswith("__")}
    listed = {*stub_signatures(), "Memory"}
    cuda = {name for name in listed if name.startswith("cuda_")}
    assert there == (listed if _native.build_info()["cuda"] else listed - cuda)


# -- the package that is installed -----------------------------------------------------------------


def test_the_package_brings_its_hints():
    """PEP 561: without the marker type checkers take no hint of an installed package."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^\[tool\.setuptools\.package-data\]\nmtlfast = \[(.*?)\]", text, re.M)[1]
    files = re.findall(r'"(.*?)"', listed)
    assert files == ["py.typed", "_C.pyi"]
    assert all((ROOT / "mtlfast" / file).is_file() for file in files)
    assert (ROOT / "mtlfast/py.typed").read_bytes() == b""
