"""How batches are made of items: the order of training, images in memory or in files, and the loaders over both.

A batch is asked for as ``(start, indices)``, a pure function of the seed and the batch's number, so neither
resuming nor the number of workers or processes changes what is in it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_aigc.errors import InputError
from lit_aigc.machine.signals import STOP
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch

Request = tuple[int, Tensor]
"""Global position of a batch's first item, and the ``(N,)`` int64 indices of its items in their split."""


class Images(Protocol):
    """One split of a data set.

    Attributes:
        labels: ``(N,)`` int64, or None.
        shape: ``(C, H, W)`` of each image.
        resident: Whether the images are in memory, so that no worker process is of use.
    """

    labels: Tensor | None
    shape: tuple[int, int, int]
    resident: bool

    def __len__(self) -> int: ...

    def batch(self, start: int, indices: Tensor) -> Batch:
        """The items of these indices as uint8 ``(N, C, H, W)`` in channels_last layout."""

    def digest(self) -> str:
        """Hash of all pixels and labels in order."""


class ResidentImages:
    """A split as one uint8 tensor in memory."""

    resident = True

    def __init__(self, pixels: Tensor, labels: Tensor | None, pixels_digest: str | None = None):
        """`pixels` is uint8 ``(N, H, W, C)``: so stored, a batch is channels_last without a second copy.

        `pixels_digest` is blake2b over all of them, if it is known already.
        """
        self.pixels, self.labels, self._pixels_digest = pixels.contiguous(), labels, pixels_digest
        self.shape = (pixels.shape[3], pixels.shape[1], pixels.shape[2])

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, start: int, indices: Tensor) -> Batch:
        """See `Images`."""
        images = self.pixels.index_select(0, indices).permute(0, 3, 1, 2)  # (N, C, H, W)
        return Batch(images, None if self.labels is None else self.labels.index_select(0, indices), start)

    def digest(self) -> str:
        """See `Images`."""
        if self._pixels_digest is None:
            self._pixels_digest = hashlib.blake2b(self.pixels.numpy(), digest_size=16).hexdigest()
        return _split_digest(self._pixels_digest, self.labels)

    def item_digests(self) -> list[bytes]:
        """Hash of each image's pixels."""
        return [hashlib.blake2b(image, digest_size=16).digest() for image in self.pixels.numpy()]

    def subset(self, indices: Tensor) -> ResidentImages:
        """Only these items, in this order."""
        labels = None if self.labels is None else self.labels[indices]
        return ResidentImages(self.pixels[indices], labels)


class StreamedImages:
    """A split that is read from files whenever a batch is asked for."""

    resident = False

    def __init__(
        self,
        read: Callable[[str], Tensor],
        names: list[str],
        labels: Tensor | None,
        shape: tuple[int, int, int],
        pixels_digest: str,
    ):
        """`read` takes a name to a uint8 ``(C, H, W)`` image, in worker processes too.

        `pixels_digest` is blake2b over all pixels in ``(N, H, W, C)`` order, as `ResidentImages` would have it.
        """
        self.read, self.names, self.labels, self.shape = read, names, labels, shape
        self._pixels_digest = pixels_digest

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, start: int, indices: Tensor) -> Batch:
        """See `Images`."""
        images = torch.stack([self.read(self.names[index]).permute(1, 2, 0) for index in indices.tolist()])
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        return Batch(images.permute(0, 3, 1, 2), labels, start)

    def digest(self) -> str:
        """See `Images`."""
        return _split_digest(self._pixels_digest, self.labels)


def _split_digest(pixels_digest: str, labels: Tensor | None) -> str:
    digest = hashlib.blake2b(pixels_digest.encode(), digest_size=16)
    if labels is not None:
        digest.update(labels.numpy())
    return digest.hexdigest()


