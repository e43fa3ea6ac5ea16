"""Checks of pairwise.cu against the definition in long double, for one shape and element type."""

import mmap

import numpy as np

from cuda_shim.kernels import (
    ELEMENTS,
    PLUS_MEAN,
    PLUS_NOTHING,
    PLUS_OUT,
    ShimError,
    blank,
    tight,
)

# one slice and many, part vectors and part long rows, panels, aligned rows and others
SHAPES = [
    (1, 1), (2, 1), (1, 5), (3, 16), (7, 33), (33, 31), (1000, 1), (1030, 3), (20, 257),
    (600, 64), (20, 2112), (19, 2101),
]  # fmt: skip
EMPTY = [(0, 0), (0, 3), (3, 0)]
SPREADS = [1.0, 1e-3, 1e-7]


def norm(x):
    return np.sqrt(np.sum(np.square(x)))


def centre(w):
    """Rows minus their mean; exact differences first, for long double has few bits to spare."""
    if not w.size:
        return w
    x = w - w[0]
    return x - x.mean(0)


def require(error, bound, *what):
    assert error <= bound, (*what, float(error), float(bound))


def tasks(element, num_tasks, dim, spread):
    make = np.random.default_rng(num_tasks * 10007 + dim)
    return element.encode(1 + spread * make.standard_normal((num_tasks, dim)))


def outliers(element):
    """Equal tasks but for those that a slice is sampled at: each rounds in the same direction."""
    w = np.full((8192, 1), 0.1)
    w[[k * len(w) // 8 for k in range(8)]] = 523.7
    return element.encode(w)


def check(kernels, element, stored, shift=0, out_shift=0):
    """Value, gradient, prox and their in-place forms; gives all results as bytes."""
    stored = tight(stored, shift)
    w = element.decode(stored)
    num_tasks = len(w)
    centred = centre(w)
    value, mean = kernels.pairwise_value(element, stored, 0.5)
    truth = num_tasks * np.sum(np.square(centred))
    require(abs(value[0] - truth), 32 * element.unit * truth, "value")
    results = [value]
    upstream = tight(np.full(1, 0.75, element.real))
    before = tasks(element, *w.shape, 1.0) if w.size else stored
    old = element.decode(before)
    for plus, factor, base in (
        (PLUS_NOTHING, 0.5, 0 * w),
        (PLUS_MEAN, 0.5, w - centred),
        (PLUS_OUT, -2.0, old),
    ):
        for given, scale in ((upstream, 0.75 * factor), (None, factor)):
            out = blank(w.shape, stored.dtype, out_shift)
            if plus == PLUS_OUT:
                out[:] = before
            kernels.pairwise_affine(element, stored, mean, factor, given, plus, out)
            truth = base + scale * centred
            size = norm(base) + norm(scale * centred)
            gate = 16 * element.unit * size + element.rounding * norm(truth)
            require(norm(element.decode(out) - truth), gate, "affine", plus, scale)
            results.append(out)
    in_place = tight(stored, shift)
    kernels.pairwise_affine(element, in_place, mean, 0.5, None, PLUS_MEAN, in_place)
    assert in_place.tobytes() == results[4].tobytes(), "in place"
    return b"".join(result.tobytes() for result in results)


def check_long_offsets(kernels):
    """The last elements of more than 2³¹, which lie in memory that is never touched before them."""
    element = next(e for e in ELEMENTS if e.name == "bfloat16")
    num_tasks, dim = 2**21, 1032
    w, out = (np.frombuffer(mmap.mmap(-1, 2 * num_tasks * dim), np.uint16) for _ in range(2))
    w[-dim:] = element.encode(np.full(dim, 1.5))
    mean = tight(np.zeros((2, dim), np.float32))
    shape = num_tasks, dim
    with kernels.only_block(0):  # it works on the end
        kernels.pairwise_affine(
            element, w.reshape(shape), mean, 2.0, None, PLUS_NOTHING, out.reshape(shape)
        )
    assert (out[-dim:] == element.encode(3.0)).all(), "last row"


def check_sizes(kernels):
    """Sizes beyond 32 bits reach the workspace and the grid."""
    dim = 2**33
    bytes_needed = kernels.workspace("pairwise_workspace", 0, 1, dim)
    assert bytes_needed > 8 * dim, bytes_needed
    try:
        kernels.call("pairwise_affine", 0, None, None, 1, 2**43, 1.0, None, PLUS_NOTHING, None)
    except ShimError as error:
        assert "a grid of" in str(error), error
    else:
        raise AssertionError("a grid beyond the limit was launched")


def check_equal_rows(kernels, element):
    """Equal tasks are at distance 0, exactly."""
    stored = tight(np.repeat(tasks(element, 1, 5, 1.0), 3000, axis=0))
    value, mean = kernels.pairwise_value(element, stored, 1.0)
    out = kernels.pairwise_affine(
        element, stored, mean, 1.0, None, PLUS_NOTHING, blank(stored.shape, stored.dtype)
    )
    assert value[0] == 0, "value"
    assert not element.decode(out).any(), "affine"
