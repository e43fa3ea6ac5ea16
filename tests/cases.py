"""The table of cases that the contracts in test_contracts_*.py run over: one row per function.

A case is a function of ``W`` and of further tensors it is differentiable in (weights, omega,
thresholds), with an oracle in numpy's long double, written from the definition and sharing no code
with the package. Adding a regularizer adds an oracle to oracles.py and a row here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import oracles
import torch

import mtlfast
from mtlfast import nn

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HALVES = (torch.bfloat16, torch.float16)
ROUNDOFF = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}
SMALLEST = {torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25}  # half of the least subnormal


def nothing(K, d, dtype, generator):
    return ()


@dataclass(frozen=True)
class Case:
    name: str
    function: Callable  # (W, *extras) -> scalar, or a tensor of W's shape for a prox
    oracle: Callable  # (upstream, w, *extras) -> oracles.Truth
    value_gate: float  # in units of roundoff times the oracle's scale
    grad_gate: float
    extras: Callable = nothing  # (K, d, dtype, generator) -> tensors
    prox: bool = False
    degree: int | None = None  # f(2ᵏ W) = 2^(degree·k) f(W), bit by bit
    shift_free: bool = False  # f(W + one row) = f(W)
    order_free: bool = False  # f(W[permutation]) = f(W)
    linear_in_extra: bool = False
    rows: bool = True  # W [K, *] is seen as [K, d]; False where leading dimensions are a batch
    fixed_bits: bool = True  # for any thread count; False where LAPACK or a GEMM does the work
    largest: int = 300_000  # K·d that the values are tested at
    smooth: bool = True  # False where a gradient jumps at nearly equal tasks
    lists: bool = True  # W may be a list of K tensors
    one_path: bool = True  # the same bits whether or not gradients are wanted

    def tensors(self, K, d, dtype=torch.float64, seed=0, spread=0.25, device="cpu"):
        """W = 1 + spread·noise and the extras, all of ``dtype``, the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(K, d, generator=generator, dtype=torch.float64)
        prepare_graphs(K, device)
        tensors = ((1 + spread * noise).to(dtype), *self.extras(K, d, dtype, generator))
        return tuple(t.to(device) for t in tensors)


def upstream_like(value, seed=1):
    """A random gradient to send into ``value``: never 1, so that a lost factor shows."""
    generator = torch.Generator().manual_seed(seed)
    upstream = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return upstream.to(value.device, value.dtype)


def value_and_grads(case, tensors, needs=None):
    """The value, and the gradient of <upstream, value> to each tensor, None where not needed."""
    needs = needs or [True] * len(tensors)
    leaves = [t.detach().requires_grad_(n) for t, n in zip(tensors, needs, strict=True)]
    value = case.function(*leaves)
    if any(needs):
        value.backward(upstream_like(value))
    return value.detach(), [leaf.grad for leaf in leaves]


def long_double(tensor):
    return tensor.detach().double().cpu().numpy().astype(np.longdouble)


def truth(case, tensors):
    """What the oracle says about these very (already rounded) tensors."""
    dtype = tensors[0].dtype
    shape = tensors[0].shape if case.prox else ()
    kind = dtype if case.prox or dtype == torch.float64 else torch.float32
    upstream = upstream_like(torch.empty(shape, dtype=kind))
    return case.oracle(long_double(upstream), *(long_double(t) for t in tensors))


def assert_within(got, want, scale, gate, what, size=None):
    """‖got − want‖ ≤ gate·u·scale, plus one rounding to a 16-bit result, or of parts of a size."""
    assert tuple(got.shape) == tuple(np.shape(want)), what
    unit = ROUNDOFF[torch.float64 if got.dtype == torch.float64 else torch.float32]
    bound = gate * unit * float(scale)
    if got.dtype in HALVES:
        size = float(np.sqrt(np.sum(np.square(want))) if size is None else 2 * size)
        bound += ROUNDOFF[got.dtype] * size + SMALLEST[got.dtype] * np.sqrt(got.numel())
    error = float(np.sqrt(np.sum(np.square(long_double(got) - want))))
    assert error <= bound, f"{what}: error {error:.3e} above the gate {bound:.3e}"


