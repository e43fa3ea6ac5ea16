"""The reference path: the same values, classes and texts as the native one, and said once."""

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cases
import pytest
import torch
from cases import CASES, DTYPES, assert_right, value_and_grads

import mtlfast

ROOT = Path(__file__).resolve().parent.parent
every_case = pytest.mark.parametrize("case", CASES, ids=cases.names)


def without_native(*command):
    """Runs Python with the compiled module switched off."""
    environment = os.environ | {
        "MTLFAST_DISABLE_NATIVE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=600,
    )


@pytest.fixture
def reference_only(monkeypatch):
    """Every public function takes the branch of the reference."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mtlfast.") and hasattr(module, "needs_reference"):
            monkeypatch.setattr(module, "needs_reference", lambda *tensors: True)


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("K, d", [(0, 3), (1, 2), (2, 0), (3, 31), (33, 33), (257, 33)])
def test_reference_branch_holds_the_gates(case, dtype, K, d, reference_only):
    assert_right(case, case.tensors(K, d, dtype))


@every_case
def test_reference_branch_under_autocast(case, reference_only):
    tensors = case.tensors(20, 7, torch.float32)
    want = value_and_grads(case, tensors)
    with torch.autocast("cpu", torch.bfloat16):
        got = value_and_grads(case, tensors)
    assert torch.equal(got[0], want[0])
    assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))


def test_values_and_errors_without_the_native_module():
    """The ops' own fallback: the same tests, run again in a process that has no native module."""
    run = without_native(
        *("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
        *("-W", "ignore::mtlfast.FallbackWarning", "tests/test_errors.py"),
        *("tests/test_contracts_values.py", "tests/test_contracts_inputs.py"),
        *("-k", "not 1000 and not 300 and not 257 and not views and not nearly and not tight"),
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout


def test_the_fallback_is_said_exactly_once():
    script = """
        import warnings
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            import cases
            assert not said, "import must not warn"
            for _ in range(2):
                for case in cases.CASES:
                    cases.value_and_grads(case, case.tensors(5, 3))
        import mtlfast
        ours = [w for w in said if w.category is mtlfast.FallbackWarning]
        print(len(ours), ours[0].message)
    """
    run = without_native("-c", textwrap.dedent(script))
    assert run.returncode == 0, run.stderr[-3000:]
    count, _, text = run.stdout.partition(" ")
    assert count == "1"
    assert "MTLFAST_DISABLE_NATIVE is set" in text
    assert "correct but slower" in text


def test_the_fallback_warning_is_an_error_here():
    """pyproject.toml turns it into one, so no test of this run took the reference unnoticed."""
    import mtlfast

    with pytest.raises(mtlfast.FallbackWarning):
        import warnings

        warnings.warn("reference", mtlfast.FallbackWarning, stacklevel=1)


def test_other_devices_take_the_reference(recwarn, monkeypatch):
    """The op of a device without kernels is the reference: shapes and types through meta."""
    import mtlfast

    W = torch.empty(5, 3, device="meta", dtype=torch.bfloat16)
    assert mtlfast.pairwise_reg(W).device.type == "meta"
    assert mtlfast.pairwise_reg(W).dtype == torch.float32


def test_a_source_tree_that_is_not_installed_has_a_configuration(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert mtlfast.build_info()["version"] == "unknown"
    assert mtlfast.show_config().startswith("mtlfast unknown, torch ")
