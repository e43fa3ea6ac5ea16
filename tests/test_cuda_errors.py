"""Bad inputs on a GPU: the class and the words of the CPU, and tensors on several devices."""

import functools

import bad_inputs
import devices
import pytest
import torch
from bad_graphs import INDEX, WEIGHT, learn
from devices import DEVICE
from test_errors import ROWS, check_refused, row_id

from mtlfast import (
    LowRank,
    TaskGraph,
    gram_reg,
    graph_add_grad_,
    graph_prox,
    graph_reg,
    pairwise_add_grad_,
    pairwise_reg,
    trace_norm_prox,
)

pytestmark = devices.any_device


@functools.cache
def rows():
    W = bad_inputs.W.to(DEVICE)
    return W, list(bad_inputs.rows_for(W))


@pytest.mark.parametrize("position", range(len(ROWS)), ids=[row_id(row) for row in ROWS])
def test_bad_input(position):
    W, table = rows()
    check_refused(W, *table[position])


OTHER = torch.device("cpu" if DEVICE.type == "cuda" else "meta")
CHAIN, EYE = TaskGraph.chain(4).to(OTHER), torch.eye(4).to(OTHER)
MIXED = {
    "graph_reg: graph must be on W's device {}, got {}; move it with graph.to(device)": (
        lambda W: graph_reg(W, CHAIN)
    ),
    "graph_prox: graph must be on W's device {}, got {}; move it with graph.to(device)": (
        lambda W: graph_prox(W, CHAIN, 0.1)
    ),
    "graph_reg: edge_index must be on W's device {}, got {}": (
        lambda W: graph_reg(W, (INDEX.to(OTHER), WEIGHT.to(DEVICE)))
    ),
    "graph_reg: edge_weight must be on W's device {}, got {}": (
        lambda W: graph_reg(W, (INDEX.to(DEVICE), learn(WEIGHT.to(OTHER))))
    ),
    "graph_reg: A must be on W's device {}, got {}": lambda W: graph_reg(W, EYE),
    "graph_add_grad_: A must be on W's device {}, got {}": (
        lambda W: graph_add_grad_(torch.zeros_like(W), W, EYE)
    ),
    "gram_reg: omega must be on W's device {}, got {}": lambda W: gram_reg(W, EYE),
    "gram_reg: omega.factor must be on W's device {}, got {}": (
        lambda W: gram_reg(W, LowRank(EYE))
    ),
    "trace_norm_prox: threshold must be on W's device {}, got {}": (
        lambda W: trace_norm_prox(W, EYE[0, 0])
    ),
    "pairwise_add_grad_: grad must be on W's device {}, got {}": (
        lambda W: pairwise_add_grad_(EYE[:, :3], W)
    ),
    "pairwise_reg: all tensors of W must have the same device, "
    "got {} at position 0 and {} at position 1": lambda W: pairwise_reg([W, EYE[:, :3]]),
}


@pytest.mark.parametrize("message", MIXED)
def test_tensors_on_two_devices(message):
    W = bad_inputs.W.to(DEVICE)
    with pytest.raises(ValueError) as caught:
        MIXED[message](W)
    assert str(caught.value) == message.format(DEVICE, OTHER)
