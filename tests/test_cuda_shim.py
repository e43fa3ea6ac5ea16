"""CUDA kernels without a GPU: their source runs on the host, thread by thread, in many orders."""

from functools import partial

import pytest
from cuda_shim import (
    build,
    dense_graph,
    gram,
    graph,
    graph_prox,
    group,
    pairwise,
    trace_norm,
)
from cuda_shim.kernels import ELEMENTS, SCHEDULES, Kernels, same_bits

pytestmark = pytest.mark.skipif(bool(build.why_not()), reason=build.why_not())
each_element = pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    return Kernels(build.build(tmp_path_factory.mktemp("cuda_shim")))


@each_element
@pytest.mark.parametrize("shape", pairwise.SHAPES + pairwise.EMPTY, ids=str)
def test_pairwise(kernels, element, shape):
    for spread in pairwise.SPREADS:
        stored = pairwise.tasks(element, *shape, spread)
        same_bits(kernels, partial(pairwise.check, kernels, element, stored))


@each_element
def test_pairwise_of_equal_rows(kernels, element):
    pairwise.check_equal_rows(kernels, element)


@each_element
def test_pairwise_of_a_sample_far_from_the_mean(kernels, element):
    pairwise.check(kernels, element, pairwise.outliers(element))


@each_element
@pytest.mark.parametrize("case", graph.CASES + graph.EMPTY, ids=str)
def test_graph(kernels, element, case):
    for spread, with_order in ((1.0, True), (1e-7, False)):
        run = partial(graph.check, kernels, element, case, spread, with_order=with_order)
        same_bits(kernels, run)


@each_element
@pytest.mark.parametrize("case", graph.CASES + graph.EMPTY, ids=str)
def test_edge_distance(kernels, element, case):
    for spread in (1.0, 1e-7):
        same_bits(kernels, partial(graph.check_distance, kernels, element, case, spread))


@each_element
@pytest.mark.parametrize("shape", dense_graph.SHAPES, ids=str)
def test_dense_graph(kernels, element, shape):
    for spread in (1.0, 1e-7):
        same_bits(kernels, partial(dense_graph.check, kernels, element, shape, spread))


@each_element
@pytest.mark.parametrize("case", gram.CASES, ids=str)
def test_gram(kernels, element, case):
    same_bits(kernels, partial(gram.check, kernels, element, case))


@each_element
@pytest.mark.parametrize("case", group.CASES + group.EMPTY, ids=str)
def test_group(kernels, element, case):
    for spread in (1.0, 1e-7):
        same_bits(kernels, partial(group.check, kernels, element, case, spread))


@each_element
def test_group_of_special_tasks(kernels, element):
    group.check_special(kernels, element)
    group.check_outlier(kernels, element)


@each_element
@pytest.mark.parametrize("shape", trace_norm.SMALL + trace_norm.LARGE, ids=str)
def test_trace_norm(kernels, element, shape):
    schedules = SCHEDULES if shape in trace_norm.SMALL else SCHEDULES[2:3]
    same_bits(kernels, partial(trace_norm.check, kernels, element, shape), schedules)


@pytest.mark.parametrize("shape", trace_norm.LARGEST, ids=str)
def test_trace_norm_of_more_shared_memory(kernels, shape):
    trace_norm.check(kernels, ELEMENTS[0], shape, kinds=("graded",))


@each_element
def test_trace_norm_of_any_size(kernels, element):
    trace_norm.check_scales(kernels, element)
    trace_norm.check_subnormal(kernels, element)


def test_trace_norm_of_no_matrix(kernels):
    trace_norm.check_sizes(kernels)


@each_element
@pytest.mark.parametrize("case", graph_prox.CASES, ids=str)
def test_graph_prox(kernels, element, case):
    same_bits(kernels, partial(graph_prox.check, kernels, element, case))


@each_element
def test_graph_prox_without_a_solution(kernels, element):
    graph_prox.check_limits(kernels, element)
    graph_prox.check_signs(kernels, element)


@each_element
@pytest.mark.parametrize("dim", [1, 16, 37])
def test_graph_prox_of_small_pieces(kernels, element, dim):
    same_bits(kernels, partial(graph_prox.check_small, kernels, element, dim))


@each_element
def test_graph_prox_of_clusters(kernels, element):
    graph_prox.check_clusters(kernels, element)


@each_element
def test_graph_without_an_edge(kernels, element):
    graph.check_no_edge(kernels, element)


def test_sizes_beyond_32_bits(kernels):
    pairwise.check_sizes(kernels)
    pairwise.check_long_offsets(kernels)
    graph.check_long_offsets(kernels)
    gram.check_long_offsets(kernels)
    group.check_long_offsets(kernels)
    trace_norm.check_long_offsets(kernels)
