"""Sources of text with names of their own; the user's files are in `lit_aigc.data.text_files`."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import itertools
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from lit_aigc.data.folders import hash_fraction, split_by_position
from lit_aigc.data.sources import SPLITS, Source
from lit_aigc.data.text_pieces import Documents, Piece, files_as_documents, stamp
from lit_aigc.errors import InputError, check


@dataclasses.dataclass
class Corpus:
    """The texts of a source; nothing is read before it is asked for.

    Attributes:
        splits: The documents of ``train``, ``val`` and ``test``; the same object twice if val is the test set too.
        stamp: A hash that changes whenever the documents may have changed.
        translations: The source text of each document, by split, in the same order; empty for plain text.
        report: Counts of what was found.
        not_text: Names of files that were skipped because they are not UTF-8 text.
    """

    splits: dict[str, Documents]
    stamp: str
    translations: dict[str, Documents] = dataclasses.field(default_factory=dict)
    report: dict[str, int] = dataclasses.field(default_factory=dict)
    not_text: tuple[str, ...] = ()


class TextSource(Source):
    """A source of text."""

    def read(self, root: str | None) -> Corpus:
        """Return the documents; raises InputError if any are missing."""
        raise NotImplementedError


def split_by_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Split names by their hash, a tenth each to val and test; of three names or more each split gets one or more.

    A name stays in its split when others come and go, unless a split would be empty without it.
    """
    return split_by_position({name: hash_fraction(name) for name in names}, {"val": 0.1, "test": 0.1})


class PyDocs(TextSource):
    """The English of Python's own language reference, from the module `pydoc_data.topics`: text without any download.

    A document is a topic, such as ``"assert"``; the topics depend on the version of Python. Many topics are sections of
    longer ones: a topic with half its paragraphs in longer topics is left out. Split by the hash of ``"pydocs/"`` and
    the topic's name.
    """

    name = "pydocs"

    def read(self, root: str | None) -> Corpus:
        """See `TextSource`."""
        from pydoc_data.topics import topics

        texts = {f"{self.name}/{name}": topics[name] for name in sorted(_not_in_longer_ones(topics))}
        splits = split_by_name(texts)
        digest = hashlib.blake2b(repr(texts).encode(), digest_size=16).hexdigest()
        report = {"topics": len(topics), "parts_of_others": len(topics) - len(texts)}
        documents = {split: [Piece(texts[name]) for name in names] for split, names in splits.items()}
        return Corpus({split: documents[split].__iter__ for split in SPLITS}, digest, report=report)


def _not_in_longer_ones(texts: dict[str, str]) -> list[str]:
    """Return the names of the texts with less than half their paragraphs in longer ones."""
    seen: set[str] = set()
    kept = []
    for name in sorted(texts, key=lambda name: (-len(texts[name]), name)):
        paragraphs = {" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", texts[name])}
        paragraphs = {paragraph for paragraph in paragraphs if len(paragraph) >= 40}
        if not paragraphs or 2 * len(paragraphs & seen) < len(paragraphs):
            kept.append(name)
            seen |= paragraphs
    return kept


class PythonSource(TextSource):
    """The files of the running Python's standard library, without its tests: code without any download.

    A document is a file. Split by the hash of ``"python_source/"`` and the file's name, such as ``json/decoder.py``.
    """

    name = "python_source"
    _LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})

    def read(self, root: str | None) -> Corpus:
        """See `TextSource`."""
        library = Path(sysconfig.get_path("stdlib"))
        files = {}
        for folder, folders, names in os.walk(library):
            folders[:] = sorted(set(folders) - self._LEFT_OUT)
            for file in sorted(Path(folder, name) for name in names if name.endswith(".py")):
                files[f"{self.name}/{file.relative_to(library).as_posix()}"] = file
        if len(files) < 100:
            raise InputError(
                f"python_source: only {len(files)} Python files in {library}: this Python comes without the source of "
                "its standard library. Choose other data, such as data=pydocs."
            )
        splits = split_by_name(files)
        documents = {split: files_as_documents([(files[name],) for name in splits[split]]) for split in SPLITS}
        return Corpus(documents, stamp(files.values(), self.name), report={"files": len(files)})


class TinyShakespeare(TextSource):
    """40,000 lines of Shakespeare's plays (Karpathy's char-rnn): ``tinyshakespeare/input.txt`` under the root.

    The first ``int(0.9 * n)`` of its n characters are for training and the others for validation, as in nanoGPT. The
    latter are the test text too, since nobody holds out a third part.
    """

    name = folder = "tinyshakespeare"
    _URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

    def read(self, root: str | None) -> Corpus:
        """See `TextSource`."""
        file = Path(root, "tinyshakespeare", "input.txt")
        _expect(self.name, root, [file], self._URL)

        def part(training: bool) -> Iterator[Piece]:
            text = file.read_bytes().decode("utf-8", "surrogateescape")
            cut = int(0.9 * len(text))
            yield Piece(text[:cut] if training else text[cut:], ends=False)  # a slice: no text ends there

        held_out = functools.partial(part, False)
        splits = {"train": functools.partial(part, True), "val": held_out, "test": held_out}
        return Corpus(splits, stamp([file], self.name))


