from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lit_aigc.data.images import ImageData
from lit_aigc.data.sources import Mnist5k
from lit_aigc.errors import InputError
from lit_aigc.evaluate import audit as module
from lit_aigc.evaluate.audit import audit
from lit_aigc.metrics.features.extractors import extractor
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec
from tests.metrics.toy import MeanColour

SIDE = 48


class Split:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def batch(self, start, indices):
        return Batch(self.images[indices], None, start)


class Data:
    def __init__(self, train, test):
        self.splits = {"train": Split(train), "test": Split(test)}
        self.spec = DataSpec("image", tuple(train.shape[1:]), (0.0, 255.0), name="toy", fingerprint="f")

    def split(self, name):
        return self.splits[name]

    def real_batches(self, name, limit=None):
        return batches(self.splits[name].images[:limit], 50)


def batches(images, size=64):
    return (Batch(images[i : i + size], None, i) for i in range(0, len(images), size))


@functools.cache
def digits():
    """Real digits: any ten that follow each other are one of each class."""
    return ImageData(Mnist5k()).split("train").batch(0, torch.arange(1200)).images


def digit_data():
    return Data(digits()[:600], digits()[600:900])


def noisy(images, levels=8):
    noise = Noise(7).normal(*images.shape) * levels
    return (images + noise).clamp(0, 255).round().to(torch.uint8)


def blobs(n, seed):
    """A smooth distribution: a bright spot of random place, width and brightness."""
    y, x, width, bright = Noise(seed).uniform(n, 4).T[:, :, None, None]
    grid = torch.linspace(0, 1, 20)
    squares = (grid[:, None] - 0.2 - 0.6 * y).square() + (grid - 0.2 - 0.6 * x).square()
    return ((100 + 155 * bright) * (-squares / (0.02 + 0.05 * width)).exp()).round().to(torch.uint8)[:, None]


def test_held_out_digits_are_honest():
    found = audit(batches(digits()[900:1200]), digit_data(), MeanColour()).values
    assert found["memorised"] is False
    assert found["memorised_share_pixels"] < 0.04 > found["memorised_share_mean_colour"]
    assert abs(found["copying_z_pixels"]) < 3
    assert found["authenticity_pixels"] == pytest.approx(found["authenticity_real_pixels"], abs=0.12)
    assert found["duplicates_of_training"] == 0


def test_a_smooth_distribution_is_honest_and_copies_of_it_are_not():
    data = Data(blobs(500, 1), blobs(300, 2))
    assert audit(batches(blobs(300, 3)), data).values["memorised"] is False
    found = audit(batches(noisy(blobs(500, 1)[:300], 1)), data).values
    assert found["memorised"] is True
    assert found["copying_z_pixels"] < -5


def test_blurred_digits_are_nearer_to_everything_and_yet_no_copies():
    blurred = F.avg_pool2d(digits()[900:1200].float(), 3, 1, 1).round().to(torch.uint8)
    found = audit(batches(blurred), digit_data()).values
    assert found["copying_z_pixels"] < -3
    assert found["memorised"] is False


def test_copies_with_noise_are_caught():
    found = audit(batches(noisy(digits()[:300])), digit_data()).values
    assert found["memorised"] is True
    assert found["memorised_share_pixels"] > 0.95 > 0.05 > found["authenticity_pixels"]
    assert found["copying_z_pixels"] < -15
    assert found["duplicates_of_training"] == 0


def test_exact_copies_are_counted():
    found = audit(batches(digits()[:300]), digit_data()).values
    assert found["memorised"] is True
    assert found["duplicates_of_training"] == 300
    assert found["duplicates_among_samples"] == 0


def test_a_fifth_of_copies_is_caught():
    mixed = torch.cat([digits()[900:1140], noisy(digits()[:60])])
    found = audit(batches(mixed), digit_data())
    assert found.values["memorised"] is True
    assert found.values["memorised_share_pixels_low"] < 0.2 < found.values["memorised_share_pixels_high"]
    assert (found.suspicion.argsort(stable=True)[:50] >= 240).double().mean() > 0.9


def test_moved_copies_are_caught_by_features():
    moved = digits()[:300].roll(1, dims=-1)
    found = audit(batches(moved), digit_data(), extractor("mnist_classifier")).values
    assert found["memorised_share_pixels"] < 0.1
    assert found["memorised_share_mnist_classifier"] > 0.4
    assert found["authenticity_mnist_classifier"] < found["authenticity_real_mnist_classifier"] - 0.3
    assert found["memorised"] is True


