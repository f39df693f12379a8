"""Predict what ``lit_aigc.train`` would do with a config on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_aigc.doctor.machine import Machine
from lit_aigc.errors import InputError
from lit_aigc.runs.folder import run_id


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What training would do.

    Attributes:
        accelerator: ``gpu``, ``cpu`` or another one that the config names.
        launcher: What starts the processes.
        per_node: Processes on each node.
        nodes: Number of nodes.
        strategy: Lightning's strategy.
        precision: ``trainer.precision``, resolved.
        run_dir: The run folder; None if there can't be one.
        lasting: Whether a later start of the same job has the same run folder.
        problem: Why there can't be a run folder.
    """

    accelerator: str
    launcher: str
    per_node: int
    nodes: int
    strategy: str
    precision: str
    run_dir: Path | None
    lasting: bool = False
    problem: str = ""

    @property
    def processes(self) -> int:
        """All processes together."""
        return self.per_node * self.nodes


def look_ahead(config: Mapping[str, Any], machine: Machine) -> Outlook:
    """Return what training would do with a composed config."""
    from lit_aigc.machine.precision import accelerator_of
    from lit_aigc.runs.launch import launch, local_devices

    trainer = config["trainer"]
    accelerator = str(trainer.get("accelerator", "auto"))
    if accelerator == "auto":
        accelerator = "gpu" if machine.gpus else accelerator_of("auto")
    per_node = local_devices({**trainer, "accelerator": accelerator}, len(machine.gpus))
    launcher, nodes = "the Trainer" if per_node > 1 else "nobody: one process", int(trainer.get("num_nodes") or 1)
    if outside := launch():
        launcher, per_node, nodes = dataclasses.astuple(outside)
    strategy = str(trainer.get("strategy", "auto"))
    if strategy == "auto":
        strategy = "DDP" if per_node * nodes > 1 else "one device"
    asked = str(trainer.get("precision", "auto"))
    precision = machine.precision_on(accelerator) if asked == "auto" else asked
    facts = (accelerator, launcher, per_node, nodes, strategy, precision)
    if config.get("resume"):
        return Outlook(*facts, Path(config["resume"]), True)
    try:
        identity, lasting = run_id(named=bool(config["run_dir"]))
    except InputError as error:
        return Outlook(*facts, None, False, str(error))
    return Outlook(*facts, Path(config["run_dir"] or Path("runs") / str(config["experiment"]) / identity), lasting)
