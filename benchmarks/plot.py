"""Draws the README's figure, pairwise.png, from results/curves.json."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
COLORS = {
    "mtlfast": "tab:orange",
    "eager expanded": "tab:blue",
    "eager centred": "tab:green",
    "double loop": "tab:gray",
}


def curves(axes, data):
    for name, points in data.items():
        x, y = zip(*points, strict=True)
        axes.loglog(x, y, "o-", color=COLORS[name], label=name, markersize=4)
    axes.grid(alpha=0.3)
    axes.legend()


def main():
    data = json.loads((RESULTS / "curves.json").read_text())
    machine = data["machine"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    curves(left, data["seconds"])
    left.set_xlabel("tasks K")
    left.set_ylabel("seconds, value + gradient")
    left.set_title(f"pairwise, d = {data['dim']}, float32, {machine['threads']} threads")
    curves(right, data["error"])
    right.invert_xaxis()
    right.set_xlabel("spread of the tasks, relative to their mean")
    right.set_ylabel("largest relative error of the value")
    right.set_title(f"{data['error_tasks']:,} tasks that nearly agree, float32")
    figure.suptitle(f"{machine['cpu']}, {machine['config'][0]}", fontsize=9)
    figure.savefig(RESULTS / "pairwise.png", dpi=110)


if __name__ == "__main__":
    main()
