"""AddressSanitizer and UBSan over every native kernel, and a proof that they would notice.

Builds the package with both sanitizers in a temporary copy and runs every kernel on every
instruction set and dtype: odd sizes, buffers that end where the array ends and begin where no
vector does, hubs, long rows, large groups. A second copy holds one planted bug for each place that
could go wrong; each is switched on by itself, and one that goes unnoticed is a failure.

    python tools/sanitize.py        needs g++, torch, pybind11, ninja, setuptools
"""

import argparse
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from planted_bugs import BUGS, plant

ROOT = Path(__file__).resolve().parent.parent

SIZES = [(1, 1), (2, 3), (3, 17), (5, 64), (17, 33), (65, 2), (33, 65), (300, 5), (3, 2100)]
MATRICES = [(1, 1, 1), (3, 2, 3), (17, 3, 17), (9, 17, 5), (2, 65, 33), (3, 64, 65), (33, 4, 4)]


def all_callers():
    """What calls kernels, of all families in one namespace."""
    from mtlfast import _dtypes, _native

    found = SimpleNamespace(**vars(_dtypes) | vars(_native))
    for path in sorted(Path(_native.__file__).parent.glob("[!_]*.py")):
        module = importlib.import_module(f"mtlfast._native.{path.stem}")
        vars(found).update({k: v for k, v in vars(module).items() if callable(v)})
    return found


def tight(tensor, shift):
    """A contiguous copy that ends with its buffer; it starts ``shift`` elements into it."""
    import torch

    buffer = torch.empty(tensor.numel() + shift, dtype=tensor.dtype)
    return buffer[shift:].view(tensor.shape).copy_(tensor)


def symmetric_csr(num_tasks, real, shift):
    """A graph with a hub, explicit zero weights and an isolated task."""
    import torch

    weight = torch.rand((num_tasks, num_tasks), dtype=real)
    linked = weight < 0.2
    linked[0] = True
    linked |= linked.T.clone()
    linked[-1] = linked[:, -1] = False
    linked.fill_diagonal_(False)
    src, dst = linked.nonzero(as_tuple=True)
    row_ptr = torch.cat([torch.zeros(1, dtype=torch.int64), linked.sum(1).cumsum(0)])
    values = (weight + weight.T)[src, dst]
    values[(src + dst) % 7 == 0] = 0  # in both directions: the prox wants symmetry
    return tight(row_ptr, shift), tight(dst.int(), shift), tight(values, shift)


