"""At the end of training: samples, each beside the training images that are nearest to it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.loggers.base import log_picture
from lit_aigc.media.images import save_png
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.metrics.features.extractors import extractor as find_extractor
from lit_aigc.metrics.generative import module_samples
from lit_aigc.metrics.neighbors import nearest
from lit_aigc.metrics.reference import extract
from lit_aigc.noise import Noise

log = logging.getLogger(__name__)


class NearestNeighbours(Callback):
    """Writes ``samples/neighbours.png`` when training is done, and tells how near samples come to training images.

    ``nearest_distance`` is the median over samples of the distance to the nearest training image, and
    ``nearest_distance_real`` the same of held-out real images: a model that invents is about as far from the training
    images as these are, one that repeats them is nearer. Done on the first process alone.

    Args:
        num_samples: Samples, and at most as many held-out images, that are compared with all training images.
        neighbours: Nearest training images shown beside each.
        rows: Rows of the samples that came nearest, of the first samples, and of held-out images, each.
        extractor: Name of a feature extractor, for the nearest by features too; None: by pixels alone.
        seed: Seed of the samples' noise.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(
        self,
        num_samples: int = 256,
        neighbours: int = 8,
        rows: int = 5,
        extractor: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("num_samples", num_samples), ("neighbours", neighbours), ("rows", rows)):
            if value < 1:
                raise InputError(f"{name}={value}: expected at least 1; callbacks.neighbours=null switches it off.")
        self.num_samples = num_samples
        self.neighbours = neighbours
        self.rows = rows
        self.extractor = extractor
        self.seed = seed
        self.values: dict[str, float] = {}
        self.protocol: dict[str, Any] = {}
        self._network: nn.Module | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the extractor, so that a wrong name shows before training."""
        if self.extractor and self._network is None:
            self._network = find_extractor(self.extractor)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and draw, unless the run has only paused. A model that can't be compared doesn't fail its run."""
        if not trainer.is_global_zero or pl_module.progress < 1 or pl_module.spec.modality != "image":
            return
        if not hasattr(trainer.datamodule, "split"):
            log.warning("No picture of nearest training images: the data module has no split(name) to look them up in.")
            return
        try:
            with pl_module.averaged():
                sheet = self.compare(pl_module, trainer.datamodule, self._network)
        except InputError as error:
            log.warning("No picture of nearest training images: %s", error)
            return
        save_png(sheet, Path(trainer.default_root_dir) / "samples" / "neighbours.png")
        log_picture(trainer.loggers, "neighbours", np.asarray(sheet), int(pl_module.samples_seen))

    def compare(self, module: Any, datamodule: Any, network: nn.Module | None = None) -> Image.Image:
        """Compare samples and held-out images with the training images, and draw; sets `values` and `protocol`.

        Args:
            module: The model, with the weights to sample from.
            datamodule: The data: ``split(name)`` and ``real_batches(name)``.
            network: A feature extractor, for the nearest by features too.

        Raises:
            InputError: If the model can't generate, or there are too few training images.
        """
        samples = torch.cat([batch.images.cpu() for batch in module_samples(module, self.num_samples, self.seed)])
        held_out = datamodule.split("val")
        keys = Noise(self.seed).stream("held out").bits(len(held_out), 1)[:, 0]
        real = held_out.batch(0, keys.argsort()[: self.num_samples]).images
        queries = torch.cat([samples, real])
        distances, places = nearest(queries, datamodule.real_batches("train"), self.neighbours)
        fake, true = distances[: len(samples), 0].median(), distances[len(samples) :, 0].median()
        self.values = {"nearest_distance": float(fake), "nearest_distance_real": float(true)}
        self.protocol = {
            "n_fake": len(samples),
            "n_real": len(real),
            "n_train": len(datamodule.split("train")),
            "distance": "root mean square of pixel differences, grey levels 0 to 255; median of the nearest",
            "sample_seed": self.seed,
            "extractor": None,
        }

        close = distances[: len(samples), 0].argsort(stable=True)[: self.rows]
        first = torch.arange(min(self.rows, len(samples)))
        groups = [
            (f"the {len(close)} of {len(samples)} samples nearest to a training image, by pixels", close),
            (f"samples 0 to {len(first) - 1}, by pixels", first),
            ("held-out real images, by pixels", torch.arange(min(self.rows, len(real))) + len(samples)),
        ]
        shown = torch.cat([chosen for _, chosen in groups])
        train = datamodule.split("train")
        beside = [_look_up(train, places[shown])]
        if network is not None:
            device = module.device
            network.to(device)

            def features(images: Tensor) -> Tensor:
                return extract(network, images, device)[0]

            by_features = nearest(queries[shown], datamodule.real_batches("train"), self.neighbours, features)[1]
            network.to("cpu")
            beside.append(_look_up(train, by_features))
        bands, row = [], 0
        for caption, chosen in groups:
            these = slice(row, row := row + len(chosen))
            names = [f"{distance:.1f}" for distance in distances[chosen, 0].tolist()]
            title = [] if network is None else [f"by features of {network.name}"]
            bands.append(
                [
                    Panel(queries[chosen], 1, caption, names),
                    *(
                        Panel(images[these].flatten(0, 1), self.neighbours, text)
                        for images, text in zip(beside, ["", *title], strict=True)
                    ),
                ]
            )
        title = f"Nearest training images; distance in grey levels (median {fake:.1f}, of real images {true:.1f})"
        attribution = datamodule.spec.attribution
        return draw_sheet(bands, f"{title}; data: {attribution}" if attribution else title)

    def summary(self) -> dict[str, Any]:
        """The two distances, and what they depend on."""
        return {**self.values, "protocol": {"nearest_distance": self.protocol}} if self.values else {}


def _look_up(images: Any, places: Tensor) -> Tensor:
    """uint8 ``(n, k, C, H, W)``: the images at places ``(n, k)`` of a split."""
    return images.batch(0, places.flatten()).images.unflatten(0, places.shape)
