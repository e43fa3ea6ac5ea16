"""Bad graphs and bad Ω for a float32 W of four tasks, as rows of the table in bad_inputs.py."""

import numpy as np
import torch

from mtlfast import LowRank, TaskGraph

INDEX = torch.tensor([[0, 1, 2], [1, 2, 3]])
WEIGHT = torch.tensor([1.0, 0.5, 2.0])
FLOATS = "float64, float32, bfloat16 or float16"
NAN, INF = float("nan"), float("inf")


def learn(tensor):
    return tensor.clone().requires_grad_()


def unchecked_coo(index, values=(1.0, 1.0)):
    return torch.sparse_coo_tensor(index, list(values), (4, 4), check_invariants=False)


def unchecked_csr(pointer, column, values=(1.0, 1.0)):
    return torch.sparse_csr_tensor(pointer, column, list(values), (4, 4), check_invariants=False)


def with_entry(value, at=(0, 1)):
    a = torch.ones(4, 4)
    a[at] = value
    return a


class Matrix:
    """What the forms of scipy.sparse have in common."""

    format, nnz, tocoo = "coo", 0, None

    def __init__(self, *shape):
        self.shape = shape


def forms_rows():
    """What is no graph for W at all."""
    forms = (
        "graph must be a TaskGraph, a dense [K, K] tensor or array, a torch sparse COO or CSR "
        "tensor, a scipy sparse matrix, or (edge_index [2, E], edge_weight [E]), got"
    )
    tasks = "graph must have as many tasks as W, got num_tasks={} and W with K=4"
    return [
        (None, TypeError, f"{forms} NoneType"),
        ("chain", TypeError, f"{forms} str"),
        (np.ones((4, 5)), ValueError, "A must have shape [K, K] = [4, 4], got [4, 5]"),
        (np.full((4, 4), "a"), TypeError, "A must hold numbers, got dtype <U1"),
        (Matrix(4, 5), ValueError, "A must have shape [K, K] = [4, 4], got [4, 5]"),
        ([[0.0] * 4] * 4, TypeError, f"{forms} list"),
        ((INDEX, WEIGHT, None), TypeError, f"{forms} tuple"),
        (torch.eye(4).to_sparse_csc(), TypeError, f"{forms} a tensor of torch.sparse_csc"),
        (TaskGraph.chain(5), ValueError, tasks.format(5)),
        (TaskGraph.groups([0, 0, 1]), ValueError, tasks.format(3)),
        (
            TaskGraph.chain(4).to("meta"),
            ValueError,
            "graph must be on W's device cpu, got meta; move it with graph.to(device)",
        ),
    ]


def edge_rows():
    """What is refused as (edge_index, edge_weight)."""
    shape = "edge_index must have shape [2, E], got"
    length = "edge_weight must have shape [E=3], got"
    low, high = INDEX.clone(), INDEX.clone()
    low[0, 1], high[1, 2] = -1, 4
    below = "edge_index must be in [0, K=4), got -1 at position 1"
    above = "edge_index must be in [0, K=4), got 4 at position 2"
    return [
        ((high, WEIGHT), ValueError, above),
        ((high.int(), learn(WEIGHT)), ValueError, above),
        ((high.numpy(), None), ValueError, above),
        ((low, None), ValueError, below),
        ((low.to(torch.int8).tolist(), WEIGHT), ValueError, below),
        ((INDEX.float(), WEIGHT), TypeError, "edge_index must hold integers, got torch.float32"),
        ((INDEX > 1, WEIGHT), TypeError, "edge_index must hold integers, got torch.bool"),
        ((INDEX.t(), WEIGHT), ValueError, f"{shape} [3, 2]"),
        ((INDEX[0], WEIGHT), ValueError, f"{shape} [3]"),
        ((INDEX[None], learn(WEIGHT)), ValueError, f"{shape} [1, 2, 3]"),
        (
            (INDEX.to_sparse(), WEIGHT),
            TypeError,
            "edge_index must be a dense tensor, got torch.sparse_coo",
        ),
        (
            (None, WEIGHT),
            TypeError,
            "edge_index must be a tensor, a numpy array or a list, got NoneType",
        ),
        (
            (INDEX.to("meta"), WEIGHT),
            ValueError,
            "edge_index must be on W's device cpu, got meta",
        ),
        ((INDEX, WEIGHT[:2]), ValueError, f"{length} [2]"),
        ((INDEX, WEIGHT.expand(2, 3).mT), ValueError, f"{length} [3, 2]"),
        ((INDEX, WEIGHT[None]), ValueError, f"{length} [1, 3]"),
        ((INDEX, WEIGHT[:2, None]), ValueError, f"{length} [2]"),
        ((INDEX, torch.tensor(1.0)), ValueError, f"{length} []"),
        (
            (INDEX, torch.tensor([1.0, NAN, 1.0])),
            ValueError,
            "edge_weight must be finite, got nan at position 1",
        ),
        (
            (INDEX, [1.0, 1.0, INF]),
            ValueError,
            "edge_weight must be finite, got inf at position 2",
        ),
        (
            (INDEX, WEIGHT * 1j),
            TypeError,
            "edge_weight must hold real numbers, got torch.complex64",
        ),
        (
            (INDEX, 1.0),
            TypeError,
            "edge_weight must be a tensor, a numpy array or a list, got float",
        ),
        ((INDEX, ["a", "b", "c"]), TypeError, "edge_weight must hold numbers, got dtype <U1"),
        (
            (INDEX, WEIGHT.to_sparse()),
            TypeError,
            "edge_weight must be a dense tensor, got torch.sparse_coo",
        ),
        (
            (INDEX, WEIGHT.to("meta")),
            ValueError,
            "edge_weight must be on W's device cpu, got meta",
        ),
    ]


