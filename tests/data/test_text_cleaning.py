"""Cleaning: what is mended, what is left out, and that both are counted."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest

from lit_aigc.data.text_cleaning import UNTOUCHED, Cleaner, Cleaning, _NearDuplicates, cleaned, kept_pieces
from lit_aigc.data.text_pieces import Piece
from lit_aigc.errors import InputError


def clean(pieces: list[Piece | str], **options: object) -> tuple[list[Piece], dict[str, int]]:
    pieces = [Piece(piece) if isinstance(piece, str) else piece for piece in pieces]
    cleaning = Cleaning(**options)
    cleaner = Cleaner(cleaning)
    kept = cleaner.decide(pieces)
    return list(kept_pieces(pieces, kept, cleaning)), {key: count for key, count in cleaner.report.items() if count}


def words(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices("abcdefghij", k=5)) for _ in range(count)]


def test_bytes_marks_and_control_characters_are_mended_and_counted() -> None:
    text = "\ufeffone\r\ntwo\rthree\x00\x0c\x85\tfour\udcff\udc80!"
    pieces, report = clean([text])
    assert pieces == [Piece("one\ntwo\nthree\tfour\ufffd\ufffd!")]
    assert report == {
        "documents": 1,
        "characters": 21,
        "invalid_bytes": 2,
        "byte_order_marks": 1,
        "control_characters": 3,
    }
    assert clean([text], control_characters=False)[0][0].text == "one\r\ntwo\rthree\x00\x0c\x85\tfour\ufffd\ufffd!"


def test_untouched_text_stays_as_it_is() -> None:
    texts = ["a\r\n\x00\x0c", "a\r\n\x00\x0c", "", " ", "e\u0301", "\x7f" * 10]
    cleaner = Cleaner(UNTOUCHED)
    kept = cleaner.decide(map(Piece, texts))
    assert kept.all()
    assert [piece.text for piece in kept_pieces(map(Piece, texts), kept, UNTOUCHED)] == texts
    assert cleaner.report["documents"] == 6


def test_normal_form_is_an_option() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    pieces, report = clean([composed, decomposed], nfc=True)
    assert [piece.text for piece in pieces] == [composed]
    assert (report["normalised"], report["exact_duplicates"]) == (1, 1)
    assert len(clean([composed, decomposed], near_duplicates=None)[0]) == 2
    assert cleaned(decomposed, Cleaning()) == decomposed
    assert unicodedata.is_normalized("NFC", cleaned(decomposed, Cleaning(nfc=True)))


def test_of_equal_documents_the_first_is_kept_over_all_splits() -> None:
    cleaner = Cleaner(Cleaning(near_duplicates=None))
    assert cleaner.decide([Piece("b"), Piece("a"), Piece("a")]).tolist() == [True, True, False]
    assert cleaner.decide([Piece("c"), Piece("a"), Piece("d")]).tolist() == [True, False, True]
    assert cleaner.report["exact_duplicates"] == 2
    assert cleaner.report["documents"] == 4


def test_length_filter() -> None:
    pieces, report = clean(["abc", " ab\n", "abcdef", "abcdefg"], min_characters=3, max_characters=6)
    assert [piece.text for piece in pieces] == ["abc", "abcdef"]
    assert (report["too_short"], report["too_long"]) == (1, 1)


def test_a_long_document_in_pieces() -> None:
    whole = [Piece("first ", False), Piece("second ", False), Piece("x"), Piece("next document")]
    pieces, report = clean(whole, min_characters=3)
    assert pieces == whole  # the short end of a long document is no short document
    assert report["documents"] == 2
    pieces, report = clean(whole, max_characters=100)
    assert pieces == [Piece("next document")]


def test_a_document_ends_even_if_its_last_piece_is_a_duplicate() -> None:
    pieces, report = clean([Piece("same words here"), Piece("one ", False), Piece("same words here"), Piece("two")])
    assert pieces == [Piece("same words here"), Piece("one ", False), Piece(""), Piece("two")]
    assert (report["exact_duplicates"], report["documents"]) == (1, 3)


def test_near_duplicates_are_left_out() -> None:
    text = words(300, seed=0)
    slightly = [*text[:150], "changed", *text[151:]]  # 5 of 296 runs differ
    half = text[:150] + words(150, seed=1)
    documents = [" ".join(text), " ".join(slightly), " ".join(half), " ".join(words(300, seed=2))]
    shouted = " ".join(text).upper().replace(" ", ", ") + "!"
    pieces, report = clean([*documents, shouted])
    assert [piece.text for piece in pieces] == [documents[0], *documents[2:]]
    assert report["near_duplicates"] == 2
    assert len(clean([*documents, shouted], near_duplicates=None)[0]) == 5
    assert len(clean(["A man!", "a man", "...", "!!!"])[0]) == 3  # the marks alone have no words to compare


def test_signatures_estimate_the_shared_part() -> None:
    errors = []
    for seed in range(40):
        text = words(400, seed)
        cut = 40 + 8 * seed
        other = text[:cut] + words(400 - cut, 1000 + seed)
        shared = (cut - 4) / (2 * 396 - (cut - 4))
        index = _NearDuplicates(0.8)
        a, b = (index.signature(" ".join(document)) for document in (text, other))
        errors.append((a == b).mean() - shared)
    assert abs(np.mean(errors)) < 0.025  # standard error of the mean: at most 0.01
    assert np.std(errors) < 0.085  # (1 / 64 / 4) ** 0.5 = 0.0625 at most, and some more for 40 draws


@pytest.mark.parametrize("text", ["one", "one two three four", "", "…"])
def test_short_texts_have_signatures_or_none(text: str) -> None:
    signature = _NearDuplicates(0.8).signature(text)
    assert (signature is None) == (not any(map(str.isalpha, text)))


def test_text_that_changes_between_readings_is_refused() -> None:
    with pytest.raises(InputError, match="changed while it was read"):
        list(kept_pieces([Piece("a")], np.ones(2, bool), UNTOUCHED))
    with pytest.raises(InputError, match="changed while it was read"):
        list(kept_pieces([Piece("a"), Piece("b")], np.ones(1, bool), UNTOUCHED))


def test_bad_options_are_told_together() -> None:
    with pytest.raises(InputError, match=r"(?s)near_duplicates=1\.5.*min_characters=-1.*max_characters=0"):
        Cleaning(near_duplicates=1.5, min_characters=-1, max_characters=0)
