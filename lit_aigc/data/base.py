"""What every DataModule of this package shares: its splits, its spec, its place among processes, and its loaders."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_aigc.data.loaders import Batches, BatchLoader, BatchNumbers, batch_loader
from lit_aigc.data.sources import SPLITS
from lit_aigc.errors import InputError
from lit_aigc.spec import DataSpec

log = logging.getLogger(__name__)


class DataModule(L.LightningDataModule):
    """Base of the DataModules of one modality each.

    Batch k of training is a pure function of (seed, k) on any number of processes, so resuming needs `start_batch`
    only. A subclass implements `read`, `evaluation_batches` and `train_dataloader`.

    Attributes:
        modality: As in `lit_aigc.spec.DataSpec`.
        of_tokens: Whether samples are sequences of tokens, rather than tensors of numbers.
        items: What a batch consists of, in messages.
        start_batch: Number of the first batch that `train_dataloader` gives.
        batch_size: Items in a training batch over all processes together.
        report: What cleaning counted, once the data is read.
    """

    modality: ClassVar[str]
    of_tokens: ClassVar[bool] = False
    items: ClassVar[str]

    def __init__(self, source: Any, root: str | None, batch_size: int, eval_batch_size: int, seed: int):
        super().__init__()
        self.source, self.root, self.seed = source, root, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.start_batch = 0
        self.report: dict[str, int] = {}
        self._spec: DataSpec | None = None

    def read(self) -> DataSpec:
        """Read and clean all splits, and return the facts about them; called once.

        Raises:
            InputError: If something is missing, empty or damaged.
        """
        raise NotImplementedError

    def evaluation_batches(self, split: str, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """Return a loader of one rank's share of a split, with every item once over all ranks."""
        raise NotImplementedError

    @property
    def spec(self) -> DataSpec:
        """The facts about the data; the first call reads it, and downloads it if need be."""
        if self._spec is None:
            self.prepare_data()
            self.setup()
        return self._spec

    def setup(self, stage: str | None = None) -> None:
        """Read the data, once; see `read`."""
        if self._spec is None:
            self._spec = self.read()

    def check_split(self, name: str) -> None:
        """Read the data, and raise `InputError` if it has no split of this name."""
        if name not in SPLITS:
            raise InputError(f"no split {name!r}; there is {', '.join(SPLITS)}.")
        _ = self.spec

    def check_world_size(self, world_size: int) -> None:
        """Raise `InputError` if this many processes can't share a training batch equally."""
        if self.batch_size % world_size:
            below = self.batch_size // world_size * world_size
            near = f"{below} or {below + world_size}" if below else world_size
            raise InputError(
                f"data.batch_size={self.batch_size} is the number of {self.items} over all processes and can't be "
                f"divided by {world_size} processes; use {near}, or another number of devices."
            )

    def training_loader(self, batches: Batches, workers: int = 0) -> BatchLoader:
        """Return a loader of training batches from number `start_batch` on, or from where a resumed Trainer is.

        It is endless, unless a Trainer counts epochs or steps: then each iteration gives the next epoch's batches.
        """
        trainer = self.trainer if self.trainer is not None and self.trainer.training else None
        endless = trainer is None or trainer.max_epochs == trainer.max_steps == -1

        def done() -> int:
            return trainer.fit_loop.epoch_loop.batch_progress.total.ready if trainer else 0

        before = done()
        start = max(self.start_batch, before)
        numbers = BatchNumbers(None if endless else len(batches), lambda: start + done() - before)
        return batch_loader(batches, numbers, workers)

    def val_dataloader(self) -> BatchLoader:
        """Return a loader of every item of ``val`` once over all ranks."""
        return self.evaluation_batches("val", *self.place())

    def test_dataloader(self) -> BatchLoader:
        """Return a loader of every item of ``test`` once over all ranks."""
        return self.evaluation_batches("test", *self.place())

    def predict_dataloader(self) -> BatchLoader:
        """Return the loader of ``test``."""
        return self.test_dataloader()

    def evaluation_block(self, count: int, world_size: int, called: str) -> int:
        """Return the most items in an evaluation batch, such that every rank gets a batch.

        On a rank without any the Trainer would skip the whole loop, hooks included, and the others would wait for it.

        Args:
            count: Number of items.
            world_size: Number of ranks.
            called: The items and their split, for the message.

        Raises:
            InputError: If there are fewer items than ranks.
        """
        if count < world_size:
            raise InputError(f"{count} {called} are too few for {world_size} processes: use fewer devices.")
        return min(self.eval_batch_size, count // world_size)

    def place(self) -> tuple[int, int]:
        """Return this process's rank, and the number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @rank_zero_only
    def warn(self, *messages: str) -> None:
        """Log warnings about the source, on the first process only."""
        for message in messages:
            log.warning(f"{self.source.name}: {message}")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch as Lightning does, but to a GPU from page-locked memory, so that the copy blocks nothing."""
        if device.type == "cuda":
            batch = type(batch)(*(value.pin_memory() if isinstance(value, Tensor) else value for value in batch))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
