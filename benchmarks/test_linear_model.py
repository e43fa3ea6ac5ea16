"""The benchmark of joint fits runs, and what it writes down is what was reached."""

import linear_model
import pytest
import torch


@pytest.mark.parametrize("name", linear_model.JOBS)
def test_a_tiny_job_reaches_its_optimum(name):
    for row in linear_model.JOBS[name](tiny=True):
        if "skipped" in row:
            pytest.skip(row["skipped"])
        assert row["seconds"] > 0 and 0 <= row["gap"] <= 1e-6
        assert row.get("residual", 0) <= 1.01e-6
        assert abs(row.get("above the minimum", 0)) <= 1.1e-8


def test_the_loss_from_the_rows():
    X, task = torch.randn(50, 3, dtype=torch.float64), torch.arange(50) % 4
    y = torch.randn(50, dtype=torch.float64)
    W = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = 0.5 * ((X * W[task]).sum(1) - y).square().sum()
    loss.backward()
    found, gradient = linear_model.squares(X, y, task, W.detach())
    assert found == pytest.approx(loss.item())
    torch.testing.assert_close(gradient, W.grad)


def test_a_wrong_objective_is_not_written_down():
    class Model:
        objective_ = 2.0

    with pytest.raises(RuntimeError, match="from the rows it is 1"):
        linear_model.row(Model(), 0.1, 1.0)


def test_the_command_line(capsys):
    rows = linear_model.main(["--tiny", "--only", "graph quadratic"])
    assert len(rows) == 1 and rows[0]["peak GiB"] > 0
    assert "graph quadratic, K = 200" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        linear_model.main(["--only", "nothing"])
