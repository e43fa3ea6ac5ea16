"""The layout keeps its rules: who imports whom, one name in every folder, complete docstrings."""

import ast
import graphlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._device import _device_constructors

import mtlfast
from mtlfast import (
    _compat,
    _native,
    linear_model,
)
from mtlfast._ops import _registry

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mtlfast"
FILES = {path.stem: path for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"}
MODULES = list(FILES)
EVERY_FILE = sorted(PACKAGE.rglob("*.py"))
REFERENCE = sorted((PACKAGE / "reference").glob("*.py"))
REGULARIZERS = [
    "pairwise",
    "graph",
    "gram",
    "ridge",
    "trace_norm",
    "group_lasso",
    "graph_total_variation",
]

# A layer imports from the layers after it; within a layer without cycles, regularizers not at all.
LAYERS = [
    {"_typing"},  # named by all, imported by none
    {"linear_model"},
    {"optim", "relations", "_loading"},
    {"nn"},
    {"task_linear", *REGULARIZERS},
    {"graphs"},
    {"_ops", "_config"},
    {"_checks", "_cache"},
    {"_native"},
    {"_torch", "_compat"},
    {"reference"},
    {"_dtypes"},
    {"_C"},
]

# The same inside folders.
LINEAR_MODEL_LAYERS = [
    {"__init__"},
    {"_cv"},
    {"_selection"},
    {"_estimators", "_classifier"},
    {"_model", "_folds"},
    {"_probe", "_tasks", "_task_column", "_intercept"},
    {"_logistic"},
    {"_fit"},
    {"_gradients"},
    {"_splitting"},
    {"_search"},
    {"_active", "_norms"},
    {"_bounds"},
    {"_quadratic"},
    {"_direct", "_preconditioner"},
    {"_coupling", "_row_blocks"},
    {"_blocks", "_hierarchy"},
    {"_statistics", "_penalties", "_progress"},
    {"_data", "_labels"},
    {"_names", "_layout"},
    {"_base"},
]

GRAPHS_LAYERS = [
    {"_tied"},
    {"_dual", "_prepare"},
    {"__init__"},
    {"_task_graph"},
    {"_forms", "_labels", "_neighbors", "_parts"},
    {"_read"},
]

NN_LAYERS = [
    {"__init__"},
    {"_sum"},
    {"_graphs", "_terms"},
    {"_base"},
    {"_contract", "_fused", "_parameters"},
    {"_quadratic"},
]

OPS_LAYERS = [
    {"__init__"},
    {"quadratic", "graph_total_variation", "graph_prox"},
    {"pairwise", "ridge", "graph", "group", "gram", "group_lasso", "trace_norm"},
    {"_registry"},
]
NATIVE_LAYERS = [
    {"quadratic", "graph_total_variation", "group", "graph_prox"},
    {"pairwise", "ridge", "graph", "graph_order", "edge_dual", "gram", "group_lasso", "trace_norm"},
    {"__init__"},
]
TORCH_LAYERS = [{"gram", "group_lasso", "ridge", "trace_norm"}, {"__init__"}]

FOLDERS = {
    "_native": NATIVE_LAYERS,
    "_ops": OPS_LAYERS,
    "_torch": TORCH_LAYERS,
    "graphs": GRAPHS_LAYERS,
    "linear_model": LINEAR_MODEL_LAYERS,
    "nn": NN_LAYERS,
    "optim": [{"__init__"}, {"_alternating", "_proximal"}, {"_terms", "_wrapper"}],
    "relations": [{"__init__"}, {"_relations"}, {"_clusters", "_input", "_plot"}],
}
FILES_OF = {
    name: {path.stem: path for path in sorted((PACKAGE / name).glob("*.py"))} for name in FOLDERS
}


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_of(path, package="mtlfast"):
    """Names of a package's modules that a file imports, and of all other top packages.

    What it names for type checkers alone is not imported.
    """
    own, foreign = set(), set()
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not is_for_type_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == package or name.startswith(package + "."):
                own.add(name.removeprefix(package).lstrip(".").split(".")[0])
            else:
                foreign.add(name.split(".")[0])
    return own, foreign


def layer_of(module, layers=LAYERS):
    found = [k for k, layer in enumerate(layers) if module in layer]
    assert found, f"{module} has no place in the import arrows"
    return found[0]


def test_import_arrows():
    """Only downwards, without cycles, and never through the package itself."""
    arrows = {m: imports_of(path)[0] for m, path in FILES.items()}
    for name, files in FILES_OF.items():
        arrows[name] = set().union(*(imports_of(path)[0] for path in files.values())) - {name}
    for module, others in arrows.items():
        assert "" not in others, f"{module} imports the package from inside"
        for other in others:
            assert layer_of(other) >= layer_of(module), f"{module} → {other}"
            assert not {module, other} <= set(REGULARIZERS), f"{module} → {other}"
    tuple(graphlib.TopologicalSorter(arrows).static_order())


@pytest.mark.parametrize("package", FOLDERS)
def test_import_arrows_inside_a_package(package):
    files, layers = FILES_OF[package], FOLDERS[package]
    inside = {}
    for module, path in files.items():
        names = imports_of(path, f"mtlfast.{package}")[0]
        inside[module] = {name if name in files else "__init__" for name in names}
    for module, others in inside.items():
        for other in others:
            here, there = (layer_of(name, layers) for name in (module, other))
            assert there >= here, f"{package}: {module} → {other}"
    tuple(graphlib.TopologicalSorter(inside).static_order())


def test_a_module_without_a_layer_is_named():
    with pytest.raises(AssertionError, match="surprise has no place in the import arrows"):
        layer_of("surprise")


def test_every_folder_is_in_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^packages = \[(.*?)\]", text, re.M | re.S)[1]
    folders = {path.parent for path in PACKAGE.rglob("__init__.py")}
    names = sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)
    assert re.findall(r'"(.*?)"', listed) == names


