"""The page of an evaluation: numbers, samples, the picture of the audit, and curves of the training."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lit_aigc import __version__
from lit_aigc.evaluate.output import page_file, picture_file
from lit_aigc.evaluate.page.page import page
from lit_aigc.evaluate.subject import Subject
from lit_aigc.files import write_atomically
from lit_aigc.media.images import make_grid
from lit_aigc.media.modality import of_modality
from lit_aigc.metrics.generative import module_samples
from lit_aigc.metrics.measurement import Curve

_SAMPLES, _COLUMNS = 80, 10


def write_page(config: Mapping[str, Any], results: Mapping[str, Any], subject: Subject) -> None:
    """Write the page of an evaluation next to its numbers."""
    content = page(
        results,
        _pictures(config, subject),
        run_curves(config["bundle"]) if config["bundle"] else {},
        title=_title(config),
        facts={"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", "version": f"lit_aigc {__version__}"},
        class_names=subject.spec.class_names,
        command=shlex.join(["python", "-m", "lit_aigc.evaluate", *sys.argv[1:]]),
    )
    write_atomically(page_file(config), content)


def run_curves(bundle: str | Path) -> dict[str, Curve]:
    """Return the curves in ``metrics.csv`` of the run folder that a bundle lies in; none if there is no such file."""
    from lit_aigc.loggers.csv import read_metrics

    metrics = Path(bundle).absolute().parent / "metrics.csv"
    return read_metrics(metrics) if metrics.is_file() else {}


def _title(config: Mapping[str, Any]) -> str:
    """Return the name of a bundle's run folder, or of a set of images."""
    if config["bundle"]:
        bundle = Path(config["bundle"]).absolute()
        return bundle.parent.name if bundle.name == "bundle" else bundle.name
    return Path(config["fake"]).name


def _pictures(config: Mapping[str, Any], subject: Subject) -> dict[str, Image.Image | bytes]:
    if not of_modality("media", subject.spec.modality).PICTURES:
        return {}
    if subject.bundle:
        images = torch.cat([batch.images for batch in module_samples(subject.bundle.module, _SAMPLES, config["seed"])])
    else:
        images = next(iter(subject.fake.batches(_SAMPLES))).images
    grid = make_grid(images.cpu(), _COLUMNS).permute(1, 2, 0).squeeze(2)
    pictures: dict[str, Image.Image | bytes] = {"samples": Image.fromarray(grid.numpy())}
    if config["audit"]:
        pictures["memorisation"] = picture_file(config).read_bytes()
    return pictures
