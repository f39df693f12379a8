"""Evaluating a bundle: numbers with their protocol, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lit_aigc.config import load
from lit_aigc.evaluate import evaluate

CLASSIFIER = "extractor=mnist_classifier"


@pytest.fixture
def bundle(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run / "bundle", tmp_path / "run" / "bundle"))


def measure(bundle, *arguments):
    return evaluate(load("evaluate", [f"bundle={bundle}", CLASSIFIER, *arguments]))


def test_a_table_and_json_with_the_protocol(command, bundle):
    outcome = command("evaluate", f"bundle={bundle}", CLASSIFIER, "num_samples=100")
    assert outcome.code == 0, outcome.err
    written = bundle.parent / "evaluation.json"
    results = json.loads(written.read_text())
    for key in ("fid_mnist_classifier", "kid_mnist_classifier", "is_mnist_classifier", "accuracy_mnist_classifier"):
        assert isinstance(results[key], float)
        assert key in outcome.out
    assert results["fid_mnist_classifier"] > 1
    assert 1 <= results["is_mnist_classifier"] <= 10
    protocol = results["protocol"]["mnist_classifier"]
    assert (protocol["n_fake"], protocol["sample_seed"]) == (100, 0)
    assert protocol["n_real"] > 1000
    assert len(protocol["extractor_hash"]) == 64
    assert "evaluation.json" in outcome.out.replace("\n", "")


def test_out_names_the_file(command, bundle, tmp_path):
    out = tmp_path / "numbers, of mine.json"
    assert command("evaluate", f"bundle={bundle}", CLASSIFIER, "num_samples=64", "metrics=[is]", f"out={out}").code == 0
    assert set(json.loads(out.read_text())) >= {"is_mnist_classifier", "protocol"}
    assert not (bundle.parent / "evaluation.json").exists()


def test_twice_is_the_same_and_another_seed_is_not(bundle):
    one, two, other = (measure(bundle, "num_samples=64", "metrics=[fid]", f"seed={seed}") for seed in (0, 0, 1))
    assert one == two
    assert one["fid_mnist_classifier"] != other["fid_mnist_classifier"]


def test_metrics_that_are_asked_for(bundle):
    results = measure(bundle, "num_samples=64", "metrics=[is, accuracy]")
    found = {key for key in results if key.endswith("_mnist_classifier")}
    assert found == {"is_mnist_classifier", "accuracy_mnist_classifier"}
    assert results["protocol"]["mnist_classifier"]["reference"] is None


def test_what_is_measured_on_request_and_intervals(bundle):
    ask = ["num_samples=64", "metrics=[fid, precision_recall, class_fid]", "data=mnist5k", "bootstrap=20"]
    results = measure(bundle, *ask)
    found = {key.removesuffix("_mnist_classifier") for key in results if key.endswith("_mnist_classifier")}
    assert found == {"fid", "precision", "recall", "class_fid"}
    assert sum(key.startswith("class_fid_mnist_classifier_") for key in results) == 10
    assert results["fid_mnist_classifier_low"] < results["fid_mnist_classifier"] < results["fid_mnist_classifier_high"]
    protocol = results["protocol"]["mnist_classifier"]
    assert protocol["reference"]["split"] == "mnist5k/train"  # what is shipped has no classes
    assert sum(protocol["class_fid"]["n_real"]) == protocol["n_real"]
    assert protocol["bootstrap"]["draws"] == 20


def test_a_reference_of_the_data(bundle):
    results = measure(bundle, "num_samples=64", "metrics=[fid]", "data=mnist5k", "reference=val")
    protocol = results["protocol"]["mnist_classifier"]
    assert protocol["reference"]["split"] == "mnist5k/val"
    assert protocol["n_real"] == 500


def test_the_extractor_of_training_is_the_default(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"protocol": {"mnist_classifier": {}}}))
    results = evaluate(load("evaluate", [f"bundle={bundle}", "num_samples=64", "metrics=[is]"]))
    assert "is_mnist_classifier" in results


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["extractor=mnist"], "There is no extractor 'mnist'"),
        (["extractor=os.system"], "There is no extractor 'os.system'"),
        ([CLASSIFIER, "metrics=[fids]"], "unknown metric 'fids', did you mean 'fid'?"),
        ([CLASSIFIER, "metrics=fid"], "metrics=fid: expected a list"),
        ([CLASSIFIER, "metrics=[]"], "metrics is empty"),
        ([CLASSIFIER, "metrics=[class_fid]"], "add data=NAME"),
        ([CLASSIFIER, "metrics=[class_fid]", "reference=shipped"], "class_fid needs the statistics of each class"),
        ([CLASSIFIER, "bootstrap=5"], "bootstrap=5: expected 0, or the number of draws, 20 or more"),
        ([CLASSIFIER, "num_samples=0"], "num_samples=0: expected"),
        ([CLASSIFIER, "num_samples=few"], "num_samples=few: expected a whole number"),
        ([CLASSIFIER, "reference=train"], "add data=NAME"),
        ([CLASSIFIER, "data=mnist5k", "reference=trian"], "'trian'"),
        ([CLASSIFIER, "data=mnist5k", "reference=train", "data.image_size=32"], "images of shape (1, 32, 32)"),
        ([CLASSIFIER, "data=nothing"], "data=nothing is unknown"),
        ([CLASSIFIER, "data=mnist5k", "data.batchsize=3"], "did you mean 'batch_size'?"),
        ([CLASSIFIER, "weights_path=/no/such/file"], "/no/such/file"),
        (["extractor=inception", "weights_path=/no/such/file"], ""),
        ([CLASSIFIER, "device=abacus"], "device=abacus"),
    ],
)
def test_what_is_refused(command, bundle, arguments, expected):
    outcome = command("evaluate", f"bundle={bundle}", "num_samples=64", *arguments)
    assert outcome.code == 2, outcome
    assert outcome.err.count("lit_aigc.evaluate: ") == 1
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
    assert not (bundle.parent / "evaluation.json").exists()


def test_a_folder_that_is_no_bundle(command, tmp_path):
    outcome = command("evaluate", f"bundle={tmp_path}")
    assert outcome.code == 2
    assert "is not a bundle" in outcome.err


NO_METRICS = "metrics=[]"


def quick(patch):
    """A recipe for the classifier that takes a second."""
    from lit_aigc.metrics import classification

    tiny = classification.ClassifierRecipe(samples_seen=640, batch_size=32, width=4)
    patch.setattr(classification, "ClassifierRecipe", lambda bf16: tiny)


def test_the_classification_accuracy_score(command, bundle, monkeypatch):
    quick(monkeypatch)
    ask = [NO_METRICS, "data=mnist5k", "classification_accuracy=100"]
    outcome = command("evaluate", f"bundle={bundle}", *ask)
    assert outcome.code == 0, outcome.err
    results = json.loads((bundle.parent / "evaluation.json").read_text())
    for key in ("classification_accuracy_score", "classification_accuracy_real"):
        assert 0 <= results[key] <= 1
        assert key in outcome.out
    protocol = results["protocol"]["classification_accuracy"]
    assert (protocol["n_fake"], protocol["n_real"], protocol["n_test"]) == (100, 100, 500)
    assert protocol["data"] == "mnist5k"
    assert measure(bundle, *ask)["classification_accuracy_score"] == results["classification_accuracy_score"]


def test_the_nearest_training_images(command, bundle, tmp_path):
    out = tmp_path / "here" / "numbers.json"
    ask = ["num_samples=64", "metrics=[is]", "data=mnist5k", "neighbours=true", f"out={out}"]
    outcome = command("evaluate", f"bundle={bundle}", CLASSIFIER, *ask)
    assert outcome.code == 0, outcome.err
    results = json.loads(out.read_text())
    assert results["nearest_distance"] > 0 < results["nearest_distance_real"]
    assert set(results["protocol"]) == {"mnist_classifier", "nearest_distance"}
    assert out.with_name("neighbours.png").exists()
    assert "neighbours.png" in outcome.out.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["classification_accuracy=100"], "classification_accuracy needs real images to compare with: add data=NAME"),
        (["neighbours=true"], "neighbours needs real images to compare with: add data=NAME, such as data=mnist5k"),
        (["classification_accuracy=1", "data=mnist5k"], "classification_accuracy=1: expected the number of samples"),
        (["classification_accuracy=all", "data=mnist5k"], "classification_accuracy=all: expected the number"),
        (["neighbours=1", "data=mnist5k"], "neighbours=1: expected true or false"),
    ],
)
def test_what_needs_data_is_refused_without(command, bundle, arguments, expected):
    outcome = command("evaluate", f"bundle={bundle}", NO_METRICS, *arguments)
    assert (outcome.code, outcome.err.count("lit_aigc.evaluate: ")) == (2, 1)
    assert expected in outcome.err


def test_an_unconditional_bundle_has_no_classification_accuracy(command, tiny, tmp_path):
    from lit_aigc.training import train

    run = train(load("train", [*tiny, "model.conditional=false", f"run_dir={tmp_path / 'run'}"]))
    ask = [f"bundle={run.folder.path / 'bundle'}", NO_METRICS, "data=mnist5k", "classification_accuracy=100"]
    outcome = command("evaluate", *ask)
    assert outcome.code == 2
    assert outcome.err.startswith("lit_aigc.evaluate: The classification accuracy score needs a conditional model")
    assert outcome.err.count("\n") == 1


@pytest.fixture(scope="module")
def vae_bundle(tiny, tmp_path_factory):
    """The bundle of a VAE that was trained for four batches; not to be changed."""
    from lit_aigc.training import train

    hidden = ["model=conv_vae", "model.network.encoder.channels=2", "model.network.encoder.hidden=8", "validations=1"]
    arguments = [argument for argument in tiny if not argument.startswith("model")]
    folder = tmp_path_factory.mktemp("vae") / "run"
    return train(load("train", [*arguments, *hidden, f"run_dir={folder}"])).folder.path / "bundle"


def test_the_likelihood_of_test_images(command, vae_bundle, tmp_path):
    out = tmp_path / "numbers.json"
    ask = [NO_METRICS, "data=mnist5k", "nll_samples=3", "nll_images=20", f"out={out}"]
    outcome = command("evaluate", f"bundle={vae_bundle}", *ask)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""  # the bar is for terminals
    results = json.loads(out.read_text())
    for key in ("nll", "nll_standard_error", "elbo", "bits_per_dim"):
        assert results[key] != 0
        assert key in outcome.out
    assert 0 < results["nll"] < -results["elbo"]
    protocol = results["protocol"]["likelihood"]
    assert (protocol["images"], protocol["samples"], protocol["split"]) == (20, 3, "mnist5k/test")
    assert protocol["binarisation"] == "random, seed 0"
    assert protocol["fingerprint"]
    again = evaluate(load("evaluate", [f"bundle={vae_bundle}", *ask, "data.eval_batch_size=7"]))
    assert again["nll"] == pytest.approx(results["nll"], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nll_samples=5"], "nll_samples needs real images to compare with: add data=NAME, such as data=mnist5k"),
        (["data=mnist5k", "nll_samples=0"], "nll_samples=0: expected the number of latents drawn for an image"),
        (["data=mnist5k", "nll_samples=many"], "nll_samples=many: expected"),
        (["data=mnist5k", "nll_samples=5", "nll_images=1"], "nll_images=1: expected the number of test images"),
        (["data=mnist5k", "nll_images=100"], "nll_images goes with nll_samples"),
        (["data=mnist5k", "data.image_size=32", "nll_samples=5"], "images of shape (1, 32, 32)"),
    ],
)
def test_likelihoods_that_are_refused(command, vae_bundle, arguments, expected):
    outcome = command("evaluate", f"bundle={vae_bundle}", NO_METRICS, *arguments)
    assert (outcome.code, outcome.err.count("lit_aigc.evaluate: ")) == (2, 1)
    assert expected in outcome.err


def test_a_gan_has_no_likelihood(command, bundle):
    outcome = command("evaluate", f"bundle={bundle}", NO_METRICS, "data=mnist5k", "nll_samples=5")
    assert outcome.code == 2
    assert outcome.err.startswith("lit_aigc.evaluate: nll_samples needs a model that gives images a likelihood")
    assert outcome.err.count("\n") == 1
