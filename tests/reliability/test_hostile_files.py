"""Files of strangers: refused with nothing run, nothing read that lies elsewhere, no memory taken for a claim."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
import yaml

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.train.run import train
from tests.reliability.runs import arguments

TEN_GIB = 10 << 30


class Shell:
    """Unpickles to a call of the shell."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def bundle(tiny_run, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def put(bundle: Path, name: str, content: bytes) -> None:
    """Replace a file, and its hash in the manifest, as an attacker would."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def change_config(run: Path, change) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


# -- code


@pytest.mark.parametrize("way", ["pickle", "torch"])
def test_a_pickle_in_place_of_safetensors(bundle, canary, tmp_path, way):
    hostile = {"generator.layers.0.weight": Shell(canary)}
    content = pickle.dumps(hostile)
    if way == "torch":
        torch.save(hostile, tmp_path / "x")
        content = (tmp_path / "x").read_bytes()
    put(bundle, "model.safetensors", content)
    with pytest.raises(InputError, match="can't be read"):
        load_bundle(bundle)
    assert not canary.exists()


@pytest.mark.parametrize("key", ["hyper_parameters", "datamodule_hyper_parameters"])
def test_an_instantiator_in_a_checkpoint_is_never_called(command, run, canary, key):
    for name in ("last.ckpt", "previous.ckpt"):
        saved = torch.load(run / "checkpoints" / name, weights_only=True)
        saved[key] = {"_instantiator": "os.system", "command": f"touch {canary}", "_class_path": "os.system"}
        torch.save(saved, run / "checkpoints" / name)
    outcome = command("train", f"resume={run}", "budget.batches=6")
    assert outcome.code == 0, outcome.err  # plain data, and of no meaning here
    assert not canary.exists()


@pytest.mark.parametrize("place", ["callbacks", "logger", "model", "data", "trainer", "list"])
def test_a_run_folder_of_a_stranger_names_nothing_to_run(command, run, canary, place):
    node = {"_target_": "os.system", "command": f"touch {canary}"}

    def change(config):
        if place in ("callbacks", "logger"):
            config[place] = {"x": node}
        elif place == "list":
            config["data"]["augment"] = [[node]]
        else:
            config[place] = node

    change_config(run, change)
    outcome = command("train", f"resume={run}", "budget.batches=6")
    assert outcome.code == 2 and "os.system is refused" in outcome.err and "trust=" in outcome.err
    assert not canary.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.utils.collect_env.run", "torch.hub.load", "subprocess.Popen", "lit_aigc.files.write_atomically",
        "lit_aigc.train.run.train", "lightning.pytorch.cli.subprocess", "lit_aigc.runs.processes.subprocess.Popen",
    ],
)  # fmt: skip
def test_functions_and_what_others_import_are_refused_in_a_run_folder(command, run, target):
    change_config(run, lambda config: config.update(callbacks={"x": {"_target_": target}}))
    outcome = command("train", f"resume={run}", "budget.batches=6")
    assert outcome.code == 2 and target in outcome.err and "Traceback" not in outcome.err


def test_what_the_command_line_trusts_may_be_named_in_a_run_folder(command, tmp_path, tiny):
    fault = f"callbacks.fault={{_target_: tests.reliability.runs.Fault, kind: sigterm, once: '{tmp_path}/once'}}"
    assert command("train", *tiny, fault, f"run_dir={tmp_path}/run").code == 75
    assert command("train", f"resume={tmp_path}/run").code == 2
    assert command("train", f"resume={tmp_path}/run", "trust=[tests]").code == 0


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch {}']", "!!python/name:os.system {}"])
def test_yaml_tags_in_a_run_folder_are_refused(command, run, canary, tag):
    (run / "config.yaml").write_text(f"model: {tag.format(canary)}\n")
    outcome = command("train", f"resume={run}")
    assert outcome.code == 2 and "config.yaml can't be read" in outcome.err
    assert not canary.exists()


# -- what lies elsewhere


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "spec.json", "README.md"])
@pytest.mark.parametrize("to", ["secret", "/dev/zero", "pipe"])
def test_links_out_of_a_bundle_are_not_followed(bundle, tmp_path, name, to):
    """Not even for a hash: that of /dev/zero has no end, and a pipe waits for ever."""
    (tmp_path / "secret").write_text("sesame: open")
    os.mkfifo(tmp_path / "pipe")
    (bundle / name).unlink()
    (bundle / name).symlink_to(tmp_path / to if to != "/dev/zero" else to)
    with pytest.raises(InputError, match=f"{name} is a link to elsewhere") as error:
        load_bundle(bundle)
    assert "sesame" not in str(error.value)


def test_a_bundle_may_itself_be_reached_by_a_link(bundle, tmp_path):
    (tmp_path / "link").symlink_to(bundle)
    assert load_bundle(tmp_path / "link").spec.name == "mnist5k"


def test_names_in_a_zip_that_lead_out_of_it_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = [a for a in arguments("gan", tmp_path) if not a.startswith("data.root")]
    image = (tmp_path / "images/class0/0.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted((tmp_path / "images").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "images"))
        for name in ("../../evil.png", "/tmp/evil.png", "class0/../../evil.png", "..\\evil.png"):
            archive.writestr(name, image)
    before = set(tmp_path.rglob("*"))
    run = train(load("train", [*data, "data.root=images.zip", f"run_dir={tmp_path}/run", "budget.batches=2"]))
    assert run.datamodule.report["files"] == 50
    assert not [path for path in set(tmp_path.rglob("*")) - before if path.suffix == ".png"]


# -- claims


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with a few bytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_a_png_that_claims_10_gb_is_left_out(tmp_path, monkeypatch):
    data = arguments("gan", tmp_path)
    (tmp_path / "images/class0/huge.png").write_bytes(png(100_000, 100_000))
    tracemalloc.start()
    run = train(load("train", [*data, f"run_dir={tmp_path}/run", "budget.batches=2"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (run.datamodule.report["unreadable"], run.datamodule.report["kept"]) == (1, 50)
    assert peak < 1 << 28


def claims(header: dict, length: int | None = None) -> bytes:
    """A safetensors file with this header, and next to no data."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * 64


