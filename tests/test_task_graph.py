"""TaskGraph: every constructor against a dense A built with Python loops."""

import copy
import io
import pickle

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mtlfast
from mtlfast import TaskGraph

SIZES = [(0, 0), (1, 0), (1, 3), (2, 1), (7, 0), (5, 40), (30, 200), (33, 900)]
WEIGHTS = [None, torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64]
ARRAYS = ("row_ptr", "col", "weight", "group_ptr", "member")


def random_edges(num_tasks, count, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    index = torch.randint(0, max(num_tasks, 1), (2, count), generator=rng)
    if dtype is None:
        return index, None
    return index, (4 * torch.randn(count, generator=rng, dtype=torch.float64)).to(dtype)


def loop_dense(num_tasks, index, weight=None):
    """A and the number of stored off-diagonal entries, one edge at a time."""
    A = [[0.0] * num_tasks for _ in range(num_tasks)]
    stored = set()
    for e, (i, j) in enumerate(index.T.tolist()):
        A[i][j] += 1.0 if weight is None else float(weight[e])
        if i != j:
            stored.add((i, j))
    return torch.tensor(A, dtype=torch.float64).reshape(num_tasks, num_tasks), len(stored)


def check_form(graph):
    """Symmetric, sorted, no self loops, no zeros, the stated dtypes."""
    K = graph.num_tasks
    assert (graph.row_ptr.dtype, graph.col.dtype) == (torch.int64, torch.int32)
    assert graph.weight.dtype in (torch.float32, torch.float64)
    assert graph.row_ptr[0] == 0 and graph.row_ptr[-1] == len(graph.col) == len(graph.weight)
    assert graph.group_ptr is None and graph.member is None and not graph.is_groups
    entries = {}
    for i in range(K):
        row = slice(graph.row_ptr[i].item(), graph.row_ptr[i + 1].item())
        cols = graph.col[row].tolist()
        assert cols == sorted(set(cols)) and i not in cols
        entries.update({(i, j): w for j, w in zip(cols, graph.weight[row].tolist(), strict=True)})
    assert all(w != 0 and entries[j, i] == w for (i, j), w in entries.items())


def check_value(graph, A, stored):
    check_form(graph)
    expected = (A + A.T) / 2
    expected.fill_diagonal_(0)
    u = torch.finfo(graph.weight.dtype).eps
    dense = graph.to_dense()
    assert dense.dtype == graph.weight.dtype
    torch.testing.assert_close(dense.double(), expected, rtol=u, atol=1e-13)
    assert (graph.num_tasks, graph.num_edges) == (len(A), stored)


def assert_same(a, b):
    assert (a.num_tasks, a.num_edges) == (b.num_tasks, b.num_edges)
    for name in ARRAYS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        assert x is None or (x.dtype == y.dtype and torch.equal(x, y)), name


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize(("num_tasks", "count"), SIZES)
def test_from_edges(num_tasks, count, dtype):
    index, weight = random_edges(num_tasks, count, dtype)
    graph = TaskGraph.from_edges(index, weight, num_tasks)
    check_value(graph, *loop_dense(num_tasks, index, weight))
    assert graph.weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.int32, torch.int64])
def test_forms_of_an_edge_list(index_dtype):
    index, weight = random_edges(9, 30)
    graph = TaskGraph.from_edges(index.to(index_dtype), weight, 9)
    assert_same(graph, TaskGraph.from_edges(index.numpy(), weight.numpy(), 9))
    assert_same(graph, TaskGraph.from_edges(index.tolist(), weight.tolist(), np.int64(9)))
    reverse = np.ascontiguousarray(index.numpy()[:, ::-1])[:, ::-1]
    frozen = weight.numpy().copy()
    frozen.flags.writeable = False
    assert_same(graph, TaskGraph.from_edges(reverse, frozen.astype(">f8"), 9))
    assert_same(graph, TaskGraph.from_edges(index, frozen, 9))


def test_num_tasks_defaults_to_the_largest_index():
    assert TaskGraph.from_edges([[0, 4], [1, 2]]).num_tasks == 5
    assert TaskGraph.from_edges([[], []]).num_tasks == 0
    assert TaskGraph.from_edges([[], []], [], num_tasks=3).num_tasks == 3


def test_duplicates_are_summed_in_float64_and_cancelling_ones_dropped():
    index = torch.tensor([[0, 0, 0, 1, 2, 1, 3], [1, 1, 1, 0, 1, 2, 3]])
    graph = TaskGraph.from_edges(index, torch.tensor([1e8, 1.0, -1e8, 0.0, 2.0, -2.0, 5.0]))
    assert graph.weight.tolist() == [1.0, 1.0] and graph.col.tolist() == [1, 0]
    assert graph.row_ptr.tolist() == [0, 1, 2, 2, 2]
    assert graph.num_edges == 4  # (0, 1), (1, 0) stored as zero, (2, 1), (1, 2)


