"""The order of training, and loaders that give it on any number of processes and workers."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_aigc.data.base import DataModule
from lit_aigc.data.loaders import (
    Batches,
    BatchLoader,
    BatchNumbers,
    ResidentImages,
    StreamedImages,
    TrainingOrder,
    batch_loader,
    evaluation_loader,
    evaluation_requests,
    training_request,
)
from lit_aigc.errors import InputError
from lit_aigc.spec import Batch, TextBatch


def resident(items: int = 23) -> ResidentImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (items, 4, 5, 3), dtype=torch.uint8, generator=generator)
    return ResidentImages(pixels, torch.arange(items) % 3)


class FromMemory:
    """A reader of names, standing in for files."""

    def __init__(self, images: ResidentImages):
        self.images = images

    def __call__(self, name: str) -> Tensor:
        if name == "broken":
            raise InputError("broken is no longer readable")
        return self.images.pixels[int(name)].permute(2, 0, 1)


def streamed(images: ResidentImages) -> StreamedImages:
    names = [str(number) for number in range(len(images))]
    return StreamedImages(FromMemory(images), names, images.labels, images.shape, "hash")


def training_loader(
    images: ResidentImages | StreamedImages, order: TrainingOrder, batch_size: int, first: int = 0, workers: int = 0
) -> BatchLoader:
    """An endless loader from batch number `first` on."""
    batches = Batches(images, functools.partial(training_request, order, batch_size), 1)
    return batch_loader(batches, BatchNumbers(None, lambda: first), workers)


def test_every_item_comes_once_an_epoch_in_another_order() -> None:
    order = TrainingOrder(101, seed=3)
    epochs = [order.indices(101 * epoch, 101 * (epoch + 1)) for epoch in range(4)]
    assert all(epoch.sort().values.tolist() == list(range(101)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    assert not torch.equal(epochs[0], TrainingOrder(101, seed=4).indices(0, 101))


@settings(max_examples=30)
@given(items=st.integers(1, 40), start=st.integers(0, 200), length=st.integers(1, 100))
def test_any_window_is_part_of_the_same_stream(items: int, start: int, length: int) -> None:
    order = TrainingOrder(items, seed=1)
    fresh = TrainingOrder(items, seed=1)
    whole = [order.permutation(position // items)[position % items].item() for position in range(start, start + length)]
    assert fresh.indices(start, start + length).tolist() == whole


def test_orders_are_uniform() -> None:
    # where item 0 comes, over many seeds
    first = torch.stack([(TrainingOrder(5, seed).permutation(0) == 0).int().argmax() for seed in range(2000)])
    counts = torch.bincount(first, minlength=5)
    assert (counts - 400).abs().max() < 4 * (2000 * 0.2 * 0.8) ** 0.5


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_each_batch(world_size: int) -> None:
    order = TrainingOrder(23, seed=0)
    for number in range(9):  # over several epochs of 23 items
        parts = [training_request(order, 8, number, rank=rank, world_size=world_size) for rank in range(world_size)]
        share = 8 // world_size
        assert [start for start, _ in parts] == [number * 8 + rank * share for rank in range(world_size)]
        assert torch.equal(torch.cat([items for _, items in parts]), order.indices(number * 8, number * 8 + 8))


def test_a_later_start_continues() -> None:
    images = resident()
    whole = list(itertools.islice(training_loader(images, TrainingOrder(23, seed=0), 8), 10))
    later = list(itertools.islice(training_loader(images, TrainingOrder(23, seed=0), 8, first=6), 4))
    for found, expected in zip(later, whole[6:], strict=True):
        assert found.start == expected.start
        assert torch.equal(found.images, expected.images)


def test_an_endless_loader_has_no_length_and_a_counted_one_starts_where_it_is_told() -> None:
    batches = Batches(resident(), functools.partial(training_request, TrainingOrder(23, seed=0), 4), 5)
    with pytest.raises(TypeError, match="endless"):
        len(batch_loader(batches, BatchNumbers(None)))
    firsts = iter([0, 5])
    counted = batch_loader(batches, BatchNumbers(5, lambda: next(firsts)))
    assert len(counted) == 5
    assert [batch.start for _ in range(2) for batch in counted] == list(range(0, 40, 4))


def test_evaluation_blocks_are_the_same_for_any_number_of_ranks() -> None:
    whole = {start: items.tolist() for start, items in evaluation_requests(103, 10)}
    assert [item for items in whole.values() for item in items] == list(range(103))
    for world_size in (2, 3, 5):
        parts = [evaluation_requests(103, 10, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert {start: items.tolist() for part in parts for start, items in part} == whole
        assert sum(map(len, parts)) == len(whole)


def test_resident_batches_are_channels_last_without_a_copy() -> None:
    images = resident()
    batch = images.batch(7, torch.tensor([3, 0]))
    assert batch.images.shape == (2, 3, 4, 5)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.images[0].permute(1, 2, 0), images.pixels[3])
    assert batch.labels.tolist() == [0, 0]
    assert batch.start == 7
    assert images.shape == (3, 4, 5)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streamed_batches_equal_resident_ones_for_any_number_of_workers(workers: int) -> None:
    images, order = resident(), TrainingOrder(23, seed=5)
    state = torch.get_rng_state()
    loaders = (training_loader(images, order, 6, 2), training_loader(streamed(images), order, 6, 2, workers))
    pairs = zip(*loaders, strict=False)
    for expected, found in itertools.islice(pairs, 12):
        assert found.start == expected.start
        assert torch.equal(found.images, expected.images)
        assert found.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found.labels, expected.labels)
    assert torch.equal(torch.get_rng_state(), state), "loading must not draw from the global generator"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_finite_loader_has_a_length_and_can_be_iterated_again(workers: int) -> None:
    loader = evaluation_loader(streamed(resident()), evaluation_requests(23, 5), workers)
    assert len(loader) == 5
    for _ in range(2):
        assert sum(len(batch.images) for batch in loader) == 23


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_later_is_one_message(workers: int) -> None:
    images = streamed(resident())
    images.names[3] = "broken"
    with pytest.raises(InputError) as caught:
        list(evaluation_loader(images, evaluation_requests(23, 5), workers))
    assert str(caught.value) == "broken is no longer readable"


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="needs sigwaitinfo, which this system lacks")
def test_workers_survive_the_schedulers_signals_and_end_when_the_parent_says() -> None:
    before = set(multiprocessing.active_children())
    order = TrainingOrder(23, seed=0)
    batches = iter(training_loader(streamed(resident()), order, 4, workers=1))
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    for name in ("TERM", "USR1", "INT"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert [next(batches).start for _ in range(20)] == list(range(4, 84, 4))
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def test_a_process_that_fails_while_workers_run_comes_to_its_end() -> None:
    program = """
