"""Runs the checks on a library built with sanitizers, whose runtime is preloaded.

Once without a bug, then once for each planted bug, in a process of its own; the output has a line
for each, with what was reported or UNNOTICED.
"""

import os
import re
import signal
import sys

from cuda_shim import pairwise
from cuda_shim.kernels import ELEMENTS, Kernels, ShimError
from cuda_shim.mutants import MUTANTS

SCHEDULES = ((0, 0, 0), (3, 1, 1), (4, 0, 1))  # seed, elements off the alignment of W and of out
SECONDS = 60  # until a run that hangs is ended


def run_checks(kernels, elements=ELEMENTS):
    pairwise.check_sizes(kernels)
    pairwise.check_long_offsets(kernels)
    for element in elements:
        pairwise.check_equal_rows(kernels, element)
        pairwise.check(kernels, element, pairwise.outliers(element))
        for shape in [*pairwise.EMPTY, *pairwise.SHAPES]:
            stored = pairwise.tasks(element, *shape, 1e-7)
            bits = set()
            for seed, *shifts in SCHEDULES:
                kernels.seed(seed)
                bits.add(pairwise.check(kernels, element, stored, *shifts))
            assert len(bits) == 1, "bits"


def run_planted(kernels, number):
    """What a child that runs with this bug reports; None where it reports nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        signal.alarm(SECONDS)
        kernels.plant(number)
        try:
            run_checks(kernels, ELEMENTS[::2])
        except (AssertionError, ShimError) as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, errors="replace") as pipe:
        report = pipe.read()
    return report if os.waitpid(child, 0)[1] else None


def main(path):
    kernels = Kernels(path)
    run_checks(kernels)
    for number, (name, (*_, expected)) in enumerate(MUTANTS.items(), 1):
        report = run_planted(kernels, number)
        found = report and re.search(expected, report)
        sys.stdout.write(f"{found[0] if found else f'UNNOTICED {report}'}: {name}\n")
    sys.stdout.write("finished\n")


if __name__ == "__main__":
    main(sys.argv[1])
