"""Sufficient statistics of K least-squares problems: what a fit needs of the rows, in float64.

For task k with centred rows x_r, targets y_r and weights s_r: the Gram matrix G_k = Σ s x xᵀ
``[d, d]``, the moment c_k = Σ s y x ``[d]`` and Σ s y². With them the loss is
½(Σ s y² − 2⟨c_k, w_k⟩ + ⟨w_k, G_k w_k⟩), and a fit for one more penalty never reads the rows again.
Where K·d² numbers are too many, the products G_k w_k are taken from the rows.
"""

import torch

_BLOCKS = 6 << 27  # numbers of all Gram matrices, 6 GiB
# Features from which on a task needs a share of their number in rows: Gram matrices of few rows are
# larger than these, singular, and cost d³ each.
_NARROW, _FEW = 64, 2


def squares(rows, fit_intercept, *, blocks=None):
    """Statistics of ``rows`` for ½Σ s(y − x·w − b)², b left out where ``fit_intercept`` is False.

    ``fit_intercept`` is a bool or one for each task ``[K]``; ``blocks`` forces or forbids Gram
    matrices.
    """
    d, N = rows.X.shape[1], rows.X.shape[0]
    K = rows.ptr.numel() - 1
    if blocks is None:
        blocks = d <= max(_NARROW, _FEW * N / max(K, 1)) and K * d * d <= max(_BLOCKS, N * d)
    if blocks:
        return GramSquares(rows, fit_intercept)
    return (
        SparseSquares(rows, fit_intercept) if is_sparse(rows.X) else RowSquares(rows, fit_intercept)
    )


def is_sparse(X):
    return not isinstance(X, torch.Tensor)


def take(X, index):
    """Rows of X, dense or in scipy.sparse, as a dense tensor; ``index`` a slice or a tensor."""
    if is_sparse(X):
        part = X[index if isinstance(index, slice) else index.reshape(-1).numpy()].toarray()
        part = torch.from_numpy(part)
        return part if isinstance(index, slice) else part.view(*index.shape, -1)
    return X[index]


def like_scales(diagonal):
    """``[K, d]`` by which to multiply a gradient, so that entries count alike: 1/√diagonal.

    ``diagonal`` is that of a Hessian. A task's entry counts for at least a hundredth of the mean
    over tasks, which holds where a task has no rows.
    """
    return torch.maximum(diagonal, 0.01 * typical(diagonal)).rsqrt()


def typical(diagonal):
    """The mean over tasks ``[d]`` of a diagonal ``[K, d]``, where it is 0 another that is not."""
    mean = diagonal.mean(0)
    mean = torch.where(mean > 0, mean, mean.mean())
    return torch.where(mean > 0, mean, 1.0)


class _Squares:
    """What every kind of statistics has; subclasses add ``product`` and ``moment``.

    Means are kept in two numbers, the first row of a task and the mean of what others are away from
    it: a column like a year or a timestamp differs by less than its mean can be rounded to.
    """

    gram = None

    def __init__(self, rows, fit_intercept):
        self.rows = rows
        self.num_tasks = rows.ptr.numel() - 1
        self.num_features = rows.X.shape[1]
        self.device = rows.ptr.device
        K = self.num_tasks
        centred = torch.as_tensor(fit_intercept, device=self.device).expand(K)
        self.centred = centred
        layout = rows.layout
        self.total = layout.size.double() if rows.weight is None else layout.sums(rows.weight)
        self.some = self.total > 0
        shape = K, self.num_features
        self.x_away = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self.moment = torch.zeros_like(self.x_away)
        if len(rows.y):
            self.y_first = rows.y[layout.first] * (centred & self.some)
        else:
            self.y_first = self.x_away.new_zeros(K)
        self.y_centred = rows.y - layout.spread(self.y_first)
        away = layout.sums(self._weighted(self.y_centred)) / self.total.clamp(min=_tiny)
        self.y_away = away * centred
        self.y_centred -= layout.spread(self.y_away)
        self.yy = float((self._weighted(self.y_centred) * self.y_centred).sum())

    def _weighted(self, values):
        return values if self.rows.weight is None else values * self.rows.weight

    def intercept(self, W):
        """b_k at its optimum; a task without rows gets that of all rows together."""
        near = self.y_away - (self.x_away * W).sum(1)
        b = near + (self.y_first - (self.x_first * W).sum(1))
        if not self.some.all():
            none = self.centred & ~self.some
            share = (self.total * self.centred)[:, None] / (self.total * self.centred).sum()
            x_mean, y_mean = self.x_first + self.x_away, self.y_first + self.y_away
            b = torch.where(none, (share[:, 0] * y_mean).sum() - W @ (share * x_mean).sum(0), b)
        return b * self.centred

    def loss(self, W, product=None):
        """½ Σ s (y − x·w − b)²; from the rows where the statistics would lose digits."""
        product = self.product(W) if product is None else product
        value = 0.5 * float(self.yy - 2 * (self.moment * W).sum() + (product * W).sum())
        if value > 1e-5 * self.yy:
            return value
        residual = self.residuals(W)
        return 0.5 * float((self._weighted(residual) * residual).sum())

    def residuals(self, W):
        """y − x·w − b of every row, b at its optimum."""
        return self.y_centred - self.scores(W)


