"""The cost of the training loop: tokens per second, compared with a bare PyTorch loop that does the same work.

Both have the same batches, network, optimizers and precision. They alternate batch by batch in one process, so that
other load on the machine slows both; both also benefit from the memory that `train` keeps.

    python benchmarks/text_speed.py [batches] [experiment]
"""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F

from lit_aigc.build import build, instantiate, resolve
from lit_aigc.config.compose import load
from lit_aigc.machine.precision import MIXED, choose_precision, machine_class
from lit_aigc.train.run import train

ARGUMENTS = ["callbacks=null", "validations=0", "checkpoint_seconds=1_000_000", "monitor=null", "budget.minutes=null"]


def bare(config: dict[str, Any]) -> Iterator[None]:
    """The loop that anyone would write; each `next` trains one batch."""
    data = instantiate(config["data"])
    torch.manual_seed(0)
    module = build(resolve(config["model"], data.spec), data.spec)
    network, optimizers = module.network, module.configure_optimizers()
    bf16 = choose_precision(config["trainer"]["precision"], "cpu", network) == MIXED
    for batch in data.train_dataloader():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(batch.ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch.ids[:, 1:].flatten())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        yield


class Rival(Callback):
    """Run a batch of the bare loop after each of ours, and time both."""

    def __init__(self, experiment: str):
        self.bare = bare(load("train", [f"experiment={experiment}", *ARGUMENTS]))
        self.seconds: dict[str, list[float]] = {"lit_aigc": [], "bare loop": []}

    def on_train_start(self, *args: Any) -> None:
        next(self.bare)  # sets itself up
        self.start = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        ours = time.perf_counter()
        next(self.bare)
        self.seconds["lit_aigc"].append(ours - self.start)
        self.start = time.perf_counter()
        self.seconds["bare loop"].append(self.start - ours)


def main() -> None:
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    experiment = sys.argv[2] if len(sys.argv) > 2 else "gpt_pydocs"
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        limits = ["budget.samples=null", f"budget.batches={batches}", f"run_dir={folder}/run"]
        config = load("train", [f"experiment={experiment}", *ARGUMENTS, *limits])
        config["callbacks"] = {"rival": {"_target_": "__main__.Rival", "experiment": experiment}}
        run = train(config)
    seconds = next(callback for callback in run.trainer.callbacks if isinstance(callback, Rival)).seconds
    tokens = run.summary["samples_seen"] * run.datamodule.context
    print(f"{experiment} in {run.precision}; {machine_class()}")
    for name, found in seconds.items():
        print(f"{name:10} {tokens / sum(found):10,.0f} tokens/s")
    ours, theirs = (sum(found) for found in seconds.values())
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    error = statistics.stdev(ratios) / math.sqrt(len(ratios))
    print(f"lit_aigc / bare loop: {theirs / ours:.3f} (standard error {error:.3f})")


if __name__ == "__main__":
    main()