def matrix_rows():
    """What is refused as a dense or sparse A."""
    shape = "A must have shape [K, K] = [4, 4], got"
    inside = "indices of A must be in [0, K=4), got"
    pointers = "pointers of A must rise from 0 to 2 in 5 steps, got"
    return [
        (torch.ones(3, 3), ValueError, f"{shape} [3, 3]"),
        (torch.ones(4), ValueError, f"{shape} [4]"),
        (torch.ones(4, 5).to_sparse(), ValueError, f"{shape} [4, 5]"),
        (torch.ones(4, 4, device="meta"), ValueError, "A must be on W's device cpu, got meta"),
        (with_entry(NAN), ValueError, "A must be finite, got nan at position (0, 1)"),
        (with_entry(-INF, (3, 3)), ValueError, "A must be finite, got -inf at position (3, 3)"),
        (torch.ones(4, 4) * 1j, TypeError, "A must hold real numbers, got torch.complex64"),
        (unchecked_coo([[0, 4], [1, 0]]), ValueError, f"{inside} 4 at position 1"),
        (unchecked_coo([[0, 1], [-1, 0]]), ValueError, f"{inside} -1 at position 0"),
        (
            torch.ones(4, 4).to_sparse(1),
            ValueError,
            "A must store one number per entry, got stored values of shape [4, 4]",
        ),
        (
            unchecked_coo([[0, 1], [1, 2]], (1.0, NAN)),
            ValueError,
            "A must be finite, got nan at position 1",
        ),
        (unchecked_csr([0, 1, 2, 2, 2], [1, 10**9]), ValueError, f"{inside} {10**9} at position 1"),
        (unchecked_csr([0, 1, 2, 2, 2], [-7, 1]), ValueError, f"{inside} -7 at position 0"),
        (unchecked_csr([1, 1, 2, 2, 2], [1, 2]), ValueError, f"{pointers} 1 at position 0"),
        (
            unchecked_csr([0, 1, 2, 2, 10**9], [1, 2]),
            ValueError,
            f"{pointers} {10**9} at position 4",
        ),
        (unchecked_csr([0, 9, 1, 2, 2], [1, 2]), ValueError, f"{pointers} 1 after 9 at position 2"),
    ]


def learnable_rows():
    """What is refused of weights that require grad; their values are not looked at."""
    inside = "indices of A must be in [0, K=4), got"
    return [
        ((INDEX, learn(WEIGHT[:2])), ValueError, "edge_weight must have shape [E=3], got [2]"),
        (
            (INDEX, learn(WEIGHT * 1j)),
            TypeError,
            f"edge_weight must be {FLOATS}, got torch.complex64",
        ),
        (
            (INDEX, learn(WEIGHT.to_sparse())),
            TypeError,
            "edge_weight must be a dense tensor, got torch.sparse_coo",
        ),
        (learn(torch.ones(4, 4) * 1j), TypeError, "A must hold real numbers, got torch.complex64"),
        (learn(unchecked_coo([[0, 0], [1, 4]])), ValueError, f"{inside} 4 at position 1"),
        (learn(unchecked_coo([[0, 0], [1, -1]])), ValueError, f"{inside} -1 at position 1"),
        (learn(unchecked_coo([[9, 0], [1, 2]])), ValueError, f"{inside} 9 at position 0"),
        (learn(unchecked_csr([0, 1, 2, 2, 2], [1, 99])), ValueError, f"{inside} 99 at position 1"),
    ]


