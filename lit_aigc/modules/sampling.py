"""The one way to sample, with a module's averaged weights or its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, Condition, Texts

SAMPLING_BLOCK = 64


class Sampling(L.LightningModule):
    """The part of a `GenerativeModule` that draws samples; uses its `spec`, `conditional`, `seed` and `ema`."""

    def sample_block(self, n: int, condition: Condition, noise: Noise, **options: Any) -> Tensor:
        """Draw n samples; each may depend on its own noise and condition only."""
        raise InputError(f"{type(self).__name__} can't generate samples: choose an experiment with a generative model.")

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the module has its averaged weights, if it keeps any."""
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the module is in evaluation mode and full precision; after, each part is in its own mode again."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with full_precision(self.device):
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    @torch.no_grad()
    def sample(self, n: int, *, condition: Condition | None = None, noise: Noise, **options: Any) -> Tensor | Texts:
        """Draw samples in evaluation mode and full precision.

        Args:
            n: Number of samples.
            condition: One entry per sample. None for a conditional model: item i has label ``i % num_classes``.
            noise: Sample j is item ``noise.start + j`` of this stream, in blocks of 64 on that index: on one machine
                it is the same to the bit whatever n and start are.
            options: Options of the family.

        Returns:
            For images ``(n, C, H, W)`` float32 in the spec's range, on the module's device; for text `Texts`.

        Raises:
            InputError: If the condition does not fit the model.
        """
        labels = self._labels(n, condition, noise.start)
        # Only whole blocks are drawn; what is before and after the items asked for is dropped.
        before, after = noise.start % SAMPLING_BLOCK, -(noise.start + n) % SAMPLING_BLOCK
        if labels is not None:
            labels = F.pad(labels, (before, after))
        pieces = []
        with self.evaluating():
            for offset in range(0, before + n + after, SAMPLING_BLOCK):
                inside = slice(max(before - offset, 0), before + n - offset)
                condition = Condition(None if labels is None else labels[offset : offset + SAMPLING_BLOCK])
                block_noise = Noise(noise.seed, noise.start - before + offset)
                pieces.append(self.sample_block(SAMPLING_BLOCK, condition, block_noise, **options)[inside])
        return torch.cat(pieces)

    def labels_of(self, batch: Batch) -> Tensor | None:
        """Return the labels ``(N,)`` of a batch that the model is given: None for an unconditional one."""
        return batch.labels if self.conditional else None

    def condition_of(self, batch: Any) -> Condition:
        """Return what to ask for, to get a sample like each item of a batch: its class."""
        return Condition(self.labels_of(batch))

    def _labels(self, n: int, condition: Condition | None, start: int) -> Tensor | None:
        labels = condition.labels if condition else None
        if not self.conditional:
            if labels is not None:
                raise InputError("This model is unconditional: it can't be asked for a label. Leave the label out.")
            return None
        classes = self.spec.num_classes
        if labels is None:
            return torch.arange(start, start + n, device=self.device) % classes
        if len(labels) != n or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise InputError(f"Labels must be {n} numbers from 0 to {classes - 1}, got {labels.tolist()}.")
        return labels.to(self.device)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor | Texts:
        """Return one sample per item of a batch, such as one of its class, with averaged weights.

        The noise of an item depends on `seed` and the item's place in the data alone.
        """
        with self.averaged():
            return self.sample(len(batch[0]), condition=self.condition_of(batch), noise=Noise(self.seed, batch.start))
