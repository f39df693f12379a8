"""Feature extractors turn images into the features and logits that metrics are computed on.

An extractor is any ``nn.Module`` with these attributes, so a user's own is a ``_target_`` like any other:

* ``name``: part of the metric's key, as in ``fid_mnist_classifier``.
* ``num_features``: width d of the features.
* ``num_classes``: number k of logits, 0 for none.
* ``hash``: identifies the weights; numbers on different weights are not comparable.
* ``protocol``: plain facts about the preparation of the images (a dict).
* ``forward(images)``: uint8 ``(N, C, H, W)`` of any size to float32 features ``(N, d)`` and logits ``(N, k)`` or None.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.metrics.features.resizing import match_channels, resize
from lit_aigc.networks.classifier import Classifier

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = ("mnist_classifier", "fashion_mnist_classifier")
_ATTRIBUTES = ("name", "num_features", "num_classes", "hash", "protocol")


def extractor(name: str, weights_path: str | Path | None = None, resize: str | None = None) -> nn.Module:
    """Return the extractor of that name, frozen and in evaluation mode.

    Args:
        name: ``inception``, ``efficientnet_lite0``, ``mnist_classifier`` or ``fashion_mnist_classifier``.
        weights_path: File to read the weights from instead of the shipped, installed or downloaded ones.
        resize: How Inception resizes: ``tensorflow``, ``legacy`` or ``clean``; None: the extractor's own way.

    Raises:
        InputError: If there is no such extractor, its package or weights are missing, or its resizing can't be chosen.
    """
    if name == "inception":
        from lit_aigc.metrics.features.inception import Inception

        return Inception(weights_path, resize or "tensorflow")
    if resize is not None:
        raise InputError(f"resize={resize} goes with extractor=inception; {name} has its own way: leave it out.")
    if name == "efficientnet_lite0":
        from lit_aigc.metrics.features.efficientnet import EfficientNetLite0

        return EfficientNetLite0(weights_path)
    if name in SHIPPED:
        return shipped_classifier(name, weights_path)
    raise InputError(
        f"There is no extractor {name!r}; known: inception, {', '.join(SHIPPED)}, efficientnet_lite0, or a node with "
        "your own _target_."
    )


def check_extractor(module: Any) -> nn.Module:
    """Refuse what is not an extractor, and say what it lacks.

    Raises:
        InputError: If it is not an nn.Module, or lacks an attribute listed at the top of this file.
    """
    missing = [attribute for attribute in _ATTRIBUTES if not hasattr(module, attribute)]
    if not isinstance(module, nn.Module) or missing:
        raise InputError(
            f"{type(module).__name__} is not a feature extractor: expected an nn.Module with the attributes "
            f"{', '.join(_ATTRIBUTES)}; missing: {', '.join(missing) or 'nn.Module as base class'}."
        )
    return module


def facts(name: str) -> dict[str, Any]:
    """Return the record of a shipped classifier: hashes, recipe, accuracy, figures of the real test split.

    Raises:
        InputError: If no such classifier is shipped.
    """
    path = WEIGHTS / f"{name}.json"
    if not path.exists():
        raise InputError(f"Nothing is shipped for the extractor {name!r}, only for: {', '.join(SHIPPED)}.")
    return json.loads(path.read_text())


def shipped_bytes(file: str, sha256: str) -> bytes:
    """Return the content of a shipped file, checked against its recorded hash.

    Raises:
        InputError: If the file is missing or has been changed.
    """
    path = WEIGHTS / file
    if not path.exists():
        raise InputError(f"{path} is missing: install lit_aigc again.")
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise InputError(f"{path} has been changed: expected sha256 {sha256}, got {found}; install lit_aigc again.")
    return content


def shipped_classifier(name: str, weights_path: str | Path | None = None) -> ClassifierExtractor:
    """Return a shipped classifier, optionally with other weights for its network (safetensors)."""
    record = facts(name)
    if weights_path is None:
        content = shipped_bytes(record["file"], record["sha256"])
    elif Path(weights_path).is_file():
        content = Path(weights_path).read_bytes()
    else:
        raise InputError(f"weights_path: there is no file {weights_path}; leave it out to use the shipped weights.")
    network = Classifier(tuple(record["shape"]), record["num_classes"], record["width"])
    try:
        network.load_state_dict(load_safetensors(content))
    except Exception as error:
        raise InputError(f"{weights_path} doesn't hold the weights of {name}: {error}") from error
    return ClassifierExtractor(name, network, hashlib.sha256(content).hexdigest(), tuple(record["shape"]))


class Bfloat16(nn.Module):
    """An extractor whose network computes in bfloat16: faster, and its numbers differ slightly.

    Args:
        extractor: The extractor. The precision is part of the protocol.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        for name in (*_ATTRIBUTES, "shape"):
            if hasattr(extractor, name):
                setattr(self, name, getattr(extractor, name))
        self.protocol = {**extractor.protocol, "precision": "bfloat16 features, float64 statistics"}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the extractor; the results are float32."""
        with torch.autocast(images.device.type, torch.bfloat16):
            features, logits = self.extractor(images)
        return features.float(), None if logits is None else logits.float()


class ClassifierExtractor(nn.Module):
    """Penultimate activations and logits of a `Classifier`.

    Args:
        name: Name of the extractor.
        network: Trained classifier of images in [-1, 1].
        hash: sha256 of its weights file.
        shape: ``(C, H, W)`` that it was trained on; other images are resized and converted to color or gray.
    """

    def __init__(self, name: str, network: Classifier, hash: str, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.name = name
        self.num_features = network.num_features
        self.num_classes = network.head.out_features
        self.hash = hash
        self.shape = shape
        self.protocol = {"resize": f"bilinear, antialiased, 8 bits, to {shape[1]}x{shape[2]}"}
        self.network = network.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 ``(N, C, H, W)`` to features ``(N, d)`` and logits ``(N, k)``, float32."""
        channels, height, width = self.shape
        x = resize(match_channels(images, channels), height, width).float() / 127.5 - 1.0
        features = self.network.features(x.contiguous(memory_format=torch.channels_last))
        return features, self.network.head(features)
