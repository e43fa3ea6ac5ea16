"""The checklist of CONTRIBUTING.md is complete: a throw-away regularizer is added from it.

It goes into a copy of the tree, place by place in the order of the first table, and the contracts
and the tests that look for forgotten places run there. A place that the table has and this file
does not, or the other way round, is an error.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAME = "quartic"  # Σ w⁴
FOLDERS = ["mtlfast", "tests", "benchmarks", "docs", "examples", "csrc", ".github"]
FILES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"]
FILES += ["pyproject.toml", "constraints.txt", "Makefile"]

REFERENCE = '''"""The sum of fourth powers of W."""

from mtlfast.reference._base import plain, real


@plain
def quartic_reg(w):
    """Σ w⁴."""
    return real(w).square().square().sum()
'''

PUBLIC = '''"""The sum of fourth powers of W."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mtlfast import reference
from mtlfast._checks import as_rows

if TYPE_CHECKING:
    from mtlfast._typing import Rows


def quartic_reg(W: Rows) -> torch.Tensor:
    r"""Sum of the fourth powers of W.

    .. math:: R(W) = \\sum_{i,j} w_{ij}^4

    Args:
        W: as in :func:`mtlfast.pairwise_reg`.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: as :func:`mtlfast.pairwise_reg`.

    Cost: that of torch's calls. Deterministic: on every run.

    Example:
        >>> import torch
        >>> from mtlfast import quartic_reg
        >>> quartic_reg(torch.tensor([[1.0], [2.0]]))
        tensor(17.)

    Source: this test.
    """
    return reference.quartic_reg(as_rows("quartic_reg", W))
'''

MODULE = '''

class Quartic(Regularizer):
    """``strength · Σ w⁴``, see :func:`mtlfast.quartic_reg`."""

    if TYPE_CHECKING:

        def __call__(self, W: Rows) -> torch.Tensor: ...

    def forward(self, W: Rows) -> torch.Tensor:
        return self.strength * quartic_reg(W)
'''

ORACLE = '''

def quartic_reg(upstream, w):
    """Σ w⁴."""
    return relative(np.sum(w**4), upstream * 4 * w**3)
'''

CASE = """CASES = [
    Case(
        "quartic_reg", mtlfast.quartic_reg, oracles.quartic_reg, value_gate=32, grad_gate=16,
        degree=4, order_free=False, fixed_bits=False,
    ),
"""

TEST = '''"""What is special about the sum of fourth powers."""

from mtlfast import quartic_reg
from mtlfast.nn import Quartic


def test_the_module_is_the_function_times_its_strength(request):
    import torch

    W = torch.randn(3, 2)
    assert torch.equal(Quartic(2.0)(W), 2.0 * quartic_reg(W))
'''

JOB = '''"""Jobs of the sum of fourth powers."""

from jobs_pairwise import tasks
from timing import Job, gradient_of

from mtlfast import quartic_reg


def value_and_gradient(num_tasks, dim):
    W = tasks(num_tasks, dim).requires_grad_()
    ways = {"mtlfast": quartic_reg, "eager": lambda W: W.pow(4).sum()}
    return Job({name: gradient_of(lambda way=way: way(W), W) for name, way in ways.items()})
