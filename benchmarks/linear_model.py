"""Exact joint fits: School against what MALSAR took, and synthetic data from 20,000 tasks on.

    python benchmarks/linear_model.py                   all jobs, about five minutes on two cores
    python benchmarks/linear_model.py --only school     the jobs whose name has a word
    python benchmarks/linear_model.py --tiny            sizes that only show that they run
    python benchmarks/linear_model.py --json            also results/linear_model.json

Times are those of ``fit``: data are read, sorted by task and brought to sufficient statistics in
them. What a fit reached is recomputed here, from the rows, before its time is written down. Each
job runs in a process of its own, whose peak memory is what is printed; data are part of it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from mtlfast import TaskGraph, graph_reg, pairwise_reg, trace_norm
from mtlfast.linear_model import MultiTaskRegressor
from mtlfast.nn import GraphReg, GraphTotalVariation, PairwiseReg, TraceNorm

HERE = Path(__file__).resolve().parent
SCHOOL = HERE.parents[1] / "shared" / "data" / "school.mat"
RHO = (1.0, 10.0, 100.0, 1000.0)
# At ρ = 100: the minimum, and seconds of MALSAR 1.1 in Octave 7.3 for 5,000 iterations.
KNOWN = {"trace norm": (725844.677837, 77.0), "pairwise": (748442.63768, 62.0)}


def squares(X, y, task, W):
    """½ Σ (y − x·w)² and its gradient, task by task, from the rows."""
    loss, gradient = 0.0, torch.zeros_like(W)
    for part in torch.arange(len(y)).split(1 << 20):
        error = (X[part] * W[task[part]]).sum(1) - y[part]
        loss += 0.5 * float(error.square().sum())
        gradient.index_add_(0, task[part], X[part] * error[:, None])
    return loss, gradient


def timed(penalty, X, y, task, repeats=1, **settings):
    """The fitted model and the median seconds of its fit; a warning is an error."""
    seconds = []
    for _ in range(repeats):
        model = MultiTaskRegressor(penalty, fit_intercept=False, **settings)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.fit(X, y, task)
        seconds.append(time.perf_counter() - began)
    return model, statistics.median(seconds)


def row(model, seconds, objective, **more):
    if not np.isclose(model.objective_, objective, rtol=1e-9, atol=0):
        raise RuntimeError(f"objective_ is {model.objective_}, from the rows it is {objective}")
    return {
        "seconds": seconds, "objective": objective, "gap": model.gap_, "steps": int(model.n_iter_),
        "solver": model.solver_, **more,
    }  # fmt: skip


def school(tiny):
    """The trace norm, and ρ ‖W (I − 11ᵀ/K)‖² = PairwiseReg(ρ / (2K)), to 1e-8.

    On one thread: 139 × 28 numbers are too few for two, and LAPACK's would wait for each other.
    """
    if not SCHOOL.is_file():
        return [{"name": "school", "skipped": f"no School data at {SCHOOL}"}]
    from scipy import io

    torch.set_num_threads(1)
    cells = io.loadmat(SCHOOL)
    X = torch.from_numpy(np.concatenate([np.asarray(x, float) for x in cells["X"].ravel()]))
    y = torch.from_numpy(np.concatenate([np.asarray(v, float).ravel() for v in cells["Y"].ravel()]))
    K = cells["X"].size
    counts = torch.tensor([len(x) for x in cells["X"].ravel()])
    task = torch.arange(K).repeat_interleave(counts)
    penalties = {
        "trace norm": lambda rho: TraceNorm(rho),
        "pairwise": lambda rho: PairwiseReg(rho / (2 * K)),
    }
    out = []
    for name, penalty in penalties.items():
        for rho in RHO[2:3] if tiny else RHO:
            model, seconds = timed(
                penalty(rho), X, y, task, repeats=1 if tiny else 3, tol=1e-8, max_iter=100_000
            )
            W = model.coef_
            value = trace_norm(W) * rho if name == "trace norm" else pairwise_reg(W) * rho / (2 * K)
            objective = squares(X, y, task, W)[0] + float(value)
            more = {}
            if rho == 100:
                minimum, theirs = KNOWN[name]
                more = {"above the minimum": objective / minimum - 1, "MALSAR": theirs / seconds}
            out.append({"name": f"school {name} {rho:g}", **row(model, seconds, objective, **more)})
    return out


def synthetic(K, d, rows, seed, steps=None):
    """Rows of K tasks at random places. Parameters vary smoothly with the place, or take one of
    ``steps``² values, a square of the map each."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(K, 2, generator=generator, dtype=torch.float64)
    if steps is None:
        waves = torch.randn(2, d, generator=generator, dtype=torch.float64) * 4
        W = torch.sin(place @ waves + torch.arange(d))
    else:
        square = (place * steps).long()
        values = torch.randn(steps**2, d, generator=generator, dtype=torch.float64)
        W = values[square[:, 0] * steps + square[:, 1]]
    X = torch.randn(K * rows, d, generator=generator, dtype=torch.float64)
    task = torch.arange(K).repeat_interleave(rows)
    y = (X * W[task]).sum(1) + torch.randn(K * rows, generator=generator, dtype=torch.float64)
    return X, y, task, place, W


def distance(found, truth):
    return float((found - truth).norm() / truth.norm())