def test_a_graph_and_its_transpose_have_the_same_bits():
    index, weight = random_edges(6, 300)
    a, b = (TaskGraph.from_edges(i, weight, 6) for i in (index, index.flip(0)))
    assert_same(a, b)


def test_ids_near_the_limit_of_32_bits_are_told_apart():
    top = 2**31 - 1
    with pytest.raises(ValueError, match="must be in"):
        TaskGraph.from_edges([[0], [top]], num_tasks=top)
    for build in (lambda: TaskGraph.from_edges([[0], [top]]), lambda: TaskGraph.chain(2**31)):
        with pytest.raises(NotImplementedError, match=r"limited to 2\*\*31 - 1 tasks, got 2147483"):
            build()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.bool])
@pytest.mark.parametrize(("num_tasks", "count"), SIZES)
def test_from_dense(num_tasks, count, dtype):
    A = loop_dense(num_tasks, *random_edges(num_tasks, count))[0].to(dtype)
    off = A.double() * (1 - torch.eye(num_tasks))
    check_value(TaskGraph.from_dense(A), A.double(), int((off != 0).sum()))
    if dtype != torch.bfloat16:
        assert_same(TaskGraph.from_dense(A), TaskGraph.from_dense(A.numpy()))
        assert_same(TaskGraph.from_dense(A), TaskGraph.from_dense(A.T))


def torch_layouts(num_tasks, index, weight):
    coo = torch.sparse_coo_tensor(index, weight, (num_tasks, num_tasks), check_invariants=True)
    yield coo
    yield coo.coalesce()
    if num_tasks:
        yield coo.coalesce().to_sparse_csr()
        yield coo.coalesce().to_sparse_csc()


def scipy_layouts(num_tasks, index, weight):
    shape = (num_tasks, num_tasks)
    coo = sp.coo_matrix((weight.numpy(), index.numpy()), shape=shape)
    yield coo
    yield sp.coo_array(coo)
    for form in ("csr", "csc", "lil", "dok", "dia", "bsr"):
        yield coo.asformat(form)


@pytest.mark.filterwarnings("ignore:Sparse C")
@pytest.mark.parametrize(("num_tasks", "count"), [s for s in SIZES if s[0]])
@pytest.mark.parametrize("layouts", [torch_layouts, scipy_layouts])
def test_from_sparse(layouts, num_tasks, count):
    index, weight = random_edges(num_tasks, count)
    A, stored = loop_dense(num_tasks, index, weight)
    for matrix in layouts(num_tasks, index, weight):
        check_value(TaskGraph.from_sparse(matrix), A, stored)


def test_from_sparse_without_tasks():
    for empty in (
        torch.sparse_coo_tensor(torch.empty(2, 0), [], (0, 0), check_invariants=True),
        torch.zeros(0, 0).to_sparse_csr(),
        sp.coo_matrix((0, 0)),
    ):
        check_value(TaskGraph.from_sparse(empty), torch.zeros(0, 0, dtype=torch.float64), 0)


def test_sparse_forms_count_stored_zeros():
    coo = torch.sparse_coo_tensor([[0, 1], [1, 2]], [0.0, 3.0], (3, 3), check_invariants=True)
    for graph in (TaskGraph.from_sparse(coo), TaskGraph.from_edges([[0, 1], [1, 2]], [0.0, 3.0])):
        assert graph.num_edges == 2 and graph.col.tolist() == [2, 1]
    assert TaskGraph.from_dense(coo.to_dense()).num_edges == 1