class TrainingOrder:
    """The endless order of training: one seeded permutation of all items after the other.

    Position p of the stream is item ``permutation(p // n)[p % n]``: in n positions from a multiple of n on, every item
    comes once.
    """

    def __init__(self, items: int, seed: int):
        self.items, self._noise = items, Noise(seed).stream("order")
        self._epochs: dict[int, Tensor] = {}

    def permutation(self, epoch: int) -> Tensor:
        """``(items,)`` int64: the order of one epoch; the last two asked for are kept."""
        if epoch not in self._epochs:
            while len(self._epochs) > 1:
                del self._epochs[next(iter(self._epochs))]
            keys = self._noise.stream(str(epoch)).bits(self.items, 1)[:, 0]
            self._epochs[epoch] = torch.argsort(keys, stable=True)
        return self._epochs[epoch]

    def indices(self, start: int, stop: int) -> Tensor:
        """``(stop - start,)`` int64: the items at these positions."""
        epoch, offset = divmod(start, self.items)
        if offset + stop - start <= self.items:
            return self.permutation(epoch)[offset : offset + stop - start]
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.items)
            parts.append(self.permutation(epoch)[offset : offset + stop - start])
            start += len(parts[-1])
        return torch.cat(parts)


def training_requests(
    order: TrainingOrder, batch_size: int, *, start_batch: int = 0, rank: int = 0, world_size: int = 1
) -> Iterator[Request]:
    """Endless: this rank's contiguous slice of each batch from number `start_batch` on; `batch_size` is global."""
    share = batch_size // world_size
    for number in itertools.count(start_batch):
        start = number * batch_size + rank * share
        yield start, order.indices(start, start + share)


def check_share(batch_size: int, world_size: int, items: str) -> None:
    """Raises InputError if this many processes can't share a training batch of `items` equally."""
    if batch_size % world_size:
        below, above = batch_size // world_size * world_size, -(-batch_size // world_size) * world_size
        near = " or ".join(str(size) for size in (below, above) if size)
        raise InputError(
            f"data.batch_size={batch_size} is the number of {items} over all processes and can't be divided by "
            f"{world_size} processes; use {near}, or another number of devices."
        )


def evaluation_requests(items: int, block: int, *, rank: int = 0, world_size: int = 1) -> list[Request]:
    """Every item once over all ranks, in blocks dealt round: the same blocks for any number of ranks."""
    starts = range(rank * block, items, world_size * block)
    return [(start, torch.arange(start, min(start + block, items))) for start in starts]


class Loader:
    """Batches of `images`, one for each of `requests`, made here or (files only) in worker processes.

    A plain iterable, so that the Trainer neither replaces its order nor pads it; it can be iterated again and again.
    """

    def __init__(self, images: Images, requests: Callable[[], Iterator[Request] | list[Request]], workers: int = 0):
        self.images, self.requests = images, requests
        self.workers = 0 if images.resident else workers

    def __iter__(self) -> Iterator[Batch]:
        if self.workers == 0:
            for start, indices in self.requests():
                yield self.images.batch(start, indices)
            return
        loader = DataLoader(
            _Requested(self.images),
            sampler=self.requests(),
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=_obey_only_the_parent,
            generator=torch.Generator().manual_seed(0),  # else it takes a number from the global generator
        )
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class SizedLoader(Loader):
    """A `Loader` over finitely many requests."""

    def __len__(self) -> int:
        return len(self.requests())


class PinnedTransfer:
    """For a LightningDataModule: batches go to a GPU from page-locked memory, so that nobody waits for the copy."""

    def transfer_batch_to_device(self, batch: tuple[Any, ...], device: torch.device, dataloader_idx: int) -> Any:
        """As Lightning does it, without blocking: only page-locked memory makes that true."""
        if device.type == "cuda":
            batch = type(batch)(*(value.pin_memory() if isinstance(value, Tensor) else value for value in batch))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class _Requested(Dataset):
    """A map from requests to batches, for DataLoader."""

    def __init__(self, images: Images):
        self.images = images

    def __getitem__(self, request: Request) -> Batch | InputError:
        try:
            return self.images.batch(*request)
        except InputError as error:  # as a value: DataLoader would put a traceback into its message
            return error


def _obey_only_the_parent(worker: int) -> None:
    """A scheduler's signals reach every process of a job, but only the parent knows how to stop at a batch boundary.

    A worker that died of one would bring the training down; one that ignored SIGTERM altogether could not be ended when
    the parent exits.
    """
    for number in STOP:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_when_told_by, args=(os.getppid(),), daemon=True).start()


def _exit_when_told_by(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)
