"""Documents as streams of pieces, so that no text, however long, has to be in memory as a whole."""

from __future__ import annotations

import codecs
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_aigc.errors import InputError

PIECE_BYTES = 1 << 20
"""The approximate size of the pieces of a long document."""

_BEFORE_A_LINE = re.compile(r"(?<=\S)(?=\r?\n\S)")
_BEFORE_A_WORD = re.compile(r"(?<=\S)(?=\s\S)")
_SEARCHED = 1 << 14


class Piece(NamedTuple):
    """A document, or a part of one that is long.

    Attributes:
        text: The text; a byte that is not UTF-8 is a lone surrogate, as by Python's ``surrogateescape``.
        ends: Whether the document ends with it. The last piece of a split that is a slice of a longer text doesn't.
    """

    text: str
    ends: bool = True


Documents = Callable[[], Iterator[Piece]]
"""Reads the documents of a split in order, from the start at each call."""


def file_pieces(path: str | Path, start: int = 0, stop: int | None = None, size: int = PIECE_BYTES) -> Iterator[Piece]:
    """Yield a file, or a part of it, as one document, cut where a tokenizer of words or byte pairs would cut too.

    That is before the white space in front of a line or word, or anywhere if there is none within 16,000 characters.

    Args:
        path: The file.
        start: Its first byte.
        stop: One past its last byte; None: to the end.
        size: Bytes to read at once.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    rest, left = "", (os.path.getsize(path) if stop is None else stop) - start
    with open(path, "rb") as file:
        file.seek(start)
        while left > 0 and (block := file.read(min(size, left))):
            left -= len(block)
            if len(rest) >= size // 2:
                cut = _cut(rest)
                yield Piece(rest[:cut], ends=False)
                rest = rest[cut:]
            rest += decoder.decode(block)
    yield Piece(rest + decoder.decode(b"", final=True))


def _cut(text: str) -> int:
    """Return where to cut: within the last characters, but not after the last word, which may be incomplete."""
    first = max(1, len(text) - _SEARCHED)
    for pattern in (_BEFORE_A_LINE, _BEFORE_A_WORD):
        if found := pattern.search(text, first):
            return found.start()
    return len(text)


def lines(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield each line that is not blank as a document of its own, without its line end; a long one in pieces."""
    inside = False  # in the middle of a line
    for piece in pieces:
        *whole, last = re.split(r"\r?\n", piece.text)
        for line in whole:
            if inside or line.strip():
                yield Piece(line)
            inside = False
        if last.strip() or (inside and (last or piece.ends)):
            yield Piece(last, piece.ends)
            inside = not piece.ends
        elif piece.ends:
            inside = False


def files_as_documents(parts: Sequence[tuple[Any, ...]]) -> Documents:
    """Return documents, one per file or part of one: its path, and optionally its first byte and one past its last."""
    return lambda: itertools.chain.from_iterable(file_pieces(*part) for part in parts)


def lines_as_documents(parts: Sequence[tuple[Any, ...]]) -> Documents:
    """Return documents, one per line of such files that is not blank."""
    return lambda: itertools.chain.from_iterable(lines(file_pieces(*part)) for part in parts)


def is_text(path: Path) -> bool:
    """Return whether the first 8 KiB of a file look like UTF-8: no zero byte, and at most a tenth invalid."""
    try:
        with path.open("rb") as file:
            head = file.read(8192)
    except OSError:
        return False
    invalid = sum("\udc80" <= character <= "\udcff" for character in head.decode("utf-8", "surrogateescape"))
    return b"\0" not in head and invalid <= max(4, len(head) // 10)


def line_start(path: Path, fraction: float) -> int:
    """Return the first byte of the first line that begins after this fraction of a file.

    Within the last line, or a line of more than 64 KiB, return the next character instead.
    """
    place = int(os.path.getsize(path) * fraction)
    with path.open("rb") as file:
        file.seek(place)
        head = file.read(1 << 16)
    newline = head.find(b"\n")
    if 0 <= newline < len(head) - 1:
        return place + newline + 1
    return place + next((i for i, byte in enumerate(head) if byte & 0xC0 != 0x80), len(head))


def stamp(paths: Iterable[Path], *facts: object) -> str:
    """Return a hash that changes when a fact or a file does, by its name, size and time; no file is read."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror}).") from None
        digest.update(f"{path.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
