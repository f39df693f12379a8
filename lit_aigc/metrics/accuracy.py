"""The conditional accuracy: the share of samples that show the class that was asked for."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.metrics.base import Figure, SampleMetric


class ConditionalAccuracy(SampleMetric):
    """Share of the samples that a classifier assigns to the class that was asked for."""

    name = "accuracy"
    figures = (Figure("accuracy", "accuracy", "samples taken for the class asked for", "higher", share=True),)
    takes = ("logits", "labels")

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @classmethod
    def create(cls, *_: Any) -> Self:
        """Make the metric; it needs nothing."""
        return cls()

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add logits ``(N, k)`` and the classes asked for, ``(N,)`` int64."""
        self.count += len(labels)
        self.correct += (logits.argmax(dim=1) == labels.to(logits.device)).sum()

    def compute(self) -> float:
        """Return the share over all processes, in [0, 1]."""
        if not int(self.count):
            raise InputError("An accuracy needs at least 1 sample, got none.")
        return int(self.correct) / int(self.count)
