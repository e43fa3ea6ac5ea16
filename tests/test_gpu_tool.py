"""The command for a machine with a GPU, tried without one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cuda_jobs
import pytest
import torch

from mtlfast._ops import _registry

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments):
    return subprocess.run(
        [sys.executable, "tools/gpu.py", *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_tool", ROOT / "tools" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    done = run()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("gpu: torch sees no CUDA device")
    assert len(done.stderr.splitlines()) == 1


def test_the_exercise_calls_every_kernel(gpu, capsys):
    gpu.exercise("cpu")
    said = capsys.readouterr().out
    assert all(name in said for name in _registry.CUDA if name not in NOT_CALLED)


# what the public functions call on the CPU alone
NOT_CALLED = {"pairwise_value_grad"}


def test_every_kernel_is_in_a_job():
    called = {op for name in cuda_jobs.JOBS for op in cuda_jobs.make(name, "cpu", K=7, d=3).ops}
    assert set(_registry.CUDA) - NOT_CALLED <= called


def test_a_step_that_fails_does_not_stop_the_others(gpu, monkeypatch, capsys):
    def broken(args):
        raise OSError("no nvcc")

    steps = {"build": broken, "test": lambda args: False, "sanitize": lambda args: True}
    monkeypatch.setattr(gpu, "RUNS", steps)
    with pytest.raises(SystemExit, match="gpu: failed: build, test"):
        gpu.main(["--device", "cpu", "--only", "build,test,sanitize"])
    said = capsys.readouterr().out
    assert "OSError: no nvcc" in said
    assert "== sanitize: ok" in said


def test_an_unknown_step_is_refused(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--only", "build,tset"])
    assert "--only takes build, test, sanitize, time, got build,tset" in capsys.readouterr().err


def test_processes_side_by_side(gpu, capsys):
    environment = gpu.environment()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    commands = [
        ("good", [sys.executable, "-c", "print(7)"], environment),
        ("bad", [sys.executable, "-c", "raise SystemExit(3)"], environment),
        ("long", sleep, environment),
    ]
    assert gpu.run_all(commands[:1], 20)
    assert not gpu.run_all(commands, 2)
    said = capsys.readouterr().out
    assert "-- good: ok\n7" in said
    assert "-- bad: exit status 3" in said
    assert "-- long: stopped after 2 s" in said