_tiny = torch.finfo(torch.float64).tiny


def decision(rows, W, intercept):
    """x·w + b of every row."""
    task, out = rows.layout.task, rows.layout.spread(intercept)
    for part in rows.layout.parts(W.shape[1]):
        if is_sparse(rows.X):
            product = rows.X[part].multiply(W[task[part]].numpy()).sum(1)
            out[part] += torch.from_numpy(product).view(-1)
        else:
            out[part] += (rows.X[part] * W[task[part]]).sum(1)
    return out


def moments(rows, values):
    """Σ value·x over the rows of each task ``[K, d]``."""
    K, d = rows.ptr.numel() - 1, rows.X.shape[1]
    out = torch.zeros(K, d, dtype=torch.float64, device=rows.ptr.device)
    for tasks, x, value, _ in _chunks(rows, values):
        out[tasks] = torch.bmm(value[:, None], x)[:, 0]
    return out


def _chunks(rows, values=None):
    """(tasks, rows of X [B, n, d], y [B, n], s [B, n]): tasks of like size, padded with s = 0.

    ``values`` takes the place of y, and is padded with 0.
    """
    y = rows.y if values is None else values
    for tasks, shape, part, valid in rows.layout.chunks(rows.X.shape[1]):
        x = take(rows.X, part).view(*shape, -1)
        weight = None if rows.weight is None else rows.weight[part].view(shape)
        if valid is None:
            yield tasks, x, y[part].view(shape), weight
        else:
            weight = valid.double() if weight is None else weight * valid
            yield tasks, x, y[part] if values is None else y[part] * valid, weight


def _centre(x, weight, centred):
    """(rows away from their mean, first row, mean away from it), the latter 0 if not ``centred``.

    A constant feature is exactly 0 then: no rounding is left to fit.
    """
    first = x[:, 0] * centred[:, None]
    x = x - first[:, None]
    if weight is None:
        away = x.mean(1)
    else:
        total = weight.sum(1, keepdim=True).clamp(min=_tiny)
        away = torch.bmm(weight[:, None], x)[:, 0] / total
    away = away * centred[:, None]
    return x.sub_(away[:, None]), first, away


class _DenseSquares(_Squares):
    """Rows in a tensor, centred a chunk of tasks at a time."""

    def __init__(self, rows, fit_intercept):
        super().__init__(rows, fit_intercept)
        self.x_first = torch.zeros_like(self.x_away)
        for tasks, x, y, weight in _chunks(rows, self.y_centred):
            x, self.x_first[tasks], self.x_away[tasks] = _centre(x, weight, self.centred[tasks])
            self._add(tasks, x, y, weight)

    def _centred_chunks(self):
        for tasks, x, _, weight in _chunks(self.rows):
            x = x - self.x_first[tasks, None]
            yield tasks, x.sub_(self.x_away[tasks, None]), weight

    def scores(self, W):
        """(x − mean)·w of every row."""
        out = torch.empty_like(self.y_centred)
        for part in self.rows.layout.parts(W.shape[1]):
            here = self.rows.layout.task[part]
            x = take(self.rows.X, part) - self.x_first[here]
            torch.sum(x.sub_(self.x_away[here]).mul_(W[here]), 1, out=out[part])
        return out


class GramSquares(_DenseSquares):
    """A Gram matrix for each task."""

    def __init__(self, rows, fit_intercept):
        K, d = rows.ptr.numel() - 1, rows.X.shape[1]
        self.gram = torch.zeros(K, d, d, dtype=torch.float64, device=rows.ptr.device)
        super().__init__(rows, fit_intercept)

    def _add(self, tasks, x, y, weight):
        if weight is not None:
            root = weight.sqrt()
            x, y = x * root[:, :, None], y * root
        self.gram[tasks] = torch.bmm(x.mT, x)
        self.moment[tasks] = torch.bmm(x.mT, y[:, :, None])[:, :, 0]

    def product(self, W):
        return torch.bmm(self.gram, W[:, :, None])[:, :, 0]

    def diagonal(self):
        return self.gram.diagonal(dim1=1, dim2=2)


