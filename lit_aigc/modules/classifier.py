"""A classifier: not a generative model, but the source of features for several metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.modules.base import GenerativeModule, Recipe
from lit_aigc.spec import Batch, DataSpec


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

    of_tokens = False
    decays_vectors = False
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
        self.network = network
        self.prepare(self.network, optimizers={"": (optimizer, self.network)})

    def train_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Make one step on the cross-entropy."""
        return self.update(self.optimizers(), batch, self._loss)

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.network(batch.images).float()
        loss = F.cross_entropy(logits, batch.labels)
        accuracy = (logits.detach().argmax(dim=1) == batch.labels).float().mean()
        return loss, {"loss": loss, "accuracy": accuracy}

    def validate_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return whether each image's class is right, and its cross-entropy in nats."""
        logits = self.network(batch.images.float())
        correct = logits.argmax(dim=1) == batch.labels
        loss = F.cross_entropy(logits.double(), batch.labels, reduction="none")
        return {"val_accuracy": correct, "val_loss": loss}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities ``(N, num_classes)`` of the classes, with averaged weights."""
        with self.averaged(), self.evaluating():
            return self.network(batch.images.float()).softmax(dim=1)
