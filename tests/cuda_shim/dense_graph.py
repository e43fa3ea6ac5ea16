"""Checks of dense_graph.cu against the definition in long double, for one shape and type."""

import numpy as np

from cuda_shim.kernels import PLUS_NOTHING, PLUS_OUT, blank, tight
from cuda_shim.pairwise import norm, require, tasks

# one tile and several, on both sides of a tile's and a panel's end
SHAPES = [(1, 1), (2, 5), (31, 3), (32, 64), (33, 65), (70, 40), (65, 130), (0, 3), (3, 0)]


def make_weights(element, num_tasks):
    """A dense A that is not symmetric; a diagonal that must not count, edges of weight zero."""
    make = np.random.default_rng(num_tasks)
    a = make.standard_normal((num_tasks, num_tasks)).astype(element.real)
    a[make.random(a.shape) < 0.3] = 0
    np.fill_diagonal(a, np.inf)
    return a


def check(kernels, element, shape, spread, shift=0, out_shift=0):
    """Distances, the value alone, and with a gradient written or added; results as bytes."""
    stored = tight(tasks(element, *shape, spread), shift)
    w = element.decode(stored)
    a = tight(make_weights(element, len(w)), shift)
    both = a.astype(np.longdouble)
    np.fill_diagonal(both, 0)
    both = both + both.T
    difference = w[:, None] - w
    distance = np.square(difference).sum(2)
    value, value_size = (both * distance).sum() / 2, (abs(both) * distance).sum() / 2
    grad = 2 * (both[:, :, None] * difference).sum(1)
    grad_size = norm(2 * abs(both[:, :, None] * difference).sum(1))
    found = kernels.dense_distance(element, stored)
    require(norm(found - distance), 8 * element.unit * norm(distance), "distance")
    results = [found]
    upstream = tight(np.full(1, 0.75, element.real))
    before = tasks(element, *shape, 1.0)
    for plus, factor, given in ((PLUS_NOTHING, 0.5, upstream), (PLUS_OUT, -0.5, None)):
        out = blank(w.shape, stored.dtype, out_shift)
        if plus == PLUS_OUT:
            out[:] = before
        with_grad = kernels.dense_graph_value(element, stored, a, 0.25, out, factor, given, plus)
        require(abs(with_grad[0] - value / 4), 8 * element.unit * value_size, "value")
        scale = 0.375 if plus == PLUS_NOTHING else -0.5
        wanted = scale * grad + (element.decode(before) if plus == PLUS_OUT else 0)
        gate = 64 * element.unit * (abs(scale) * grad_size + norm(wanted))
        error = norm(element.decode(out) - wanted)
        require(error, gate + element.rounding * norm(wanted), "gradient", plus)
        results += [with_grad, out]
    alone = kernels.dense_graph_value(element, stored, a, 0.25, None, 1.0, None, PLUS_NOTHING)
    assert abs(alone[0] - with_grad[0]) <= 8 * element.unit * value_size, "value alone"
    return b"".join(result.tobytes() for result in [*results, alone])