def run_rows(native, dtype, num_tasks, dim, shift):
    """Every kernel on W [K, d]."""
    import torch

    real = native.real_dtype(dtype)
    w = tight(torch.randn(num_tasks, dim).to(dtype), shift)
    one = torch.ones((), dtype=real)
    _, mean = native.pairwise_value(w)
    for add_mean in (False, True):
        native.pairwise_affine(w, tight(mean, shift), one, 0.5, add_mean)
    native.pairwise_value_grad(w)
    native.pairwise_add_(tight(w, 1 - shift), w, tight(mean, shift), 0.5)
    native.pairwise_shrink_(tight(w, shift), tight(mean, shift), 0.5)
    native.ridge_value(w, 0.5)
    native.ridge_value_grad(w, 0.5)
    native.ridge_scale(w, one, 0.5)
    native.ridge_scale_(tight(w, 1 - shift), 0.5)
    native.ridge_add_(tight(w, 1 - shift), w, 0.5, 0.5)
    lengths = native.column_lengths(w)
    native.column_scale(w, lengths)
    native.column_scale_(tight(w, 1 - shift), lengths)
    native.column_add_(tight(w, 1 - shift), w, lengths)
    row_ptr, col, weight = symmetric_csr(min(num_tasks, 300), real, shift)
    few = tight(w[: row_ptr.numel() - 1], shift)
    a = tight(torch.rand(len(few), len(few), dtype=real), shift)
    src, dst = (tight(torch.randint(len(few), (1500,)), shift) for _ in range(2))
    order = None
    if col.numel():
        order = tight(native.graph_order(row_ptr, col)[0], shift)
        native.graph_reorder(row_ptr, col, weight, order)
    native.graph_add_(tight(few, 1 - shift), few, row_ptr, col, weight, order, 0.5)
    strengths = 0.5, 0.25, 2.0
    for rows in (order, None):
        native.quadratic_value(few, row_ptr, col, weight, rows, *strengths, True)
    native.quadratic_value(few, row_ptr, col, weight, order, 0.5, 0.0, 2.0, False)
    native.quadratic_add_(tight(few, 1 - shift), few, row_ptr, col, weight, order, *strengths, 0.5)
    groups = torch.randperm(num_tasks)
    ptr = torch.tensor([0, 0, num_tasks - num_tasks // 2, num_tasks])
    for scale in (None, one):
        native.graph_value(few, row_ptr, col, weight, None, scale)
        native.graph_value(few, row_ptr, col, weight, order, scale)
        native.dense_graph_value(few, a, scale)
        native.group_value(w, tight(ptr, shift), tight(groups, shift), scale)
    run_edges(native, few, (row_ptr, col, weight), one)
    native.group_prox(w, tight(ptr, shift), tight(groups, shift), 0.1)
    native.edge_distance(few, src, dst)
    native.gram_dense(few, a.to(dtype), True)
    values = tight(torch.rand(1500, dtype=real), shift)
    native.gram_edges(few, src, dst, values, True, True)
    native.gram_edges(few, tight(src.sort().values, shift), dst, values, True, False)
    native.gram_edges(few, src, dst, values, False, True)
    native.dense_distance(few)


def run_edges(native, few, csr, one):
    """What goes along the edges of a graph and is not a sum of squares."""
    native.graph_prox(few, *csr, None, None, 0.1, 1e-9, 1000)
    if len(few) == 1:
        return
    few, csr = tight(few[:-1], 1), (tight(csr[0][:-1], 1), *csr[1:])  # W ends with a linked task
    order = tight(native.graph_order(*csr[:2])[0], 1) if csr[1].numel() else None
    for scale in (None, one):
        native.graph_total_variation_value(few, *csr, None, scale)
        native.graph_total_variation_value(1e30 * few, *csr, order, scale)
    native.graph_total_variation_add_(tight(few, 1), few, *csr, order, 0.5)


def run_prox(native, dtype, shift):
    """graph_prox by iterations, and by elimination where they fail: a long chain, and a core."""
    import torch

    torch.manual_seed(0)
    for num_tasks, extra, decades in ((2100, 0, 0), (400, 700, 24)):
        src = torch.cat([torch.arange(num_tasks - 2), torch.randint(num_tasks - 1, (extra,))])
        dst = torch.cat([torch.arange(1, num_tasks - 1), torch.randint(num_tasks - 1, (extra,))])
        size = 10 ** (decades * (torch.rand(src.numel(), dtype=torch.float64) - 0.5))
        a = torch.sparse_coo_tensor(torch.stack([src, dst]), size, (num_tasks, num_tasks))
        csr = (a + a.T).coalesce().to_sparse_csr()
        parts = csr.crow_indices(), csr.col_indices().int(), csr.values()
        graph = [tight(part, shift) for part in parts]
        w = tight(torch.randn(num_tasks, 5).to(dtype), shift)
        for step in (0.01, 1e6):
            native.graph_prox(w, *graph, None, None, step, 1e-9, 1000)


def run_pairs(native, num_tasks, dim, shift):
    """Steps on the pairs of a graph, which are in float64 alone."""
    import torch

    row_ptr, col, _ = symmetric_csr(num_tasks, torch.float64, shift)
    row = torch.arange(num_tasks).repeat_interleave(row_ptr.diff())
    src, dst = row[col > row], col[col > row].long()
    ends = [torch.bincount(end, minlength=num_tasks).cumsum(0) for end in (src, dst)]
    ptrs = [tight(torch.cat([torch.zeros(1, dtype=torch.int64), end]), shift) for end in ends]
    in_edge = tight(torch.argsort(dst, stable=True), shift)
    pairs = ptrs[0], tight(dst.int(), shift), ptrs[1], in_edge
    rows = (num_tasks, src.numel(), src.numel())
    w, u, former = (tight(torch.randn(n, dim, dtype=torch.float64), shift) for n in rows)
    radius = tight(torch.rand(src.numel(), dtype=torch.float64), shift)
    native.edge_dual_step(u, u, w, pairs, radius, None, 0.0, 0.5)
    native.edge_dual_step(u, former, w, pairs, radius, radius, 0.5, 1.0)
    native.edge_dual_adjoint(u, pairs)
    native.edge_dual_value(w, pairs, radius)


def run_large(native, dtype):
    """Results that are written past the caches: a few rows, and odd ones, above the threshold."""
    import torch

    w = torch.zeros((1 << 25) // dtype.itemsize // 64 + 3, 64, dtype=dtype)
    _, mean = native.pairwise_value(w)
    native._affine(w, mean, 0.5, native.NOTHING, tight(w, 0))
    native._column_scale(w, native.column_lengths(w), native.NOTHING, tight(w, 0))
    native._ridge(w, 0.5, native.scalar(w), tight(w, 0), 0.5, native.NOTHING)
    native._ridge(w, 0.0, None, tight(w, 0), 0.5, native.NOTHING)


def run_many_tasks(native, dtype):
    """The dense Gram distance in its expanded form."""
    import torch

    w = tight(torch.randn(1025, 3).to(dtype), 1)
    native.gram_dense(w, tight(torch.randn(1025, 1025).to(dtype), 1), True)


def run_matrices(native, dtype, batch, rows, columns, shift):
    """All trace-norm kernels, wherever the package would rather take another."""
    import torch

    code, threads = native.CODES[dtype], torch.get_num_threads()
    w = tight(3 * torch.randn(batch, rows, columns).to(dtype), shift)
    w[batch // 3] = 0
    w[0, -1, -1] = torch.inf
    threshold = tight(torch.rand(batch, dtype=torch.float64), shift)
    value = tight(threshold, shift)
    for out in (None, tight(w, shift)):
        address = 0 if out is None else out.data_ptr()
        native._C.trace_norm_value(
            code, w.data_ptr(), batch, rows, columns, value.data_ptr(), address, threads
        )
    native._C.trace_norm_prox(
        code, w.data_ptr(), threshold.data_ptr(), batch, rows, columns, out.data_ptr(), threads
    )
    if dtype == torch.float64:
        return
    finite = tight(torch.ones(batch, dtype=torch.int64), shift)
    for out in (None, tight(w, shift)):
        address = 0 if out is None else out.data_ptr()
        native._C.trace_norm_gram_value(
            code, w.data_ptr(), batch, rows, columns, value.data_ptr(), address, threads
        )
    for target in (out, w):
        native._C.trace_norm_gram_prox(
            code, w.data_ptr(), threshold.data_ptr(), batch, rows, columns, target.data_ptr(),
            finite.data_ptr(), threads,
        )  # fmt: skip


def exercise(native, dtypes, sizes, matrices):
    for dtype in dtypes:
        for k, (num_tasks, dim) in enumerate(sizes):
            run_rows(native, dtype, num_tasks, dim, k % 2)
        run_prox(native, dtype, 1)
        for k, (num_tasks, dim) in enumerate([*sizes, (9, 3), (9, 30)]):
            run_pairs(native, min(num_tasks, 300), dim, k % 2)
        for k, shape in enumerate(matrices):
            run_matrices(native, dtype, *shape, (k + 1) % 2)


def exercise_all():
    """In the child: every instruction set, every dtype, every size."""
    import torch

    native = all_callers()
    assert native._C is not None, native.missing
    torch.set_num_threads(2)
    torch.manual_seed(0)
    kernels = [name for name in dir(native._C) if not name.startswith("_")]
    others = ("Memory", "build_info", "release_memory", "runnable_isas", "use_isa")
    kernels = [n for n in kernels if n not in others]
    calls = dict.fromkeys(kernels, 0)

    def counted(name, kernel):
        def run(*args):
            calls[name] += 1
            return kernel(*args)

        return run

    for name in kernels:
        setattr(native._C, name, counted(name, getattr(native._C, name)))
    for isa in native.cpu_isas():
        native.use_isa(isa)
        exercise(native, native.CODES, SIZES, MATRICES)
        # a group above 1024 tasks, of more columns than a panel, and many short rows
        exercise(native, native.CODES, [(2100, 2100), (5000, 3)], [])
        for dtype in native.CODES:
            run_large(native, dtype)
            run_many_tasks(native, dtype)
        print(f"  {isa}: clean", flush=True)
    print(" ", ", ".join(f"{name} {count}" for name, count in calls.items()))
    idle = [name for name, count in calls.items() if not count]
    assert not idle, f"kernels that were not called: {idle}"
    print("  exercise finished")


def exercise_plants():
    """In the child: torch is imported once, each bug has a process of its own."""
    import torch

    torch.set_num_threads(1)
    unnoticed = []
    for name in [*BUGS, "none"]:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(write, 2)
            os.environ["MTLFAST_PLANTED"] = name
            native = all_callers()
            exercise(native, native.CODES, [(3, 17), (5, 64), (17, 33), (3, 2100)], MATRICES[:5])
            os._exit(0)
        os.close(write)
        with os.fdopen(read, errors="replace") as pipe:
            report = pipe.read()
        failed = os.waitpid(child, 0)[1] != 0
        if name == "none":
            assert not failed, f"a report without a planted bug:\n{report[:3000]}"
            continue
        expected = BUGS[name][3]
        found = re.search(expected, report)
        if not (failed and found):
            unnoticed.append(f"unnoticed: {name}\n{report[:3000]}")
            continue
        print(f"  planted: {name}; noticed: {found[0]}", flush=True)
    if unnoticed:
        sys.exit("\n".join(unnoticed))
    print("  exercise finished")


def make_copy(folder):
    for name in ("csrc", "mtlfast", "tools"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def build(folder):
    """For the baseline and the widest that this machine runs; the kernels are one text for all."""
    cpuinfo = Path("/proc/cpuinfo")
    wide = "x86_64_v4" if cpuinfo.exists() and "avx512vl" in cpuinfo.read_text() else "x86_64_v3"
    environment = os.environ | {
        "MTLFAST_SANITIZE": "address,undefined",
        "MTLFAST_CUDA": "0",
        "MTLFAST_ISAS": wide if platform.machine() == "x86_64" else "",
    }
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])


def run(folder, part):
    cxx = os.environ.get("CXX", "g++").split()[0]
    library = subprocess.run(
        [cxx, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python and torch keep memory until the process ends
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(folder),
    }
    command = [sys.executable, "tools/sanitize.py", "--child", part]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode or "exercise finished" not in done.stdout:
        sys.exit(f"{done.stderr[-8000:]}\nsanitize: {part} failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", choices=["kernels", "bugs"], help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["kernels", "bugs"], help="one half")
    args = parser.parse_args()
    if args.child:
        exercise_all() if args.child == "kernels" else exercise_plants()
        return
    for part in ("kernels", "bugs"):
        if args.only not in (None, part):
            continue
        with tempfile.TemporaryDirectory(prefix="mtlfast-sanitize-") as name:
            folder = make_copy(Path(name))
            if part == "bugs":
                plant(folder)
            start = time.monotonic()
            build(folder)
            built = time.monotonic()
            run(folder, part)
            end = time.monotonic()
            print(f"{part}: built in {built - start:.0f} s, ran {end - built:.0f} s", flush=True)
    if args.only is None:
        print("sanitize: all kernels are clean, all planted bugs were noticed")


if __name__ == "__main__":
    main()
