"""Describe a run before its first batch, when a mistake still costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lit_aigc.media.modality import of_modality
from lit_aigc.modules.base import GenerativeModule


def overview(
    config: Mapping[str, Any], datamodule: Any, module: GenerativeModule, trainer: L.Trainer, folder: Path
) -> dict[str, str]:
    """Return the facts of a run by name.

    Args:
        config: The resolved config.
        datamodule: The data; ``sizes()``, the items per split, and ``root``, its folder, are shown if it has them.
        module: The model.
        trainer: Has the device and the precision that are really used.
        folder: The run folder.
    """
    limits = [f"{value:,} {unit}" for unit, value in config["budget"].items() if value is not None]
    return {
        "experiment": f"{config['experiment']}, seed {config['seed']}",
        "data": _data(datamodule),
        **_networks(module),
        "device": _device(trainer),
        "precision": str(trainer.precision),
        "budget": f"{' or '.join(limits)}, {config['data'].get('batch_size')} in a batch",
        "run folder": str(folder),
    }


def _data(datamodule: Any) -> str:
    spec = datamodule.spec
    media = of_modality("media", spec.modality)
    parts = [spec.name or type(datamodule).__name__]
    if hasattr(datamodule, "sizes"):
        splits = ", ".join(f"{count:,} {split}" for split, count in datamodule.sizes().items())
        parts.append(f"{media.UNIT} {splits}")
    parts.append(media.describe(spec))
    if spec.num_classes:
        parts.append(f"{spec.num_classes} classes")
    if root := getattr(datamodule, "root", None):
        parts.append(f"from {root}")
    return "; ".join(parts)


def _networks(module: GenerativeModule) -> dict[str, str]:
    """Return the type and the number of parameters of each network of a module, by its name."""
    found = {}
    for name, network in module.named_children():
        if count := sum(parameter.numel() for parameter in network.parameters()):
            found[name] = f"{type(network).__name__}, {count:,} parameters"
    return found


def _device(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{device.type.upper()}, {threads} thread{'s' if threads > 1 else ''}"
    return name if trainer.world_size == 1 else f"{trainer.world_size} processes, each on {name}"
