"""The floor: what real images reach against other real images, so that no generator is asked for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.metrics.frechet import FeatureMoments, frechet_distance
from lit_aigc.metrics.inception_score import InceptionScore
from lit_aigc.metrics.kernel import kernel_distance
from lit_aigc.noise import Noise

METRICS = ("fid", "kid", "is")


class Halves:
    """Two disjoint parts of a stream of real images, of the same size, drawn at random; compared with each other.

    Which images are in a part depends on their number and the seed alone. For KID the first `limit` drawn of each part
    are kept, as many as of samples.

    Args:
        extractor: The extractor whose features come.
        count: Number of images of the stream.
        n: Images of each part, at most half of them.
        metrics: What is compared: some of `METRICS`, others are left out.
        limit: Largest number of features that are kept.
        seed: Of the draw.

    Attributes:
        n: Images of each part.
    """

    def __init__(
        self, extractor: nn.Module, count: int, n: int, metrics: Sequence[str], *, limit: int, seed: int = 0
    ) -> None:
        self.n, self.limit, self.seed = min(n, count // 2), limit, seed
        self.metrics = tuple(name for name in METRICS if name in metrics)
        order = Noise(seed).stream("halves of the real set").bits(count, 1)[:, 0].argsort(stable=True)
        self._drawn = torch.full((count,), 2 * self.n)  # the place of each image in that order
        self._drawn[order[: 2 * self.n]] = torch.arange(2 * self.n)
        self._moments = [FeatureMoments(extractor.num_features) for _ in range(2)]
        self._kept: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._score = InceptionScore(extractor.num_classes) if "is" in self.metrics else None

    @property
    def possible(self) -> bool:
        """Whether there are images enough, and something to compare."""
        return self.n >= 2 and bool(self.metrics)

    def key(self) -> str:
        """Identifies the figures of one set on one extractor."""
        return f"{self.n}_{self.seed}_{'_'.join(self.metrics)}"

    def needs(self, start: int, n: int) -> Tensor:
        """Which of the images `start` … `start` + n - 1 are in a part: bool ``(n,)``."""
        return self._drawn[start : start + n] < 2 * self.n

    def update(self, features: Tensor, logits: Tensor | None, images: Tensor) -> None:
        """Adds features ``(N, d)`` and logits ``(N, k)`` of the images of these places ``(N,)`` in the stream."""
        drawn = self._drawn[images]
        features = features.cpu()
        for part in range(2):
            place = drawn - part * self.n
            inside = (place >= 0) & (place < self.n)
            if "fid" in self.metrics:
                self._moments[part].update(features[inside])
            if "kid" in self.metrics:
                self._kept[part].append(features[inside & (place < self.limit)])
            if self._score is not None and part == 0:
                self._score.update(logits.cpu()[inside])

    def figures(self) -> dict[str, Any]:
        """The metrics of one part against the other, and ``n``, the images of each."""
        found: dict[str, Any] = {"n": self.n}
        if "fid" in self.metrics:
            found["fid"] = frechet_distance(*(each.moments() for each in self._moments))
        if "kid" in self.metrics:
            found["kid"] = kernel_distance(*(torch.cat(each) for each in self._kept))
        if self._score is not None:
            found["is"] = self._score.compute()
        return found
