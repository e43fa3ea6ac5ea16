"""What the constructors of TaskGraph say of bad input."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mtlfast import TaskGraph


def csr(pointer, index, values, size=3, layout=torch.sparse_csr):
    make = torch.sparse_csr_tensor if layout == torch.sparse_csr else torch.sparse_csc_tensor
    return make(pointer, index, values, (size, size), check_invariants=False)


def unchecked_coo(index, values=(1.0, 1.0), size=3):
    return torch.sparse_coo_tensor(index, list(values), (size, size), check_invariants=False)


def broken_scipy():
    A = sp.csr_matrix(np.eye(3))
    A.indptr[1] = 1000
    return A


EDGES, ONES = [[0, 1], [1, 2]], torch.ones(2)
E, D, S = TaskGraph.from_edges, TaskGraph.from_dense, TaskGraph.from_sparse
NX, KNN, G = TaskGraph.from_networkx, TaskGraph.knn, TaskGraph.groups
POINTERS = "from_sparse: pointers of A must rise from 0 to 2 in 4 steps, got "
BAD = [
    (E, ([0, 1],), ValueError, "from_edges: edge_index must have shape [2, E], got [2]"),
    (E, ([[0], [1], [2]],), ValueError,
     "from_edges: edge_index must have shape [2, E], got [3, 1]"),
    (E, ([[0], [1, 2]],), ValueError,
     "from_edges: edge_index must be rectangular, got lists of different lengths"),
    (E, ("ab",), TypeError,
     "from_edges: edge_index must be a tensor, a numpy array or a list, got str"),
    (E, ([["a"], ["b"]],), TypeError,
     "from_edges: edge_index must hold numbers, got dtype <U1"),
    (E, (torch.ones(2, 2),), TypeError,
     "from_edges: edge_index must hold integers, got torch.float32"),
    (E, (torch.ones(2, 2, dtype=torch.bool),), TypeError,
     "from_edges: edge_index must hold integers, got torch.bool"),
    (E, (torch.eye(2).to_sparse(),), TypeError,
     "from_edges: edge_index must be a dense tensor, got torch.sparse_coo"),
    (E, ([[0] * 7 + [100], [1] * 8], None, 100), ValueError,
     "from_edges: edge_index must be in [0, K=100), got 100 at position 7"),
    (E, ([[0, 1], [1, -1]],), ValueError,
     "from_edges: edge_index must be in [0, K=2), got -1 at position 1"),
    (E, (EDGES, None, 2), ValueError,
     "from_edges: edge_index must be in [0, K=2), got 2 at position 1"),
    (E, (EDGES, None, -1), ValueError, "from_edges: num_tasks must be >= 0, got -1"),
    (E, (EDGES, None, 3.0), TypeError,
     "from_edges: num_tasks must be an integer, got float"),
    (E, (EDGES, None, True), TypeError, "from_edges: num_tasks must be an integer, got bool"),
    (E, (EDGES, None, torch.tensor(3.0)), TypeError,
     "from_edges: num_tasks must be an integer, got a tensor"),
    (E, (EDGES, [1.0]), ValueError,
     "from_edges: edge_weight must have shape [E=2], got [1]"),
    (E, (EDGES, torch.ones(2, 2)), ValueError,
     "from_edges: edge_weight must have shape [E=2], got [2, 2]"),
    (E, (EDGES, [1.0, float("nan")]), ValueError,
     "from_edges: edge_weight must be finite, got nan at position 1"),
    (E, (EDGES, ONES * 1j), TypeError,
     "from_edges: edge_weight must hold real numbers, got torch.complex64"),
    (E, (EDGES, torch.ones(2, requires_grad=True)), ValueError,
     "from_edges: edge_weight must not require grad, as its weights are constants here; "
     "learnable weights go to graph_reg as a plain tensor, got requires_grad=True"),
    (E, (EDGES, ONES.to("meta")), ValueError,
     "from_edges: edge_weight must be on edge_index's device cpu, got meta"),
    (E, ([[0, 1], [1, 0]], torch.full((2,), 3e38)), ValueError,
     "from_edges: A_ij + A_ji must be finite in torch.float32, "
     f"got {2 * torch.tensor(3e38).item()} for tasks 0 and 1"),
    (D, (torch.ones(2, 3),), ValueError, "from_dense: A must have shape [K, K], got [2, 3]"),
    (D, (torch.tensor([[0, float("inf")], [0, 0]]),), ValueError,
     "from_dense: A must be finite, got inf at position (0, 1)"),
    (D, (torch.eye(3).to_sparse(),), TypeError,
     "from_dense: A must be a dense tensor, got torch.sparse_coo"),
    (D, (torch.eye(3, requires_grad=True),), ValueError,
     "from_dense: A must not require grad, as its weights are constants here; "
     "learnable weights go to graph_reg as a plain tensor, got requires_grad=True"),
    (S, (torch.eye(3),), TypeError,
     "from_sparse: A must have layout torch.sparse_coo, torch.sparse_csr or torch.sparse_csc, "
     "got torch.strided"),
    (S, (np.eye(3),), TypeError,
     "from_sparse: A must be a sparse tensor or a scipy sparse matrix, got ndarray"),
    (S, (torch.ones(2, 3).to_sparse(),), ValueError,
     "from_sparse: A must have shape [K, K], got [2, 3]"),
    (S, (torch.ones(2, 2, 3).to_sparse(2),), ValueError,
     "from_sparse: A must have shape [K, K], got [2, 2, 3]"),
    (S, (torch.ones(2, 2).to_sparse(1),), ValueError,
     "from_sparse: A must store one number per entry, got stored values of shape [2, 2]"),
    (S, (torch.eye(3).to_sparse().requires_grad_(),), ValueError,
     "from_sparse: A must not require grad, as its weights are constants here; "
     "learnable weights go to graph_reg as a plain tensor, got requires_grad=True"),
    (S, (unchecked_coo([[0, 1], [3, 0]]),), ValueError,
     "from_sparse: indices of A must be in [0, K=3), got 3 at position 0"),
    (S, (unchecked_coo([[0, 1], [1, 2]], (1.0, float("-inf"))),), ValueError,
     "from_sparse: A must be finite, got -inf at position 1"),
    (S, (csr([0, 1, 2, 2], [1, 10**6], [1.0, 1.0]),), ValueError,
     "from_sparse: indices of A must be in [0, K=3), got 1000000 at position 1"),
    (S, (csr([0, 1, 2, 2], [-5, 1], [1.0, 1.0], layout=torch.sparse_csc),), ValueError,
     "from_sparse: indices of A must be in [0, K=3), got -5 at position 0"),
    (S, (csr([1, 1, 2, 2], [1, 2], [1.0, 1.0]),), ValueError, POINTERS + "1 at position 0"),
    (S, (csr([0, 1, 2, 9], [1, 2], [1.0, 1.0]),), ValueError, POINTERS + "9 at position 3"),
    (S, (csr([0, 7, 1, 2], [1, 2], [1.0, 1.0]),), ValueError,
     POINTERS + "1 after 7 at position 2"),
    (S, (broken_scipy(),), ValueError,
     "from_sparse: pointers of A must rise from 0 to 3 in 4 steps, got 2 after 1000 at position 2"),
    (S, (sp.eye(3, format="csr") * 1j,), TypeError,
     "from_sparse: A must hold real numbers, got torch.complex128"),
    (NX, (3,), TypeError, "from_networkx: G must be a networkx graph, got int"),
    (NX, (nx.Graph([(0, 1, {"weight": "x"})]),), TypeError,
     "from_networkx: edge_weight must hold numbers, got dtype <U1"),
    (KNN, (ONES, 1), ValueError, "knn: features must have shape [K, p], got [2]"),
    (KNN, (torch.ones(3, 2), 3), ValueError, "knn: k must be < K=3, got 3"),
    (KNN, (torch.ones(3, 2), 0), ValueError, "knn: k must be >= 1, got 0"),
    (KNN, (torch.ones(3, 2), 1.0), TypeError, "knn: k must be an integer, got float"),
    (KNN, (torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), 1), ValueError,
     "knn: features must be finite, got nan at position (1, 0)"),
    (G, (ONES,), TypeError, "groups: labels must hold integers, got torch.float32"),
    (G, (torch.ones(2, 2, dtype=torch.int64),), ValueError,
     "groups: labels must have shape [K], got [2, 2]"),
    (G, ("aab",), TypeError,
     "groups: labels must be a tensor, a numpy array or a list, got str"),
    (G, (["a", [1]],), TypeError, "groups: labels must be hashable, got list at position 1"),
    (G, (list(ONES),), TypeError, "groups: labels must be hashable, got Tensor at position 0"),
    (G, ([1.0, float("nan")],), ValueError,
     "groups: labels must equal themselves, got nan at position 1"),
    (TaskGraph.chain, (-1,), ValueError, "chain: num_tasks must be >= 0, got -1"),
    (TaskGraph.chain(3).weight_as, (torch.float16,), TypeError,
     "weight_as: dtype must be float32 or float64, got torch.float16"),
    (TaskGraph.groups([0, 0]).weight_as, (torch.float32,), ValueError,
     "weight_as: the graph must store edges, got groups"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "args", "error", "message"), BAD, ids=[b[3] for b in BAD])
def test_bad_inputs(build, args, error, message):
    with pytest.raises(error) as caught:
        build(*args)
    assert str(caught.value) == "TaskGraph." + message
    assert type(caught.value) is error


def test_the_class_is_not_called_directly():
    with pytest.raises(TypeError, match="TaskGraph: build a graph with from_edges"):
        TaskGraph()


def test_a_missing_label_of_a_nullable_column():
    pd = pytest.importorskip("pandas")
    labels = pd.Series([1, None, 2], dtype="Int64")
    words = "^TaskGraph.groups: labels must equal themselves, got (nan|<NA>) at position 1$"
    with pytest.raises(ValueError, match=words):
        TaskGraph.groups(labels)
    with pytest.raises(ValueError, match=words):
        TaskGraph.groups(labels.tolist())
    assert TaskGraph.groups(labels.fillna(1)).num_edges == 2
