from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.frechet import frechet_distance
from lit_aigc.metrics.generative import METRICS, choose_metrics, evaluate_samples, module_samples
from lit_aigc.metrics.reference import Reference, compute_reference, tensors_from_bytes
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch
from tests.metrics.toy import MeanColour, Toy, ToyData


@pytest.fixture
def reference() -> Reference:
    return compute_reference(ToyData().real_batches("train"), MeanColour(), split="train", fingerprint="f")


def images(n: int) -> torch.Tensor:
    return (Noise(7).uniform(n, 1, 8, 8) * 256).to(torch.uint8)


def in_batches(x: torch.Tensor, size: int) -> list[Batch]:
    labels = torch.arange(len(x)) % 2
    return [Batch(x[i : i + size], labels[i : i + size], i) for i in range(0, len(x), size)]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batch_size_makes_no_difference(reference, size):
    extractor = MeanColour().double()
    whole, _ = evaluate_samples(in_batches(images(101), 101), extractor, reference, METRICS)
    parts, protocol = evaluate_samples(in_batches(images(101), size), extractor, reference, METRICS)
    assert parts == pytest.approx(whole, rel=1e-9)
    assert protocol["n_fake"] == 101


def test_odd_set_is_counted_once_over_two_shares():
    """What two processes see makes up the whole, without padding."""
    shares = [batch for rank in (0, 1) for batch in ToyData().real_batches("train", rank=rank, world_size=2)]
    whole = compute_reference(ToyData().real_batches("train"), MeanColour(), split="train")
    dealt = compute_reference(shares, MeanColour(), split="train")
    assert dealt.moments.count == whole.moments.count == 101
    assert frechet_distance(dealt.moments, whole.moments) == pytest.approx(0.0, abs=1e-9)


def test_reference_survives_its_file(reference):
    moments, features = tensors_from_bytes(reference.to_bytes())
    assert moments.count == 101
    assert torch.equal(moments.mean, reference.moments.mean)
    assert torch.equal(moments.covariance, reference.moments.covariance)
    assert torch.allclose(features, reference.features, atol=1e-3)


def test_protocol_and_keys(reference):
    values, protocol = evaluate_samples(in_batches(images(10), 5), MeanColour(), reference, ("fid", "is"))
    assert set(values) == {"fid_mean_colour", "is_mean_colour"}
    assert protocol["n_real"] == 101
    assert protocol["n_fake"] == 10
    assert protocol["extractor"] == "mean_colour"
    assert protocol["extractor_hash"] == "none"
    assert protocol["reference"] == {"split": "train", "fingerprint": "f", "n": 101, "n_kid": 101}
    assert protocol["quantisation"] == "8 bits"
    assert protocol["resize"] == "none"
    assert protocol["floor"] == "unavailable"
    assert protocol["biased"] is False


def test_floor_is_given_at_the_same_number_only(reference):
    figures = {"10": {"fid": 0.5, "kid": 0.1, "is": 1.9, "accuracy": 1.0}}
    known = Reference(reference.moments, reference.features, "none", "train", "f", figures, "test")
    values, protocol = evaluate_samples(in_batches(images(10), 5), MeanColour(), known, ("fid", "is"))
    assert values["fid_floor_mean_colour"] == 0.5
    assert values["is_real_mean_colour"] == 1.9
    assert "kid_floor_mean_colour" not in values
    assert protocol["floor"] == "test, n = 10"
    values, protocol = evaluate_samples(in_batches(images(11), 5), MeanColour(), known, ("fid", "is"))
    assert "fid_floor_mean_colour" not in values
    assert protocol["floor"] == "unavailable (on record for n = 10)"


def test_a_set_against_itself(reference):
    values, _ = evaluate_samples(ToyData().real_batches("train"), MeanColour(), reference, ("fid", "kid"))
    assert values["fid_mean_colour"] == pytest.approx(0.0, abs=1e-9)
    assert values["kid_mean_colour"] < 0  # unbiased


def test_constant_images_are_finite(reference):
    constant = in_batches(torch.full((20, 1, 8, 8), 9, dtype=torch.uint8), 20)
    values, _ = evaluate_samples(constant, MeanColour(), reference, METRICS)
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())
    assert values["is_mean_colour"] == pytest.approx(1.0)
    assert values["accuracy_mean_colour"] == 0.5


def test_module_samples_are_dealt_and_labelled():
    module = Toy(conditional=True).eval()
    whole = list(module_samples(module, 150, seed=3))
    assert [(batch.start, len(batch.images)) for batch in whole] == [(0, 64), (64, 64), (128, 22)]
    assert whole[0].images.dtype == torch.uint8
    assert whole[2].labels.tolist() == [i % 2 for i in range(128, 150)]
    dealt = [list(module_samples(module, 150, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [batch.start for batch in dealt[0]] == [0, 128]
    assert torch.equal(dealt[1][0].images, whole[1].images)
    values, _ = evaluate_samples(whole, MeanColour(), None, ("accuracy",))
    assert values["accuracy_mean_colour"] == 1.0


def test_samples_that_are_not_finite_are_refused():
    module = Toy()
    module.brightness.data.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        list(module_samples(module, 10, seed=0))


def test_choice_of_metrics():
    extractor, featureless = MeanColour(), MeanColour()
    featureless.num_classes = 0
    assert choose_metrics(None, extractor, 2) == METRICS
    assert choose_metrics(None, extractor, 0) == ("fid", "kid", "is")
    assert choose_metrics(None, featureless, 2) == ("fid", "kid")
    assert choose_metrics(["kid", "fid"], extractor, 0) == ("fid", "kid")
    for asked, module, classes, message in (
        (["fdi"], extractor, 2, "did you mean 'fid'"),
        ([], extractor, 2, "metrics is empty"),
        (["accuracy"], extractor, 0, "these have no classes"),
        (["accuracy"], extractor, 10, "these have 10 classes"),
        (["is"], featureless, 2, "has none"),
    ):
        with pytest.raises(InputError, match=message):
            choose_metrics(asked, module, classes)


def test_missing_or_foreign_reference_is_refused(reference):
    with pytest.raises(InputError, match="need a reference"):
        evaluate_samples(in_batches(images(10), 5), MeanColour(), None, ("fid",))
    other = MeanColour()
    other.hash = "other"
    with pytest.raises(InputError, match="make the reference anew"):
        evaluate_samples(in_batches(images(10), 5), other, reference, ("fid",))
