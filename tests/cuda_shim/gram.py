"""Checks of gram.cu against the definition in long double, for one case and type."""

import mmap
from dataclasses import dataclass

import numpy as np

from cuda_shim.kernels import ELEMENTS, blank, tight
from cuda_shim.pairwise import norm, require, tasks


@dataclass(frozen=True)
class Case:
    num_tasks: int
    dim: int
    num_entries: int
    hub: int = 0  # further entries whose row is the last task


# one tile of ends and several, tasks that begin and end with a tile, a task over many tiles
CASES = [
    Case(1, 1, 1),
    Case(5, 3, 7),
    Case(40, 8, 32),
    Case(2, 4, 64),
    Case(30, 33, 200),
    Case(9, 64, 100, hub=300),
    Case(4, 130, 70),
    Case(3, 5, 0),
    Case(3, 0, 4),
]


def make_entries(case):
    make = np.random.default_rng(case.num_tasks + case.num_entries)
    total = case.num_entries + case.hub
    row, col = make.integers(case.num_tasks, size=(2, total))
    row[case.num_entries :] = case.num_tasks - 1
    return row, col, make.standard_normal(total)


def check(kernels, element, case, shift=0, out_shift=0):
    """Products, and sums over both ends of every entry; results as bytes."""
    stored = tight(tasks(element, case.num_tasks, case.dim, 1.0), shift)
    w = element.decode(stored)
    row, col, weight = make_entries(case)
    unit = 2.0**-53  # everything is in double
    found = kernels.edge_product(element, stored, tight(row), tight(col))
    sizes = abs(w[row] * w[col]).sum(1)
    require(norm(found - (w[row] * w[col]).sum(1)), 8 * unit * norm(sizes), "product")

    task, other = np.concatenate([row, col]), np.concatenate([col, row])
    order = np.argsort(task, kind="stable")
    task, other, weight = task[order], other[order], np.tile(weight, 2)[order]
    weight = weight.astype(element.real)
    before = np.random.default_rng(0).standard_normal(w.shape)
    out = blank(w.shape, np.float64, out_shift)
    out[:] = before
    kernels.edge_sum(element, stored, tight(task), tight(other), tight(weight), -2.0, out)
    wanted, size = before.astype(np.longdouble), abs(before).astype(np.longdouble)
    terms = 2 * weight.astype(np.longdouble)[:, None] * w[other]
    np.subtract.at(wanted, task, terms)
    np.add.at(size, task, abs(terms))
    require(norm(out - wanted), 16 * unit * norm(size), "sum")
    return found.tobytes() + out.tobytes()


def check_long_offsets(kernels):
    """The last row of more than 2³¹ elements, in memory that is never touched before it."""
    element = next(e for e in ELEMENTS if e.name == "bfloat16")
    num_tasks, dim = 2**21, 1032
    w = np.frombuffer(mmap.mmap(-1, 2 * num_tasks * dim), np.uint16)
    w[-dim:] = element.encode(np.full(dim, 1.5))
    w = w.reshape(num_tasks, dim)
    last, out = np.full(3, num_tasks - 1), np.zeros((1, dim))
    assert (kernels.edge_product(element, w, last, last) == 2.25 * dim).all(), "product"
    kernels.edge_sum(element, w, np.zeros(3, np.int64), last, np.ones(3, np.float32), 1.0, out)
    assert (out == 4.5).all(), "sum"