def test_a_collapsed_generator_repeats_itself():
    held_out = digits()[900:1200].clone()
    held_out[:100] = held_out[0]
    found = audit(batches(held_out), digit_data()).values
    assert found["duplicates_among_samples"] == 100


def test_the_size_of_batches_changes_nothing(monkeypatch):
    samples, data = noisy(digits()[880:980]), digit_data()
    one = audit(batches(samples), data, MeanColour())
    monkeypatch.setattr(module, "_BLOCK", 7)
    other = audit(batches(samples, 9), data, MeanColour())
    assert other.values == one.values
    assert other.protocol == one.protocol


def test_the_protocol_says_what_the_numbers_depend_on():
    protocol = audit(batches(digits()[900:1000]), digit_data(), MeanColour()).protocol
    assert (protocol["n_fake"], protocol["n_real"], protocol["n_train"]) == (100, 300, 600)
    assert (protocol["real"], protocol["fingerprint"], protocol["extractor"]) == ("toy/test", "f", "mean_colour")
    assert set(protocol["tests"]) == {
        "memorised_share_pixels",
        "memorised_share_mean_colour",
        "duplicates_of_training",
    }


def images(n, seed):
    return (Noise(seed).uniform(n, 1, SIDE, SIDE) * 256).to(torch.uint8)


def places_of(page, image):
    """Where an image is on a page: (top, left) of each place."""
    windows = np.lib.stride_tricks.sliding_window_view(page, (SIDE, SIDE))
    corner = (windows[..., :2, :2] == image[:2, :2]).all((2, 3))
    return [(int(y), int(x)) for y, x in np.argwhere(corner) if (windows[y, x] == image).all()]


def test_the_picture_begins_with_the_most_suspicious_sample_beside_its_original():
    train, samples = images(80, 1), images(40, 2)
    samples[17] = train[5] ^ 1  # every pixel by one grey level
    picture = audit(batches(samples), Data(train, images(60, 3)), MeanColour(), rows=3).picture
    page = np.asarray(picture).astype(int)[..., 0]
    ((top, left),) = places_of(page, samples[17, 0].numpy())
    originals = places_of(page, train[5, 0].numpy())
    assert originals[0][0] == top == min(y for sample in samples for y, _ in places_of(page, sample[0].numpy()))
    assert originals[0][1] > left + SIDE
    shown = [places_of(page, sample[0].numpy()) for sample in samples]
    assert sum(map(len, shown)) == 3


def test_identical_training_images():
    train = digits()[:1].expand(60, -1, -1, -1).contiguous()
    data = Data(train, digits()[600:800])
    assert audit(batches(digits()[900:1000]), data, MeanColour()).values["memorised"] is False
    found = audit(batches(train), data, MeanColour()).values
    assert found["memorised"] is True
    assert found["duplicates_of_training"] == found["duplicates_among_samples"] == 60


def test_fewer_training_images_than_neighbours_are_enough():
    found = audit(batches(digits()[900:1000]), Data(digits()[:9], digits()[600:800]))
    assert "the mean of the 9 nearest" in found.protocol["closeness"]


def test_only_so_many_are_looked_at(monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 120)
    protocol = audit(batches(digits()[900:1200]), digit_data()).protocol
    assert (protocol["n_fake"], protocol["n_real"]) == (120, 120)


def test_grey_samples_in_colour_files():
    grey = digits()[900:1000]
    assert audit(batches(grey.repeat(1, 3, 1, 1)), digit_data()).values == audit(batches(grey), digit_data()).values


@pytest.mark.parametrize(
    ("samples", "train", "test", "message"),
    [
        (100, 50, 1, "100 samples and 1 real test images are too few"),
        (1, 50, 50, "some hundreds of each; got 1, 50 and 50"),
        (0, 50, 50, "got 0, 50 and 50"),
        (100, 50, 0, "got 100, 0 and 50"),
        (100, 1, 50, "got 100, 50 and 1"),
    ],
)
def test_too_few_images(samples, train, test, message):
    with pytest.raises(InputError, match=message):
        audit(batches(digits()[:samples]), Data(digits()[100 : 100 + train], digits()[200 : 200 + test]))


def test_samples_of_another_size():
    with pytest.raises(
        InputError, match=r"the samples have images of 8x8 \(height x width\), the training images 28x28"
    ):
        audit(batches(torch.zeros(9, 1, 8, 8, dtype=torch.uint8)), digit_data())
