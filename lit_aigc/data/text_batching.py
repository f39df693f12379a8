"""The tokens of a batch: for training a pure function of (seed, number), for evaluation each target once.

A text is a stream of ids that begins with the boundary 0. A row of a batch is a place in it and a number of targets,
the tokens after the place. A batch is requested as a `Request`, and cut out of the stream by `RowReader`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_aigc.data.loaders import Items, TrainingOrder, evaluation_requests, share_of_batch
from lit_aigc.data.token_store import boundaries
from lit_aigc.noise import Noise
from lit_aigc.spec import TextBatch

POOL_BATCHES = 100


class Rows(NamedTuple):
    """The rows of a batch.

    Attributes:
        begin: ``(N,)`` int64 place of each row's first token.
        width: T, the number of targets per row, including padding.
        targets: ``(N,)`` int64 number of real targets per row, at most T; None: T each.
        skipped: ``(N,)`` int64 number of leading targets that are only context; None: none.
        carried: See `TextBatch`.
        sentences: ``(N,)`` int64 number of each row's sentence; None without sentences.
    """

    begin: np.ndarray
    width: int
    targets: np.ndarray | None = None
    skipped: np.ndarray | None = None
    carried: bool = False
    sentences: np.ndarray | None = None


Request = tuple[int, Rows]
"""Global position of a batch's first row, in the stream of training or in a split, and the rows."""


