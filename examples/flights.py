"""How long is a flight in the air? One task per aircraft, about 3,000 tasks, few rows each.

A shared layer turns what is known before take-off into hidden features; each aircraft has a linear
head of its own on top. Ten percent of an aircraft's flights, often fewer than ten rows, are too few
to learn a head alone, and one head for all ignores that aircraft differ. The regularizers of
mtlfast sit between: heads near each other (pairwise), near those of the same aircraft model
(graph), both, or of low rank (trace norm).

Every method starts from the same pooled model and gets the same number of steps; its strength is
the one with the lowest error on the validation rows. The test rows are looked at once, at the end.
Rows marked "exact" keep the layer of the pooled model, and fit all heads on it to the optimum.
"""

import argparse
import itertools
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import flights_data
import torch
from flights_report import Outcome, plot, table
from torch import nn
from tqdm import tqdm

from mtlfast import TaskGraph
from mtlfast.linear_model import MultiTaskRegressor
from mtlfast.nn import GraphReg, PairwiseReg, Regularizer, TraceNorm


class SharedLayerAndHeads(nn.Module):
    """y = w_k · [tanh features, 1] for task k, with w_k = common + deviation_k.

    Only the w_k are regularized and reported. Writing them as a sum changes no objective, but lets
    the optimiser move all heads at once.
    """

    def __init__(self, num_features, num_hidden, num_tasks):
        super().__init__()
        self.layer = nn.Linear(num_features, num_hidden)
        self.scale = nn.BatchNorm1d(num_hidden, affine=False, momentum=1.0)  # heads see unit scale
        self.common = nn.Parameter(torch.zeros(num_hidden + 1))
        self.deviation = nn.Parameter(torch.zeros(num_tasks, num_hidden + 1))

    def heads(self):
        return self.common + self.deviation  # [K, hidden + 1]

    def forward(self, x, task, heads):
        hidden = self.scale(torch.tanh(self.layer(x)))
        w = heads.index_select(0, task)
        return (hidden * w[:, :-1]).sum(1) + w[:, -1]


@dataclass(frozen=True)
class Method:
    """A row of the table: how to build the regularizer, and the strengths to choose from."""

    name: str
    regularizer: object  # strengths → a function of the heads; None: no heads, all rows one task
    strengths: tuple = ((),)
    pairs: object = None  # which pairs of heads the naive double loop would visit: [2, P]


def ridge(strength):
    """Each head near zero: the heads share nothing but the layer below."""
    return lambda heads: strength * heads.square().sum(1).mean()


def pairwise(strength):
    return PairwiseReg(strength, reduction="mean")


def graph(models, strength):
    return GraphReg(models, strength, reduction="mean")


def pairwise_and_graph(models, pair_strength, graph_strength):
    return pairwise(pair_strength) + graph(models, graph_strength)


def methods(labels, quick):
    """All rows of the table, in its order."""
    models = TaskGraph.groups(labels)
    everyone = torch.triu_indices(len(labels), len(labels), 1)
    same_model = everyone[:, labels[everyone[0]] == labels[everyone[1]]]

    def grid(*choices):
        choices = [values[:1] for values in choices] if quick else choices
        return tuple(itertools.product(*choices))

    return [
        Method("independent", ridge, grid((1, 1e-2, 1e-1, 10))),
        Method("pooled", None),
        Method("pairwise", pairwise, grid((30, 3, 10, 100)), everyone),
        Method("graph", partial(graph, models), grid((100, 10, 30, 300, 1000)), same_model),
        Method(
            "pairwise + graph",
            partial(pairwise_and_graph, models),
            grid((0.1, 0.03, 0.3, 1), (100, 30, 300, 1000)),
            torch.cat([everyone, same_model], dim=1),
        ),
        Method("trace norm", TraceNorm, grid((1e-3, 1e-4, 1e-2))),
    ]


def rmse(model, rows, task, minutes):
    """Root mean squared error in minutes."""
    model.eval()
    with torch.no_grad():
        error = model(rows.x, task, model.heads()) - rows.y
    model.train()
    return error.square().mean().sqrt().item() * minutes


def objective(model, rows, task, regularizer=None):
    heads = model.heads()
    loss = (model(rows.x, task, heads) - rows.y).square().mean()
    return loss if regularizer is None else loss + regularizer(heads)


