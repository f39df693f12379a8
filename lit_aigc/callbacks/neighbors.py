"""At the end of training: samples, each next to the training images nearest to it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from lit_aigc.callbacks.base import OfModality, check_at_least, show_picture
from lit_aigc.errors import InputError
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.metrics.features.extractors import extractor as find_extractor
from lit_aigc.metrics.generative import module_samples
from lit_aigc.metrics.neighbors import nearest
from lit_aigc.metrics.reference import extract
from lit_aigc.noise import Noise

log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class NearestNeighbors(OfModality):
    """Writes ``samples/neighbours.png`` when training is done, and reports how near samples come to training images.

    ``nearest_distance`` is the median over samples of the distance to the nearest training image, and
    ``nearest_distance_real`` the same for held-out real images: samples of a model that invents are about as far from
    the training images as these are, those of one that memorizes are nearer. Runs on the first process only.

    Args:
        num_samples: Number of samples, and most held-out images, that are compared with all training images.
        neighbors: Nearest training images shown next to each.
        rows: Rows of each kind: of the nearest samples, of the first samples, and of held-out images.
        extractor: Name of a feature extractor, to show the nearest by features too; None: by pixels only.
        seed: Seed of the samples' noise.

    Raises:
        InputError: If an option is out of range.
    """

    modality = "image"

    num_samples: int = 256
    neighbors: int = 8
    rows: int = 5
    extractor: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"num_samples": 1, "neighbors": 1, "rows": 1}
        check_at_least(self, least, "; callbacks.neighbors=null switches it off")
        self.values: dict[str, float] = {}
        self.protocol: dict[str, Any] = {}
        self._network: nn.Module | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the extractor, so that a wrong name is reported before training."""
        if self.extractor and self._network is None:
            self._network = find_extractor(self.extractor)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and draw, unless the run has only paused. A model that can't be compared doesn't fail its run."""
        if not self.at_the_end(trainer, pl_module):
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
        path = Path(trainer.default_root_dir) / "samples" / "neighbours.png"
        show_picture(trainer, pl_module, sheet, path, "neighbours")

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
        distances, places = nearest(queries, datamodule.real_batches("train"), self.neighbors)
        fake, true = distances[: len(samples), 0].median(), distances[len(samples) :, 0].median()
        self.values = {"nearest_distance": float(fake), "nearest_distance_real": float(true)}
        self.protocol = {
            "n_fake": len(samples),
            "n_real": len(real),
            "n_train": len(datamodule.split("train")),
            "distance": "root mean square of pixel differences, gray levels 0 to 255; median of the nearest",
            "sample_seed": self.seed,
            "extractor": None,
        }

        close = distances[: len(samples), 0].argsort(stable=True)[: self.rows]
        first = torch.arange(min(self.rows, len(samples)))
        groups = {
            f"the {len(close)} of {len(samples)} samples nearest to a training image, by pixels": close,
            f"samples 0 to {len(first) - 1}, by pixels": first,
            "held-out real images, by pixels": torch.arange(min(self.rows, len(real))) + len(samples),
        }
        shown = torch.cat(list(groups.values()))
        train = datamodule.split("train")
        nearest_places = {"": places}  # by caption
        if network is not None:
            by_features = torch.zeros_like(places)
            by_features[shown] = self._by_features(queries[shown], datamodule, network, module.device)
            nearest_places[f"by features of {network.name}"] = by_features
        bands = []
        for caption, chosen in groups.items():
            names = [f"{distance:.1f}" for distance in distances[chosen, 0].tolist()]
            band = [Panel(queries[chosen], 1, caption, names)]
            for text, found in nearest_places.items():
                band.append(Panel(train.batch(0, found[chosen].flatten()).images, self.neighbors, text))
            bands.append(band)
        title = f"Nearest training images; distance in gray levels (median {fake:.1f}, of real images {true:.1f})"
        return draw_sheet(bands, title, datamodule.spec.attribution)

    def _by_features(self, queries: Tensor, datamodule: Any, network: nn.Module, device: torch.device) -> Tensor:
        """Return the places ``(n, neighbors)`` of the training images that are nearest by features."""
        network.to(device)
        train = datamodule.real_batches("train")
        places = nearest(queries, train, self.neighbors, lambda images: extract(network, images, device)[0])[1]
        network.to("cpu")
        return places

    def summary(self) -> dict[str, Any]:
        """Return the two distances, and what they depend on."""
        return {**self.values, "protocol": {"nearest_distance": self.protocol}} if self.values else {}
