"""A classifier: not a generative model, but what the features of several metrics come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision
from lit_aigc.modules.base import GenerativeModule, Recipe
from lit_aigc.noise import Noise
from lit_aigc.optimization.optimizers import optimizer as make_optimizer
from lit_aigc.spec import Batch, Condition, DataSpec


class ImageClassifier(GenerativeModule):
    """Plain cross-entropy; logs ``val_accuracy`` and ``val_loss`` of the averaged weights at each validation.

    Args:
        network: ``network(x) -> (N, num_classes)`` logits.
        spec: The facts of the data.
        optimizer: Name and options of an optimizer of `torch.optim`; weight decay spares biases and normalization.
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If the data have no labels, or an option is out of range.
    """

    of_text = False
    trains_all_at_once = True
    validation_keys = ("val_accuracy", "val_loss")

    def __init__(
        self,
        network: nn.Module,
        spec: DataSpec,
        optimizer: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(spec, recipe=recipe)
        if not spec.num_classes:
            raise InputError(f"A classifier needs labels, and the data set {spec.name or 'given'} has none.")
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        self.network = network.to(memory_format=layout)
        self._optimizer_config = dict(optimizer or {})
        self._validation = torch.zeros(3, dtype=torch.float64)  # items, correct, summed loss
        self.average(self.network)
        self.compile_parts(self.network)
        self.configure_optimizers()  # a wrong option shows now, not when training starts

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer, of all weights."""
        made = make_optimizer(self._optimizer_config, self.network.parameters())
        parameters = made.param_groups[0]["params"]
        made.param_groups[0]["params"] = [p for p in parameters if p.ndim > 1]
        made.add_param_group({"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0})
        return [made]

    def train_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """One step on the cross-entropy."""
        values = self.update(self.optimizers(), batch, self._loss)
        self.count_generator_update()
        return values

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.network(batch.images).float()
        loss = F.cross_entropy(logits, batch.labels)
        accuracy = (logits.detach().argmax(dim=1) == batch.labels).float().mean()
        return loss, {"loss": loss, "accuracy": accuracy}

    def on_validation_epoch_start(self) -> None:
        """Starts the count."""
        self._validation = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the batch to the count, in evaluation mode and with averaged weights."""
        with self.averaged(), full_precision(self.device):
            logits = self.network(batch.images.float())
        correct = (logits.argmax(dim=1) == batch.labels).sum()
        loss = F.cross_entropy(logits.double(), batch.labels, reduction="sum")
        self._validation += torch.stack([torch.tensor(len(logits), device=self.device), correct, loss])

    def on_validation_epoch_end(self) -> None:
        """Logs the held-out accuracy, in [0, 1], and cross-entropy in nats, over all processes."""
        items, correct, loss = self.trainer.strategy.reduce(self._validation, reduce_op="sum").tolist()
        self.log_values(dict(zip(self.validation_keys, (correct / items, loss / items), strict=True)))

    def sample_block(self, n: int, condition: Condition, noise: Noise, **options: Any) -> Tensor:
        """Refused: a classifier draws nothing."""
        raise InputError("A classifier can't generate samples: take an experiment of a generative model.")
