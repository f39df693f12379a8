"""Every file in conf/: described, composed, checked; every experiment builds its model and can train it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lit_aigc.build import TARGET, build, did_you_mean, instantiate, locate, resolve
from lit_aigc.callbacks.clock import Budget, PauseAfter
from lit_aigc.config.compose import compose
from lit_aigc.config.overrides import config_folder
from lit_aigc.errors import InputError
from lit_aigc.files import write_yaml
from lit_aigc.metrics.features.extractors import SHIPPED, extractor
from lit_aigc.metrics.reference import has_shipped_reference
from lit_aigc.modules.base import Recipe
from lit_aigc.modules.classifier import ImageClassifier
from lit_aigc.noise import Noise
from lit_aigc.spec import DataSpec
from tests.modalities import image, text

CONF = config_folder()
FILES = sorted(CONF.rglob("*.yaml"))
MEMBERS = [(file.parent.relative_to(CONF).as_posix(), file.stem) for file in FILES if file.parent != CONF]
GLOBAL = ("experiment", "measure", "debug")  # groups of settings of all parts
EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))
MODELS = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))


@functools.cache
def composed_once(*arguments: str) -> dict:
    return compose("train", list(arguments))


def train_config(*arguments: str) -> dict:
    """A composed config of training; composing takes a while, so each is composed once."""
    return copy.deepcopy(composed_once(*arguments))


def relative(file: Path) -> str:
    return file.relative_to(CONF).as_posix()


def of_modality(target: str) -> ModuleType:
    """What tests know of the modality of a DataModule, by its dotted name."""
    return importlib.import_module(f"tests.modalities.{locate(target).modality}")


def made_up_spec(data: dict) -> DataSpec:
    """A spec of the kind that a data config leads to, without reading or downloading the data."""
    return of_modality(data[TARGET]).made_up_spec(data)


def targets(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node[TARGET]] if TARGET in node else []
        return own + [target for value in node.values() for target in targets(value)]
    return [target for item in node for target in targets(item)] if isinstance(node, list) else []


def test_there_is_something_to_walk_over():
    groups = {"data", "model", "model/recipe", "trainer", "callbacks", "logger", "experiment", "measure", "debug"}
    assert groups == {group for group, _ in MEMBERS}
    assert "dcgan_mnist5k" in EXPERIMENTS


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_the_first_line_says_what_it_is(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    if file.parent.name in GLOBAL:
        assert lines.pop(0) == "# @package _global_"
    assert re.match(r"# \w.{9,}", lines[0]), f"{relative(file)} begins with {lines[0]!r}"


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_every_target_is_there(file):
    for target in targets(yaml.safe_load(file.read_text(encoding="utf-8"))):
        assert callable(locate(target))


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_no_path_of_somebodys_machine(file):
    assert not re.search(
        r"(?<![\w.{}-])/(home|Users|root|mnt|work|tmp|data|scratch)/", file.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(("group", "name"), MEMBERS)
def test_every_member_composes(group, name):
    composed = train_config(f"{group}={name}")
    assert composed["experiment"] == (name if group == "experiment" else "dcgan_mnist5k")
    if group in ("data", "model", "trainer"):
        assert composed[group][TARGET]


@pytest.mark.parametrize(("group", "name"), [member for member in MEMBERS if member[0] not in (*GLOBAL, "logger")])
def test_a_misspelt_key_of_every_member_is_refused(group, name):
    node = train_config(f"{group}={name}")
    for part in group.split("/"):
        node = node[part]
    if group == "model/recipe":
        node = {TARGET: "", **node}
    key = next(key for key in node if key != TARGET)
    prefix = group.replace("/", ".") if TARGET in node else f"{group}.{key}"
    with pytest.raises(InputError, match="unknown key"):
        train_config(f"{group}={name}", f"+{prefix}.no_such_option=1")


@pytest.mark.parametrize("verb", ["evaluate", "generate"])
def test_every_verb_composes(verb):
    assert compose(verb, ["bundle=here"])["bundle"] == "here"
    with pytest.raises(InputError, match=re.escape("unknown key 'bundel', did you mean 'bundle'?")):
        compose(verb, ["bundel=here"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_its_model_for_its_data(experiment, tmp_path):
    config = train_config(f"experiment={experiment}")
    spec = made_up_spec(config["data"])
    resolved = resolve(config["model"], spec)
    write_yaml(resolved, tmp_path / "config.yaml")  # complete, and of plain types
    rebuilt = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert rebuilt == resolved
    module = build(rebuilt, spec, trust=())
    assert sum(p.numel() for p in module.parameters()) > 0
    assert module.configure_optimizers()
    Budget(**config["budget"])
    PauseAfter(**config["pause_after"])
    assert config["monitor_mode"] in ("min", "max")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_generative_experiment_samples(experiment):
    config = train_config(f"experiment={experiment}")
    spec = made_up_spec(config["data"])
    module = build(resolve(config["model"], spec), spec)
    if isinstance(module, ImageClassifier):
        with pytest.raises(InputError, match="can't generate"):
            module.sample(2, noise=Noise(0))
        return
    of_modality(config["data"][TARGET]).check_samples(module, spec)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_monitors_what_it_measures(experiment):
    config = train_config(f"experiment={experiment}")
    metrics = config["callbacks"].get("generative_metrics")
    monitor = config["monitor"]
    of_held_out_data = {"elbo": "max", "val_loss": "min", "val_accuracy": "max"}
    of_held_out_data |= dict.fromkeys(("nats_per_char", "nats_per_token", "bits_per_byte", "perplexity"), "min")
    if monitor in of_held_out_data:
        assert config["monitor_mode"] == of_held_out_data[monitor]
    elif monitor:
        kind, _, name = monitor.partition("_")
        assert kind in ("fid", "kid", "is", "accuracy")
        assert name == metrics["extractor"]
        assert config["monitor_mode"] == ("min" if kind in ("fid", "kid") else "max")
    if metrics and metrics["extractor"] in SHIPPED:  # what comes of reference: null where it can
        assert has_shipped_reference(extractor(metrics["extractor"]), made_up_spec(config["data"]))


def test_the_recipe_in_yaml_is_that_of_the_code():
    recipe = yaml.safe_load((CONF / "model" / "recipe" / "default.yaml").read_text())
    assert recipe == dataclasses.asdict(Recipe())


def test_every_callback_has_a_file_of_its_own():
    listed = yaml.safe_load((CONF / "callbacks" / "default.yaml").read_text())["defaults"]
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (CONF / "callbacks").glob("*.yaml")}
    assert {*listed, "default"} <= set(files)
    assert all(list(content) == [name] for name, content in files.items() if name != "default")


def test_groups_that_the_defaults_name_are_there():
    for file in CONF.glob("*.yaml"):
        for entry in yaml.safe_load(file.read_text()).get("defaults", []):
            for group in entry if isinstance(entry, dict) else ():
                assert (CONF / group.removeprefix("optional ")).is_dir(), f"{file.name}: {group}"


def test_measures_follow_the_data_unless_the_config_says_otherwise():
    def measured(*arguments):
        config = train_config(*arguments)
        return config["monitor"], (config["callbacks"]["generative_metrics"] or {}).get("num_samples")

    assert measured("data=mnist") == ("fid_mnist_classifier", 10_000)
    assert measured("experiment=vae_mnist5k", "data=mnist") == ("elbo", 10_000)
    assert measured("data=mnist", "callbacks.generative_metrics.num_samples=99")[1] == 99
    assert measured("data=mnist", "measure=null") == ("fid_mnist_classifier", 5000)
    assert measured("data=cifar10", "measure=inception") == ("fid_inception", 10_000)
    assert measured("data=tinyshakespeare", "model=gpt")[0] == "nats_per_char"
    assert measured("data=mnist", "callbacks.generative_metrics=null") == (None, None)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_its_callbacks(experiment, tmp_path):
    config = train_config(f"experiment={experiment}")
    for name, node in config["callbacks"].items():
        if node:
            assert instantiate(node, run_dir=str(tmp_path)), name


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "logger").glob("*.yaml")))
def test_every_logger_builds(name, tmp_path):
    for node in train_config(f"logger={name}")["logger"].values():
        assert instantiate(node, run_dir=str(tmp_path)).save_dir.startswith(str(tmp_path))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_fits_the_shapes_of_the_data(model):
    config = train_config(f"model={model}")["model"]
    of_tokens = locate(config[TARGET]).of_tokens
    specs = [spec for modality in (image, text) for spec in modality.SPECS if bool(spec.vocab_size) == of_tokens]
    for spec in specs:
        assert build(resolve(config, spec), spec).spec == spec
        if "conditional" not in config:
            continue
        plain = build(resolve({**config, "conditional": False}, spec), spec)
        assert plain.sample(1, noise=Noise(0)).shape == (1, *spec.shape)
        with pytest.raises(InputError, match="labels"):
            resolve({**config, "conditional": True}, DataSpec(spec.modality, spec.shape))


def test_the_walk_would_see_a_missing_target():
    assert targets({"a": [{TARGET: "x.Y", "b": {TARGET: "x.Z"}}]}) == ["x.Y", "x.Z"]
    with pytest.raises(InputError, match="can't be imported"):
        locate("lit_aigc.networks.dcgan.Nothing")
    assert "did you mean" in did_you_mean("Generatr", ["Generator"])
