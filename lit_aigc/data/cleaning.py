"""The report on cleaning a folder of images: what is kept, what is skipped and why, and what looks odd."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

_NAMED = 5


@dataclasses.dataclass
class CleaningReport:
    """Counts of what was found in a folder of images.

    Attributes:
        files: Image files by their suffix.
        kept: Images that are used.
        unreadable: Files skipped because they can't be decoded.
        animated: Files skipped because they have several frames or pages.
        duplicates: Images skipped because another one decodes to the same pixels.
        resized: Images kept that had another size.
        converted: Images kept that had other channels (gray for color, color for gray, or transparent).
        enlarged: Images kept that are so small that they were enlarged a lot.
        cropped: Images kept that are so long that most of each was cropped.
        other_files: Files skipped because of their suffix.
        empty_folders: Folders without images.
        empty_classes: Classes without a training image.
        examples: Names of the first few of each kind, by the name of the count.
    """

    files: int = 0
    kept: int = 0
    unreadable: int = 0
    animated: int = 0
    duplicates: int = 0
    resized: int = 0
    converted: int = 0
    enlarged: int = 0
    cropped: int = 0
    other_files: int = 0
    empty_folders: int = 0
    empty_classes: int = 0
    examples: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, kind: str, *names: str) -> None:
        """Count files, folders or classes of a kind that is reported by name."""
        setattr(self, kind, getattr(self, kind) + len(names))
        if known := [*self.examples.get(kind, []), *names][:_NAMED]:
            self.examples[kind] = known

    def counts(self) -> dict[str, int]:
        """Return only the counts."""
        return {key: value for key, value in dataclasses.asdict(self).items() if isinstance(value, int)}

    def warnings(self) -> list[str]:
        """Return one line per kind of file that was skipped or looks odd."""
        of_all = f"of {self.files}"
        lines = {
            "unreadable": f"{self.unreadable} {of_all} files unreadable, left out",
            "animated": f"{self.animated} {of_all} files have several frames or pages, left out",
            "duplicates": f"{self.duplicates} {of_all} images are exact duplicates of others, left out",
            "other_files": f"{_counted(self.other_files, 'file')} of other types, left out",
            "empty_folders": f"{_counted(self.empty_folders, 'folder')} without images, left out",
            "empty_classes": f"{_counted(self.empty_classes, 'class', 'es')} without a training image",
            "enlarged": f"{self.enlarged} {of_all} images are tiny and were enlarged more than 4 times",
            "cropped": f"{self.cropped} {of_all} images are more than 4 times as long as wide; only the middle is used",
        }
        counts = {kind: getattr(self, kind) for kind in lines}
        return [
            f"{line}: {first_few(self.examples[kind], counts[kind])}" if kind in self.examples else line
            for kind, line in lines.items()
            if counts[kind]
        ]


def _counted(count: int, noun: str, ending: str = "s") -> str:
    return f"{count} {noun}{ending if count != 1 else ''}"


def first_few(names: Sequence[str], count: int | None = None) -> str:
    """Join the first few names, and say how many more of `count` there are; None: of these."""
    more = (len(names) if count is None else count) - len(names[:_NAMED])
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more else "")
