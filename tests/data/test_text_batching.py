"""Batches of tokens: pure functions of (seed, number), alike on any number of ranks, and as torchtext makes them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchtext.data import BPTTIterator, Dataset, Example, Field

from lit_aigc.data.text_batching import (
    Carried,
    CarriedOnce,
    Crops,
    Originals,
    Request,
    Reshuffled,
    RowReader,
    Sentences,
    SentencesOnce,
    WindowsOnce,
)
from lit_aigc.spec import TextBatch

TRAINING = {"crops": Crops, "reshuffled": Reshuffled, "carried": Carried, "sentences": Sentences}


def numbered(length: int) -> np.ndarray:
    """A stream whose ids tell their place."""
    return np.arange(length, dtype=np.uint16)


def sentences(lengths: list[int]) -> np.ndarray:
    """Sentences of these lengths; every word of sentence i is i + 1."""
    return np.concatenate([[0], *([i + 1] * n + [0] for i, n in enumerate(lengths))]).astype(np.uint16)


def lengths(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(1, 30, count).tolist()


def batches(reader: RowReader, requests: list[Request]) -> list[TextBatch]:
    return [reader.batch(*request) for request in requests]


def counted(batch: TextBatch) -> torch.Tensor:
    """The targets that count."""
    targets = batch.ids[:, 1:]
    return targets.flatten() if batch.mask is None else targets[batch.mask]


@pytest.mark.parametrize("batching", TRAINING)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_share_each_batch(batching: str, world_size: int) -> None:
    tokens = sentences(lengths(70))
    reader, made = RowReader(tokens), TRAINING[batching](tokens, 7, 8, 3)
    for number in (0, 1, 5, 6, 61, 4):
        whole = reader.batch(*made.request(number))
        parts = [reader.batch(*made.request(number, rank, world_size)) for rank in range(world_size)]
        assert torch.equal(torch.cat([part.ids for part in parts]), whole.ids)
        assert torch.equal(torch.cat([counted(part) for part in parts]), counted(whole))
        assert [part.start for part in parts] == [8 * number + rank * 8 // world_size for rank in range(world_size)]
        assert {part.carried for part in parts} == {whole.carried}


@pytest.mark.parametrize("batching", TRAINING)
def test_a_batch_depends_on_seed_and_number_alone(batching: str) -> None:
    tokens = sentences(lengths(70))
    reader = RowReader(tokens)
    first, again, other = (TRAINING[batching](tokens, 7, 8, seed) for seed in (1, 1, 2))
    forth = [reader.batch(*first.request(number)).ids for number in range(30)]
    back = [reader.batch(*again.request(number)).ids for number in reversed(range(30))][::-1]
    assert all(map(torch.equal, forth, back))
    if batching != "carried":
        assert not all(map(torch.equal, forth, [reader.batch(*other.request(number)).ids for number in range(30)]))


def test_rows_are_int64_pieces_of_the_text() -> None:
    reader = RowReader(numbered(1000))
    for made in (Crops(reader.tokens, 9, 6, 0), Reshuffled(reader.tokens, 9, 6, 0)):
        batch = reader.batch(*made.request(3))
        assert batch.ids.dtype == torch.int64
        assert torch.equal(batch.ids, batch.ids[:, :1] + torch.arange(10))
        assert batch.mask is None
        assert not batch.carried


def test_crops_begin_anywhere_alike() -> None:
    tokens = numbered(16)
    crops = Crops(tokens, 5, 64, 0)
    begin = np.concatenate([crops.request(number)[1].begin for number in range(100)])
    counts = np.bincount(begin)
    assert len(counts) == 11  # the last one that fits begins at 10
    assert np.abs(counts - 6400 / 11).max() < 4 * (6400 / 11) ** 0.5


@settings(max_examples=50)
@given(length=st.integers(3, 200), context=st.integers(1, 50), seed=st.integers(0, 3))
def test_reshuffled_windows_cover_an_epoch_once(length: int, context: int, seed: int) -> None:
    if length <= context:
        return
    made = Reshuffled(numbered(length), context, 1, seed)
    for epoch in range(3):
        begin = [made.request(epoch * made.windows + i)[1].begin.item() for i in range(made.windows)]
        first = min(begin)
        assert sorted(begin) == [first + i * context for i in range(made.windows)]
        assert 0 <= first < context
        assert max(begin) + context < length
    assert made.windows * context > length - 1 - 2 * context


def test_reshuffled_windows_lie_elsewhere_each_epoch() -> None:
    made = Reshuffled(numbered(1000), 50, 1, 0)
    epochs = [[made.request(e * made.windows + i)[1].begin.item() for i in range(made.windows)] for e in range(20)]
    assert len({min(epoch) for epoch in epochs}) > 12
    assert len({tuple(np.argsort(epoch)) for epoch in epochs}) == 20


def test_a_text_of_one_window_trains() -> None:
    reader = RowReader(numbered(6))
    for batching in ("crops", "reshuffled"):
        assert reader.batch(*TRAINING[batching](reader.tokens, 5, 2, 0).request(7)).ids.tolist() == [[*range(6)]] * 2


def by_torchtext(tokens: np.ndarray, batch_size: int, context: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets of an epoch of BPTTIterator, with 0 for the padding."""
    field = Field(tokenize=str.split, batch_first=True)
    words = " ".join(map(str, tokens.tolist()))
    data = Dataset([Example.fromlist([words], [("text", field)])], [("text", field)])
    field.build_vocab(data)
    ids = torch.tensor([int(word) if word.isdigit() else 0 for word in field.vocab.itos])
    iterator = BPTTIterator(data, batch_size, context, train=False, repeat=False)
    return [(ids[batch.text], ids[batch.target]) for batch in iterator]