def test_few_modules_lie_beside_the_folders():
    assert len(list(PACKAGE.glob("[!_]*.py")) + list(PACKAGE.glob("_[!_]*.py"))) <= 15


def test_every_module_has_a_layer():
    folders = [(MODULES, LAYERS), *((FILES_OF[name], FOLDERS[name]) for name in FOLDERS)]
    for modules, layers in folders:
        free = set(modules) - set().union(*layers)
        assert not free, f"modules without a place in the import arrows: {sorted(free)}"


OPTIONAL = ["scipy", "sklearn", "pandas", "networkx", "matplotlib", "tqdm"]


def test_names_for_hints_are_imported_for_type_checkers_alone():
    code = """
import sys, torch, mtlfast
print(*{"mtlfast._typing", "numpy.typing"} & set(sys.modules))
import mtlfast.linear_model
print(*{"mtlfast._typing"} & set(sys.modules))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == []


@pytest.mark.parametrize("package", ["mtlfast", "mtlfast.nn", "mtlfast.optim"])
def test_an_import_brings_in_torch_and_numpy_alone(package):
    """What is optional takes longer than mtlfast itself, so it is imported where it is used; the
    linear models bring in scikit-learn, whose base classes they have, and are not imported either.
    """
    code = f"""
import sys, torch
before = set(sys.modules)
import {package}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*new & {set(OPTIONAL)}, *{{"mtlfast.linear_model"}} & set(sys.modules))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == []


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.name)
def test_reference_imports_torch_only(path):
    own, foreign = imports_of(path)
    assert own <= {"reference"}
    assert foreign <= {"torch", "math", "functools", "contextlib"}


def test_the_compiled_module_has_one_importer():
    importers = [path for path in EVERY_FILE if "_C" in imports_of(path)[0]]
    assert importers == [PACKAGE / "_native" / "__init__.py"]


def test_private_torch_lives_in_compat():
    private = re.compile(r"torch\._C\b|forward_ad\._|torch\._(?!dynamo)")
    users = {path.stem for path in EVERY_FILE if private.search(path.read_text())}
    assert users <= {"_compat", "_config"}  # _config only tells torch's build


# What torch makes on the default device when it is not told another.
MAKERS = {function.__name__ for function in _device_constructors()}


