"""What was learned about the tasks, readable by a person: neighbours, covariance, clusters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, overload

import torch

from mtlfast._checks import check_number, is_several
from mtlfast.relations import _clusters, _plot
from mtlfast.relations._input import count, plain, read_names, read_rows, read_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from mtlfast._typing import HasCoefficients, Integer, Metric, Number, Rows

_LARGEST = 1 << 24  # entries of a covariance block: 128 MiB, all pairs of 4,096 tasks
_PAIRS = 1_000  # tasks up to which all pairs are looked at for the summary
_METRICS = ("euclidean", "cosine", "correlation")


def relations(
    W: Rows | NDArray[Any] | Sequence[Any] | HasCoefficients | torch.nn.Module,
    *,
    names: Iterable[Any] | None = None,
) -> Relations:
    r"""What a fitted W says about its tasks: near ones, their covariance, clusters, a plot.

    The covariance is that of the trace norm. Learning a relation :math:`\Omega` of the tasks with
    the tasks themselves is learning with a squared trace norm:

    .. math:: \min_{\Omega \succeq 0,\ \operatorname{tr} \Omega = 1}
        \operatorname{tr}(W^\top \Omega^{-1} W) = \|W\|_*^2, \qquad
        \Omega = W C W^\top, \quad C = (W^\top W)^{-1/2} / \|W\|_*

    C is ``[d, d]``, so any entry of the K×K matrix :math:`\Omega` follows from two rows of W.
    Where W has not full rank the pseudo-inverse stands for the inverse; singular values up to
    ``σ₁ · max(K, d) · 2⁻⁵²`` count as zero. W is not centred.

    Args:
        W: ``[K, *]``, a tensor, an array or a list of K equally shaped ones; or a fitted estimator
            with ``coef_`` (and ``tasks_``, the names of its tasks); or a module with ``weight``,
            such as :class:`mtlfast.nn.TaskLinear`. A copy in float64 is kept on the CPU.
        names: K distinct names by which tasks are called. Default: ``tasks_``, else 0 … K−1.

    Returns:
        :class:`mtlfast.relations.Relations`; ``print`` it for a summary.

    Raises:
        TypeError: W is none of these, not floating point (arrays may hold integers), or a name is
            not hashable.
        ValueError: W has no rows, holds NaN or Inf; names are not K distinct ones.

    Cost: O(K·d) here. Singular values are found when they are first needed, in O(K·d·min(K, d)).
    Deterministic.

    Example:
        >>> import torch
        >>> from mtlfast import relations
        >>> W = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 3.0]])
        >>> found = relations(W, names=["north", "south", "island"])
        >>> [name for name, distance in found.nearest("north", n=2)]
        ['south', 'island']
        >>> round(found.correlation("north", "south"), 3)
        0.998
        >>> found.clusters(2).members(0)
        ['north', 'south']

    Source: A. Argyriou, T. Evgeniou, M. Pontil, *Convex multi-task feature learning*, 2008;
    Y. Zhang, D.-Y. Yeung, *A convex formulation for learning task relationships*, UAI 2010.
    """
    if hasattr(W, "coef_"):
        names = getattr(W, "tasks_", None) if names is None else names
        W = W.coef_
    elif isinstance(W, torch.nn.Module) and not is_several(W):
        if not isinstance(getattr(W, "weight", None), torch.Tensor):
            raise TypeError(
                f"relations: W must be a module with a tensor named weight, got {type(W).__name__}"
            )
        W = W.weight
    rows = read_rows(W)
    return Relations(rows, read_names(names, len(rows)))


class Relations:
    """The relations of K tasks, made by :func:`mtlfast.relations`.

    A task is called by its name; names are 0 … K−1 where none were given.

    Attributes:
        W: float64 ``[K, d]`` on the CPU.
        names: list of K.
    """

    def __init__(self, W: torch.Tensor, names: list[Any]) -> None:
        self.W = W
        self.names = names
        self._position = {name: k for k, name in enumerate(names)}
        self._directions = None

    @property
    def num_tasks(self) -> int:
        return self.W.shape[0]

    @property
    def num_features(self) -> int:
        return self.W.shape[1]

    @property
    def rank(self) -> int:
        """The numerical rank of W, its singular values above σ₁·max(K, d)·2⁻⁵²."""
        return len(self.singular_values)

    @property
    def singular_values(self) -> torch.Tensor:
        """Float64 ``[rank]``, decreasing."""
        return self._spectrum()[0]

    @property
    def energies(self) -> torch.Tensor:
        """Float64 ``[rank]``, the share of each singular direction in ‖W‖_F²."""
        s = self.singular_values / self.singular_values[:1]
        return s.square() / s.square().sum()

    def nearest(
        self, task: Any, n: Integer = 5, metric: Metric = "euclidean"
    ) -> list[tuple[Any, float]]:
        """The n tasks most like one task: ``[(name, value), …]``, the nearest first.

        Args:
            task: its name.
            n: an int ≥ 1; all other tasks where there are fewer.
            metric: ``"euclidean"``, the distance of the rows of W; ``"cosine"``, the cosine of
                their angle; ``"correlation"``, that of the task covariance. A cosine or correlation
                with a row of zeros is 0.

        Raises:
            TypeError, ValueError: an unknown task or metric, or n < 1.

        Cost: O(K·d); ``"correlation"`` O(K·d·rank). Ties go to the task that comes first.
        """
        at = self._find("nearest", task)
        n = count("nearest", "n", n)
        if metric not in _METRICS:
            raise ValueError(f"relations.nearest: metric must be one of {_METRICS}, got {metric!r}")
        if metric == "euclidean":
            value = _clusters.distances(self.W, self.W[[at]])[:, 0]
        else:
            unit = _unit(self.W if metric == "cosine" else self.covariance_factor())
            value = (unit @ unit[at]).clamp(-1, 1)
        far = value.clone() if metric == "euclidean" else -value
        far[at] = math.inf
        n = min(n, self.num_tasks - 1)
        if n == 0:
            return []
        near = (far <= far.kthvalue(n).values).nonzero().flatten()
        near = near[far[near].sort(stable=True).indices[:n]]
        return [(self.names[k], float(value[k])) for k in near.tolist()]

    @overload
    def covariance(self, i: Any = ..., j: None = ...) -> torch.Tensor: ...
    @overload
    def covariance(self, i: str | int, j: str | int) -> float: ...
    @overload
    def covariance(self, i: Any, j: Any) -> float | torch.Tensor: ...
    def covariance(self, i: Any = None, j: Any = None) -> float | torch.Tensor:
        """Entries of the task covariance Ω = W C Wᵀ with tr Ω = 1.

        Args:
            i, j: names of tasks, or lists of names. Without j all tasks, without both all of Ω.

        Returns:
            A float for two names, else a float64 tensor with a dimension for each that is a list or
            left out. A task with a row of zeros has variance 0; if W is zero so is Ω.

        Raises:
            TypeError, ValueError: an unknown task; more than 4,096² entries – take
                :meth:`covariance_factor`.

        Cost: O(d·rank) for each task that is asked for, O(rank) for each entry.
        """
        left, one = self._factor_rows("covariance", i)
        right, other = self._factor_rows("covariance", j)
        return _block("covariance", left, right, one, other)

    @overload
    def correlation(self, i: Any = ..., j: None = ...) -> torch.Tensor: ...
    @overload
    def correlation(self, i: str | int, j: str | int) -> float: ...
    @overload
    def correlation(self, i: Any, j: Any) -> float | torch.Tensor: ...
    def correlation(self, i: Any = None, j: Any = None) -> float | torch.Tensor:
        """Entries of Ω scaled to a diagonal of ones; arguments and results as ``covariance``.

        A task whose row in W is zero has correlation 0 with all tasks, itself as well.
        """
        left, one = self._factor_rows("correlation", i)
        right, other = self._factor_rows("correlation", j)
        return _block("correlation", _unit(left), _unit(right), one, other, bound=1.0)

    def covariance_factor(self) -> torch.Tensor:
        """F float64 ``[K, rank]`` with Ω = F Fᵀ; its columns are orthogonal, longest first."""
        return self.W @ self._spectrum()[1]

    def clusters(
        self,
        n_clusters: Integer | None = None,
        threshold: Number | None = None,
        *,
        seed: Integer = 0,
        restarts: Integer = 4,
        max_iter: Integer = 100,
    ) -> _clusters.Clusters:
        """Tasks in clusters of near rows: k-means, or balls of a given radius.

        Args:
            n_clusters: k-means with so many clusters, an int in [1, K]; fewer come back where fewer
                rows differ.
            threshold: in its place, a distance: every task lies within it of the task that leads
                its cluster, and leaders are farther apart.
            seed, restarts, max_iter: of k-means: the best of several starts drawn from the seed.

        Returns:
            :class:`mtlfast.relations._clusters.Clusters` with ``labels``, ``centers``, ``sizes``,
            ``spreads``, ``inertia`` and ``members(cluster)``; ``print`` it for a table.

        Raises:
            TypeError, ValueError: not exactly one of n_clusters and threshold, or out of range.

        Cost: O(K·n·d) a step, until at most one task in 10,000 moves; with a threshold O(K·n·d) in
        all. The same for the same seed.
        """
        if (n_clusters is None) == (threshold is None):
            raise ValueError(
                "relations.clusters: exactly one of n_clusters and threshold must be given, "
                f"got n_clusters={n_clusters} and threshold={threshold}"
            )
        scale = _clusters.scale_of(self.W)
        rows = self.W * scale if scale != 1 else self.W
        if threshold is not None:
            threshold = check_number("relations.clusters", "threshold", threshold)
            parts = _clusters.cover(rows, threshold * scale)
        else:
            n = count("clusters", "n_clusters", n_clusters)
            if n > self.num_tasks:
                raise ValueError(
                    f"relations.clusters: n_clusters must be <= K={self.num_tasks}, got {n}"
                )
            restarts = count("clusters", "restarts", restarts)
            max_iter = count("clusters", "max_iter", max_iter)
            parts = _clusters.k_means(rows, n, read_seed(seed), restarts, max_iter)
        labels, centers = parts
        return _clusters.described(rows, labels, centers, self.names, scale)

    def embedding(self) -> torch.Tensor:
        """Float64 ``[K, 2]``: the centred rows in their two principal directions."""
        return _plot.embedding(self.W)

    def plot(self, ax: Any = None, *, n_clusters: Integer = 5, seed: Integer = 0) -> Any:
        """The correlation as a heat map (K ≤ 200), or the tasks in two principal directions.

        Tasks of the heat map are ordered by cluster, points are coloured by it.

        Args:
            ax: axes of matplotlib to draw on; without it a new figure.
            n_clusters, seed: of k-means; at most K clusters.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is not installed.
        """
        n = min(count("plot", "n_clusters", n_clusters), self.num_tasks)
        return _plot.draw(self, self.clusters(n, seed=seed), ax)

    def summary(self, n_clusters: Integer = 5) -> str:
        """A short text: sizes, rank, leading directions, extreme pairs (K ≤ 1,000), clusters.

        Clusters of up to 20 steps of k-means; ``n_clusters=0`` leaves them out.
        """
        n = n_clusters and min(count("summary", "n_clusters", n_clusters), self.num_tasks)
        lines = [f"{self.num_tasks:,} tasks, {self.num_features:,} features, rank {self.rank}"]
        if self.rank:
            shares = ", ".join(f"{100 * share:.1f} %" for share in self.energies[:5].tolist())
            lines.append(f"leading directions: {shares} of ‖W‖²")
        scale = _clusters.scale_of(self.W)
        middle = (self.W * scale).mean(0)
        spread = float((self.W * scale - middle).square_().sum(1).mean().sqrt()) / scale
        length = float(middle.norm()) / scale
        lines.append(f"distance from the mean task: {spread:.4g} (its length {length:.4g})")
        if 2 <= self.num_tasks <= _PAIRS:
            i, j = torch.triu_indices(self.num_tasks, self.num_tasks, 1, device=self.W.device)
            length = _clusters.distances(self.W, self.W)[i, j]
            for word, at in (("closest", length.argmin()), ("farthest", length.argmax())):
                pair = f"{self.names[i[at]]} and {self.names[j[at]]}"
                lines.append(f"{word} pair: {pair}, distance {length[at]:.4g}")
        return "\n".join([*lines, str(self.clusters(n, restarts=1, max_iter=20))] if n else lines)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"Relations(K={self.num_tasks}, d={self.num_features})"

    def _spectrum(self):
        """Singular values above the cut [r], and M [d, r] with W M = F."""
        if self._directions is None:
            s, v = _right_singular(self.W)
            cut = s[:1].sum() * max(self.W.shape) * torch.finfo(s.dtype).eps
            rank = int((s > cut).sum())
            s, v = s[:rank], v[:, :rank]
            total = s.sum()
            self._directions = s, v / (s.sqrt() * total.sqrt())
        return self._directions

    def _factor_rows(self, method, tasks):
        """Rows of F of the tasks that are asked for, and whether that was a single one."""
        one = False
        rows = self.W
        if tasks is not None:
            tasks = plain(tasks)
            one = not isinstance(tasks, (list, range))
            listed = [tasks] if one else tasks
            rows = self.W[[self._find(method, task) for task in listed]]
        return rows @ self._spectrum()[1], one

    def _find(self, method, task):
        try:
            return self._position[plain(task)]
        except TypeError:
            raise TypeError(
                f"relations.{method}: a task must be a name, got {type(task).__name__}"
            ) from None
        except KeyError:
            known = ", ".join(repr(name) for name in self.names[:3])
            raise ValueError(
                f"relations.{method}: task must be one of the {self.num_tasks} names "
                f"({known}{', …' if self.num_tasks > 3 else ''}), got {task!r}"
            ) from None


def _right_singular(W):
    """Singular values and right singular vectors [d, ·]; a tall W goes through its R factor."""
    if W.shape[0] > W.shape[1]:
        W = torch.linalg.qr(W, mode="r").R
    _, s, vh = torch.linalg.svd(W, full_matrices=False)
    return s, vh.mT


def _unit(rows):
    """Rows of length 1; a row of zeros stays one."""
    largest = rows.abs().amax(1, keepdim=True) if rows.shape[1] else rows.new_ones(len(rows), 1)
    rows = rows / torch.where(largest > 0, largest, 1.0)
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)


def _block(method, left, right, one, other, bound=math.inf):
    entries = len(left) * len(right)
    if entries > _LARGEST:
        raise ValueError(
            f"relations.{method}: at most {_LARGEST:,} entries are written out, got {entries:,}; "
            "take covariance_factor(), or ask for fewer tasks"
        )
    block = (left @ right.mT).clamp(-bound, bound)
    if one and other:
        return float(block)
    return block[0] if one else block[:, 0] if other else block
