"""The bugs that the sanitizers must notice: one for each way an array of a kernel could be misused.

All of them are written into a copy of the sources, each behind a switch, an environment variable
that names it, so that one build serves all.
"""

import sys

HEAP = "heap-buffer-overflow|unknown-crash"  # the latter for a vector across the end
STACK = "stack-buffer-overflow|out of bounds|insufficient space"  # whichever check comes first

# name → (file, text, the same text with the bug, what a sanitizer must say, as a pattern). ON is
# true when the bug is switched on.
BUGS = {
    "read past the last row": (
        "common/edges.h",
        "return p + Lanes::N <= end ?",
        "return ON || p + Lanes::N <= end ?",
        HEAP,
    ),
    "look ahead past the last edge": (
        "common/edges.h",
        "k + kPrefetch < count ?",
        "ON || k + kPrefetch < count ?",
        HEAP,
    ),
    "write past the last element": (
        "common/lanes.h",
        "l < n; ++l) p[l] = part[l];",
        "l < n + ON; ++l) p[l] = part[l];",
        HEAP,
    ),
    "load a vector as if aligned": (
        "common/lanes.h",
        "  V v;\n  std::memcpy(&v, p, sizeof v);",
        "  V v;\n  if (ON) return *reinterpret_cast<const V*>(p);\n  std::memcpy(&v, p, sizeof v);",
        "misaligned address",
    ),
    "merge a column too many": (
        "common/centered.h",
        "j < columns; ++j) average[j] /= double(K);",
        "j < columns + ON; ++j) average[j] /= double(K);",
        STACK,
    ),
    "free scratch memory early": (
        "common/parallel.h",
        "    data_ = static_cast<T*>(memory);",
        "    data_ = static_cast<T*>(memory);\n    if (ON) free(memory);",
        "heap-use-after-free",
    ),
    "take the last rows for whole": (
        "cpu/pairwise.cpp",
        "K * d - i * width < width ?",
        "!ON && K * d - i * width < width ?",
        HEAP,
    ),
    "take a strip too many": (
        "cpu/pairwise.cpp",
        "(end < whole ? end : whole) - begin,",
        "(end < whole ? end : whole) - begin + ON,",
        HEAP,
    ),
    "take the last block for whole": (
        "cpu/ridge.cpp",
        "(b + 1) * kBlock < n ?",
        "ON || (b + 1) * kBlock < n ?",
        HEAP,
    ),
    "keep no room for the rest of the mean": (
        "cpu/quadratic.cpp",
        "pairs != 0 ? 2 * d : 1",
        "pairs != 0 ? 2 * d - ON : 1",
        HEAP,
    ),
    "read a column of the mean too many": (
        "cpu/graph.cpp",
        "load_part(lo + l, n)",
        "load_part(lo + l, n + ON)",
        HEAP,
    ),
    "square a column too many": (
        "cpu/group_lasso.cpp",
        "j < (NV - 1) * N + last; ++j) sum[j]",
        "j < (NV - 1) * N + last + ON * kPanel; ++j) sum[j]",
        STACK,
    ),
    "scale the last rows as if they were whole": (
        "cpu/group_lasso.cpp",
        "K * d - i * width < width ?",
        "!ON && K * d - i * width < width ?",
        HEAP,
    ),
    "step on a pair too many": (
        "cpu/edge_dual.cpp",
        "for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1]; ++e) {",
        "for (int64_t e = pairs.out_ptr[i]; e < pairs.out_ptr[i + 1] + ON; ++e) {",
        HEAP,
    ),
    "take a short row of a pair for a vector": (
        "cpu/edge_dual.cpp",
        "if (d < kN) return",
        "if (!ON && d < kN) return",
        HEAP,
    ),
    "count a row too many": (
        "cpu/graph.cpp",
        "const int64_t end = chunks.first_row(c + 1);",
        "const int64_t end = chunks.first_row(c + 1) + ON;",
        HEAP,
    ),
    "take the last tile for whole": (
        "cpu/dense_graph.cpp",
        "K - j < kTile ?",
        "!ON && K - j < kTile ?",
        HEAP,
    ),
    "load a row of the relation matrix as if it went on": (
        "cpu/gram_tiles.h",
        "return K - j >= Lane<T>::N ?",
        "return ON || K - j >= Lane<T>::N ?",
        HEAP,
    ),
    "store the last block of tasks for whole": (
        "cpu/gram.cpp",
        "K_ - I * kTile < kTile ?",
        "!ON && K_ - I * kTile < kTile ?",
        HEAP,
    ),
    "list an entry too many": (
        "cpu/gram_edges.cpp",
        "k < entries_.row_begin[i + 1];",
        "k < entries_.row_begin[i + 1] + ON;",
        HEAP,
    ),
    "write past the last column of a task": (
        "cpu/gram_edges.cpp",
        "if (width >= 8)",
        "if (ON || width >= 8)",
        HEAP,
    ),
    "pad as if the last row went on": (
        "common/gram_matrix.h",
        "for (; j + N <= d; j += N)",
        "for (; j + !ON * N <= d; j += N)",
        HEAP,
    ),
    "forget the panels": (
        "cpu/group.cpp",
        "d - column < kPanel ?",
        "ON || d - column < kPanel ?",
        STACK,
    ),
    "scratch one element short": (
        "cpu/conjugate_gradients.h",
        "inverse_(n_),",
        "inverse_(n_ - ON),",
        HEAP,
    ),
    "substitute a row too many": (
        "cpu/elimination.h",
        "sum_row(i, i + 1, n, 1);",
        "sum_row(i, i + 1, n + ON, 1);",
        HEAP,
    ),
    "take the end of a task for whole": (
        "cpu/graph_total_variation.cpp",
        "if (n >= N) return Lanes::load(p);",
        "if (ON || n >= N) return Lanes::load(p);",
        HEAP,
    ),
    "take the last elements of a matrix for whole": (
        "common/batch.h",
        "const bool whole = k + Lane<T>::N <= width;",
        "const bool whole = ON || k + Lane<T>::N <= width;",
        HEAP,
    ),
    "add exponents in int": (
        "common/batch.h",
        "sign * exponent[l] / 2;",
        "sign * (exponent[l] + ON * 2147483647) / 2;",
        "signed integer overflow",
    ),
    "take the last tile of the product for whole": (
        "cpu/trace_norm_gram.cpp",
        "if (left >= 16)",
        "if (ON || left >= 16)",
        HEAP,
    ),
    "add a row too many to the Gram matrix": (
        "cpu/trace_norm_gram.cpp",
        "end - r < step ? end - r : step;\n    pack",
        "end - r < step ? end - r + ON : step;\n    pack",
        HEAP,
    ),
}
SWITCH = """#include <cstdlib>
#include <cstring>
namespace mtlfast {
inline bool planted(const char* name) {
  const char* chosen = std::getenv("MTLFAST_PLANTED");
  return chosen != nullptr && std::strcmp(chosen, name) == 0;
}
}
"""


def replace_once(path, old, new):
    text = path.read_text()
    if old not in text:
        sys.exit(f"sanitize: {path.name} does not hold {old!r}: the bug cannot be planted")
    path.write_text(text.replace(old, new, 1))


def plant(folder):
    """All bugs in one build, each behind its switch; one instruction set is enough here."""
    for name, (file, old, new, _) in BUGS.items():
        switched = new.replace("ON", f'::mtlfast::planted("{name}")')
        replace_once(folder / "csrc" / file, old, switched)
    replace_once(folder / "csrc/types.h", "#pragma once\n", f"#pragma once\n{SWITCH}")
    replace_once(
        folder / "csrc/common/lanes.h", "#pragma once\n", '#pragma once\n#include "types.h"\n'
    )
    replace_once(folder / "setup.py", "X86_64 = platform", "X86_64 = False and platform")
