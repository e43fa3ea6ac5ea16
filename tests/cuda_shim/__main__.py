"""Runs the checks on a library built with sanitizers, whose runtime is preloaded.

Once without a bug, then once for each planted bug, in a process of its own; the output has a line
for each, with what was reported or UNNOTICED.
"""

import os
import re
import signal
import sys
from functools import partial

from cuda_shim import dense_graph, gram, graph, graph_prox, group, pairwise, trace_norm
from cuda_shim.kernels import ELEMENTS, SCHEDULES, Kernels, ShimError, same_bits
from cuda_shim.planted_bugs import BUGS, RACES

SECONDS = 60  # until a run that hangs is ended


def check_pairwise(kernels, elements):
    pairwise.check_sizes(kernels)
    pairwise.check_long_offsets(kernels)
    for element in elements:
        pairwise.check_equal_rows(kernels, element)
        pairwise.check(kernels, element, pairwise.outliers(element))
        for shape in [*pairwise.EMPTY, *pairwise.SHAPES]:
            stored = pairwise.tasks(element, *shape, 1e-7)
            same_bits(kernels, partial(pairwise.check, kernels, element, stored), SCHEDULES[1:])


def check_graph(kernels, elements):
    graph.check_long_offsets(kernels)
    for element in elements:
        graph.check_no_edge(kernels, element)
        for case in [*graph.EMPTY, *graph.CASES]:
            for check in (graph.check_distance, graph.check):
                same_bits(kernels, partial(check, kernels, element, case, 1e-3), SCHEDULES[1:])


def check_dense_graph(kernels, elements):
    for element in elements:
        for shape in dense_graph.SHAPES:
            run = partial(dense_graph.check, kernels, element, shape, 1e-3)
            same_bits(kernels, run, SCHEDULES[1:])


def check_gram(kernels, elements):
    gram.check_long_offsets(kernels)
    for element in elements:
        for case in gram.CASES:
            same_bits(kernels, partial(gram.check, kernels, element, case), SCHEDULES[1:])


def check_group(kernels, elements):
    group.check_long_offsets(kernels)
    for element in elements:
        group.check_special(kernels, element)
        group.check_outlier(kernels, element)
        for case in [*group.EMPTY, *group.CASES]:
            run = partial(group.check, kernels, element, case, 1e-7)
            same_bits(kernels, run, SCHEDULES[1:])


def check_trace_norm(kernels, elements):
    trace_norm.check_long_offsets(kernels)
    trace_norm.check_sizes(kernels)
    for element in elements:
        for shape in trace_norm.SMALL:
            run = partial(trace_norm.check, kernels, element, shape)
            same_bits(kernels, run, SCHEDULES[1:])
        trace_norm.check_scales(kernels, element)
        trace_norm.check_subnormal(kernels, element)


def check_graph_prox(kernels, elements):
    for element in elements[:1]:  # double throughout
        graph_prox.check_limits(kernels, element)
        for case in graph_prox.CASES:
            run = partial(graph_prox.check, kernels, element, case)
            same_bits(kernels, run, SCHEDULES[1:3])  # an iteration is six launches: few orders
        graph_prox.check_clusters(kernels, element)


def check_graph_prox_small(kernels, elements):
    for element in elements:
        graph_prox.check_signs(kernels, element)
        for dim in (3, 16, 37):
            same_bits(
                kernels, partial(graph_prox.check_small, kernels, element, dim), SCHEDULES[1:]
            )


# the checks that reach a file; those of other files are reached by all
CHECKS = {
    "pairwise.cu": check_pairwise,
    "graph.cu": check_graph,
    "edges.h": check_graph,
    "dense_graph.cu": check_dense_graph,
    "gram.cu": check_gram,
    "group.cu": check_group,
    "trace_norm.cu": check_trace_norm,
    "teams.h": check_trace_norm,
    "graph_prox.cu": check_graph_prox,
    "graph_prox_small.cu": check_graph_prox_small,
}


def run_checks(kernels, elements=ELEMENTS, file=""):
    for check in [CHECKS[file]] if file in CHECKS else dict.fromkeys(CHECKS.values()):
        check(kernels, elements)


def run_threads(kernels, elements=ELEMENTS[:1], file=""):
    """Small shapes once; what ThreadSanitizer sees does not depend on the order."""
    checks = {
        "pairwise.cu": lambda e: [
            pairwise.check(kernels, e, pairwise.tasks(e, *shape, 1.0))
            for shape in ((3, 16), (300, 33))
        ],
        "graph.cu": lambda e: graph.check(kernels, e, graph.Case(50, 8, 3.0, (256, 600)), 1.0),
        "dense_graph.cu": lambda e: dense_graph.check(kernels, e, (33, 65), 1.0),
        "gram.cu": lambda e: gram.check(kernels, e, gram.Case(9, 33, 100, hub=300)),
        "group.cu": lambda e: group.check(kernels, e, ((5, 128, 129, 2), 8), 1.0),
        "graph_prox.cu": lambda e: graph_prox.check(kernels, e, graph_prox.CASES[2]),
        "graph_prox_small.cu": lambda e: graph_prox.check_small(kernels, e, 20),
        "trace_norm.cu": lambda e: trace_norm.check(kernels, e, (17, 6)),
    }
    for element in elements:
        for check in [checks[file]] if file in checks else checks.values():
            check(element)


def run_planted(kernels, run, number, file):
    """What a child that runs with this bug in a file reports; None where it reports nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        signal.alarm(SECONDS)
        kernels.plant(number)
        try:
            run(kernels, ELEMENTS[:1], file)
        except (AssertionError, ShimError) as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, errors="replace") as pipe:
        report = pipe.read()
    return report if os.waitpid(child, 0)[1] else None


def main(path, sanitize):
    kernels = Kernels(path)
    run, bugs = (run_threads, RACES) if sanitize == "thread" else (run_checks, BUGS)
    run(kernels)
    for number, (name, (file, _, _, expected)) in enumerate(bugs.items(), 1):
        report = run_planted(kernels, run, number, file)
        found = report and re.search(expected, report)
        sys.stdout.write(f"{found[0] if found else f'UNNOTICED {report}'}: {name}\n")
    sys.stdout.write("finished\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
