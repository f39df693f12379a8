"""From tokens to text: where a stop string ends it, and pieces of it while it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from lit_aigc.sampling.tokens import BOUNDARY
from lit_aigc.spec import Texts

Decode = Callable[[Sequence[int]], str]
_INCOMPLETE = "\ufffd"  # what bytes that are no character, or not yet, are decoded to
_TAIL = 32  # tokens that are decoded once more with a new one


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return text[: min((place for string in stop if (place := text.find(string)) >= 0), default=len(text))]


def written(texts: Texts, decode: Decode, stop: Sequence[str] = ()) -> list[str]:
    """The texts as strings, each up to its first stop string."""
    ids = (row[:length].tolist() for row, length in zip(texts.ids, texts.lengths.tolist(), strict=True))
    return [cut(decode(text), stop) for text in ids]


def pieces(tokens: Iterable[int], decode: Decode, stop: Sequence[str] = ()) -> Iterator[str]:
    """Text of tokens as they come, up to a stop string.

    Held back until it is sure: bytes of a character that is not complete, and what may be the start of a stop string.
    """
    ids: list[int] = []  # the latest tokens
    given = 0  # characters of theirs that were given
    for token in tokens:
        ids.append(token)
        text = decode(ids)
        end = len(cut(text, stop))
        if end == len(text):
            sure = text.removesuffix(_INCOMPLETE)
            end = len(sure) - _overlap(sure, stop)
        if end > given:
            yield text[given:end]
            given = end
        if given == len(text) and len(ids) > _TAIL:  # long texts are not decoded again and again
            ids = ids[-1:]
            given = len(decode(ids))
    if rest := cut(decode(ids), stop)[given:]:
        yield rest


def end_test(stop: Sequence[str], decode: Decode | None) -> Callable[[list[int], int], bool]:
    """Whether a text, of the tokens written so far, ends with the next token."""
    if stop and decode is None:
        raise ValueError("stop strings need decode, from ids to text")
    tail = max((len(string.encode()) for string in stop), default=0)  # tokens; each is a byte or more

    def ended(text: list[int], token: int) -> bool:
        if token == BOUNDARY or not stop:
            return token == BOUNDARY
        end = decode([*text[-tail:], token])
        return any(string in end for string in stop)

    return ended


def _overlap(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of a text that a stop string begins with."""
    most = max((len(string) for string in stop), default=0)
    ends = (text[-length:] for length in range(min(most, len(text)), 0, -1))
    return next((len(end) for end in ends if any(string.startswith(end) for string in stop)), 0)
