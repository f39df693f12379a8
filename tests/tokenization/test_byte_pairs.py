"""Byte pairs: parts of a text are encoded as the whole, long words end somewhere, the library is rightly fed."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from lit_aigc.tokenization.byte_pairs import LONGEST, PairEncoder, _letters, join_pairs, learn_pairs

PAIRS = learn_pairs(["ab abab 'xx xxxx xxx é1 é1 b\n a\n\n  a\t" * 9], 300)
PIECES = join_pairs(PAIRS)


@given(text=st.text(st.sampled_from("ab' .\n\t\u00a0\u2003\x1cé1"), max_size=40), part=st.integers(1, 5))
@settings(max_examples=100)
def test_a_text_in_parts_is_encoded_as_the_whole(text, part):
    """If it can be cut before a space or line end, where words end, at least every 1,024 characters."""
    text = text.join(["x" * 200 * part] * 4)
    encoder = PairEncoder(PAIRS, PIECES)
    whole = encoder._model.encode(text).ids
    if max(map(len, re.split(r"(?<=\S)(?=[ \n])", text))) <= 1024:
        assert encoder(text).tolist() == whole
    assert b"".join(PIECES[id] for id in encoder(text)).decode() == text


def test_one_long_line_without_spaces():
    text = "ab" * 100_000
    pairs = learn_pairs([text], 300)
    pieces = join_pairs(pairs)
    ids = PairEncoder(pairs, pieces)(text)
    assert b"".join(pieces[id] for id in ids) == text.encode()
    assert 64 <= max(map(len, pieces)) <= LONGEST


def test_two_pairs_may_make_the_same_piece():
    a, b, c = (ord(letter) + 1 for letter in "abc")
    pieces = join_pairs([(a, b), (b, c), (257, c), (a, 258)])
    assert pieces[257:] == [b"ab", b"bc", b"abc"]
    assert PairEncoder([(a, b), (b, c), (257, c), (a, 258)], pieces)("abc bc").tolist() == [259, ord(" ") + 1, 258]


def test_the_letters_of_bytes_are_those_of_the_library():
    from tokenizers.pre_tokenizers import ByteLevel

    letters = _letters()
    assert sorted(letters) == sorted(ByteLevel.alphabet())
    text = "".join(map(chr, range(0x250))) + "\U00010000\U000e0000\U0010ffff\u8000\ufffd"
    (word,) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert word[0] == "".join(letters[byte] for byte in text.encode())
