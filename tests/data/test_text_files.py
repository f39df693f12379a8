"""Text files of the user's own: which are taken, and how they are split."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from lit_aigc.data.text_files import TextFiles
from lit_aigc.errors import InputError


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: object, **options: str) -> dict[str, list[str]]:
    splits = TextFiles(**options).read(str(root)).splits
    return {split: [piece.text for piece in splits[split]()] for split in ("train", "val", "test")}


def test_many_files_are_split_by_their_names(tmp_path: Path) -> None:
    names = [f"{i % 3}/{i}.txt" for i in range(200)]
    before = read(write(tmp_path, {name: name for name in names}))
    assert sorted(itertools.chain(*before.values())) == sorted(names)
    assert 5 < len(before["val"]) < 40
    after = read(write(tmp_path, {f"more/{i}": f"more/{i}" for i in range(100)}))
    for split in before:
        assert set(before[split]) <= set(after[split])


def test_few_files_are_split_at_lines(tmp_path: Path) -> None:
    a, b = ("".join(f"{name} {i:03}\n" for i in range(100)) for name in "ab")
    splits = read(write(tmp_path, {"a.txt": a, "b.txt": b}))
    assert ["".join(parts) for parts in zip(*splits.values(), strict=True)] == [a, b]
    assert splits["val"][0].startswith("a 081")
    assert splits["test"][0].startswith("a 091")
    assert read(tmp_path / "a.txt") == {split: parts[:1] for split, parts in splits.items()}


def test_one_line_is_split_at_characters(tmp_path: Path) -> None:
    assert read(write(tmp_path, {"a": "é" * 10})) == {"train": ["é" * 8], "val": ["é"], "test": ["é"]}


@pytest.mark.parametrize("names", [("train/a.txt", "valid/b.txt", "test/c.txt"), ("train.txt", "val.md", "test.txt")])
def test_splits_that_have_names_are_kept(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write(tmp_path, dict(zip(names, ("one", "two", "three"), strict=True)))
    assert read(root) == {"train": ["one"], "val": ["two"], "test": ["three"]}
    (root / names[2]).unlink()
    corpus = TextFiles().read(str(root))
    assert corpus.splits["test"] is corpus.splits["val"]


def test_lines_as_documents(tmp_path: Path) -> None:
    splits = read(write(tmp_path, {"a.txt": "".join(f"{i:02}\n\n" for i in range(40))}), documents="lines")
    assert list(itertools.chain(*splits.values())) == [f"{i:02}" for i in range(40)]
    assert all(splits.values())


def test_a_glob(tmp_path: Path) -> None:
    write(tmp_path, {"n/a.md": "a" * 10, "n/deep/b.md": "b" * 10, "n/c.txt": "c" * 10, "n/.hidden.md": "h" * 10})
    assert read(f"{tmp_path}/n/**/*.md")["train"] == ["a" * 8, "b" * 8]
    assert read(f"{tmp_path}/*/*.txt")["train"] == ["c" * 8]


def test_what_is_no_text_is_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a" * 10, "b.png": b"\x89PNG\0\0", ".git/c": "c" * 10, "d/.e": "e" * 10})
    corpus = TextFiles().read(str(tmp_path))
    assert corpus.report == {"files": 2, "not_text": 1}
    assert corpus.not_text == ("b.png",)
    assert [piece.text for piece in corpus.splits["train"]()] == ["a" * 8]


def test_a_changed_file_changes_the_stamp(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a" * 10})
    before = TextFiles().read(str(tmp_path)).stamp
    assert TextFiles().read(str(tmp_path)).stamp == before != TextFiles("lines").read(str(tmp_path)).stamp
    write(tmp_path, {"a.txt": "a" * 11})
    assert TextFiles().read(str(tmp_path)).stamp != before


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    assert "set data.root=PATH" in TextFiles().problems(None)[0]
    with pytest.raises(InputError, match=r"no text in data\.root=.*\(0 files"):
        TextFiles().read(str(tmp_path))
    with pytest.raises(InputError, match=r"no text in data\.root=.*\(1 files, none of them UTF-8 text: a\)"):
        TextFiles().read(str(write(tmp_path, {"a": b"\0"})))
    with pytest.raises(InputError, match="as a glob it matches nothing"):
        TextFiles().read(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="expected files or lines"):
        TextFiles("words")
