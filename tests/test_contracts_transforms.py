"""Every torch transform, by value: opcheck passes on ops whose gradient is silently zero."""

import os

import cases
import numpy as np
import pytest
import torch
from cases import CASES, DTYPES, assert_right, long_double, truth, upstream_like

import mtlfast

# "aot_eager" compiles no C++; what inductor alone gets wrong shows in torch.func.grad, if anywhere.
BACKEND = os.environ.get("MTLFAST_TEST_BACKEND", "inductor")
every_case = pytest.mark.parametrize("case", CASES, ids=cases.names)


def weighed(case, like):
    """The scalar <upstream, f(…)>, so that one test serves scalars and proxes."""
    upstream = upstream_like(like.new_empty(like.shape if case.prox else ()))
    return lambda *tensors: (upstream * case.function(*tensors)).sum()


def tangents(tensors):
    generator = torch.Generator().manual_seed(7)
    directions = (torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in tensors)
    return tuple(v.to(t.device) for v, t in zip(directions, tensors, strict=True))


def want_jvp(case, tensors, directions):
    grads = truth(case, tensors).grads
    return float(sum(np.sum(g * long_double(v)) for g, v in zip(grads, directions, strict=True)))


def close(got, want, rtol=1e-9):
    scale = max(float(np.max(np.abs(want), initial=0)), 1.0)
    got = got.detach().double().cpu().numpy()
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * scale)


@every_case
def test_gradcheck(case, device):
    tensors = [t.requires_grad_() for t in case.tensors(4, 3, spread=1.0, device=device)]
    assert torch.autograd.gradcheck(case.function, tensors, nondet_tol=0)


@every_case
def test_gradgradcheck(case, device):
    tensors = [t.requires_grad_() for t in case.tensors(4, 3, spread=1.0, device=device)]
    assert torch.autograd.gradgradcheck(case.function, tensors, nondet_tol=0)


@every_case
def test_func_grad(case, device):
    tensors = case.tensors(6, 3, device=device)
    grads = torch.func.grad(weighed(case, tensors[0]), argnums=tuple(range(len(tensors))))(*tensors)
    for got, want in zip(grads, truth(case, tensors).grads, strict=True):
        close(got, want)


@every_case
def test_vmap(case, device):
    W, *extras = case.tensors(6, 3, device=device)
    batch = torch.stack([W, 2 * W, W.flip(1)])
    got = torch.func.vmap(case.function, in_dims=(0, *(None for _ in extras)))(batch, *extras)
    for k, w in enumerate(batch):
        close(got[k], truth(case, (w, *extras)).value)


@every_case
def test_vmap_of_grad(case, device):
    W, *extras = case.tensors(6, 3, device=device)
    batch = torch.stack([W, 2 * W, W.flip(1)])
    grad = torch.func.grad(weighed(case, W))
    got = torch.func.vmap(grad, in_dims=(0, *(None for _ in extras)))(batch, *extras)
    for k, w in enumerate(batch):
        close(got[k], truth(case, (w, *extras)).grads[0])


@every_case
def test_jvp(case, device):
    tensors = case.tensors(6, 3, device=device)
    directions = tangents(tensors)
    value, slope = torch.func.jvp(weighed(case, tensors[0]), tensors, directions)
    right = truth(case, tensors).value
    close(value, np.sum(long_double(upstream_like(torch.empty(right.shape).double())) * right))
    close(slope, want_jvp(case, tensors, directions))


@every_case
def test_forward_mode(case, device):
    tensors = case.tensors(6, 3, device=device)
    directions = tangents(tensors)
    with torch.autograd.forward_ad.dual_level():
        duals = [
            torch.autograd.forward_ad.make_dual(t, v)
            for t, v in zip(tensors, directions, strict=True)
        ]
        value = weighed(case, tensors[0])(*duals)
        slope = torch.autograd.forward_ad.unpack_dual(value).tangent
    close(slope, want_jvp(case, tensors, directions))


def want_hessian_product(case, tensors, direction, step=1e-5):
    """Central difference of the oracle's gradient, in long double."""
    w, *extras = (long_double(t) for t in tensors)
    upstream = long_double(upstream_like(torch.empty(w.shape if case.prox else ()).double()))
    ahead = case.oracle(upstream, w + step * direction, *extras).grads[0]
    behind = case.oracle(upstream, w - step * direction, *extras).grads[0]
    return (ahead - behind) / (2 * step)


@every_case
def test_hessian(case, device):
    tensors = case.tensors(4, 3, spread=1.0, device=device)
    direction = tangents(tensors)[0]
    hessian = torch.func.hessian(weighed(case, tensors[0]))(*tensors)
    assert hessian.shape == (4, 3, 4, 3)
    product = torch.einsum("ijkl,kl->ij", hessian, direction)
    close(product, want_hessian_product(case, tensors, long_double(direction)), rtol=1e-6)


