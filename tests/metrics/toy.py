"""A toy model, its data and an extractor without weights, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.modules.base import GenerativeModule
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, Condition, DataSpec

SPEC = DataSpec("image", (1, 8, 8), num_classes=2, class_names=("dark", "bright"), name="toy", fingerprint="f")


class MeanColour(nn.Module):
    """The mean of each quarter of the image, and two logits: dark, bright."""

    name = "mean_colour"
    num_features = 4
    num_classes = 2
    hash = "none"
    protocol = {"resize": "none"}  # noqa: RUF012

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1) / 255
        return features, torch.stack([0.5 - features.mean(1), features.mean(1) - 0.5], dim=1) * 8


class Toy(GenerativeModule):
    """Noise of a brightness: that of its parameter, or, asked for a class, of the class."""

    def __init__(self, conditional: bool = False) -> None:
        super().__init__(SPEC, conditional)
        self.brightness = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)
        self.prepare(self)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_batch(self, batch: Batch) -> dict[str, Tensor]:
        return self.update(
            self.optimizers(), batch, lambda part: ((self.brightness - 1).square().mean(), {}), generates=False
        )

    def sample_block(self, n: int, condition: Condition, noise: Noise, **options: Any) -> Tensor:
        brightness = self.brightness
        if condition.labels is not None:
            brightness = (condition.labels.float() - 0.5)[:, None, None, None]
        return self.dropout((noise.normal(n, 1, 8, 8, device=self.device) / 4 + brightness).clamp(-1, 1))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        torch.rand(1)


class ToyData:
    """Real images: 101 of them, an odd number, in batches of 10 dealt to the processes in turn."""

    def real_batches(self, split: str, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        images = (Noise({"train": 1, "test": 2}[split]).uniform(101, 1, 8, 8) * 256).to(torch.uint8)
        for start in range(rank * 10, 101, world_size * 10):
            yield Batch(images[start : start + 10], torch.arange(101)[start : start + 10] % 2, start)
