"""Batches of items: the order of training, images in memory or in files, and the loaders over both.

A batch is requested as ``(start, indices)``, a pure function of the seed and the batch's number, so that neither
resuming nor the number of workers or processes changes it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from lit_aigc.errors import InputError
from lit_aigc.machine.signals import STOP
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch

# Lightning's advice to add worker processes: they would only slow down what is in memory.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")

Request = tuple[int, Tensor]
"""Global position of a batch's first item, and the ``(N,)`` int64 indices of its items in their split."""


class Items:
    """What batches are cut out of: images, or text.

    Attributes:
        resident: Whether they are in memory, so that no worker process is of use.
    """

    resident = True

    def batch(self, start: int, wanted: Any) -> Any:
        """Return the batch that a request is for."""
        raise NotImplementedError


class Images(Items):
    """One split of a data set.

    Attributes:
        labels: ``(N,)`` int64, or None.
        shape: ``(C, H, W)`` of each image.
    """

    labels: Tensor | None
    shape: tuple[int, int, int]
    _pixels_digest: str | None  # blake2b over all pixels in (N, H, W, C) order

    def batch(self, start: int, wanted: Tensor) -> Batch:
        """Return the items at these indices as uint8 ``(N, C, H, W)`` in channels_last layout."""
        labels = None if self.labels is None else self.labels.index_select(0, wanted)
        return Batch(self._pixels_at(wanted).permute(0, 3, 1, 2), labels, start)

    def digest(self) -> str:
        """Return a hash of all pixels and labels in order."""
        digest = hashlib.blake2b(self._pixels_digest.encode(), digest_size=16)
        if self.labels is not None:
            digest.update(self.labels.numpy())
        return digest.hexdigest()


class ResidentImages(Images):
    """A split as one uint8 tensor in memory."""

    def __init__(self, pixels: Tensor, labels: Tensor | None, pixels_digest: str | None = None):
        """Keep uint8 `pixels` ``(N, H, W, C)``: stored like this, a batch is channels_last without a second copy.

        `pixels_digest` is blake2b over all of them, if it is already known.
        """
        self.pixels, self.labels, self._pixels_digest = pixels.contiguous(), labels, pixels_digest
        self.shape = (pixels.shape[3], pixels.shape[1], pixels.shape[2])

    def __len__(self) -> int:
        return len(self.pixels)

    def _pixels_at(self, indices: Tensor) -> Tensor:
        return self.pixels.index_select(0, indices)

    def digest(self) -> str:
        """See `Images`."""
        if self._pixels_digest is None:
            self._pixels_digest = hashlib.blake2b(self.pixels.numpy(), digest_size=16).hexdigest()
        return super().digest()

    def item_digests(self) -> list[bytes]:
        """Return a hash of each image's pixels."""
        return [hashlib.blake2b(image, digest_size=16).digest() for image in self.pixels.numpy()]

    def subset(self, indices: Tensor) -> ResidentImages:
        """Return only these items, in this order."""
        labels = None if self.labels is None else self.labels[indices]
        return ResidentImages(self.pixels[indices], labels)


class StreamedImages(Images):
    """A split that is read from files whenever a batch is requested."""

    resident = False

    def __init__(
        self,
        read: Callable[[str], Tensor],
        names: list[str],
        labels: Tensor | None,
        shape: tuple[int, int, int],
        pixels_digest: str,
    ):
        """Keep `read`, which turns a name into a uint8 ``(C, H, W)`` image, in worker processes too.

        `pixels_digest` is blake2b over all pixels in ``(N, H, W, C)`` order, as of `ResidentImages`.
        """
        self.read, self.names, self.labels, self.shape = read, names, labels, shape
        self._pixels_digest = pixels_digest

    def __len__(self) -> int:
        return len(self.names)

    def _pixels_at(self, indices: Tensor) -> Tensor:
        return torch.stack([self.read(self.names[index]).permute(1, 2, 0) for index in indices.tolist()])


