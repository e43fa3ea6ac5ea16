"""CUDA kernels without a GPU: their source runs on the host, thread by thread, in many orders."""

import pytest
from cuda_shim import build, mutants, pairwise
from cuda_shim.kernels import ELEMENTS, Kernels

# seed of the order (0 is the natural one), elements off the alignment of W and of the result
SCHEDULES = [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 0, 1)]

pytestmark = pytest.mark.skipif(bool(build.why_not()), reason=build.why_not())
each_element = pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    return Kernels(build.build(tmp_path_factory.mktemp("cuda_shim")))


def same_bits(kernels, run):
    """Runs with every schedule; the results, given as bytes, must not depend on it."""
    results = set()
    for seed, *shifts in SCHEDULES:
        kernels.seed(seed)
        results.add(run(*shifts))
    kernels.seed(0)
    assert len(results) == 1


@each_element
@pytest.mark.parametrize("shape", pairwise.SHAPES + pairwise.EMPTY, ids=str)
def test_pairwise(kernels, element, shape):
    for spread in pairwise.SPREADS:
        stored = pairwise.tasks(element, *shape, spread)
        same_bits(kernels, lambda *shifts, w=stored: pairwise.check(kernels, element, w, *shifts))


@each_element
def test_pairwise_of_equal_rows(kernels, element):
    pairwise.check_equal_rows(kernels, element)


@each_element
def test_pairwise_of_a_sample_far_from_the_mean(kernels, element):
    pairwise.check(kernels, element, pairwise.outliers(element))


def test_pairwise_beyond_32_bits(kernels):
    pairwise.check_long_offsets(kernels)
    pairwise.check_sizes(kernels)


def test_sanitizers_and_planted_bugs(tmp_path):
    """AddressSanitizer and UBSan have nothing to say, unless a bug is planted."""
    csrc, flags = mutants.plant(build.ROOT / "csrc", tmp_path)
    library = build.build(tmp_path, csrc, [*build.SANITIZERS, *flags])
    done = build.run_sanitized(library)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-5000:]
    assert lines[-1] == "finished"
    assert len(lines) == len(mutants.MUTANTS) + 1
    assert "UNNOTICED" not in done.stdout, done.stdout
