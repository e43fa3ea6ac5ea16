"""Relations as a picture: correlations of few tasks, principal directions of many."""

import torch

_LARGEST_MAP = 200  # tasks of a heat map: beyond, an entry is smaller than a pixel
_NAMED = 40  # tasks up to which names are written


def embedding(W):
    """Centred rows ``[K, 2]`` in their two principal directions; each axis points to its longer
    side, so that the picture does not depend on the signs that LAPACK chose."""
    x = W - W.mean(0)
    small = torch.linalg.qr(x, mode="r").R if x.shape[0] > x.shape[1] else x
    _, _, vh = torch.linalg.svd(small, full_matrices=False)
    out = x.new_zeros(len(x), 2)
    out[:, : len(vh[:2])] = x @ vh[:2].mT
    high, low = out.amax(0), out.amin(0)
    return torch.where(high < -low, -out, out)


def draw(found, clusters, ax):
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                'relations.plot: matplotlib is missing; pip install "mtlfast[examples]"'
            ) from error
        _, ax = plt.subplots(layout="constrained")
    if found.num_tasks <= _LARGEST_MAP:
        _heat_map(found, clusters, ax)
    else:
        _scatter(found, clusters, ax)
    return ax


def _heat_map(found, clusters, ax):
    order = clusters.labels.sort(stable=True).indices
    picture = found.correlation()[order][:, order]
    image = ax.imshow(picture.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="correlation")
    for border in clusters.sizes.cumsum(0)[:-1].tolist():
        ax.axhline(border - 0.5, color="black", linewidth=0.6)
        ax.axvline(border - 0.5, color="black", linewidth=0.6)
    ax.set_xticks([])
    ax.set_yticks([])
    if found.num_tasks <= _NAMED:
        ax.set_yticks(range(found.num_tasks), [str(found.names[k]) for k in order.tolist()])
    ax.set_title(f"{found.num_tasks} tasks in {len(clusters)} clusters")


def _scatter(found, clusters, ax):
    points = found.embedding().numpy()
    ax.scatter(
        points[:, 0], points[:, 1], c=clusters.labels.numpy(), cmap="tab10",
        s=max(1.0, min(20.0, 20_000 / len(points))), linewidths=0, rasterized=True,
    )  # fmt: skip
    ax.set_xlabel("first principal direction")
    ax.set_ylabel("second principal direction")
    ax.set_title(f"{found.num_tasks:,} tasks in {len(clusters)} clusters")
