"""What tests of every config know of images."""

from __future__ import annotations

import torch

from lit_aigc.noise import Noise
from lit_aigc.spec import DataSpec

SPECS = [
    DataSpec("image", shape, num_classes=3, class_names=("a", "b", "c"))
    for shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64))
]


def made_up_spec(data: dict) -> DataSpec:
    """A spec as a data config leads to."""
    size, channels = data.get("image_size") or 32, data.get("channels") or 3
    dataset = data["source"].get("dataset")
    name = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10"}.get(dataset, "mnist5k")
    names = tuple(f"class {i}" for i in range(10))
    return DataSpec("image", (channels, size, size), (-1.0, 1.0), 10, names, name=name)


def check_samples(module, spec: DataSpec) -> None:
    """Samples are images in the spec's range."""
    samples = module.sample(3, noise=Noise(0))
    assert samples.shape == (3, *spec.shape)
    assert samples.dtype == torch.float32
    assert spec.value_range[0] <= samples.min() < samples.max() <= spec.value_range[1]
