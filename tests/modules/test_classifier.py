from __future__ import annotations

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lit_aigc.errors import InputError
from lit_aigc.modules.base import Recipe
from lit_aigc.modules.classifier import ImageClassifier
from lit_aigc.networks.classifier import Classifier
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec

SPEC = DataSpec("image", (1, 8, 8), num_classes=2, class_names=("dark", "bright"), name="toy")


def classifier(**options: object) -> ImageClassifier:
    torch.manual_seed(0)
    network = Classifier(SPEC.shape, SPEC.num_classes, width=4)
    return ImageClassifier(network, SPEC, {"name": "AdamW", "lr": 0.01, "weight_decay": 0.1}, **options)


def batches(n: int, seed: int) -> DataLoader:
    made = []
    for start in range(0, 16 * n, 16):
        labels = torch.arange(16) % 2
        images = Noise(seed, start).normal(16, 1, 8, 8) / 2 + (labels - 0.5)[:, None, None, None]
        made.append(Batch(images, labels, start))
    return DataLoader(made, batch_size=None)


def test_learns_and_logs_held_out_accuracy(tmp_path):
    module = classifier(recipe=Recipe(ema_decay=0.9))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, batches(10, seed=0), batches(3, seed=1))
    assert module.samples_seen == 480
    assert trainer.callback_metrics["val_accuracy"] >= 0.95
    with module.averaged():  # these are the weights that are measured
        images, labels, _ = next(iter(batches(3, seed=1)))
        assert (module.eval().network(images).argmax(1) == labels).float().mean() >= 0.9
    losses = [
        torch.nn.functional.cross_entropy(logits, batch.labels)
        for batch in batches(3, seed=1)
        for logits in [_averaged_logits(module, batch.images)]
    ]
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


@torch.no_grad()
def _averaged_logits(module: ImageClassifier, images: torch.Tensor) -> torch.Tensor:
    with module.averaged():
        return module.eval().network(images)


def test_weight_decay_spares_biases_and_normalization():
    [made] = classifier().configure_optimizers()
    decayed, spared = made.param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(classifier().parameters()))


def test_data_without_labels_are_refused():
    with pytest.raises(InputError, match="needs labels"):
        ImageClassifier(Classifier((1, 8, 8), 2, 4), DataSpec("image", (1, 8, 8), name="toy"))


def test_sampling_is_refused():
    with pytest.raises(InputError, match="can't generate samples"):
        classifier().sample(2, noise=Noise(0))
