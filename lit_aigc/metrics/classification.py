"""The classification accuracy score: a classifier is trained on generated images alone, and tested on real ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_aigc.augmentation.images import RandomShift
from lit_aigc.errors import InputError, check
from lit_aigc.machine.precision import MIXED, fastest_precision, full_precision
from lit_aigc.metrics.accuracy import ConditionalAccuracy
from lit_aigc.networks.classifier import Classifier
from lit_aigc.noise import Noise
from lit_aigc.optimization.optimizers import optimizer
from lit_aigc.optimization.schedules import schedule
from lit_aigc.spec import Batch


@dataclasses.dataclass(frozen=True)
class ClassifierRecipe:
    """How to train the classifier, on generated and on real images alike.

    Attributes:
        samples_seen: Images that it sees, however often each: the same for sets of any size.
        batch_size: Images per batch.
        width: Channels of its first layers.
        lr: Largest learning rate of AdamW; it rises over the first 5 % and falls to 0 by a cosine.
        weight_decay: Decay of the weights; biases and normalization have none.
        shift: Largest random shift of images in pixels, in both directions.
        bf16: Whether to compute in bfloat16 where autocast allows; None: if it is fast on this machine.
    """

    samples_seen: int = 480_000
    batch_size: int = 128
    width: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.05
    shift: int = 2
    bf16: bool | None = None

    def __post_init__(self) -> None:
        fits = 2 <= self.batch_size <= self.samples_seen
        check(("batch_size", self.batch_size, fits, f"at least 2 images, at most samples_seen={self.samples_seen}"))

    def resolved(self, device: torch.device | str) -> ClassifierRecipe:
        """Return the recipe with an open bf16 set to whether it is fast on a device."""
        fast = fastest_precision(torch.device(device).type) == MIXED if self.bf16 is None else self.bf16
        return dataclasses.replace(self, bf16=fast)


def train_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int = 0,
    recipe: ClassifierRecipe | None = None,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Train a classifier on images and labels, and on nothing else; a pure function of them, the seed and the recipe.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: ``(N,)`` int64.
        num_classes: Number of classes.
        seed: Seed of the initial weights, the order and the shifts.
        recipe: How to train.
        device: Where to train.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        InputError: If there are no images, or not one label per image.
    """
    recipe = (recipe or ClassifierRecipe()).resolved(device)
    if not len(images) or len(images) != len(labels):
        raise InputError(f"A classifier needs images with a label each, got {len(images)} and {len(labels)}.")
    device = torch.device(device)
    augment = RandomShift(recipe.shift)
    noise = Noise(seed).stream("classifier")
    steps = recipe.samples_seen // recipe.batch_size
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(noise.seed)  # initial weights and dropout
        network = Classifier(tuple(images.shape[1:]), num_classes, recipe.width)
        network = network.to(device, memory_format=torch.channels_last).train()
        options = {"name": "AdamW", "lr": recipe.lr, "betas": [0.9, 0.99], "weight_decay": recipe.weight_decay}
        adam = optimizer(options, [p for p in network.parameters() if p.ndim > 1])
        adam.add_param_group({"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0})
        order = _order(len(images), steps * recipe.batch_size, noise.stream("order")).view(steps, recipe.batch_size)
        for step, chosen in enumerate(order):
            rate = recipe.lr * schedule("cosine", step / steps, warmup=0.05)
            for group in adam.param_groups:
                group["lr"] = rate
            x = _prepared(images[chosen], device)
            x = augment(x, noise=noise.skip(step * recipe.batch_size)).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
                logits = network(x)
            loss = F.cross_entropy(logits.float(), labels[chosen].to(device))
            adam.zero_grad()
            loss.backward()
            adam.step()
    return network.eval()


def _order(items: int, n: int, noise: Noise) -> Tensor:
    """Return ``(n,)``: one permutation of the items after another."""
    epochs = range(math.ceil(n / items))
    return torch.cat([noise.stream(str(epoch)).bits(items, 1)[:, 0].argsort(stable=True) for epoch in epochs])[:n]


def _prepared(images: Tensor, device: torch.device | str) -> Tensor:
    return images.to(device, torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)


@torch.no_grad()
def accuracy(network: Classifier, batches: Iterable[Batch]) -> tuple[float, int]:
    """Return the share of images that a classifier labels correctly, in full precision, and their number.

    Args:
        network: The classifier, in evaluation mode.
        batches: uint8 images with labels.
    """
    device = next(network.parameters()).device
    metric = ConditionalAccuracy().to(device)
    for batch in batches:
        with full_precision(device):
            metric.update(network(_prepared(batch.images, device)), batch.labels)
    return metric.compute(), int(metric.count)


def classification_accuracy(
    generated: Iterable[Batch],
    real: Batch,
    test: Iterable[Batch],
    num_classes: int,
    *,
    seed: int = 0,
    recipe: ClassifierRecipe | None = None,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure the classification accuracy score of generated images (Ravuri and Vinyals, 2019).

    A classifier is trained on generated images, with the classes that they were asked for, and tested on real ones; the
    same recipe is trained on real images, to show what is possible.

    Args:
        generated: uint8 images with labels.
        real: Real training images with labels.
        test: Real test images with labels.
        num_classes: Number of classes.
        seed: Seed of both trainings.
        recipe: How to train.
        device: Where to train.

    Returns:
        ``classification_accuracy_score`` and ``classification_accuracy_real`` in [0, 1]; and the protocol.
    """
    recipe = (recipe or ClassifierRecipe()).resolved(device)
    test = list(test)
    pieces = list(generated)
    fake = Batch(torch.cat([p.images.cpu() for p in pieces]), torch.cat([p.labels.cpu() for p in pieces]), 0)
    values, n_test = {}, 0
    for key, batch in (("score", fake), ("real", real)):
        network = train_classifier(batch.images, batch.labels, num_classes, seed=seed, recipe=recipe, device=device)
        values[f"classification_accuracy_{key}"], n_test = accuracy(network, test)
    protocol = {
        "n_fake": len(fake.images),
        "n_real": len(real.images),
        "n_test": n_test,
        "classifier": "lit_aigc.networks.classifier.Classifier",
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "extractor": None,
    }
    return values, protocol
