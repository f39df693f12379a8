"""Files as pieces: nothing lost, cut where words begin, lines as documents, and what counts as text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lit_aigc.data.text_pieces import Piece, file_pieces, is_text, line_start, lines, stamp
from lit_aigc.errors import InputError


def random_text(characters: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("aäb€c😀d \n", k=characters))


@pytest.mark.parametrize("size", [1, 2, 7, 100, 5000, 1 << 20])
def test_pieces_join_to_the_file(tmp_path: Path, size: int) -> None:
    file, text = tmp_path / "a.txt", random_text(1000)
    file.write_text(text, encoding="utf-8", newline="\n")
    pieces = list(file_pieces(file, size=size))
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert (len(pieces) == 1) == (size > 2000)  # the text has about 1,900 bytes


def test_long_texts_are_cut_before_words(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("word " * 20_000)
    *pieces, last = file_pieces(file, size=10_000)
    assert len(pieces) > 5
    assert all(not piece.text[-1].isspace() for piece in pieces)
    assert all(piece.text.startswith(" word") for piece in [*pieces[1:], last])
    assert max(len(piece.text) for piece in pieces) <= 20_000


def test_text_without_white_space_is_cut_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("x" * 100_000)
    pieces = [piece.text for piece in file_pieces(file, size=10_000)]
    assert "".join(pieces) == "x" * 100_000
    assert max(map(len, pieces)) <= 20_000


def test_a_part_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\nthree\n")
    assert list(file_pieces(file, 4, 8)) == [Piece("two\n")]
    assert list(file_pieces(file, 8)) == [Piece("three\n")]
    assert list(file_pieces(file, 14)) == [Piece("")]


def test_invalid_bytes_are_surrogates(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\xffb\xc3")
    assert list(file_pieces(file)) == [Piece("a\udcffb\udcc3")]
    assert "".join(piece.text for piece in file_pieces(file, size=1)) == "a\udcffb\udcc3"


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_lines_are_documents(tmp_path: Path, size: int) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"one\r\n\n  \ntwo words\nthree")
    joined, found = "", []
    for piece in lines(file_pieces(file, size=size)):
        joined += piece.text
        if piece.ends:
            found.append(joined)
            joined = ""
    assert [line.strip() for line in found if line.strip()] == ["one", "two words", "three"]
    assert joined == ""


def test_blank_lines_are_no_documents() -> None:
    assert list(lines([Piece("\n\na\n \nb\n"), Piece("c")])) == [Piece("a"), Piece("b"), Piece("c")]
    assert list(lines([Piece("lo", False), Piece("ng\nx", False), Piece("")])) == [
        *(Piece("lo", False), Piece("ng"), Piece("x", False), Piece("")),
    ]


def test_what_is_text(tmp_path: Path) -> None:
    contents = {
        "utf8": ("äöü€😀 text" * 2000).encode(),
        "ascii": b"text",
        "empty": b"",
        "one bad byte": b"caf\xe9",
        "image": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        "utf16": "text".encode("utf-16"),
        "noise": bytes(random.Random(0).choices(range(1, 256), k=1000)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert {name for name in contents if is_text(tmp_path / name)} == {"utf8", "ascii", "empty", "one bad byte"}
    assert not is_text(tmp_path / "missing")


def test_where_a_share_of_a_file_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("aaaa\nbbbb\ncccc\ndddd\n")
    assert line_start(file, 0.5) == 15  # the line that holds the middle goes to the first part
    assert line_start(file, 0.3) == 10
    file.write_text("€" * 100)
    assert line_start(file, 0.5) == 150
    assert line_start(file, 0.505) == 153  # byte 151 is within a character


def test_a_stamp_sees_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a")
    before = stamp([file], "x")
    assert before == stamp([file], "x") != stamp([file], "y")
    file.write_text("ab")
    assert stamp([file], "x") != before
    with pytest.raises(InputError, match=r"a\.txt/none"):
        stamp([file / "none"])
