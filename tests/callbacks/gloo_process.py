"""One of several processes that measure the toy model; run by a test."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from lit_aigc.callbacks.generative_metrics import GenerativeMetrics
from lit_aigc.metrics.generative import evaluate_samples
from lit_aigc.metrics.reference import compute_reference
from lit_aigc.metrics.table import METRICS
from tests.metrics.toy import MeanColour, Toy, ToyData


class FakeTrainer:
    """What the callback asks of a Trainer when it measures."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.global_rank, self.world_size, self.datamodule = rank, world_size, ToyData()


def real_figures(rank: int, world_size: int) -> dict[str, float]:
    """Of real images against others, and intervals, each process with its share of both."""
    data, share, extractor = ToyData(), {"rank": rank, "world_size": world_size}, MeanColour()
    reference = compute_reference(data.real_batches("train", **share), extractor, split="train", num_classes=2)
    test = data.real_batches("test", **share)
    return evaluate_samples(test, extractor, reference, list(METRICS), bootstrap=20)[0]


def main(rank: int, world_size: int, store: Path, out: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    options = {"reference": "train", "num_samples": 100, "metrics": list(METRICS)}
    callback, module = GenerativeMetrics(MeanColour(), **options), Toy(conditional=True)
    callback.setup(FakeTrainer(rank, world_size), module, "fit")
    values, protocol = callback.measure(FakeTrainer(rank, world_size), module)
    out.write_text(json.dumps([values, protocol, real_figures(rank, world_size)]))
    torch.distributed.destroy_process_group()
