"""A trained model as plain files: weights as safetensors, configs as YAML and JSON, no pickle, no code."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from lit_aigc import __version__
from lit_aigc.build import build
from lit_aigc.errors import InputError
from lit_aigc.media.modality import of_modality
from lit_aigc.modules.base import GenerativeModule
from lit_aigc.modules.checkpoint import state_differences
from lit_aigc.spec import DataSpec
from lit_aigc.tokenization.tokenizers import TOKENIZER_FILE, load_tokenizer

_Module = TypeVar("_Module", bound=nn.Module)
FORMAT = 1
_WEIGHTS, _CONFIG, _SPEC = "model.safetensors", "config.yaml", "spec.json"
_CARD, MANIFEST = "README.md", "manifest.json"
# What files that were damaged, or made to do damage, may raise when they are read.
_DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError, SafetensorError)


class _PlainLoader(yaml.SafeLoader):
    """Loads safe YAML without aliases, with which a few lines can expand beyond all memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


@dataclasses.dataclass
class Bundle:
    """A bundle, read and built.

    Attributes:
        module: The model in evaluation mode, with the bundle's weights (the averaged ones of training) and, for text,
            its tokenizer.
        spec: The facts of the data that it was trained on.
        manifest: Format and code version, data, metrics with their protocol, hashes of the files.
    """

    module: GenerativeModule
    spec: DataSpec
    manifest: dict[str, Any]


