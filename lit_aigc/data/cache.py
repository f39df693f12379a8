"""Small JSON results that are costly to find again, in the user's cache folder; without one, nothing is kept."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def load(key: str) -> dict[str, Any] | None:
    """What was stored under this key, or None."""
    try:
        return json.loads(_file(key).read_text())
    except (OSError, ValueError, RuntimeError):
        return None


def store(key: str, value: dict[str, Any]) -> None:
    """Store under this key, if the cache can be written; a reader never sees half of it."""
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as part:
            json.dump(value, part)
        os.replace(part.name, file)


def _file(key: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "lit_aigc" / f"{key}.json"
