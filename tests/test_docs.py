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
    f"mtlfast.{path.stem}" for path in (ROOT / "mtlfast").glob("*.py") if path.stem != "__init__"
)
README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_readme_has_examples():
    assert BLOCKS


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block(number, tmp_path):
    """Each block runs after those before it, as a reader would paste them, away from the source."""
    code = BLOCKS[number]
    if ">>>" in code:
        test = doctest.DocTestParser().get_doctest(code, {}, f"README {number}", "README.md", 0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        assert runner.run(test).failed == 0
        return
    script = "\n".join(block for block in BLOCKS[: number + 1] if ">>>" not in block)
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for line, printed in re.findall(r"^(print\(.*\))  # → (.*)$", code, re.MULTILINE):
        assert printed in run.stdout, line