def pretrain(flights, num_hidden, seed, steps):
    """The pooled model, from random weights: the start of every method."""
    torch.manual_seed(seed)
    rows = flights.train
    model = SharedLayerAndHeads(rows.x.shape[1], num_hidden, 1)
    model.deviation.requires_grad_(False)
    optimizer = torch.optim.LBFGS(
        [p for p in model.parameters() if p.requires_grad],
        max_iter=steps, history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip
    task = torch.zeros_like(rows.task)

    def closure():
        optimizer.zero_grad()
        loss = objective(model, rows, task)
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def train(start, flights, regularizer, steps, pooled=False):
    """Full-batch Adam from the pooled model: one step is one epoch. Returns validation RMSE, test
    RMSE as a function (so that nobody looks early), seconds per epoch and the model."""
    num_tasks = 1 if pooled else flights.num_tasks
    model = SharedLayerAndHeads(start.layer.in_features, start.layer.out_features, num_tasks)
    state = start.state_dict()
    model.load_state_dict({**state, "deviation": state["deviation"].repeat(num_tasks, 1)})
    task = {name: getattr(flights, name).task for name in flights_data.SPLITS}
    if pooled:
        task = {name: torch.zeros_like(t) for name, t in task.items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    began = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        objective(model, flights.train, task["train"], regularizer).backward()
        optimizer.step()
        schedule.step()
    seconds = (time.perf_counter() - began) / steps
    validation = rmse(model, flights.validation, task["validation"], flights.minutes)
    test = partial(rmse, model, flights.test, task["test"], flights.minutes)
    return validation, test, seconds, model


def choose(method, start, flights, steps, progress):
    """Trains with every strength, keeps the best on the validation rows, then tests that one."""
    runs = []
    for strengths in method.strengths:
        progress.set_postfix_str(method.name)
        regularizer = method.regularizer and method.regularizer(*strengths)
        run = train(start, flights, regularizer, steps, pooled=method.regularizer is None)
        runs.append((*run, strengths, regularizer))
        progress.update()
    validation, test, seconds, model, strengths, regularizer = min(runs, key=lambda run: run[0])
    outcome = Outcome(strengths, validation, test(), seconds)
    if isinstance(regularizer, Regularizer):  # not the ridge of independent heads
        heads = model.heads().detach().requires_grad_()
        outcome.regularizer_seconds = value_and_gradient_seconds(regularizer, heads)
        if method.pairs is not None:
            outcome.loop_seconds, outcome.extrapolated = loop_seconds(heads, method.pairs)
    return outcome


def hidden(start, rows):
    """What the heads of the pooled model see, with a constant: float64 ``[N, hidden + 1]``."""
    start.eval()
    with torch.no_grad():
        out = start.scale(torch.tanh(start.layer(rows.x))).double()
    start.train()
    return torch.cat([out, torch.ones(len(out), 1, dtype=out.dtype)], 1)


def choose_exact(method, start, flights, progress):
    """The same choice with heads that are fitted to the optimum on the pooled model's layer.

    The loop minimises a mean of squares plus the regularizer, the solver half of their sum: times
    N/2 a strength says the same.
    """
    x = {name: hidden(start, getattr(flights, name)) for name in flights_data.SPLITS}

    def error(model, name):
        rows = getattr(flights, name)
        missed = model.predict(x[name], rows.task) - rows.y
        return missed.square().mean().sqrt().item() * flights.minutes

    half, runs = len(flights.train.y) / 2, []
    for strengths in method.strengths:
        progress.set_postfix_str(f"{method.name}, exact")
        penalty = method.regularizer(*(half * strength for strength in strengths))
        model = MultiTaskRegressor(penalty, fit_intercept=False, tasks=range(flights.num_tasks))
        began = time.perf_counter()
        model.fit(x["train"], flights.train.y.double(), flights.train.task)
        seconds = time.perf_counter() - began
        runs.append((error(model, "validation"), seconds, model, strengths))
        progress.update()
    validation, seconds, model, strengths = min(runs, key=lambda run: run[0])
    return Outcome(strengths, validation, error(model, "test"), seconds)


def value_and_gradient_seconds(function, heads, repeats=20):
    """Median time of one value and gradient."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        torch.autograd.grad(function(heads), heads)
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def loop_seconds(heads, pairs, at_most=20_000):
    """Time of the textbook loop over pairs, value and gradient, and whether it is extrapolated
    from the first ``at_most`` pairs."""
    rows = [row.detach().requires_grad_() for row in heads]
    began = time.perf_counter()
    total = torch.zeros(())
    for i, j in pairs[:, :at_most].T.tolist():
        total = total + (rows[i] - rows[j]).square().sum()
    total.backward()
    seconds, count = time.perf_counter() - began, pairs.shape[1]
    return seconds * max(1, count / at_most), count > at_most


def parse(argv=None):
    default = Path(__file__).parent / "output" / "flights.png"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smoke run: 300 aircraft, 20 steps")
    parser.add_argument("--seed", type=int, default=0, help="split and initial weights")
    parser.add_argument("--threads", type=int, help="threads for torch and mtlfast")
    parser.add_argument("--hidden", type=int, default=16, help="units of the shared layer")
    parser.add_argument("--steps", type=int, help="training steps of each run (default 150)")
    parser.add_argument("--share", type=float, default=0.1, help="share of rows to train on")
    parser.add_argument("--output", type=Path, default=default, help="where the plot goes")
    options = parser.parse_args(argv)
    options.steps = options.steps or (20 if options.quick else 150)
    if not 0 < options.share < 0.5:
        parser.error(f"--share must be in (0, 0.5), got {options.share}")
    return options


def main(argv=None):
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    flights = flights_data.load(options.seed, options.share, 300 if options.quick else None)
    rows = methods(flights.models, options.quick)
    start = pretrain(flights, options.hidden, options.seed, 20 if options.quick else 300)
    outcomes = {}
    # a graph alone leaves the only aircraft of a model to its few rows: no minimum worth finding
    exact = [method for method in rows if "pairwise" in method.name]
    total = sum(len(method.strengths) for method in rows + exact)
    with tqdm(total=total, unit="run", disable=not sys.stderr.isatty()) as progress:
        for method in rows:
            outcomes[method.name] = choose(method, start, flights, options.steps, progress)
        for method in exact:
            outcomes[f"{method.name}, exact"] = choose_exact(method, start, flights, progress)
    print(f"\n{table(outcomes)}\n")
    print(
        "exact: heads on the pooled model's layer, at the optimum; seconds are of the whole fit\n"
    )
    plot(outcomes, options.output)
    print(f"plot: {options.output}")
    return outcomes


if __name__ == "__main__":
    main()
