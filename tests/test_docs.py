"""What the documentation shows is what happens: docstring examples and README blocks run."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join([*folder.split("/"), path.stem])
    for folder in ("mtlfast", "mtlfast/nn", "mtlfast/linear_model")
    for path in (ROOT / folder).glob("*.py")
    if path.stem != "__init__"
)
README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
FENCE = r"^```python\n(.*?)^```\n(?:\n^```\n(.*?)^```)?"  # code, and what it prints where shown
BLOCKS = re.findall(FENCE, README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_readme_has_examples():
    assert BLOCKS


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block(number, tmp_path):
    """Each block runs by itself, away from the source, and prints what is shown below it."""
    code, printed = BLOCKS[number]
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert not printed or run.stdout == printed