@pytest.mark.parametrize(
    "content",
    [
        claims({}, TEN_GIB),
        claims({"x": {"dtype": "F32", "shape": [TEN_GIB // 4], "data_offsets": [0, TEN_GIB]}}),
        claims({"x": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 64]}}),
        claims({"x": {"dtype": "F32", "shape": [16], "data_offsets": [TEN_GIB, TEN_GIB + 64]}}),
    ],
)
def test_a_safetensors_header_that_claims_10_gb(bundle, content):
    put(bundle, "model.safetensors", content)
    with pytest.raises(InputError, match="can't be read"):
        load_bundle(bundle)


def test_a_config_that_asks_for_more_weights_than_there_are(bundle):
    config = yaml.safe_load((bundle / "config.yaml").read_text())
    config["generator"]["hidden"] = [100_000, 100_000]  # 40 GB
    put(bundle, "config.yaml", yaml.safe_dump(config).encode())
    with pytest.raises(InputError, match="are not those of its config"):
        load_bundle(bundle)


def test_a_checkpoint_whose_tensor_claims_10_gb(command, run):
    for name in ("last.ckpt", "previous.ckpt"):
        saved = torch.load(run / "checkpoints" / name, weights_only=True)
        first = next(iter(saved["state_dict"]))
        saved["state_dict"][first] = torch.zeros(1).expand(TEN_GIB // 4)  # of four bytes
        torch.save(saved, run / "checkpoints" / name)
    outcome = command("train", f"resume={run}", "budget.batches=6")
    assert outcome.code == 2 and "another model" in outcome.err
