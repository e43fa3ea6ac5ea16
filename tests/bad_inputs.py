"""The table of bad inputs: it maps a function to [(call, what it refuses), …].

A row is what the call is given, the class of the error, and the message after "function: ".
"""

import functools
import inspect

import torch
from bad_graphs import (
    FLOATS,
    INF,
    NAN,
    constant_rows,
    edge_rows,
    forms_rows,
    indefinite_rows,
    learn,
    learnable_rows,
    matrix_rows,
    negative_rows,
    omega_rows,
    with_entry,
)

from mtlfast import (
    LowRank,
    TaskGraph,
    gram_reg,
    graph_prox,
    graph_reg,
    graph_total_variation,
    graph_total_variation_prox,
    group_lasso,
    group_lasso_prox,
    pairwise_prox,
    pairwise_reg,
    ridge_prox,
    ridge_reg,
    trace_norm,
    trace_norm_prox,
)

W = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
HEAD = torch.ones(2, 3)
CHAIN = TaskGraph.chain(4)


def w_rows(scalar="[K, *], got a tensor without dimensions"):
    """What is refused as W."""
    same = "all tensors of W must have the same"
    return [
        ("W", TypeError, "W must be a tensor, got str"),
        (None, TypeError, "W must be a tensor, got NoneType"),
        (W.numpy(), TypeError, "W must be a tensor, got ndarray"),
        (W.long(), TypeError, f"W must be {FLOATS}, got torch.int64"),
        (W.bool(), TypeError, f"W must be {FLOATS}, got torch.bool"),
        (W.to(torch.complex64), TypeError, f"W must be {FLOATS}, got torch.complex64"),
        (W.to(torch.float8_e4m3fn), TypeError, f"W must be {FLOATS}, got torch.float8_e4m3fn"),
        (W.to_sparse(), TypeError, "W must be a dense tensor, got torch.sparse_coo"),
        (torch.tensor(1.0), ValueError, f"W must have shape {scalar}"),
        ([], ValueError, "W must hold at least one tensor, got an empty list"),
        ([W, 3], TypeError, "W[1] must be a tensor, got int"),
        ([W, W.int()], TypeError, f"W[1] must be {FLOATS}, got torch.int32"),
        (
            [HEAD, HEAD, HEAD.t()],
            ValueError,
            f"{same} shape, got [2, 3] at position 0 and [3, 2] at position 2",
        ),
        (
            (HEAD, HEAD.double()),
            TypeError,
            f"{same} dtype, got torch.float32 at position 0 and torch.float64 at position 1",
        ),
        (
            [HEAD, HEAD.to("meta")],
            ValueError,
            f"{same} device, got cpu at position 0 and meta at position 1",
        ),
    ]


def reduction_rows():
    rule = 'reduction must be "sum" or "mean", got'
    return [(bad, ValueError, f"{rule} {bad!r}") for bad in ("none", None, 1)]


def number_rows(argument, least=">= 0"):
    rule = f"{argument} must be"
    tensor = f"{rule} a number, got a tensor of shape"
    rows = [
        (-0.5, ValueError, f"{rule} finite and {least}, got -0.5"),
        (NAN, ValueError, f"{rule} finite and {least}, got nan"),
        (INF, ValueError, f"{rule} finite and {least}, got inf"),
        ("1", TypeError, f"{rule} a number, got str"),
        (True, TypeError, f"{rule} a number, got bool"),
        (1j, TypeError, f"{rule} a number, got complex"),
        (torch.ones(2), TypeError, f"{tensor} [2], dtype torch.float32, requires_grad=False"),
        (torch.tensor(1), TypeError, f"{tensor} [], dtype torch.int64, requires_grad=False"),
    ]
    return (
        rows if least == ">= 0" else [(0.0, rows[0][1], f"{rule} finite and > 0, got 0.0"), *rows]
    )


def trace_rows():
    batch = torch.zeros(2, 2, 3)
    batch[1, 0, 2] = INF
    return [
        *w_rows("[..., m, n], got []"),
        (W[0], ValueError, "W must have shape [..., m, n], got [3]"),
        (with_entry(NAN), ValueError, "W must be finite, got nan at index (0, 1)"),
        (with_entry(-INF, (2, 3)), ValueError, "W must be finite, got -inf at index (2, 3)"),
        (learn(with_entry(NAN)), ValueError, "W must be finite, got nan at index (0, 1)"),
        (batch.half(), ValueError, "W must be finite, got inf at index (1, 0, 2)"),
        ([HEAD[0], HEAD[1] * NAN], ValueError, "W must be finite, got nan at index (1, 0)"),
    ]


def threshold_rows():
    least = "threshold must be finite and >= 0, got"
    numbers = [row for row in number_rows("threshold") if not isinstance(row[0], torch.Tensor)]
    return [
        *numbers,
        (torch.tensor(-1.0), ValueError, f"{least} -1.0 at index ()"),
        (torch.tensor(NAN), ValueError, f"{least} nan at index ()"),
        (torch.tensor(1), TypeError, f"threshold must be {FLOATS}, got torch.int64"),
        (torch.ones(2), ValueError, "threshold must broadcast to the batch shape [], got [2]"),
        (
            torch.ones((), device="meta"),
            ValueError,
            "threshold must be on W's device cpu, got meta",
        ),
    ]


def finite_rows():
    """What a prox refuses that looks at all of W."""
    wanted = "W must be a plain tensor that needs no gradient, got one to differentiate"
    return [
        (with_entry(NAN), ValueError, "W must be finite, got nan at index (0, 1)"),
        (with_entry(-INF, (2, 3)), ValueError, "W must be finite, got -inf at index (2, 3)"),
        (learn(W), NotImplementedError, wanted),
    ]


