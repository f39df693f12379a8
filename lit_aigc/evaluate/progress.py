"""How far an evaluation is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

_Batch = TypeVar("_Batch")


def shown(batches: Iterable[_Batch], what: str, count: int, size: int) -> Iterable[_Batch]:
    """The batches, `count` items in parts of `size`; on a terminal a bar shows how far it is."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(batches, what, total=math.ceil(count / size), console=console, transient=True, disable=hidden)