import torch
from lit_aigc.data.loaders import StreamedImages, evaluation_loader, evaluation_requests
images = StreamedImages(lambda name: torch.zeros(3, 8, 8, dtype=torch.uint8), ["a"] * 10, None, (3, 8, 8), "hash")
batches = iter(evaluation_loader(images, evaluation_requests(10, 1), workers=2))
next(batches)
raise SystemExit(3)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60, check=False)
    assert done.returncode == 3


def test_digests_see_pixels_labels_and_order() -> None:
    images = resident()
    changed = images.pixels.clone()
    changed[5, 1, 1, 1] ^= 1
    others = [
        ResidentImages(changed, images.labels),
        ResidentImages(images.pixels, images.labels.flip(0)),
        ResidentImages(images.pixels, None),
        images.subset(torch.arange(23).flip(0)),
    ]
    assert ResidentImages(images.pixels.clone(), images.labels.clone()).digest() == images.digest()
    assert len({images.digest(), *(other.digest() for other in others)}) == 5
    assert [a != b for a, b in zip(images.item_digests(), others[0].item_digests(), strict=True)].index(True) == 5


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_batches_go_to_a_gpu_from_page_locked_memory_without_blocking(device, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda values: (seen.append("pinned"), values)[1])
    monkeypatch.setattr(Tensor, "to", lambda values, where, **options: (seen.append(options), values)[1])
    for batch in (Batch(torch.ones(2, 1, 3, 3), None, 7), TextBatch(torch.ones(2, 5), None, 7, True)):
        seen.clear()
        moved = DataModule(None, None, 1, 1, 0).transfer_batch_to_device(batch, torch.device(device), 0)
        assert type(moved) is type(batch)
        assert moved.start == 7
        assert seen == (["pinned", {"non_blocking": True}] if device == "cuda" else [{}])