@every_case
def test_double_backward(case, device):
    tensors = [t.requires_grad_() for t in case.tensors(4, 3, spread=1.0, device=device)]
    direction = tangents(tensors)[0]
    value = weighed(case, tensors[0])(*tensors)
    (grad,) = torch.autograd.grad(value, tensors[0], create_graph=True)
    if grad.requires_grad:
        (product,) = torch.autograd.grad(
            (grad * direction).sum(), tensors[0], allow_unused=True, materialize_grads=True
        )
    else:
        product = torch.zeros_like(grad)
    close(product, want_hessian_product(case, tensors, long_double(direction)), rtol=1e-6)


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_compile(case, dtype, fresh_compiler, device):
    """Value and gradients under torch.compile(fullgraph=True) hold the gates."""
    tensors = case.tensors(33, 7, dtype, device=device)
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = torch.compile(case.function, fullgraph=True, backend=BACKEND)(*leaves)
    value.backward(upstream_like(value))
    assert_right(case, tensors, (value.detach(), [leaf.grad for leaf in leaves]))


@every_case
def test_compile_func_grad(case, fresh_compiler, device):
    tensors = case.tensors(6, 3, device=device)
    grad = torch.func.grad(weighed(case, tensors[0]), argnums=tuple(range(len(tensors))))
    for got, want in zip(torch.compile(grad)(*tensors), truth(case, tensors).grads, strict=True):
        close(got, want)


@every_case
def test_compile_func_jvp(case, fresh_compiler, device):
    tensors = case.tensors(6, 3, device=device)
    directions = tangents(tensors)

    def slope(*tensors):
        return torch.func.jvp(weighed(case, tensors[0]), tensors, directions)[1]

    close(torch.compile(slope, backend=BACKEND)(*tensors), want_jvp(case, tensors, directions))


def op_arguments(dtype, device="cpu"):
    """Arguments for each op of torch.ops.mtlfast; an op without a row fails the test below."""
    real = torch.float64 if dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(0)

    def rows(*shape, dtype=dtype):
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.to(device, dtype)

    scale, edges = rows(dtype=real), torch.tensor([[0, 1, 1, 8], [1, 0, 7, 2]], device=device)
    threshold = torch.ones(2, dtype=torch.float64, device=device)
    backwards = torch.arange(9, device=device).int().flip(0)
    chain = mtlfast.TaskGraph.chain(9).to(device)
    csr = chain.row_ptr, chain.col, chain.weight_as(real)
    labelled = mtlfast.TaskGraph.groups([0, 1, 0, 2, 2, 2, 1, 0, 0]).to(device)
    group = labelled.group_ptr, labelled.member
    lengths = torch.arange(5, dtype=torch.float64, device=device)
    return {
        "column_lengths": (rows(9, 5),),
        "column_scale": (rows(9, 5), lengths),
        "column_scale_": (rows(9, 5), lengths),
        "column_add_": (rows(9, 5), rows(9, 5), lengths),
        "pairwise_value": (rows(9, 5),),
        "pairwise_affine": (rows(9, 5), rows(2, 5, dtype=real), scale, 2.5, True),
        "pairwise_value_grad": (rows(9, 5),),
        "pairwise_add_": (rows(9, 5), rows(9, 5), rows(2, 5, dtype=real), 2.5),
        "pairwise_shrink_": (rows(9, 5), rows(2, 5, dtype=real), 0.5),
        "ridge_value": (rows(9, 5), 0.5),
        "ridge_value_grad": (rows(9, 5), 0.5),
        "ridge_scale": (rows(9, 5), scale, 2.5),
        "ridge_scale_": (rows(9, 5), 0.5),
        "ridge_add_": (rows(9, 5), rows(9, 5), 0.5, 2.5),
        "graph_value": (rows(9, 5), *csr, backwards, scale),
        "quadratic_value": (rows(9, 5), *csr, backwards, 0.5, 0.25, 2.0, True),
        "quadratic_add_": (rows(9, 5), rows(9, 5), *csr, None, 0.5, 0.25, 2.0, 0.5),
        "graph_add_": (rows(9, 5), rows(9, 5), *csr, None, 0.5),
        "graph_total_variation_value": (rows(9, 5), *csr, backwards, scale),
        "graph_total_variation_add_": (rows(9, 5), rows(9, 5), *csr, None, 0.5),
        "dense_graph_value": (rows(9, 5), rows(9, 9, dtype=real), None),
        "group_value": (rows(9, 5), *group, scale),
        "edge_distance": (rows(9, 5), *edges),
        "dense_distance": (rows(9, 5),),
        "group_prox": (rows(9, 5), *group, 0.5),
        "graph_prox": (rows(9, 5), *csr[:2], csr[2].double(), None, None, 0.5, 1e-9, 100),
        "edge_structure": (edges, 9),
        "gram_dense": (rows(9, 5), rows(9, 9), True),
        "gram_dense_omega_grad": (rows(9, 5), rows(9, 9), scale),
        "gram_edges": (rows(9, 5), *edges, rows(4), True, True),
        "gram_factor": (rows(9, 5), rows(9, 2), True, False),
        "trace_norm_value": (rows(2, 9, 5), True),
        "trace_norm_shrink": (rows(2, 9, 5), threshold),
        "trace_norm_shrink_": (rows(2, 9, 5), threshold),
    }


def registered_ops():
    names = torch._C._dispatch_get_all_op_names()
    return sorted({name.split("::")[1] for name in names if name.startswith("mtlfast::")})


def test_every_op_has_arguments():
    assert sorted(op_arguments(torch.float32)) == registered_ops()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", registered_ops())
def test_opcheck(name, dtype, device):
    op = getattr(torch.ops.mtlfast, name).default
    torch.library.opcheck(op, op_arguments(dtype, device)[name])