def made_anywhere(text):
    """Calls of torch that name no device for the tensor they make."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = ast.unparse(node.func)
            named = "device" in {keyword.arg for keyword in node.keywords}
            if name.startswith("torch.") and node.func.attr in MAKERS and not named:
                yield f"line {node.lineno}: {name}"


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_new_tensor_is_given_its_device(path):
    """A script may have set another default: results lie where the arguments lie."""
    text = path.read_text()
    assert not re.search(r"from torch import .*\b(" + "|".join(sorted(MAKERS)) + r")\b", text)
    assert list(made_anywhere(text)) == []


def test_a_tensor_made_anywhere_is_noticed():
    assert {"arange", "zeros", "tensor", "as_tensor", "rand", "sparse_coo_tensor"} <= MAKERS
    assert list(made_anywhere("torch.arange(3)")) == ["line 1: torch.arange"]
    assert list(made_anywhere("torch.arange(3, device=x.device)")) == []


def test_every_place_names_the_same_oldest_torch():
    """What is declared, refused, written and tried in the checks of a change; see docs/."""
    oldest = ".".join(map(str, _compat.OLDEST))
    for path, pattern in {
        "pyproject.toml": r'dependencies = .*"torch>=([\d.]+)"',
        "README.md": r"needs torch ≥ ([\d.]+)",
        "constraints.txt": r"any torch >= ([\d.]+) works",
        "docs/torch_versions.md": r"^\| (\d+\.\d+)\.\d+, the oldest",
        ".github/workflows/torch.yml": r'torch: \["([\d.]+)\.0"',
    }.items():
        found = re.findall(pattern, (ROOT / path).read_text(), re.M)
        assert found == [oldest], path
    assert f"{oldest}.0" in (ROOT / "docs/torch_versions.md").read_text()
    pinned = re.search(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert pinned in (ROOT / "docs/torch_versions.md").read_text()


def test_an_older_torch_is_refused():
    code = "import torch; torch.__version__ = '2.7.1'; import mtlfast"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "ImportError: mtlfast: torch must be >= " in run.stderr
    assert "got 2.7.1" in run.stderr


def includes_of(path):
    return set(re.findall(r'#include [<"]([^">]+)[">]', path.read_text()))


def sources(*folders):
    return [
        path
        for folder in folders
        for path in sorted((ROOT / "csrc" / folder).glob("*"))
        if path.suffix in (".cpp", ".h", ".cu", ".cuh")
    ]


def test_native_folders_do_not_know_each_other():
    for path in sources("cpu"):
        assert not [i for i in includes_of(path) if i.startswith("cuda/")], path
    for path in sources("cuda"):
        assert not [i for i in includes_of(path) if i.startswith("cpu/")], path
    for path in sources("common"):
        assert not [i for i in includes_of(path) if i.startswith(("cpu/", "cuda/"))], path


def test_no_torch_and_pybind11_where_python_is_met():
    for path in sources(".", "bind", "cpu", "cuda", "common", "kernels"):
        wanted = includes_of(path)
        assert not [i for i in wanted if i.startswith(("torch/", "ATen/", "c10/"))], path
        if path.parent.name != "bind" and path.name not in ("module.cpp", "python_signals.cpp"):
            assert not [i for i in wanted if i.startswith(("pybind11", "Python.h"))], path


def test_launches_and_shared_memory_go_through_launch_h():
    """Its macros pass the stream, set the device and look for errors; the host shim needs them."""
    elsewhere = r"<<<|__shared__|cudaLaunch|cudaMalloc|cudaDevice|Synchronize"
    for path in sources("cuda"):
        found = re.findall("<<<" if path.name == "launch.h" else elsewhere, path.read_text())
        assert found == (["<<<"] if path.name == "launch.h" else []), path


def registered_ops():
    names = torch._C._dispatch_get_all_op_names()
    return sorted({name.split("::")[1] for name in names if name.startswith("mtlfast::")})


@pytest.mark.parametrize("name", registered_ops())
def test_an_op_and_its_kernels_have_one_signature(name):
    """torch.ops.mtlfast.x, its fallback and its kernels take the same arguments in one order."""
    schema = getattr(torch.ops.mtlfast, name).default._schema
    wanted = [argument.name for argument in schema.arguments]
    tables = _registry.FALLBACK, _registry.CPU, _registry.CUDA
    functions = [inspect.unwrap(table[name]) for table in tables if name in table]
    assert functions
    for function in functions:
        assert list(inspect.signature(function).parameters) == wanted, function.__module__


@pytest.mark.parametrize("name", [*_registry.CPU, *_registry.CUDA])
def test_a_kernel_has_the_name_of_its_op(name):
    for table, prefix in ((_registry.CPU, ""), (_registry.CUDA, "cuda_")):
        if name in table:
            assert table[name].__name__ == prefix + name


def bound_names():
    texts = [path.read_text() for path in sources("bind")]
    return set(re.findall(r'm\.def\("(\w+)"', "".join(texts)))


def called_kernels():
    texts = (path.read_text() for path in sorted((PACKAGE / "_native").glob("*.py")))
    return {name for text in texts for name in re.findall(r"_native\._C\.(\w+)", text)}


def test_kernels_are_bound_under_their_own_names():
    """Every kernel of kernels/ is in the list of all, bound, and called in mtlfast/_native."""
    families = {}
    for path in sources("kernels"):
        text, _, listed = path.read_text().partition("#define MTLFAST_")
        families[path.stem] = re.findall(r"^using (\w+) = void\(", text, re.M)
        assert listed.startswith(f"{path.stem.upper()}(X) ")
        assert re.findall(r"\bX\((\w+)\)", listed) == families[path.stem] != []
    text = (ROOT / "csrc/kernels.h").read_text()
    assert re.findall(r"^#include \"kernels/(\w+)\.h\"", text, re.M) == sorted(families)
    assert sorted(re.findall(r"^  MTLFAST_(\w+)\(X\)", text, re.M)) == sorted(
        map(str.upper, families)
    )
    kernels = [name for names in families.values() for name in names]
    assert len(kernels) == len(set(kernels))
    assert set(kernels) <= bound_names()
    assert set(kernels) <= called_kernels()


def test_cuda_kernels_are_bound_under_their_own_names():
    """Every function of cuda/kernels.h is bound, and called in mtlfast/_native."""
    text = (ROOT / "csrc/cuda/kernels.h").read_text()
    kernels = {f"cuda_{name}" for name in re.findall(r"^(?:void|int64_t) (\w+)\(", text, re.M)}
    bound = {name for name in bound_names() if name.startswith("cuda_")}
    called = {name for name in called_kernels() if name.startswith("cuda_")}
    assert kernels
    assert kernels == bound == called


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer_has_its_file_in_each_folder(name):
    """`git ls-files | grep <name>` lists the whole feature."""
    files = [f"{folder}{name}.py" for folder in ("mtlfast/", "mtlfast/reference/", "tests/test_")]
    files.append(f"csrc/cpu/{name}.cpp")
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_all_resolves():
    for module in (
        mtlfast,
        linear_model,
        *(getattr(mtlfast, m, None) for m in ("nn", "optim")),
    ):
        if module is not None:
            assert module.__all__ == sorted(set(module.__all__), key=module.__all__.index)
            assert [n for n in module.__all__ if not hasattr(module, n)] == []


FUNCTIONS = [
    n for n in mtlfast.__all__ if n.endswith(("_reg", "_norm", "_lasso", "_variation", "_prox"))
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_sections(name):
    text = inspect.getdoc(getattr(mtlfast, name))
    sections = (".. math::", "Args:", "Returns:", "Raises:", "Cost", "Determinis", "Example:")
    missing = [s for s in (*sections, "Source:", ">>> ") if s not in text]
    assert not missing


@pytest.mark.parametrize("name", mtlfast.__all__)
def test_public_names_are_documented(name):
    assert inspect.getdoc(getattr(mtlfast, name))


@pytest.mark.parametrize("name", linear_model.__all__)
def test_public_names_of_the_linear_models_are_documented(name):
    text = inspect.getdoc(getattr(linear_model, name))
    assert text
    if not name.endswith("Warning"):
        assert [s for s in ("Args:", "Raises", ">>> ") if s not in text] == []


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_package_is_silent(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: assert is no check"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path}:{node.lineno}"


@pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_instruction_sets_share_no_function():
    """An inline function outside an ISA's namespace would be merged by the linker: the survivor may
    be the AVX-512 one, and the baseline would crash on an old machine (a breach of the ODR)."""
    objects = sorted((ROOT / "build").glob("temp*/mtlfast/*.x86_64_v4.o"))
    if not objects:
        pytest.skip("no object files of a build in place")
    for path in objects:
        listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            match = re.match(r"[0-9a-f]+ ([WVu]) (.*)", line)
            if match and not match[2].startswith("DW.ref."):  # a pointer of the C++ runtime
                assert "7mtlfast9x86_64_v4" in match[2], f"{path.name}: {line}"
