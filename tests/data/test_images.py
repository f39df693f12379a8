"""ImageData: its spec, its order on any number of ranks, resuming, normalisation, augmentation, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import Tensor

from lit_aigc.augmentation.images import RandomShift
from lit_aigc.data.images import ImageData
from lit_aigc.data.loaders import ResidentImages
from lit_aigc.data.sources import Mnist5k, Preparation, SourceImages
from lit_aigc.errors import InputError
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec


@dataclasses.dataclass
class Numbered:
    """Images whose pixels tell their number."""

    train: int = 37
    val: int = 11
    test: int = 7
    labelled: bool = True
    name: str = "numbered"

    def problems(self, root: str | None) -> list[str]:
        return []

    def prepare(self, root: str | None) -> None:
        pass

    def read(self, root: str | None, preparation: Preparation) -> SourceImages:
        splits = {}
        for split in ("train", "val", "test"):
            numbers = torch.arange(getattr(self, split))
            pixels = numbers.to(torch.uint8)[:, None, None, None].repeat(1, 4, 4, 1)
            pixels[:, 0, 0] = 255 - pixels[:, 0, 0]  # so that flips and shifts show
            splits[split] = ResidentImages(pixels, numbers % 5 if self.labelled else None)
        return SourceImages(splits, tuple("abcde") if self.labelled else ())


def at(data: ImageData, rank: int, world_size: int, training: bool = True) -> ImageData:
    """The data module as it is on one of several ranks."""
    unlimited = L.Trainer(max_epochs=-1, logger=False, accelerator="cpu", enable_checkpointing=False)
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        training=training,
        max_epochs=-1,
        max_steps=-1,
        fit_loop=unlimited.fit_loop,
    )
    return data


def numbers(batch: Batch) -> list[int]:
    return batch.images[:, 0, 3, 3].tolist()


def make(**options: object) -> ImageData:
    return ImageData(Numbered(), **{"batch_size": 8, "eval_batch_size": 3, **options})


def test_the_spec_is_there_before_any_trainer() -> None:
    spec = make().spec
    assert dataclasses.replace(spec, fingerprint="") == DataSpec(
        modality="image", shape=(1, 4, 4), num_classes=5, class_names=tuple("abcde"), name="numbered"
    )
    assert len(spec.fingerprint) == 32


def test_the_fingerprint_is_of_content_and_preparation() -> None:
    assert make().spec.fingerprint == make(seed=5, batch_size=2, augment=["horizontal_flip"]).spec.fingerprint
    variants = [Numbered(), Numbered(train=36), Numbered(test=8), Numbered(labelled=False)]
    assert len({ImageData(source).spec.fingerprint for source in variants}) == 4
    digits = [
        ImageData(Mnist5k(), image_size=size, channels=channels) for size, channels in [(None, 1), (32, 1), (None, 3)]
    ]
    assert len({data.spec.fingerprint for data in digits}) == 3
    assert [data.spec.shape for data in digits] == [(1, 28, 28), (1, 32, 32), (3, 28, 28)]


def test_data_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = make(), []
    original = Numbered.read
    monkeypatch.setattr(Numbered, "read", lambda *args: read.append(1) or original(*args))
    _ = data.spec
    data.prepare_data()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    assert data.spec is data.spec
    assert len(read) == 1


def test_every_item_comes_once_an_epoch() -> None:
    data = make()
    stream = [number for batch in itertools.islice(data.train_dataloader(), 37) for number in numbers(batch)]
    assert len(stream) == 8 * 37
    for epoch in range(8):
        assert sorted(stream[37 * epoch : 37 * (epoch + 1)]) == list(range(37))
    assert stream[:37] != stream[37:74]


def test_labels_belong_to_their_images() -> None:
    for batch in itertools.islice(make().train_dataloader(), 10):
        assert batch.labels.tolist() == [number % 5 for number in numbers(batch)]
        assert batch.labels.dtype == torch.int64
        assert batch.images.dtype == torch.uint8


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_get_the_batch_of_one_process(world_size: int) -> None:
    whole = itertools.islice(make().train_dataloader(), 12)
    ranks = [itertools.islice(at(make(), rank, world_size).train_dataloader(), 12) for rank in range(world_size)]
    for expected, *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), expected.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), expected.labels)
        assert [part.start for part in parts] == [expected.start + rank * 8 // world_size for rank in range(world_size)]


@pytest.mark.parametrize("start_batch", [1, 4, 23])
def test_resuming_equals_going_on(start_batch: int) -> None:
    whole = list(itertools.islice(make().train_dataloader(), 30))
    later = make()
    later.start_batch = start_batch
    for expected, found in zip(whole[start_batch:], later.train_dataloader(), strict=False):
        assert torch.equal(found.images, expected.images)
        assert found.start == expected.start


def test_the_seed_sets_the_order() -> None:
    first, same, other = (numbers(next(iter(make(seed=seed).train_dataloader()))) for seed in (1, 1, 2))
    assert first == same != other


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_covers_each_item_once_and_leaves_no_rank_empty(split: str, world_size: int) -> None:
    found = []
    for rank in range(world_size):
        data = at(make(eval_batch_size=4), rank, world_size)
        loader = data.val_dataloader() if split == "val" else data.test_dataloader()
        batches = list(loader)
        assert len(loader) == len(batches) >= 1
        for batch in batches:
            assert numbers(batch) == list(range(batch.start, batch.start + len(batch.images)))
            found += numbers(batch)
    assert sorted(found) == list(range({"val": 11, "test": 7}[split]))


@pytest.mark.parametrize("limit", [None, 10, 1, 1000])
def test_real_batches_are_the_same_over_any_number_of_ranks(limit: int | None) -> None:
    whole = {batch.start: numbers(batch) for batch in make().real_batches("train", limit=limit)}
    assert [number for batch in whole.values() for number in batch] == list(range(min(limit or 37, 37)))
    for world_size in (2, 3):
        parts = [
            make().real_batches("train", rank=rank, world_size=world_size, limit=limit) for rank in range(world_size)
        ]
        assert {batch.start: numbers(batch) for part in parts for batch in part} == whole


def test_pixels_become_floats_of_the_range_in_channels_last() -> None:
    data = make()
    pixels = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8).repeat(1, 3, 1, 1)
    batch = data.on_after_batch_transfer(Batch(pixels, None, 0), 0)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.images.min(), batch.images.max()) == (-1.0, 1.0)
    assert torch.equal(((batch.images + 1) * 127.5).round().to(torch.uint8), pixels)
    assert data.on_after_batch_transfer(batch, 0) is batch


def augmented(data: ImageData, batches: int, rank: int = 0, world_size: int = 1) -> list[Tensor]:
    at(data, rank, world_size)
    return [
        data.on_after_batch_transfer(batch, 0).images for batch in itertools.islice(data.train_dataloader(), batches)
    ]


AUGMENT = {"augment": ["horizontal_flip", RandomShift(1)]}


@pytest.mark.parametrize("world_size", [2, 4])
def test_augmentation_is_the_same_on_any_number_of_ranks(world_size: int) -> None:
    whole = augmented(make(**AUGMENT), 6)
    ranks = [augmented(make(**AUGMENT), 6, rank, world_size) for rank in range(world_size)]
    for expected, *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(torch.cat(parts), expected)


def test_augmentation_is_the_same_in_any_batch_size_and_differs_by_seed_and_epoch() -> None:
    small, large = torch.cat(augmented(make(**AUGMENT, batch_size=4), 16)), torch.cat(augmented(make(**AUGMENT), 8))
    assert torch.equal(small, large)
    one = ImageData(Numbered(train=1), batch_size=1, augment=["horizontal_flip", RandomShift(1)])
    one.start_batch = 1  # a new run on one image is refused
    assert len({tuple(image.flatten().tolist()) for image in augmented(one, 40)}) > 5
    flips = make(augment=["horizontal_flip"])
    plain, first, second = (torch.cat(augmented(data, 4)) for data in (make(), flips, make(augment="horizontal_flip")))
    assert torch.equal(first, second)
    changed = (first != plain).flatten(1).any(dim=1)
    drawn = Noise(0).stream("augmentation").stream("0").stream("horizontal_flip").uniform(32, 1)[:, 0] < 0.5
    assert torch.equal(changed, drawn)


def test_only_training_is_augmented() -> None:
    data = at(make(augment=["horizontal_flip"]), 0, 1, training=False)
    batch = next(iter(data.val_dataloader()))
    expected = batch.images.float() / 127.5 - 1
    assert torch.equal(data.on_after_batch_transfer(batch, 0).images, expected)
    data.trainer = None
    assert torch.equal(data.on_after_batch_transfer(batch, 0).images, expected)


def test_lightning_trains_on_it_and_leaves_it_alone() -> None:
    import lightning as L

    class Recorder(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.starts, self.validated = [], []

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch: Batch, index: int) -> Tensor:
            assert batch.images.dtype == torch.float32
            assert batch.images.min() >= -1
            self.starts.append(batch.start)
            return self.weight.sum()

        def validation_step(self, batch: Batch, index: int) -> None:
            self.validated += ((batch.images[:, 0, 3, 3] + 1) * 127.5).round().int().tolist()

    module, data = Recorder(), make()
    data.start_batch = 3
    trainer = L.Trainer(
        accelerator="cpu", max_steps=12, val_check_interval=6, check_val_every_n_epoch=None, num_sanity_val_steps=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert module.starts == [8 * number for number in range(3, 15)]
    assert module.validated == list(range(11)) * 2


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(InputError) as caught:
        make(
            batch_size=0,
            eval_batch_size=-1,
            seed="x",
            image_size=0,
            channels=2,
            augment=["spin"],
            workers=-1,
            resident_gib="a",
        )
    message = str(caught.value)
    for key in (
        "batch_size",
        "eval_batch_size",
        "seed",
        "image_size",
        "channels",
        "augment",
        "workers",
        "resident_gib",
    ):
        assert f"data.{key}" in message
    assert "data.augment=spin" in message and "horizontal_flip" in message


@pytest.mark.parametrize("batch_size", [0, -4, 1.5, "64", None, True])
def test_a_batch_size_that_is_none_is_refused(batch_size: object) -> None:
    with pytest.raises(InputError, match=r"data\.batch_size is .* expected a whole number, 1 or more"):
        make(batch_size=batch_size)


def test_a_batch_that_the_processes_can_not_share_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.batch_size=8 .* 3 processes; use 6 or 9"):
        at(make(), 0, 3).train_dataloader()
    with pytest.raises(InputError, match="use 16"):
        make().check_world_size(16)
    make().check_world_size(4)


@pytest.mark.parametrize(
    ("train", "batch_size", "message"),
    [
        (9, 4, r"numbered: 9 images to train on \(11 more in val, 7 in test\), expected 10 or more\. Give more images"),
        (1, 64, r"numbered: 1 image to train on"),
        (37, 38, r"data\.batch_size=38 is more than the 37 images to train on \(11 .*Set data\.batch_size=37 or less"),
    ],
)
def test_too_few_images_to_train_on_are_refused(train: int, batch_size: int, message: str) -> None:
    data = ImageData(Numbered(train=train), batch_size=batch_size)
    data.check_world_size(1)  # nothing is read for it
    with pytest.raises(InputError, match=message):
        next(iter(data.train_dataloader()))
    assert len(list(data.real_batches("train"))) == 1, "they can still be measured"
    data.start_batch = 1
    data.check_world_size(1)  # what has begun may go on


def test_more_processes_than_validation_images_are_refused() -> None:
    with pytest.raises(InputError, match="7 images in test are too few for 8"):
        at(make(), 0, 8).test_dataloader()


def test_unlabelled_data_say_so() -> None:
    data = ImageData(Numbered(labelled=False), batch_size=4)
    assert data.spec.num_classes == 0
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch.labels is None


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="train, val, test"):
        make().split("dev")
