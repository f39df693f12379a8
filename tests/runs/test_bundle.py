"""Bundles: the same samples in another process, and nothing run that a stranger's file asks for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lit_aigc import __version__
from lit_aigc.build import build, resolve
from lit_aigc.config.compose import compose, load
from lit_aigc.errors import InputError
from lit_aigc.networks import mlp
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle, save_bundle
from lit_aigc.spec import DataSpec
from lit_aigc.train.run import _start_from, train
from tests.processes import end, start

SPEC = DataSpec("image", (1, 28, 28), num_classes=10, class_names=tuple("0123456789"), name="digits", fingerprint="f0")


def config_of(tiny) -> dict:
    return resolve(compose("train", tiny)["model"], SPEC)


@pytest.fixture
def bundle(tiny, tmp_path):
    """A bundle that may be changed, and the module that it is of."""
    config = config_of(tiny)
    module = build(config, SPEC)
    summary = {"experiment": "mine", "seed": 3, "samples_seen": 12, "fid_x": 1.5, "status": "done"}
    directory = save_bundle(tmp_path / "bundle", module, config, SPEC, summary | {"protocol": {"x": {"n_fake": 5}}})
    return directory, module


def seal(directory: Path) -> None:
    """Write the hashes of the files as they are now into the manifest, as an attacker would."""
    manifest = json.loads((directory / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))


def change_config(directory: Path, change) -> None:
    config = yaml.safe_load((directory / "config.yaml").read_text())
    change(config)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    seal(directory)


def refusal(directory: Path, **options) -> str:
    with pytest.raises(InputError) as error:
        load_bundle(directory, **options)
    return str(error.value)


# -- round trip


def test_a_bundle_gives_the_same_samples_to_the_bit(bundle):
    directory, module = bundle
    loaded = load_bundle(directory)
    assert loaded.spec == SPEC
    assert not loaded.module.training
    assert torch.equal(loaded.module.sample(5, noise=Noise(1)), module.sample(5, noise=Noise(1)))
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], tensor)


def save_samples(directory, path):
    torch.set_num_threads(1)
    save_file({"x": load_bundle(directory).module.sample(70, noise=Noise(9, 5))}, path)


def test_a_bundle_gives_the_same_samples_in_a_fresh_process(bundle, tmp_path):
    directory, module = bundle
    assert end(start(save_samples, directory, tmp_path / "x")) == [0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(load_file(tmp_path / "x")["x"], module.sample(70, noise=Noise(9, 5)))
    finally:
        torch.set_num_threads(threads)


def test_a_bundle_holds_the_averaged_weights(tiny, tmp_path):
    run = train(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", "model.generator_optimizer.lr=0.1"]))
    weights = load_file(tmp_path / "run" / "bundle" / "model.safetensors")
    live = run.module.state_dict()
    with run.module.averaged():
        averaged = {name: tensor.clone() for name, tensor in run.module.state_dict().items()}
    assert all(torch.equal(weights[name], averaged[name]) for name in weights)
    assert not torch.equal(weights["generator.layers.0.weight"], live["generator.layers.0.weight"])


def test_what_is_in_a_bundle(bundle):
    directory, _ = bundle
    assert {file.name for file in directory.iterdir()} == {
        "model.safetensors", "config.yaml", "spec.json", "manifest.json", "README.md",
    }  # fmt: skip
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["code_version"] == __version__
    assert manifest["data"] == {"name": "digits", "fingerprint": "f0"}
    assert manifest["metrics"]["fid_x"] == 1.5
    assert manifest["protocol"] == {"x": {"n_fake": 5}}
    assert set(manifest["files"]) == {"model.safetensors", "config.yaml", "spec.json", "README.md"}
    card = (directory / "README.md").read_text()
    assert "| fid_x | 1.5 |" in card and "`digits`" in card and '"n_fake": 5' in card
    assert str(directory) not in card + json.dumps(manifest)


def test_the_card_names_whom_the_data_are_of_and_older_bundles_load(tiny, tmp_path):
    spec = dataclasses.replace(SPEC, attribution="Somebody \u2013 CC BY 4.0")
    config = config_of(tiny)
    directory = save_bundle(tmp_path / "bundle", build(config, spec), config, spec, {"samples_seen": 1})
    assert "Training data: Somebody \u2013 CC BY 4.0." in (directory / "README.md").read_text(encoding="utf-8")
    assert load_bundle(directory).spec.attribution == "Somebody \u2013 CC BY 4.0"
    facts = json.loads((directory / "spec.json").read_text())
    del facts["attribution"]  # as written before there was such a fact
    (directory / "spec.json").write_text(json.dumps(facts))
    seal(directory)
    assert load_bundle(directory).spec == SPEC


def test_a_run_writes_a_bundle_that_loads_where_it_is_copied(tiny_run, tmp_path):
    shutil.copytree(tiny_run / "bundle", tmp_path / "elsewhere" / "model of mine")
    loaded = load_bundle(tmp_path / "elsewhere" / "model of mine")
    assert loaded.spec.name == "mnist5k"
    assert loaded.module.sample(2, noise=Noise(0)).shape == (2, 1, 28, 28)


def test_a_new_bundle_takes_the_place_of_the_old(bundle, tiny):
    directory, _ = bundle
    (directory / "stale").write_text("old")
    module = build(config_of(tiny), SPEC)
    save_bundle(directory, module, config_of(tiny), SPEC, {})
    assert not (directory / "stale").exists()
    assert torch.equal(
        load_bundle(directory).module.state_dict()["generator.layers.0.weight"], module.generator.layers[0].weight
    )
    assert [path.name for path in directory.parent.iterdir()] == ["bundle"]


def test_a_bundle_that_cannot_be_written_leaves_the_old_one(bundle, tiny, monkeypatch):
    directory, module = bundle
    before = {file.name: file.read_bytes() for file in directory.iterdir()}

    def fail(*args):
        raise OSError(28, "No space left on device")

    for name in ("save", "_model_card", "_sha256"):
        with monkeypatch.context() as patch:
            patch.setattr(f"lit_aigc.runs.bundle.{name}", fail)
            with pytest.raises(OSError, match="No space"):
                save_bundle(directory, module, config_of(tiny), SPEC, {})
        assert {file.name: file.read_bytes() for file in directory.iterdir()} == before
        assert [path.name for path in directory.parent.iterdir()] == ["bundle"]


def test_training_starts_from_a_bundle(tiny, tiny_run, tmp_path):
    arguments = [*tiny, f"init_from={tiny_run / 'bundle'}", f"run_dir={tmp_path / 'run'}"]
    still = ["model.generator_optimizer.lr=0.0", "model.discriminator_optimizer.lr=0.0"]
    run = train(load("train", [*arguments, *still]))
    weights = load_file(tiny_run / "bundle" / "model.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in run.module.state_dict().items())
    with pytest.raises(InputError, match=r"(?s)holds another model.*loading a part of them isn't supported yet"):
        train(load("train", [*arguments[:-1], f"run_dir={tmp_path / 'b'}", "model.generator.latent_dim=9"]))
    assert not (tmp_path / "b").exists()
    four = dataclasses.replace(SPEC, num_classes=4, class_names=tuple("abcd"))
    other = build(resolve(compose("train", tiny)["model"], four), four)
    with pytest.raises(
        InputError, match=r"(?s)\n  generator.*data have 10 classes, these have 4\..* with as many classes"
    ):
        _start_from(other, str(tiny_run), [])  # the run folder stands for its bundle


# -- damage


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "spec.json", "README.md"])
def test_a_changed_or_missing_file_is_refused(bundle, name):
    directory, _ = bundle
    content = bytearray((directory / name).read_bytes())
    content[-2] ^= 1
    (directory / name).write_bytes(content)
    assert f"changed after it was written: {name}" in refusal(directory)
    (directory / name).unlink()
    assert name in refusal(directory)


@pytest.mark.parametrize(
    "manifest",
    [
        "", "{", "[]", "3", "null", '"text"', "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "files": []}',
        '{"format": 1, "files": {}}', '{"format": 1, "files": {"config.yaml": 3}, "data": {}, "protocol": {}}',
        '{"format": 1, "files": {"config.yaml": "x"}, "data": 3, "protocol": 4}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(bundle, manifest):
    directory, _ = bundle
    (directory / "manifest.json").write_text(manifest)
    assert str(directory) in refusal(directory)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spec.json", "{"),
        ("spec.json", "[]"),
        ("spec.json", '{"modality": "image"}'),
        ("spec.json", '{"modality": "image", "shape": [1, 28, 28], "unknown": 1}'),
        ("config.yaml", ""),
        ("config.yaml", "a: 1"),
        ("config.yaml", "[1, 2"),
        ("config.yaml", "- 1"),
        ("config.yaml", "{_target_: lit_aigc.networks.mlp.Generator, shape: [1, 28, 28]}"),
        ("config.yaml", "{_target_: lit_aigc.modules.gan.GAN}"),
        ("config.yaml", "{_target_: lit_aigc.modules.gan.GAN, generator: 1, discriminator: 2}"),
        ("config.yaml", "{_target_: lit_aigc.modules.base.Recipe}"),
        ("config.yaml", "[" * 100_000),
        ("model.safetensors", ""),
        ("model.safetensors", "x" * 100),
    ],
)
def test_damage_with_right_hashes_is_refused(bundle, name, content):
    directory, _ = bundle
    (directory / name).write_text(content)
    seal(directory)
    assert refusal(directory)


def test_weights_of_another_model_are_refused(bundle):
    directory, module = bundle
    weights = dict(module.state_dict())
    weights["generator.layers.0.weight"] = torch.zeros(3, 3)
    weights["more"] = torch.zeros(1)
    save_file(weights, directory / "model.safetensors")
    seal(directory)
    message = refusal(directory)
    assert "generator.layers.0.weight: (3, 3) there, (8, 8) here" in message
    assert "more: not in this model" in message


def test_what_is_no_bundle(tmp_path):
    assert "is not a bundle" in refusal(tmp_path)
    assert "is not a bundle" in refusal(tmp_path / "nowhere")


# -- hostile bundles

OWN = types.ModuleType("lit_aigc.networksevil")


class Evil(mlp.Generator):
    """A class in a package whose name begins like a trusted one."""

    built = 0

    def __init__(self, shape, num_classes: int = 0, latent_dim: int = 64, hidden: list | None = None):
        super().__init__(shape, num_classes, latent_dim, hidden)
        Evil.built += 1


@pytest.fixture
def lookalike(monkeypatch):
    monkeypatch.setattr(Evil, "__module__", OWN.__name__)
    monkeypatch.setattr(Evil, "built", 0)
    OWN.Evil = Evil
    monkeypatch.setitem(sys.modules, OWN.__name__, OWN)


def hostile_targets(canary: Path) -> list[dict]:
    shell = f"touch {canary}"
    return [
        {"_target_": "os.system", "command": shell},
        {"_target_": "subprocess.Popen", "args": ["touch", str(canary)]},
        {"_target_": "builtins.exec", "source": f"open({str(canary)!r}, 'w')"},
        {"_target_": "torch.utils.collect_env.run", "command": shell},
        {"_target_": "torch.utils.collect_env.run_and_read_all", "run_lambda": None, "command": shell},
        {"_target_": "torch.save", "obj": 1, "f": str(canary)},
        {"_target_": "lit_aigc.networks.dcgan.spectral_norm", "module": None},
        {"_target_": "lit_aigc.modules.base.contextlib.redirect_stdout", "new_target": None},
        {"_target_": "lit_aigc.files.write_atomically", "path": str(canary), "data": "x"},
        {"_target_": "lit_aigc.files.write_yaml", "config": {}, "path": str(canary)},
        {"_target_": "lit_aigc.loggers.csv.CsvLogger", "run_dir": str(canary)},
        {"_target_": "pathlib.Path.touch", "self": str(canary)},
    ]


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("place", ["top", "generator", "deep"])
def test_a_hostile_target_is_refused_with_nothing_run(bundle, tmp_path, index, place):
    directory, _ = bundle
    canary = tmp_path / "canary"
    node = hostile_targets(canary)[index]

    def change(config):
        if place == "top":
            config.clear()
            config.update(node)
        elif place == "generator":
            config["generator"] = node
        else:
            config["generator_optimizer"]["betas"] = [{"x": [node]}, 0.9]

    change_config(directory, change)
    assert re.search("is refused|can't be imported", refusal(directory))
    assert not canary.exists()


@pytest.mark.parametrize("name", ["spectral_norm", "_initialize", "nn", "torch"])
def test_what_lies_in_a_trusted_module_and_is_no_class_of_it_is_refused(bundle, name):
    directory, _ = bundle
    change_config(directory, lambda config: config["generator"].update(_target_=f"lit_aigc.networks.dcgan.{name}"))
    assert "it is not a class defined in" in refusal(directory)


def test_a_class_imported_into_a_trusted_module_is_refused(bundle, monkeypatch):
    import zipfile

    import lit_aigc.modules.gan

    monkeypatch.setattr(lit_aigc.modules.gan, "ZipFile", zipfile.ZipFile, raising=False)
    directory, _ = bundle
    change_config(directory, lambda config: config["generator"].update(_target_="lit_aigc.modules.gan.ZipFile"))
    assert "it is not a class defined in" in refusal(directory)


def test_a_name_that_begins_like_a_trusted_one_is_refused(bundle, lookalike):
    directory, _ = bundle
    change_config(directory, lambda config: config["generator"].update(_target_="lit_aigc.networksevil.Evil"))
    assert "lit_aigc.networksevil.Evil is refused" in refusal(directory)
    assert "refused" in refusal(directory, trust=["lit_aigc.network", "lit_aigc.networksev", "lit_aigc.networksevil.E"])
    assert Evil.built == 0
    loaded = load_bundle(directory, trust=["lit_aigc.networksevil"])
    assert type(loaded.module.generator) is Evil


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {canary}']",
        "generator: !!python/object/new:os.system ['touch {canary}']",
        "!!python/name:os.system",
        "!!python/module:subprocess",
        "!!python/object:lit_aigc.modules.gan.GAN {{}}",
    ],
)
def test_yaml_tags_are_refused(bundle, tmp_path, text):
    directory, _ = bundle
    canary = tmp_path / "canary"
    (directory / "config.yaml").write_text(text.format(canary=canary))
    seal(directory)
    assert "can't be read" in refusal(directory)
    assert not canary.exists()


def test_yaml_that_unfolds_to_more_than_memory_is_refused(bundle):
    directory, _ = bundle
    assert "&" not in (directory / "config.yaml").read_text()  # what we write needs no aliases
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12)]
    (directory / "config.yaml").write_text("\n".join(levels))
    seal(directory)
    assert "aliases are not allowed" in refusal(directory)


def test_no_interpolation_is_resolved(bundle, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_TEST", "sesame")
    directory, _ = bundle
    change_config(directory, lambda config: config.update(loss="${oc.env:SECRET_OF_THE_TEST}"))
    message = refusal(directory)
    assert "sesame" not in message
    assert "${oc.env:SECRET_OF_THE_TEST}" in message


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "../../secret", "sub/../../secret", ""])
def test_file_names_that_lead_out_of_the_bundle_are_refused(bundle, name):
    directory, _ = bundle
    (directory.parent / "secret").write_text("sesame")
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(b"sesame").hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert refusal(directory)


def test_a_link_out_of_the_bundle_gives_nothing_away(bundle, tmp_path):
    directory, _ = bundle
    (tmp_path / "secret").write_text("sesame: open")
    (directory / "config.yaml").unlink()
    os.symlink(tmp_path / "secret", directory / "config.yaml")
    assert "sesame" not in refusal(directory)


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there(bundle, device):
    message = refusal(bundle[0], device=device)
    assert f"device={device}" in message and "device=cpu" in message


@pytest.mark.parametrize("command_line", [["generate", "n=1", "out=here"], ["evaluate"], ["train", "init_from"]])
def test_every_command_that_reads_a_bundle_refuses_a_hostile_one(
    command, bundle, tiny, tmp_path, monkeypatch, command_line
):
    monkeypatch.chdir(tmp_path)
    directory, _ = bundle
    canary = tmp_path / "canary"
    change_config(
        directory, lambda config: config.update(generator={"_target_": "os.system", "command": f"touch {canary}"})
    )
    verb, *rest = command_line
    arguments = [*tiny, f"init_from={directory}"] if verb == "train" else [f"bundle={directory}", *rest]
    outcome = command(verb, *arguments)
    assert outcome.code == 2
    assert "os.system is refused" in outcome.err
    assert not canary.exists() and not (tmp_path / "runs").exists()
