"""One picture per validation: the same latents through a model as it learns, next to real images."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from lit_aigc.callbacks.base import AtValidation, looking_at, moment
from lit_aigc.media.images import first_images, to_uint8
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.modules.capabilities import Interpolates
from lit_aigc.noise import Noise
from lit_aigc.spec import Condition, DataSpec


@dataclasses.dataclass(eq=False, kw_only=True)
class SampleGrid(AtValidation):
    """Writes ``samples/<samples_seen>.png`` of images at every validation and sends it to the loggers.

    A conditional model gets one named row per class, next to real images of that class; any other gets `rows` rows.
    Below are strips of latent interpolation, if the module interpolates. The latents are the same at every validation
    and in every run, so pictures can be compared.

    Args:
        rows: Rows of a model without classes, and most rows of one with classes (the first ones).
        columns: Generated images per row.
        real_columns: Real images per row; 0 for none.
        interpolations: Strips of interpolation between two latents; 0 for none.
        seed: Seed of the latents.
        keep: See `AtValidation`.
    """

    modality = "image"

    rows: int = 10
    columns: int = 10
    real_columns: int = 4
    interpolations: int = 2
    seed: int = 0
    _real: Tensor | None = dataclasses.field(default=None, init=False)

    def draw(self, trainer: Trainer, module: Any) -> Image.Image:
        """See the base class."""
        spec: DataSpec = module.spec
        by_class = spec.num_classes > 0 and module.conditional
        rows = min(self.rows, spec.num_classes) if by_class else self.rows
        names = [spec.class_name(row) for row in range(rows)] if by_class else []
        if self._real is None:
            self._real = _real_images(trainer.datamodule, spec, rows, self.real_columns, by_class=by_class)

        def condition(classes: Tensor) -> Condition | None:
            return Condition(labels=classes.to(module.device)) if by_class else None

        shared = Noise(self.seed)
        with looking_at(module):
            classes = torch.arange(rows).repeat_interleave(self.columns)
            generated = module.sample(len(classes), condition=condition(classes), noise=shared)
            strips: list[Tensor] = []
            strip_names: list[str] = []
            length = self.columns + self.real_columns
            for i in range(self.interpolations if isinstance(module, Interpolates) else 0):
                row = (2 * i + 1) * rows // (2 * self.interpolations)  # spread over the classes
                asked = condition(torch.full((length,), row))
                noise = shared.stream("interpolation").skip(2 * i)
                images = module.interpolate(length, condition=asked, noise=noise)
                strips.append(to_uint8(images, spec.value_range).cpu())
                strip_names += names[row : row + 1]

        panels = [Panel(to_uint8(generated, spec.value_range).cpu(), self.columns, "generated", names)]
        if self.real_columns:
            panels.append(Panel(self._real, self.real_columns, "real"))
        bands = [panels]
        if strips:
            bands.append([Panel(torch.cat(strips), length, "interpolation between two latents", strip_names)])
        return draw_sheet(bands, moment(module), spec.attribution)


def _real_images(data: Any, spec: DataSpec, rows: int, columns: int, *, by_class: bool) -> Tensor:
    """Return the first validation images, ``(rows * columns, C, H, W)`` uint8, white where there are none.

    `by_class`: row = class; a class without a validation image is shown by its first training images.
    """
    places = range(rows * columns)
    classes = [place // columns for place in places] if by_class else None
    images, missing = first_images(data.real_batches("val"), len(places), spec.shape, classes)
    for row in range(rows) if by_class else ():
        if set(range(row * columns, (row + 1) * columns)) <= set(missing) and columns:
            train = data.split("train")
            found = (train.labels == row).nonzero()[:columns, 0]
            if len(found):
                images[row * columns : row * columns + len(found)] = train.batch(0, found).images
    return images
