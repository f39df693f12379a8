"""What the training loop costs: tokens per second of `gpt_pydocs` beside a bare PyTorch loop of the same work.

Same batches, network, optimizers and precision; the two take turns, and the best of each counts.

    python benchmarks/text_speed.py [turns] [batches]
"""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import tempfile
import time

import torch
from torch.nn import functional as F

from lit_aigc.build import build, instantiate, resolve
from lit_aigc.config import load
from lit_aigc.training import train

ARGUMENTS = ["experiment=gpt_pydocs", "callbacks=null", "validations=0", "checkpoint_seconds=1_000_000", "monitor=null"]


def lit(batches: int) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        limits = ["budget.samples=null", f"budget.batches={batches}"]
        summary = train(load("train", [*ARGUMENTS, *limits, f"run_dir={folder}/run"])).summary
    return summary["samples_seen"] / summary["train_seconds"]


def bare(batches: int) -> float:
    config = load("train", ARGUMENTS)
    data = instantiate(config["data"])
    torch.manual_seed(0)
    module = build(resolve(config["model"], data.spec), data.spec)
    network, optimizers = module.network, module.configure_optimizers()
    rows, start = 0, time.perf_counter()
    for batch in itertools.islice(data.train_dataloader(), batches):
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch.ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch.ids[:, 1:].flatten())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        rows += len(batch.ids)
    return rows / (time.perf_counter() - start)


def main() -> None:
    turns, batches = (int(n) for n in (sys.argv[1:] + ["3", "100"][len(sys.argv) - 1 :]))
    bare(5)  # what is compiled or cached at first use
    speeds = {"lit_aigc": [], "bare loop": []}
    for _ in range(turns):
        speeds["lit_aigc"].append(lit(batches))
        speeds["bare loop"].append(bare(batches))
    context = load("train", ARGUMENTS)["data"]["context"]
    for name, found in speeds.items():
        print(f"{name:10} {max(found) * context:10,.0f} tokens/s  ({', '.join(f'{x * context:,.0f}' for x in found)})")
    print(f"lit_aigc / bare loop: {max(speeds['lit_aigc']) / max(speeds['bare loop']):.3f}")


if __name__ == "__main__":
    main()
