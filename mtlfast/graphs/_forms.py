"""The forms of a graph that kernels take: edges, groups, a dense matrix, and learnable weights.

Each knows its kernel and the formula in plain torch. What a form holds besides its tensors can be
told from its ``kind``, so that an autograd.Function takes a string and tensors, and makes it again.
"""

import torch

from mtlfast import _ops, reference
from mtlfast._dtypes import real_dtype


def one(w):
    return torch.ones((), dtype=real_dtype(w.dtype), device=w.device)


class Form:
    """A graph with fixed weights.

    Attributes:
        kind: a name, in :data:`FORMS`.
        tensors: what the kernel takes after W.
        num_edges: stored off-diagonal entries: an int, or a tensor without dimensions where that
            is not known beforehand.
    """

    kind: str | None = None
    is_learnable = False  # whether weights are read at every call, and may get a gradient

    def __init__(self, tensors, num_edges=None):
        self.tensors = tensors
        self.num_edges = num_edges

    @property
    def count(self):
        """The number of edges, at least 1: an int, or a tensor where it is one."""
        count = self.num_edges
        return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)

    def fixed(self, w):
        """The form with its weights as the constants they are now, for the dtype of ``w``."""
        return self

    def value(self, w, upstream=None):
        """(value, gradient times ``upstream``), the second only where that is given."""
        raise NotImplementedError

    def add_(self, grad, w, factor):
        """``grad += factor · gradient`` in place; returns the value."""
        value, part = self.value(w, one(w) * factor)
        grad.add_(part)
        return value

    def reference_value(self, w):
        raise NotImplementedError

    def reference_grad(self, w):
        """The gradient in the arithmetic type, differentiable."""
        raise NotImplementedError


class Edges(Form):
    """row_ptr, col, weight and order, the last None where rows are those of the tasks in turn."""

    kind = "edges"

    def value(self, w, upstream=None):
        return _ops.graph_value(w, *self.tensors, upstream)

    def add_(self, grad, w, factor):
        return _ops.graph_add_(grad, w, *self.tensors, factor)

    def reference_value(self, w):
        return reference.graph_reg(w, *reference.ordered_edges(*self.tensors))

    def reference_grad(self, w):
        return reference.graph_grad(w, *reference.ordered_edges(*self.tensors))


class Groups(Form):
    """ptr and member."""

    kind = "groups"

    def value(self, w, upstream=None):
        return _ops.group_value(w, *self.tensors, upstream)

    def reference_value(self, w):
        return reference.group_reg(w, *self.tensors)

    def reference_grad(self, w):
        return reference.group_grad(w, *self.tensors)


class Dense(Form):
    """A."""

    kind = "dense"

    def value(self, w, upstream=None):
        return _ops.dense_graph_value(w, *self.tensors, upstream)

    def reference_value(self, w):
        return reference.dense_graph_reg(w, *self.tensors)

    def reference_grad(self, w):
        return reference.dense_graph_grad(w, *self.tensors)


class LearnableEdges(Form):
    """weight, src and dst of each edge; row_ptr, col, and the edge of each stored entry."""

    kind = "learnable_edges"
    is_learnable = True

    def fixed(self, w):
        weight, _, _, row_ptr, col, edge = self.tensors
        weight = weight.detach().to(real_dtype(w.dtype))[edge]
        return Edges((row_ptr, col, weight, None), self.num_edges)

    def reference_value(self, w):
        weight, src, dst = self.tensors[:3]
        return reference.graph_reg(w, src, dst, weight)

    def reference_grad(self, w):
        weight, src, dst = self.tensors[:3]
        return reference.graph_grad(w, src, dst, weight)

    def distances(self, w):
        """The gradient in the weights, by the kernel."""
        return _ops.edge_distance(w, *self.tensors[1:3])

    def reference_distances(self, w):
        return reference.edge_distance(w, *self.tensors[1:3])


class LearnableDense(Form):
    """A."""

    kind = "learnable_dense"
    is_learnable = True

    def fixed(self, w):
        return Dense((self.tensors[0].detach().to(real_dtype(w.dtype)),), self.num_edges)

    def reference_value(self, w):
        return reference.dense_graph_reg(w, *self.tensors)

    def reference_grad(self, w):
        return reference.dense_graph_grad(w, *self.tensors)

    def distances(self, w):
        """The gradient in A, by the kernel."""
        return _ops.dense_distance(w)

    def reference_distances(self, w):
        return reference.dense_distance(w)


FORMS = {form.kind: form for form in (Edges, Groups, Dense, LearnableEdges, LearnableDense)}