@pytest.mark.parametrize(
    ("length", "batch_size", "context"),
    [(101, 4, 7), (100, 4, 8), (100, 4, 6), (97, 8, 12), (10, 8, 3), (33, 1, 5), (41, 10, 4), (97, 8, 100)],
)
def test_carried_batches_equal_torchtext(length: int, batch_size: int, context: int) -> None:
    tokens = numbered(length) + 1
    reader, made = RowReader(tokens), Carried(tokens, context, batch_size)
    expected = by_torchtext(tokens, batch_size, context)
    assert made.epoch_batches == len(expected)
    for epoch in range(2):
        for number, (inputs, targets) in enumerate(expected):
            batch = reader.batch(*made.request(epoch * made.epoch_batches + number))
            assert torch.equal(batch.ids[:, :-1], inputs)
            assert torch.equal(batch.ids[:, 1:], targets)
            assert batch.carried == (number > 0)
            assert torch.equal(targets > 0, torch.ones_like(targets) > 0 if batch.mask is None else batch.mask)


def test_sentences_come_once_an_epoch_between_boundaries() -> None:
    count, size = 400, 4
    tokens = sentences(lengths(count))
    reader, made = RowReader(tokens), Sentences(tokens, 40, size, 0)
    assert made.pool_batches == 100
    orders = []
    for epoch in range(2):
        seen = []
        for number in range(epoch * 100, epoch * 100 + 100):
            batch = reader.batch(*made.request(number))
            for ids, mask in zip(batch.ids, batch.mask, strict=True):
                length = int(mask.sum()) - 1
                word = int(ids[1])
                assert ids.tolist() == [0] + [word] * length + [0] * (batch.ids.shape[1] - 1 - length)
                assert mask.tolist() == [True] * (length + 1) + [False] * (len(mask) - length - 1)
                seen.append(word)
            assert batch.mask.any(0).all()  # no wider than its longest
        assert sorted(seen) == list(range(1, count + 1))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_sentences_of_a_batch_are_of_like_length() -> None:
    tokens = sentences(lengths(1000))
    made = Sentences(tokens, 40, 10, 0)
    spans = [made.request(number)[1].targets for number in range(100)]
    spans = [(int(span.min()), int(span.max())) for span in spans]
    assert spans != sorted(spans)  # the batches are shuffled
    spans.sort()
    assert all(low[1] <= high[0] for low, high in itertools.pairwise(spans))


def test_a_long_sentence_is_several_rows() -> None:
    tokens = sentences([3, 10, 4])
    reader, made = RowReader(tokens), SentencesOnce(tokens, 4)
    (batch,) = batches(reader, made.requests(10))
    assert batch.ids.tolist() == [
        [0, 1, 1, 1, 0],
        [0, 2, 2, 2, 2],
        [2, 2, 2, 2, 2],
        [2, 2, 2, 0, 0],
        [0, 3, 3, 3, 3],
        [3, 0, 0, 0, 0],
    ]
    assert batch.mask.sum(1).tolist() == [4, 4, 4, 3, 4, 1]


