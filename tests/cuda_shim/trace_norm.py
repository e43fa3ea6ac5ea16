"""Checks of trace_norm.cu against numpy's float64 SVD and the optimality of the prox."""

import mmap

import numpy as np

from cuda_shim.kernels import ELEMENTS, ShimError, blank, tight
from cuda_shim.pairwise import norm, require

# one lane and several, an even and an odd number of columns, tall and wide, teams that share a warp
SMALL = [(1, 1), (1, 5), (2, 3), (3, 2), (8, 8), (5, 9), (17, 6), (40, 3)]
LARGE = [(32, 32), (33, 31)]
LARGEST = [(64, 64), (900, 8)]  # one with more shared memory than a launch gets unasked
KINDS = (
    "random", "graded", "nan", "repeated", "inf", "rank one", "zero", "bad threshold", "random",
)  # fmt: skip
UNIT64 = 2.0**-53


def make_matrix(kind, m, n, make):
    q = min(m, n)
    if kind == "zero":
        return np.zeros((m, n))
    if kind == "rank one":  # exactly, in every type
        return np.outer(1 + np.arange(m) % 3, 1 - np.arange(n) % 3 * 2).astype(float)
    if kind not in ("graded", "repeated"):
        return make.standard_normal((m, n))
    sigma = np.logspace(0, -7, q) if kind == "graded" else np.where(np.arange(q) < q / 2, 2.0, 1.0)
    u, v = (np.linalg.qr(make.standard_normal((size, q)))[0] for size in (m, n))
    return (u * sigma) @ v.T


def make_batch(element, shape, kinds):
    make = np.random.default_rng(shape[0] * 101 + shape[1])
    stored = element.encode(np.stack([make_matrix(kind, *shape, make) for kind in kinds]))
    for b, kind in enumerate(kinds):
        if kind in ("nan", "inf"):
            number = {"nan": np.nan, "inf": -np.inf}[kind]
            if element.name == "bfloat16":  # the first half of a float32
                number = np.float32(number).view(np.uint32) >> 16
            stored[b, -1, -1] = number
    return stored


def make_thresholds(kinds, shape):
    t = 0.4 * np.sqrt(max(shape)) * (np.arange(len(kinds)) % 3) / 2
    bad = [k for k, kind in enumerate(kinds) if kind == "bad threshold"]
    t[bad] = [-1e-9, np.nan, np.inf][max(shape) % 3]
    return t


def check_value(element, w, kind, value, unit):
    sigma = np.linalg.svd(w, compute_uv=False)
    u, _, vt = np.linalg.svd(w, full_matrices=False)
    # numpy's own σ_i are off by some units of σ_1 each
    oracle = 8 * UNIT64 * sigma[0] * len(sigma)
    require(abs(value - sigma.sum()), 64 * element.unit * sigma.sum() + oracle, "value", kind)
    cut = sigma[0] * max(w.shape) * 2 * element.unit
    if ((sigma > cut / 4) & (sigma < 4 * cut)).any():
        return
    kept = sigma > cut
    wanted = (u * kept) @ vt
    spread = sigma[0] / sigma[kept].min() if kept.any() else 1.0
    # what rounding a float64 W does to u_k v_kᵀ, and the rounding of the result
    gate = 32 * UNIT64 * spread * max(w.shape) + element.unit + element.rounding
    require(norm(unit - wanted), gate * norm(wanted), "gradient", kind)


def check_prox(element, w, kind, t, z):
    """‖W − Z‖₂ ≤ t and ⟨W − Z, Z⟩ = t‖Z‖_*: a certificate that holds for the minimiser alone."""
    slack = (64 * element.unit + element.rounding) * norm(w)
    rest = w - z
    require(np.linalg.norm(rest, 2), t + slack, "prox: norm", kind)
    sigma = np.linalg.svd(z, compute_uv=False)
    gap = abs((rest * z).sum() - t * sigma.sum())
    require(gap, slack * (norm(w) + t * np.sqrt(len(sigma))), "prox: gap", kind)
    u, sigma, vt = np.linalg.svd(w, full_matrices=False)
    oracle = norm((u * sigma) @ vt - w)
    require(norm(z - (u * np.maximum(sigma - t, 0)) @ vt), slack + oracle, "prox", kind)


