"""Means for the log: over the batches since the last entry, and over all samples of a validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Reduce = Callable[..., Tensor]
"""A strategy's ``reduce(tensor, reduce_op=...)``: the mean or sum over all processes."""


class LogWindow:
    """Scalars summed since the last log entry, on their device: adding to it waits for nothing.

    Attributes:
        totals: This process's sum of each scalar.
        counts: Batches in each sum.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self.totals)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the scalars of a batch."""
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value.detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self, reduce: Reduce) -> dict[str, float]:
        """Return the mean of each scalar over its batches and all processes."""
        means = torch.stack([total / self.counts[name] for name, total in self.totals.items()])
        return dict(zip(self.totals, reduce(means, reduce_op="mean").tolist(), strict=True))

    def clear(self) -> None:
        """Start the next window."""
        self.totals, self.counts = {}, {}

    def convert(self, function: Callable[[Tensor], Tensor]) -> None:
        """Move the sums to another device, as `torch.nn.Module._apply` moves a network."""
        self.totals = {name: function(total) for name, total in self.totals.items()}

    def state_dict(self, gather: Callable[[Tensor], Tensor]) -> dict[str, tuple[list[float], int]]:
        """Return plain numbers: of each scalar every process's sum, and the batches in it."""
        if not self:
            return {}
        totals = gather(torch.stack(list(self.totals.values())))
        columns = totals.view(-1, len(self.totals)).T.tolist()
        return {name: (sums, self.counts[name]) for name, sums in zip(self.totals, columns, strict=True)}

    def load_state_dict(
        self, state: Mapping[str, tuple[list[float], int]], rank: int, world_size: int, device: Any
    ) -> None:
        """Take this process's sums; another number of processes than before takes the mean of all."""
        for name, (totals, count) in state.items():
            own = totals[rank] if len(totals) == world_size else sum(totals) / len(totals)
            self.totals[name], self.counts[name] = torch.tensor(own, device=device), count


class SampleMeans:
    """Per-sample values, summed in float64."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values ``(N, ...)`` of the samples of a batch."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double().sum(dim=0)
        self._count += max(map(len, values.values()), default=0)

    def means(self, reduce: Reduce) -> dict[str, Tensor]:
        """Return the means ``(...)`` over the samples of all batches and processes, float64 in memory."""
        parts = [total.flatten() for total in self._sums.values()]
        flat = torch.cat([*parts, parts[0].new_tensor([self._count])])
        *sums, count = reduce(flat, reduce_op="sum").cpu().split([*map(len, parts), 1])
        return {
            name: (own / count).view(total.shape) for (name, total), own in zip(self._sums.items(), sums, strict=True)
        }
