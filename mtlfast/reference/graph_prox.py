"""The prox of the graph-weighted distance by pieces: elimination or conjugate gradients."""

import torch

from mtlfast.reference._base import plain
from mtlfast.reference.graph import edge_rows

_SMALL = 64  # tasks of a piece that is always eliminated
_MOST_ELIMINATED = 2048
_RESTARTS = 8
_LEAST_TOLERANCE = 2.0**-50  # relative to ‖w‖, no answer in double is nearer
_MOST_TIED = 2.0**400  # 2·step·s_ij beyond it ties as if it were that


# -- the connected pieces of a graph -----------------------------------------------------------


def graph_pieces(row_ptr, col):
    """Where each connected piece begins, ``[P + 1]``, and the tasks of all, int32 ``[K]``.

    Pieces are in the order of their first tasks, the tasks of a piece rise.
    """
    label = piece_labels(row_ptr.shape[0] - 1, *edge_rows(row_ptr, col))
    member = torch.argsort(label, stable=True)
    size = torch.bincount(label)
    first = torch.cat([size.new_zeros(1), size[size > 0].cumsum(0)])
    return first, member.int()


def piece_labels(num_tasks, src, dst):
    """The smallest task of the connected piece of each, int64 ``[K]``, for edges src – dst.

    Labels sink along edges and then to the label of their label, so that long paths need few
    rounds.
    """
    label = torch.arange(num_tasks, device=src.device)
    while True:
        low = torch.minimum(label[src], label[dst])
        new = label.clone()
        for end in (src, dst):  # the label of an end sinks, and with it all that carry it
            new.scatter_reduce_(0, label[end], low, "amin")
        while True:
            jumped = new[new]
            if torch.equal(jumped, new):
                break
            new = jumped
        if torch.equal(new, label):
            return label
        label = new


def by_pieces(row_ptr, col, weight, find=graph_pieces):
    """The graph with its rows piece by piece and its columns numbered within a piece.

    Returns row_ptr, col and weight; ``first [P + 1]``, where each piece begins, on the CPU; and the
    task of each row, None where they are in order.
    """
    first, member = find(row_ptr, col)
    if first.shape[0] <= 2:
        return row_ptr, col, weight, first.cpu(), None
    task, length = member.long(), row_ptr.diff()
    length = length[task]
    ptr = torch.cat([row_ptr.new_zeros(1), length.cumsum(0)])
    entry = torch.arange(col.shape[0], device=col.device)
    entry += (row_ptr[task] - ptr[:-1]).repeat_interleave(length, output_size=col.shape[0])
    place = torch.empty_like(task)
    begin = first[:-1].repeat_interleave(first.diff(), output_size=task.shape[0])
    place[task] = torch.arange(task.shape[0], device=col.device) - begin
    return ptr, place[col[entry].long()].int(), weight[entry], first.cpu(), member


# -- elimination without subtraction ------------------------------------------------------------


def _eliminate(tie):
    """The factors of B systems x_i + Σ_j c_ij (x_i − x_j) = b_i from c ``[B, n, n]``, n ≥ 1.

    Returns f and the pivots p: with unknown k, f_ki = c_ki / p_k for i < k. For c ≥ 0 only positive
    numbers are added, multiplied and divided, so each entry of the inverse is right to a relative
    error of a few n·ε whatever the range of c. (Grassmann, Taksar and Heyman, 1985.)
    """
    factors, excess, pivot = tie.clone(), torch.ones_like(tie[:, 0]), torch.ones_like(tie[:, 0])
    for k in range(tie.shape[1] - 1, -1, -1):
        row = factors[:, k, :k].clone()
        pivot[:, k] = excess[:, k] + row.sum(1)
        f = row / pivot[:, k, None]
        factors[:, :k, :k] += f[:, :, None] * row[:, None]  # the diagonal is never read
        excess[:, :k] += f * excess[:, k, None]
        factors[:, k, :k] = f
    return factors, pivot


def _substitute(factors, pivot, b):
    """The solution for b ``[B, n, d]``."""
    x = b.clone()
    for k in range(x.shape[1] - 1, -1, -1):
        x[:, :k] += factors[:, k, :k, None] * x[:, k, None]
    x /= pivot[:, :, None]
    for k in range(x.shape[1]):
        x[:, k] += (factors[:, k, :k, None] * x[:, :k]).sum(1)
    return x


# -- conjugate gradients ------------------------------------------------------------------------


class _System:
    """I + 4·step·L of one piece, with the ties c_ij = 2·step·s_ij along its edges."""

    def __init__(self, row, col, tie, num_tasks):
        self.row, self.col, self.tie = row, col, tie
        degree = tie.new_zeros(num_tasks).index_add(0, row, tie)
        self.diagonal = (1 + degree)[:, None]
        self.nonnegative = bool((tie >= 0).all())
        self.indefinite = bool((self.diagonal <= 0).any())
        self.iterations = 0

    def __call__(self, x):
        pull = self.tie[:, None] * (x[self.row] - x[self.col])
        return x + torch.zeros_like(x).index_add(0, self.row, pull)

    def solve(self, b, norm, tol, max_iter):
        """Y and its residual relative to ``norm``, as :func:`graph_prox` says."""
        tol, y = max(tol, _LEAST_TOLERANCE), b / self.diagonal
        for restart in range(_RESTARTS + 2):
            rest = b - self(y)
            residual = _relative(rest, norm)
            over = self.iterations >= max_iter or restart > _RESTARTS
            if self.indefinite or not tol < residual < torch.inf or over:
                break
            error, is_small = self._iterate(rest, norm, tol, max_iter)
            y = y + error
            size = _relative(error, norm)
            if restart and is_small and self.nonnegative and size <= tol:
                return y, size
        return y, residual

    def _iterate(self, r, norm, tol, max_iter):
        """The solution for r, from 0, and whether the recurrence got to ``tol``."""
        x, p, beta = torch.zeros_like(r), torch.zeros_like(r), 0.0
        rz = (r * r / self.diagonal).sum(0)
        while self.iterations < max_iter:
            self.iterations += 1
            p = r / self.diagonal + beta * p
            q = self(p)
            curvature = (p * q).sum(0)
            if bool(((rz > 0) & (curvature <= 0)).any()):
                self.indefinite = True
                break
            alpha = torch.where((rz > 0) & (curvature > 0), rz / curvature, 0.0)
            x, r = x + alpha * p, r - alpha * q
            residual = _relative(r, norm)
            if not tol < residual < torch.inf:
                return x, residual <= tol
            old, rz = rz, (r * r / self.diagonal).sum(0)
            beta = torch.where(old > 0, rz / old, 0.0)
        return x, False


