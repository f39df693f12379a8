"""One picture a validation: the same latents through a model that learns, with real images beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from lit_aigc.files import check_keep, name_at, thin_out
from lit_aigc.loggers.base import log_picture
from lit_aigc.media.images import save_png, to_uint8
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.noise import Noise
from lit_aigc.spec import Condition, DataSpec


class SampleGrid(Callback):
    """Writes ``samples/<samples_seen>.png`` of images at every validation and sends it to the loggers.

    A conditional model gets a row a class, named at its left, with real images of the same class beside; another gets
    `rows` rows. Below, strips of latent interpolation where the module has ``interpolate``. The latents are the same at
    every validation and in every run, so pictures can be compared. Drawn on rank 0 alone: sampling is local.

    Args:
        rows: Rows of a model without classes, and the most rows of one with (the first classes).
        columns: Generated images a row.
        real_columns: Real images a row; 0 for none.
        interpolations: Strips of interpolation between two latents; 0 for none.
        seed: Seed of the latents.
        keep: The most pictures to keep on the disk, spread over the run; at least 2.

    Raises:
        InputError: If `keep` is out of range.
    """

    def __init__(
        self,
        rows: int = 10,
        columns: int = 10,
        real_columns: int = 4,
        interpolations: int = 2,
        seed: int = 0,
        keep: int = 200,
    ) -> None:
        super().__init__()
        check_keep(keep)
        self.keep = keep
        self.rows = rows
        self.columns = columns
        self.real_columns = real_columns
        self.interpolations = interpolations
        self.noise = Noise(seed)
        self._real: Tensor | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample, draw, write and log."""
        if not trainer.is_global_zero or trainer.sanity_checking or pl_module.spec.modality != "image":
            return
        sheet = self.draw(trainer, pl_module)
        seen = int(pl_module.samples_seen)
        samples = Path(trainer.default_root_dir) / "samples"
        save_png(sheet, samples / name_at(seen, ".png"))
        thin_out(samples, ".png", self.keep)
        log_picture(trainer.loggers, "samples", np.asarray(sheet), seen)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> Image.Image:
        """The picture for the module as it is now, with averaged weights where it has any."""
        spec: DataSpec = pl_module.spec
        conditional = spec.num_classes > 0 and bool(getattr(pl_module, "conditional", False))
        rows = min(self.rows, spec.num_classes) if conditional else self.rows
        if self._real is None:
            self._real = _real_images(trainer, spec, rows, self.real_columns, by_class=conditional)

        def labels(classes: Tensor) -> Condition | None:
            return Condition(labels=classes.to(pl_module.device)) if conditional else None

        was_training = pl_module.training
        pl_module.eval()
        strip_length = self.columns + self.real_columns
        names = _class_names(spec, rows) if conditional else []
        strips: list[Tensor] = []
        strip_names: list[str] = []
        with torch.no_grad(), pl_module.averaged():
            classes = torch.arange(rows).repeat_interleave(self.columns)
            generated = pl_module.sample(len(classes), condition=labels(classes), noise=self.noise)
            for i in range(self.interpolations if hasattr(pl_module, "interpolate") else 0):
                noise = self.noise.stream("interpolation").skip(2 * i)
                row = (2 * i + 1) * rows // (2 * self.interpolations)  # spread over the classes
                condition = labels(torch.full((strip_length,), row))
                strips.append(pl_module.interpolate(strip_length, condition=condition, noise=noise))
                strip_names += names[row : row + 1]
        pl_module.train(was_training)

        generated = to_uint8(generated, spec.value_range).cpu()
        panels = [Panel(generated, self.columns, "generated", names)]
        if self.real_columns:
            panels.append(Panel(self._real, self.real_columns, "real"))
        bands = [panels]
        if strips:
            between = to_uint8(torch.cat(strips), spec.value_range).cpu()
            bands.append([Panel(between, strip_length, "interpolation between two latents", strip_names)])
        title = f"{int(pl_module.samples_seen):,} samples seen"
        if spec.attribution:
            title += f"; data: {spec.attribution}"
        return draw_sheet(bands, title)


def _class_names(spec: DataSpec, rows: int) -> list[str]:
    return [spec.class_names[i] if i < len(spec.class_names) else str(i) for i in range(rows)]


def _real_images(trainer: Trainer, spec: DataSpec, rows: int, columns: int, *, by_class: bool) -> Tensor:
    """The first validation images, ``(rows * columns, C, H, W)`` uint8, white for none.

    `by_class`: row = class; a class without a validation image is shown by its first training images.
    """
    images = torch.full((rows * columns, *spec.shape), 255, dtype=torch.uint8)
    found = [0] * rows
    if not images.numel():
        return images
    for batch in trainer.datamodule.real_batches("val"):
        for i, image in enumerate(batch.images.cpu()):
            row = int(batch.labels[i]) if by_class else next((r for r in range(rows) if found[r] < columns), rows)
            if row < rows and found[row] < columns:
                images[row * columns + found[row]] = image
                found[row] += 1
        if min(found) == columns:
            break
    for row in (row for row in range(rows) if by_class and not found[row]):
        train = trainer.datamodule.split("train")
        places = (train.labels == row).nonzero()[:columns, 0]
        if len(places):
            images[row * columns : row * columns + len(places)] = train.batch(0, places).images
    return images
