"""What was found in a folder of images: what is kept, and what is left out and why."""

from __future__ import annotations

import dataclasses

_NAMED = 5


@dataclasses.dataclass
class CleaningReport:
    """What was found in a folder of images.

    Attributes:
        files: Image files by their suffix.
        kept: Images that are used.
        unreadable: Files left out because they can't be decoded.
        animated: Files left out because they hold several frames.
        duplicates: Images left out because another one decodes to the same pixels.
        resized: Images kept that had another size.
        converted: Images kept that had other channels (grey for colour, colour for grey, or transparent).
        unreadable_names: ``name (reason)`` of the first few unreadable files.
        animated_names: The first few animated files.
    """

    files: int = 0
    kept: int = 0
    unreadable: int = 0
    animated: int = 0
    duplicates: int = 0
    resized: int = 0
    converted: int = 0
    unreadable_names: list[str] = dataclasses.field(default_factory=list)
    animated_names: list[str] = dataclasses.field(default_factory=list)

    def add_unreadable(self, name: str, reason: str) -> None:
        """Count a file that can't be read."""
        self.unreadable += 1
        if len(self.unreadable_names) < _NAMED:
            self.unreadable_names.append(f"{name} ({reason})")

    def add_animated(self, name: str) -> None:
        """Count a file of several frames."""
        self.animated += 1
        if len(self.animated_names) < _NAMED:
            self.animated_names.append(name)

    def counts(self) -> dict[str, int]:
        """The numbers alone."""
        return {key: value for key, value in dataclasses.asdict(self).items() if isinstance(value, int)}

    def warnings(self) -> list[str]:
        """One line for each kind of file that was left out."""
        lines = []
        if self.unreadable:
            lines.append(f"{self.unreadable} of {self.files} files unreadable, left out: {self._named('unreadable')}")
        if self.animated:
            lines.append(f"{self.animated} of {self.files} files animated, left out: {self._named('animated')}")
        if self.duplicates:
            lines.append(f"{self.duplicates} of {self.files} images are exact duplicates of others, left out")
        return lines

    def _named(self, kind: str) -> str:
        names, count = getattr(self, f"{kind}_names"), getattr(self, kind)
        return ", ".join(names) + (f" and {count - len(names)} more" if count > len(names) else "")
