"""W given task by task in other containers than lists: the same bits, and the same in place."""

import collections

import cases
import pytest
import torch
from cases import CASES, bits, upstream_like

import mtlfast
from mtlfast import TaskGraph, nn

W = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
GRAPH = TaskGraph.chain(4)


def by_name(tensors):
    return collections.OrderedDict((f"task {k}", t) for k, t in enumerate(tensors))


FORMS = {
    "ParameterList": torch.nn.ParameterList,
    "values": lambda tensors: dict(by_name(tensors)).values(),
    "ordered values": lambda tensors: by_name(tensors).values(),
    "values of a user": lambda tensors: collections.ChainMap(by_name(tensors)).values(),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def leaves_of(rows):
    return [torch.nn.Parameter(row.clone()) for row in rows]


@every_form
@pytest.mark.parametrize("case", [case for case in CASES if case.lists], ids=cases.names)
def test_every_case(case, form):
    w, *extras = case.tensors(5, 3, torch.float32)

    def results(make):
        leaves = leaves_of(w)
        value = case.function(make(leaves), *extras)
        rows = torch.stack(list(value)) if case.prox else value
        rows.backward(upstream_like(rows))
        return bits(rows), [bits(leaf.grad) for leaf in leaves]

    assert results(form) == results(list)


@every_form
def test_a_prox_of_other_sequences_is_a_list(form):
    for prox in (mtlfast.pairwise_prox, mtlfast.trace_norm_prox, mtlfast.group_lasso_prox):
        assert type(prox(form(leaves_of(W)), 0.1)) is list
    assert type(mtlfast.pairwise_prox(tuple(W), 0.1)) is tuple


IN_PLACE = {
    "pairwise": lambda W: mtlfast.pairwise_prox_(W, 0.1),
    "ridge": lambda W: mtlfast.ridge_prox_(W, 0.1),
    "graph": lambda W: mtlfast.graph_prox_(W, GRAPH, 0.1),
    "trace norm": lambda W: mtlfast.trace_norm_prox_(W, 0.1),
    "group lasso": lambda W: mtlfast.group_lasso_prox_(W, 0.1),
    "total variation": lambda W: nn.GraphTotalVariation(GRAPH).prox_(W, 0.1),
    "sum": lambda W: (nn.PairwiseReg() + nn.Ridge()).prox_(W, 0.1),
}


@every_form
@pytest.mark.parametrize("function", IN_PLACE.values(), ids=IN_PLACE)
def test_proxes_in_place(function, form):
    leaves, others = leaves_of(W), leaves_of(W)
    given = form(leaves)
    assert function(given) is given
    function(others)
    assert [bits(t) for t in leaves] == [bits(t) for t in others] != [bits(t) for t in W]


TERMS = [
    nn.PairwiseReg(0.3),
    nn.GraphReg(GRAPH, 0.3),
    nn.GraphTotalVariation(GRAPH, 0.3),
    nn.TraceNorm(0.3),
    nn.GroupLasso(0.3),
    nn.Ridge(0.3),
    nn.GramReg(torch.eye(4)),
    nn.PairwiseReg(0.3) + nn.GraphReg(GRAPH) + nn.TraceNorm(0.1),
]


@every_form
@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_gradients_are_added_in_place(term, form):
    grads, others = [list(torch.ones(4, 3)) for _ in range(2)]
    value = term.add_grad_(grads, form(leaves_of(W)))
    assert value == term.add_grad_(others, leaves_of(W))
    assert [bits(g) for g in grads] == [bits(g) for g in others]
    again = list(torch.ones(4, 3))
    term.add_grad_(by_name(again).values(), form(leaves_of(W)))
    assert [bits(g) for g in again] == [bits(g) for g in grads]


@every_form
def test_relations(form):
    assert mtlfast.relations(form(leaves_of(W))).summary() == mtlfast.relations(W).summary()


def test_parameters_are_trained():
    heads = torch.nn.ParameterList(leaves_of(W))
    compiled = torch.compile(mtlfast.pairwise_reg, backend="aot_eager")
    compiled(heads).backward()
    for head, grad in zip(heads, 16 * (W - W.mean(0)), strict=True):
        torch.testing.assert_close(head.grad, grad)


@pytest.mark.parametrize("empty", [torch.nn.ParameterList(), {}.values()])
def test_no_task(empty):
    with pytest.raises(ValueError, match="pairwise_reg: W must hold at least one tensor"):
        mtlfast.pairwise_reg(empty)
