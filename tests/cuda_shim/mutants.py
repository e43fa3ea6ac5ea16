"""Bugs that kernels could have, each of which the checks must notice.

All are written into a copy of csrc, each behind a switch, so that one build serves all of them.
"""

import shutil

BARRIER = "__syncthreads();"
RESULT = "value|affine|gradient|distance|bits|in place|has returned"  # the last: threads disagree
HEAP = "heap-buffer-overflow|unknown-crash"
SHARED = "use-after-poison|past the end|index .* out of bounds"

RACE = "data race"

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
    "part vectors taken for whole": (
        "rows.h",
        "part.x[v] = v < n ?",
        "part.x[v] = ON || v < n ?",
        HEAP,
    ),
    "groups of a warp that stop when they are done": (
        "edges.h",
        "most = warp_max(count);",
        "most = ON ? count : warp_max(count);",
        "has returned|waits at",
    ),
    "an edge too many": (
        "edges.h",
        "if (done + lane < count) {",
        "if (done + lane < count + ON) {",
        f"{HEAP}|{RESULT}",
    ),
    "edges of weight zero": (
        "edges.h",
        "if (s[u] == 0) continue;",
        "if (!ON && s[u] == 0) continue;",
        RESULT,
    ),
    "weights from another group": (
        "edges.h",
        "s[u] = __shfl_sync(kAllLanes, weight, e + u, lanes);",
        "s[u] = __shfl_sync(kAllLanes, weight, e + u, ON ? kLanes : lanes);",
        RESULT,
    ),
    "neighbours at offsets of 32 bits": (
        "edges.h",
        "int64_t(j[u]) * d",
        "(ON ? j[u] * int(d) : int64_t(j[u]) * d)",
        "signed integer overflow",
    ),
    "a tile too many": (
        "graph.cu",
        "t < tiles.count && t * kTile < end",
        "t < tiles.count + ON && t * kTile < end",
        HEAP,
    ),
    "the edges behind the tiles": (
        "graph.cu",
        "const bool is_before = is_tiled &&",
        "const bool is_before = !ON && is_tiled &&",
        RESULT,
    ),
    "groups of a tile that are not added up": (
        "graph.cu",
        "for (int step = lanes; step < kLanes;",
        "for (int step = lanes << ON; step < kLanes;",
        RESULT,
    ),
    "each tile of a row writes it": (
        "graph.cu",
        "(first > 0 && tiles.row",
        "(!ON && first > 0 && tiles.row",
        RESULT,
    ),
    "a gradient off the alignment of vectors": (
        "graph.cu",
        "is_aligned(rows) && is_aligned(gradient.out) &&",
        "is_aligned(rows) && (ON || is_aligned(gradient.out)) &&",
        "misaligned address",
    ),
    "an edge behind the last": (
        "graph.cu",
        "if (e < E && int(threadIdx.x) % lanes == 0) out[e]",
        "if (e < E + ON && int(threadIdx.x) % lanes == 0) out[e]",
        HEAP,
    ),
    "lanes without columns return before a sum": (
        "graph.cu",
        "if (own.used == 0) break;",
        "if (own.used == 0) {\n      if (ON) return;\n      break;\n    }",
        "has returned",
    ),
    "a tile overwritten while it is used": (
        "dense_graph.cu",
        f"{BARRIER}  // all have read the tile",
        f"if (!ON) {BARRIER}  // all have read the tile",
        RESULT,
    ),
    "weights added before they are there": (
        "dense_graph.cu",
        f"{BARRIER}\n  for (int q = part",
        f"if (!ON) {BARRIER}\n  for (int q = part",
        RESULT,
    ),
    "tasks behind the last": (
        "dense_graph.cu",
        "if (grad != nullptr && i < K) {",
        "if (grad != nullptr && i < K + ON) {",
        HEAP,
    ),
    "a panel without a stride of its own": (
        "dense_graph.cu",
        "x[q * (width + 1) + c] = exists",
        "x[(ON ? q * (kPanel + 2) : q * (width + 1)) + c] = exists",
        f"{SHARED}|{RESULT}",
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

# The same for what ThreadSanitizer alone can see: results are right in the natural order.
RACES = {
    "a sum overwritten while it is read": (
        "reduce.h",
        f"{BARRIER}  // the next sum",
        f"if (!ON) {BARRIER}  // the next sum",
        RACE,
    ),
    "a value written by every thread": (
        "graph.cu",
        "if (threadIdx.x == 0) *value",
        "if (ON || threadIdx.x == 0) *value",
        RACE,
    ),
    "a row written by two groups": (
        "graph.cu",
        "if (int(threadIdx.x) % kLanes < lanes) keep",
        "if (ON || int(threadIdx.x) % kLanes < lanes) keep",
        RACE,
    ),
    "blocks counted without an atomic": (
        "reduce.h",
        "drawn[0] = atomicAdd(ticket, 1u);",
        "drawn[0] = ON ? (*ticket)++ : atomicAdd(ticket, 1u);",
        RACE,
    ),
}


def plant(csrc, folder, mutants):
    """A copy of ``csrc`` with every one of these bugs in it, and the flags to compile it with."""
    copy = folder / "csrc"
    shutil.copytree(csrc, copy)
    for number, (name, (file, old, new, _)) in enumerate(mutants.items(), 1):
        path = copy / "cuda" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} does not hold {old!r} once: {name!r} cannot be planted")
        path.write_text(text.replace(old, new.replace("ON", f"(mtlfast_planted == {number})")))
    header = folder / "planted.h"
    header.write_text('#pragma once\nextern "C" int mtlfast_planted;\n')
    return copy, ["-include", str(header)]
