"""Pictures of real images through an encoder: reconstructions, traversals, interpolations, and a map of the codes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from lit_aigc.callbacks.base import AtValidation, check_at_least, looking_at, moment, show_picture
from lit_aigc.latents.codes import Encoded, decoded, draw_map, encoded, pairs, reconstructed, spread
from lit_aigc.latents.explorer import REACH, STEPS, prior_moments
from lit_aigc.latents.geometry import most_active, walk
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.modules.capabilities import Decodes, Encodes, Reconstructs
from lit_aigc.spec import Batch

_ACTIVITY = 256  # images from whose codes active units are found
_READ = 10_000  # of the validation images, at most


@dataclasses.dataclass(eq=False, kw_only=True)
class Reconstructions(AtValidation):
    """Writes ``samples/<samples_seen>_reconstructions.png`` at every validation, and ``latent_map.png`` at the end.

    The sheet has three parts. Validation images next to their reconstructions. What single units of the code do: the
    codes of two images with one unit per row changed from -3 to 3 standard deviations of the prior, for the units
    whose codes differ most between images. And linear interpolations from the code of one image to that of another, of
    the same class in a conditional model. The map shows the codes of validation images by their first two principal
    components, colored by class.

    All of it uses averaged weights. A module that reconstructs, but doesn't encode, gets the reconstructions only; one
    that does neither gets nothing.

    Args:
        rows: Rows of reconstructions.
        columns: Images with their reconstructions per row.
        units: Units that are varied.
        interpolations: Rows of interpolation.
        map_images: Images on the map, and most images that anything is chosen from; 0 for no map.
        seed: Of the noise of a random binarization.
        keep: See `AtValidation`.

    Raises:
        InputError: If an option is out of range.
    """

    modality = "image"
    suffix = "_reconstructions.png"
    key = "reconstructions"

    rows: int = 5
    columns: int = 7
    units: int = 10
    interpolations: int = 5
    map_images: int = 2000
    seed: int = 0
    _images: tuple[Tensor, Tensor | None] | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"rows": 1, "columns": 1, "units": 1, "interpolations": 1, "map_images": 0}
        check_at_least(self, least, "; callbacks.reconstructions=null switches these pictures off")

    def fits(self, module: Any) -> bool:
        """See the base class."""
        return isinstance(module, Encodes | Reconstructs) and super().fits(module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the map, write and log it, unless the run has only paused."""
        if not (self.map_images and isinstance(pl_module, Encodes) and self.at_the_end(trainer, pl_module)):
            return
        images, labels = self._images_of(trainer, self.map_images)
        with looking_at(pl_module):
            codes = encoded(pl_module, images, labels, self.seed).codes
        spec = pl_module.spec
        names = [spec.class_name(label) for label in range(spec.num_classes)]
        picture = draw_map(codes, labels, names, f"{len(codes):,} validation images by their codes")
        show_picture(trainer, pl_module, picture, Path(trainer.default_root_dir) / "latent_map.png", "latent_map")

    def draw(self, trainer: Trainer, module: Any) -> Image.Image:
        """See the base class."""
        images, labels = self._images_of(trainer, _ACTIVITY)
        shown = spread(len(images), self.rows * self.columns)
        caption = "validation images, each with its reconstruction to its right"
        with looking_at(module):
            if isinstance(module, Encodes):
                known = encoded(module, images, labels, self.seed)
                some = known[shown]
                made = decoded(module, some.codes, _given(module, some))
                bands = [pairs(some.images, made, self.columns, caption)]
                bands += [self._traversals(module, known, some), self._between(module, known)]
            else:
                bands = [pairs(images[shown], reconstructed(module, images[shown]), self.columns, caption)]
        return draw_sheet(bands, moment(module), module.spec.attribution)

    def _images_of(self, trainer: Trainer, n: int) -> tuple[Tensor, Tensor | None]:
        """Return up to n validation images, spread over the split, and their labels."""
        if self._images is None:
            self._images = _spread_images(trainer.datamodule.real_batches("val"), max(self.map_images, _ACTIVITY))
        images, labels = self._images
        places = spread(len(images), n)
        return images[places], None if labels is None else labels[places]

    def _traversals(self, module: Any, known: Encoded, some: Encoded) -> list[Panel]:
        """Return, for the first and the last image of the first row, one row per unit, its value from left to right."""
        units = most_active(known.codes, self.units)
        mean, deviation = prior_moments(module) if isinstance(module, Decodes) else (torch.zeros(1), torch.ones(1))
        steps = torch.linspace(-REACH, REACH, STEPS)
        directions = torch.eye(known.codes.shape[1])[units]
        names = [f"unit {unit}" for unit in units.tolist()]
        panels = []
        captions = [f"the code of the first image, its {len(units)} most active units, one at a time"]
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
        """Return rows of interpolation between images, which are shown at the ends."""
        first = spread(max(1, len(known) // 2), self.interpolations)
        second = len(known) - 1 - first
        labels = _given(module, known)
        if labels is not None:  # codes can be interpolated only within a class
            same = [(labels == labels[place]).nonzero()[:, 0].flip(0) for place in first]
            second = torch.stack([places[i % len(places)] for i, places in enumerate(same)])
        ends, others = known[first], known[second]
        steps = 2 * STEPS - 2  # as wide as two traversals, with the ends
        share = torch.linspace(0, 1, steps)[None, :, None]
        codes = torch.lerp(ends.codes[:, None], others.codes[:, None], share).flatten(0, 1)
        images = decoded(module, codes, None if labels is None else labels[first].repeat_interleave(steps))
        return [
            Panel(ends.images, 1, "from"),
            Panel(images, steps, "linear interpolation between codes"),
            Panel(others.images, 1, "to"),
        ]


def _given(module: Any, known: Encoded) -> Tensor | None:
    """Return the classes, if the model is conditional."""
    return known.labels if module.conditional else None


def _spread_images(batches: Iterable[Batch], n: int) -> tuple[Tensor, Tensor | None]:
    """Return up to n images of a split, uint8, and their labels, evenly spaced."""
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
