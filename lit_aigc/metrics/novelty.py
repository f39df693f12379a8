"""Find what generated text copies from the training text: n-grams, and the longest copy of all.

The training text may be far larger than memory: its n-grams are looked up, in blocks, among the hashes of the few
generated ones, rather than the other way around.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from lit_aigc.metrics.text_quality import words

Codes = np.ndarray  # (m,) uint64, a random number for each symbol
Training = Callable[[], Iterable[str]]  # returns the texts of the training split, from the beginning each time

BLOCK = 1 << 20  # symbols of the training text in memory at a time
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no symbol of an n-gram is lost modulo 2^64
_BETWEEN = np.uint64(0x5851F42D4C957F2D)  # a symbol between texts, which no text contains
_TABLE = 22  # bits of a hash that index a table of what was generated


def characters(text: str) -> Codes:
    """Return a number for each character."""
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4").astype(np.uint64)
    return _mixed(points + np.uint64(1))


def word_codes(text: str) -> Codes:
    """Return a number for each of the text's `lit_aigc.metrics.text_quality.words`."""
    return np.fromiter(map(_word_code, words(text)), dtype=np.uint64)


def hashes(codes: Codes, n: int) -> np.ndarray:
    """Hash each run of n symbols: polynomials modulo 2^64, computed by doubling.

    Args:
        codes: ``(m,)``.
        n: 1 or more.

    Returns:
        ``(max(m - n + 1, 0),)`` uint64. Collisions are too rare to matter.
    """
    if n < 1:
        raise ValueError(f"n={n}: expected 1 or more")
    if len(codes) < n:
        return np.zeros(0, dtype=np.uint64)
    power, width, doubled = _FACTOR, 1, codes  # hashes of runs of `width`, and the factor to that power
    result, done, rest = None, 0, n
    with np.errstate(over="ignore"):
        while rest:
            if rest & 1:  # append the run of `width` symbols
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
    """Find which n-grams of some texts occur in a training text.

    Args:
        texts: The texts to look up.
        training: Texts of the training split; n-grams don't extend from one text into the next.
        n: Length of an n-gram.
        codes: `word_codes`, or `characters`.

    Returns:
        For each text ``(max(m - n + 1, 0),)`` bool. Memory is that of these texts and a few blocks.
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
            there = there[table[there >> shift]]  # drops nearly all of what was not generated
            at = np.searchsorted(sought, there).clip(max=len(sought) - 1)
            seen[at[sought[at] == there]] = True
    return [seen[np.searchsorted(sought, each)] for each in own]


def copied_share(
    sets: Sequence[Sequence[str]], training: Training, n: int, codes: Callable[[str], Codes] = word_codes
) -> list[float]:
    """Return the share of the n-grams of each set of texts that occur in the training text, in [0, 1].

    Args:
        sets: Sets of texts; one pass over the training text serves all.
        training: Returns the texts of the training split.
        n: Length of an n-gram.
        codes: `word_codes`, or `characters`.

    Returns:
        One number per set; 0 for a set without n-grams.
    """
    marks = iter(found_in([text for texts in sets for text in texts], training(), n, codes))
    joined = [np.concatenate([np.zeros(0, dtype=bool), *(next(marks) for _ in texts)]) for texts in sets]
    return [float(each.mean()) if len(each) else 0.0 for each in joined]


def longest_copy(texts: Sequence[str], training: Training) -> int:
    """Return the length in characters of the longest part of any of the texts that occurs in the training text.

    Every part of a copy is a copy, so the length is found by bisection, with one pass over the training text per step.
    """
    copied, too_long = 0, max(map(len, texts), default=0) + 1
    length = min(32, too_long // 2)  # a likely upper bound unless text was memorized, doubled while it is copied
    while too_long - copied > 1:
        if any(mark.any() for mark in found_in(texts, training(), length, characters)):
            copied = length
            length = min(2 * length, (copied + too_long) // 2)
        else:
            too_long = length
            length = (copied + too_long) // 2
    return copied


def _blocks(training: Iterable[str], n: int, codes: Callable[[str], Codes]) -> Iterator[Codes]:
    """Yield the training text in blocks of about `BLOCK` symbols that overlap by n - 1, with a mark between texts."""
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
    """Yield parts of a text of at most `BLOCK` characters that end at the end of a word, unless a word is that long."""
    start = 0
    while start < len(text):
        stop = start + BLOCK
        if stop < len(text):
            stop = max(text.rfind(space, start, stop) for space in " \n") + 1 or stop
        yield text[start:stop]
        start = stop


def _mixed(x: np.ndarray) -> np.ndarray:
    """Spread all bits of each number over all bits (the finalizer of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=1 << 18)
def _word_code(word: str) -> int:
    digest = hashlib.blake2b(word.encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
