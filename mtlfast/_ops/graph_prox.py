"""The prox of distances along edges."""

from mtlfast import reference
from mtlfast._native import graph_prox as kernels
from mtlfast._ops._registry import define, like
from mtlfast._ops.graph import EDGES

_PIECES = f"{EDGES}, Tensor? first, Tensor? member"


graph_prox = define(
    f"graph_prox(Tensor w, {_PIECES}, float step, float tol, int max_iter) -> Tensor",
    like,
    reference.graph_prox,
    kernels.graph_prox,
    kernels.cuda_graph_prox,
)
