"""The table of what is measured: regularizer, mode, size, and how much faster it should be."""

import dataclasses
from collections.abc import Callable

import jobs_gram
import jobs_graph
import jobs_group_lasso
import jobs_pairwise
import jobs_quadratic
import jobs_trace_norm


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    group: str  # regularizer, mode
    size: str
    make: Callable  # () → Job
    wanted: dict = dataclasses.field(default_factory=dict)  # name of a rival → at least this ratio
    floor: float = 0.0  # at most this multiple of the floor; 0: nothing asked
    memory: tuple = ()  # ways whose peak memory is measured in a process of their own
    most_memory: float = 0.0  # MiB that mtlfast may take on top; 0: nothing asked

    @property
    def name(self):
        return f"{self.group} {self.size}"


def _pairwise():
    group, ours = "pairwise value + gradient", ("mtlfast", "eager expanded")
    for tasks, eager, compiled, floor in (
        (1_000, 3, 3, 0),
        (10_000, 4, 3, 0),
        (100_000, 5, 2.2, 1.25),
        (1_000_000, 4, 2, 0),
    ):
        wanted = {
            "eager expanded": eager,
            "torch.compile expanded": compiled,
            "torch.compile centred": compiled,
        }
        make = lambda tasks=tasks: jobs_pairwise.value_and_gradient(tasks, 64)  # noqa: E731
        yield Case(group, f"{tasks:,}×64", make, wanted, floor, ours if tasks >= 1e5 else ())
    yield Case("pairwise value", "100,000×64", lambda: jobs_pairwise.value(100_000, 64))
    yield Case("pairwise prox", "1,000,000×64", lambda: jobs_pairwise.prox(1_000_000, 64))
    for mode, make in (
        ("gradient in place", jobs_pairwise.add_gradient),
        ("prox in place", jobs_pairwise.prox_in_place),
    ):
        yield Case(
            f"pairwise {mode}", "1,000,000×64", lambda make=make: make(1_000_000, 64), floor=1.25
        )


def _graph():
    group, ours = "graph value + gradient", ("mtlfast",)
    wanted = {
        "SpMM by hand": 1.6,
        "torch CSR, autograd": 15,
        "torch COO, autograd": 15,
        "gather over edges": 40,
    }
    for tasks, edges in ((10_000, 100_000), (100_000, 1_000_000), (100_000, 3_200_000)):

        def make(tasks=tasks, edges=edges):
            return jobs_graph.value_and_gradient(jobs_graph.random_edges(tasks, edges), tasks, 64)

        size = f"{tasks:,} tasks, {edges:,} edges, d=64"
        yield Case(group, size, make, wanted, 1.45, ours)

    def million():
        edges = jobs_graph.random_edges(1_000_000, 10_000_000)
        return jobs_graph.value_and_gradient(edges, 1_000_000, 64, scipy=False)

    def knn():
        edges = jobs_graph.knn_edges(1_000_000, 7)
        return jobs_graph.value_and_gradient(
            edges, 1_000_000, 64, scipy=False, sparse=False, gather=False
        )

    size = "1,000,000 tasks, 10,000,000 edges, d=64"
    yield Case(group, size, million, {"SpMM by hand": 1.7}, 0, ours, 350)
    size = "1,000,000 tasks, 7 nearest neighbours, numbered at random, d=64"
    yield Case(group, size, knn, {"SpMM by hand": 4}, 0, ours)
    yield Case(
        "graph prox to residual 1e-6",
        "100,000 tasks, 1,000,000 edges, d=64",
        lambda: jobs_graph.prox(100_000, 1_000_000, 64),
        {"scipy cg, column by column": 5},
    )
    yield Case(
        "graph prox, value + gradient",
        "125,145 tasks, 4,129,676 edges, d=3 (SnapVX#5)",
        jobs_graph.snapvx,
        memory=ours,
    )
    yield Case(
        "graph, learned weights",
        "110,000 tasks, 860,000 edges, d=200 (pytorch#41128)",
        jobs_graph.learnable,
        memory=ours,
    )


def _gram():
    group, both = "Gram, value + gradient", ("mtlfast", "three terms, autograd", "naive, autograd")
    yield Case(group, "1,000×64, dense Ω", lambda: jobs_gram.dense(1_000, 64))
    yield Case(
        group,
        "10,000×64, dense Ω",
        lambda: jobs_gram.dense(10_000, 64),
        {"three terms, autograd": 3.5, "naive, autograd": 10},
        memory=both,
    )
    yield Case(
        group,
        "100,000×64, sparse Ω, 1,000,000 entries",
        lambda: jobs_gram.sparse(100_000, 1_000_000, 64),
        {"two products, float64": 0.5, "two products, float32": 0.5},
        memory=("mtlfast",),
    )


