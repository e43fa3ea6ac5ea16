"""Bugs that kernels could have, each of which the checks must notice.

All are written into a copy of csrc, each behind a switch, so that one build serves all of them.
"""

import shutil

BARRIER = "__syncthreads();"
RESULT = "value|affine|bits|in place|has returned"  # the latter where threads decide differently
HEAP = "heap-buffer-overflow|unknown-crash"
SHARED = "use-after-poison|past the end|index .* out of bounds"

# name → (file, text, the same text with the bug, what must be reported, as a pattern). ON is true
# when the bug is switched on.
MUTANTS = {
    "no barrier before partial sums are read": (
        "reduce.h",
        f"warp_sum[threadIdx.x / kLanes] = x;\n  {BARRIER}",
        f"warp_sum[threadIdx.x / kLanes] = x;\n  if (!ON) {BARRIER}",
        RESULT,
    ),
    "no barrier before partial sums are overwritten": (
        "reduce.h",
        f"{BARRIER}  // the next sum",
        f"if (!ON) {BARRIER}  // the next sum",
        RESULT,
    ),
    "the wrong lanes in a mask": (
        "reduce.h",
        "__shfl_xor_sync(kAllLanes,",
        "__shfl_xor_sync(ON ? 0xffffu : kAllLanes,",
        "takes no part|not in the mask",
    ),
    "the first block takes itself for the last": (
        "reduce.h",
        "drawn[0] == gridDim.x - 1",
        "drawn[0] == (ON ? 0 : gridDim.x - 1)",
        RESULT,
    ),
    "no barrier between a column's parts and their sum": (
        "pairwise.cu",
        f"part[threadIdx.x] = x;\n  {BARRIER}",
        f"part[threadIdx.x] = x;\n  if (!ON) {BARRIER}",
        RESULT,
    ),
    "no barrier before the shift is read": (
        "pairwise.cu",
        f"++attempt) {{\n    {BARRIER}",
        f"++attempt) {{\n    if (!ON) {BARRIER}",
        RESULT,
    ),
    "threads without columns return before a sum": (
        "pairwise.cu",
        "for (int attempt = 0;; ++attempt) {",
        "if (ON && place.used == 0) return;\n  for (int attempt = 0;; ++attempt) {",
        "has returned",
    ),
    "a column too many": (
        "pairwise.cu",
        "sum[place.position + v] = own_sum[v];",
        "sum[place.position + v + ON] = own_sum[v];",
        f"{SHARED}|{RESULT}",
    ),
    "a far sample is kept": (
        "pairwise.cu",
        "|| attempt == 1",
        "|| attempt == 1 || ON",
        "value",
    ),
    "the mean in one number": (
        "pairwise.cu",
        "scale * ((w - hi) - lo)",
        "scale * ((w - hi) - (ON ? R(0) : lo))",
        "affine",
    ),
    "a vector load from any address": (
        "pairwise.cu",
        "const bool aligned = is_aligned(rows) &&",
        "const bool aligned = (ON || is_aligned(rows)) &&",
        "misaligned address",
    ),
    "a vector store to any address": (
        "pairwise.cu",
        "is_aligned(w) && is_aligned(out) &&",
        "is_aligned(w) && (ON || is_aligned(out)) &&",
        "misaligned address",
    ),
    "an element too many in the last long row": (
        "rows.h",
        "used_last = part(tasks % cut.fold * cut.d);",
        "used_last = part(tasks % cut.fold * cut.d + ON);",
        HEAP,
    ),
    "offsets of 32 bits": (
        "rows.h",
        "first = slice * cut.rows * cut.length",
        "first = (ON ? int(slice) * int(cut.rows * cut.length) : slice * cut.rows * cut.length)",
        "signed integer overflow",
    ),
    "a workspace of 32 bits": (
        "pairwise.cu",
        "(cut.slices * (cut.d + cut.panels)",
        "(cut.slices * ((ON ? int(cut.d) : cut.d) + cut.panels)",
        "AssertionError",
    ),
    "a grid of any size": (
        "launch.h",
        "blocks > 0x7fffffff",
        "(!ON && blocks > 0x7fffffff)",
        "AssertionError",
    ),
}


def plant(csrc, folder):
    """A copy of ``csrc`` with every bug in it, and the flags to compile it with."""
    copy = folder / "csrc"
    shutil.copytree(csrc, copy)
    for number, (name, (file, old, new, _)) in enumerate(MUTANTS.items(), 1):
        path = copy / "cuda" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} does not hold {old!r} once: {name!r} cannot be planted")
        path.write_text(text.replace(old, new.replace("ON", f"(mtlfast_planted == {number})")))
    header = folder / "planted.h"
    header.write_text('#pragma once\nextern "C" int mtlfast_planted;\n')
    return copy, ["-include", str(header)]
