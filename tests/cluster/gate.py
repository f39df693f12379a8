"""A callback that holds a run at one batch, so that what a test does to it always meets it there."""

import os
import time
from pathlib import Path

import lightning as L


class Gate(L.Callback):
    """Before its training batch number `batch` a process writes ``at-gate-RANK`` and its id, and waits.

    It goes on once a signal has come, and doesn't wait again after it was resumed.

    Args:
        run_dir: Where the file goes.
        batch: Batches done before.
        rank: The process that waits; None for each.
    """

    def __init__(self, run_dir: str, batch: int = 3, rank: int | None = None) -> None:
        self.folder, self.batch, self.rank = Path(run_dir), batch, rank

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        if pl_module.batches != self.batch or self.rank not in (None, trainer.global_rank):
            return
        clock = next(callback for callback in trainer.callbacks if hasattr(callback, "signals"))
        file = self.folder / f"at-gate-{trainer.global_rank}"
        file.with_suffix(".tmp").write_text(str(os.getpid()))
        file.with_suffix(".tmp").replace(file)
        end = time.monotonic() + 300
        while clock.signals.received is None and time.monotonic() < end:
            time.sleep(0.02)
