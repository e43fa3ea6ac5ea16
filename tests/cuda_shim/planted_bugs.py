"""Bugs that kernels could have, each of which the checks must notice.

All are written into a copy of csrc, each behind a switch, so that one build serves all of them.
"""

import shutil

BARRIER = "__syncthreads();"
RESULT = (
    "value|affine|gradient|distance|prox|bits|in place|has returned"  # the last: threads disagree
)
HEAP = "heap-buffer-overflow|unknown-crash"
SHARED = "use-after-poison|past the end|index .* out of bounds"

RACE = "data race"

# name → (file, text, the same text with the bug, what must be reported, as a pattern). ON is true
# when the bug is switched on.
BUGS = {
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
        "rows.h",
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
    "a large group that is also done as a small one": (
        "group.cu",
        "n < 2 || n > kTile ||",
        "n < 2 || (!ON && n > kTile) ||",
        "value",
    ),
    "tiles of small groups": (
        "group.cu",
        "= n > kTile ? g : -1;",
        "= ON || n > kTile ? g : -1;",
        "value",
    ),
    "what a group has before its first tile": (
        "group.cu",
        "least = tasks(0) > 0 ?",
        "least = !ON && tasks(0) > 0 ?",
        RESULT,
    ),
    "a tile that starts from a row of its own": (
        "group.cu",
        "load_origin<ALIGNED>(w, groups, part.begin,",
        "load_origin<ALIGNED>(w, groups, ON ? part.from : part.begin,",
        RESULT,
    ),
    "shares of a tile that are not added up": (
        "group.cu",
        "for (int step = groups.lanes; step",
        "for (int step = groups.lanes << ON; step",
        RESULT,
    ),
    "a strip's sums read before they are there": (
        "group.cu",
        f"sums[threadIdx.x] = sum;\n    {BARRIER}",
        f"sums[threadIdx.x] = sum;\n    if (!ON) {BARRIER}",
        RESULT,
    ),
    "a strip's sums overwritten by the next": (
        "group.cu",
        f"{BARRIER}  // the next strip",
        f"if (!ON) {BARRIER}  // the next strip",
        RESULT,
    ),
    "distances to a mean of one number": (
        "group.cu",
        "x = (wv - hi[v]) - lo[v];",
        "x = (wv - hi[v]) - (ON ? 0 : lo[v]);",
        "value",
    ),
    "a member too many": (
        "group.cu",
        "if (k + u >= to) continue;",
        "if (k + u >= to + ON) continue;",
        HEAP,
    ),
    "members at offsets of 32 bits": (
        "group.cu",
        "groups.member[k + u] * groups.d +",
        "(ON ? int(groups.member[k + u]) * int(groups.d) : groups.member[k + u] * groups.d) +",
        "signed integer overflow",
    ),
    "groups off the alignment of vectors": (
        "group.cu",
        "is_aligned(w) && is_aligned(result.out) &&",
        "is_aligned(w) && (ON || is_aligned(result.out)) &&",
        "misaligned address",
    ),
    "no barrier between rounds": (
        "trace_norm.cu",
        f"{BARRIER}  // the next round",
        f"if (!ON) {BARRIER}  // the next round",
        RESULT,
    ),
    "a pair of columns that is not disjoint from the others": (
        "trace_norm.cu",
        "(round + moving - own.group) % moving",
        "(round + moving - own.group + (ON && own.group > 0)) % moving",
        RESULT,
    ),
    "a team that leaves when it has converged": (
        "trace_norm.cu",
        "if (!__syncthreads_or(turned)) break;",
        "if (ON ? !turned : !__syncthreads_or(turned)) break;",
        "has returned|waits at",
    ),
    "a single sweep": (
        "trace_norm.cu",
        "sweep < kMaxSweeps",
        "sweep < (ON ? 1 : kMaxSweeps)",
        "value",
    ),
    "columns that are nearly orthogonal": (
        "trace_norm.cu",
        "sweep < kPatience ? kOrthogonal2 :",
        "sweep < kPatience ? (ON ? 1e-12 : kOrthogonal2) :",
        RESULT,
    ),
    "matrices as they come, not scaled": (
        "trace_norm.cu",
        "if (largest < kInfinity && largest > 0) frexp",
        "if (!ON && largest < kInfinity && largest > 0) frexp",
        RESULT,
    ),
    "a matrix that is not finite taken for zero": (
        "trace_norm.cu",
        "good = good && largest < kInfinity;\n  int exponent",
        "good = good && (ON || largest < kInfinity);\n  int exponent",
        "of nan",
    ),
    "any threshold": (
        "trace_norm.cu",
        "bool good = t >= 0 &&",
        "bool good = (ON || t >= 0) &&",
        "bad threshold",
    ),
    "no barrier before columns are measured": (
        "trace_norm.cu",
        f"count, s, shared);\n  {BARRIER}",
        f"count, s, shared);\n  if (!ON) {BARRIER}",
        RESULT,
    ),
    "no barrier before the largest entry is read": (
        "trace_norm.cu",
        f"own.sigma[k] = largest;\n  }});\n  {BARRIER}",
        f"own.sigma[k] = largest;\n  }});\n  if (!ON) {BARRIER}",
        RESULT,
    ),
    "columns read again that are not all there": (
        "trace_norm.cu",
        f"{BARRIER}  // also",
        f"if (!ON) {BARRIER}  // also",
        RESULT,
    ),
    "products used before they are there": (
        "trace_norm.cu",
        f"{BARRIER}\n    each_element",
        f"if (!ON) {BARRIER}\n    each_element",
        RESULT,
    ),
    "matrices at offsets of 32 bits": (
        "trace_norm.cu",
        "load_matrices(w + first * s.m * s.n,",
        "load_matrices(w + (ON ? int(first) * s.m * s.n : first * s.m * s.n),",
        "signed integer overflow",
    ),
    "the wrong lanes in a team's sum": (
        "teams.h",
        "x[k] += __shfl_xor_sync(kAllLanes,",
        "x[k] += __shfl_xor_sync(ON ? 0xffffu : kAllLanes,",
        "takes no part|not in the mask",
    ),
    "a matrix behind the last": (
        "teams.h",
        "works = matrix < count;",
        "works = matrix < count + ON;",
        f"{HEAP}|{SHARED}|{RESULT}",
    ),
    "no room for the last column": (
        "teams.h",
        "doubles = (q + staged) * stride",
        "doubles = (q + staged - ON) * stride",
        f"{SHARED}|{RESULT}",
    ),
    "a column that does not exist": (
        "teams.h",
        "f(k, own.works && k < s.q);",
        "f(k, own.works && k < s.q + ON);",
        f"{SHARED}|{RESULT}",
    ),
    "a column's sums overwritten by the next": (
        "graph_prox.cu",
        f"{BARRIER}  // the next sum",
        f"if (!ON) {BARRIER}  // the next sum",
        f"{RESULT}|residual",
    ),
    "the edges behind a row's tiles": (
        "graph_prox.cu",
        "tiles_end * kTile, end);",
        "tiles_end * kTile, ON ? 0 : end);",
        f"{RESULT}|residual",
    ),
    "a tile's edge too many": (
        "graph_prox.cu",
        "weight[u] = k + u < to ?",
        "weight[u] = k + u < to + ON ?",
        f"{HEAP}|{RESULT}",
    ),
    "rows of threads without a group": (
        "graph_prox.cu",
        "used = group < s.groups && j < s.d;",
        "used = (ON || group < s.groups) && j < s.d;",
        f"{RESULT}|residual",
    ),
    "a column of Inf that holds the others up": (
        "graph_prox.cu",
        "if (!is_finite(norm) || norm == 0) return 0;",
        "if (!ON && (!is_finite(norm) || norm == 0)) return 0;",
        "residual",
    ),
    "a column of zeros": (
        "graph_prox.cu",
        "rz > 0 && first > 0 ? rz / first : 0;",
        "ON || (rz > 0 && first > 0) ? rz / first : 0;",
        "value",
    ),
    "a diagonal of any sign": (
        "graph_prox.cu",
        "1 / s.inverse[i] > 0 ? 0 : 1;",
        "ON || 1 / s.inverse[i] > 0 ? 0 : 1;",
        "value of a negative diagonal",
    ),
    "negative curvature": (
        "graph_prox.cu",
        "return rz > 0 && first <= 0 ? 1 : 0;",
        "return !ON && rz > 0 && first <= 0 ? 1 : 0;",
        "value of a negative curvature",
    ),
    "no limit": (
        "graph_prox.cu",
        "state.done = stops || state.iterations >= double(max_iter) ?",
        "state.done = stops || (!ON && state.iterations >= double(max_iter)) ?",
        "value at the limit",
    ),
    "rows of another task": (
        "graph_prox.cu",
        "const int64_t task = s.member != nullptr ? s.member[i] : i;\n    return double",
        "const int64_t task = !ON && s.member != nullptr ? s.member[i] : i;\n    return double",
        f"{RESULT}|residual",
    ),
    "deviations from nothing": (
        "graph_prox.cu",
        "* s.scale[j] - s.mean[j];",
        "* s.scale[j] - (ON ? 0 : s.mean[j]);",
        f"{RESULT}|residual",
    ),
    "an error that starts anywhere": (
        "graph_prox.cu",
        "s.p[k] = s.e[k] = 0;",
        "s.p[k] = 0; if (!ON) s.e[k] = 0;",
        RESULT,
    ),
    "an error of unknown size": (
        "graph_prox.cu",
        "state.size = sqrt(worst);",
        "state.size = ON ? 1 : sqrt(worst);",
        "value of the error",
    ),
    "no barrier between two pivots": (
        "graph_prox_small.cu",
        f"excess[k];\n      }}\n      {BARRIER}",
        f"excess[k];\n      }}\n      if (!ON) {BARRIER}",
        RESULT,
    ),
    "no barrier between rows that are put in": (
        "graph_prox_small.cu",
        f"b[k * kColumns + j];\n      }}\n      {BARRIER}\n    }}\n    for",
        f"b[k * kColumns + j];\n      }}\n      if (!ON) {BARRIER}\n    }}\n    for",
        RESULT,
    ),
    "a piece that is too large": (
        "graph_prox_small.cu",
        "if (count > kSmall) return;",
        "if (count > kSmall + ON) return;",
        f"{SHARED}|{RESULT}",
    ),
    "an excess that stays": (
        "graph_prox_small.cu",
        "if (lane == 0) excess[i]",
        "if (!ON && lane == 0) excess[i]",
        RESULT,
    ),
    "columns behind the last": (
        "graph_prox_small.cu",
        "const bool used = column + j < d;",
        "const bool used = ON || column + j < d;",
        f"{HEAP}|{RESULT}",
    ),
    "a piece that is not positive definite": (
        "graph_prox_small.cu",
        "positive = positive && p > 0;",
        "positive = ON || (positive && p > 0);",
        "value of the sign",
    ),
    "deviations of a small piece from nothing": (
        "graph_prox_small.cu",
        "* own.scale - own.mean;",
        "* own.scale - (ON ? 0 : own.mean);",
        RESULT,
    ),
    "a workspace of 32 bits": (
        "pairwise.cu",
        "(cut.slices * (cut.d + cut.panels)",
        "(cut.slices * ((ON ? int(cut.d) : cut.d) + cut.panels)",
        "AssertionError",
    ),
    "an end too many in the last tile": (
        "gram.cu",
        "begin + kTile : ends.M;",
        "begin + kTile : ends.M + ON;",
        HEAP,
    ),
    "a task that began in another tile is written here": (
        "gram.cu",
        "= is_head   ? parts.head",
        "= is_head && !ON ? parts.head",
        "sum|bits",
    ),
    "a task joined by each of its tiles": (
        "gram.cu",
        "== task) return;  // it began",
        "== task && !ON) return;  // it began",
        "sum|bits|" + HEAP,
    ),
    "a sum that begins with that of the task before": (
        "gram.cu",
        "for (int v = 0; v < V; ++v) sum[v] = 0;",
        "for (int v = 0; v < V; ++v) sum[v] = ON ? sum[v] : 0;",
        "sum",
    ),
    "an end's weight from the next lane": (
        "gram.cu",
        "__shfl_sync(kAllLanes, weight, e + u, lanes)",
        "__shfl_sync(kAllLanes, weight, e + u + ON, lanes)",
        "sum",
    ),
    "rows of W found with 32 bits": (
        "gram.cu",
        "column + row[e] * d",
        "column + (ON ? int64_t(int(row[e]) * int(d)) : row[e] * d)",
        "runtime error|SEGV|product",
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
    "a column's sum written by every group": (
        "graph_prox.cu",
        "if (own.group == 0 && own.used) s.partial",
        "if ((ON || own.group == 0) && own.used) s.partial",
        RACE,
    ),
    "an excess added by every lane": (
        "graph_prox_small.cu",
        "if (lane == 0) excess[i]",
        "if (ON || lane == 0) excess[i]",
        RACE,
    ),
    "an offset written by every share": (
        "group.cu",
        "if (unit.share == 0 &&",
        "if ((ON || unit.share == 0) &&",
        RACE,
    ),
    "columns turned while others read them": (
        "trace_norm.cu",
        f"{BARRIER}  // the next round",
        f"if (!ON) {BARRIER}  // the next round",
        RACE,
    ),
    "a singular value written by every lane": (
        "trace_norm.cu",
        "if (is_owner && own.lane == 0) own.sigma[k] = settled",
        "if (is_owner && (ON || own.lane == 0)) own.sigma[k] = settled",
        RACE,
    ),
    "blocks counted without an atomic": (
        "reduce.h",
        "drawn[0] = atomicAdd(ticket, 1u);",
        "drawn[0] = ON ? (*ticket)++ : atomicAdd(ticket, 1u);",
        RACE,
    ),
}


def plant(csrc, folder, bugs):
    """A copy of ``csrc`` with every one of these bugs in it, and the flags to compile it with."""
    copy = folder / "csrc"
    shutil.copytree(csrc, copy)
    for number, (name, (file, old, new, _)) in enumerate(bugs.items(), 1):
        path = copy / "cuda" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} does not hold {old!r} once: {name!r} cannot be planted")
        path.write_text(text.replace(old, new.replace("ON", f"(mtlfast_planted == {number})")))
    header = folder / "planted.h"
    header.write_text('#pragma once\nextern "C" int mtlfast_planted;\n')
    return copy, ["-include", str(header)]
