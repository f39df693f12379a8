"""How much of generated text stands in the training text: copies of n-grams, and the longest of all.

The training text may be far larger than memory: its n-grams are looked up, in blocks, among the hashes of the few that
were generated, rather than the other way round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from lit_aigc.metrics.text_quality import words

Codes = np.ndarray  # (m,) uint64, a random number for each symbol
Training = Callable[[], Iterable[str]]  # the texts of the training split, from the beginning each time

BLOCK = 1 << 20  # symbols of the training text in memory at a time
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no symbol of an n-gram is lost modulo 2^64
_BETWEEN = np.uint64(0x5851F42D4C957F2D)  # a symbol between texts, which no text has
_TABLE = 22  # bits of a hash that a table of what was generated is looked up by


def characters(text: str) -> Codes:
    """A number for each character."""
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4").astype(np.uint64)
    return _mixed(points + np.uint64(1))


def word_codes(text: str) -> Codes:
    """A number for each of the text's `lit_aigc.metrics.text_quality.words`."""
    return np.fromiter(map(_word_code, words(text)), dtype=np.uint64)


def hashes(codes: Codes, n: int) -> np.ndarray:
    """A hash of each run of n symbols: polynomials modulo 2^64, made by doubling.

    Args:
        codes: ``(m,)``.
        n: 1 or more.

    Returns:
        ``(max(m - n + 1, 0),)`` uint64. That two different n-grams have one hash can be left out of account.
    """
    if n < 1:
        raise ValueError(f"n={n}: expected 1 or more")
    if len(codes) < n:
        return np.zeros(0, dtype=np.uint64)
    power, width, doubled = _FACTOR, 1, codes  # hashes of runs of `width`, and the factor to that power
    result, done, rest = None, 0, n
    with np.errstate(over="ignore"):
        while rest:
            if rest & 1:  # put the run of `width` symbols behind what there is
                result = doubled if result is None else result[: len(codes) - done - width + 1] * power + doubled[done:]
                done += width
            rest >>= 1
            if rest:
                doubled = doubled[:-width] * power + doubled[width:]
                power, width = power * power, 2 * width
    return _mixed(result)


def found_in(
    texts: Sequence[str], training: Iterable[str], n: int, codes: Callable[[str], Codes] = word_codes
) -> list[np.ndarray]:
    """Which n-grams of some texts stand in a training text.

    Args:
        texts: Those that are looked up.
        training: Texts of the training split; an n-gram doesn't reach from one into the next.
        n: Length of an n-gram.
        codes: `word_codes`, or `characters`.

    Returns:
        For each text ``(max(m - n + 1, 0),)`` bool. Memory is that of these texts and of some blocks.
    """
    own = [hashes(codes(text), n) for text in texts]
    sought = np.unique(np.concatenate([*own, np.zeros(0, dtype=np.uint64)]))
    seen = np.zeros(len(sought), dtype=bool)
    if len(sought):
        shift = np.uint64(64 - _TABLE)
        table = np.zeros(1 << _TABLE, dtype=bool)
        table[sought >> shift] = True
        for block in _blocks(training, n, codes):
            there = hashes(block, n)
            there = there[table[there >> shift]]  # nearly all of what was not generated ends here
            at = np.searchsorted(sought, there).clip(max=len(sought) - 1)
            seen[at[sought[at] == there]] = True
    return [seen[np.searchsorted(sought, each)] for each in own]


def copied_share(
    sets: Sequence[Sequence[str]], training: Training, n: int, codes: Callable[[str], Codes] = word_codes
) -> list[float]:
    """Share of the n-grams of each set of texts that stand in the training text, in [0, 1].

    Args:
        sets: Sets of texts; one pass over the training text does for all.
        training: Gives the texts of the training split.
        n: Length of an n-gram.
        codes: `word_codes`, or `characters`.

    Returns:
        One number a set; 0 for a set without any n-gram.
    """
    marks = iter(found_in([text for texts in sets for text in texts], training(), n, codes))
    joined = [np.concatenate([np.zeros(0, dtype=bool), *(next(marks) for _ in texts)]) for texts in sets]
    return [float(each.mean()) if len(each) else 0.0 for each in joined]


def longest_copy(texts: Sequence[str], training: Training) -> int:
    """Length in characters of the longest part of any of the texts that stands in the training text.

    Every part of a copy is a copy, so the length is found by bisection, with a pass over the training text a step.
    """
    copied, too_long = 0, max(map(len, texts), default=0) + 1
    length = min(32, too_long // 2)  # a likely upper bound of what isn't learnt by heart, doubled while it is copied
    while too_long - copied > 1:
        if any(mark.any() for mark in found_in(texts, training(), length, characters)):
            copied = length
            length = min(2 * length, (copied + too_long) // 2)
        else:
            too_long = length
            length = (copied + too_long) // 2
    return copied


def _blocks(training: Iterable[str], n: int, codes: Callable[[str], Codes]) -> Iterator[Codes]:
    """The training text in blocks of about `BLOCK` symbols that overlap by n - 1, with a mark between texts."""
    waiting: list[Codes] = []
    count = 0
    for text in training:
        for piece in _pieces(text):
            waiting.append(codes(piece))
            count += len(waiting[-1])
            if count >= BLOCK:
                block = np.concatenate(waiting)
                yield block
                waiting = [block[max(len(block) - n + 1, 0) :]]
                count = len(waiting[0])
        waiting.append(np.full(1, _BETWEEN))
        count += 1
    if waiting:
        yield np.concatenate(waiting)


def _pieces(text: str) -> Iterator[str]:
    """Parts of a text of at most `BLOCK` characters, which end where a word does, unless one word is as long."""
    start = 0
    while start < len(text):
        stop = start + BLOCK
        if stop < len(text):
            stop = max(text.rfind(space, start, stop) for space in " \n") + 1 or stop
        yield text[start:stop]
        start = stop


def _mixed(x: np.ndarray) -> np.ndarray:
    """All bits of each number spread over all bits (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=1 << 18)
def _word_code(word: str) -> int:
    digest = hashlib.blake2b(word.encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
