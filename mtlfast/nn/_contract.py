"""What a term declares, asked and checked."""

from mtlfast._checks import check_number
from mtlfast.graphs import TaskGraph
from mtlfast.nn._quadratic import Quadratic

_REFUSALS = (NotImplementedError, TypeError, ValueError)


def quadratic_of(term, num_tasks):
    """``term.quadratic(num_tasks)``, a Quadratic or None; errors name the class."""
    told = _ask(term, "quadratic", num_tasks)
    if told is not None and not isinstance(told, Quadratic):
        raise TypeError(
            f"{type(term).__name__}.quadratic must return an mtlfast.nn.Quadratic or None, "
            f"got {type(told).__name__}"
        )
    return told


def edges_of(term, num_tasks):
    """``term.edges(num_tasks)``, a pair (TaskGraph, strength) or None; errors name the class."""
    told = _ask(term, "edges", num_tasks)
    if told is None:
        return None
    is_pair = isinstance(told, (tuple, list)) and len(told) == 2
    if not (is_pair and isinstance(told[0], TaskGraph)):
        raise TypeError(
            f"{type(term).__name__}.edges must return a pair (TaskGraph, strength) or None, "
            f"got {type(told).__name__}"
        )
    graph, strength = told
    return graph, check_number(f"{type(term).__name__}.edges", "strength", strength)


def num_tasks_of(term):
    """The number of tasks that a graph of a term says; None where any number will do."""
    sizes = []
    for num_tasks in (2, 3):  # a graph that is made for any number is no graph of its own
        quadratic, edges = quadratic_of(term, num_tasks), edges_of(term, num_tasks)
        graphs = [] if quadratic is None else [graph for graph, _ in quadratic.graphs]
        graphs += [] if edges is None else [edges[0]]
        sizes.append({graph.num_tasks for graph in graphs})
    return max(sizes[0] & sizes[1], default=None)


def _ask(term, method, num_tasks):
    try:
        return getattr(term, method)(num_tasks)
    except _REFUSALS as error:
        kind = next(kind for kind in _REFUSALS if isinstance(error, kind))
        raise kind(f"{type(term).__name__}.{method}: {error}") from error