class TrainingOrder:
    """The endless order of training: one seeded permutation of all items after another.

    Position p of the stream is item ``permutation(p // n)[p % n]``, so that every item occurs once in each epoch of n
    positions.
    """

    def __init__(self, items: int, seed: int):
        self.items, self._noise = items, Noise(seed).stream("order")
        self._epochs: dict[int, Tensor] = {}

    def permutation(self, epoch: int) -> Tensor:
        """Return the order ``(items,)`` int64 of one epoch; the last two are cached."""
        if epoch not in self._epochs:
            while len(self._epochs) > 1:
                del self._epochs[next(iter(self._epochs))]
            keys = self._noise.stream(str(epoch)).bits(self.items, 1)[:, 0]
            self._epochs[epoch] = torch.argsort(keys, stable=True)
        return self._epochs[epoch]

    def indices(self, start: int, stop: int) -> Tensor:
        """Return the items ``(stop - start,)`` int64 at these positions."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.items)
            parts.append(self.permutation(epoch)[offset : offset + stop - start])
            start += len(parts[-1])
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def share_of_batch(number: int, batch_size: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the first position in the stream of a rank's share of a training batch, and one past the last."""
    share = batch_size // world_size
    start = number * batch_size + rank * share
    return start, start + share


def training_request(
    order: TrainingOrder, batch_size: int, number: int, *, rank: int = 0, world_size: int = 1
) -> Request:
    """Return this rank's contiguous slice of a training batch; `batch_size` counts the items of all ranks."""
    start, stop = share_of_batch(number, batch_size, rank, world_size)
    return start, order.indices(start, stop)


def evaluation_requests(items: int, block: int, *, rank: int = 0, world_size: int = 1) -> list[Request]:
    """Return requests for every item once over all ranks, in blocks dealt in turn: the same for any number of ranks."""
    starts = range(rank * block, items, world_size * block)
    return [(start, torch.arange(start, min(start + block, items))) for start in starts]


class Batches(Dataset):
    """The batches of a split by their numbers: item k is this rank's share of batch k.

    Args:
        items: What the batches are cut out of.
        request: From the number of a batch to what to ask `items` for.
        count: Number of batches; of training, those of an epoch.
    """

    def __init__(self, items: Items, request: Callable[[int], Any], count: int):
        self.items, self.request, self.count = items, request, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        try:
            return self.items.batch(*self.request(number))
        except InputError as error:  # as a value: a worker process would put a traceback into its message
            return error


class BatchNumbers(DistributedSampler):
    """Numbers of batches in a row. A distributed sampler, so that Lightning doesn't replace it on several processes.

    Args:
        count: How many; None: endlessly many.
        first: Returns the first number each time that iteration starts; None: 0.
    """

    def __init__(self, count: int | None, first: Callable[[], int] | None = None):
        self.count, self.first = count, first

    def __iter__(self) -> Iterator[int]:
        first = self.first() if self.first else 0
        return itertools.count(first) if self.count is None else iter(range(first, first + self.count))

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("training is endless: there is no number of batches")
        return self.count


class BatchLoader(DataLoader):
    """A torch DataLoader over whole batches that raises what is wrong with the data as one message."""

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch


def batch_loader(batches: Batches, numbers: BatchNumbers | None = None, workers: int = 0) -> BatchLoader:
    """Make a DataLoader of batches; it can be iterated again and again.

    Args:
        batches: The batches.
        numbers: Those to give, in order; None: all of them once.
        workers: Processes that make them; none are used for items in memory.
    """
    workers = 0 if batches.items.resident else workers
    return BatchLoader(
        batches,
        batch_size=None,
        sampler=BatchNumbers(len(batches)) if numbers is None else numbers,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_obey_only_the_parent if workers else None,
        generator=torch.Generator().manual_seed(0),  # else it takes a number from the global generator
    )


def evaluation_loader(items: Items, requests: Sequence[Any], workers: int = 0) -> BatchLoader:
    """Make a DataLoader with a batch for each of the requests."""
    return batch_loader(Batches(items, requests.__getitem__, len(requests)), workers=workers)


def _unchanged(batch: Any) -> Any:
    return batch


def _obey_only_the_parent(worker: int) -> None:
    """Ignore a scheduler's signals, which reach every process of a job: only the parent stops at a batch boundary.

    A worker that died of one would bring the training down; one that ignored SIGTERM from its parent too would outlive
    it.
    """
    for number in STOP:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm_from, args=(os.getppid(),), daemon=True).start()


def _exit_on_sigterm_from(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)
