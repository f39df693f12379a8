"""Stop strings across tokens, and pieces of a text while it comes."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_aigc.sampling.text import cut, end_test, pieces, to_strings
from lit_aigc.spec import Texts


def from_bytes(ids):
    return bytes(i - 1 for i in ids if i).decode(errors="replace")


def byte_ids(text):
    return [byte + 1 for byte in text.encode()]


def from_words(ids):
    return " ".join(("the", "cat", "sat", "on")[i - 1] for i in ids if i)


def from_syllables(ids):
    """Tokens of several letters, as byte-pair encoding makes them."""
    return "".join(("ab", "b!", "!c", "é", "cde")[i - 1] for i in ids if i)


def test_a_text_ends_before_its_first_stop_string():
    assert cut("one, two; three", ["; ", ", "]) == "one"
    assert cut("one", ["; ", ", "]) == cut("one", ()) == "one"
    assert cut("; one", ["; "]) == ""


def test_texts_of_ids_and_lengths():
    texts = Texts(torch.tensor([[1, 2, 3], [4, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0]))
    assert to_strings(texts, from_words) == ["the cat sat", "on", ""]
    assert to_strings(texts, from_words, [" cat"]) == ["the", "on", ""]


@pytest.mark.parametrize(
    ("decode", "ids", "stop", "expected"),
    [
        (from_syllables, [1, 3, 2], "b!", 2),  # in the middle of tokens: ab !c
        (from_syllables, [5, 1, 3, 2], "eab!c", 3),  # over three tokens
        (from_syllables, [2, 2, 4, 1], "éa", 4),
        (from_bytes, byte_ids("x日本"), "日", 4),
        (from_words, [1, 2, 3, 4], "cat sat", 3),
        (from_words, [1, 2, 3, 4], " sat", 3),
        (from_words, [1, 2, 3, 0], "dog", 4),  # the boundary
        (from_words, [1, 2, 3], "dog", None),
    ],
)
def test_the_token_that_completes_a_stop_string_is_the_last(decode, ids, stop, expected):
    ended = end_test([stop, "never"], decode)
    last = next((n for n in range(1, len(ids) + 1) if ended(ids[: n - 1], ids[n - 1])), None)
    assert last == expected


def test_stop_strings_need_a_decoder():
    with pytest.raises(ValueError, match="decode"):
        end_test(["a"], None)
    assert end_test([], None)([1], 0) and not end_test([], None)([1], 1)


def test_a_character_comes_when_its_bytes_are_complete():
    assert list(pieces(byte_ids("aé日🙂b"), from_bytes)) == ["a", "é", "日", "🙂", "b"]
    assert list(pieces(byte_ids("a🙂")[:-1], from_bytes)) == ["a", "\ufffd"], "at the end, what there is"


def test_words_come_with_their_separator():
    assert list(pieces([1, 2, 3], from_words)) == ["the", " cat", " sat"]
    assert "".join(pieces([1, 2, 3, 4] * 30, from_words)) == from_words([1, 2, 3, 4] * 30)


def test_what_may_be_a_stop_string_is_held_back():
    assert list(pieces(byte_ids("one\n\ntwo"), from_bytes, ["\n\n"])) == ["o", "n", "e"]
    assert list(pieces(byte_ids("a\nb"), from_bytes, ["\n\n"])) == ["a", "\nb"]
    assert list(pieces(byte_ids("a\n"), from_bytes, ["\n\n"])) == ["a", "\n"], "the text ended otherwise"
    assert list(pieces(byte_ids("xaé."), from_bytes, ["aé"])) == ["x"], "half a character may be its end"


def stopping(ids, decode, stop):
    """The ids up to the one that ends the text."""
    ended = end_test(stop, decode)
    for place, token in enumerate(ids):
        yield token
        if ended(ids[:place], token):
            return


@given(st.lists(st.integers(1, 5), max_size=120), st.lists(st.text("ab!cdeé", min_size=1, max_size=4), max_size=2))
def test_pieces_make_the_text(ids, stop):
    assert "".join(pieces(stopping(ids, from_syllables, stop), from_syllables, stop)) == cut(from_syllables(ids), stop)


@given(st.lists(st.integers(1, 256), max_size=120))
def test_pieces_of_any_bytes_make_the_text(ids):
    assert "".join(pieces(ids, from_bytes)) == from_bytes(ids)


@given(st.text("aé🙂\n", max_size=80), st.sampled_from(["\n\n", "é", "🙂a", "aé\n"]))
def test_no_piece_has_a_part_of_a_stop_string(text, stop):
    so_far = list(itertools.accumulate(pieces(stopping(byte_ids(text), from_bytes, [stop]), from_bytes, [stop])))
    assert (so_far or [""])[-1] == cut(text, [stop])
    assert all(cut(text, [stop]).startswith(part) for part in so_far)
