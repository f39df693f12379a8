"""Text to numbers and back: by characters, bytes, words or byte pairs.

Id 0 of every tokenizer is the boundary between texts; no text is ever encoded to it, whatever it contains. What a
tokenizer has learned is plain data, and part of bundles.
"""

from __future__ import annotations

import abc
import collections
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from lit_aigc.errors import InputError, check
from lit_aigc.files import write_atomically
from lit_aigc.tokenization.byte_pairs import PairEncoder, join_pairs, learn_pairs

TOKENIZER_FILE = "tokenizer.json"
FORMAT = 1
BOUNDARY = 0
_BYTES = [bytes([byte]) for byte in range(256)]
_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that are not the first of a character
_LARGEST_FILE = 1 << 25
_MOST_IDS = 1 << 20


class Tokenizer(abc.ABC):
    """The base of all tokenizers. Before training, a tokenizer knows only what needs no training: bytes, or nothing.

    Attributes:
        name: Its name in ``tokenizer.json``.
        lossless: Whether decoding an encoded text always gives exactly that text.
        separator: Text between two decoded tokens.
    """

    name: ClassVar[str]
    lossless: ClassVar[bool] = True
    separator: ClassVar[str] = ""
    _OPTIONS: ClassVar[tuple[str, ...]] = ()  # what decoding and encoding need of the constructor's arguments
    _pieces: list[bytes]  # the UTF-8 that each id stands for

    @property
    def vocab_size(self) -> int:
        """Number of ids, including the boundary."""
        return len(self._pieces)

    def train(self, texts: Iterable[str]) -> None:
        """Learn from the training split; anything learned before is forgotten.

        Raises:
            InputError: If there is nothing to learn from, or a text isn't Unicode.
        """
        if isinstance(texts, str):
            raise TypeError("train takes texts, not one text: train([text])")
        self._learn(_checked(texts))

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text, without any boundary: ``(T,)`` int32.

        Raises:
            InputError: If the text contains lone surrogates, and so isn't Unicode.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids below `vocab_size`, without boundaries; invalid UTF-8 becomes U+FFFD.

        Raises:
            InputError: If an id doesn't belong to this tokenizer.
        """
        pieces = [self._pieces[id] for id in self._inside(ids).tolist()]
        return b"".join(pieces).decode("utf-8", "replace")

    def unknown(self, text: str) -> list[str]:
        """Return the characters or words of a text that training never saw, each once, in order."""
        return []

    def sizes(self) -> np.ndarray:
        """Return the number of characters and of UTF-8 bytes of each id: ``(vocab_size, 2)`` int64.

        A character counts where its first byte is. So if the tokenizer is lossless, the sums over the ids of an encoded
        text are exactly its numbers of characters and bytes.
        """
        sizes = [(len(piece.translate(None, _CONTINUATION)), len(piece)) for piece in self._pieces]
        return np.array(sizes, dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return everything that encoding and decoding need, as plain JSON types."""
        return {"format": FORMAT, "tokenizer": self.name, **self._facts()}

    def save(self, directory: str | Path) -> None:
        """Write ``tokenizer.json``."""
        write_atomically(Path(directory) / TOKENIZER_FILE, json.dumps(self.to_dict(), ensure_ascii=False) + "\n")

    @abc.abstractmethod
    def _learn(self, texts: Iterator[str]) -> None: ...

    def _facts(self) -> dict[str, Any]:
        """Return what was learned, and the options named in `_OPTIONS`."""
        return {}

    @abc.abstractmethod
    def _restore(self, facts: Mapping[str, Any]) -> None:
        """Take over `_facts`; raises one of `_DAMAGE` if a stranger's file is not what it should be."""

    def _inside(self, ids: Sequence[int]) -> np.ndarray:
        """Return the ids as an array, without boundaries."""
        ids = np.asarray(ids, dtype=np.int64)
        wrong = ids[(ids < 0) | (ids >= self.vocab_size)]
        if wrong.size:
            raise InputError(f"{wrong[0]} is not an id of this {self.name} tokenizer, which has {self.vocab_size:,}.")
        return ids[ids != BOUNDARY]