class Multi30k(TextSource):
    """Captions of 31,014 photographs (Elliott et al. 2016), one sentence per document, in the official splits.

    29,000 for training, 1,014 for validation, and the 1,000 of ``test_2016_flickr``: files ``multi30k/train.en.gz`` and
    so on under the root, or the same without ``.gz``.

    Args:
        language: Language that the model writes.
        source_language: Language of the originals, for translation; None: no translation.
    """

    folder = "multi30k"
    _STEMS = ("train", "val", "test_2016_flickr")
    _URL = "https://github.com/multi30k/dataset/tree/master/data/task1/raw"

    def __init__(self, language: Literal["en", "de"] = "en", source_language: Literal["en", "de"] | None = None):
        others = {"en", "de", None} - {language}
        check(
            ("Multi30k: language", language, language in ("en", "de"), "en or de"),
            ("Multi30k: source_language", source_language, source_language in others, "the other one, or null"),
        )
        self.language, self.source_language = language, source_language
        self.name = f"multi30k_{source_language}_{language}" if source_language else f"multi30k_{language}"

    def read(self, root: str | None) -> Corpus:
        """See `TextSource`."""
        languages = [language for language in (self.language, self.source_language) if language]
        files = {language: [self._file(root, stem, language) for stem in self._STEMS] for language in languages}
        everything = [file for found in files.values() for file in found]
        _expect("multi30k", root, everything, self._URL)
        sides = [
            {split: functools.partial(_sentences, file) for split, file in zip(SPLITS, files[language], strict=True)}
            for language in languages
        ]
        return Corpus(sides[0], stamp(everything, self.name), *sides[1:])

    @staticmethod
    def _file(root: str | None, stem: str, language: str) -> Path:
        plain = Path(root, "multi30k", f"{stem}.{language}")
        return plain if plain.is_file() else plain.with_name(plain.name + ".gz")


def _sentences(file: Path) -> Iterator[Piece]:
    """Yield every line, including blank ones, which have a translation too."""
    return (Piece(row.rstrip("\r\n")) for row in _rows(file))


def _rows(file: Path) -> Iterator[str]:
    """Yield the lines of a file, which may be compressed, with their line ends."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", errors="surrogateescape", newline="\n") as rows:
        try:
            yield from rows
        except (OSError, EOFError) as error:
            raise InputError(f"{file} is damaged ({error}); download it again.") from None


class WikiText2(TextSource):
    """Two million words of Wikipedia (Merity et al. 2016): ``wiki.train.raw``, ``wiki.valid.raw``, ``wiki.test.raw``.

    The files are in ``wikitext-2-raw`` or ``wikitext-2`` under the root; the older ``.tokens``, in which rare words are
    ``<unk>``, may take their place. Official splits, with no character changed.

    Args:
        documents: ``"articles"``, or ``"lines"`` that are not blank, each followed by the boundary: the ``<eos>`` of
            published perplexities per word.
    """

    name = folder = "wikitext2"
    _URL = "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-raw-v1.zip"
    _TITLE = re.compile(r" = [^=].* = ?$")

    def __init__(self, documents: Literal["articles", "lines"] = "articles"):
        check(("WikiText2: documents", documents, documents in ("articles", "lines"), "articles or lines"))
        self.documents = documents

    def read(self, root: str | None) -> Corpus:
        """See `TextSource`."""
        files = {split: self._file(root, part) for split, part in zip(SPLITS, ("train", "valid", "test"), strict=True)}
        _expect(self.name, root, files.values(), self._URL)
        read = self._articles if self.documents == "articles" else self._lines
        splits = {split: functools.partial(read, file) for split, file in files.items()}
        return Corpus(splits, stamp(files.values(), self.name, self.documents))

    @staticmethod
    def _file(root: str | None, part: str) -> Path:
        variants = itertools.product(("wikitext-2-raw", "wikitext-2"), ("raw", "tokens"))
        places = [Path(root, folder, f"wiki.{part}.{suffix}") for folder, suffix in variants]
        return next((place for place in places if place.is_file()), places[0])

    @classmethod
    def _articles(cls, file: Path) -> Iterator[Piece]:
        article: list[str] = []
        for row in _rows(file):
            title = cls._TITLE.match(row.rstrip("\n")) and article and not article[-1].strip()
            if title and any(line.strip() for line in article):
                yield Piece("".join(article))
                article = []
            article.append(row)
        yield Piece("".join(article))

    @staticmethod
    def _lines(file: Path) -> Iterator[Piece]:
        return (Piece(row.rstrip("\n")) for row in _rows(file) if row.strip())


def _expect(name: str, root: str | None, files: Iterable[Path], url: str) -> None:
    """Raise InputError if a file is missing, and say where to get it and where to put it."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{name}: missing under data.root={root}:\n"
            + "\n".join(f"  {file}" for file in missing)
            + f"\nPut them there (from {url}), or name the folder that has them with data.root=PATH or LIT_AIGC_DATA."
        )