def assert_right(case, tensors, result=None):
    """Value and all gradients hold the gates of the case."""
    value, grads = result or value_and_grads(case, tensors)
    right = truth(case, tensors)
    assert_within(value, right.value, right.value_scale, case.value_gate, f"{case.name} value")
    for position, grad in enumerate(grads):
        if grad is not None:
            assert grad.dtype == tensors[position].dtype
            want, scale = right.grads[position], right.grad_scales[position]
            size = right.grad_sizes[position] if right.grad_sizes else None
            what = f"{case.name} gradient {position}"
            assert_within(grad, want, scale, case.grad_gate, what, size)


def bits(tensor):
    """The bytes of a tensor, to be compared with ==."""
    if tensor is None:
        return None
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


def mean_of(function):
    return lambda *tensors: function(*tensors, reduction="mean")


def omega(K, d, dtype, generator):
    """A wanted Gram matrix of the size of W Wᵀ, not symmetric."""
    return (torch.rand(K, K, generator=generator, dtype=torch.float64).mul(2 * d).to(dtype),)


def factor(K, d, dtype, generator):
    return (torch.rand(K, 2, generator=generator, dtype=torch.float64).to(dtype),)


def threshold(K, d, dtype, generator):
    """Between the large singular value of the common row and those of the noise."""
    return (torch.tensor(0.3 * max(K, d) ** 0.5, dtype=dtype),)


