"""Evaluating a bundle: numbers with their protocol, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.config.compose import load
from lit_aigc.data.loaders import ResidentImages
from lit_aigc.errors import InputError
from lit_aigc.evaluate.models import random_batches
from lit_aigc.evaluate.output import page_file, picture_file
from lit_aigc.evaluate.run import evaluate
from lit_aigc.metrics.features.extractors import extractor as find_extractor
from lit_aigc.metrics.frechet import SmallSampleWarning
from lit_aigc.metrics.generative import evaluate_samples
from lit_aigc.metrics.reference import compute_reference
from lit_aigc.spec import Batch

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


def test_results_of_other_options_are_kept(command, bundle):
    """The run folder stands for its bundle; the same evaluation again takes the place of its older results."""
    ask = ["evaluate", f"bundle={bundle.parent}", CLASSIFIER, "num_samples=64", "metrics=[is]", "page=false"]
    for more in ([], ["seed=1"], ["seed=2"], ["seed=1", "batch_size=7"], []):
        assert command(*ask, *more).code == 0
    seeds = {
        file.name: json.loads(file.read_text())["options"]["seed"] for file in bundle.parent.glob("evaluation*.json")
    }
    assert seeds == {"evaluation.json": 0, "evaluation-2.json": 1, "evaluation-3.json": 2}
    assert json.loads((bundle.parent / "evaluation.json").read_text())["bundle"] == str(bundle)
    places = load("evaluate", [f"bundle={bundle}", *ask[2:], "seed=3"])
    assert picture_file(places).name == "memorisation-4.png"
    assert page_file(places).name == "evaluation-4.html"


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(command, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_aigc.evaluate.run.measured", None)
    monkeypatch.setattr("lit_aigc.runs.bundle.load_bundle", None)
    (tmp_path / "file").touch()
    for verb, given in (("evaluate", CLASSIFIER), ("generate", "n=1")):
        for out in ("/proc/x.json", tmp_path / "file" / "x.json"):
            outcome = command(verb, f"bundle={bundle}", given, f"out={out}")
            assert (outcome.code, outcome.err.count("\n")) == (2, 1)
            assert outcome.err.startswith(f"lit_aigc.{verb}: out={out} can't be written (")
    assert "it is a folder" in command("evaluate", f"bundle={bundle}", f"out={tmp_path}").err
    experiment = ["experiments=[dcgan_mnist5k]", "budget.batches=1"]
    outcome = command("compare", *experiment, "out=/proc/records")
    assert (outcome.code, "out=/proc/records can't be written" in outcome.err) == (2, True)


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
    assert found == {"fid", "fid_floor", "precision", "recall", "class_fid"}
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
    assert "classification_accuracy_score" in outcome.out  # and real images in the same row
    protocol = results["protocol"]["classification_accuracy"]
    assert (protocol["n_fake"], protocol["n_real"], protocol["n_test"]) == (100, 100, 500)
    assert protocol["data"] == "mnist5k"
    assert measure(bundle, *ask)["classification_accuracy_score"] == results["classification_accuracy_score"]


def test_the_memorisation_audit_and_the_page(command, bundle, tmp_path):
    out = tmp_path / "here" / "numbers.json"
    ask = ["num_samples=64", "metrics=[is]", "data=mnist5k", "audit=true", f"out={out}"]
    outcome = command("evaluate", f"bundle={bundle}", CLASSIFIER, *ask)
    assert outcome.code == 0, outcome.err
    results = json.loads(out.read_text())
    assert results["nearest_distance"] > 0 < results["nearest_distance_real"]
    assert results["memorised"] is False
    assert set(results["protocol"]) == {"mnist_classifier", "memorisation"}
    assert out.with_name("memorisation.png").exists()
    assert "memorisation.png" in outcome.out.replace("\n", "")
    page = out.with_suffix(".html").read_text()
    assert page.count("data:image/png;base64,") == 2  # samples, and the picture of the audit
    assert f"{results['is_mnist_classifier']:.4g}" in page


def test_no_page_where_none_is_wanted(command, bundle, tmp_path):
    out = tmp_path / "numbers.json"
    outcome = command("evaluate", f"bundle={bundle}", CLASSIFIER, "metrics=[is]", "page=false", f"out={out}")
    assert outcome.code == 0, outcome.err
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {"numbers.json"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["classification_accuracy=100"], "classification_accuracy needs real images to compare with: add data=NAME"),
        (["audit=true"], "audit needs the training images: add data=NAME"),
        (["classification_accuracy=1", "data=mnist5k"], "classification_accuracy=1: expected the number of samples"),
        (["classification_accuracy=all", "data=mnist5k"], "classification_accuracy=all: expected the number"),
        (["audit=1", "data=mnist5k"], "audit=1: expected true or false"),
    ],
)
def test_what_needs_data_is_refused_without(command, bundle, arguments, expected):
    outcome = command("evaluate", f"bundle={bundle}", NO_METRICS, *arguments)
    assert (outcome.code, outcome.err.count("lit_aigc.evaluate: ")) == (2, 1)
    assert expected in outcome.err


def test_an_unconditional_bundle_has_no_classification_accuracy(command, tiny, tmp_path):
    from lit_aigc.train.run import train

    run = train(load("train", [*tiny, "model.conditional=false", f"run_dir={tmp_path / 'run'}"]))
    ask = [f"bundle={run.folder.path / 'bundle'}", NO_METRICS, "data=mnist5k", "classification_accuracy=100"]
    outcome = command("evaluate", *ask)
    assert outcome.code == 2
    assert outcome.err.startswith("lit_aigc.evaluate: The classification accuracy score needs a conditional model")
    assert outcome.err.count("\n") == 1


@pytest.fixture(scope="module")
def vae_bundle(tiny, tmp_path_factory):
    """The bundle of a VAE that was trained for four batches; not to be changed."""
    from lit_aigc.train.run import train

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
    for key in ("nll", "nll_standard_error", "elbo", "nll_bits_per_dim"):
        assert results[key] != 0
        assert key in outcome.out or key == "nll_standard_error"  # which stands beside the nll
    assert 0 < results["nll"] < -results["elbo"]
    protocol = results["protocol"]["likelihood"]
    assert (protocol["images"], protocol["samples"], protocol["split"]) == (20, 3, "mnist5k/test")
    assert protocol["binarisation"] == "random, seed 0"
    assert protocol["chosen"] == "20 of 500 at random, seed 0"
    assert protocol["fingerprint"]
    again = evaluate(load("evaluate", [f"bundle={vae_bundle}", *ask, "data.eval_batch_size=7"]))
    assert again["nll"] == pytest.approx(results["nll"], abs=1e-3)


def test_a_part_of_the_test_images_is_drawn_at_random():
    """The first of a split may be easier than the rest, as MNIST's are."""
    labels = torch.arange(100)
    pixels = labels[:, None, None, None].expand(100, 2, 2, 1).to(torch.uint8)
    data = SimpleNamespace(split={"test": ResidentImages(pixels, labels)}.get, eval_batch_size=8)

    def drawn(seed):
        batches = list(random_batches(data, 20, seed))
        assert [(batch.start, len(batch.images)) for batch in batches] == [(0, 8), (8, 8), (16, 4)]
        found = torch.cat([batch.labels for batch in batches])
        assert torch.equal(torch.cat([batch.images for batch in batches])[:, 0, 0, 0], found)
        return found.tolist()

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(set(drawn(0))) == 20 and max(drawn(0)) > 80 and 30 < sum(drawn(0)) / 20 < 70


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nll_samples=5"], "nll_samples needs real images to compare with: add data=NAME, such as data=mnist5k"),
        (["data=mnist5k", "nll_samples=0"], "nll_samples=0: expected the number of latents per image"),
        (["data=mnist5k", "nll_samples=many"], "nll_samples=many: expected"),
        (["data=mnist5k", "nll_samples=5", "nll_images=1"], "nll_images=1: expected the number of test images"),
        (["data=mnist5k", "nll_images=100"], "nll_images needs nll_samples"),
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
    assert outcome.err.startswith("lit_aigc.evaluate: nll_samples needs a model with a likelihood")
    assert outcome.err.count("\n") == 1


