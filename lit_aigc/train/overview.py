"""What is about to be trained, on what and where: read before the first batch, when a mistake still costs nothing."""

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
    """The facts of a run by a word for each.

    Args:
        config: The resolved config.
        datamodule: The data; its ``sizes()`` give the items in each split, its ``root`` where they lie, if it has them.
        module: The model.
        trainer: Says which device and precision it really takes.
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
    """The parameters of each network of a module, by its name."""
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