def constant_rows():
    """Weights that require grad, where only constants are taken."""
    rule = (
        "must not require grad, as its weights are constants here; "
        "learnable weights go to graph_reg as a plain tensor, got requires_grad=True"
    )
    return [
        (learn(torch.ones(4, 4)), ValueError, f"A {rule}"),
        (learn(torch.eye(4).to_sparse()), ValueError, f"A {rule}"),
        ((INDEX, learn(WEIGHT)), ValueError, f"edge_weight {rule}"),
    ]


def omega_rows():
    kinds = "omega must be a dense tensor, a sparse COO or CSR tensor, or a LowRank, got"
    shape = "omega must have shape [K=4, K=4], got"
    pointers = (
        "omega's row pointers must rise from 0 to the number of stored entries 2, "
        "got first {}, last {}, smallest step {}"
    )
    order = (
        "omega's column indices must rise within each row (as torch requires of CSR), "
        "got a row out of order or with a repeated column; a COO tensor may have either"
    )
    inside = "omega's {} indices must be in [0, K=4), got {} at position {}"
    return [
        (None, TypeError, f"{kinds} NoneType"),
        ("eye", TypeError, f"{kinds} str"),
        (np.eye(4), TypeError, f"{kinds} ndarray"),
        (torch.eye(4).to_sparse_csc(), TypeError, f"{kinds} torch.sparse_csc"),
        (torch.eye(3), ValueError, f"{shape} [3, 3]"),
        (torch.ones(4), ValueError, f"{shape} [4]"),
        (torch.ones(4, 5).to_sparse_csr(), ValueError, f"{shape} [4, 5]"),
        (torch.eye(4) * 1j, TypeError, "omega must hold real numbers, got torch.complex64"),
        (
            (torch.eye(4) * 1j).to_sparse(),
            TypeError,
            "omega must hold real numbers, got torch.complex64",
        ),
        (torch.eye(4).to("meta"), ValueError, "omega must be on W's device cpu, got meta"),
        (
            torch.ones(4, 4).to_sparse(1),
            ValueError,
            "omega must be sparse in both dimensions, got sparse_dim=1",
        ),
        (unchecked_coo([[0, 4], [1, 0]]), ValueError, inside.format("row", 4, 1)),
        (unchecked_coo([[0, 1], [-1, 0]]), ValueError, inside.format("column", -1, 0)),
        (unchecked_csr([0, 1, 2, 2, 2], [1, 10**9]), ValueError, inside.format("column", 10**9, 1)),
        (unchecked_csr([1, 1, 2, 2, 2], [1, 2]), ValueError, pointers.format(1, 2, 0)),
        (unchecked_csr([0, 9, 1, 2, 2], [1, 2]), ValueError, pointers.format(0, 2, -8)),
        (unchecked_csr([0, 2, 2, 2, 2], [2, 1]), ValueError, order),
        (
            LowRank(torch.ones(3, 2)),
            ValueError,
            "omega.factor must have shape [K=4, r], got [3, 2]",
        ),
        (
            LowRank(torch.ones(4, 2, device="meta")),
            ValueError,
            "omega.factor must be on W's device cpu, got meta",
        ),
    ]


def negative_rows():
    rule = "graph must have weights A_ij + A_ji >= 0, got"
    return [
        (TaskGraph.from_edges(INDEX, -WEIGHT), ValueError, f"{rule} -2 between tasks 2 and 3"),
        ((INDEX, WEIGHT - 0.75), ValueError, f"{rule} -0.25 between tasks 1 and 2"),
    ]


def indefinite_rows():
    rule = "graph must make I + 4·step·L positive definite, got negative weights that make it"
    negative = TaskGraph.from_edges(INDEX, -WEIGHT)
    return [
        (negative, ValueError, f"{rule} indefinite at step=0.5"),
        (-torch.ones(4, 4), ValueError, f"{rule} indefinite at step=0.5"),
    ]
