"""The facts that data tells models: what a sample looks like, and what a model may be asked for."""

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

    A constructor parameter of a network or module that has the name of a field here is filled in from it (see
    `lit_aigc.build.resolve`), so that a channel count or a class count is written nowhere twice.

    Attributes:
        modality: ``"image"``, ``"text"`` or ``"audio"``.
        shape: Shape of one sample without the batch dimension: ``(C, H, W)`` for images,
            ``(T,)`` for text that a model reads T tokens of at once.
        value_range: Smallest and largest value of a sample as the model sees it.
        num_classes: Number of classes, 0 when the data has no labels.
        class_names: One name a class, in the order of the labels.
        vocab_size: Number of token ids of text, 0 of which is the boundary between texts; else 0.
        sample_rate: Samples per second of audio, else 0.
        fingerprint: Hash of the data's content and preparation; equal data have equal fingerprints.
        name: The name of the data set as in ``conf/data``.
        evaluation: Of text, how a split is scored; see `lit_aigc.data.text.TextData`.
        token_counts: Of text, counts how often each id ``(vocab_size,)`` comes in the training text; not saved.
        attribution: Whom the licence of the data asks to be named where they, or what was made of them, are shown.
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

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types."""
        facts = {key: value for key, value in vars(self).items() if key != "token_counts"}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> DataSpec:
        """The inverse of `to_dict`."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()})


class Batch(NamedTuple):
    """A batch of images on its way from a loader to a module.

    Attributes:
        images: ``(N, C, H, W)``: uint8 as the loader yields it, floats in the spec's range as the module gets it.
        labels: ``(N,)`` int64, or None for data without labels.
        start: Global position of the first item in the stream (training) or in the split (evaluation). Item i of the
            batch is item ``start + i`` of the stream on any number of processes, so noise for it can be drawn alike.
    """

    images: Tensor
    labels: Tensor | None
    start: int

    def part(self, items: slice) -> Batch:
        """Some of the items, which know where they are in the stream."""
        labels = None if self.labels is None else self.labels[items]
        return Batch(self.images[items], labels, self.start + (items.start or 0))


class TextBatch(NamedTuple):
    """A batch of rows of tokens: a language model reads ``ids[:, :-1]`` and is scored on ``ids[:, 1:]``.

    Attributes:
        ids: ``(N, T + 1)`` int64.
        mask: ``(N, T)`` bool, the targets that count; None: all of them do. What doesn't count is padding, or is
            context only.
        start: Global position of the first row in the stream (training) or in the split (evaluation).
        carried: Whether each row goes on where the same row of the batch before ended, so that a recurrent network
            keeps its state.
        source: ``(N, S)`` int64, what each row is the translation of; None for plain text.
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
        """Some of the rows, which know where they are in the stream."""
        first = items.start or 0
        return TextBatch(
            *(value[items] if hasattr(value, "shape") else value for value in self[:2]),
            self.start + first,
            *(value[items] if hasattr(value, "shape") else value for value in self[3:]),
        )


class Texts(NamedTuple):
    """Generated text.

    Attributes:
        ids: ``(n, L)`` int64 without the prompt, padded with 0.
        lengths: ``(n,)`` int64 number of tokens of each.
    """

    ids: Tensor
    lengths: Tensor


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a model is asked for, one entry a sample.

    Attributes:
        labels: ``(n,)`` int64 class labels.
        prompts: Of text, n 1-D int64 tensors of token ids, each of its own length: what a text begins with, or (for a
            translation) its source.
    """

    labels: Tensor | None = None
    prompts: tuple[Tensor, ...] | None = None

    def __getitem__(self, items: slice) -> Condition:
        """The conditions of some of the samples."""
        return Condition(*(None if entry is None else entry[items] for entry in (self.labels, self.prompts)))