def fixed(rows):
    """Without pairs whose weights require grad, which are refused for that first."""
    return [row for row in rows if not getattr(row[0][1], "requires_grad", False)]


def max_iter_rows():
    return [
        (0, ValueError, "max_iter must be >= 1, got 0"),
        (10.0, TypeError, "max_iter must be an integer, got float"),
        (True, TypeError, "max_iter must be an integer, got bool"),
        (None, TypeError, "max_iter must be an integer, got NoneType"),
    ]


def moved(value, device):
    """A bad input on another device, and just as bad; what is on ``meta`` is there for a reason."""
    if isinstance(value, (list, tuple)):
        return type(value)(moved(part, device) for part in value)
    if isinstance(value, LowRank):
        return LowRank(moved(value.factor, device))
    if isinstance(value, TaskGraph):
        return value if value.device.type == "meta" else value.to(device)
    if not isinstance(value, torch.Tensor) or value.device.type == "meta":
        return value
    return value.detach().to(device).requires_grad_(value.requires_grad)


def rows_for(W):
    """(call, bad input, class of the error, message) of all rows, on the device of W."""
    for name, groups in table(W, CHAIN.to(W.device)).items():
        for call, rows in groups:
            for bad, kind, rule in rows:
                message = f"{name}: {rule}".replace("cpu", str(W.device))
                yield call, moved(bad, W.device), kind, message


def looking(function, W):
    """A trace-norm function that looks at the values of W, which only the CPU does unasked."""
    if W.is_cpu or "check" not in inspect.signature(function).parameters:
        return function
    return functools.partial(function, check=True)


def table(W, CHAIN):
    """function → [(call, what it refuses), …] for W and a graph on any device."""
    omega = torch.eye(4, device=W.device)
    norm, prox = looking(trace_norm, W), looking(trace_norm_prox, W)
    return {
        "pairwise_reg": [
            (pairwise_reg, w_rows()),
            (lambda bad: pairwise_reg(W, reduction=bad), reduction_rows()),
        ],
        "pairwise_prox": [
            (lambda bad: pairwise_prox(bad, 0.1), w_rows()),
            (lambda bad: pairwise_prox(W, bad), number_rows("step")),
        ],
        "graph_reg": [
            (lambda bad: graph_reg(bad, CHAIN), w_rows()),
            (
                lambda bad: graph_reg(W, bad),
                [*forms_rows(), *edge_rows(), *matrix_rows(), *learnable_rows()],
            ),
            (lambda bad: graph_reg(W, CHAIN, reduction=bad), reduction_rows()),
        ],
        "graph_prox": [
            (lambda bad: graph_prox(bad, CHAIN, 0.1), w_rows()),
            (
                lambda bad: graph_prox(W, bad, 0.5),
                [*forms_rows(), *matrix_rows(), *constant_rows(), *indefinite_rows()],
            ),
            (lambda bad: graph_prox(W, CHAIN, bad), number_rows("step")),
            (lambda bad: graph_prox(W, CHAIN, 0.1, tol=bad), number_rows("tol", "> 0")),
            (lambda bad: graph_prox(W, CHAIN, 0.1, max_iter=bad), max_iter_rows()),
        ],
        "graph_total_variation": [
            (lambda bad: graph_total_variation(bad, CHAIN), w_rows()),
            (
                lambda bad: graph_total_variation(W, bad),
                [*forms_rows(), *fixed(edge_rows()), *matrix_rows(), *constant_rows()],
            ),
            (lambda bad: graph_total_variation(W, CHAIN, reduction=bad), reduction_rows()),
        ],
        "graph_total_variation_prox": [
            (lambda bad: graph_total_variation_prox(bad, CHAIN, 0.1), w_rows()),
            (lambda bad: graph_total_variation_prox(bad, CHAIN, 0.1), finite_rows()),
            (
                lambda bad: graph_total_variation_prox(W, bad, 0.5),
                [*forms_rows(), *matrix_rows(), *constant_rows(), *negative_rows()],
            ),
            (lambda bad: graph_total_variation_prox(W, CHAIN, bad), number_rows("step")),
            (
                lambda bad: graph_total_variation_prox(W, CHAIN, 0.1, tol=bad),
                number_rows("tol", "> 0"),
            ),
            (lambda bad: graph_total_variation_prox(W, CHAIN, 0.1, max_iter=bad), max_iter_rows()),
        ],
        "gram_reg": [
            (lambda bad: gram_reg(bad, omega), w_rows()),
            (lambda bad: gram_reg(W, bad), omega_rows()),
            (lambda bad: gram_reg(W, omega, reduction=bad), reduction_rows()),
        ],
        "group_lasso": [(group_lasso, w_rows())],
        "group_lasso_prox": [
            (lambda bad: group_lasso_prox(bad, 0.1), w_rows()),
            (lambda bad: group_lasso_prox(W, bad), number_rows("threshold")),
        ],
        "ridge_reg": [
            (ridge_reg, w_rows()),
            (lambda bad: ridge_reg(W, strength=bad), number_rows("strength")),
        ],
        "ridge_prox": [
            (lambda bad: ridge_prox(bad, 0.1), w_rows()),
            (lambda bad: ridge_prox(W, bad), number_rows("step")),
        ],
        "trace_norm": [(norm, trace_rows())],
        "trace_norm_prox": [
            (lambda bad: prox(bad, 0.1), trace_rows()),
            (lambda bad: prox(W, bad), threshold_rows()),
        ],
    }
