"""The CUDA kernels on the host under AddressSanitizer, UBSan and ThreadSanitizer."""

import pytest
from cuda_shim import build, planted_bugs

pytestmark = pytest.mark.skipif(bool(build.why_not()), reason=build.why_not())


@pytest.mark.parametrize(
    ("sanitize", "table"),
    [("address,undefined", planted_bugs.BUGS), ("thread", planted_bugs.RACES)],
    ids=["address", "thread"],
)
def test_sanitizers_and_planted_bugs(sanitize, table, tmp_path):
    """The sanitizers have nothing to say, unless a bug is planted."""
    csrc, flags = planted_bugs.plant(build.ROOT / "csrc", tmp_path, table)
    done = build.run_sanitized(build.build(tmp_path, csrc, sanitize, flags), sanitize)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-5000:]
    assert lines[-1] == "finished"
    assert len(lines) == len(table) + 1
    assert "UNNOTICED" not in done.stdout, done.stdout
