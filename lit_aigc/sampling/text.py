"""From tokens to text: stop strings, and streaming in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from lit_aigc.sampling.tokens import BOUNDARY
from lit_aigc.spec import Texts

Decode = Callable[[Sequence[int]], str]
_INCOMPLETE = "\ufffd"  # the decoding of bytes that aren't a character, or not yet
_TAIL = 32  # tokens that are decoded again with each new one


def cut(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    ends = [text.find(string) for string in stop if string in text]
    return text[: min(ends, default=len(text))]


def padded(texts: Sequence[Sequence[int]]) -> Texts:
    """Return token ids as rows of one tensor, filled up with the boundary."""
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
    ids = torch.full((len(texts), max(map(len, texts), default=0)), BOUNDARY)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
    return Texts(ids, lengths)


def to_strings(texts: Texts, decode: Decode, stop: Sequence[str] = ()) -> list[str]:
    """Decode texts to strings, each up to its first stop string."""
    ids = (row[:length].tolist() for row, length in zip(texts.ids, texts.lengths.tolist(), strict=True))
    return [cut(decode(text), stop) for text in ids]


def pieces(tokens: Iterable[int], decode: Decode, stop: Sequence[str] = ()) -> Iterator[str]:
    """Yield the text of tokens as they arrive, up to a stop string.

    Bytes of an incomplete character, and what may be the start of a stop string, are held back until that is decided.
    """
    ids: list[int] = []  # the latest tokens
    sent = 0  # number of their characters that were yielded
    for token in tokens:
        ids.append(token)
        text = decode(ids)
        end = len(cut(text, stop))
        if end == len(text):  # no stop string yet
            complete = text.removesuffix(_INCOMPLETE)
            end = len(complete) - _overlap(complete, stop)
        if end > sent:
            yield text[sent:end]
            sent = end
        if sent == len(text) and len(ids) > _TAIL:  # keep one token for context, so that the cost stays linear
            ids = ids[-1:]
            sent = len(decode(ids))
    if rest := cut(decode(ids), stop)[sent:]:
        yield rest


def end_test(stop: Sequence[str], decode: Decode | None) -> Callable[[list[int], int], bool]:
    """Return a function of a text and its next token that says whether the text ends with it."""
    if stop and decode is None:
        raise ValueError("stop strings need decode, from ids to text")
    # A stop string of n bytes ends within the last n tokens, since each is at least a byte.
    tail = max((len(string.encode()) for string in stop), default=0)

    def ended(text: list[int], token: int) -> bool:
        if token == BOUNDARY or not stop:
            return token == BOUNDARY
        end = decode([*text[-tail:], token])
        return any(string in end for string in stop)

    return ended


def _overlap(text: str, stop: Sequence[str]) -> int:
    """Return the length of the longest suffix of a text that is a prefix of a stop string."""
    most = max((len(string) for string in stop), default=0)
    ends = (text[-length:] for length in range(min(most, len(text)), 0, -1))
    return next((len(end) for end in ends if any(string.startswith(end) for string in stop)), 0)
