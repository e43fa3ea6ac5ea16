"""The contracts on a GPU: the very tests of the CPU, their gates and their table, elsewhere.

They are imported; the fixture ``device`` tells them where to make their tensors. What is compared
bit by bit is compared on that device; the truth is the long-double oracle on the CPU.
"""
# ruff: noqa: F401

import devices
import pytest
import torch
from devices import DEVICE, device
from test_contracts_inputs import (
    test_a_list_is_its_stack,
    test_autocast_changes_nothing,
    test_checkpoint,
    test_expanded_rows,
    test_gradients_accumulate,
    test_no_graph_where_none_is_wanted,
    test_only_the_needed_gradients,
    test_parameters_are_tensors,
    test_views_give_the_bits_of_dense_input,
)
from test_contracts_properties import test_not_finite_input_is_never_hidden
from test_contracts_transforms import (
    op_arguments,
    registered_ops,
    test_compile,
    test_double_backward,
    test_forward_mode,
    test_func_grad,
    test_gradcheck,
    test_gradgradcheck,
    test_hessian,
    test_jvp,
    test_opcheck,
    test_vmap,
    test_vmap_of_grad,
)
from test_contracts_values import (
    test_equal_rows_give_exactly_zero,
    test_further_dimensions_are_flattened,
    test_nearly_equal_tasks,
    test_tight_clusters,
    test_value_and_gradient,
    test_value_and_gradient_types,
)
from test_in_place import (
    test_a_prox_that_fails_leaves_w_as_it_was,
    test_adding_the_gradient_is_what_backward_does,
    test_adding_the_gradient_of_a_graph,
    test_lists_of_parameters_are_changed_in_place,
    test_the_prox_in_place_has_the_bits_of_the_prox,
    test_the_prox_of_a_graph_in_place,
)
from test_trace_norm import test_in_place as test_a_trace_norm_prox_in_place

import mtlfast
from mtlfast._ops import _registry

pytestmark = devices.any_device


@pytest.mark.parametrize("name", registered_ops())
def test_an_op_falls_back_only_where_it_has_no_kernel(name):
    """And says so. Once every op has a kernel, a FallbackWarning is an error in these tests."""
    arguments = op_arguments(torch.float32, DEVICE)[name]
    said = devices.said_to_fall_back(getattr(torch.ops.mtlfast, name).default, *arguments)
    assert said == (DEVICE.type == "cuda" and name in devices.BY_REFERENCE)


@pytest.mark.skipif(not devices.ON_GPU, reason="needs a CUDA device")
def test_the_build_has_kernels():
    """Without them all of these tests would look at the reference."""
    assert mtlfast.build_info()["cuda"], "build with MTLFAST_CUDA=1"
    assert _registry.cuda_ops() == _registry.CUDA