def _trace_norm():
    for batch, rows, columns, factor in (
        (16_384, 8, 8, 25),
        (4_096, 16, 16, 15),
        (4_096, 32, 32, 9),
        (512, 128, 64, 3),
        (64, 512, 128, 2.5),
        (1, 1_000, 64, 3),
        (1, 100_000, 64, 8),
        (1, 1_000_000, 64, 6),
    ):
        size, shape = f"{batch:,}×{rows:,}×{columns}", (batch, rows, columns)
        yield Case(
            "trace norm prox",
            size,
            lambda shape=shape: jobs_trace_norm.prox(*shape, workers=True),
            {"linalg.svd": factor},
        )
        yield Case(
            "trace norm value + gradient",
            size,
            lambda shape=shape: jobs_trace_norm.value_and_gradient(*shape),
            {'matrix_norm("nuc")': factor},
        )


def _group_lasso():
    for tasks in (1_000, 100_000, 1_000_000):
        yield Case(
            "group lasso value + gradient",
            f"{tasks:,}×64",
            lambda tasks=tasks: jobs_group_lasso.value_and_gradient(tasks, 64),
        )
    yield Case("group lasso prox", "1,000,000×64", lambda: jobs_group_lasso.prox(1_000_000, 64))


def _quadratic():
    size, ours = "1,000,000×16", ("mtlfast",)
    yield Case(
        "ridge value + gradient",
        size,
        lambda: jobs_quadratic.ridge(1_000_000, 16),
        {"eager": 2, "the pairwise distance": 0.66},
        memory=ours,
        most_memory=70,
    )
    make = lambda: jobs_quadratic.ridge_in_place(1_000_000, 16)  # noqa: E731
    yield Case("ridge gradient in place", size, make, floor=1.25)
    group, alone = "sum of pairwise, graph and ridge, value + gradient", "the graph term alone"
    for tasks, edges, dim, norm, ratio in (
        (3_000, 30_000, 17, False, 0.55),
        (3_000, 30_000, 17, True, 0.37),
        (1_000_000, 5_000_000, 16, False, 0.87),
    ):
        size = f"{tasks:,} tasks, {edges:,} edges, d={dim}{', and trace norm' if norm else ''}"

        def make(tasks=tasks, edges=edges, dim=dim, norm=norm):
            return jobs_quadratic.sum_of(tasks, edges, dim, norm=norm)

        yield Case(group, size, make, {alone: ratio}, memory=ours)


CASES = [*_pairwise(), *_graph(), *_gram(), *_group_lasso(), *_quadratic(), *_trace_norm()]

# the same jobs, small enough for every test run
TINY = [
    Case("pairwise value + gradient", "tiny", lambda: jobs_pairwise.value_and_gradient(
        12, 32, compile=False)),
    Case("pairwise value", "tiny", lambda: jobs_pairwise.value(12, 5)),
    Case("pairwise prox", "tiny", lambda: jobs_pairwise.prox(12, 32)),
    Case("pairwise gradient in place", "tiny", lambda: jobs_pairwise.add_gradient(12, 32)),
    Case("pairwise prox in place", "tiny", lambda: jobs_pairwise.prox_in_place(12, 32)),
    Case("graph value + gradient", "tiny", lambda: jobs_graph.value_and_gradient(
        jobs_graph.random_edges(20, 60), 20, 16, loop=100)),
    Case("graph value + gradient", "tiny neighbours", lambda: jobs_graph.value_and_gradient(
        jobs_graph.knn_edges(50, 3), 50, 16)),
    Case("graph prox to residual 1e-6", "tiny", lambda: jobs_graph.prox(50, 200, 4)),
    Case("graph prox, value + gradient", "tiny", lambda: jobs_graph.snapvx(50, 200, 3)),
    Case("graph, learned weights", "tiny", lambda: jobs_graph.learnable(50, 200, 20)),
    Case("Gram, value + gradient", "tiny", lambda: jobs_gram.dense(30, 5)),
    Case("Gram, value + gradient", "tiny sparse", lambda: jobs_gram.sparse(30, 60, 5)),
    Case("group lasso value + gradient", "tiny", lambda: jobs_group_lasso.value_and_gradient(
        12, 5)),
    Case("group lasso prox", "tiny", lambda: jobs_group_lasso.prox(12, 5)),
    Case("ridge value + gradient", "tiny", lambda: jobs_quadratic.ridge(12, 5)),
    Case("ridge gradient in place", "tiny", lambda: jobs_quadratic.ridge_in_place(12, 5)),
    Case("sum of pairwise, graph and ridge, value + gradient", "tiny", lambda: (
        jobs_quadratic.sum_of(20, 60, 5, norm=True))),
    Case("trace norm prox", "tiny", lambda: jobs_trace_norm.prox(6, 8, 5)),
    Case("trace norm value + gradient", "tiny", lambda: jobs_trace_norm.value_and_gradient(
        6, 8, 5)),
]  # fmt: skip

OVERHEAD = {
    "pairwise": jobs_pairwise.overhead,
    "graph": jobs_graph.overhead,
    "trace norm": jobs_trace_norm.overhead,
}
