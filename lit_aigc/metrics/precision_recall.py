"""Precision and recall of generated images (Kynkäänniemi et al., 2019, arXiv:1904.06991)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.metrics.base import Figure
from lit_aigc.metrics.kernel import SampleComparison
from lit_aigc.metrics.neighbors import nearest_squares

NEIGHBORS = 3
_ROWS, _COLUMNS = 1024, 4096  # of the matrix of distances in memory at a time


def radii(features: Tensor, neighbors: int = NEIGHBORS) -> Tensor:
    """Return the squared distance of each item to its k-th nearest other item.

    Args:
        features: ``(n, d)``.
        neighbors: k, from 1 to n - 1.

    Returns:
        ``(n,)`` float64. An item that occurs twice is its own neighbor at distance 0.

    Raises:
        InputError: If there are k items or fewer, or features are not finite.
    """
    x = _checked(features, neighbors)
    squares, _ = nearest_squares(x, [x], neighbors + 1)  # each item is the nearest to itself
    return squares[:, -1]


def covered(queries: Tensor, centers: Tensor, squared_radii: Tensor) -> Tensor:
    """Return which items lie in at least one of the balls around others.

    Args:
        queries: ``(n, d)``.
        centers: ``(m, d)``.
        squared_radii: ``(m,)`` float64, as `radii` returns them.

    Returns:
        ``(n,)`` bool.
    """
    queries, centers = queries.double(), centers.double()
    found = []
    for rows in queries.split(_ROWS):
        best = rows.new_full((len(rows),), -torch.inf)
        place = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for start in range(0, len(centers), _COLUMNS):
            balls = slice(start, start + _COLUMNS)
            depth, at = (squared_radii[balls] - _squares(rows, centers[balls])).max(dim=1)
            place = torch.where(depth > best, at + start, place)
            best = torch.maximum(best, depth)
        # tested in the ball that it is deepest in, from differences, so that the same picture is at distance 0
        found.append((rows - centers[place]).square().sum(dim=1) <= squared_radii[place])
    return torch.cat(found)


def precision_recall(fake: Tensor, real: Tensor, neighbors: int = NEIGHBORS) -> dict[str, float]:
    """Return precision and recall, with balls that reach to the k-th nearest neighbor in the same set.

    Precision is the share of generated items in a ball around a real one (are samples plausible?), recall the share of
    real items in a ball around a generated one (is everything covered?). Distances are Euclidean, in float64, of blocks
    of fixed size; memory is that of the features.

    Args:
        fake: Features ``(n, d)`` of generated items.
        real: Features ``(m, d)`` of real ones.
        neighbors: k.

    Returns:
        ``precision`` and ``recall``, each in [0, 1].

    Raises:
        InputError: If either set has k items or fewer, or features are not finite.
    """
    fake, real = _checked(fake, neighbors), _checked(real, neighbors)
    return {
        "precision": float(covered(fake, real, radii(real, neighbors)).double().mean()),
        "recall": float(covered(real, fake, radii(fake, neighbors)).double().mean()),
    }


def _checked(features: Tensor, neighbors: int) -> Tensor:
    if neighbors < 1 or len(features) <= neighbors:
        raise InputError(
            f"Precision and recall with {neighbors} neighbors need at least {max(neighbors, 1) + 1} images on "
            f"either side, got {len(features)}."
        )
    if not torch.isfinite(features).all():
        raise InputError("Precision and recall need finite features; some are NaN or infinite.")
    return features.double()


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances ``(n, m)`` by a matrix product: fast, but rounded relative to the largest."""
    return torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2.0).add_(x.square().sum(dim=1, keepdim=True))


class PrecisionRecall(SampleComparison):
    """Precision and recall of a stream of features against fixed reference features."""

    name = "precision_recall"
    figures = (
        Figure("precision", "precision", "samples among the real images", "higher", share=True),
        Figure("recall", "recall", "real images among the samples", "higher", share=True),
    )
    by_default = False

    def compute(self) -> dict[str, float]:
        """Return ``precision`` and ``recall`` over all processes."""
        return precision_recall(super().compute(), self.reference)

    def protocol(self, result: dict[str, float], n: int) -> dict[str, Any]:
        """Return the number of neighbors, and how many images are compared."""
        facts = {"neighbours": NEIGHBORS, "n_real": len(self.reference), "n_fake": min(n, self.limit)}
        return {self.name: facts}
