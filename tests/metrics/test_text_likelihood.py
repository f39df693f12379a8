from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.text_likelihood import carried_sums, running_text, window_sums, windows
from lit_aigc.spec import TextBatch

SIZES = torch.tensor([[0, 0], [1, 1], [1, 2], [2, 3], [1, 1]])


class Reader:
    """A network that gives the id after the last one 1/2, and shares the rest by how many tokens it has read."""

    def __init__(self, context: int = 0) -> None:
        self.context = context

    def new_cache(self, n: int) -> dict[str, int]:
        return {"read": 0, "rows": n}

    def __call__(self, ids, cache=None):
        before = cache["read"] if cache else 0
        if cache:
            assert len(ids) == cache["rows"]
            cache["read"] += ids.shape[1]
        read = torch.arange(1, ids.shape[1] + 1) + before
        logits = torch.zeros(*ids.shape, 5) - 0.1 * read[:, None]
        return logits.scatter(2, ((ids + 1) % 5)[..., None], 1.0)


def module(context: int = 0) -> SimpleNamespace:
    return SimpleNamespace(network=Reader(context), device=torch.device("cpu"))


def nats_of(last: int, target: int, read: int) -> float:
    others = math.exp(-0.1 * read)
    return -math.log((math.e if target == (last + 1) % 5 else others) / (math.e + 4 * others))


def text(length: int = 83) -> torch.Tensor:
    ids = torch.randint(0, 5, (length + 1,), generator=torch.Generator().manual_seed(0))
    ids[0] = 0
    return ids


@pytest.mark.parametrize("length", [1, 5, 8, 9, 16, 83])
@pytest.mark.parametrize("stride", [None, 1, 3, 7, 8])
def test_each_token_counts_once_with_the_context_it_is_promised(length, stride):
    ids, seen = torch.arange(length + 1), []
    for batch in windows(ids, 8, stride, rows=4):
        assert batch.ids.shape[1] == 9 and batch.mask.shape[1] == 8
        for row, mask in zip(batch.ids, batch.mask, strict=True):
            for place in mask.nonzero().flatten().tolist():
                seen.append(int(row[place + 1]))
                assert row[place + 1] == row[place] + 1
                assert place >= min(8 - (stride or 8), int(row[place + 1]) - 1)
    assert seen == list(range(1, length + 1))


def test_windows_know_where_they_are():
    assert [(batch.start, len(batch.ids)) for batch in windows(text(), 8, rows=4)] == [(0, 4), (4, 4), (8, 3)]


@pytest.mark.parametrize("stride", [0, 9])
def test_a_stride_out_of_range_is_refused(stride):
    with pytest.raises(InputError, match="1 to the context"):
        next(windows(text(), 8, stride))


@pytest.mark.parametrize("length", [1, 8, 15, 83])
def test_the_running_text_comes_back_from_its_windows(length):
    assert torch.equal(running_text(windows(text(length), 8, rows=3)), text(length))


def test_windows_without_a_mask_are_a_running_text():
    ids = text(24)
    batches = [batch._replace(mask=None) for batch in windows(ids, 8, rows=2)]
    assert torch.equal(running_text(batches), ids)


def test_separate_texts_are_no_running_text():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    with pytest.raises(InputError, match="separate texts"):
        running_text([TextBatch(torch.tensor([[0, 1, 0, 0], [0, 3, 1, 0]]), mask, 0)])
    with pytest.raises(InputError, match="no text"):
        running_text([])


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_windows_by_hand(rows):
    ids = text()
    nats, tokens, characters, size = window_sums(module(), windows(ids, 8, rows=rows), SIZES).tolist()
    expected = [nats_of(int(ids[i]), int(ids[i + 1]), i % 8 + 1) for i in range(83)]
    assert nats == pytest.approx(sum(expected), rel=1e-6)
    assert tokens == 83
    assert [characters, size] == SIZES[ids[1:]].sum(dim=0).tolist()


def test_strided_by_hand():
    ids = text()
    nats, tokens, *_ = window_sums(module(), windows(ids, 8, 4), SIZES).tolist()
    expected = [nats_of(int(ids[i]), int(ids[i + 1]), i + 1 if i < 8 else i % 4 + 5) for i in range(83)]
    assert nats == pytest.approx(sum(expected), rel=1e-6)
    assert tokens == 83


@pytest.mark.parametrize("piece", [1, 10, 83, 512])
def test_carried_by_hand(piece):
    ids = text()
    nats, tokens, *_ = carried_sums(module(), ids, SIZES, piece).tolist()
    assert nats == pytest.approx(sum(nats_of(int(ids[i]), int(ids[i + 1]), i + 1) for i in range(83)), rel=1e-6)
    assert tokens == 83


def test_a_network_with_a_limit_carries_no_state():
    with pytest.raises(InputError, match="8 tokens at most: take strided"):
        carried_sums(module(8), text(), SIZES)


def test_what_is_not_finite_is_refused():
    broken = SimpleNamespace(network=lambda ids: torch.full((*ids.shape, 5), math.nan), device="cpu")
    with pytest.raises(InputError, match="not finite"):
        window_sums(broken, windows(text(), 8), SIZES)
