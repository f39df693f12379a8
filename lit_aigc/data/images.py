"""Images as a LightningDataModule: from any source to batches on the device, in the spec's range."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from lit_aigc.augmentation import images as augmentation
from lit_aigc.data.base import DataModule
from lit_aigc.data.loaders import (
    Batches,
    BatchLoader,
    Images,
    TrainingOrder,
    evaluation_loader,
    evaluation_requests,
    training_request,
)
from lit_aigc.data.sources import SPLITS, ImageSource, Preparation
from lit_aigc.errors import InputError, check, not_whole
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec

_FEWEST = 10
"""Training images: fewer are more likely a mistake than intended."""

Augmentation = Callable[..., Tensor]
"""``(images (N, C, H, W) in the spec's range, *, noise: Noise) -> images``; image i uses item i of the noise."""


class ImageData(DataModule):
    """Images of one size with or without labels, in ``train``, ``val`` and ``test`` splits.

    Batches leave the loaders as uint8; on the device they become float32 in [-1, 1], channels_last, and in training
    augmented. See `DataModule` for the rest.

    Args:
        source: Source of the images, such as `lit_aigc.data.sources.Mnist5k`.
        root: Folder (or zip) of the source's files, if it needs any.
        batch_size: Images in a training batch over all processes together; they must divide it.
        eval_batch_size: Images in a validation or test batch of one process.
        seed: Of the order of training and of augmentation; not of splits.
        image_size: Height and width that images are resized to; None keeps their own.
        channels: 1 or 3; None keeps their own.
        augment: Augmentations of training, in order: ``"horizontal_flip"``, ``"random_shift"``, or objects.
        workers: Processes that read files, if the images don't fit in `resident_gib`.
        resident_gib: Most GiB of uint8 pixels to hold in memory.
        extractor: Name of the feature extractor to measure such images with; None: one for images in general.

    Raises:
        InputError: If options are wrong; names all that are.
    """

    modality = "image"
    items = "images"

    def __init__(
        self,
        source: ImageSource,
        *,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 0,
        image_size: int | None = None,
        channels: int | None = None,
        augment: Sequence[str | Augmentation] = (),
        workers: int = 2,
        resident_gib: float = 2.0,
        extractor: str | None = None,
    ):
        augment = [augment] if isinstance(augment, str) else list(augment or ())
        channels_fit = channels in (None, 1, 3) and not isinstance(channels, bool)
        gib_fit = isinstance(resident_gib, int | float) and not isinstance(resident_gib, bool) and resident_gib >= 0
        known = f"{', '.join(augmentation.BY_NAME)} or a node with _target_"
        check(
            ("data.channels", channels, channels_fit, "1, 3 or null"),
            ("data.resident_gib", resident_gib, gib_fit, "a number, 0 or more"),
            *(("data.augment", each, callable(each) or each in [*augmentation.BY_NAME], known) for each in augment),
            more=[
                *not_whole("data.batch_size", batch_size, least=1),
                *not_whole("data.eval_batch_size", eval_batch_size, least=1),
                *not_whole("data.workers", workers, least=0),
                *not_whole("data.seed", seed, least=None),
                *([] if image_size is None else not_whole("data.image_size", image_size, least=1)),
                *source.problems(root),
            ],
        )

        super().__init__(source, root, batch_size, eval_batch_size, seed)
        self.workers, self.extractor = workers, extractor
        self.preparation = Preparation(image_size, channels, int(resident_gib * 2**30))
        self.augment = [augmentation.BY_NAME[name]() if isinstance(name, str) else name for name in augment]
        self._splits: dict[str, Images] = {}
        self._captions: dict[str, tuple[str, ...]] = {}

    def prepare_data(self) -> None:
        """Download what is missing; raises InputError where that fails."""
        if self._spec is None:
            self.source.prepare(self.root)

    def read(self) -> DataSpec:
        """See the base class."""
        found = self.source.read(self.root, self.preparation)
        splits = found.splits
        if found.report is not None:
            self.report = found.report.counts()
            self.warn(*found.report.warnings())
        facts = [f"{name} {splits[name].shape} {len(splits[name])} {splits[name].digest()}" for name in SPLITS]
        fingerprint = hashlib.blake2b("\n".join([*facts, *found.class_names]).encode(), digest_size=16).hexdigest()
        self._splits, self._captions = splits, found.captions
        return DataSpec(
            modality=self.modality,
            shape=splits["train"].shape,
            value_range=(-1.0, 1.0),
            num_classes=len(found.class_names),
            class_names=found.class_names,
            fingerprint=fingerprint,
            name=self.source.name,
            attribution=found.attribution,
        )

    def split(self, name: str) -> Images:
        """Return the items of ``train``, ``val`` or ``test``."""
        self.check_split(name)
        return self._splits[name]

    def sizes(self) -> dict[str, int]:
        """Return the number of images in each split."""
        return {name: len(self.split(name)) for name in SPLITS}

    def captions(self, split: str) -> tuple[str, ...]:
        """Return a caption for each item of a split, in their order; empty for data without captions."""
        self.check_split(split)
        return self._captions.get(split, ())

    def check_world_size(self, world_size: int) -> None:
        """Raise `InputError` if this many processes can't share a training batch equally.

        Once the data is read, and unless training has begun before, also if there are fewer than 10 training images,
        or fewer than a batch takes.
        """
        super().check_world_size(world_size)
        if self._spec is None or self.start_batch:
            return
        count, val, test = (len(self._splits[name]) for name in SPLITS)
        place = f" in data.root={self.root}" if self.root else ""
        if count < _FEWEST:
            raise InputError(
                f"{self.source.name}: {count} image{'s' * (count != 1)} to train on{place} ({val} more in val, "
                f"{test} in test), expected {_FEWEST} or more. Give more images."
            )
        if self.batch_size > count:
            raise InputError(
                f"data.batch_size={self.batch_size} is more than the {count} images to train on{place} ({val} more in "
                f"val, {test} in test). Set data.batch_size={count} or less, or give more images."
            )

    def train_dataloader(self) -> BatchLoader:
        """Return a loader of this rank's share of each training batch; see `DataModule.training_loader`."""
        rank, world_size = self.place()
        images = self.split("train")
        self.check_world_size(world_size)
        order = TrainingOrder(len(images), self.seed)
        request = partial(training_request, order, self.batch_size, rank=rank, world_size=world_size)
        batches = Batches(images, request, max(1, len(images) // self.batch_size))
        return self.training_loader(batches, self.workers)

    def evaluation_batches(self, split: str, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """See the base class."""
        images = self.split(split)
        block = self.evaluation_block(len(images), world_size, f"images in {split}")
        requests = evaluation_requests(len(images), block, rank=rank, world_size=world_size)
        return evaluation_loader(images, requests, self.workers)

    def real_batches(
        self, split: str, *, rank: int = 0, world_size: int = 1, limit: int | None = None
    ) -> Iterator[Batch]:
        """Yield the real images of a split in order as uint8, without augmentation; over all ranks each of them once.

        Args:
            split: ``train``, ``val`` or ``test``.
            rank: Which share: batches of `eval_batch_size` are dealt in turn, the same for any number of ranks.
            world_size: Number of shares.
            limit: Take only this many images, the first of the split.
        """
        images = self.split(split)
        items = len(images) if limit is None else min(limit, len(images))
        requests = evaluation_requests(items, self.eval_batch_size, rank=rank, world_size=world_size)
        return iter(evaluation_loader(images, requests, self.workers))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Convert uint8 to float32 in [-1, 1], channels_last; in training, augment by each item's place."""
        if not isinstance(batch, Batch) or batch.images.dtype != torch.uint8:
            return batch
        images = batch.images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)
        if self.augment and self.trainer is not None and self.trainer.training:
            noise = Noise(self.seed).stream("augmentation").skip(batch.start)
            for place, augment in enumerate(self.augment):
                images = augment(images, noise=noise.stream(str(place)))
            images = images.contiguous(memory_format=torch.channels_last)
        return batch._replace(images=images)
