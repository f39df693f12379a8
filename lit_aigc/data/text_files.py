"""Text from the user's own files, and how they are split."""

from __future__ import annotations

import glob
import itertools
import os
from pathlib import Path
from typing import Literal

from lit_aigc.data.cleaning import first_few
from lit_aigc.data.corpora import Corpus, TextSource, split_by_name
from lit_aigc.data.folders import SPLIT_FOLDERS
from lit_aigc.data.sources import SPLITS
from lit_aigc.data.text_pieces import files_as_documents, is_text, line_start, lines_as_documents, stamp
from lit_aigc.errors import InputError, check

_FEW = 10
Part = tuple[Path, int, "int | None"]  # a file, its first byte, and one past its last (None: to the end)


class TextFiles(TextSource):
    """UTF-8 text in a folder, in the files that a glob such as ``notes/**/*.md`` names, or in one file.

    Splits: top-level folders or files named `train`, `val` (`valid`, `validation`) and `test` are the splits; without a
    `test` the validation text is the test text too. Otherwise, 10 files or more go to splits by the hash of their names
    (folders included), a tenth each to val and test, so adding files moves none. Of fewer files, each is split by
    position: the first 80 % for training, then 10 % for validation and 10 % for the test, cut at line ends.

    Hidden files are ignored. Files that are not text are skipped and named in a warning.

    Args:
        documents: ``"files"``, or ``"lines"`` that are not blank.
    """

    name = "text_files"

    def __init__(self, documents: Literal["files", "lines"] = "files"):
        check(("TextFiles: documents", documents, documents in ("files", "lines"), "files or lines"))
        self.documents = documents

    def problems(self, root: str | None) -> list[str]:
        """See `TextSource`."""
        return [] if root else ["text_files needs a folder, a glob or a file: set data.root=PATH."]

    def read(self, root: str | None) -> Corpus:
        """See `TextSource`."""
        found = _files(str(root))
        files = {name: path for name, path in found.items() if is_text(path)}
        not_text = tuple(name for name in found if name not in files)
        if not files:
            named = f": {first_few(not_text)}" if not_text else ""
            raise InputError(
                f"text_files: no text in data.root={root} ({len(found)} files, none of them UTF-8 text{named}). "
                "Expected a folder, a glob or a file of UTF-8 text."
            )
        documents = lines_as_documents if self.documents == "lines" else files_as_documents
        splits = {split: documents(parts) for split, parts in _split(files).items()}
        splits.setdefault("test", splits["val"])
        report = {"files": len(found), "not_text": len(not_text)}
        stamped = stamp(files.values(), self.name, self.documents, *files)
        return Corpus(splits, stamped, report=report, not_text=not_text)


def _files(root: str) -> dict[str, Path]:
    """Return the files that aren't hidden, by their names below the folder, in order."""
    place = Path(root)
    if place.is_file():
        return {place.name: place}
    if place.is_dir():
        paths = [Path(folder, file) for folder, _, files in os.walk(place) for file in files]
    else:
        fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), place.parts))
        paths = [Path(path) for path in glob.glob(root, recursive=True) if os.path.isfile(path)]
        if not paths:
            raise InputError(
                f"text_files: data.root={root} is neither a folder nor a file, and as a glob it matches nothing. "
                "Set data.root=PATH."
            )
        place = Path(*fixed)
    names = {path.relative_to(place).as_posix(): path for path in paths if path.is_file()}
    return {name: names[name] for name in sorted(names) if not any(part[0] == "." for part in name.split("/"))}


def _split(files: dict[str, Path]) -> dict[str, list[Part]]:
    """Return the parts of files that make up each split; without a test if only train and val are given."""
    named: dict[str, list[Part]] = {split: [] for split in SPLITS}
    tops = {name: SPLIT_FOLDERS.get(Path(name.split("/")[0]).stem.lower()) for name in files}
    if {"train", "val"} <= set(tops.values()) <= set(SPLITS):
        for name, split in tops.items():
            named[split].append((files[name], 0, None))
        return named if named["test"] else {"train": named["train"], "val": named["val"]}
    if len(files) >= _FEW:
        return {split: [(files[name], 0, None) for name in names] for split, names in split_by_name(files).items()}
    for path in files.values():
        first, second = line_start(path, 0.8), line_start(path, 0.9)
        for split, start, stop in (("train", 0, first), ("val", first, second), ("test", second, None)):
            named[split].append((path, start, stop))
    return named
