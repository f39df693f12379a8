"""The text sets with a name: their splits, their documents, and what is said where files are missing."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_aigc.data.corpora import (
    Corpus,
    Multi30k,
    PyDocs,
    PythonSource,
    TextSource,
    TinyShakespeare,
    WikiText2,
    split_by_name,
)
from lit_aigc.data.text_pieces import Piece
from lit_aigc.errors import InputError


def texts(corpus: Corpus, split: str) -> list[str]:
    return [piece.text for piece in corpus.splits[split]()]


def everything(corpus: Corpus) -> list[str]:
    return [text for split in corpus.splits for text in texts(corpus, split)]


def test_names_are_split_by_their_hash() -> None:
    names = [f"{i}.txt" for i in range(1000)]
    splits = split_by_name(names)
    assert sorted(itertools.chain(*splits.values())) == sorted(names)
    assert 70 < len(splits["val"]) < 130
    assert 70 < len(splits["test"]) < 130
    fewer = split_by_name(names[:300])
    for split in splits:
        assert set(fewer[split]) <= set(splits[split])
    for few in range(3, 12):
        assert all(split_by_name(names[:few]).values())


def test_splits_stay_what_they_are() -> None:
    """A change of the hash would turn the sets on which numbers were published into others."""
    splits = split_by_name(f"{i}.txt" for i in range(30))
    assert splits["val"] == ["20.txt"]
    assert splits["test"] == ["1.txt", "10.txt"]


def test_pydocs_needs_nothing_and_repeats_nothing() -> None:
    source = PyDocs()
    assert source.problems(None) == []
    corpus = source.read(None)
    assert corpus.stamp == source.read(None).stamp
    sizes = {split: sum(map(len, texts(corpus, split))) for split in corpus.splits}
    assert sum(sizes.values()) > 300_000
    assert min(sizes.values()) > 10_000
    documents = everything(corpus)
    assert len(documents) == corpus.report["topics"] - corpus.report["parts_of_others"] > 40
    customization = [text for text in documents if "object.__new__(cls[, ...])" in text]
    assert len(customization) == 1  # which is a topic, and a section of another topic


def test_python_source_is_the_library_without_its_tests() -> None:
    corpus = PythonSource().read(None)
    assert corpus.report["files"] > 300
    documents = everything(corpus)
    assert sum("class JSONDecoder(object):" in text for text in documents) == 1
    assert not any("class TestDecode:" in text for text in documents)
    assert all(corpus.splits.values())


def shakespeare(root: Path, text: str) -> Path:
    (root / "tinyshakespeare").mkdir()
    (root / "tinyshakespeare" / "input.txt").write_text(text, encoding="utf-8", newline="\n")
    return root


@pytest.mark.parametrize("length", [100, 101, 109])
def test_tinyshakespeare_is_split_as_nanogpt_splits_it(tmp_path: Path, length: int) -> None:
    text = "".join(chr(200 + i) for i in range(length))
    corpus = TinyShakespeare().read(str(shakespeare(tmp_path, text)))
    n = int(0.9 * length)
    assert list(corpus.splits["train"]()) == [Piece(text[:n], ends=False)]
    assert list(corpus.splits["val"]()) == [Piece(text[n:], ends=False)]
    assert corpus.splits["test"] is corpus.splits["val"]


@pytest.mark.reference_data
def test_the_real_tinyshakespeare(reference_data: Path) -> None:
    corpus = TinyShakespeare().read(str(reference_data))
    assert len(texts(corpus, "train")[0]) == 1_003_854
    assert len(texts(corpus, "val")[0]) == 111_540
    assert texts(corpus, "val")[0].startswith("?\n\nGREMIO:\nGood morrow, neighbour Baptista.")


def multi30k(root: Path) -> Path:
    (root / "multi30k").mkdir()
    for i, split in enumerate(("train", "val", "test_2016_flickr")):
        for language in ("en", "de"):
            rows = "".join(f"{language} {j}\n" if j else "\n" for j in range(3 - i))
            (root / "multi30k" / f"{split}.{language}.gz").write_bytes(gzip.compress(rows.encode()))
    return root


def test_multi30k_has_a_sentence_a_document(tmp_path: Path) -> None:
    root = str(multi30k(tmp_path))
    german = Multi30k("de").read(root)
    assert [texts(german, split) for split in ("train", "val", "test")] == [["", "de 1", "de 2"], ["", "de 1"], [""]]
    assert german.translations == {}
    (tmp_path / "multi30k" / "val.de").write_text("plain\n")
    assert texts(Multi30k("de").read(root), "val") == ["plain"]


def test_multi30k_pairs(tmp_path: Path) -> None:
    source = Multi30k("de", source_language="en")
    corpus = source.read(str(multi30k(tmp_path)))
    assert source.name == "multi30k_en_de"
    assert texts(corpus, "train") == ["", "de 1", "de 2"]
    assert [piece.text for piece in corpus.translations["train"]()] == ["", "en 1", "en 2"]
    for languages in (("fr",), ("en", "en"), ("en", "fr")):
        with pytest.raises(InputError, match=r"language=(fr|en)"):
            Multi30k(*languages)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    root = multi30k(tmp_path)
    file = root / "multi30k" / "train.en.gz"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"train\.en\.gz is damaged"):
        texts(Multi30k().read(str(root)), "train")


@pytest.mark.reference_data
def test_the_real_multi30k(reference_data: Path) -> None:
    corpus = Multi30k("de", "en").read(str(reference_data))
    counts = {split: len(texts(corpus, split)) for split in corpus.splits}
    assert counts == {"train": 29_000, "val": 1_014, "test": 1_000}
    assert {split: sum(1 for _ in read()) for split, read in corpus.translations.items()} == counts


WIKI = " \n = First = \n \n Some <unk> words . \n \n = = Section = = \n \n a = b = \n = no title = \n"
WIKI += " \n = Second thing = \n \n More . \n"


def wikitext(root: Path, folder: str, suffix: str) -> Path:
    (root / folder).mkdir()
    for part in ("train", "valid", "test"):
        (root / folder / f"wiki.{part}.{suffix}").write_text(WIKI + part, newline="\n")
    return root


@pytest.mark.parametrize(("folder", "suffix"), [("wikitext-2-raw", "raw"), ("wikitext-2", "tokens")])
def test_wikitext_has_an_article_a_document_and_loses_nothing(tmp_path: Path, folder: str, suffix: str) -> None:
    corpus = WikiText2().read(str(wikitext(tmp_path, folder, suffix)))
    for split, part in (("train", "train"), ("val", "valid"), ("test", "test")):
        first, second = texts(corpus, split)
        assert second == f" = Second thing = \n \n More . \n{part}"
        assert first + second == WIKI + part


def test_wikitext_by_lines(tmp_path: Path) -> None:
    corpus = WikiText2("lines").read(str(wikitext(tmp_path, "wikitext-2-raw", "raw")))
    assert texts(corpus, "val")[:3] == [" = First = ", " Some <unk> words . ", " = = Section = = "]
    assert len(texts(corpus, "val")) == 8
    assert corpus.stamp != WikiText2().read(str(tmp_path)).stamp


@pytest.mark.parametrize(
    ("source", "file"),
    [
        (TinyShakespeare, "tinyshakespeare/input.txt"),
        (Multi30k, "multi30k/train.en.gz"),
        (WikiText2, "wikitext-2-raw/wiki.train.raw"),
    ],
)
def test_missing_files_are_named_with_where_to_get_them(
    source: Callable[[], TextSource], file: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        source().read(str(tmp_path))
    assert str(tmp_path / file) in str(error.value)
    assert "https://" in str(error.value)
    assert "LIT_AIGC_DATA" in str(error.value)
    assert "set data.root=PATH" in source().problems(None)[0]
    (tmp_path / "file").touch()
    assert "is not a folder" in source().problems(str(tmp_path / "file"))[0]
