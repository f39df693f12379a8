"""Checkpoints: read without executing anything, built into modules, refused where they don't fit."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lit_aigc.build import TARGET, build, locate
from lit_aigc.errors import InputError
from lit_aigc.spec import DataSpec

CHECKPOINT_KEY = "lit_aigc"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU.

    Raises:
        InputError: If the file is missing, damaged, not a checkpoint of lit_aigc, or holds more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}.")
    try:
        with path.open("rb") as file:  # once: what was checked is what is loaded
            if changed := zipfile.ZipFile(file).testzip():  # torch does not compare the checksums that it writes
                raise zipfile.BadZipFile(f"{changed} was changed")
            file.seek(0)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        raise InputError(
            f"The checkpoint {path} is damaged or holds more than plain data, and was not loaded."
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "lit_aigc"} <= set(checkpoint):
        raise InputError(f"{path} is not a checkpoint of lit_aigc.")
    return checkpoint


def check_fits(checkpoint: Mapping[str, Any], module: torch.nn.Module, path: str | Path) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        InputError: Names the first tensors that differ.
    """
    differences = state_differences(module.state_dict(), checkpoint["state_dict"])
    if differences:
        raise InputError(f"{path} is a checkpoint of another model:\n" + "\n".join(differences))


def state_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], most: int = 5) -> list[str]:
    """Describe how two sets of weights differ in names and shapes, one line per tensor."""
    lines = [f"  {name}: missing there" for name in ours if name not in theirs]
    lines += [f"  {name}: not in this model" for name in theirs if name not in ours]
    lines += [
        f"  {name}: {tuple(theirs[name].shape)} there, {tuple(tensor.shape)} here"
        for name, tensor in ours.items()
        if name in theirs and tensor.shape != theirs[name].shape
    ]
    return lines[:most] + ([f"  and {len(lines) - most} more"] if len(lines) > most else [])


def module_of(checkpoint: Mapping[str, Any], path: str | Path, kind: type, trust: Iterable[str]) -> Any:
    """Build the module that a checkpoint is of, with new weights.

    Args:
        checkpoint: What `read_checkpoint` returned.
        path: Where it is, for messages.
        kind: The class that it must be an instance of.
        trust: Packages outside of lit_aigc whose classes may be built.

    Raises:
        InputError: If it holds no config, is of another class, or names a class that is not trusted.
    """
    config, trust = checkpoint[CHECKPOINT_KEY].get("model"), tuple(trust)
    if not isinstance(config, Mapping) or TARGET not in config:
        raise InputError(
            f"{path} holds no config, since its module was not built from one: give the arguments of its constructor, "
            "such as load_from_checkpoint(path, spec=..., ...)."
        )
    target = locate(config[TARGET], trust)
    if not issubclass(target, kind):
        raise InputError(
            f"{path} is a checkpoint of {target.__name__}, not of {kind.__name__}: use "
            f"{target.__module__}.{target.__qualname__}.load_from_checkpoint."
        )
    try:
        return build(config, DataSpec.from_dict(checkpoint[CHECKPOINT_KEY]["spec"]), trust)
    except InputError:
        raise
    except Exception as error:  # whatever its values lead a constructor to
        raise InputError(f"The model of {path} can't be built from its config: {error}") from error
