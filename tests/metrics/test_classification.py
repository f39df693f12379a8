"""The classification accuracy score on data that a classifier can learn in seconds."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.classification import ClassifierRecipe, accuracy, classification_accuracy, train_classifier
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch

QUICK = ClassifierRecipe(samples_seen=3200, batch_size=32, width=4, shift=1)


def quarters(n, seed):
    """Noise with one quarter of the image brighter: the class."""
    labels = Noise(seed).stream("labels").integers(n, 4)
    images = Noise(seed).uniform(n, 1, 12, 12) * 120
    for i, label in enumerate(labels.tolist()):
        top, left = 6 * (label // 2), 6 * (label % 2)
        images[i, :, top : top + 6, left : left + 6] += 90
    return Batch(images.to(torch.uint8), labels, 0)


def in_parts(batch, size=50):
    return [Batch(batch.images[i : i + size], batch.labels[i : i + size], i) for i in range(0, len(batch.images), size)]


@pytest.fixture(scope="module")
def real():
    return quarters(400, 1)


@pytest.fixture(scope="module")
def test_images():
    return in_parts(quarters(200, 2))


def test_samples_with_the_right_classes_score_like_real_ones(real, test_images):
    values, protocol = classification_accuracy(in_parts(quarters(300, 3)), real, test_images, 4, recipe=QUICK)
    assert set(values) == {"classification_accuracy_score", "classification_accuracy_real"}
    assert values["classification_accuracy_score"] > 0.95
    assert values["classification_accuracy_real"] > 0.95
    assert (protocol["n_fake"], protocol["n_real"], protocol["n_test"]) == (300, 400, 200)
    assert protocol["recipe"] == dataclasses.asdict(QUICK.resolved("cpu"))


def test_samples_with_shuffled_classes_score_like_guesses(real, test_images):
    fake = quarters(300, 3)
    shuffled = fake._replace(labels=fake.labels[Noise(5).bits(300, 1)[:, 0].argsort()])
    values, _ = classification_accuracy(in_parts(shuffled), real, test_images, 4, recipe=QUICK)
    assert values["classification_accuracy_score"] < 0.6
    assert values["classification_accuracy_real"] > 0.95


def test_a_class_that_is_never_drawn_is_lost(real, test_images):
    fake = quarters(300, 3)
    drawn = Batch(fake.images[fake.labels != 3], fake.labels[fake.labels != 3], 0)
    values, _ = classification_accuracy([drawn], real, test_images, 4, recipe=QUICK)
    share = (torch.cat([batch.labels for batch in test_images]) != 3).double().mean().item()
    assert share - 0.05 < values["classification_accuracy_score"] <= share


def test_the_classifier_is_a_function_of_seed_and_data(real):
    quick = dataclasses.replace(QUICK, samples_seen=320)
    state = torch.random.get_rng_state()
    one = train_classifier(real.images, real.labels, 4, seed=1, recipe=quick).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    two = train_classifier(real.images, real.labels, 4, seed=1, recipe=quick).state_dict()
    other = train_classifier(real.images, real.labels, 4, seed=2, recipe=quick).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_full_precision_learns_the_same(real, test_images):
    network = train_classifier(real.images, real.labels, 4, recipe=dataclasses.replace(QUICK, bf16=False))
    found, n = accuracy(network, test_images)
    assert found > 0.95
    assert n == 200


def test_accuracy_counts_what_is_right(real):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([0.0, 1.0, 0.0, 0.0]))

        def forward(self, x):
            return self.logits.expand(len(x), 4)

    found, n = accuracy(Constant(), in_parts(real))
    assert found == pytest.approx((real.labels == 1).double().mean().item())
    assert n == 400


def test_what_cannot_be_trained_on_is_refused(real):
    with pytest.raises(InputError, match="a label each"):
        train_classifier(real.images, real.labels[:3], 4, recipe=QUICK)
    with pytest.raises(InputError, match="a label each"):
        train_classifier(real.images[:0], real.labels[:0], 4, recipe=QUICK)
    with pytest.raises(InputError, match="at least 2 images"):
        ClassifierRecipe(batch_size=1)