'''


def new(text):
    return lambda old: text


def after(mark, text):
    """Adds a text behind the one place where a mark stands."""

    def edit(old):
        assert old.count(mark) == 1, mark
        return old.replace(mark, mark + text)

    return edit


def at_the_end(text):
    return lambda old: old.rstrip("\n") + "\n" + text


def both(*edits):
    def edit(old):
        for one in edits:
            old = one(old)
        return old

    return edit


IMPORT = "from mtlfast.ridge import "
TINY_JOB = '    Case("quartic", "tiny", lambda: jobs_quartic.value_and_gradient(12, 5)),\n'
REAL_JOB = (
    'CASES.append(Case("quartic", "1,000×64", lambda: jobs_quartic.value_and_gradient(1000, 64)))\n'
)

EDITS = {
    "mtlfast/reference/<name>.py": new(REFERENCE),
    "mtlfast/reference/__init__.py": at_the_end(
        "from mtlfast.reference.quartic import quartic_reg  # noqa: E402, F401\n"
    ),
    "tests/oracles.py": at_the_end(ORACLE),
    "tests/cases.py": lambda old: old.replace("CASES = [\n", CASE, 1),
    "mtlfast/<name>.py": new(PUBLIC),
    "mtlfast/__init__.py": both(
        lambda old: old.replace(IMPORT, f"from mtlfast.quartic import quartic_reg\n{IMPORT}", 1),
        after('    "pairwise_reg",\n', '    "quartic_reg",\n'),
    ),
    "mtlfast/nn/_terms.py": both(
        lambda old: old.replace(IMPORT, f"from mtlfast.quartic import quartic_reg\n{IMPORT}", 1),
        at_the_end(MODULE),
    ),
    "mtlfast/nn/__init__.py": both(
        after("from mtlfast.nn._terms import ", "Quartic, "),
        after('    "Quadratic",\n', '    "Quartic",\n'),
    ),
    "tests/test_architecture.py": after('{"task_linear", ', '"quartic", '),
    "tests/bad_inputs.py": both(
        after("    pairwise_reg,\n    ridge_prox,\n", "    quartic_reg,\n"),
        after("    return {\n", '        "quartic_reg": [(quartic_reg, w_rows())],\n'),
    ),
    "tests/test_loading.py": both(
        after("    PairwiseReg,\n", "    Quartic,\n"),
        after("    Ridge(0.7),\n", "    Quartic(0.8),\n"),
    ),
    "tests/typing/program.py": after(
        "    value = mtlfast.pairwise_reg(W)\n",
        "    value = value + mtlfast.quartic_reg(heads) + nn.Quartic(0.1)(W)\n",
    ),
    "tests/test_<name>.py": new(TEST),
    "benchmarks/jobs_<name>.py": new(JOB),
    "benchmarks/jobs.py": both(
        after("import jobs_quadratic\n", "import jobs_quartic\n"),
        after("TINY = [\n", TINY_JOB),
        at_the_end(REAL_JOB),
    ),
    "docs/api/functions.md": at_the_end(
        "\n## Quartic\n\n```{eval-rst}\n.. autofunction:: quartic_reg\n```\n"
    ),
    "docs/terms.md": at_the_end("\n## Quartic\n\nΣ w⁴. {py:func}`mtlfast.quartic_reg`.\n"),
    "README.md": after("| term | it wants | function |\n|---|---|---|\n", "| quartic | – | – |\n"),
    "CHANGELOG.md": at_the_end("- `quartic_reg`.\n"),
}


def checklist():
    """The places of the first table of the section, in their order."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding a regularizer\n")[2]
    table = re.search(r"^\|.*?(?=^\n)", text, re.MULTILINE | re.DOTALL)[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def test_the_checklist_has_the_places_of_this_file():
    assert checklist() == list(EDITS)


def test_places_of_kernels_exist():
    """Those of the other tables, but for what a new kernel is to bring."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding a regularizer\n")[2]
    rows = re.findall(r"^\| (`.*?) \|", text.partition("\n## ")[0], re.MULTILINE)
    places = [place for row in rows for place in re.findall(r"`([^`]+)`", row)]
    assert len(places) > len(EDITS)
    for place in places:
        path = ROOT / place.replace("<name>", "trace_norm")
        assert path.is_file() or place == "benchmarks/jobs_<name>.py", place


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checklist")
    for name in FOLDERS:
        skipped = shutil.ignore_patterns("__pycache__", "drawn", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for place in checklist():
        path = folder / place.replace("<name>", NAME)
        assert path.exists() != ("<name>" in place), place
        path.write_text(EDITS[place](path.read_text() if path.exists() else ""))
    return folder


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTEST_ADDOPTS": ""},
        timeout=600,
    )


def test_the_contracts_run_over_a_term_from_the_checklist(copy):
    contracts = [f"tests/test_contracts_{part}.py" for part in ("values", "inputs", "bits")]
    contracts += ["tests/test_contracts_properties.py", "tests/test_errors.py"]
    ran = run(copy, *contracts, "-k", "quartic or every_public")
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) > 20


def test_what_looks_for_forgotten_places_is_content(copy):
    names = "layer or arrows or docstring or documented or resolves or public or quartic or Quartic"
    ran = run(
        copy,
        *("tests/test_architecture.py", "tests/test_docs.py", "tests/test_loading.py"),
        "tests/test_typing.py",
        *("tests/test_quartic.py", "benchmarks/test_benchmarks.py", "-k", names),
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) > 100


NOTICED = {
    "tests/bad_inputs.py": "tests/test_errors.py::test_every_public_function_is_in_the_table",
    "tests/test_architecture.py": "tests/test_architecture.py::test_every_module_has_a_layer",
    "tests/test_loading.py": "tests/test_loading.py::test_every_public_module_is_tried",
    "tests/typing/program.py": "tests/test_typing.py::test_every_public_object_is_in_the_program",
    "docs/api/functions.md": "tests/test_docs.py::test_every_public_name_is_on_a_page_of_the_api",
}


def test_forgotten_places_are_noticed(copy):
    """Run last: it takes these places back."""
    for place in NOTICED:
        (copy / place).write_text((ROOT / place).read_text())
    ran = run(copy, *NOTICED.values())
    failed = re.findall(r"^FAILED (\S+)", ran.stdout, re.MULTILINE)
    assert sorted(failed) == sorted(NOTICED.values()), ran.stdout[-3000:]
    assert "quartic" in ran.stdout and "Quartic" in ran.stdout