def test_few_sentences_fill_a_batch() -> None:
    tokens = sentences([2, 1])
    batch = RowReader(tokens).batch(*Sentences(tokens, 5, 6, 0).request(1))
    assert Counter(batch.ids[:, 1].tolist()) == {1: 3, 2: 3}


def test_originals_stand_beside_their_sentences() -> None:
    target, source = sentences([2, 5, 3, 0]), sentences([4, 1, 0, 2])
    reader = RowReader(target, Originals(source, longest=4))
    (batch,) = batches(reader, SentencesOnce(target, 3).requests(10))
    assert batch.ids[:, 1].tolist() == [1, 2, 2, 3, 0, 0]  # sentences of 6 and of 4 targets are two rows each
    assert batch.source.tolist() == [[1] * 4, [2, 0, 0, 0], [2, 0, 0, 0], [0] * 4, [0] * 4, [4, 4, 0, 0]]
    assert batch.source_mask.sum(1).tolist() == [4, 2, 2, 1, 1, 3]
    made = Sentences(target, 3, 4, 0)
    for number in range(20):
        batch = reader.batch(*made.request(number))
        for ids, source_ids in zip(batch.ids.tolist(), batch.source.tolist(), strict=True):
            if ids[1] in (1, 2):
                assert source_ids[0] == ids[1]


def evaluations(tokens: np.ndarray, context: int, rows: int) -> dict[str, object]:
    return {
        "windows": WindowsOnce(tokens, context),
        "strided": WindowsOnce(tokens, context, max(1, context // 3)),
        "carried": CarriedOnce(tokens, context, rows),
        "sentences": SentencesOnce(tokens, context),
    }


@settings(max_examples=100)
@given(
    words=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    context=st.integers(1, 12),
    rows=st.integers(1, 7),
    world_size=st.integers(1, 3),
)
def test_evaluation_counts_each_target_once(words: list[int], context: int, rows: int, world_size: int) -> None:
    tokens = sentences(words)
    reader = RowReader(tokens)
    for name, made in evaluations(tokens, context, rows).items():
        if len(made) < world_size:
            continue
        block = min(rows, len(made) // world_size)
        found: Counter[int] = Counter()
        for rank in range(world_size):
            parts = batches(reader, made.requests(block, rank, world_size))
            assert parts, name
            for part in parts:
                found.update(counted(part).tolist())
                assert part.ids.shape[1] <= context + 1
        assert found == Counter(tokens[1:].tolist()), name


def test_windows_read_their_own_tokens_only() -> None:
    reader = RowReader(numbered(11))
    first, second = batches(reader, WindowsOnce(reader.tokens, 4).requests(2))
    assert first.ids.tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    assert first.mask is None
    assert second.ids.tolist() == [[8, 9, 10, 0, 0]]
    assert second.mask.tolist() == [[True, True, False, False]]
    assert (first.start, second.start) == (0, 2)


def test_strided_windows_score_what_is_new() -> None:
    reader = RowReader(numbered(11))
    (batch,) = batches(reader, WindowsOnce(reader.tokens, 4, 3).requests(9))
    assert batch.ids.tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 9, 10]]
    assert [row[mask].tolist() for row, mask in zip(batch.ids[:, 1:], batch.mask, strict=True)] == [
        [1, 2, 3, 4],
        [5, 6, 7],
        [8, 9, 10],
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_carried_evaluation_goes_on_where_it_was(world_size: int) -> None:
    reader = RowReader(numbered(48))
    made = CarriedOnce(reader.tokens, 5, 4)
    rows: list[list[int]] = []
    for rank in range(world_size):
        parts = batches(reader, made.requests(99, rank, world_size))
        assert [part.carried for part in parts] == [False, True, True]
        for i in range(len(parts[0].ids)):
            assert all(a.ids[i, -1] == b.ids[i, 0] for a, b in itertools.pairwise(parts) if b.mask is None)
            rows.append([target for part in parts for target in counted(part.part(slice(i, i + 1))).tolist()])
    assert rows == [[*range(1, 13)], [*range(13, 25)], [*range(25, 37)], [*range(37, 48)]]
