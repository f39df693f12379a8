"""Whether samples show the class that was asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_aigc.errors import InputError


class ConditionalAccuracy(Metric):
    """Share of the samples that a classifier puts in the class that was asked for."""

    full_state_update = False
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds logits ``(N, k)`` and the classes asked for, ``(N,)`` int64."""
        self.count += len(labels)
        self.correct += (logits.argmax(dim=1) == labels.to(logits.device)).sum()

    def compute(self) -> float:
        """The share over all processes, in [0, 1]."""
        if not int(self.count):
            raise InputError("An accuracy needs at least 1 sample, got none.")
        return int(self.correct) / int(self.count)
