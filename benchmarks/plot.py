"""Draws the README's figure and writes the table of ratios from the JSON of run.py."""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
COLORS = {
    "mtlfast": "tab:orange",
    "floor": "black",
    "eager expanded": "tab:blue",
    "eager centred": "tab:green",
    "torch.compile expanded": "tab:purple",
    "torch.compile centred": "tab:pink",
    "cdist²": "tab:brown",
    "double loop": "tab:gray",
}


def curves(axes, data, **style):
    for name, points in data.items():
        x, y = zip(*points, strict=True)
        line = "--" if name == "floor" else "o-"
        axes.loglog(x, y, line, color=COLORS[name], label=name, markersize=3, **style)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def figure(data, target):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    machine = data["machine"]
    drawn, (time, memory, error) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    curves(time, data["time"])
    time.set_xlabel("tasks K")
    time.set_ylabel("seconds")
    time.set_title(f"pairwise value + gradient, d = 64, float32, {machine['threads']} threads")
    positive = {
        name: [(x, max(y, 0.01)) for x, y in points] for name, points in data["memory"].items()
    }
    curves(memory, positive)
    memory.set_xlabel("tasks K")
    memory.set_ylabel("MiB on top of W")
    memory.set_title("peak memory of the same, gradient included")
    curves(error, data["error"])
    error.invert_xaxis()
    error.set_xlabel("spread of the tasks, relative to their mean")
    error.set_ylabel("largest relative error of the value")
    error.set_title("1,000 tasks that nearly agree, float32")
    drawn.suptitle(f"{machine['cpu']}, torch {machine['torch']}", fontsize=9)
    drawn.savefig(target, dpi=110)


def number(x):
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def rows(data):
    """One row a case: our time, every ratio, and whether what was asked for is met."""
    for found in data["cases"].values():
        if "failed" in found:
            yield "?", "", found["failed"], "", "no"
            continue
        wanted, ratio = found["wanted"], found["ratio"]
        others = [
            f"{name} {number(r)}×" + (f" (≥ {wanted[name]:g})" if name in wanted else "")
            for name, r in ratio.items()
            if name != "floor"
        ]
        misses = [n for n, least in wanted.items() if ratio.get(n, 0) < least]
        floor = ""
        if "times the floor" in found:
            floor = f"{found['times the floor']:.2f}"
            if found["wanted floor"]:
                floor += f" (≤ {found['wanted floor']:g})"
                if found["times the floor"] > found["wanted floor"]:
                    misses.append("floor")
        memory = ", ".join(
            f"{way} {number(mib) if not isinstance(mib, str) else mib}"
            for way, mib in found.get("MiB", {}).items()
        )
        most = found.get("wanted MiB")
        if most and not found["MiB"]["mtlfast"] < most:
            misses.append("memory")
        asked = wanted or found.get("wanted floor") or most
        met = ("no: " + ", ".join(misses) if misses else "yes") if asked else ""
        ours = f"{found['median']['mtlfast'] * 1e3:.4g}"
        yield f"{found['group']}, {found['size']}", ours, "; ".join(others), floor, memory, met


def table(data):
    machine = data["machine"]
    lines = [
        "# Measured ratios",
        "",
        "Written by `python benchmarks/run.py` from `results.json`; do not edit.",
        "",
        f"{machine['cpu']}, {machine['memory GiB']} GiB, {machine['config'][1].strip()}, torch "
        f"{machine['torch']}, {machine['threads']} threads, float32; commits in results.json. "
        "Times are medians of rounds in which all ways take turns. A ratio is the other's time "
        "divided by mtlfast's; in brackets what was aimed at.",
        "",
        "| job | mtlfast, ms | the others | times the floor | peak MiB | met |",
        "|---|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows(data)]
    lines += ["", "| call at K=3, d=16 | µs |", "|---|---|"]
    lines += [f"| {name} | {t:.1f} |" for name, t in data.get("overhead µs", {}).items()]
    lines += ["", "| same bits for 1 and 2 threads | |", "|---|---|"]
    lines += [f"| {name} | {'yes' if y else 'no'} |" for name, y in data["same bits"].items()]
    lines += ["", "Preparing the graph of nearest neighbours, seconds: " + ", ".join(
        f"{name} {value:.3g}" for name, value in data["preparing"].items()) + "."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(source=RESULTS / "results.json"):
    data = json.loads(source.read_text())
    (source.parent / "TABLE.md").write_text(table(data))
    figure(data, source.parent / "pairwise.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
