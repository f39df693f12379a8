from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_aigc.data.text_batching import CarriedOnce, RowReader, WindowsOnce
from lit_aigc.errors import InputError
from lit_aigc.metrics.text_likelihood import text_likelihood
from lit_aigc.modules.language_model import LanguageModel

SIZES = torch.tensor([[0, 0], [1, 1], [1, 2], [2, 3], [1, 1]])


class Reader:
    """A network that gives the id after the last one more than the others, the more the more tokens it has read."""

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


class Module:
    device = torch.device("cpu")
    score = LanguageModel.score

    def __init__(self, context: int = 0) -> None:
        self.network = Reader(context)


def nats_of(last: int, target: int, read: int) -> float:
    others = math.exp(-0.1 * read)
    return -math.log((math.e if target == (last + 1) % 5 else others) / (math.e + 4 * others))


STREAM = np.random.default_rng(0).integers(0, 5, 84).astype(np.uint16)


def batches(rows, block=4):
    return [RowReader(STREAM).batch(start, request) for start, request in rows.requests(block)]


def expected(read) -> float:
    """Nats of all 83 targets, of which number i is given ``read(i)`` tokens."""
    return sum(nats_of(int(STREAM[i]), int(STREAM[i + 1]), read(i)) for i in range(83))


@pytest.mark.parametrize("context", [0, 8])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_windows_by_hand(context, block):
    found = text_likelihood(Module(context), batches(WindowsOnce(STREAM, 8), block), SIZES)
    nats, tokens, characters, size = found.tolist()
    assert found.dtype == torch.float64
    assert nats == pytest.approx(expected(lambda i: i % 8 + 1), rel=1e-6)
    assert tokens == 83
    assert [characters, size] == SIZES[torch.from_numpy(STREAM[1:].astype(int))].sum(dim=0).tolist()


def test_strided_by_hand():
    nats, tokens, *_ = text_likelihood(Module(8), batches(WindowsOnce(STREAM, 8, 4)), SIZES).tolist()
    assert tokens == 83
    assert nats == pytest.approx(expected(lambda i: i + 1 if i < 8 else i % 4 + 5), rel=1e-6)


@pytest.mark.parametrize("context", [1, 10, 83, 512])
def test_carried_by_hand(context):
    nats, tokens, *_ = text_likelihood(Module(), batches(CarriedOnce(STREAM, context, 1)), SIZES).tolist()
    assert tokens == 83
    assert nats == pytest.approx(expected(lambda i: i + 1), rel=1e-6)


def test_rows_that_are_carried_side_by_side():
    nats, tokens, *_ = text_likelihood(Module(), batches(CarriedOnce(STREAM, 10, 3)), SIZES).tolist()
    assert tokens == 83
    assert nats == pytest.approx(expected(lambda i: i % 28 + 1), rel=1e-6)


def test_a_network_with_a_limit_carries_no_state():
    with pytest.raises(InputError, match="8 tokens at most: take strided"):
        text_likelihood(Module(8), batches(CarriedOnce(STREAM, 8, 1)), SIZES)


def test_what_is_not_finite_is_refused():
    broken = SimpleNamespace(
        device="cpu", network=Reader(), score=lambda batch, state: (batch.ids[:, 1:] * math.nan, None)
    )
    with pytest.raises(InputError, match="not finite"):
        text_likelihood(broken, batches(WindowsOnce(STREAM, 8)), SIZES)
