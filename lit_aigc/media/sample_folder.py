"""A folder of generated images records which samples it holds, and which of its pictures are not samples."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically

MANIFEST = "samples.json"
_SAMPLE = re.compile(r"\d{6,}\.png")


def origin(bundle_manifest: Mapping[str, Any], seed: int, label: Any) -> dict[str, Any]:
    """Return what samples of the same set have in common: the bundle's hash, the seed, and the label asked for."""
    files = json.dumps(bundle_manifest["files"], sort_keys=True)
    digest = hashlib.blake2b(files.encode(), digest_size=16).hexdigest()
    return {"bundle": digest, "seed": seed, "label": label}


def check_origin(directory: Path, samples: Mapping[str, Any]) -> None:
    """Check that a folder holds no samples other than these; more of the same set may join them.

    Args:
        directory: The folder; it needn't exist.
        samples: As `origin` returns it.

    Raises:
        InputError: If it holds samples of another bundle, seed or label, or of unknown origin.
    """
    try:
        here = json.loads((directory / MANIFEST).read_text())
        found = " and ".join(f"of another {key}" for key, value in samples.items() if here.get(key) != value)
    except (OSError, ValueError, AttributeError):
        found = "of unknown origin" if _samples(directory) else ""
    if found:
        raise InputError(
            f"out={directory} holds samples {found}, and sets can't be mixed: choose another folder, or delete "
            "this one first."
        )


@contextlib.contextmanager
def described(directory: Path, samples: Mapping[str, Any], names: Iterable[str], overview: str) -> Iterator[None]:
    """Write ``samples.json``: the samples' origin, how many there are, and the name of the overview.

    It is written before the samples, which are written within this context, so that those of an interrupted run have
    an origin too. If no sample is written, the file is removed.

    Args:
        directory: The folder.
        samples: As `origin` returns it.
        names: Files of the samples to be written.
        overview: A picture of many samples, which is no sample itself.
    """
    n = len(_samples(directory) | set(names))
    write_atomically(directory / MANIFEST, json.dumps({**samples, "n": n, "overview": overview}, indent=2) + "\n")
    try:
        yield
    finally:
        if not _samples(directory):
            (directory / MANIFEST).unlink()


def overview_of(manifest: bytes | str) -> str | None:
    """Return the file name of the overview that a ``samples.json`` names, without folders; None if it names none."""
    try:
        return PurePosixPath(json.loads(manifest)["overview"]).name or None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _samples(directory: Path) -> set[str]:
    return {file.name for file in directory.glob("*.png") if _SAMPLE.fullmatch(file.name)}
