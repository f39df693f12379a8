"""What the tests of launchers train, how they start it, and how they compare the ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.equality import assert_equal

ROOT = Path(__file__).parents[2]
# And a checkpoint after every batch, for which the processes agree at every batch: the signal counts at once.
GATE = ("callbacks.gate={_target_: gate.Gate}", "checkpoint_seconds=0")
_FAMILY = {
    "gan": [
        "model=dcgan",
        "model.generator.channels=4",
        "model.generator.latent_dim=8",
        "model.discriminator.channels=4",
    ],
    "vae": [
        "experiment=vae_mnist5k",
        "model.network.encoder.hidden=[8]",
        "model.network.encoder.latent_dim=4",
        "monitor=null",
    ],
    "text": [
        "experiment=null",
        "data=pydocs",
        "data.cleaning=null",
        "data.context=16",
        "model=gpt",
        "model.network.width=16",
        "model.network.layers=1",
        "model.network.heads=2",
        "model.network.ngrams=[2]",
        "model.network.ngram_buckets=64",
        "callbacks=null",
        "validations=0",
    ],
}


def arguments(tiny: list[str], family: str, *more: str) -> list[str]:
    """A training of eight batches of a family; it doesn't say on how many processes."""
    kept = [a for a in tiny if not a.startswith(("model", "trainer.devices", "budget.batches"))]
    if family == "text":
        kept = [a for a in kept if not a.startswith(("data=", "callbacks"))]
    return [*kept, *_FAMILY[family], "budget.batches=8", *more]


def environment() -> dict[str, str]:
    """Of processes that tests start: the project and the gate can be imported."""
    path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHON": sys.executable}


def train(folder: Path, *arguments: str) -> None:
    """Train by a plain command line."""
    command = [sys.executable, "-m", "lit_aigc.train", *arguments]
    subprocess.run(command, env=environment(), cwd=folder, check=True, timeout=600)


def torchrun(*arguments: str) -> list[str]:
    """The command line of torchrun."""
    return [sys.executable, "-m", "torch.distributed.run", *arguments]


def checkpoint(run_dir: Path) -> dict:
    """The last checkpoint of a run."""
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def summary(run_dir: Path) -> dict:
    """``summary.json`` of a run."""
    return json.loads((run_dir / "summary.json").read_text())


def assert_same_end(one: Path, other: Path) -> None:
    """Two runs have the same weights, optimizer states, averages and counters, bit for bit."""
    first, second = checkpoint(one), checkpoint(other)
    for key in ("state_dict", "optimizer_states", "lit_aigc"):
        assert_equal(first[key], second[key], key)