@settings(max_examples=60, deadline=None)
@given(
    num_tasks=st.integers(1, 9),
    pairs=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30, unique=True),
    data=st.data(),
)
@pytest.mark.filterwarnings("ignore:Sparse C")
def test_every_form_of_a_matrix_is_the_same_graph(num_tasks, pairs, data):
    pairs = [(i, j) for i, j in pairs if i < num_tasks and j < num_tasks]
    floats = st.floats(-(2.0**99), 2.0**99, width=32).filter(bool)
    values = data.draw(st.lists(floats, min_size=len(pairs), max_size=len(pairs)))
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    for dtype in (torch.float32, torch.float64):
        weight = torch.tensor(values, dtype=dtype)
        graph = TaskGraph.from_edges(index, weight, num_tasks)
        for matrix in torch_layouts(num_tasks, index, weight):
            assert_same(graph, TaskGraph.from_sparse(matrix))
            assert_same(graph, TaskGraph.from_dense(matrix.to_dense()))
        for matrix in scipy_layouts(num_tasks, index, weight):
            assert_same(graph, TaskGraph.from_sparse(matrix))


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_from_networkx(kind):
    G = kind()
    G.add_nodes_from("dacbe")
    edges = [("a", "b", 2.0), ("b", "a", 0.5), ("c", "c", 9.0), ("d", "e", -1.5), ("d", "e", 3.0)]
    G.add_weighted_edges_from(edges)
    G.add_edge("a", "e")  # without a weight: 1
    number = {v: i for i, v in enumerate("dacbe")}
    triples = list(G.edges(data="weight", default=1.0))
    if not G.is_directed():
        triples += [(v, u, w) for u, v, w in triples]
    index = torch.tensor([[number[u], number[v]] for u, v, _ in triples]).T
    weight = torch.tensor([w for *_, w in triples], dtype=torch.float64)
    check_value(TaskGraph.from_networkx(G), *loop_dense(5, index, weight))
    check_value(TaskGraph.from_networkx(G, weight=None), *loop_dense(5, index))
    torch.testing.assert_close(
        TaskGraph.from_networkx(G).to_dense(),
        torch.from_numpy(nx.to_numpy_array(G)).add(torch.from_numpy(nx.to_numpy_array(G)).T)
        .div(2).fill_diagonal_(0),
    )  # fmt: skip
    assert TaskGraph.from_networkx(kind()).num_tasks == 0


def loop_knn(x, k):
    """Edges of exact arithmetic on integers, one row at a time; ties by index."""
    rows = x.tolist()
    edges = []
    for i, a in enumerate(rows):
        far = [
            (sum((p - q) ** 2 for p, q in zip(a, b, strict=True)), j)
            for j, b in enumerate(rows) if j != i
        ]  # fmt: skip
        edges += [(i, j) for _, j in sorted(far)[:k]]
    return torch.tensor(edges).T


@pytest.fixture(params=["tree", "products"])
def search(request, monkeypatch):
    """Both ways to propose neighbours, also at sizes where one would not be chosen."""
    tree = request.param == "tree"
    monkeypatch.setattr("mtlfast.graphs._neighbors._use_tree", lambda rows, dim: tree and dim > 0)


@pytest.mark.parametrize("spread", [1, 3, 1000])
@pytest.mark.parametrize("offset", [0, 10**9])
@pytest.mark.parametrize(("K", "p", "k"), [(2, 1, 1), (40, 2, 5), (90, 6, 30), (60, 3, 59)])
def test_knn(search, K, p, k, offset, spread):
    rng = np.random.default_rng(K + spread)
    x = rng.integers(-spread, spread + 1, (K, p)) + offset
    graph = TaskGraph.knn(x, k)
    assert_same(graph, TaskGraph.from_edges(loop_knn(x, k), num_tasks=K))
    assert graph.num_edges == K * k
    assert_same(graph, TaskGraph.knn(torch.from_numpy(x * 2.0**-900), k))


def test_knn_in_tight_clusters_and_chunks(search, monkeypatch):
    monkeypatch.setattr("mtlfast.graphs._neighbors._CHUNK", 500)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (150, 3)) * 2**40 + rng.integers(0, 50, (150, 3))
    assert_same(TaskGraph.knn(x, 7), TaskGraph.from_edges(loop_knn(x, 7), num_tasks=150))


def test_knn_without_features_goes_by_index():
    graph = TaskGraph.knn(torch.zeros(4, 0), 1)
    assert_same(graph, TaskGraph.from_edges([[0, 1, 2, 3], [1, 0, 0, 0]]))


@pytest.mark.parametrize("K", [0, 1, 2, 3, 31])
def test_chain(K):
    pairs = [(i, j) for i in range(K) for j in range(K) if abs(i - j) == 1]
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    check_value(TaskGraph.chain(K), *loop_dense(K, index))


LABELS = [
    [],
    ["a"],
    ["a", "b", "c"],
    ["b", "a", "b", "c", "a", "b"],
    [("x", 1), ("x", 2), ("x", 1)],
    [3, -1, 3, 3, -1, 2**40],
    list("the quick brown fox jumps over the lazy dog"),
]


ANY_DTYPE = [
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.bool),
    *(torch.uint8, torch.int16, torch.int32, torch.int64),
]


