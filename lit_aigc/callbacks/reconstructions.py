"""Pictures of what a model with an encoder does to real images: reconstructions, traversals, ways between, a map."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.files import check_keep, name_at, thin_out
from lit_aigc.latents.codes import Encoded, decoded, draw_map, encoded, has_codes, pairs, reconstructed, spread
from lit_aigc.latents.explorer import REACH, STEPS, prior_moments
from lit_aigc.latents.geometry import most_active, walk
from lit_aigc.loggers.base import log_picture
from lit_aigc.media.images import save_png
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.spec import Batch

_ACTIVITY = 256  # images whose codes tell which units are active
_READ = 10_000  # of the validation images, at most


class Reconstructions(Callback):
    """Writes ``samples/<samples_seen>_reconstructions.png`` at every validation, and ``latent_map.png`` at the end.

    Three pictures on one sheet. Validation images beside their reconstructions. What single units of the code do: two
    images whose codes are kept but for one unit a row, which goes from -3 to 3 standard deviations of the prior; the
    units are those whose codes differ most from image to image. And the straight way from the code of one image to
    that of another, of the same class in a conditional model. The map shows the codes of validation images by their
    first two principal components, coloured by class.

    All of it with averaged weights, on the first process alone. A module that has no ``encode`` and ``decode`` but
    ``reconstruct`` gets the reconstructions alone, one that has neither nothing, as does one that is not of images.

    Args:
        rows: Rows of reconstructions.
        columns: Images with their reconstructions in a row.
        units: Units that are varied.
        interpolations: Rows from one image to another.
        map_images: Images on the map, and the most that anything is shown of; 0 for no map.
        seed: Of the noise of a random binarisation.
        keep: The most sheets to keep on the disk, spread over the run; at least 2.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(
        self,
        rows: int = 5,
        columns: int = 7,
        units: int = 10,
        interpolations: int = 5,
        map_images: int = 2000,
        seed: int = 0,
        keep: int = 200,
    ) -> None:
        super().__init__()
        check_keep(keep)
        options = {"rows": rows, "columns": columns, "units": units, "interpolations": interpolations}
        wrong = [f"{name}={value}: expected at least 1" for name, value in options.items() if value < 1]
        if map_images < 0:
            wrong.append(f"map_images={map_images}: expected 0 or more")
        if wrong:
            raise InputError("\n".join([*wrong, "callbacks.reconstructions=null switches these pictures off."]))
        self.rows = rows
        self.columns = columns
        self.units = units
        self.interpolations = interpolations
        self.map_images = map_images
        self.seed = seed
        self.keep = keep
        self._images: tuple[Tensor, Tensor | None] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sheet, write and log it."""
        draws = has_codes(pl_module) or hasattr(pl_module, "reconstruct")
        if not draws or not trainer.is_global_zero or trainer.sanity_checking or pl_module.spec.modality != "image":
            return
        sheet, seen = self.draw(trainer, pl_module), int(pl_module.samples_seen)
        samples = Path(trainer.default_root_dir) / "samples"
        save_png(sheet, samples / name_at(seen, "_reconstructions.png"))
        thin_out(samples, "_reconstructions.png", self.keep)
        log_picture(trainer.loggers, "reconstructions", np.asarray(sheet), seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the map, write and log it, unless the run has only paused."""
        draws = self.map_images and has_codes(pl_module) and pl_module.spec.modality == "image"
        if not trainer.is_global_zero or pl_module.progress < 1 or not draws:
            return
        images, labels = self._images_of(trainer, self.map_images)
        with _looking_at(pl_module):
            codes = encoded(pl_module, images, labels, self.seed).codes
        title = f"{len(codes):,} validation images by their codes"
        picture = draw_map(codes, labels, _class_names(pl_module), title)
        save_png(picture, Path(trainer.default_root_dir) / "latent_map.png")
        log_picture(trainer.loggers, "latent_map", np.asarray(picture), int(pl_module.samples_seen))

    def draw(self, trainer: Trainer, module: Any) -> Image.Image:
        """The sheet for the module as it is now, with averaged weights where it has any."""
        images, labels = self._images_of(trainer, _ACTIVITY)
        shown = spread(len(images), self.rows * self.columns)
        caption = "validation images, each with its reconstruction at its right"
        with _looking_at(module):
            if has_codes(module):
                known = encoded(module, images, labels, self.seed)
                some = known[shown]
                beside = decoded(module, some.codes, _given(module, some))
                bands = [pairs(some.images, beside, self.columns, caption)]
                bands += [self._traversals(module, known, some), self._between(module, known)]
            else:
                beside = reconstructed(module, images[shown])
                bands = [pairs(images[shown], beside, self.columns, caption)]
        title = f"{int(module.samples_seen):,} samples seen"
        if module.spec.attribution:
            title += f"; data: {module.spec.attribution}"
        return draw_sheet(bands, title)

    def _images_of(self, trainer: Trainer, n: int) -> tuple[Tensor, Tensor | None]:
        """Up to n validation images, spread over the split, and their labels."""
        if self._images is None:
            self._images = _spread_images(trainer.datamodule.real_batches("val"), max(self.map_images, _ACTIVITY))
        images, labels = self._images
        places = spread(len(images), n)
        return images[places], None if labels is None else labels[places]

    def _traversals(self, module: Any, known: Encoded, some: Encoded) -> list[Panel]:
        """For the first and the last image of the first row: a row a unit, its value from left to right."""
        units = most_active(known.codes, self.units)
        mean, deviation = prior_moments(module) if hasattr(module, "latents") else (torch.zeros(1), torch.ones(1))
        steps = torch.linspace(-REACH, REACH, STEPS)
        directions = torch.eye(known.codes.shape[1])[units]
        names = [f"unit {unit}" for unit in units.tolist()]
        panels = []
        captions = [f"the code of the first image, its {len(units)} most active units one at a time"]
        captions += ["the same for the last image of the first row"] if self.columns > 1 < len(some) else []
        for caption, image in zip(captions, (some[:1], some[: self.columns][-1:]), strict=False):
            code = (image.codes[0] - mean) / deviation
            codes = mean + deviation * torch.cat([walk(code, direction, steps) for direction in directions])
            labels = _given(module, image)
            varied = decoded(module, codes, None if labels is None else labels.expand(len(codes)))
            columns = [f"{step:.0f}" for step in steps.tolist()]
            panels.append(Panel(varied, STEPS, caption, () if panels else names, columns))
        return panels

    def _between(self, module: Any, known: Encoded) -> list[Panel]:
        """Rows from one image to another: the images at the ends, what is decoded between."""
        first = spread(max(1, len(known) // 2), self.interpolations)
        second = len(known) - 1 - first
        labels = _given(module, known)
        if labels is not None:  # there are no codes between classes
            same = [(labels == labels[place]).nonzero()[:, 0].flip(0) for place in first]
            second = torch.stack([places[i % len(places)] for i, places in enumerate(same)])
        ends, others = known[first], known[second]
        steps = 2 * STEPS - 2  # with the ends, as wide as two traversals
        share = torch.linspace(0, 1, steps)[None, :, None]
        codes = torch.lerp(ends.codes[:, None], others.codes[:, None], share).flatten(0, 1)
        images = decoded(module, codes, None if labels is None else labels[first].repeat_interleave(steps))
        return [
            Panel(ends.images, 1, "from"),
            Panel(images, steps, "the straight way between two codes, decoded"),
            Panel(others.images, 1, "to"),
        ]


@contextlib.contextmanager
def _looking_at(module: Any) -> Iterator[None]:
    """Inside, the module has its averaged weights and is in evaluation mode; its modes and random state stay."""
    devices = [module.device] if torch.device(module.device).type == "cuda" else []
    with torch.random.fork_rng(devices), module.averaged(), module.evaluating(), torch.no_grad():
        yield


def _given(module: Any, known: Encoded) -> Tensor | None:
    """The classes, where the model is conditional."""
    return known.labels if module.conditional else None


def _class_names(module: Any) -> list[str]:
    names = module.spec.class_names
    return [names[i] if i < len(names) else str(i) for i in range(module.spec.num_classes)]


def _spread_images(batches: Iterable[Batch], n: int) -> tuple[Tensor, Tensor | None]:
    """Up to n images of a split, uint8, and their labels, evenly spaced."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    step = 1
    for batch in itertools.takewhile(lambda batch: batch.start < _READ, batches):
        kept = [i for i in range(len(batch.images)) if (batch.start + i) % step == 0]
        images += [batch.images[i].cpu().clone() for i in kept]
        labels += [] if batch.labels is None else batch.labels[kept].cpu().unbind()
        while len(images) > 2 * n:  # few in memory, however many there are
            images, labels, step = images[::2], labels[::2], 2 * step
    places = spread(len(images), n).tolist()
    return torch.stack([images[i] for i in places]), torch.stack([labels[i] for i in places]) if labels else None
