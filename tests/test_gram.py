"""gram_reg: every form of omega against one dense float64 formula."""

import pathlib
import subprocess
import sys

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mtlfast import LowRank, _native, gram_reg

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script`"),
]

FORMS = ("dense", "coo", "uncoalesced", "csr", "lowrank")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def randn(*shape, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


def sparse_values(num_tasks, dtype, density=0.3):
    """A random non-symmetric matrix with zeros, as (index [2, E], values [E])."""
    dense = randn(num_tasks, num_tasks, seed=2)
    kept = torch.rand(dense.shape, generator=torch.Generator().manual_seed(3)) < density
    index = (kept | torch.eye(num_tasks, dtype=torch.bool)).nonzero().T
    return index, dense[tuple(index)].to(dtype)


def build(form, num_tasks, dtype):
    """(leaf that holds omega's numbers, leaf → omega, leaf → dense omega) for a form."""
    shape = (num_tasks, num_tasks)
    if form == "dense":
        return randn(*shape, dtype=dtype, seed=1), lambda leaf: leaf, lambda leaf: leaf
    if form == "lowrank":
        leaf = randn(num_tasks, 3, dtype=dtype, seed=1)
        return leaf, LowRank, lambda leaf: leaf @ leaf.T
    index, values = sparse_values(num_tasks, dtype)
    if form == "uncoalesced":
        index, values = torch.cat([index, index.flip(1)], 1), torch.cat([values, values.flip(0)])

    def dense(leaf):
        return leaf.new_zeros(shape).index_put(tuple(index), leaf, accumulate=True)

    if form == "csr":
        start = torch.zeros(num_tasks + 1, dtype=torch.long)
        start[1:] = torch.bincount(index[0], minlength=num_tasks).cumsum(0)

        def make(leaf):
            return torch.sparse_csr_tensor(start, index[1], leaf, shape)

    else:

        def make(leaf):
            return torch.sparse_coo_tensor(index, leaf, shape)

    return values, make, dense


def oracle(w, leaf, dense, upstream=1.0):
    """Value and both gradients of the plain formula, in float64 on the given numbers."""
    w = w.detach().double().requires_grad_()
    leaf = leaf.detach().double().requires_grad_()
    value = (w @ w.T - dense(leaf)).square().sum()
    return value.detach(), *torch.autograd.grad(
        value, (w, leaf), torch.tensor(upstream, dtype=torch.float64)
    )


def close(actual, expected, tolerance):
    error = (actual.double() - expected).norm() / expected.norm().clamp(min=1e-300)
    assert error <= tolerance, float(error)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 7), (600, 3), (300, 150)], ids=str)
def test_value_and_gradients(size, form, dtype):
    w = randn(*size, dtype=dtype, scale=0.3).requires_grad_()
    leaf, make, dense = build(form, size[0], dtype)
    leaf.requires_grad_()
    upstream = 0.375  # the same in every dtype
    value = gram_reg(w, make(leaf))
    value.backward(torch.tensor(upstream, dtype=value.dtype))
    expected = oracle(w, leaf, dense, upstream)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert w.grad.dtype == leaf.grad.dtype == dtype
    u = torch.finfo(dtype).eps / 2
    close(value, expected[0], 32 * min(u, 2.0**-24))
    close(w.grad, expected[1], 16 * u)
    close(leaf.grad, expected[2], 16 * u)


@pytest.mark.parametrize("needs", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("form", FORMS)
def test_only_wanted_gradients(form, needs):
    leaf, make, dense = build(form, 9, torch.float64)
    w, leaf = randn(9, 4).requires_grad_(needs[0]), leaf.requires_grad_(needs[1])
    value = gram_reg(w, make(leaf), reduction="mean")
    expected = oracle(w, leaf, dense, 1 / 81)
    close(value, expected[0] / 81, 1e-14)
    assert value.requires_grad == any(needs)
    if any(needs):
        value.backward()
    for tensor, gradient, needed in zip((w, leaf), expected[1:], needs, strict=True):
        if needed:
            close(tensor.grad, gradient, 1e-14)
        else:
            assert tensor.grad is None


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_leaf_gets_a_gradient_in_its_layout(layout):
    values, make, dense = build(layout, 12, torch.float64)
    omega = make(values).detach().requires_grad_()
    w = randn(12, 3)
    gram_reg(w, omega).backward()
    assert omega.grad.layout == omega.layout
    stored = omega.detach().to_dense() != 0
    expected = -2 * (w @ w.T - dense(values)) * stored
    close(omega.grad.to_dense(), expected, 1e-14)


def test_all_forms_of_one_matrix_agree():
    w, factor = randn(40, 5), randn(40, 2, seed=1)
    omega = factor @ factor.T
    expected = float((w @ w.T - omega).square().sum())
    for form in (omega, omega.to_sparse(), omega.to_sparse_csr(), LowRank(factor)):
        assert float(gram_reg(w, form)) == pytest.approx(expected, rel=1e-13)


def test_list_of_parameters_and_any_shape():
    heads = [torch.nn.Parameter(randn(2, 3, seed=k)) for k in range(6)]
    omega = randn(6, 6, seed=9)
    gram_reg(heads, omega).backward()
    stacked = torch.stack(heads).detach()
    expected = oracle(stacked.flatten(1), omega, lambda leaf: leaf)
    close(gram_reg(stacked, omega), expected[0], 1e-14)
    close(torch.stack([h.grad for h in heads]).flatten(1), expected[1], 1e-14)


def test_strided_inputs():
    w = randn(20, 14)[::2, 1::3]
    omega = randn(20, 30, seed=1)[::2, ::3]
    for matrix in (omega, omega.T, omega[:1].expand(10, 10)):
        expected = oracle(w, matrix, lambda leaf: leaf)
        leaf = matrix.detach().requires_grad_()
        x = w.detach().requires_grad_()
        value = gram_reg(x, leaf)
        got = torch.autograd.grad(value, (x, leaf))
        for actual, wanted in zip((value.detach(), *got), expected, strict=True):
            close(actual, wanted, 1e-14)


# --- near the optimum -----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
def test_dense_near_the_optimum(noise):
    w = randn(700, 8, dtype=torch.float32)
    omega = (w.double() @ w.double().T + noise * randn(700, 700, seed=1)).float()
    x = w.clone().requires_grad_()
    value = gram_reg(x, omega)
    value.backward()
    expected = oracle(w, omega, lambda leaf: leaf)
    close(value, expected[0], 2.0**-19)
    close(x.grad, expected[1], 2.0**-20)


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_lowrank_near_the_optimum(dtype, noise):
    w = randn(300, 6, dtype=dtype)
    rotation = torch.linalg.qr(randn(6, 6, seed=5)).Q
    factor = (w.double() @ rotation + noise * randn(300, 6, seed=1)).to(dtype)
    x, f = w.clone().requires_grad_(), factor.clone().requires_grad_()
    value = gram_reg(x, LowRank(f))
    value.backward()
    expected = oracle(w, factor, lambda leaf: leaf @ leaf.T)
    u = torch.finfo(dtype).eps / 2
    close(value, expected[0], max(32 * u, 1e-8))
    close(x.grad, expected[1], max(16 * u, 1e-8))
    close(f.grad, expected[2], max(16 * u, 1e-8))


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
def test_sparse_near_the_optimum_keeps_the_documented_error(noise):
    w = torch.zeros(60, 20, dtype=torch.float64)
    w[torch.arange(60), torch.arange(60) // 3] = randn(60)  # W Wᵀ is block diagonal
    omega = w @ w.T
    index = omega.nonzero().T
    values = omega[tuple(index)] + noise * randn(index.shape[1], seed=1)
    sparse = torch.sparse_coo_tensor(index, values, (60, 60))
    expected = (omega - sparse.to_dense()).square().sum()
    limit = 1e-15 * omega.square().sum()
    assert abs(gram_reg(w, sparse) - expected) <= limit + 1e-12 * expected


@pytest.mark.parametrize("form", ["dense", "coo", "csr", "lowrank"])
def test_the_optimum_is_zero(form):
    w = randn(50, 4)
    omega = w @ w.T
    scale = omega.square().sum()
    omega = {
        "dense": lambda: omega,
        "coo": omega.to_sparse,
        "csr": omega.to_sparse_csr,
        "lowrank": lambda: LowRank(w.flip(1)),
    }[form]()
    x = w.clone().requires_grad_()
    value = gram_reg(x, omega)
    value.backward()
    assert 0 <= float(value.detach() / scale) <= (1e-14 if form in ("coo", "csr") else 1e-28)
    assert float(x.grad.norm() / w.norm() ** 3) <= 1e-14


# --- differentiation ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradcheck(form, reduction):
    leaf, make, _ = build(form, 5, torch.float64)
    inputs = (randn(5, 3).requires_grad_(), leaf.requires_grad_())

    def function(w, leaf):
        return gram_reg(w, make(leaf), reduction=reduction)

    assert torch.autograd.gradcheck(function, inputs, nondet_tol=0)
    assert torch.autograd.gradgradcheck(function, inputs, nondet_tol=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_second_backward_does_not_see_what_became_of_the_first(form):
    leaf, make, dense = build(form, 6, torch.float64)
    w = randn(6, 3).requires_grad_()
    value = gram_reg(w, make(leaf.requires_grad_()))
    for grad in torch.autograd.grad(value, (w, leaf), retain_graph=True):
        grad.zero_()
    upstream = torch.tensor(3.0, dtype=torch.float64)
    got = torch.autograd.grad(value, (w, leaf), upstream)
    for actual, wanted in zip(got, oracle(w, leaf, dense, 3.0)[1:], strict=True):
        close(actual, wanted, 1e-14)


def test_second_derivative_when_omega_depends_on_w():
    w = randn(4, 3).requires_grad_()

    def function(w):
        return gram_reg(w, torch.tanh(w @ w.T))

    assert torch.autograd.gradgradcheck(function, (w,), nondet_tol=0)


@pytest.mark.parametrize("form", FORMS)
def test_transforms_by_value(form):
    leaf, make, dense = build(form, 5, torch.float64)
    omega = make(leaf)

    def plain(w):
        return (w @ w.T - dense(leaf)).square().sum()

    def ours(w):
        return gram_reg(w, omega)

    w, batch, v = randn(5, 2), randn(4, 5, 2, seed=7), randn(5, 2, seed=8)
    for transform in (torch.func.grad, torch.func.hessian):
        close(transform(ours)(w), transform(plain)(w), 1e-13)
    close(torch.func.vmap(ours)(batch), torch.func.vmap(plain)(batch), 1e-13)
    for actual, expected in zip(
        torch.func.jvp(ours, (w,), (v,)), torch.func.jvp(plain, (w,), (v,)), strict=True
    ):
        close(actual, expected, 1e-13)
    x = w.clone().requires_grad_()
    close(
        torch.autograd.functional.hvp(ours, x, v)[1],
        torch.autograd.functional.hvp(plain, x, v)[1],
        1e-13,
    )


def test_compile_fullgraph():
    w, omega = randn(7, 3).requires_grad_(), randn(7, 7, seed=1).requires_grad_()
    compiled = torch.compile(
        lambda w, o: 2 * gram_reg(w, o), fullgraph=True, backend="aot_eager", dynamic=False
    )
    value = compiled(w, omega)
    got = torch.autograd.grad(value, (w, omega))
    expected = oracle(w, omega, lambda leaf: leaf, 2.0)
    close(value.detach(), 2 * expected[0], 1e-14)
    close(got[0], expected[1], 1e-14)
    close(got[1], expected[2], 1e-14)


def test_compile_of_func_grad():
    w, omega = randn(7, 3), randn(7, 7, seed=1)
    gradient = torch.compile(torch.func.grad(lambda w: gram_reg(w, omega)), backend="aot_eager")
    close(gradient(w), oracle(w, omega, lambda leaf: leaf)[1], 1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_checkpoint(form):
    leaf, make, dense = build(form, 8, torch.float64)
    w = randn(8, 3).requires_grad_()
    checkpoint(lambda w: gram_reg(w, make(leaf)), w, use_reentrant=False).backward()
    close(w.grad, oracle(w, leaf, dense)[1], 1e-14)


def test_autocast_changes_nothing():
    w, omega = randn(30, 8, dtype=torch.float32).requires_grad_(), randn(30, 30).float()
    plain = gram_reg(w, omega)
    (expected,) = torch.autograd.grad(plain, w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = gram_reg(w, omega)
        transformed = torch.func.grad(gram_reg)(w.detach(), omega)
    assert torch.equal(value, plain)
    assert torch.equal(torch.autograd.grad(value, w)[0], expected)
    close(transformed, expected.double(), 2.0**-22)


def test_opcheck():
    w, omega, factor = randn(5, 3), randn(5, 5, seed=1), randn(5, 2, seed=2)
    row, col = torch.tensor([0, 1, 4]), torch.tensor([2, 1, 0])
    ops = torch.ops.mtlfast
    for want in (True, False):
        torch.library.opcheck(ops.gram_dense.default, (w, omega, want))
        torch.library.opcheck(ops.gram_edges.default, (w, row, col, randn(3), want, not want))
        torch.library.opcheck(ops.gram_factor.default, (w, factor, want, not want))
    torch.library.opcheck(ops.gram_dense_omega_grad.default, (w, omega, randn(1)[0]))


# --- edges, repeats, memory -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_empty(size):
    w = randn(*size).requires_grad_()
    omega = randn(size[0], size[0], seed=1)
    expected = float(omega.square().sum())
    for form in (omega, omega.to_sparse(), omega.to_sparse_csr()):
        value = gram_reg(w, form, reduction="sum")
        value.backward()
        assert float(value.detach()) == pytest.approx(expected)
        assert w.grad.shape == w.shape and not w.grad.any()
    assert float(gram_reg(w, LowRank(randn(size[0], 0)), reduction="mean").detach()) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_propagate(form, bad):
    leaf, make, _ = build(form, 6, torch.float32)
    w = randn(6, 3, dtype=torch.float32)
    spoilt = w.clone()
    spoilt[2, 1] = bad
    assert not gram_reg(spoilt, make(leaf)).isfinite()
    leaf = leaf.clone()
    leaf[1] = bad
    x = w.requires_grad_()
    value = gram_reg(x, make(leaf))
    value.backward()
    assert not value.isfinite() and not x.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_repeats_are_bit_identical(form):
    leaf, make, _ = build(form, 700, torch.float32)
    w = randn(700, 9, dtype=torch.float32).requires_grad_()

    def run():
        value = gram_reg(w, make(leaf))
        return value.detach(), *torch.autograd.grad(value, w)

    first = run()
    for _ in range(3):
        assert all(map(torch.equal, first, run()))


_MEMORY = """
import sys, torch
from mtlfast import gram_reg
K, d = 4000, 8
w, omega = torch.randn(K, d, requires_grad=True), torch.rand(K, K)
small = torch.randn(40, d, requires_grad=True)
forms = {
    "ours": lambda w, omega: gram_reg(w, omega),
    "naive": lambda w, omega: ((w @ w.T - omega) ** 2).sum(),
}
form = forms[sys.argv[1]]
form(small, omega[:40, :40]).backward()
def peak():  # KiB; getrusage would count what the parent process held
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = peak()
form(w, omega).backward()
sys.stdout.write(str((peak() - before) / (K * K * 4 / 1024)))
"""


def test_no_k_by_k_temporary():
    status = pathlib.Path("/proc/self/status")
    if not status.exists() or "VmHWM" not in status.read_text():
        pytest.skip("the system does not report a process's peak memory")

    def growth(form):  # of the peak resident memory, in units of one float32 K×K matrix
        command = [sys.executable, "-c", _MEMORY, form]
        return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert growth("naive") > 1.0  # the measure sees such temporaries
    assert growth("ours") < 0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_entries_in_any_order(dtype):
    w = randn(300, 20, dtype=dtype)
    index, values = sparse_values(300, dtype, density=0.1)
    order = torch.randperm(len(values))
    in_order = torch.ops.mtlfast.gram_edges(w, *index, values, True, True)
    shuffled = torch.ops.mtlfast.gram_edges(w, *index[:, order], values[order], True, True)
    for actual, expected in zip(shuffled, (*in_order[:2], in_order[2][order]), strict=True):
        close(actual, expected.double(), 2.0**-22)


def bits_for_threads_and_instruction_sets(W, omega, *others):
    """The different outcomes of value and gradients in W and in ``others``."""
    seen = set()
    for threads in (1, 2, 3):
        for isa in _native.cpu_isas():
            torch.set_num_threads(threads)
            _native.use_isa(isa)
            value = gram_reg(W, omega(*others))
            grads = torch.autograd.grad(value, (W, *others))
            seen.add((value.item(), *(str(grad.double().tolist()) for grad in grads)))
    return seen


compiled = pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
some_dtypes = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str
)


@compiled
@some_dtypes
@pytest.mark.parametrize("K, d", [(5, 3), (130, 65), (700, 33)])
def test_a_dense_omega_gives_the_same_bits_for_threads_and_instruction_sets(dtype, K, d):
    W, omega = torch.randn(K, d).to(dtype).requires_grad_(), torch.randn(K, K).to(dtype)
    assert len(bits_for_threads_and_instruction_sets(W, lambda: omega)) == 1


@compiled
@some_dtypes
@pytest.mark.parametrize("density", [0, 0.1])
@pytest.mark.parametrize("K, d", [(5, 3), (130, 65), (700, 33), (300, 300)])
def test_a_sparse_omega_gives_the_same_bits_for_threads_and_instruction_sets(dtype, K, d, density):
    W = torch.randn(K, d).to(dtype).requires_grad_()
    index = (torch.rand(K, K) < density).nonzero().T
    values = torch.randn(index.shape[1]).to(dtype).requires_grad_()

    def omega(values):
        return torch.sparse_coo_tensor(index, values, (K, K))

    assert len(bits_for_threads_and_instruction_sets(W, omega, values)) == 1