def edges(K):
    """About 4K directed edges within the residue classes mod 5, with repeats and self loops."""
    if not K:
        return np.zeros((2, 0), dtype=np.int64)
    random = np.random.default_rng(K)
    src = random.integers(0, K, 4 * K)
    return np.stack([src, src % 5 + 5 * random.integers(0, (K - 1 - src % 5) // 5 + 1)])


def group_edges(K):
    """All ordered pairs with the same residue mod 5: what TaskGraph.groups stands for."""
    i, j = np.indices((K, K))
    return np.nonzero((i % 5 == j % 5) & (i != j))


# Graphs of K tasks on a kind of device, made before a function is transformed or compiled, as
# users do.
EDGE_INDEX, TASK_GRAPH, GROUPS = {}, {}, {}


def prepare_graphs(K, device="cpu"):
    key = K, torch.device(device).type
    if key not in EDGE_INDEX:
        EDGE_INDEX[key] = torch.from_numpy(edges(K)).to(device)
        TASK_GRAPH[key] = mtlfast.TaskGraph.from_edges(EDGE_INDEX[key], num_tasks=K)
        GROUPS[key] = mtlfast.TaskGraph.groups((torch.arange(K) % 5).to(device))


def graph_for(graphs, W):
    """The graph that was prepared for W, a tensor or a list of K."""
    device = (W if isinstance(W, torch.Tensor) else next(iter(W))).device
    return graphs[len(W), device.type]


def edge_weight(K, d, dtype, generator):
    """Some weights negative, some zero."""
    weight = torch.rand(4 * K, generator=generator, dtype=torch.float64) - 0.2
    return (weight.masked_fill(weight.abs() < 0.02, 0).to(dtype),)


def dense_weight(K, d, dtype, generator):
    """Not symmetric, half of it zero, nothing between different residues mod 5."""
    near = torch.arange(K)[:, None] % 5 == torch.arange(K) % 5
    weight = torch.rand(K, K, generator=generator, dtype=torch.float64) - 0.5
    return ((weight.clamp(min=0) * near).to(dtype),)


def batched_trace_norm(W):
    """One of a batch of scaled copies, which share vectors in the kernel."""
    scales = torch.tensor([2.0 ** (b % 4 - 2) for b in range(16)], dtype=W.dtype, device=W.device)
    return mtlfast.trace_norm(scales[:, None, None] * W)[7]


def batched_trace_norm_prox(W, threshold):
    """One of a batch whose thresholds and matrices differ."""
    batch = torch.arange(1, 6, dtype=W.dtype, device=W.device)[:, None, None] * W
    factors = torch.arange(-1, 4, device=W.device).abs()
    return mtlfast.trace_norm_prox(batch, threshold * factors)[0]


def sum_of(W):
    """A regularizer of all three kinds of quadratics, with two graphs."""
    graphs = [(graph_for(TASK_GRAPH, W), 0.5), (graph_for(GROUPS, W), 0.25)]
    parts = [nn.GraphReg(graph, strength) for graph, strength in graphs]
    return nn.Sum([nn.PairwiseReg(0.02), *parts, nn.Ridge(0.3)])


SUM = [
    (0.02, oracles.pairwise_reg),
    (0.5, oracles.graph_reg(edges)),
    (0.25, oracles.graph_reg(group_edges)),
    (0.3, oracles.ridge_reg),
]

GRAPH = {"value_gate": 32, "grad_gate": 64, "degree": 2, "shift_free": True}

CASES = [
    Case(
        "pairwise_reg",
        mtlfast.pairwise_reg,
        oracles.pairwise_reg,
        value_gate=32,
        grad_gate=16,
        degree=2,
        shift_free=True,
        order_free=True,
    ),
    Case(
        "pairwise_reg mean",
        mean_of(mtlfast.pairwise_reg),
        oracles.mean(oracles.pairwise_reg),
        value_gate=32,
        grad_gate=16,
        degree=2,
        shift_free=True,
        order_free=True,
    ),
    Case(
        "pairwise_prox",
        lambda W: mtlfast.pairwise_prox(W, 0.03),
        oracles.pairwise_prox(0.03),
        value_gate=64,
        grad_gate=64,
        prox=True,
        degree=1,
    ),
    Case(
        "graph_reg edges",
        lambda W, weight: mtlfast.graph_reg(W, (graph_for(EDGE_INDEX, W), weight)),
        oracles.graph_reg(edges),
        extras=edge_weight,
        linear_in_extra=True,
        one_path=False,  # fixed weights are merged once, learnable ones at every call
        **GRAPH,
    ),
    Case(
        "graph_reg TaskGraph",
        lambda W: mtlfast.graph_reg(W, graph_for(TASK_GRAPH, W)),
        oracles.graph_reg(edges),
        **GRAPH,
    ),
    Case(
        "graph_reg dense",
        mtlfast.graph_reg,
        oracles.dense_graph_reg,
        extras=dense_weight,
        linear_in_extra=True,
        one_path=False,
        largest=9_000,
        **GRAPH,
    ),
    Case(
        "graph_reg groups",
        lambda W: mtlfast.graph_reg(W, graph_for(GROUPS, W)),
        oracles.graph_reg(group_edges),
        largest=9_000,
        **GRAPH,
    ),
    Case(
        "graph_prox",
        lambda W: mtlfast.graph_prox(W, graph_for(TASK_GRAPH, W), 0.03, tol=4e-15),
        oracles.graph_prox(edges, 0.03),
        value_gate=64,
        grad_gate=64,
        prox=True,
        largest=800,
    ),
    Case(
        "graph_prox groups",
        lambda W: mtlfast.graph_prox(W, graph_for(GROUPS, W), 0.03),
        oracles.graph_prox(group_edges, 0.03),
        value_gate=64,
        grad_gate=64,
        prox=True,
        largest=9_000,
    ),
    Case(
        "graph_total_variation",
        lambda W: mtlfast.graph_total_variation(W, graph_for(TASK_GRAPH, W)),
        oracles.graph_total_variation(edges),
        value_gate=32,
        grad_gate=64,
        degree=1,
        shift_free=True,
    ),
    Case(
        "graph_total_variation mean groups",
        lambda W: mtlfast.graph_total_variation(W, graph_for(GROUPS, W), reduction="mean"),
        oracles.mean(oracles.graph_total_variation(group_edges), lambda K: len(group_edges(K)[0])),
        value_gate=32,
        grad_gate=64,
        degree=1,
        shift_free=True,
        largest=9_000,
    ),
    Case(
        "ridge_reg",
        mtlfast.ridge_reg,
        oracles.ridge_reg,
        value_gate=32,
        grad_gate=16,
        degree=2,
        order_free=True,
    ),
    Case(
        "ridge_reg strength",
        lambda W: mtlfast.ridge_reg(W, strength=0.3),
        oracles.combined((0.3, oracles.ridge_reg)),
        value_gate=32,
        grad_gate=16,
        degree=2,
        order_free=True,
    ),
    Case(
        "ridge_prox",
        lambda W: mtlfast.ridge_prox(W, 0.3),
        oracles.ridge_prox(0.3),
        value_gate=64,
        grad_gate=64,
        prox=True,
        degree=1,
    ),
    Case(
        "nn.Sum",
        lambda W: sum_of(W)(W),
        oracles.combined(*SUM),
        value_gate=32,
        grad_gate=64,
        degree=2,
        largest=9_000,
    ),
    Case(
        "nn.Sum without edges",
        lambda W: (nn.Ridge(0.3) + nn.PairwiseReg(0.02) + nn.GraphReg(graph_for(GROUPS, W)))(W),
        oracles.combined(SUM[3], SUM[0], (1, oracles.graph_reg(group_edges))),
        value_gate=32,
        grad_gate=64,
        degree=2,
        largest=9_000,
    ),
    Case(
        "gram_reg dense",
        mtlfast.gram_reg,
        oracles.gram_reg,
        value_gate=32,
        grad_gate=16,
        extras=omega,
        fixed_bits=False,  # the gradient in omega
    ),
    Case(
        "gram_reg low rank",
        lambda W, F: mtlfast.gram_reg(W, mtlfast.LowRank(F), reduction="mean"),
        oracles.mean(oracles.gram_factor, lambda K: K * K),
        value_gate=32,
        grad_gate=16,
        extras=factor,
        fixed_bits=False,
    ),
    Case(
        "group_lasso",
        mtlfast.group_lasso,
        oracles.group_lasso,
        value_gate=32,
        grad_gate=16,
        degree=1,
        order_free=True,
        smooth=False,
    ),
    Case(
        "group_lasso_prox",
        lambda W: mtlfast.group_lasso_prox(W, 0.5),
        oracles.group_lasso_prox(0.5),
        value_gate=64,
        grad_gate=64,
        prox=True,
    ),
    Case(
        "trace_norm",
        mtlfast.trace_norm,
        oracles.trace_norm(1),
        value_gate=64,
        grad_gate=64,
        degree=1,
        order_free=True,
        rows=False,
        largest=35_000,
        smooth=False,
        one_path=False,  # a gradient is worth float64 sweeps
    ),
    Case(
        "trace_norm batch",
        batched_trace_norm,
        oracles.trace_norm(2),
        value_gate=64,
        grad_gate=64,
        degree=1,
        order_free=True,
        rows=False,
        largest=10_000,
        smooth=False,
        lists=False,
        one_path=False,
    ),
    Case(
        "trace_norm_prox",
        mtlfast.trace_norm_prox,
        oracles.trace_norm_prox,
        value_gate=64,
        grad_gate=64,
        extras=threshold,
        prox=True,
        rows=False,
        largest=35_000,
    ),
    Case(
        "trace_norm_prox batch",
        batched_trace_norm_prox,
        oracles.trace_norm_prox,
        value_gate=64,
        grad_gate=64,
        extras=threshold,
        prox=True,
        rows=False,
        largest=10_000,
        lists=False,
    ),
]

REGS = [case for case in CASES if not case.prox]
PROXES = [case for case in CASES if case.prox]


def names(case):
    return case.name.replace(" ", "-")