@pytest.mark.parametrize("dtype", ANY_DTYPE, ids=str)
def test_no_edges_of_any_dtype(dtype):
    """An empty tensor that somebody made without thinking of integers holds none that are not."""
    index, W = torch.empty(2, 0, dtype=dtype), torch.randn(4, 2)
    assert_same(TaskGraph.from_edges(index, num_tasks=4), TaskGraph.from_edges([[], []], None, 4))
    weight = torch.empty(0, requires_grad=True)
    for graph in ((index, None), (index, torch.empty(0)), (index, weight), [index, None]):
        assert mtlfast.graph_reg(W, graph) == 0
    assert mtlfast.graph_total_variation(W, (index, None)) == 0
    assert torch.equal(mtlfast.graph_prox(W, (index, None), 0.1), W)
    assert TaskGraph.groups(torch.empty(0, dtype=dtype)).num_tasks == 0
    with pytest.raises(ValueError, match=r"must have shape \[2, E\], got \[0\]"):
        TaskGraph.from_edges(torch.empty(0, dtype=dtype))
    if dtype not in (torch.bfloat16, torch.complex64):
        graph = TaskGraph.from_edges(index.numpy(), num_tasks=4)
        assert_same(graph, TaskGraph.from_edges([[], []], None, 4))


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(len(labels)))
def test_groups(labels):
    K = len(labels)
    graph = TaskGraph.groups(labels)
    A = [[float(i != j and labels[i] == labels[j]) for j in range(K)] for i in range(K)]
    A = torch.tensor(A, dtype=torch.float32).reshape(K, K)
    assert torch.equal(graph.to_dense(), A)
    assert (graph.num_tasks, graph.num_edges) == (K, int(A.sum()))
    assert graph.is_groups and graph.row_ptr is graph.col is graph.weight is None
    found = [
        graph.member[a:b].tolist()
        for a, b in zip(graph.group_ptr[:-1].tolist(), graph.group_ptr[1:].tolist(), strict=True)
    ]
    distinct = list(dict.fromkeys(labels))
    expected = [[i for i in range(K) if labels[i] == label] for label in distinct]
    assert found == [g for g in expected if len(g) > 1]
    if labels and isinstance(labels[0], (int, str)):
        assert_same(graph, TaskGraph.groups(np.array(labels)))
        assert_same(graph, TaskGraph.groups(np.array(labels, dtype=object)))
    if labels and isinstance(labels[0], int):
        assert_same(graph, TaskGraph.groups(torch.tensor(labels)))


def test_groups_of_all_tasks_take_linear_storage():
    graph = TaskGraph.groups(torch.zeros(100_000, dtype=torch.int64))
    assert graph.num_edges == 100_000 * 99_999
    assert graph.member.numel() == 100_000 and graph.group_ptr.tolist() == [0, 100_000]


GRAPHS = {
    "float32": TaskGraph.from_edges([[0, 1, 2], [1, 2, 0]], num_tasks=4),
    "float64": TaskGraph.from_edges([[0, 1], [1, 2]], [0.1, -2.0]),
    "empty": TaskGraph.chain(0),
    "groups": TaskGraph.groups([1, 2, 1, 1, 2, 7]),
}


def torch_save(graph):
    buffer = io.BytesIO()
    torch.save(graph, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    "again", [lambda g: pickle.loads(pickle.dumps(g)), copy.copy, copy.deepcopy, torch_save]
)
def test_copies(name, again):
    graph = GRAPHS[name]
    if not graph.is_groups:
        graph.weight_as(torch.float64)
    other = again(graph)
    assert_same(graph, other)
    assert other is not graph and other != graph
    assert repr(other) == repr(graph)


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_can_be_set_or_deleted(name):
    graph = GRAPHS[name]
    for attribute in ("num_tasks", "weight", "device", "is_groups", "anything"):
        with pytest.raises(AttributeError, match=f"immutable, got an assignment to '{attribute}'"):
            setattr(graph, attribute, None)
        with pytest.raises(AttributeError, match=f"immutable, got a deletion of '{attribute}'"):
            delattr(graph, attribute)


def test_later_changes_of_the_inputs_do_not_reach_the_graph():
    index, weight = torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.0, 2.0])
    graph = TaskGraph.from_edges(index, weight)
    index.zero_(), weight.zero_()
    assert graph.weight.tolist() == [1.0, 1.0, 2.0, 2.0] and graph.col.tolist() == [1, 0, 2, 1]


def test_devices_and_repr():
    graph = GRAPHS["float32"]
    assert repr(graph) == "TaskGraph(num_tasks=4, num_edges=3, device='cpu')"
    assert graph.device == torch.device("cpu") and graph.to("cpu") is graph
    for g in GRAPHS.values():
        moved = g.to("meta")
        assert moved.device.type == "meta" and moved.num_edges == g.num_edges


def test_weight_as():
    graph = GRAPHS["float64"]
    assert graph.weight_as(torch.float64) is graph.weight
    single = graph.weight_as(torch.float32)
    assert single.dtype == torch.float32 and torch.equal(single, graph.weight.float())
    assert graph.weight_as(torch.float32) is single
