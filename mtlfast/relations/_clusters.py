"""Rows in clusters: k-means with a seed, and a cover by balls of a given radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mtlfast._torch.group_lasso import scale_of

if TYPE_CHECKING:
    from typing import Any

_SETTLED = 1e-4  # share of the tasks that may still move when k-means ends
_SHOWN = 6  # names of a cluster that are written out


@dataclass(frozen=True)
class Clusters:
    """Tasks in clusters, the largest first.

    Attributes:
        labels: int64 ``[K]``, the cluster of each task, 0 … n−1.
        centers: float64 ``[n, d]``: the mean of each cluster (k-means) or the row that leads it
            (threshold).
        sizes: int64 ``[n]``.
        spreads: float64 ``[n]``, the root mean squared distance of a cluster's rows to its centre.
        inertia: the sum of squared distances of all rows to their centres.
        names: the tasks' names.
    """

    labels: torch.Tensor
    centers: torch.Tensor
    sizes: torch.Tensor
    spreads: torch.Tensor
    inertia: float
    names: list[Any]

    def __len__(self) -> int:
        return len(self.sizes)

    def members(self, cluster: int) -> list[Any]:
        """Names of the tasks of one cluster, in the order of the tasks."""
        return [self.names[k] for k in (self.labels == cluster).nonzero().flatten().tolist()]

    def __str__(self) -> str:
        lines = [f"{len(self)} clusters", f"{'':>4}{'tasks':>10}{'spread':>12}  members"]
        for c, (size, spread) in enumerate(zip(self.sizes, self.spreads, strict=True)):
            first = (self.labels == c).nonzero().flatten()[:_SHOWN].tolist()
            shown = ", ".join(str(self.names[k]) for k in first)
            more = ", …" if size > _SHOWN else ""
            lines.append(f"{c:>4}{int(size):>10,}{float(spread):>12.4g}  {shown}{more}")
        return "\n".join(lines)


def distances(x, centers):
    """Distances ``[K, n]`` from differences: right however near the rows are."""
    scale = scale_of(x)
    if scale != 1:
        x, centers = x * scale, centers * scale
    return torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist") / scale


def squares(x, centers):
    return distances(x, centers).square_()


def k_means(x, n, seed, restarts, max_iter):
    """Labels and centres of the best of several runs of Lloyd's steps from k-means++ starts.

    Source: D. Arthur, S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    runs = [_lloyd(x, _plus_plus(x, n, generator), max_iter) for _ in range(restarts)]
    return min(runs, key=lambda run: run[0])[1:]


def _plus_plus(x, n, generator):
    """Rows drawn with a chance that grows with the squared distance to those drawn before.

    Fewer than n where fewer rows differ.
    """
    chosen = [int(torch.randint(len(x), (), generator=generator, device=x.device))]
    nearest = squares(x, x[chosen])[:, 0]
    while len(chosen) < n and nearest.max() > 0:
        total = nearest.cumsum(0)
        at = torch.rand((), generator=generator, dtype=torch.float64, device=x.device) * total[-1]
        drawn = min(int(torch.searchsorted(total, at, right=True)), len(x) - 1)
        if nearest[drawn] == 0:  # rounding of the sums led to a row that is a centre already
            drawn = int(nearest.argmax())
        chosen.append(drawn)
        nearest = torch.minimum(nearest, squares(x, x[[drawn]])[:, 0])
    return x[chosen]


def _lloyd(x, centers, max_iter):
    labels = None
    for _ in range(max_iter):
        found, nearest = _assign(x, centers)
        if labels is not None and int((found != labels).sum()) <= _SETTLED * len(x):
            break
        labels = found
        sizes = torch.bincount(labels, minlength=len(centers))
        for c in (sizes == 0).nonzero().flatten().tolist():  # an empty cluster takes a far row
            far = int(torch.where(sizes[labels] > 1, nearest, -1.0).argmax())
            sizes[labels[far]] -= 1
            sizes[c], labels[far], nearest[far] = 1, c, 0.0
        # about the overall mean, so that sums of near rows keep their digits
        middle = x.mean(0)
        sums = torch.zeros_like(centers).index_add_(0, labels, x - middle)
        centers = middle + sums / sizes[:, None]
    inertia = float((x - centers[labels]).square_().sum())
    return inertia, labels, centers


def _assign(x, centers):
    nearest, labels = squares(x, centers).min(1)
    return labels, nearest


def cover(x, threshold):
    """Labels and leading rows: every row lies within ``threshold`` of its leader.

    The next leader is the row farthest from all leaders; leaders are more than ``threshold`` apart,
    so no cover by balls of half the radius has fewer (T. Gonzalez, *Clustering to minimize the
    maximum intercluster distance*, 1985).
    """
    first = int(distances(x, x.mean(0, keepdim=True))[:, 0].argmin())
    leaders = [first]
    nearest = distances(x, x[leaders])[:, 0]
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    while nearest.max() > threshold:
        far = int(nearest.argmax())
        length = distances(x, x[[far]])[:, 0]
        nearer = length < nearest
        labels[nearer] = len(leaders)
        nearest = torch.where(nearer, length, nearest)
        leaders.append(far)
    return labels, x[leaders]


def described(x, labels, centers, names, scale):
    """The clusters of x / ``scale`` by size; equal ones by their earliest task."""
    n = len(centers)
    sizes = torch.bincount(labels, minlength=n)
    error = (x - centers[labels]).square_().sum(1)
    sums = x.new_zeros(n).index_add_(0, labels, error)
    row = torch.arange(len(x), device=x.device)
    first = torch.full_like(sizes, len(x)).scatter_reduce_(0, labels, row, "amin")
    order = sorted(range(n), key=lambda c: (-int(sizes[c]), int(first[c])))
    order = torch.tensor(order, device=x.device)
    place = torch.empty_like(order)
    place[order] = torch.arange(n, device=x.device)
    spreads = (sums / sizes).sqrt()
    inertia = float(error.sum()) / scale / scale
    centers, spreads = centers[order] / scale, spreads[order] / scale
    return Clusters(place[labels], centers, sizes[order], spreads, inertia, names)
