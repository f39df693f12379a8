"""The floor: what real images reach against other real images, so that no generator is asked for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.metrics.base import FeatureBatch
from lit_aigc.metrics.table import METRICS
from lit_aigc.noise import Noise


class Halves:
    """Two disjoint parts of a stream of real images, of the same size, drawn at random and compared with each other.

    Which images are in a part depends on their number and the seed alone. For KID the first `limit` images drawn of
    each part are kept, as many as of samples.

    Args:
        extractor: The extractor that the features come from.
        count: Number of images in the stream.
        n: Images of each part, at most half of them.
        metrics: What to compare; metrics without a floor are left out.
        limit: Largest number of features to keep.
        seed: Seed of the draw.

    Attributes:
        n: Images of each part.
        metrics: What is compared.
    """

    def __init__(
        self, extractor: nn.Module, count: int, n: int, metrics: Sequence[str], *, limit: int, seed: int = 0
    ) -> None:
        self.n, self.limit, self.seed = min(n, count // 2), limit, seed
        self.metrics = tuple(name for name, metric in METRICS.items() if name in metrics and metric.has_floor)
        order = Noise(seed).stream("halves of the real set").bits(count, 1)[:, 0].argsort(stable=True)
        self._drawn = torch.full((count,), 2 * self.n)  # the place of each image in that order
        self._drawn[order[: 2 * self.n]] = torch.arange(2 * self.n)
        self._parts = {name: [METRICS[name].collector(extractor, limit) for _ in range(2)] for name in self.metrics}

    @property
    def possible(self) -> bool:
        """Whether there are enough images, and something to compare."""
        return self.n >= 2 and bool(self.metrics)

    def key(self) -> str:
        """Identify the figures of one set on one extractor."""
        return f"{self.n}_{self.seed}_{'_'.join(self.metrics)}"

    def needs(self, start: int, n: int) -> Tensor:
        """Return which of the images `start` … `start` + n - 1 are in a part: bool ``(n,)``."""
        return self._drawn[start : start + n] < 2 * self.n

    def update(self, features: Tensor, logits: Tensor | None, images: Tensor) -> None:
        """Add features ``(N, d)`` and logits ``(N, k)`` of the images at these places ``(N,)`` in the stream."""
        drawn = self._drawn[images]
        features, logits = features.cpu(), None if logits is None else logits.cpu()
        for name, parts in self._parts.items():
            metric = METRICS[name]
            most = min(self.n, self.limit) if metric.limited else self.n
            for i, part in enumerate(parts):
                place = drawn - i * self.n
                inside = (place >= 0) & (place < most)
                batch = FeatureBatch(features[inside], None if logits is None else logits[inside], None, 0)
                part.update(*metric.arguments(batch))

    def figures(self) -> dict[str, Any]:
        """Return the metrics of one part against the other, and ``n``, the images of each."""
        return {"n": self.n} | {name: METRICS[name].between(*parts) for name, parts in self._parts.items()}
