"""Which tasks there are, and which of them each row belongs to."""

import numpy as np

from mtlfast.linear_model._labels import factorize, label_array, match
from mtlfast.linear_model._penalties import named


def read_tasks(function, argument, task_ids, tasks, terms, num_rows):
    """(labels ``[K]`` in the order of the rows of W, codes ``[N]``), for terms of a grid."""
    with named(function):
        nodes = _num_nodes(term for some in terms for term in some)
    if task_ids is None:
        labels, codes = np.zeros(1, dtype=np.int64), np.zeros(num_rows, dtype=np.int64)
        known = labels if tasks is None else _read_order(function, tasks)
        if len(known) != 1 or (nodes or 1) != 1:
            count = len(known) if len(known) != 1 else nodes
            raise ValueError(f"{function}: task_ids must be given for {count} tasks, got None")
        return known, codes
    labels, codes = factorize(function, argument, task_ids, sort=tasks is None)
    check_task_count(function, codes, num_rows)
    if tasks is not None:
        known = _read_order(function, tasks)
        codes = match(labels, known)[codes]
        refuse_unknown(function, argument, task_ids, codes, f"the {len(known)} labels of tasks")
        labels = known
    elif nodes is not None and _are_nodes(labels, nodes):
        labels, codes = np.arange(nodes), labels.astype(np.int64)[codes]
    if nodes is not None and nodes != len(labels):
        raise ValueError(
            f"{function}: tasks must name a task for each of the {nodes} nodes of the graph, "
            f"got {len(labels)} tasks"
        )
    return labels, codes


def _num_nodes(terms):
    """The number of tasks that a graph among the terms says, None without one."""
    return next((nodes for term in terms if (nodes := term._num_tasks()) is not None), None)


def _are_nodes(labels, nodes):
    """Whether sorted labels are numbers of nodes of the graph."""
    integers = labels.dtype.kind in "iu" and len(labels) > 0
    return integers and labels[0] >= 0 and labels[-1] < nodes


def _read_order(function, tasks):
    """Distinct labels in the order given."""
    labels, codes = factorize(function, "tasks", tasks, sort=False)
    if not len(codes):
        raise ValueError(f"{function}: tasks must hold at least one label, got none")
    if len(labels) != len(codes):
        repeated = int(np.flatnonzero(np.bincount(codes) > 1)[0])
        label = labels[repeated : repeated + 1].tolist()[0]
        raise ValueError(f"{function}: tasks must be distinct, got {label!r} more than once")
    return labels[codes]


def check_task_count(function, codes, num_rows):
    if len(codes) != num_rows:
        raise ValueError(
            f"{function}: task_ids must have one entry for each of the {num_rows} rows of X, "
            f"got {len(codes)}"
        )


def refuse_unknown(function, argument, task_ids, codes, known):
    unknown = codes < 0
    if unknown.any():
        row = int(unknown.argmax())
        label = label_array(function, argument, task_ids)[row : row + 1].tolist()[0]
        raise ValueError(
            f"{function}: {argument} must be among {known}, got {label!r} at position {row}"
        )