def quadratic(name, K, d, rows, seed, graph_strength, pair_strength=0.0):
    X, y, task, place, truth = synthetic(K, d, rows, seed)
    began = time.perf_counter()
    graph = TaskGraph.knn(place, min(10, K - 1))
    knn = time.perf_counter() - began
    penalty = [GraphReg(graph, graph_strength)]
    if pair_strength:
        penalty.append(PairwiseReg(pair_strength))
    model, seconds = timed(penalty, X, y, task, tol=1e-6, tasks=range(K))
    W = model.coef_.clone().requires_grad_()
    value = graph_strength * graph_reg(W, graph) + pair_strength * pairwise_reg(W)
    value.backward()
    loss, gradient = squares(X, y, task, model.coef_)
    right = squares(X, y, task, torch.zeros_like(model.coef_))[1]
    return [
        {
            "name": name,
            **row(model, seconds, loss + float(value.detach())),
            "residual": float((gradient + W.grad).norm() / right.norm()),
            "distance to truth": distance(model.coef_, truth),
            "graph seconds": knn,
        }
    ]


def graph_quadratic(tiny):
    """A quadratic penalty on a graph, at the size of the largest problem in the literature."""
    K = 200 if tiny else 23_812
    return quadratic(f"graph quadratic, K = {K:,}, d = 30", K, 30, 50, 0, 1.0)


def pairwise_and_graph(tiny):
    K = 300 if tiny else 100_000
    return quadratic(f"pairwise + graph, K = {K:,}, d = 20", K, 20, 20, 1, 1.0, 0.1 / K)


def million(tiny):
    K = 1_000 if tiny else 1_000_000
    return quadratic(f"pairwise + graph, K = {K:,}, d = 20", K, 20, 10, 2, 1.0, 0.1 / K)


def network_lasso(tiny):
    """Patches of equal tasks. Near the strength with the smallest error edges begin to close, and a
    fit takes many more steps than below."""
    K = 200 if tiny else 23_812
    X, y, task, place, truth = synthetic(K, 30, 50, 3, steps=2 if tiny else 12)
    graph = TaskGraph.knn(place, 10)
    i, j = torch.arange(K).repeat_interleave(graph.row_ptr.diff()), graph.col.long()
    out = []
    for strength in (0.5, 2.0, 4.0):
        penalty = GraphTotalVariation(graph, strength)
        model, seconds = timed(penalty, X, y, task, tol=1e-6, max_iter=20_000, tasks=range(K))
        objective = squares(X, y, task, model.coef_)[0] + float(penalty(model.coef_))
        apart = (model.coef_[i] - model.coef_[j]).norm(dim=1)
        out.append(
            {
                "name": f"network lasso {strength:g}, K = {K:,}, d = 30",
                **row(model, seconds, objective),
                "edges below 0.01": float((apart < 1e-2).double().mean()),
                "distance to truth": distance(model.coef_, truth),
            }
        )
    return out


JOBS = {
    "school": school,
    "graph quadratic": graph_quadratic,
    "network lasso": network_lasso,
    "pairwise + graph": pairwise_and_graph,
    "million": million,
}


def measured(name, tiny, threads):
    """The rows of a job, in this process, with its peak memory."""
    torch.set_num_threads(threads)
    rows = JOBS[name](tiny)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [{**row, "peak GiB": peak} for row in rows]


def in_a_child(name, options):
    command = [sys.executable, __file__, "--child", name, "--threads", str(options.threads)]
    done = subprocess.run(
        command + ["--tiny"] * options.tiny, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return [{"name": name, "failed": f"exit status {done.returncode}"}]
    return json.loads(done.stdout.splitlines()[-1])


def line(row):
    if "seconds" not in row:
        return f"{row['name']:38}  {row.get('skipped') or row['failed']}"
    known = ("name", "seconds", "objective", "gap", "steps", "solver", "peak GiB")
    more = ", ".join(f"{key} {value:.3g}" for key, value in row.items() if key not in known)
    return (
        f"{row['name']:38}{row['seconds']:9.3f}{row['objective']:18.8g}{row['gap']:10.1e}"
        f"{row['steps']:7} {row['solver']:6}{row['peak GiB']:6.2f}   {more}"
    )


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="jobs whose name has this in it")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that they run")
    parser.add_argument("--json", action="store_true", help="write results/linear_model.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=JOBS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.jobs = [name for name in JOBS if options.only in name]
    if not options.jobs:
        parser.error(f"--only must be part of one of {', '.join(JOBS)}, got {options.only}")
    return options


def main(argv=None):
    options = parse(argv)
    if options.child:
        print(json.dumps(measured(options.child, options.tiny, options.threads)))
        return []
    print(f"{'fit':38}{'seconds':>9}{'objective':>18}{'gap':>10}{'steps':>7} solver   GiB")
    rows = []
    for name in options.jobs:
        for row in in_a_child(name, options):
            print(line(row), flush=True)
            rows.append(row)
    if options.json:
        sys.path.insert(0, str(HERE))
        from run import describe

        path = HERE / "results" / "linear_model.json"
        path.write_text(json.dumps({"machine": describe(), "fits": rows}, indent=1) + "\n")
    if any("failed" in row for row in rows):
        sys.exit(1)
    return rows


if __name__ == "__main__":
    main()
