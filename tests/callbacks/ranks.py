"""Processes of a run as the clock sees them: batches and their seconds, without any training."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from lit_aigc.callbacks.clock import Clock


class FakeTime(threading.local):
    """In place of the module `time`: each thread has a clock of its own."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def drive(
    clock: Clock,
    rank: int,
    world_size: int,
    reduce: Callable[[torch.Tensor], torch.Tensor],
    broadcast: Callable[[Any], Any],
    time: FakeTime,
    seconds: Callable[[int], float],
    after_batch: Callable[[int], Any] = lambda batch: None,
    most: int = 10_000,
) -> list[tuple]:
    """Take batches until the clock stops.

    Args:
        clock: It.
        rank: Of this process.
        world_size: Number of processes.
        reduce: The elementwise maximum over all processes.
        broadcast: What the first process has.
        time: What the clock reads.
        seconds: What a batch takes, by its number from 1 on.
        after_batch: Called after a batch, before the clock decides.
        most: Batches, in case the clock doesn't stop.

    Returns:
        Of each batch its number, the progress, and whether a checkpoint and a validation follow.
    """
    strategy = SimpleNamespace(
        reduce=lambda votes, reduce_op: reduce(votes), broadcast=broadcast, root_device=torch.device("cpu")
    )
    trainer = SimpleNamespace(
        world_size=world_size, is_global_zero=rank == 0, strategy=strategy, should_stop=False, limit_val_batches=1.0
    )
    module = SimpleNamespace(
        batches=0,
        samples_seen=0,
        train_seconds=0.0,
        progress=0.0,
        validations=0,
        log_values=lambda *_, **__: None,
        log_unfinished_window=lambda: None,
    )
    clock.on_train_start(trainer, module)
    seen = []
    try:
        while not trainer.should_stop and module.batches < most:
            module.batches += 1
            module.samples_seen += 8
            time.now += seconds(module.batches)
            after_batch(module.batches)
            clock.on_train_batch_end(trainer, module)
            validates = trainer.val_check_batch == 1
            seen.append((module.batches, module.progress, clock.checkpoint_due, validates))
            if validates:
                clock.on_validation_start(trainer, module)
                clock.on_validation_end(trainer, module)
            if clock.checkpoint_due or validates:
                with clock.writing_checkpoint():
                    pass
    finally:
        clock.signals.uninstall()
    return seen
