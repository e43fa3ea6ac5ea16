"""The GPU's benchmarks without one: they run on CPU tensors and say what was met."""

import json

import pytest
import run_gpu
import torch
from timing import Job


def test_tiny_cases_run_and_are_written(tmp_path, capsys):
    run_gpu.main(["--device", "cpu", "--tiny", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert found["copy GB/s"] > 0
    groups = {name.split(" tiny")[0] for name in found["cases"]}
    assert len(groups) == len(list(run_gpu.tiny("cpu"))) == 4
    for case in found["cases"].values():
        assert case["median"]["mtlfast"] > 0
        assert set(case["wanted"]) <= {*case["ratio"], "torch.compile expanded"}
    written = (tmp_path / "cpu.txt").read_text().splitlines()
    assert set(written) <= set(capsys.readouterr().out.splitlines())


def test_cases_and_tiny_ones_are_of_the_same_groups():
    cases, tiny = list(run_gpu.cases("cpu")), list(run_gpu.tiny("cpu"))
    assert {case.group for case in cases} == {case.group for case in tiny}
    assert len({case.name for case in cases}) == len(cases) == 12
    assert [case.name for case in cases if case.floor] == [
        *(f"pairwise value + gradient {n}×64 {t}" for n in ("1,048,576", "4,194,304")
          for t in ("float32", "bfloat16")),
        "graph value + gradient 1,000,000 tasks, 10,000,000 edges, d=64",
    ]  # fmt: skip


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")


def job():
    one = torch.ones(3)
    ways = {
        "mtlfast": lambda: one,
        "slow": lambda: one * 1,
        "wrong": lambda: 2 * one,
        "large": out_of_memory,
    }
    return Job(ways, bytes=24)


def fixed_seconds(call, repeats):
    """A clock that gives each way of the job above a time of its own."""
    return 1e-3 if torch.equal(call(), torch.ones(3)) and "<lambda>" in repr(call) else 0.0


def test_a_rival_that_differs_is_a_failure_and_one_that_cannot_run_is_none():
    kept, absent, wrong = run_gpu.sort_out(job())
    assert list(kept.ways) == ["mtlfast", "slow"]
    assert absent == {"large": "CUDA out of memory."}
    assert "wrong differs from mtlfast" in wrong["wrong"]


def test_what_was_met_and_missed():
    case = run_gpu.Case("job", "3", job, {"slow": 0.5, "other": 2}, floor=1.25)
    found = run_gpu.run_case(case, fixed_seconds, 0.01, speed=24e3)
    text = "\n".join(run_gpu.report_of(case.name, found))
    assert "job 3: 1 ms" in text
    assert "100.0% of the floor's speed (≥ 0.8: met)" in text
    assert "slow 1× (≥ 0.5: met)" in text
    assert "large cannot run: CUDA out of memory." in text
    assert "wrong is WRONG" in text
    assert run_gpu.failures({"cases": {"job": found}}) == ["job"]
    assert run_gpu.verdict(1.0, 2) == "(≥ 2: MISSED)"


def test_a_case_that_fails_does_not_stop_the_others(capsys):
    def broken():
        raise RuntimeError("no device")

    cases = [
        run_gpu.Case("broken", "3", broken),
        next(run_gpu.trace_norm_cases([(2, 3, 2, 1)], "cpu")),
    ]
    result, lines = run_gpu.run(cases, "cpu", run_gpu.host_seconds, 0.01, 100)
    assert run_gpu.failures(result) == ["broken 3"]
    assert "broken 3: FAILED, RuntimeError: no device" in lines
    assert "linalg.svd" in lines[-2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(SystemExit, match="torch sees no CUDA device"):
        run_gpu.main([])