class CharacterTokenizer(Tokenizer):
    """One id per character of the training text, in Unicode order, after ids for hexadecimal digits.

    A character that training never saw is encoded as the digits of its UTF-8, two ids per byte: 1 to 16 are the first
    digits of a byte, 17 to 32 the second ones. A first digit shows if its byte starts a character, so sizes add up.
    """

    name = "character"
    _HIGH, _LOW, _FIRST = 1, 17, 33
    _STRAY = 0xDCFF  # "surrogateescape" for the byte 0xFF, which never occurs in UTF-8

    def __init__(self) -> None:
        self._set("")

    def _set(self, characters: str) -> None:
        self._characters = characters
        digits = [_BYTES[digit << 4] for digit in range(16)] + [b""] * 16
        self._pieces = [b"", *digits, *(character.encode() for character in characters)]
        codes = [ord(character) for character in characters]
        self._codes = np.array([self._STRAY] * self._FIRST + codes, dtype="<u4")
        # By code point; all characters above the last known one share the last entry, 0.
        self._ids = np.zeros(max(codes, default=0) + 2, dtype=np.int32)
        self._ids[codes] = np.arange(self._FIRST, self._FIRST + len(codes))

    def encode(self, text: str) -> np.ndarray:
        """Return ``(T,)`` int32: one id per character, or two per byte of a character that training never saw."""
        codes = np.frombuffer(_encoded(text, "utf-32-le"), dtype="<u4")
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        unknown = ids == 0
        if unknown.any():
            # Make room for two digits per byte of each unknown character, then fill it with the digits of them all.
            utf8 = np.frombuffer(codes[unknown].tobytes().decode("utf-32-le").encode(), dtype=np.uint8)
            lengths = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)  # bytes of each character
            ids = np.repeat(ids, np.where(unknown, 2 * lengths, 1))
            digits = np.stack([utf8 // 16 + self._HIGH, utf8 % 16 + self._LOW], axis=1)
            ids[ids == 0] = digits.ravel()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; a digit without its other half, and invalid UTF-8, become U+FFFD."""
        ids = self._inside(ids)
        codes = self._codes[ids]

        # A first digit and the second one after it are a byte, which "surrogateescape" turns back into UTF-8 below.
        first_digit = ids < self._LOW
        second_digit = (ids >= self._LOW) & (ids < self._FIRST)
        pairs = np.flatnonzero(first_digit[:-1] & second_digit[1:])
        byte = (ids[pairs] - self._HIGH) * 16 + ids[pairs + 1] - self._LOW
        codes[pairs] = np.where(byte < 0x80, byte, byte + 0xDC00)
        escaped = np.delete(codes, pairs + 1).tobytes().decode("utf-32-le", "surrogatepass")
        return escaped.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def unknown(self, text: str) -> list[str]:
        """Return the characters of a text that training never saw, each once, in order."""
        return list(dict.fromkeys(character for character in text if character not in self._characters))

    def _learn(self, texts: Iterator[str]) -> None:
        self._set("".join(sorted(set().union(*texts))))

    def _facts(self) -> dict[str, Any]:
        return {"characters": self._characters}

    def _restore(self, facts: Mapping[str, Any]) -> None:
        characters = facts["characters"]
        if "".join(sorted(set(characters))) != characters:
            raise ValueError("the characters are not in order")
        self._set(characters)


class ByteTokenizer(Tokenizer):
    """The bytes of UTF-8: byte b is id ``b + 1``. There is nothing to learn."""

    name = "byte"

    def __init__(self) -> None:
        self._pieces = [b"", *_BYTES]

    def encode(self, text: str) -> np.ndarray:
        """Return ``(T,)`` int32: one id per byte."""
        return np.frombuffer(_encoded(text), dtype=np.uint8).astype(np.int32) + 1

    def _learn(self, texts: Iterator[str]) -> None:
        collections.deque(texts, maxlen=0)  # reading them checks them

    def _restore(self, facts: Mapping[str, Any]) -> None:
        """Take over nothing."""


Language = Literal["basic_english", "any", "tokenized"]


class WordTokenizer(Tokenizer):
    """The words of the training text, the most frequent first; any other word is id 1, ``<unk>``.

    Args:
        minimum_frequency: How often a word must occur in training.
        vocab_size: Most ids, including 0 and 1; None: no limit.
        language: How to find words. ``basic_english``: torchtext's tokenizer of that name, which lowercases and
            drops quotation marks, colons and semicolons. ``any``: runs of letters and digits, and each other mark by
            itself. ``tokenized``: whatever white space separates.
        lower: Whether to lowercase first.
    """

    name = "word"
    lossless = False
    separator = " "
    _SPECIAL = ("<|endoftext|>", "<unk>")
    _OPTIONS = ("language", "lower")

    def __init__(
        self,
        minimum_frequency: int = 1,
        vocab_size: int | None = None,
        language: Language = "basic_english",
        lower: bool = True,
    ) -> None:
        languages = get_args(Language)
        enough = vocab_size is None or vocab_size >= 3
        lowercases = lower or language != "basic_english"
        check(
            ("minimum_frequency", minimum_frequency, minimum_frequency >= 1, "at least 1"),
            ("vocab_size", vocab_size, enough, "at least 3, two of which aren't words, or null"),
            ("language", language, language in languages, f"one of {', '.join(languages)}"),
            ("lower", lower, lowercases, "true, since basic_english always lowercases; or set language=any"),
        )
        self.minimum_frequency, self.largest = minimum_frequency, vocab_size
        self.language, self.lower = language, lower
        self._set([])

    def _set(self, words: list[str]) -> None:
        self._words = words
        self._texts = np.array([*self._SPECIAL, *words], dtype=object)
        self._pieces = [b"", *(text.encode() for text in self._texts[1:])]
        self._ids = {word: id for id, word in enumerate(self._texts) if id != BOUNDARY}

    def encode(self, text: str) -> np.ndarray:
        """Return ``(T,)`` int32: one id per word."""
        _encoded(text)
        return np.array([self._ids.get(word, 1) for word in self._split(text)], dtype=np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words with spaces between them, but not before a mark that `encode` would split off again."""
        text = self.separator.join(self._texts[self._inside(ids)])
        return text if self.language == "tokenized" else re.sub(r" (?=[.,!?;:)])|(?<=\() ", "", text)

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that are not in the vocabulary, each once, in order."""
        return list(dict.fromkeys(word for word in self._split(text) if word not in self._ids))

    def _split(self, text: str) -> list[str]:
        if self.language == "basic_english":
            from torchtext.data import get_tokenizer

            return get_tokenizer("basic_english")(text)
        text = text.lower() if self.lower else text
        return text.split() if self.language == "tokenized" else re.findall(r"\w+(?:['\u2019]\w+)*|[^\w\s]", text)

    def _learn(self, texts: Iterator[str]) -> None:
        from torchtext.vocab import Vocab

        counts = collections.Counter(word for text in texts for word in self._split(text))
        most = None if self.largest is None else self.largest - len(self._SPECIAL)
        vocabulary = Vocab(counts, max_size=most, min_freq=self.minimum_frequency, specials=list(self._SPECIAL))
        words = vocabulary.itos[len(self._SPECIAL) :]
        if not words:
            raise InputError(f"No word of the text occurs {self.minimum_frequency} times: lower minimum_frequency.")
        self._set(words)

    def _facts(self) -> dict[str, Any]:
        return {"language": self.language, "lower": self.lower, "words": self._words}

    def _restore(self, facts: Mapping[str, Any]) -> None:
        words = facts["words"]
        if not isinstance(words, list) or not isinstance(self.lower, bool):
            raise TypeError("expected a list of words, and lower as true or false")
        if any(word.split() != [word] for word in words) or len({*words, *self._SPECIAL}) != len(words) + 2:
            raise ValueError("a word is empty, occurs twice or isn't a single word")
        self._set(words)


class BytePairTokenizer(Tokenizer):
    """Byte-level byte-pair encoding: byte b is id ``b + 1``, and later ids are pairs of earlier ones.

    Args:
        vocab_size: Most ids; a small training text gives fewer.
    """

    name = "byte_pair"

    def __init__(self, vocab_size: int = 4096) -> None:
        expected = f"257, the bytes and the boundary, to {_MOST_IDS:,}"
        check(("vocab_size", vocab_size, 257 <= vocab_size <= _MOST_IDS, expected))
        self.largest = vocab_size
        self._set([])

    def _set(self, pairs: list[tuple[int, int]]) -> None:
        self._pairs = pairs
        self._pieces = join_pairs(pairs)
        self._encoder = PairEncoder(pairs, self._pieces)

    def encode(self, text: str) -> np.ndarray:
        """Return ``(T,)`` int32: one id or more per word, which includes the space before it."""
        _encoded(text)
        return self._encoder(text)

    def _learn(self, texts: Iterator[str]) -> None:
        self._set(learn_pairs(texts, self.largest))

    def _facts(self) -> dict[str, Any]:
        return {"pairs": [list(pair) for pair in self._pairs]}

    def _restore(self, facts: Mapping[str, Any]) -> None:
        pairs = [(left, right) for left, right in facts["pairs"]]
        if any(type(id) is not int for pair in pairs for id in pair):
            raise TypeError("a pair isn't made of two numbers")
        self._set(pairs)


_KINDS = {kind.name: kind for kind in (CharacterTokenizer, ByteTokenizer, WordTokenizer, BytePairTokenizer)}
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, InputError)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Load the tokenizer that was saved in a folder.

    Raises:
        InputError: If there is none, or its file is damaged; nothing in a file is ever executed.
    """
    path = Path(directory) / TOKENIZER_FILE
    if not path.is_file():
        raise InputError(f"{directory} holds no {TOKENIZER_FILE}: expected the bundle of a language model.")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it is larger than {_LARGEST_FILE >> 20} MB")
        facts = json.loads(path.read_bytes().decode("utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        if facts["tokenizer"] not in _KINDS:
            raise ValueError(f"expected one of the tokenizers {', '.join(_KINDS)}")
        kind = _KINDS[facts["tokenizer"]]
        tokenizer = kind(**{option: facts[option] for option in kind._OPTIONS})
        tokenizer._restore(facts)
        if tokenizer.vocab_size > _MOST_IDS:
            raise ValueError(f"it has more than {_MOST_IDS:,} ids")
    except _DAMAGE as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"The tokenizer {path} can't be read: {what}. Get a new copy from its source.") from error
    return tokenizer


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts, which must be Unicode and not all be empty."""
    empty = True
    for text in texts:
        _encoded(text)
        empty = empty and not text
        yield text
    if empty:
        raise InputError("There is no text to train the tokenizer on: the training split is empty.")


def _encoded(text: str, encoding: str = "utf-8") -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise InputError(
            f"Character {error.start} of the text is {text[error.start]!a}, a lone surrogate, which is not Unicode: "
            "the text was read with the wrong encoding. Expected UTF-8."
        ) from error
