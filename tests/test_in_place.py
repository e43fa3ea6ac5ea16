"""The in-place forms, and the memory of large results."""

import io
import threading

import cases
import pytest
import torch
from cases import DTYPES, bits
from graphs import hard_to_eliminate

import mtlfast
from mtlfast import (
    TaskGraph,
    _native,
    graph_add_grad_,
    graph_reg,
    nn,
    pairwise_add_grad_,
    pairwise_prox,
    pairwise_prox_,
    pairwise_reg,
)

native = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
SHAPES = [(1, 3), (5, 3), (7,), (6, 2, 5), (3000, 65), (40, 2500), (0, 4), (4, 0)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)

ROUNDING = {torch.float64: 1e-14, torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def strided(tensor):
    """The same values with gaps between them."""
    padded = tensor.new_full((*tensor.shape, 2), torch.nan)
    padded[..., 0] = tensor
    return padded[..., 0]


@every_dtype
@every_shape
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_adding_the_gradient_is_what_backward_does(dtype, shape, reduction, layout, device):
    W, before = (torch.randn(shape).to(device, dtype) for _ in range(2))
    exact = W.double().requires_grad_()
    want_value = pairwise_reg(exact, reduction=reduction)
    (0.3 * want_value).backward()
    want = before.double() + exact.grad
    grad = layout(before)
    W.requires_grad_()
    value = pairwise_add_grad_(grad, W, alpha=0.3, reduction=reduction)
    assert not value.requires_grad
    torch.testing.assert_close(value.double(), want_value.detach(), rtol=1e-6, atol=0)
    scale = float(want.abs().max()) if want.numel() else 1
    if scale < torch.finfo(dtype).max:
        torch.testing.assert_close(grad.double(), want, rtol=0, atol=ROUNDING[dtype] * scale)


def graphs_of(num_tasks, dtype, device="cpu"):
    """A graph of each kind that has a kernel of its own."""
    edges = torch.randint(num_tasks, (2, 4 * num_tasks)).to(device)
    weight = torch.rand(edges.shape[1], dtype=torch.float64).to(device)
    dense = torch.rand(num_tasks, num_tasks, dtype=torch.float64).to(device)
    return {
        "graph": TaskGraph.from_edges(edges, weight, num_tasks),
        "pair": (edges, None),
        "groups": TaskGraph.groups((torch.arange(num_tasks) % 3).to(device)),
        "dense": dense,
        "learnable edges": (edges, weight.to(dtype).requires_grad_()),
        "learnable dense": dense.to(dtype).requires_grad_(),
    }


@every_dtype
@pytest.mark.parametrize("kind", graphs_of(1, torch.float32))
@pytest.mark.parametrize("shape", [(5, 3), (6, 2, 5), (300, 65), (3, 300)], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_adding_the_gradient_of_a_graph(dtype, kind, shape, reduction, layout, device):
    graph = graphs_of(shape[0], dtype, device)[kind]
    W, before = (torch.randn(shape).to(device, dtype) for _ in range(2))
    leaf = W.double().requires_grad_()
    exact = graph
    if kind.startswith("learnable"):
        exact = (graph[0], graph[1].detach()) if kind == "learnable edges" else graph.detach()
        exact = (exact[0], exact[1].double()) if kind == "learnable edges" else exact.double()
    want_value = graph_reg(leaf, exact, reduction=reduction)
    (0.3 * want_value).backward()
    want = before.double() + leaf.grad
    grad = layout(before)
    version = grad._version
    value = graph_add_grad_(grad, W.requires_grad_(), graph, alpha=0.3, reduction=reduction)
    assert not value.requires_grad
    assert grad._version > version
    torch.testing.assert_close(value.double(), want_value.detach(), rtol=1e-6, atol=0)
    atol = ROUNDING[dtype] * float(want.abs().max())
    torch.testing.assert_close(grad.double(), want, rtol=0, atol=atol)


@every_dtype
@every_shape
@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_the_prox_in_place_has_the_bits_of_the_prox(dtype, shape, layout, device):
    W = layout(torch.randn(shape).to(device, dtype))
    want, version = pairwise_prox(W, 0.02), W._version
    assert pairwise_prox_(W, 0.02) is W
    assert bits(W) == bits(want)
    assert W._version > version or not W.numel()


@every_dtype
@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_the_prox_of_a_graph_in_place(dtype, layout, device):
    W, graph = layout(torch.randn(30, 4).to(device, dtype)), graphs_of(30, dtype, device)["graph"]
    want, version = mtlfast.graph_prox(W, graph, 0.3), W._version
    assert mtlfast.graph_prox_(W.requires_grad_(), graph, 0.3) is W
    assert bits(W.detach()) == bits(want)
    assert W._version > version
    rows = [row.clone() for row in want]
    mtlfast.graph_prox_(rows, graph, 0.3)
    assert bits(torch.stack(rows)) == bits(mtlfast.graph_prox(want, graph, 0.3))


def test_a_prox_that_fails_leaves_w_as_it_was(device):
    W, graph = torch.randn(8000, 2).to(device), hard_to_eliminate().to(device)
    before = W.clone()
    with pytest.raises(RuntimeError, match="graph_prox"):
        mtlfast.graph_prox_(W, graph, 1e3, max_iter=1)
    with pytest.raises(ValueError, match="graph_prox_: W must have memory of its own"):
        mtlfast.graph_prox_(W.new_zeros(1, 2).expand(8000, 2), graph, 0.3)
    assert torch.equal(W, before)


def test_a_trace_norm_prox_that_fails_leaves_w_as_it_was():
    W = torch.randn(30, 4)
    W[0, 0] = torch.inf
    before = W.clone()
    with pytest.raises(ValueError, match="trace_norm_prox"):
        nn.TraceNorm().prox_(W, 0.1)
    assert torch.equal(W, before)


def test_lists_of_parameters_are_changed_in_place(device):
    W = [torch.randn(3).to(device).requires_grad_() for _ in range(4)]
    grad = [torch.ones_like(w) for w in W]
    rows = torch.stack(W).detach()
    want = torch.ones_like(rows)
    pairwise_add_grad_(want, rows)
    pairwise_add_grad_(grad, W)
    assert torch.equal(torch.stack(grad), want)
    pairwise_prox_(W, 0.1)
    assert torch.equal(torch.stack(W), pairwise_prox(rows, 0.1))
    assert all(w.requires_grad and w.grad_fn is None for w in W)


def test_autograd_notices_that_a_saved_tensor_has_changed():
    W = torch.randn(5, 3, requires_grad=True)
    value = (W * W).sum()
    pairwise_prox_(W, 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@native
@every_dtype
@pytest.mark.parametrize("shape", [(5, 3), (3000, 65), (40, 2500)], ids=str)
def test_the_bits_depend_on_no_thread_count_and_no_instruction_set(dtype, shape):
    W, before = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    seen = set()
    for threads in (1, 2, 3):
        for isa in _native.cpu_isas():
            torch.set_num_threads(threads)
            _native.use_isa(isa)
            grad, prox = before.clone(), W.clone()
            pairwise_add_grad_(grad, W, alpha=0.1)
            pairwise_prox_(prox, 0.1)
            seen.add((str(bits(grad)), str(bits(prox))))
    assert len(seen) == 1


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5, 1e-7])
def test_nearly_equal_tasks_keep_their_gradient(spread):
    W, *_ = cases.CASES[0].tensors(1000, 64, torch.float32, spread=spread)
    grad = torch.zeros_like(W)
    pairwise_add_grad_(grad, W)
    x = W.double()
    want = 4 * 1000 * (x - x.mean(0))
    assert (grad.double() - want).norm() <= 16 * 2**-24 * want.norm()


BAD = {
    "another shape": (lambda W: torch.zeros(5, 2), ValueError, r"W's shape \[5, 3\], got \[5, 2\]"),
    "another dtype": (
        lambda W: torch.zeros(5, 3).double(),
        TypeError,
        "W's dtype torch.float32, got torch.float64",
    ),
    "no tensor": (lambda W: None, TypeError, "grad must be a tensor, got NoneType"),
    "a list": (lambda W: list(W), TypeError, "grad must be a tensor like W, got list"),
    "sparse": (lambda W: torch.zeros(5, 3).to_sparse(), TypeError, "dense tensor"),
    "W itself": (lambda W: W, ValueError, "must not share memory with W"),
    "a view of W": (lambda W: W.view(3, 5).T, ValueError, "share memory"),
    "expanded": (
        lambda W: torch.zeros(1, 3).expand(5, 3),
        ValueError,
        r"memory of its own for each element, got strides \[0, 1\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_gradient_that_is_not_like_w_is_refused(name):
    make, error, words = BAD[name]
    W = torch.randn(5, 3)
    before = W.clone()
    with pytest.raises(error, match=f"pairwise_add_grad_: .*{words}"):
        pairwise_add_grad_(make(W), W)
    assert torch.equal(W, before)


@pytest.mark.parametrize("alpha", [torch.inf, torch.nan, "1", None])
def test_alpha_is_a_finite_number(alpha):
    W, grad = torch.randn(5, 3), torch.zeros(5, 3)
    with pytest.raises((TypeError, ValueError), match="pairwise_add_grad_: alpha must be"):
        pairwise_add_grad_(grad, W, alpha=alpha)
    assert not grad.any()


def test_a_negative_alpha_subtracts():
    W, grad = torch.randn(5, 3), torch.zeros(5, 3)
    pairwise_add_grad_(grad, W, alpha=2.0)
    pairwise_add_grad_(grad, W, alpha=-2.0)
    assert not grad.any()


def test_an_expanded_w_has_no_prox_in_place():
    W = torch.zeros(1, 3).expand(5, 3)
    with pytest.raises(ValueError, match="pairwise_prox_: W must have memory of its own"):
        pairwise_prox_(W, 0.1)


# Regularizers ---------------------------------------------------------------------------------


class Ridge(nn.Regularizer):
    """One of a user's own, with the in-place forms that come for free."""

    has_prox = True

    def forward(self, W):
        return self.strength * sum((w * w).sum() for w in W)

    def prox(self, W, step):
        scale = 1 / (1 + 2 * step * self.strength)
        return scale * W if isinstance(W, torch.Tensor) else [scale * w for w in W]


def regularizers():
    graph = mtlfast.TaskGraph.chain(6)
    return [
        nn.PairwiseReg(0.3),
        nn.PairwiseReg(0.3, reduction="mean"),
        nn.GraphReg(graph, 0.3),
        nn.GramReg(torch.eye(6, dtype=torch.float64), 0.3),
        nn.TraceNorm(0.3),
        Ridge(0.3),
        nn.PairwiseReg(0.3) + nn.GraphReg(graph, 0.2),
        nn.PairwiseReg(0.3) + nn.TraceNorm(0.2) + Ridge(0.1),
    ]


@pytest.mark.parametrize("regularizer", regularizers(), ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("listed", [False, True])
def test_every_regularizer_has_in_place_forms(regularizer, listed):
    W = torch.randn(6, 4, dtype=torch.float64)
    leaf = W.clone().requires_grad_()
    want = regularizer(leaf)
    want.backward()
    grad = torch.ones(6, 4, dtype=torch.float64)
    value = regularizer.add_grad_(list(grad) if listed else grad, list(W) if listed else W, alpha=2)
    torch.testing.assert_close(value, want.detach())
    torch.testing.assert_close(grad, 1 + 2 * leaf.grad)
    if regularizer.has_prox:
        want = regularizer.prox(W, 0.1)
        moved = [row.clone() for row in W] if listed else W.clone()
        assert regularizer.prox_(moved, 0.1) is moved
        torch.testing.assert_close(torch.stack(list(moved)), want)


def test_a_sum_that_fails_leaves_the_gradient_as_it_was():
    W, grad = torch.randn(6, 4), torch.ones(6, 4)
    W[0, 0] = torch.nan
    for terms in ([nn.PairwiseReg(), nn.TraceNorm()], [Ridge(), nn.TraceNorm(), nn.PairwiseReg()]):
        with pytest.raises(ValueError, match="trace_norm"):
            nn.Sum(terms).add_grad_(grad, W)
        assert torch.equal(grad, torch.ones(6, 4))


# Memory ---------------------------------------------------------------------------------------


@native
def test_a_freed_gradient_is_the_next_one():
    mtlfast.release_memory()
    W = torch.randn(40_000, 64, requires_grad=True)
    pairwise_reg(W).backward()
    first = W.grad.data_ptr()
    held = W.grad
    W.grad = None
    pairwise_reg(W).backward()
    assert W.grad.data_ptr() != first, "the first is still held"
    copy = held.clone()
    W.grad = None
    pairwise_reg(2 * W.detach().requires_grad_()).backward()
    assert torch.equal(held, copy)
    del held
    pairwise_reg(W).backward()
    assert W.grad.data_ptr() == first
    W.grad = None
    assert mtlfast.release_memory() > 0
    assert mtlfast.release_memory() == 0


@native
@every_dtype
def test_large_results_are_ordinary_tensors(dtype):
    """Above the size at which memory is kept: right, dense, picklable, usable in place."""
    W = torch.randn(70_000, 64, dtype=torch.float64).to(dtype)
    z = pairwise_prox(W, 1e-7)
    x = W.double()
    want = x.mean(0) + (x - x.mean(0)) / (1 + 4 * 70_000 * 1e-7)
    torch.testing.assert_close(z.double(), want, rtol=0, atol=ROUNDING[dtype])
    W.requires_grad_()
    pairwise_reg(W, reduction="mean").backward()
    assert W.grad.is_contiguous()
    assert not W.grad._is_view()
    few = W.grad.resize_(5, 3).fill_(2)
    assert torch.load(io.BytesIO(_saved(few))).equal(few)


@native
@every_dtype
@pytest.mark.parametrize("dim", [64, 48, 65])
def test_results_larger_than_the_caches_have_the_same_bits(dtype, dim):
    """They are written past the caches, 65 columns (no whole vectors) in the ordinary way."""
    num_tasks = (1 << 26) // dtype.itemsize // dim + 3
    w = torch.randn(num_tasks, dim).to(dtype)
    _, mean = _native.pairwise.pairwise_value(w)
    one = mean.new_ones(())
    for isa in _native.cpu_isas():
        _native.use_isa(isa)
        for add_mean in (False, True):
            whole = _native.pairwise.pairwise_affine(w, mean, one, 0.5, add_mean)
            half = num_tasks // 2
            parts = [
                _native.pairwise.pairwise_affine(part, mean, one, 0.5, add_mean)
                for part in (w[:half], w[half:])
            ]
            assert torch.equal(whole, torch.cat(parts))


def _saved(tensor):
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


@native
def test_memory_is_handed_out_by_one_thread_at_a_time():
    def work(seed):
        for k in range(30):
            tensor = _native.empty((1 << 20,), torch.float32).fill_(100 * seed + k)
            if not bool((tensor == 100 * seed + k).all()):
                wrong.append((seed, k))

    wrong = []
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@native
def test_the_default_device_is_not_where_results_of_cpu_tensors_go():
    W, graph = torch.randn(6, 4), TaskGraph.chain(6)
    calls = [
        lambda: pairwise_reg(W),
        lambda: pairwise_prox(W, 0.1),
        lambda: graph_reg(W, graph),
        lambda: mtlfast.graph_prox(W, graph, 0.1),
        lambda: mtlfast.trace_norm(W),
        lambda: mtlfast.trace_norm_prox(W, 0.1),
        lambda: graph_add_grad_(torch.zeros(6, 4, device="cpu"), W, graph),
    ]
    want = [call() for call in calls]
    with torch.device("meta"):
        got = [call() for call in calls]
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


# The optimiser --------------------------------------------------------------------------------


def train(smooth, closure, *, proxes=True):
    """W after a few steps on ½‖W − T‖² with a graph term, in the loss or added in place."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    W = torch.nn.Parameter(torch.randn(6, 4, generator=generator, dtype=torch.float64))
    relation = nn.GraphReg(TaskGraph.chain(6), 0.1) + nn.PairwiseReg(0.01)
    options = {"smooth": {W: relation}} if smooth else {}
    optimizer = mtlfast.optim.Proximal(
        torch.optim.SGD([W], lr=0.1, momentum=0.5),
        {W: nn.TraceNorm(0.05)} if proxes or not smooth else {},
        **options,
    )

    def loss():
        optimizer.zero_grad()
        value = 0.5 * (W - target).square().sum()
        value = value if smooth else value + relation(W)
        value.backward()
        return value

    for _ in range(5):
        if closure:
            optimizer.step(loss)
        else:
            loss()
            optimizer.step()
    return W.detach()


@pytest.mark.parametrize("closure", [False, True])
def test_a_smooth_term_counts_as_if_it_stood_in_the_loss(closure):
    torch.testing.assert_close(train(True, closure), train(False, closure))


def test_smooth_terms_alone_need_no_prox():
    assert train(True, False, proxes=False).isfinite().all()


def test_a_smooth_term_moves_parameters_without_a_gradient_and_in_tuples():
    heads = [torch.nn.Parameter(torch.full((2,), float(k))) for k in range(3)]
    relation = nn.PairwiseReg(0.1)
    optimizer = mtlfast.optim.Proximal(
        torch.optim.SGD(heads, lr=0.1), {}, smooth={tuple(heads): relation}
    )
    optimizer.step()
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    want = rows - 0.1 * 0.1 * 4 * 3 * (rows - 1)
    torch.testing.assert_close(torch.stack(list(heads)).detach(), want)


@pytest.mark.parametrize(
    "smooth, error, words",
    [
        ({}, ValueError, "smooth must name at least one parameter, got none"),
        ({"W": nn.PairwiseReg()}, TypeError, "keys of smooth must be parameters"),
        ({torch.zeros(2, 2): nn.PairwiseReg()}, ValueError, "parameters in smooth must be the"),
        ({torch.zeros(2, 2): 1.0}, TypeError, "values of smooth must be mtlfast.nn regularizers"),
    ],
)
def test_a_bad_mapping_is_refused(smooth, error, words):
    W = torch.nn.Parameter(torch.zeros(3, 2))
    with pytest.raises(error, match=f"Proximal: .*{words}"):
        mtlfast.optim.Proximal(torch.optim.SGD([W], lr=0.1), {}, smooth=smooth)