class Originals:
    """The source of each translated sentence: its tokens and the boundary after them."""

    def __init__(self, tokens: np.ndarray, longest: int | None = None):
        """Keep a stream of sentences; those of more than `longest` tokens with the boundary are truncated."""
        self.tokens = tokens
        ends = boundaries(tokens)
        self.begin, self.lengths = ends[:-1] + 1, np.diff(ends)
        if longest is not None:
            self.lengths = np.minimum(self.lengths, longest)

    def batch(self, sentences: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return ids ``(N, S)`` int64 padded with 0, and ``(N, S)`` bool, false on the padding."""
        lengths = self.lengths[sentences]
        ids, real = _cut_out(self.tokens, self.begin[sentences], lengths, int(lengths.max()))
        return torch.from_numpy(ids), torch.from_numpy(real)


class RowReader(Items):
    """Cuts rows out of a stream in memory or on disk; reading is so fast that worker processes are of no use."""

    def __init__(self, tokens: np.ndarray, originals: Originals | None = None):
        self.tokens, self.originals = tokens, originals

    def batch(self, start: int, rows: Rows) -> TextBatch:
        """Return the batch of a request."""
        source = (None, None) if self.originals is None else self.originals.batch(rows.sentences)
        if rows.targets is None:
            ids = _windows(self.tokens, rows.begin, rows.width + 1)  # (N, T + 1)
            return TextBatch(torch.from_numpy(ids), None, start, rows.carried, *source)
        ids, real = _cut_out(self.tokens, rows.begin, rows.targets + 1, rows.width + 1)
        counted = real[:, 1:]  # (N, T)
        if rows.skipped is not None:
            counted = counted & (np.arange(rows.width) >= rows.skipped[:, None])
        return TextBatch(torch.from_numpy(ids), torch.from_numpy(counted), start, rows.carried, *source)


def _windows(tokens: np.ndarray, begin: np.ndarray, width: int) -> np.ndarray:
    """Return ids ``(N, width)`` int64 from each place on, all within the stream."""
    shape, strides = (len(tokens) - width + 1, width), tokens.strides * 2
    return np.lib.stride_tricks.as_strided(tokens, shape, strides, writeable=False)[begin].astype(np.int64)


def _cut_out(tokens: np.ndarray, begin: np.ndarray, lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids ``(N, width)`` int64 from each place on, 0 past its length, and ``(N, width)`` bool, true up to it."""
    place = np.arange(width)
    real = place < lengths[:, None]
    if begin.max() + width <= len(tokens):
        ids = _windows(tokens, begin, width)
    else:
        ids = tokens[np.minimum(begin[:, None] + place, len(tokens) - 1)].astype(np.int64)
    ids *= real
    return ids, real


class Crops:
    """Rows of `context` targets from places drawn uniformly and independently over the whole text."""

    def __init__(self, tokens: np.ndarray, context: int, batch_size: int, seed: int):
        self.places, self.context, self.batch_size = len(tokens) - context, context, batch_size
        self.epoch_batches = max(1, len(tokens) // (context * batch_size))
        self._noise = Noise(seed).stream("crops")
        self._drawn: tuple[int, np.ndarray] = (-1, np.empty(0))

    def request(self, number: int, rank: int = 0, world_size: int = 1) -> Request:
        """Return a rank's rows of a batch."""
        start, stop = share_of_batch(number, self.batch_size, rank, world_size)
        first = number * self.batch_size
        return start, Rows(self._places(number)[start - first : stop - first], self.context)

    def _places(self, number: int) -> np.ndarray:
        """Return where a batch's rows begin, ``(batch_size,)`` int64; drawn for many batches at once for speed."""
        many, place = divmod(number, POOL_BATCHES)
        if self._drawn[0] != many:
            bits = self._noise.skip(many * POOL_BATCHES * self.batch_size).bits(POOL_BATCHES * self.batch_size, 1)
            places = (bits.numpy() & (2**63 - 1)) % self.places
            self._drawn = (many, places.reshape(POOL_BATCHES, self.batch_size))
        return self._drawn[1][place]


class Reshuffled:
    """The text cut into windows of `context` targets, at new places and in a new order in each epoch.

    The first window of an epoch begins within the first `context` tokens; every epoch has as many windows as always
    fit.
    """

    def __init__(self, tokens: np.ndarray, context: int, batch_size: int, seed: int):
        self.context, self.batch_size = context, batch_size
        self.windows = max(1, (len(tokens) - context) // context)
        self.epoch_batches = max(1, self.windows // batch_size)
        self.offsets = min(context, len(tokens) - self.windows * context)
        self._order = TrainingOrder(self.windows, seed)
        self._noise = Noise(seed).stream("offsets")
        self._offset: tuple[int, int] = (-1, 0)

    def request(self, number: int, rank: int = 0, world_size: int = 1) -> Request:
        """Return a rank's rows of a batch."""
        start, stop = share_of_batch(number, self.batch_size, rank, world_size)
        windows = self._order.indices(start, stop).numpy()
        first, last = start // self.windows, (stop - 1) // self.windows
        if first == last:
            return start, Rows(windows * self.context + self._offset_of(first), self.context)
        offsets = np.array([self._offset_of(epoch) for epoch in range(first, last + 1)])
        epochs = np.arange(start, stop) // self.windows
        return start, Rows(windows * self.context + offsets[epochs - first], self.context)

    def _offset_of(self, epoch: int) -> int:
        """Return where the first window of an epoch begins; the last answer is cached."""
        if self._offset[0] != epoch:
            self._offset = (epoch, int(self._noise.skip(epoch).integers(1, self.offsets)))
        return self._offset[1]


class Carried:
    """The text as `batch_size` parallel rows, of which successive batches have successive parts.

    For truncated backpropagation through time, like torchtext's `BPTTIterator`: the text is padded with boundaries to a
    rectangle, whose last column is only a target. After the end comes the beginning again, without state.
    """

    def __init__(self, tokens: np.ndarray, context: int, batch_size: int, seed: int = 0):
        self.tokens, self.context, self.batch_size = len(tokens), context, batch_size
        self.columns = -(-len(tokens) // batch_size)
        self.epoch_batches = -(-(self.columns - 1) // context)

    def request(self, number: int, rank: int = 0, world_size: int = 1) -> Request:
        """Return a rank's rows of a batch."""
        start, stop = share_of_batch(number, self.batch_size, rank, world_size)
        place = number % self.epoch_batches * self.context
        width = min(self.context, self.columns - 1 - place)
        first = (start % self.batch_size + np.arange(stop - start)) * self.columns + place
        real = np.clip(self.tokens - 1 - first, -1, width)
        return start, Rows(first, width, None if real.min() == width else real, carried=place > 0)


class _SentenceRows:
    """The place, number of targets and number of the sentence of each row, all ``(N,)`` int64.

    The targets of a sentence are its words and the boundary after them; every `context` of them are a row.
    """

    def __init__(self, tokens: np.ndarray, context: int):
        ends = boundaries(tokens)
        lengths = np.diff(ends)
        pieces = -(-lengths // context)
        self.sentences = np.repeat(np.arange(len(lengths)), pieces)
        part = np.arange(len(self.sentences)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        self.begin = ends[self.sentences] + part * context
        self.targets = np.minimum(lengths[self.sentences] - part * context, context)

    def _rows(self, items: np.ndarray, width: int | None = None) -> Rows:
        width = width or int(self.targets[items].max())
        return Rows(self.begin[items], width, self.targets[items], sentences=self.sentences[items])


class Sentences(_SentenceRows):
    """Rows ``0 w1 … wn 0``, one per sentence, of similar length within a batch, like torchtext's `BucketIterator`.

    The sentences in their order of training are taken in pools of up to 100 batches; those of a pool are sorted by
    length and divided into batches, and the batches are shuffled. All ranks pad to the longest row of the whole batch.
    A sentence of more than `context` targets becomes several rows.
    """

    def __init__(self, tokens: np.ndarray, context: int, batch_size: int, seed: int):
        super().__init__(tokens, context)
        self.batch_size = batch_size
        self.epoch_batches = max(1, len(self.begin) // batch_size)
        self.pool_batches = min(POOL_BATCHES, self.epoch_batches)
        self._order = TrainingOrder(len(self.begin), seed)
        self._noise = Noise(seed).stream("pools")
        self._pool: tuple[int, np.ndarray] = (-1, np.empty(0))

    def request(self, number: int, rank: int = 0, world_size: int = 1) -> Request:
        """Return a rank's rows of a batch."""
        pool, place = divmod(number, self.pool_batches)
        items = self._batches(pool)[place]
        start, stop = share_of_batch(number, self.batch_size, rank, world_size)
        mine = items[start - number * self.batch_size : stop - number * self.batch_size]
        return start, self._rows(mine, width=int(self.targets[items].max()))

    def _batches(self, pool: int) -> np.ndarray:
        """Return the rows of a pool, ``(batches, batch_size)``; the last answer is cached."""
        if self._pool[0] != pool:
            size = self.pool_batches * self.batch_size
            items = self._order.indices(pool * size, (pool + 1) * size).numpy()
            items = items[np.argsort(self.targets[items], kind="stable")].reshape(self.pool_batches, -1)
            keys = self._noise.skip(pool).bits(1, self.pool_batches)[0].numpy()
            self._pool = (pool, items[np.argsort(keys, kind="stable")])
        return self._pool[1]


class _Once:
    """Rows that occur once each, in blocks dealt to the ranks in turn: the same blocks for any number of ranks."""

    begin: np.ndarray

    def __len__(self) -> int:
        return len(self.begin)

    def requests(self, block: int, rank: int = 0, world_size: int = 1) -> list[Request]:
        """Return this rank's blocks of at most `block` rows."""
        blocks = evaluation_requests(len(self), block, rank=rank, world_size=world_size)
        return [(start, self._rows(items.numpy())) for start, items in blocks]

    def _rows(self, items: np.ndarray) -> Rows:
        raise NotImplementedError


class WindowsOnce(_Once):
    """A split cut into windows of `context` targets; with a `stride`, they overlap and each scores only new targets.

    The first window scores all its targets; each later one begins `stride` tokens after the previous one and scores
    the targets that no earlier window has scored: `stride` of them, or fewer in the last window.
    """

    def __init__(self, tokens: np.ndarray, context: int, stride: int | None = None):
        stride = stride or context
        targets = len(tokens) - 1
        self.begin, self.context = np.arange(0, max(1, targets - context + stride), stride), context
        self.targets = np.minimum(targets - self.begin, context)
        self.skipped = np.where(self.begin > 0, context - stride, 0)

    def _rows(self, items: np.ndarray) -> Rows:
        targets, skipped = self.targets[items], self.skipped[items]
        if targets.min() == self.context and not skipped.any():
            return Rows(self.begin[items], self.context)
        return Rows(self.begin[items], self.context, targets, skipped)


class SentencesOnce(_SentenceRows, _Once):
    """Every sentence of a split as a row, in order; see `Sentences`."""


class CarriedOnce:
    """A split as parallel rows, of which successive batches have `context` targets at a time.

    The first token of each row is the last target of the row above it. The rows are divided among the ranks.
    """

    def __init__(self, tokens: np.ndarray, context: int, rows: int):
        self.targets, self.context = len(tokens) - 1, context
        self.columns = -(-self.targets // rows)
        self.parallel = -(-self.targets // self.columns)

    def __len__(self) -> int:
        return self.parallel

    def requests(self, block: int, rank: int = 0, world_size: int = 1) -> list[Request]:
        """Return this rank's rows in successive parts; `block` is ignored."""
        first, stop = (self.parallel * place // world_size for place in (rank, rank + 1))
        begin = np.arange(first, stop) * self.columns
        found = []
        for number, place in enumerate(range(0, self.columns, self.context)):
            width = min(self.context, self.columns - place)
            real = np.clip(self.targets - begin - place, 0, width)
            rows = Rows(begin + place, width, None if real.min() == width else real, carried=place > 0)
            found.append((number * self.parallel + first, rows))
        return found


TRAINING = {"crops": Crops, "reshuffled": Reshuffled, "carried": Carried, "sentences": Sentences}
"""How training batches are made, by the name in ``data.batching``."""

EVALUATION = {"windows": WindowsOnce, "strided": WindowsOnce, "carried": CarriedOnce, "sentences": SentencesOnce}
"""How splits are scored, by the name in ``data.evaluation``."""
