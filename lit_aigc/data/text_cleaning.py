"""Cleaning of text: what is removed from documents, which documents are dropped, and counts of both."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from lit_aigc.data.text_pieces import PIECE_BYTES, Piece
from lit_aigc.errors import InputError, check

_INVALID = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LINE_END = re.compile("\r\n?")
_WORD = re.compile(r"\w+")

_SHINGLE = 5
_HASHES, _BANDS, _ROWS = 64, 8, 4
_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """What to clean. In any case byte order marks are removed, and bytes that aren't UTF-8 become U+FFFD.

    Long documents are handled in pieces of about a million characters: duplicates are found and dropped piece by piece.

    Attributes:
        control_characters: Remove control characters except tabs and line ends; the latter become line feeds.
        nfc: Convert the text to Unicode's normal form C.
        exact_duplicates: Keep one of several equal documents.
        near_duplicates: Of documents that share this fraction (above 0, to 1) of the runs of five words in either, keep
            one; null keeps all. An estimate by MinHash: some pairs close to the limit are misjudged, but never copies
            that differ only in case and punctuation. Takes about 1 KB of memory per document.
        min_characters: Drop shorter documents; white space at the ends doesn't count.
        max_characters: Drop longer documents; null keeps all.
    """

    control_characters: bool = True
    nfc: bool = False
    exact_duplicates: bool = True
    near_duplicates: float | None = 0.8
    min_characters: int = 1
    max_characters: int | None = None

    def __post_init__(self):
        share, least, most = self.near_duplicates, self.min_characters, self.max_characters
        limited = most is None or max(1, least) <= most <= PIECE_BYTES
        check(
            ("data.cleaning.near_duplicates", share, share is None or 0 < share <= 1, "above 0, to 1, or null"),
            ("data.cleaning.min_characters", least, least >= 0, "0 or more"),
            ("data.cleaning.max_characters", most, limited, f"min_characters to {PIECE_BYTES}, or null for no limit"),
        )


UNTOUCHED = Cleaning(control_characters=False, exact_duplicates=False, near_duplicates=None, min_characters=0)
"""For published texts, whose numbers are compared."""


class Cleaner:
    """Decides which documents are kept, over all splits that it gets one after another.

    Attributes:
        report: Counts of ``documents`` and ``characters`` kept, of documents dropped for each reason, and of characters
            or documents fixed in each way.
    """

    def __init__(self, cleaning: Cleaning):
        self.cleaning = cleaning
        self.report: Counter[str] = Counter(documents=0, characters=0)
        self._seen: set[bytes] = set()
        self._alike = _NearDuplicates(cleaning.near_duplicates) if cleaning.near_duplicates else None

    def decide(self, pieces: Iterable[Piece]) -> np.ndarray:
        """Return which pieces to keep, ``(pieces,)`` bool."""
        kept = []
        inside = kept_some = False  # in the middle of a document; of which a piece was kept
        for piece in pieces:
            text = self._fixed(piece.text)
            reason = self._reason(text, whole=piece.ends and not inside)
            kept.append(reason is None)
            kept_some = (kept_some and inside) or reason is None
            if reason is None:
                self.report["characters"] += len(text)
            else:
                self.report[reason] += 1
            inside = not piece.ends
            self.report["documents"] += piece.ends and kept_some
        self.report["documents"] += inside and kept_some
        return np.array(kept, dtype=bool)

    def _fixed(self, text: str) -> str:
        cleaning, report = self.cleaning, self.report
        report["invalid_bytes"] += len(_INVALID.findall(text))
        report["byte_order_marks"] += text.startswith("\ufeff")
        fixed = cleaned(text, dataclasses.replace(cleaning, nfc=False))
        if cleaning.control_characters:
            report["control_characters"] += len(_CONTROL.findall(_LINE_END.sub("\n", text)))
        if cleaning.nfc:
            report["normalised"] += not unicodedata.is_normalized("NFC", fixed)
            fixed = unicodedata.normalize("NFC", fixed)
        return fixed

    def _reason(self, text: str, *, whole: bool) -> str | None:
        """Return why a text is dropped, or None."""
        cleaning = self.cleaning
        if whole and len(text.strip()) < cleaning.min_characters:
            return "too_short"
        if cleaning.max_characters is not None and (not whole or len(text) > cleaning.max_characters):
            return "too_long"
        if cleaning.exact_duplicates:
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest in self._seen:
                return "exact_duplicates"
            self._seen.add(digest)
        if self._alike and self._alike.has(text):
            return "near_duplicates"
        return None


def cleaned(text: str, cleaning: Cleaning) -> str:
    """Clean one piece of text."""
    text = _INVALID.sub("\ufffd", text.removeprefix("\ufeff"))
    if cleaning.control_characters:
        text = _CONTROL.sub("", _LINE_END.sub("\n", text))
    return unicodedata.normalize("NFC", text) if cleaning.nfc else text


def kept_pieces(pieces: Iterable[Piece], kept: np.ndarray, cleaning: Cleaning) -> Iterator[Piece]:
    """Yield the pieces to keep, cleaned. A document that loses its last piece still ends.

    Raises:
        InputError: If the number of pieces isn't that of the decisions.
    """
    inside = False
    number = -1
    for number, piece in enumerate(pieces):
        if number < len(kept) and kept[number]:
            yield Piece(cleaned(piece.text, cleaning), piece.ends)
            inside = not piece.ends
        elif inside and piece.ends:
            yield Piece("")
            inside = False
    if number + 1 != len(kept):
        raise InputError(f"the text changed while it was read: {number + 1} documents, then {len(kept)}. Start again.")


class _NearDuplicates:
    """The documents seen so far, by their MinHash signatures (Broder 1997) in bands (Leskovec et al., chapter 3)."""

    def __init__(self, threshold: float):
        self.threshold = threshold
        self._signatures: list[np.ndarray] = []
        self._bands: dict[bytes, int] = {}  # the first document with these hashes
        generator = np.random.Generator(np.random.PCG64(0))
        self._factors = generator.integers(0, 2**63, _HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets = generator.integers(0, 2**63, _HASHES, dtype=np.uint64)

    def has(self, text: str) -> bool:
        """Return whether an earlier text was alike; if not, remember this one."""
        signature = self.signature(text)
        if signature is None:
            return False
        bands = [bytes([i]) + signature[i * _ROWS : (i + 1) * _ROWS].tobytes() for i in range(_BANDS)]
        for number in {self._bands[band] for band in bands if band in self._bands}:
            if (self._signatures[number] == signature).mean() >= self.threshold:
                return True
        for band in bands:
            self._bands.setdefault(band, len(self._signatures))
        self._signatures.append(signature)
        return False

    def signature(self, text: str) -> np.ndarray | None:
        """Return ``(64,)`` uint32, of which two texts share about the fraction of five-word runs that they share."""
        words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], dtype=np.uint64)
        if not len(words):
            return None
        runs = np.zeros(max(1, len(words) - _SHINGLE + 1), dtype=np.uint64)
        for place in range(min(_SHINGLE, len(words))):
            runs = _mixed(runs + words[place : place + len(runs)])
        least = np.full(_HASHES, 2**64 - 1, dtype=np.uint64)
        for start in range(0, len(runs), _BLOCK):
            block = runs[start : start + _BLOCK, None] * self._factors + self._offsets
            np.minimum(least, block.min(axis=0), out=least)
        return (least >> np.uint64(32)).astype(np.uint32)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Mix bits with the finalizer of MurmurHash3, on 64 bits."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))