def _relative(r, norm):
    """The largest ‖r‖ over ‖w‖ of a column, of those that are finite and not 0."""
    ratio = (r.square().sum(0) / norm)[(norm > 0) & norm.isfinite()]
    return ratio.nan_to_num(nan=torch.inf).max().sqrt().item() if ratio.numel() else 0.0


# -- all together -------------------------------------------------------------------------------


def _deviations(x):
    """x ``[B, n, d]`` as scale·(x − mean), with mean, scale and ‖scale·x‖² of each column.

    Scales are powers of two, other than 1 where squares would leave the range.
    """
    largest = x.abs().amax(1, keepdim=True)
    wide = ((largest < 2.0**-400) | (largest > 2.0**400)) & largest.isfinite() & (largest > 0)
    exponent = torch.where(wide, torch.frexp(largest).exponent.clamp(-1000, 1000), 0)
    scale = torch.ldexp(torch.ones_like(x[:, :1]), -exponent)
    x = x * scale
    mean = x.sum(1, keepdim=True) / x.shape[1]
    return x - mean, mean, scale, x.square().sum(1)


@plain
def graph_prox(w, row_ptr, col, weight, first, member, step, tol, max_iter):
    """(I + 4·step·L)⁻¹ w; the graph as :func:`by_pieces` has it, or plain where ``first`` is None.

    The mean of a piece is exact, so its deviations are solved for: in small pieces by elimination,
    in others by conjugate gradients, to a residual ≤ tol·‖w‖, or where rounding forbids that, to an
    error of which conjugate gradients say that it is ≤ tol·‖w‖; and by elimination again where
    ``max_iter`` is not enough and the piece not too large.
    """
    if first is None:
        row_ptr, col, weight, first, member = by_pieces(row_ptr, col, weight)
    x = w.double() if member is None else w.double()[member.long()]
    out, (row, col), size = x.clone(), edge_rows(row_ptr, col), first.diff()
    tie = (2 * (step * weight.double())).clamp(max=_MOST_TIED)
    size_of_row = size.to(x.device).repeat_interleave(size.to(x.device), output_size=x.shape[0])
    worst, most, indefinite = 0.0, 0, False
    for n in size.unique().tolist():
        if n == 1:
            continue
        begins = first[:-1][size == n].to(x.device)
        chosen = size_of_row[row] == n
        edges = row[chosen], col[chosen], tie[chosen]
        for part in begins[None] if n <= _SMALL else begins[:, None]:
            rows = part[:, None] + torch.arange(n, device=x.device)
            y, mean, scale, norm = _deviations(x[rows])
            inside = (edges[0] >= part[0]) & (edges[0] < part[-1] + n)
            src, dst, c = (t[inside] for t in edges)
            place = torch.searchsorted(part, src, right=True) - 1
            src = src - part[place]
            done = False
            if n > _SMALL:
                system = _System(src, dst, c, n)
                y[0], residual = system.solve(y[0], norm[0], tol, max_iter)
                most, indefinite = max(most, system.iterations), indefinite or system.indefinite
                done = indefinite or residual <= max(tol, _LEAST_TOLERANCE)
                done = done or n > _MOST_ELIMINATED
                worst = max(worst, residual) if done else worst
                y = y if done else _deviations(x[rows])[0]
            if not done:
                dense = c.new_zeros(len(part), n, n).index_put_((place, src, dst), c, True)
                factors, pivot = _eliminate(dense)
                indefinite = indefinite or bool((pivot <= 0).any())
                y = _substitute(factors, pivot, y)
            finite = norm[:, None].isfinite()
            out[rows] = torch.where(finite, (mean + y) / scale, torch.nan)
    require_solved(indefinite, most, worst, step, tol, max_iter)
    if member is not None:
        out = torch.empty_like(out).index_copy_(0, member.long(), out)
    return out.to(w.dtype)


@plain
def graph_prox_dense(w, inverse):
    """inverse·w for the dense inverse of I + 4·step·L: differentiable, for small K.

    A row that NaN or Inf of W has a part in is NaN.
    """
    x = w.double()
    finite = x.isfinite()
    reached = (inverse != 0).double() @ (~finite).double() > 0
    return torch.where(reached, torch.nan, inverse @ torch.where(finite, x, 0)).to(w.dtype)


def require_solved(indefinite, iterations, residual, step, tol, max_iter):
    """The errors of graph_prox that only the solver can find."""
    if indefinite:
        raise ValueError(
            "graph_prox: graph must make I + 4·step·L positive definite, "
            f"got negative weights that make it indefinite at step={step}"
        )
    if residual > max(tol, _LEAST_TOLERANCE):
        raise RuntimeError(
            f"graph_prox: conjugate gradients must reach tol={tol:g} within max_iter={max_iter} "
            f"iterations, got residual {residual:.3g} after {iterations}"
        )
