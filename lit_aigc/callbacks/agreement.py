"""Agreement among processes: the precision of a run, and between batches the first one's clock and any signal."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.plugins import MixedPrecision, Precision

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import FULL, MIXED

_SECONDS = 0.5  # a signal waits no longer than this for the next agreement
_MOST_BATCHES = 20  # the same for a run whose batches suddenly take longer


class Agreement:
    """The first process's clock, known to all without communication at every batch.

    To agree, every process waits for all others and for its GPU. So they agree about twice a second, at a batch
    agreed on the time before. In between each derives the first one's clock from its time per batch.

    Args:
        trainer: The Trainer. A single process agrees with itself at every batch.
        seconds: The clock at the start of training.
        batches: Batches so far.
    """

    def __init__(self, trainer: L.Trainer, seconds: float, batches: int) -> None:
        self._trainer = trainer
        self._seconds, self._batches = seconds, batches
        self._seconds_per_batch = 0.0
        self._wait = 1

    def is_due(self, batches: int) -> bool:
        """Return whether to agree after so many batches; the same on all processes."""
        return batches >= self._batches + self._wait

    def seconds(self, batches: int) -> float:
        """Return an estimate of the first process's clock after so many batches; at most half a second fast."""
        return self._seconds + (batches - self._batches) * self._seconds_per_batch

    def agree_next(self) -> None:
        """Agree after the next batch: interruptions, such as a validation, are in no estimate."""
        self._wait = 1

    def agree(self, batches: int, seconds: float, signaled: bool, save: bool) -> tuple[float, bool, bool]:
        """Share the first process's clock, whether any process got a signal, and whether the first one would save.

        Args:
            batches: Batches so far, the same on all processes and more than last time.
            seconds: This process's clock.
            signaled: Whether this process got a signal.
            save: Whether a checkpoint is due by this process's clock.

        Returns:
            The seconds, the signal and the checkpoint that hold for all.
        """
        seconds_per_batch = (seconds - self._seconds) / (batches - self._batches)
        if self._trainer.world_size > 1:
            first = self._trainer.is_global_zero
            # One collective for all: the maximum of the first one's numbers with -1, and of every process's vote.
            clock = [seconds, seconds_per_batch, float(save)] if first else [-1.0, -1.0, -1.0]
            votes = torch.tensor(
                [*clock, float(signaled)], dtype=torch.float64, device=self._trainer.strategy.root_device
            )
            seconds, seconds_per_batch, save, signaled = self._trainer.strategy.reduce(votes, reduce_op="max").tolist()
            self._wait = int(min(max(_SECONDS / max(seconds_per_batch, 1e-9), 1), _MOST_BATCHES))
        self._seconds, self._batches, self._seconds_per_batch = seconds, batches, seconds_per_batch
        return seconds, bool(signaled), bool(save)


def check_all_start_at(batches: int, trainer: L.Trainer) -> None:
    """Raise `InputError` if the processes read different checkpoints, or only some read one."""
    if trainer.world_size == 1:
        return
    bounds = torch.tensor([batches, -batches], dtype=torch.float64, device=trainer.strategy.root_device)
    last, first = (abs(int(bound)) for bound in trainer.strategy.reduce(bounds, reduce_op="max"))
    if first != last:
        raise InputError(
            f"One process would resume at batch {first} and another at batch {last}: all nodes need the same run "
            "folder, on a disk that they share; give it by run_dir=."
        )


class OnePrecision(L.Callback):
    """Have all processes train in the precision that the first one chose, since each measures its own speed."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Agree as soon as the processes are connected, before weights and optimizers are set up."""
        if trainer.world_size == 1:
            return
        own = trainer.strategy.precision_plugin.precision
        chosen = trainer.strategy.broadcast(own)
        if {own, chosen} == {FULL, MIXED}:
            device = trainer.strategy.root_device.type
            plugin = MixedPrecision(MIXED, device) if chosen == MIXED else Precision()
            trainer.strategy.precision_plugin = plugin
