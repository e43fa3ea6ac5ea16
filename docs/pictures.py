"""The pictures of the pages, drawn when the site is built.

What each term does: twelve tasks of two parameters, and where ½‖Z − W‖² + t · R(Z) has its minimum,
which is the term's prox. Plots of examples: from the tables that the pages show, so that a picture
and its table cannot differ.
"""

import re
import sys
from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mtlfast import TaskGraph, nn, relations
from mtlfast.linear_model import MultiTaskRegressor

DOCS = Path(__file__).resolve().parent
GRAY, COLORS = "0.7", ("tab:blue", "tab:orange", "tab:green")
GROUP = torch.arange(12) // 4  # three groups of four tasks
PATH = [(k, k + 1) for k in range(11)]


def twelve_tasks():
    """Three groups of four tasks, [12, 2]; tasks of a group are alike."""
    generator = torch.Generator().manual_seed(4)
    centres = torch.tensor([[1.0, 0.7], [2.4, 1.5], [3.4, 0.4]], dtype=torch.float64)
    noise = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    return centres[GROUP] + 0.28 * noise


def gram_step(W, omega, t, steps=1000, rate=4e-3):
    """The Gram distance has no prox in closed form: its minimum by gradient descent from W."""
    Z, term = W.clone(), nn.GramReg(omega, t)
    for _ in range(steps):
        grad = Z - W
        term.add_grad_(grad, Z)
        Z -= rate * grad
    return Z


def minima(W):
    """For each term: its title, its edges, and where it moves the tasks."""
    chain, groups = TaskGraph.chain(12), TaskGraph.groups(GROUP)
    side = GROUP == 2
    omega = 5.0 * (side[:, None] == side).to(W)  # alike on a side, at right angles to the other
    inside = [(i, j) for i in range(12) for j in range(i) if GROUP[i] == GROUP[j]]
    return {
        "pairwise": ("PairwiseReg", [], nn.PairwiseReg(0.02).prox(W, 1)),
        "graph": ("GraphReg on a chain", PATH, nn.GraphReg(chain, 0.4).prox(W, 1)),
        "groups": ("GraphReg on three groups", inside, nn.GraphReg(groups, 0.3).prox(W, 1)),
        "total_variation": (
            "GraphTotalVariation on a chain",
            PATH,
            nn.GraphTotalVariation(chain, 0.35).prox(W, 1),
        ),
        "gram": ("GramReg, a wanted Gram matrix", [], gram_step(W, omega, 0.05)),
        "ridge": ("Ridge", [], nn.Ridge(0.5).prox(W, 1)),
        "group_lasso": ("GroupLasso", [], nn.GroupLasso(3.6).prox(W, 1)),
        "trace_norm": ("TraceNorm", [], nn.TraceNorm(3.0).prox(W, 1)),
    }


def draw_term(W, title, edges, Z, target):
    figure, ax = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
    ax.axhline(0, color=GRAY, lw=0.6)
    ax.axvline(0, color=GRAY, lw=0.6)
    for i, j in edges:
        ax.plot(*Z[[i, j]].T.tolist(), color=GRAY, lw=0.8, zorder=1)
    for k in range(12):
        color = COLORS[GROUP[k]]
        ax.annotate("", Z[k], W[k], arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.4})
        ax.plot(*W[k], "o", mfc="white", mec=color, ms=5)
        ax.plot(*Z[k], "o", color=color, ms=5, zorder=3)
    ax.set(title=title, xlabel="first parameter", ylabel="second parameter")
    ax.set(xlim=(-0.4, 4.2), ylim=(min(-0.6, Z.min().item() - 0.2), 2.2))
    save(figure, target)


def save(figure, target):
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def printed(page, header):
    """The rows of the printed table of a page under a header line that holds ``header``."""
    text = (DOCS / page).read_text()
    (block,) = (b for b in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) if header in b)
    return [re.split(r"\s{2,}", line.strip()) for line in block.splitlines()[2:]]


def number(text):
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else float("nan")


def draw_flights(target):
    """examples/flights_report.py draws its table, as examples/flights.py has it do."""
    sys.path.insert(0, str(DOCS.parent / "examples"))
    from flights_report import Outcome, plot

    nan, outcomes = float("nan"), {}
    for name, test, _, seconds, ours, loop in printed("gallery.md", "RMSE, min"):
        outcomes[name] = Outcome((), nan, *map(number, (test, seconds, ours, loop)))
    plot(outcomes, target)
    plt.close("all")


def draw_school(target):
    """The errors that examples/school.py prints, with their standard deviations over the splits."""
    rows = printed("gallery.md", "single-task ridge")[::-1]
    figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
    names, means = [row[0] for row in rows], [number(row[1]) for row in rows]
    ax.errorbar(means, names, xerr=[number(row[2]) for row in rows], fmt="o", capsize=3)
    ax.set(xlabel="test RMSE, points: mean and standard deviation of ten splits")
    save(figure, target)


def draw_relations(target):
    """The heat map of ``relations``: what joint fits say about 40 shops in three towns."""
    generator = torch.Generator().manual_seed(0)
    town = torch.arange(40) % 3
    centres = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    slopes = centres[town] + 0.2 * torch.randn(40, 6, generator=generator, dtype=torch.float64)
    shop = torch.arange(600) % 40
    X = torch.randn(600, 6, generator=generator, dtype=torch.float64)
    y = (X * slopes[shop]).sum(1) + torch.randn(600, generator=generator, dtype=torch.float64)
    model = MultiTaskRegressor(nn.TraceNorm(3.0)).fit(X, y, shop)
    figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    relations(model).plot(n_clusters=3, ax=ax)
    save(figure, target)


def draw_all(folder):
    folder.mkdir(exist_ok=True)
    W = twelve_tasks()
    for name, (title, edges, Z) in minima(W).items():
        draw_term(W, title, edges, Z, folder / f"{name}.svg")
    draw_flights(folder / "flights.svg")
    draw_school(folder / "school.svg")
    draw_relations(folder / "relations.svg")
