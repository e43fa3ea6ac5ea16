"""Checks of group.cu against the definition in long double, for some groups and element type."""

import mmap
from itertools import pairwise

import numpy as np

from cuda_shim.kernels import ELEMENTS, blank, tight
from cuda_shim.pairwise import centre, norm, require, tasks

# sizes of the groups, and columns: groups of lanes of all widths, part vectors, panels; groups on
# both sides of a tile of 128 members, that begin and end with one, that hold many
CASES = [
    ((2,), 1),
    ((3, 0, 1, 5, 2), 3),
    ((2, 50, 1, 7) * 5, 16),
    ((5, 128, 129, 2, 3), 8),
    ((127, 129, 1, 255, 100, 300), 33),
    ((9, 2, 140), 300),
    ((5, 640), 325),
    ((1, 2200, 0, 200), 5),
]
EMPTY = [((), 3), ((0, 0), 4), ((1, 1), 5), ((3,), 0)]


def make_groups(sizes):
    """ptr and member of groups whose tasks are shuffled; a few tasks are in no group."""
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    order = np.random.default_rng(len(sizes)).permutation(int(ptr[-1]) + 3)
    return tight(ptr), tight(order[: ptr[-1]].astype(np.int64))


def truth(w, groups):
    """Value, gradient with scale 1, the size of each task's group and its deviation."""
    ptr, member = groups
    size, centred = np.ones((len(w), 1)), np.zeros_like(w)
    for begin, end in pairwise(ptr):
        size[member[begin:end]] = end - begin
        centred[member[begin:end]] = centre(w[member[begin:end]])
    return (2 * size * np.square(centred)).sum(), 4 * size * centred, size, centred


def check(kernels, element, case, spread, shift=0, out_shift=0):
    """Value alone and with a gradient, prox and prox in place; gives results as bytes."""
    groups = make_groups(case[0])
    stored = tight(tasks(element, len(groups[1]) + 3, case[1], spread), shift)
    return check_tasks(kernels, element, groups, stored, out_shift)


def check_tasks(kernels, element, groups, stored, out_shift=0):
    w = element.decode(stored)
    value, grad, size, centred = truth(w, groups)
    untouched = size[:, 0] < 2
    results = []
    for factor, upstream in ((0.5, None), (0.5, tight(np.full(1, 0.75, element.real)))):
        out = blank(w.shape, stored.dtype, out_shift)
        found = kernels.group_value(element, stored, groups, 0.25, out, factor, upstream)
        require(abs(found[0] - value / 4), 32 * element.unit * value, "value")
        assert (out[untouched].view(np.uint8) == 255).all(), "gradient of a task in no group"
        wanted = grad * (factor if upstream is None else 0.375)
        out[untouched] = 0
        gate = (16 * element.unit + element.rounding) * norm(wanted)
        require(norm(element.decode(out) - wanted), gate, "gradient", factor)
        results += [found, out]
    alone = kernels.group_value(element, stored, groups, 0.25, None, 1.0, None)
    assert alone.tobytes() == found.tobytes(), "value alone"
    step = 0.01
    wanted = w - centred * (1 - 1 / (1 + 4 * size * np.longdouble(step)))
    in_place = tight(stored, out_shift)
    kernels.group_prox(element, in_place, groups, step, in_place)
    gate = (16 * element.unit + element.rounding) * norm(wanted)
    require(norm(element.decode(in_place) - wanted), gate, "affine")
    other = kernels.group_prox(element, stored, groups, step, tight(stored, out_shift))
    assert other.tobytes() == in_place.tobytes(), "in place"
    return b"".join(result.tobytes() for result in [*results, in_place])


def check_special(kernels, element):
    """Equal tasks are at distance 0, exactly; what is not finite stays in its group."""
    groups = make_groups((3, 300, 2, 400))
    stored = np.repeat(tasks(element, 1, 5, 1.0), len(groups[1]) + 3, axis=0)
    out = blank(stored.shape, stored.dtype)
    assert kernels.group_value(element, tight(stored), groups, 1.0, out, 1.0, None)[0] == 0, "value"
    assert not element.decode(out[groups[1]]).any(), "gradient"
    for begin, end in ((0, 3), (3, 303)):
        bad = stored.copy()
        bad[groups[1][begin + 2], 1] = 0x7F80 if element.name == "bfloat16" else np.inf
        value = kernels.group_value(element, tight(bad), groups, 1.0, out, 1.0, None)
        assert np.isnan(value[0]), "value"
        grad = element.decode(out[groups[1]])
        assert np.isnan(grad[begin:end, 1]).all(), "gradient of a group with Inf"
        grad[begin:end, 1] = 0
        assert not grad.any(), "gradient of the others"


def check_outlier(kernels, element):
    """Groups that begin with a task far from all others, from which differences are taken."""
    groups = make_groups((100, 1500))
    w = np.full((len(groups[1]) + 3, 3), 0.1)
    w[groups[1][[0, 100]]] = 5.237
    # a float64 mean is rounded at the outlier's size: an error of that for every row
    if element.name != "float64":
        check_tasks(kernels, element, groups, tight(element.encode(w)))


def check_long_offsets(kernels):
    """The last rows of more than 2³¹ elements, in memory that is never touched before them."""
    element = next(e for e in ELEMENTS if e.name == "bfloat16")
    shape = num_tasks, dim = 2**21, 1032
    w, grad = (np.frombuffer(mmap.mmap(-1, 2 * num_tasks * dim), np.uint16) for _ in range(2))
    w[-dim:] = element.encode(np.full(dim, 1.5))
    groups = tight(np.array([0, 2])), tight(np.array([num_tasks - 1, num_tasks - 2]))
    kernels.group_value(element, w.reshape(shape), groups, 1.0, grad.reshape(shape), 1.0, None)
    assert (grad[-dim:] == element.encode(6.0)).all(), "gradient"