def save_bundle(
    directory: str | Path,
    module: GenerativeModule,
    model_config: Mapping[str, Any],
    spec: DataSpec,
    summary: Mapping[str, Any],
) -> Path:
    """Write a bundle with the module's current weights; it replaces an older one only when it is complete.

    Args:
        directory: Folder of the bundle.
        module: The model.
        model_config: Its resolved config.
        spec: The facts of its data.
        summary: The run's ``summary.json``: metrics and protocol.

    Returns:
        The directory.

    Raises:
        OSError: If the disk is full or the folder can't be written to; an older bundle stays.
    """
    directory = Path(directory)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    with _replaced(directory) as building:
        (building / _WEIGHTS).write_bytes(save(weights))  # save_file reports a full disk by an error of its own
        plain = json.loads(json.dumps(dict(model_config)))  # copies, since YAML would write a shared list as an alias
        (building / _CONFIG).write_text(yaml.safe_dump(plain, sort_keys=False))
        (building / _SPEC).write_text(json.dumps(spec.to_dict(), indent=2) + "\n")
        if module.tokenizer is not None:
            module.tokenizer.save(building)
        card = _model_card(model_config, spec, summary, sum(w.numel() for w in weights.values()))
        (building / _CARD).write_text(card, encoding="utf-8")
        manifest = {
            "format": FORMAT,
            "code_version": __version__,
            "data": {"name": spec.name, "fingerprint": spec.fingerprint},
            "metrics": {key: value for key, value in summary.items() if isinstance(value, (int, float))},
            "protocol": summary.get("protocol", {}),
            "resolved_precision": summary.get("resolved_precision"),
            "files": {file.name: _sha256(file) for file in sorted(building.iterdir())},
        }
        (building / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return directory


@contextlib.contextmanager
def _replaced(directory: Path) -> Iterator[Path]:
    """Yield an empty folder, and put it in the place of `directory` if nothing fails in the block."""
    building, old = (directory.with_name(f".{directory.name}.{state}") for state in ("building", "old"))
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        yield building
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        building.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def find_bundle(path: str | Path) -> Path:
    """Return the bundle that a path names: the folder itself, or the bundle in it if it is a run folder."""
    path = Path(path)
    inner = path / "bundle"
    return inner if not (path / MANIFEST).is_file() and (inner / MANIFEST).is_file() else path


def load_bundle(directory: str | Path, trust: Iterable[str] = (), device: str = "cpu") -> Bundle:
    """Read a bundle, or that of a run folder; only classes of lit_aigc and of the packages in `trust` are built.

    Raises:
        InputError: If it isn't a bundle, if a file was changed, if its config names something that isn't trusted, or
            if the device is missing.
    """
    directory = find_bundle(directory)
    if not (directory / MANIFEST).is_file():
        raise InputError(
            f"{directory} is not a bundle: expected a folder with a {MANIFEST}, such as <run folder>/bundle, or a run "
            "folder that has one, which training writes at its end."
        )
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        _check_manifest(manifest, directory)
        config = yaml.load((directory / _CONFIG).read_text(), Loader=_PlainLoader)
        spec = DataSpec.from_dict(json.loads((directory / _SPEC).read_text()))
        weights = load_file(directory / _WEIGHTS)
    except _DAMAGED as error:
        raise InputError(f"The bundle {directory} can't be read: {error}") from error
    tokenizer = load_tokenizer(directory) if TOKENIZER_FILE in manifest["files"] else None
    if tokenizer and tokenizer.vocab_size != spec.vocab_size:
        raise InputError(
            f"The tokenizer in {directory} is not that of the model: it has {tokenizer.vocab_size:,} ids, "
            f"and the model was trained on {spec.vocab_size:,}. Get the bundle again from its source."
        )
    _check_weights(_shapes(config, spec, tuple(trust)) or weights, weights, directory)
    module = _build(config, spec, tuple(trust), directory)
    _check_weights(module.state_dict(), weights, directory)
    module.load_state_dict(weights)
    module.tokenizer = tokenizer
    return Bundle(to_device(module.eval(), device), spec, manifest)


def to_device(module: _Module, device: str) -> _Module:
    """Return the module on a device; raise `InputError` if the device is missing."""
    try:
        return module.to(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"device={device} can't be used on this machine ({error}): device=cpu always can.") from error


def _shapes(config: Any, spec: DataSpec, trust: tuple[str, ...]) -> Mapping[str, Any] | None:
    """Return the weights that a config asks for, without memory for them; None where that doesn't work."""
    try:
        with torch.device("meta"):
            return build(config, spec, trust=trust).state_dict()
    except Exception:  # `_build` says what is wrong; a user's network may compute when it is built
        return None


def _check_weights(expected: Mapping[str, Any], weights: Mapping[str, Any], directory: Path) -> None:
    if differences := state_differences(expected, weights):
        raise InputError(f"The weights in {directory} are not those of its config:\n" + "\n".join(differences))


def _build(config: Any, spec: DataSpec, trust: tuple[str, ...], directory: Path) -> GenerativeModule:
    try:
        module = build(config, spec, trust=trust)
    except InputError:
        raise
    except Exception as error:  # any that a constructor may raise on its values
        raise InputError(f"The bundle {directory} can't be built from its config: {error}") from error
    if not isinstance(module, GenerativeModule):
        raise InputError(f"The config in the bundle {directory} is not that of a model of lit_aigc.")
    return module


def _check_manifest(manifest: Mapping[str, Any], directory: Path) -> None:
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"The bundle {directory} has format {manifest.get('format')}; lit_aigc {__version__} reads format {FORMAT}."
        )
    files, _, _ = manifest["files"], manifest["data"]["name"], dict(manifest["protocol"])
    missing = {_WEIGHTS, _CONFIG, _SPEC} - set(files)
    outside = [name for name in files if not _lies_in(directory / Path(name).name, directory)]
    if outside:
        raise InputError(
            f"The bundle {directory} is refused: {', '.join(outside)} is a link to elsewhere or not a plain file."
        )
    changed = [name for name, digest in files.items() if _sha256(directory / Path(name).name) != digest]
    if missing or changed:
        raise InputError(
            f"The bundle {directory} was changed after it was written: {', '.join([*sorted(missing), *changed])} "
            "doesn't match the manifest. Get the bundle again from its source."
        )


def _lies_in(file: Path, directory: Path) -> bool:
    """Return whether a file is missing or a plain file of this folder: a link could lead to a secret, or be endless."""
    return not os.path.lexists(file) or (file.is_file() and file.resolve().parent == directory.resolve())


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _model_card(model_config: Mapping[str, Any], spec: DataSpec, summary: Mapping[str, Any], parameters: int) -> str:
    media = of_modality("media", spec.modality)
    numbers = "\n".join(f"| {key} | {value:.6g} |" for key, value in summary.items() if isinstance(value, float))
    protocol = json.dumps(summary.get("protocol", {}), indent=2)
    classes = f", {spec.num_classes} classes" if spec.num_classes else ""
    attribution = ""
    if spec.attribution:
        attribution = f"\n\nTraining data: {spec.attribution}. Give this attribution where you show samples."
    return f"""# {summary.get("experiment", "model")}

{model_config["_target_"]} with {parameters:,} parameters, trained on `{spec.name}` ({media.describe(spec)}{classes})
for {summary.get("samples_seen", 0):,} samples with seed {summary.get("seed")}.

    python -m lit_aigc.generate {media.EXAMPLE}

| figure | value |
|---|---|
{numbers}

How the figures were measured:

```json
{protocol}
```

Made by lit_aigc {__version__}. Samples resemble the training data, and can repeat its biases and its
contents.{attribution}
"""
