"""What data and models know of each other: facts about samples, batches, and what to sample."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Facts about one data set, complete before any model is built.

    A constructor parameter of a network or module that is named like a field is filled in from it (see
    `lit_aigc.build.resolve`), so that no config states a number of channels or classes twice.

    Attributes:
        modality: ``"image"``, ``"text"`` or ``"audio"``.
        shape: Shape of one sample without the batch dimension: ``(C, H, W)`` for images,
            ``(T,)`` for text of which a model reads T tokens at once.
        value_range: Smallest and largest value of a sample as the model sees it.
        num_classes: Number of classes, 0 when the data has no labels.
        class_names: One name per class, in the order of the labels; empty if they have none.
        vocab_size: Number of token ids of text, of which id 0 is the boundary between texts; 0 for anything else.
        sample_rate: Samples per second of audio; 0 for anything else.
        fingerprint: Hash of the data's content and preparation; equal data have equal fingerprints.
        name: The name of the data set as in ``conf/data``.
        attribution: Attribution that the license requires wherever the data, or samples of models of it, are shown.
        evaluation: For text, how a split is scored; see `lit_aigc.data.text.TextData`.
        token_counts: For text, counts how often each id ``(vocab_size,)`` occurs in the training text; not saved.
    """

    modality: str
    shape: tuple[int, ...]
    value_range: tuple[float, float] = (-1.0, 1.0)
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    vocab_size: int = 0
    sample_rate: int = 0
    fingerprint: str = ""
    name: str = ""
    attribution: str = ""
    evaluation: str = ""
    token_counts: Callable[[], np.ndarray] | None = dataclasses.field(default=None, compare=False, repr=False)

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where the data names none."""
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON types."""
        facts = {key: value for key, value in vars(self).items() if key != "token_counts"}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> DataSpec:
        """Make a spec from what `to_dict` returns."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()})


def _cut(values: Any, items: slice) -> Any:
    return None if values is None else values[items]


class Batch(NamedTuple):
    """A batch of images on its way from a loader to a module.

    Attributes:
        images: ``(N, C, H, W)``: uint8 as the loader yields it, floats in the spec's range as the module gets it.
        labels: ``(N,)`` int64, or None for data without labels.
        start: Global position of the first item in the stream (training) or in the split (evaluation). Item i of the
            batch is item ``start + i`` of the stream on any number of processes, so it gets the same noise.
    """

    images: Tensor
    labels: Tensor | None
    start: int

    def part(self, items: slice) -> Batch:
        """Return some of the items, with their position in the stream."""
        return Batch(self.images[items], _cut(self.labels, items), self.start + (items.start or 0))


class TextBatch(NamedTuple):
    """A batch of rows of tokens: a language model reads ``ids[:, :-1]`` and is scored on ``ids[:, 1:]``.

    Attributes:
        ids: ``(N, T + 1)`` int64.
        mask: ``(N, T)`` bool, the targets that count; None: all of them do. The others are padding, or context
            only.
        start: Global position of the first row in the stream (training) or in the split (evaluation).
        carried: Whether each row continues the same row of the previous batch, so that a recurrent network keeps its
            state.
        source: ``(N, S)`` int64, the text that each row translates; None for plain text.
        source_mask: ``(N, S)`` bool, false on the padding of `source`.
        labels: ``(N,)`` int64 class of each row, or None.
    """

    ids: Tensor
    mask: Tensor | None
    start: int
    carried: bool = False
    source: Tensor | None = None
    source_mask: Tensor | None = None
    labels: Tensor | None = None

    def part(self, items: slice) -> TextBatch:
        """Return some of the rows, with their position in the stream."""
        rows = ("ids", "mask", "source", "source_mask", "labels")
        cut = {name: _cut(getattr(self, name), items) for name in rows}
        return self._replace(start=self.start + (items.start or 0), **cut)


class Texts(NamedTuple):
    """Generated text.

    Attributes:
        ids: ``(n, L)`` int64 without the prompt, padded with 0.
        lengths: ``(n,)`` int64 number of tokens per text.
    """

    ids: Tensor
    lengths: Tensor


@dataclasses.dataclass(frozen=True)
class Condition:
    """What samples are asked for, with one entry per sample.

    Attributes:
        labels: ``(n,)`` int64 class labels.
        prompts: For text, n 1-D int64 tensors of token ids, each of its own length: the beginning of each text or, for
            a translation, its source.
    """

    labels: Tensor | None = None
    prompts: tuple[Tensor, ...] | None = None

    def __getitem__(self, items: slice) -> Condition:
        """Return the condition of some of the samples."""
        return Condition(_cut(self.labels, items), _cut(self.prompts, items))
