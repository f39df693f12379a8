from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from lit_aigc.errors import InputError
from lit_aigc.metrics.frechet import frechet_distance
from lit_aigc.metrics.generative import choose_metrics, evaluate_samples, module_samples
from lit_aigc.metrics.reference import Reference, compute_reference, from_tensors
from lit_aigc.metrics.table import METRICS
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch
from tests.metrics.toy import MeanColour, Toy, ToyData

ALL = tuple(METRICS)
DEFAULT = ("fid", "kid", "is", "accuracy")
ON_REQUEST = ("precision_recall", "class_fid")


@pytest.fixture
def reference() -> Reference:
    return compute_reference(ToyData().real_batches("train"), MeanColour(), split="train", fingerprint="f")


def images(n: int) -> torch.Tensor:
    return (Noise(7).uniform(n, 1, 8, 8) * 256).to(torch.uint8)


@pytest.fixture
def by_class() -> Reference:
    return compute_reference(ToyData().real_batches("train"), MeanColour(), split="train", num_classes=2)


def in_batches(x: torch.Tensor, size: int) -> list[Batch]:
    labels = torch.arange(len(x)) % 2
    return [Batch(x[i : i + size], labels[i : i + size], i) for i in range(0, len(x), size)]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batch_size_makes_no_difference(by_class, size):
    extractor, metrics = MeanColour().double(), ALL
    whole, _ = evaluate_samples(in_batches(images(101), 101), extractor, by_class, metrics, bootstrap=20)
    parts, protocol = evaluate_samples(in_batches(images(101), size), extractor, by_class, metrics, bootstrap=20)
    assert parts == pytest.approx(whole, rel=1e-6, abs=1e-12)
    assert protocol["n_fake"] == 101


def test_what_is_measured_on_request(by_class):
    samples = in_batches(images(60), 20)
    values, protocol = evaluate_samples(samples, MeanColour(), by_class, ON_REQUEST)
    assert set(values) == {
        "precision_mean_colour",
        "recall_mean_colour",
        "class_fid_mean_colour",
        "class_fid_mean_colour_0",
        "class_fid_mean_colour_1",
    }
    assert 0.5 < values["precision_mean_colour"] <= 1
    assert values["class_fid_mean_colour"] == pytest.approx(
        (values["class_fid_mean_colour_0"] + values["class_fid_mean_colour_1"]) / 2
    )
    assert protocol["precision_recall"] == {"neighbours": 3, "n_real": 101, "n_fake": 60}
    assert protocol["class_fid"] == {"n_real": [51, 50], "n_fake": [30, 30]}
    assert "bootstrap" not in protocol


def test_intervals(reference):
    samples = in_batches(images(60) // 2, 20)
    plain, _ = evaluate_samples(samples, MeanColour(), reference, DEFAULT)
    values, protocol = evaluate_samples(samples, MeanColour(), reference, DEFAULT, bootstrap=50)
    assert {key: values[key] for key in plain} == plain
    parts = ("standard_error", "low", "high")
    assert set(values) - set(plain) == {f"{name}_mean_colour_{part}" for name in ("fid", "kid", "is") for part in parts}
    for name in ("fid", "kid", "is"):
        key = f"{name}_mean_colour"
        assert values[f"{key}_low"] < values[key] < values[f"{key}_high"]
        assert values[f"{key}_standard_error"] > 0
    facts = {"draws": 50, "seed": 0, "level": 0.95, "over": "generated samples", "n": 60}
    assert protocol["bootstrap"] == facts
    again, _ = evaluate_samples(samples, MeanColour(), reference, DEFAULT, bootstrap=50)
    assert again == values
    other, _ = evaluate_samples(samples, MeanColour(), reference, ("fid",), bootstrap=50, bootstrap_seed=1)
    assert other["fid_mean_colour_low"] != values["fid_mean_colour_low"]
    with pytest.raises(InputError, match="bootstrap=3: expected"):
        evaluate_samples(samples, MeanColour(), reference, ("fid",), bootstrap=3)


def test_intervals_shrink_with_the_number_of_samples_beyond_those_kept(reference, monkeypatch):
    samples = in_batches(images(400) // 2, 100)
    whole, _ = evaluate_samples(samples, MeanColour(), reference, ("fid", "is"), bootstrap=100)
    monkeypatch.setattr("lit_aigc.metrics.generative.KID_LIMIT", 100)
    limited, protocol = evaluate_samples(samples, MeanColour(), reference, ("fid", "is"), bootstrap=100)
    assert protocol["bootstrap"]["n"] == 100
    for name in ("fid", "is"):
        key = f"{name}_mean_colour_standard_error"
        assert limited[key] == pytest.approx(whole[key], rel=0.4)


def test_classes_that_are_not_known_are_refused(reference, by_class):
    with pytest.raises(InputError, match="the reference \\(train\\) has none: take reference=train"):
        evaluate_samples(in_batches(images(20), 5), MeanColour(), reference, ("class_fid",))
    unlabelled = [Batch(images(20), None, 0)]
    with pytest.raises(InputError, match="class of each image"):
        evaluate_samples(unlabelled, MeanColour(), by_class, ("class_fid",))


def test_odd_set_is_counted_once_over_two_shares():
    """What two processes see makes up the whole, without padding."""
    shares = [batch for rank in (0, 1) for batch in ToyData().real_batches("train", rank=rank, world_size=2)]
    whole = compute_reference(ToyData().real_batches("train"), MeanColour(), split="train")
    dealt = compute_reference(shares, MeanColour(), split="train")
    assert dealt.moments.count == whole.moments.count == 101
    assert frechet_distance(dealt.moments, whole.moments) == pytest.approx(0.0, abs=1e-9)


def test_reference_survives_its_file(reference):
    moments, features = from_tensors(load(save(reference.tensors())))
    assert moments.count == 101
    assert torch.equal(moments.mean, reference.moments.mean)
    assert torch.equal(moments.covariance, reference.moments.covariance)
    assert torch.equal(features, reference.features)


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
    values, _ = evaluate_samples(constant, MeanColour(), reference, DEFAULT)
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
    assert choose_metrics(None, extractor, 2) == DEFAULT
    assert choose_metrics(None, extractor, 0) == ("fid", "kid", "is")
    assert choose_metrics(None, featureless, 2) == ("fid", "kid")
    assert choose_metrics(["kid", "fid"], extractor, 0) == ("fid", "kid")
    assert choose_metrics(["class_fid", "fid", "precision_recall"], featureless, 3) == ("fid", *ON_REQUEST)
    for asked, module, classes, message in (
        (["fdi"], extractor, 2, "did you mean 'fid'"),
        ([], extractor, 2, "metrics is empty"),
        (["accuracy"], extractor, 0, "these have no classes"),
        (["accuracy"], extractor, 10, "these have 10 classes"),
        (["is"], featureless, 2, "has none"),
        (["class_fid"], extractor, 0, "leave out 'class_fid'"),
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