class RowSquares(_DenseSquares):
    """Products from dense rows, a chunk of tasks at a time."""

    def __init__(self, rows, fit_intercept):
        shape = rows.ptr.numel() - 1, rows.X.shape[1]
        self._diagonal = torch.zeros(shape, dtype=torch.float64, device=rows.ptr.device)
        super().__init__(rows, fit_intercept)

    def _add(self, tasks, x, y, weight):
        scaled = x if weight is None else x * weight[:, :, None]
        self.moment[tasks] = torch.bmm(scaled.mT, y[:, :, None])[:, :, 0]
        self._diagonal[tasks] = (scaled * x).sum(1)

    def weighted_chunks(self):
        """(tasks, rows [B, n, d]): centred, times the root of their weight; padded with 0."""
        for tasks, x, weight in self._centred_chunks():
            yield tasks, x if weight is None else x.mul_(weight.sqrt()[:, :, None])

    def product(self, W):
        out = torch.zeros_like(W)
        for tasks, x, weight in self._centred_chunks():
            along = torch.bmm(x, W[tasks, :, None])[:, :, 0]
            along = along if weight is None else along * weight
            out[tasks] = torch.bmm(along[:, None], x)[:, 0]
        return out

    def diagonal(self):
        return self._diagonal


class SparseSquares(_Squares):
    """Products from scipy.sparse rows, as one matrix ``[N, K·d]`` with a block for each task."""

    def __init__(self, rows, fit_intercept):
        super().__init__(rows, fit_intercept)
        import scipy.sparse

        K, d = self.num_tasks, self.num_features
        X, self.x_first = shifted(rows, self.centred)
        task = rows.layout.task
        per_entry = task.repeat_interleave(torch.from_numpy(X.indptr).long().diff())
        columns = torch.from_numpy(X.indices).long() + per_entry * d
        parts = X.data, columns.numpy(), X.indptr.astype("int64")
        self._matrix = scipy.sparse.csr_matrix(parts, shape=(X.shape[0], K * d))
        weight = torch.ones_like(rows.y) if rows.weight is None else rows.weight
        scale = weight / rows.layout.spread(self.total.clamp(min=_tiny))
        self.x_away = self._back(scale) * self.centred[:, None]
        # Σ s (y − ȳ) is 0 where the task is centred: the mean of x drops out
        self.moment = self._back(weight * self.y_centred)
        squared = self._matrix.multiply(self._matrix).T @ weight.numpy()
        squared = torch.from_numpy(squared).view(K, d)
        self._diagonal = (squared - self.total[:, None] * self.x_away.square()).clamp(min=0)

    def _back(self, values):
        return torch.from_numpy(self._matrix.T @ values.numpy()).view(self.num_tasks, -1)

    def scores(self, W):
        """(x − mean)·w of every row."""
        along = torch.from_numpy(self._matrix @ W.reshape(-1).numpy())
        return along - self.rows.layout.spread((self.x_away * W).sum(1))

    def product(self, W):
        along = self._weighted(self.scores(W))
        return self._back(along) - self.rows.layout.sums(along)[:, None] * self.x_away

    def diagonal(self):
        return self._diagonal


def shifted(rows, centred):
    """(X with the first row of each task taken away, what was taken ``[K, d]``).

    Of the tasks that are ``centred``, a bool ``[K]``; of a sparse X only columns without zeros.
    """
    first, task = rows.layout.first, rows.layout.task
    some = (centred & (rows.layout.size > 0))[:, None]
    if not is_sparse(rows.X):
        if not len(rows.y):
            return rows.X, rows.X.new_zeros(len(first), rows.X.shape[1])
        taken = rows.X[first] * some
        return rows.X - taken[task], taken
    X, d = rows.X, rows.X.shape[1]
    taken = torch.zeros(len(first), d, dtype=torch.float64, device="cpu")
    full = torch.from_numpy(X.indices).long().bincount(minlength=d) == len(rows.y)
    if not len(rows.y) or not full.any():
        return X, taken
    columns = torch.nonzero(full)[:, 0]
    picked = torch.from_numpy(X[first.numpy()][:, columns.numpy()].toarray())
    taken[:, columns] = picked * some
    X = X.copy()
    row = torch.arange(len(rows.y), device="cpu")
    row = row.repeat_interleave(torch.from_numpy(X.indptr).long().diff())
    X.data -= taken[task[row], torch.from_numpy(X.indices).long()].numpy()
    return X, taken
