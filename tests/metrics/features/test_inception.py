from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.evaluate.run import evaluate
from lit_aigc.media.images import save_images
from lit_aigc.metrics.features.extractors import extractor
from lit_aigc.metrics.generative import evaluate_samples
from lit_aigc.metrics.reference import compute_reference
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch

pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory) -> Path:
    """An Inception of random weights that keep the size of the activations, as a file."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = fidelity.FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth")
        )
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), folder / "random.pth")
    return folder / "random.pth"


def pictures(n: int, seed: int, contrast: float) -> torch.Tensor:
    coarse = Noise(seed).uniform(n, 3, 5, 5)
    smooth = nn.functional.interpolate(coarse, (40, 32), mode="bicubic").clamp(0, 1)
    return ((smooth - 0.5) * contrast * 255 + 127.5).round().to(torch.uint8)


def batches(images: torch.Tensor, size: int) -> list[Batch]:
    return [Batch(images[i : i + size], None, i) for i in range(0, len(images), size)]


@pytest.mark.slow
def test_numbers_equal_torch_fidelity_on_two_folders(random_weights, tmp_path):
    """PITFALLS 3: no antialiasing, TensorFlow's bilinear resizing, and the same numbers from images to the end."""
    import torch_fidelity

    n = 16
    real, fake = pictures(n, 0, 0.4), pictures(n, 1, 1.0)
    save_images(real, tmp_path / "real")
    save_images(fake, tmp_path / "fake")
    expected = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "fake"),
        input2=str(tmp_path / "real"),
        cuda=False,
        fid=True,
        kid=True,
        isc=True,
        isc_splits=1,
        kid_subsets=1,
        kid_subset_size=n,
        prc=True,
        feature_extractor="inception-v3-compat",  # precision and recall would take another one
        feature_layer_prc="2048",
        batch_size=8,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        feature_extractor_weights_path=str(random_weights),
    )
    arguments = [f"real={tmp_path / 'real'}", f"fake={tmp_path / 'fake'}", "batch_size=5", "cache=false"]
    arguments += ["extractor=inception", f"weights_path={random_weights}", "metrics=[fid, kid, is, precision_recall]"]
    with pytest.warns(UserWarning, match="16 samples on 2048 features"):
        values = evaluate(load("evaluate", arguments))
    protocol = values["protocol"]["inception"]
    assert values["fid_inception"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)
    # torch-fidelity computes the kernel in float32
    assert values["kid_inception"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert values["is_inception"] == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    for part in ("precision", "recall"):
        assert values[f"{part}_inception"] == pytest.approx(expected[part], abs=1e-4)
    assert protocol["biased"] is True
    assert "TensorFlow" in protocol["resize"]


@pytest.mark.slow
def test_numbers_equal_torch_fidelity_to_six_digits(random_weights, tmp_path):
    """From folders of PNG to the numbers, where these have six digits.

    torch-fidelity computes means and kernels of its features in float32, and square roots of eigenvalues that should be
    0 where images are fewer than features. So its own functions get its own features in float64, and the features are
    the 64 of the network's stem, whose covariances have full rank with 70 images.
    """
    from torch_fidelity import metric_fid, metric_kid, metric_prc, utils

    n, layer = 70, "64"
    sets = {"fake": pictures(n + 1, 1, 1.0), "real": pictures(n, 0, 0.8)}
    options = {
        "cuda": False,
        "cache": False,
        "save_cpu_ram": True,
        "verbose": False,
        "batch_size": 16,
        "kid_subsets": 1,
        "kid_subset_size": n,
        "prc_neighborhood": 3,
        "feature_extractor_weights_path": str(random_weights),
    }
    theirs = utils.create_feature_extractor("inception-v3-compat", [layer], **options)
    features = []
    for number, (name, images) in enumerate(sets.items(), 1):
        save_images(images, tmp_path / name)
        options[f"input{number}"] = str(tmp_path / name)
        features.append(utils.extract_featuresdict_from_input_id(number, theirs, **options)[layer].double())
    statistics = [metric_fid.fid_features_to_statistics(x) for x in features]
    fid = metric_fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    kid = metric_kid.kid_features_to_metric(features[0][:n], features[1], **options)["kernel_inception_distance_mean"]
    share = metric_prc.prc_features_to_metric(*features, **options)

    network = extractor("inception", random_weights)
    network.layers, network.head = network.layers[:4], nn.Parameter(torch.zeros(1, 64))
    network.num_features, network.num_classes = 64, 0
    reference = compute_reference(batches(sets["real"], 16), network, split="real")
    values, _ = evaluate_samples(batches(sets["fake"], 16), network, reference, ("fid", "precision_recall"))
    values |= evaluate_samples(batches(sets["fake"][:n], 16), network, reference, ("kid",))[0]
    assert values["fid_inception"] == pytest.approx(fid, rel=1e-6)
    assert values["kid_inception"] == pytest.approx(kid, rel=1e-6)
    assert 0 < share["precision"] < 1 > share["recall"] > 0
    for part in ("precision", "recall"):
        assert values[f"{part}_inception"] == pytest.approx(share[part], rel=1e-4)
    odd, _ = evaluate_samples(batches(sets["fake"], 7), network, reference, ("fid", "precision_recall"))
    assert odd == pytest.approx({key: values[key] for key in odd}, rel=1e-6)


def test_features_are_those_of_torch_fidelity(random_weights):
    """Folding the batch normalisations and another layout of memory change the rounding only."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    names = ["2048", "logits_unbiased"]
    theirs = fidelity.FeatureExtractorInceptionV3("i", names, feature_extractor_weights_path=str(random_weights))
    images = pictures(2, 0, 1.0)
    for found, expected in zip(extractor("inception", random_weights)(images), theirs(images), strict=True):
        assert (found - expected).norm() < 2e-6 * expected.norm()


def test_another_resizing_is_another_extractor(random_weights):
    plain = extractor("inception", random_weights)
    clean, legacy = (extractor("inception", random_weights, resize) for resize in ("clean", "legacy"))
    assert [each.name for each in (plain, clean, legacy)] == ["inception", "inception_clean", "inception_legacy"]
    assert len({str(each.protocol) for each in (plain, clean, legacy)}) == 3
    assert plain.hash == clean.hash
    images = pictures(1, 0, 1.0)
    assert not torch.allclose(plain(images)[0], clean(images)[0], rtol=1e-3)
    with pytest.raises(InputError, match="resize=cubic: expected one of tensorflow, legacy, clean"):
        extractor("inception", random_weights, "cubic")


def test_grey_images_are_repeated(random_weights):
    network = extractor("inception", random_weights)
    grey = pictures(1, 0, 1.0)[:, :1]
    features, logits = network(grey)
    assert (features.shape, logits.shape) == ((1, 2048), (1, 1008))
    assert torch.equal(features, network(grey.repeat(1, 3, 1, 1))[0])


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InputError, match="pip install 'lit_aigc\\[features\\]'"):
        extractor("inception")


def test_without_network_the_message_names_file_and_place(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InputError, match="no route") as caught:
        extractor("inception")
    assert str(tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth") in str(caught.value)
    assert "weights_path=" in str(caught.value)


def test_bad_weights_files(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        extractor("inception", tmp_path / "absent.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not the weights of torch-fidelity's Inception-v3"):
        extractor("inception", tmp_path / "other.pth")


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_hostile_weights_file_runs_nothing(tmp_path):
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    with pytest.raises(InputError, match="not the weights"):
        extractor("inception", tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()
