"""Options of an evaluation: extractors of one's own, precision, the floor, a baseline, images against themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.evaluate.run import evaluate
from lit_aigc.metrics.features.extractors import Bfloat16, extractor
from tests.metrics.toy import MeanColour

TOY = "extractor={_target_: tests.metrics.toy.MeanColour}"
N = 60


class Narrow(MeanColour):
    """Says that it is wider than it is."""

    num_features = 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, seed: int, *, darker: float = 1.0, n: int = N) -> Path:
    images = np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 1), dtype=np.uint8)
    np.savez(path, arr_0=(images * darker).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2))
    return path


@pytest.fixture
def sets(tmp_path):
    return write(tmp_path / "real.npz", 0), write(tmp_path / "fake.npz", 1)


def score(*arguments, extractor: str = TOY) -> dict:
    return evaluate(load("evaluate", [extractor, *map(str, arguments)]))


def test_an_extractor_of_one_s_own(sets):
    results = score(f"real={sets[0]}", f"fake={sets[1]}")
    protocol = results["protocol"]["mean_colour"]
    assert results["fid_mean_colour"] > 0
    assert (protocol["extractor"], protocol["extractor_hash"], protocol["resize"]) == ("mean_colour", "none", "none")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["extractor={_target_: torch.nn.ReLU}"], "ReLU is not a feature extractor: expected an nn.Module with"),
        (["extractor={_target_: tests.metrics.toy.Missing}"], "tests.metrics.toy.Missing can't be imported"),
        (
            ["extractor={_target_: lit_aigc.metrics.features.efficientnet.EfficientNetLite0, sise: 64}"],
            "did you mean 'size'?",
        ),
        (["extractor={_target_: tests.evaluate.test_options.Narrow}"], "expected (60, 5), by its num_features"),
        ([TOY, "weights_path=there"], "weights_path= goes with a named extractor"),
        ([TOY, "resize=clean"], "resize= goes with a named extractor"),
        (["extractor=mnist_classifier", "resize=clean"], "resize=clean goes with extractor=inception"),
        ([TOY, "baseline=there"], "add bootstrap=200"),
        ([TOY, "baseline=there.json", "bootstrap=20"], "baseline=there.json can't be read"),
        ([TOY, "metrics=[class_fid]"], "these have none"),
    ],
)
def test_what_is_refused(command, sets, given, expected):
    outcome = command("evaluate", f"real={sets[0]}", f"fake={sets[1]}", *given)
    assert (outcome.code, outcome.err.count("lit_aigc.evaluate: ")) == (2, 1), outcome
    assert expected in outcome.err
    assert "Traceback" not in outcome.err


def test_features_in_bfloat16_are_near_and_said_to_be(sets):
    ask = [f"real={sets[0]}", f"fake={write(sets[1], 1, darker=0.5)}", "metrics=[fid, is]"]
    plain = score(*ask, extractor="extractor=mnist_classifier")
    rough = score(*ask, "bf16_features=true", extractor="extractor=mnist_classifier")
    one, other = (results["protocol"]["mnist_classifier"] for results in (plain, rough))
    assert (one["precision"], other["precision"]) == (
        "float32 features, float64 statistics",
        "bfloat16 features, float64 statistics",
    )
    assert rough["fid_mnist_classifier"] != plain["fid_mnist_classifier"]  # and what was cached wasn't taken
    assert rough["fid_mnist_classifier"] == pytest.approx(plain["fid_mnist_classifier"], rel=0.02)


def test_bfloat16_reaches_the_network_and_float32_comes_out():
    class Linear(MeanColour):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, images):
            features = self.layer(super().forward(images)[0])
            self.seen = features.dtype
            return features, None

    network = Bfloat16(Linear())
    features, logits = network(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert (network.extractor.seen, features.dtype, logits) == (torch.bfloat16, torch.float32, None)
    assert network.hash == network.extractor.hash
    assert Bfloat16(extractor("mnist_classifier")).shape == (1, 32, 32)


def test_a_shipped_reference_is_not_for_features_in_bfloat16(sets):
    with pytest.raises(InputError, match=r"reference=shipped is of features in float32"):
        score(f"fake={sets[1]}", "reference=shipped", "bf16_features=true", extractor="extractor=mnist_classifier")


def test_the_floor_of_a_real_set(sets):
    real, fake = sets
    results = score(f"real={real}", f"fake={fake}")
    protocol = results["protocol"]["mean_colour"]
    assert protocol["floor"] == (
        f"two parts of real={real}, n = 30, fewer than the 60 samples: FID is higher for that alone"
    )
    assert results["fid_floor_mean_colour"] > 0
    assert results["is_real_mean_colour"] >= 1
    again = score(f"real={real}", f"fake={fake}", "cache=false")
    assert {key: again[key] for key in results if "floor" in key} == {
        key: pytest.approx(results[key], rel=1e-9) for key in results if "floor" in key
    }
    fewer = score(f"real={real}", f"fake={write(fake, 2, n=20)}")  # the reference is known, this floor isn't
    assert fewer["protocol"]["mean_colour"]["floor"] == f"two parts of real={real}, n = 20"
    assert fewer["fid_floor_mean_colour"] != results["fid_floor_mean_colour"]
    alone = score(f"real={real}", f"fake={fake}", "cache=false")
    assert fewer == score(f"real={real}", f"fake={fake}")  # twice from the cache
    assert alone["fid_floor_mean_colour"] == pytest.approx(fewer["fid_floor_mean_colour"], rel=1e-9)
    without = score(f"real={real}", f"fake={fake}", "floor=false")
    assert without["protocol"]["mean_colour"]["floor"] == "unavailable"
    assert not any("floor" in key for key in without if key != "protocol")


def test_the_floor_of_data_is_their_test_split(sets):
    results = score(f"fake={sets[1]}", "data=mnist5k", "data.image_size=8", "reference=val", "metrics=[fid]")
    assert results["protocol"]["mean_colour"]["floor"] == "mnist5k/test, n = 60"
    assert 0 < results["fid_floor_mean_colour"] < results["fid_mean_colour"]


def test_images_against_themselves(sets):
    with pytest.warns(UserWarning, match="hold the same images"):
        results = score(f"real={sets[0]}", f"fake={sets[0]}")
    assert results["fid_mean_colour"] == pytest.approx(0.0, abs=1e-9)
    assert results["protocol"]["mean_colour"]["same_images"] is True


def test_a_biased_number_is_marked(command, sets):
    ask = [f"real={sets[0]}", f"fake={sets[1]}", "metrics=[fid]"]
    outcome = command("evaluate", *ask, "extractor=mnist_classifier")
    assert "fid_mnist_classifier (biased)" in outcome.out  # 60 images, 128 features
    assert "(biased)" not in command("evaluate", *ask, TOY).out


def test_a_baseline_says_what_is_beyond_noise(command, sets, tmp_path):
    real, fake = sets
    ask = [f"real={real}", "bootstrap=50", "metrics=[fid, kid]", TOY]
    darker = write(tmp_path / "dark, images.npz", 3, darker=0.5)
    alike = write(tmp_path / "alike.npz", 4)
    outcome = command("evaluate", f"fake={fake}", f"baseline={darker}", f"out={tmp_path / 'one.json'}", *ask)
    assert outcome.code == 0, outcome.err
    assert "beyond noise" in outcome.out
    results = json.loads((tmp_path / "one.json").read_text())
    found = results["comparison"]
    assert found["baseline"] == str(darker)
    facts = found["fid_mean_colour"]
    assert facts["beyond_noise"] is True
    assert facts["high"] < 0  # this is better than the darker one
    assert facts["difference"] == pytest.approx(facts["value"] - facts["baseline"])
    assert facts["value"] == results["fid_mean_colour"]

    outcome = command(
        "evaluate", f"fake={alike}", f"baseline={tmp_path / 'one.json'}", f"out={tmp_path / 'b.json'}", *ask
    )
    assert "within noise" in outcome.out
    facts = json.loads((tmp_path / "b.json").read_text())["comparison"]["fid_mean_colour"]
    assert facts["low"] < 0 < facts["high"]
    assert facts["baseline"] == results["fid_mean_colour"]


def test_a_baseline_that_was_measured_otherwise_is_refused(sets, tmp_path):
    ask = [f"real={sets[0]}", f"fake={sets[1]}", "bootstrap=20", "metrics=[fid]"]
    (tmp_path / "other.json").write_text(json.dumps(score(*ask)))
    fewer = write(tmp_path / "fewer.npz", 1, n=20)
    with pytest.raises(InputError, match="were not measured alike"):
        score(f"real={sets[0]}", f"fake={fewer}", *ask[2:], f"baseline={tmp_path / 'other.json'}")
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(InputError, match="is not an evaluation"):
        score(*ask, f"baseline={tmp_path / 'none.json'}")


def test_the_fid_of_each_class_needs_labels(sets, tiny_run):
    with pytest.raises(InputError, match=r"class_fid needs real images with labels, and real=.* has none: give data="):
        score(
            f"bundle={tiny_run / 'bundle'}",
            f"real={sets[0]}",
            "metrics=[class_fid]",
            extractor="extractor=mnist_classifier",
        )


def test_two_bundles(tiny_run):
    """A model against itself: no difference, though it is measured twice."""
    bundle = tiny_run / "bundle"
    ask = ["num_samples=64", "metrics=[fid]", "bootstrap=20"]
    results = score(f"bundle={bundle}", f"baseline={bundle}", *ask, extractor="extractor=mnist_classifier")
    facts = results["comparison"]["fid_mnist_classifier"]
    assert (facts["difference"], facts["beyond_noise"]) == (0.0, False)
    assert facts["low"] < 0 < facts["high"]