def check(kernels, element, shape, shift=0, out_shift=0, kinds=KINDS):
    """Values with and without subgradients, proxes, also in place; gives all results as bytes."""
    if shape in LARGE:
        kinds = ("graded", "nan", "random")
    stored = tight(make_batch(element, shape, kinds), shift)
    t = tight(make_thresholds(kinds, shape))
    unit, z = (blank(stored.shape, stored.dtype, out_shift) for _ in range(2))
    value = kernels.trace_norm_value(element, stored, unit)
    kernels.trace_norm_prox(element, stored, t, z)
    for b, kind in enumerate(kinds):
        w, u_b, z_b = (element.decode(x[b]).astype(float) for x in (stored, unit, z))
        if kind in ("nan", "inf"):
            assert np.isnan(value[b]), f"value of {kind}"
            assert np.isnan(u_b).all(), f"gradient of {kind}"
        else:
            check_value(element, w, kind, value[b], u_b)
        if kind in ("nan", "inf", "bad threshold"):
            assert np.isnan(z_b).all(), f"prox of {kind}"
        else:
            check_prox(element, w, kind, t[b], z_b)
    alone = kernels.trace_norm_value(element, stored, None)
    assert alone.tobytes() == value.tobytes(), "value alone"
    last = tight(stored[-1:], shift)
    kernels.trace_norm_prox(element, last, t[-1:], last)
    assert last.tobytes() == z[-1:].tobytes(), "bits of a matrix alone, in place"
    in_place = tight(stored, out_shift)
    kernels.trace_norm_prox(element, in_place, t, in_place)
    assert in_place.tobytes() == z.tobytes(), "in place"
    return b"".join(x.tobytes() for x in (value, unit, z))


def check_scales(kernels, element):
    """f(2ᵏw) = 2ᵏf(w) to the bit, up to the ends of the range."""
    powers = {"float64": (-900, 900), "float16": (-3, 3)}.get(element.name, (-90, 90))
    stored = make_batch(element, (7, 5), ("random", "repeated"))
    w = element.decode(stored).astype(float)

    def results(scale):
        scaled = tight(element.encode(w * scale))
        unit, z = (blank(stored.shape, stored.dtype) for _ in range(2))
        value = kernels.trace_norm_value(element, scaled, unit)
        kernels.trace_norm_prox(element, scaled, tight(np.full(2, 0.6 * scale)), z)
        return value / scale, unit, element.decode(z).astype(float) / scale

    for power in powers:
        for plain, scaled in zip(results(1.0), results(2.0**power), strict=True):
            assert plain.tobytes() == scaled.tobytes(), ("bits", power)


def check_subnormal(kernels, element):
    """The smallest numbers there are, and the largest."""
    whole = np.random.default_rng(0).integers(-9, 9, (3, 4, 6))
    stored = (whole < 0).astype(f"u{element.storage().itemsize}")
    stored = stored << 8 * stored.itemsize - 1 | abs(whole).astype(stored.dtype)  # sign and size
    stored = tight(stored.view(element.storage))
    z = kernels.trace_norm_prox(
        element, stored, tight(np.zeros(3)), blank(stored.shape, stored.dtype)
    )
    assert (element.decode(z) == element.decode(stored)).all(), "prox of subnormal numbers"
    most = {"float16": 65504.0, "bfloat16": 3.0e38}.get(element.name, 1.7e308)
    large = element.encode(np.full((1, 2, 2), np.float32(3e38) if element.code == 0 else most))
    z = kernels.trace_norm_prox(
        element, tight(large), tight(np.zeros(1)), blank(large.shape, large.dtype)
    )
    error = norm(element.decode(z) / element.decode(large) - 1)
    require(error, 128 * element.unit + 2 * element.rounding, "prox of large numbers")


def check_long_offsets(kernels):
    """The last block of more than 2³¹ elements, in memory that is never touched before it."""
    element = next(e for e in ELEMENTS if e.name == "bfloat16")
    batch, side = 2**25 + 16, 8
    of_block = kernels.workspace("trace_norm_matrices", side, side)
    w, out = (np.frombuffer(mmap.mmap(-1, 128 * batch), np.uint16) for _ in range(2))
    w, out = (x.reshape(batch, side, side) for x in (w, out))
    w[-1] = element.encode(np.diag(np.arange(side) + 1.0))
    t = np.frombuffer(mmap.mmap(-1, 8 * batch), np.float64)
    value = np.frombuffer(mmap.mmap(-1, 4 * batch), np.float32)
    t[-1] = 2.0
    with kernels.only_block((batch - 1) // of_block):
        kernels.call("trace_norm_value", element.code, w, batch, side, side, value, out)
        assert value[-1] == 36, "value"
        assert (element.decode(out[-1]) == np.eye(side)).all(), "gradient"
        kernels.trace_norm_prox(element, w, t, out)
    wanted = np.diag(np.maximum(np.arange(side) - 1.0, 0))
    assert (element.decode(out[-1]) == wanted).all(), "prox"


def check_sizes(kernels):
    """How many matrices a block takes; none where one does not fit; a batch of none."""
    sizes = {(3, 2): 64, (8, 8): 16, (32, 32): 1, (64, 128): 1, (4000, 1): 1,
             (65, 65): 0, (20000, 1): 0, (400, 64): 0, (2**40, 2): 0, (2, 2**40): 0}  # fmt: skip
    for shape, count in sizes.items():
        found = kernels.workspace("trace_norm_matrices", *shape)
        assert found == count, (shape, found)
    try:
        kernels.call("trace_norm_value", 0, None, 1, 65, 65, None, None)
    except ShimError as error:
        assert "too large" in str(error), error
    else:
        raise AssertionError("matrices that are too large were launched")