def digits(seed: int, n: int) -> np.ndarray:
    """Blurred squares, uint8 ``(n, 28, 28)``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4), dtype=np.uint8)
    return coarse.repeat(7, axis=1).repeat(7, axis=2)


def save(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:04d}.png")
    return folder


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Real and generated images as folders; what is cached goes to the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return save(tmp_path / "real, ones", digits(0, 150)), save(tmp_path / "fake", digits(1, 140) // 2)


def score(*arguments) -> dict:
    return evaluate(load("evaluate", [CLASSIFIER, *arguments]))


def metrics_of(results: dict) -> dict:
    return {key: value for key, value in results.items() if key.endswith("_mnist_classifier")}


def test_images_from_elsewhere_are_scored(command, sets, tmp_path):
    real, fake = sets
    outcome = command("evaluate", f"real={real}", f"fake={fake}", CLASSIFIER)
    assert (outcome.code, outcome.err) == (0, "")
    results = json.loads((tmp_path / "fake.evaluation.json").read_text())
    assert (results["real"], results["fake"]) == (str(real), str(fake))
    assert "fake.evaluation.json" in outcome.out.replace("\n", "")

    network = find_extractor("mnist_classifier")
    in_memory = [
        [Batch(torch.from_numpy(images)[:, None], None, 0)] for images in (digits(0, 150), digits(1, 140) // 2)
    ]
    reference = compute_reference(in_memory[0], network, split="real")
    expected, _ = evaluate_samples(in_memory[1], network, reference, ("fid", "kid", "is"))
    assert {key: results[key] for key in expected} == pytest.approx(expected, rel=1e-5)

    protocol = results["protocol"]["mnist_classifier"]
    assert (protocol["n_real"], protocol["n_fake"], protocol["biased"]) == (150, 140, False)
    assert protocol["extractor_hash"] == network.hash
    assert protocol["quantisation"] == "none: the files have 8 bits"
    assert "sample_seed" not in protocol
    for key, path, n in (("real", real, 150), ("fake", fake, 140)):
        facts = protocol[key]
        assert (facts["path"], facts["n"], facts["size"], facts["channels"]) == (str(path), n, "28x28", 1)
        assert len(facts["fingerprint"]) == 32
    assert protocol["reference"]["fingerprint"] == protocol["real"]["fingerprint"]


def test_a_zip_or_an_array_on_either_side_and_any_batch_size_give_the_same_numbers(sets, tmp_path):
    real, fake = sets
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", real)
    np.savez_compressed(tmp_path / "fake.npz", digits(1, 140)[..., None] // 2)
    one = score(f"real={real}", f"fake={fake}", "cache=false")
    for size in (7, 1000):
        other = score(f"real={packed}", f"fake={tmp_path / 'fake.npz'}", "cache=false", f"batch_size={size}")
        assert metrics_of(other) == pytest.approx(metrics_of(one), rel=1e-5)
    assert not (tmp_path / "cache").exists()


def test_statistics_of_real_images_are_computed_once(sets, tmp_path, monkeypatch):
    real, fake = sets
    one = score(f"real={real}", f"fake={fake}")
    with monkeypatch.context() as patch:
        patch.setattr("lit_aigc.metrics.reference.compute_reference", None)
        assert score(f"real={real}", f"fake={fake}") == one
    Image.fromarray(digits(5, 1)[0]).save(real / "0000.png")
    changed = score(f"real={real}", f"fake={fake}")
    assert changed["fid_mnist_classifier"] != one["fid_mnist_classifier"]
    kept = [file.name for file in (tmp_path / "cache" / "lit_aigc").iterdir()]
    assert sum("_floor_" in name for name in kept) == 2 and len(kept) == 4


def test_a_folder_against_itself(sets):
    real, _ = sets
    results = score(f"real={real}", f"fake={real}")
    assert results["fid_mnist_classifier"] == pytest.approx(0.0, abs=1e-6)
    assert results["kid_mnist_classifier"] < 0.0  # unbiased


def test_too_few_images_are_warned_of_and_flagged(tmp_path, sets):
    few = save(tmp_path / "few", digits(3, 20))
    for real, fake in ((sets[0], few), (few, sets[1])):
        with pytest.warns(SmallSampleWarning, match="biased"):
            results = score(f"real={real}", f"fake={fake}", "metrics=[fid]")
        assert results["protocol"]["mnist_classifier"]["biased"] is True


def test_real_images_for_a_bundle(bundle, sets):
    results = measure(bundle, "num_samples=130", "metrics=[fid]", f"real={sets[0]}")
    protocol = results["protocol"]["mnist_classifier"]
    assert (results["model"], results["trained_on"]) == ("GAN", "mnist5k")
    assert (results["real"], protocol["n_real"]) == (str(sets[0]), 150)
    assert (protocol["real"]["n"], protocol["sample_seed"], protocol["quantisation"]) == (150, 0, "8 bits")
    assert "fake" not in protocol


def test_images_from_elsewhere_against_a_data_set(sets):
    results = score(f"fake={sets[1]}", "data=mnist5k", "reference=val")
    assert results["protocol"]["mnist_classifier"]["reference"]["split"] == "mnist5k/val"
    assert set(score(f"fake={sets[1]}", "metrics=[is]")) == {"fake", "is_mnist_classifier", "protocol"}


def test_the_extractor_follows_the_data(sets, bundle):
    ask = [f"fake={sets[1]}", "data=mnist5k", "metrics=[is]"]
    assert "is_mnist_classifier" in evaluate(load("evaluate", ask))
    assert "is_mnist_classifier" in evaluate(load("evaluate", [f"bundle={bundle}", "num_samples=64", "metrics=[is]"]))
    with pytest.raises(InputError, match="a classifier of fashion_mnist, so its numbers say nothing about mnist5k"):
        evaluate(load("evaluate", [*ask, "extractor=fashion_mnist_classifier"]))


COLOURS = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "bundle= is missing, and so is fake="),
        (["real={real}"], "bundle= is missing, and so is fake="),
        (["fake={fake}"], "add data=NAME, or real=PATH"),
        (["fake={fake}", "bundle=there", "real={real}"], "bundle= and fake= are both given"),
        (["fake={fake}", "real={real}", "data=mnist5k"], "real= and data= both say"),
        (["fake={fake}", "real={real}", "reference=train"], "real= and reference= both say"),
        (["fake={fake}", "real={real}", "nll_samples=5"], "nll_samples needs a model"),
        (["fake={fake}", "real={real}", "audit=true"], "audit needs the training images"),
        (["fake={fake}", "real={real}", "out=there.html"], "out=there.html: expected a .json"),
        (["fake={fake}", "real={real}", "metrics=[accuracy]"], "these have no classes"),
        (["fake={fake}", "real={real}", "batch_size=0"], "batch_size=0: expected 1 or more"),
        (["fake={fake}", "real={real}", "device=abacus"], "device=abacus can't be used"),
        (["fake={fake}", "real={real}", "weights_path={real}/0000.png"], "doesn't hold the weights"),
        (["fake={fake}", "real={real}", "weights_path={real}"], "there is no file"),
        (["fake={fake}", "real={empty}"], "there are no images in it"),
        (["fake={nowhere}", "real={real}"], "does not exist"),
        (["fake={colours}", "real={real}"], "color images, and the extractor mnist_classifier"),
        (["fake={fake}", "real={colours}"], "color images, and the extractor mnist_classifier"),
        (["fake={fake}", "data=mnist5k", "data.image_size=32"], "images of 32x32 (height x width), fake="),
    ],
)
def test_sets_that_are_refused(command, sets, tmp_path, arguments, expected):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "colours", COLOURS)
    paths = {name: tmp_path / name for name in ("empty", "colours", "nowhere")} | dict(
        zip(("real", "fake"), sets, strict=True)
    )
    outcome = command("evaluate", CLASSIFIER, *(argument.format_map(paths) for argument in arguments))
    assert outcome.code == 2, outcome
    assert outcome.err.count("lit_aigc.evaluate: ") == 1
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.glob("*.json"))
