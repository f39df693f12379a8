"""Byte-level byte-pair encoding by the library ``tokenizers`` (Sennrich et al., 2016; Radford et al., 2019).

Training learns a list of pairs of ids, in order. Id 0 stands for nothing, byte b is id ``b + 1``, and each pair is a
new id, unless an earlier pair has the same bytes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

LONGEST = 128  # bytes per id; without a bound, a few pairs of a hostile file could fill the memory


def learn_pairs(texts: Iterable[str], vocab_size: int) -> list[tuple[int, int]]:
    """Learn the pairs of a training text that lead to `vocab_size` ids, or fewer if there are no more pairs."""
    library = _library()
    model = _model(library)
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # the library knows no id 0
        initial_alphabet=_letters(),
        max_token_length=LONGEST,
        show_progress=False,
    )
    model.train_from_iterator((part for text in texts for part in _parts(text)), trainer)
    ids = {letter: byte + 1 for byte, letter in enumerate(_letters())}
    pairs = []
    for left, right in json.loads(model.to_str())["model"]["merges"]:
        pairs.append((ids[left], ids[right]))
        ids.setdefault(left + right, len(ids) + 1)
    return pairs


def join_pairs(pairs: Iterable[tuple[int, int]]) -> list[bytes]:
    """Return the bytes that each id stands for.

    Raises:
        ValueError: If a pair isn't made of two earlier ids, or an id stands for more than `LONGEST` bytes.
    """
    pieces = [b"", *(bytes([byte]) for byte in range(256))]
    known = set(pieces)
    for left, right in pairs:
        if not (0 < left < len(pieces) and 0 < right < len(pieces)):
            raise ValueError(f"({left}, {right}) is not a pair of two earlier ids")
        piece = pieces[left] + pieces[right]
        if len(piece) > LONGEST:
            raise ValueError(f"an id stands for more than {LONGEST} bytes")
        if piece not in known:
            known.add(piece)
            pieces.append(piece)
    return pieces


class PairEncoder:
    """From text to ids: in each word, the pair that was learned first is joined, until no pair remains."""

    def __init__(self, pairs: Sequence[tuple[int, int]], pieces: Sequence[bytes]) -> None:
        letters = _letters()
        names = ["".join([letters[byte] for byte in piece]) for piece in pieces]
        vocabulary = {name: id for id, name in enumerate(names)}
        merges = [(names[left], names[right]) for left, right in pairs]
        self._model = _model(_library(), vocabulary, merges)

    def __call__(self, text: str) -> np.ndarray:
        """``(T,)`` int32, none of them 0."""
        parts = list(_parts(text))
        ids = [np.empty(0, dtype=np.int32)]
        for start in range(0, len(parts), 1024):  # the library needs about 200 bytes per id while it works
            encodings = self._model.encode_batch_fast(parts[start : start + 1024], add_special_tokens=False)
            ids += [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return np.concatenate(ids)


def _model(library: ModuleType, *learned: Any) -> Any:
    model = library.Tokenizer(library.models.BPE(*learned))
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return model


def _parts(text: str) -> Iterator[str]:
    """Split a text into parts of at most 1,024 characters, before spaces and line ends, where words end anyway.

    A longer word is cut all the same, since training takes time quadratic in the length of a word.
    """
    return (match[0] for match in re.finditer(r"(?s:.{1,1024})(?<=\S)(?=[ \n]|\Z)|(?s:.{1,1024})", text))


def _letters() -> list[str]:
    """Return the library's printable letter for each byte: its own in Latin-1, or else one from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _library() -> ModuleType:
    """Import the library, on one thread unless its variable is set: after using more, it warns about forks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    return tokenizers
