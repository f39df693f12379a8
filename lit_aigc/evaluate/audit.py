"""The memorization audit: generated and real test images next to their nearest training images, and a verdict."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.metrics.features.resizing import match_channels
from lit_aigc.metrics.memorization import LEVEL, NEIGHBORS, QUANTILE, TWIN, Nearness, judge, rank_p_values
from lit_aigc.metrics.neighbors import nearest_vectors
from lit_aigc.metrics.reference import extract
from lit_aigc.spec import Batch

LIMIT = 10_000  # samples, and test images, to look at
_SHOWN = 4  # neighbors in the picture, in each space
_BLOCK = 256  # images per batch of the extractor


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        values: Figures by the keys of ``summary.json``, ``memorised`` the verdict.
        protocol: What they depend on, with the p-values.
        picture: The most suspicious samples, and test images, next to their nearest training images.
        suspicion: ``(n,)`` float64, the smallest p-value of each sample over the spaces; small is suspicious.
    """

    values: dict[str, Any]
    protocol: dict[str, Any]
    picture: Image.Image
    suspicion: Tensor


@dataclasses.dataclass(frozen=True)
class _Space:
    """A space to measure distances in: pixels, or the features of an extractor.

    Attributes:
        name: Part of keys.
        vectors: Maps uint8 images ``(n, C, H, W)`` to ``(n, d)``.
        train: Returns the vectors ``(N, d)`` of all training images, block by block.
        at: Returns the vectors ``(n, d)`` of the training images at places ``(n,)``.
        scale: Factor that gives distances their unit.
    """

    name: str
    vectors: Callable[[Tensor], Tensor]
    train: Callable[[], Iterable[Tensor]]
    at: Callable[[Tensor], Tensor]
    scale: float = 1.0

    def nearness(self, images: Tensor, neighbors: int) -> Nearness:
        """Return how near images are to the training images."""
        distances, places = nearest_vectors(self.vectors(images), self.train(), neighbors)
        found, back = places[:, 0].unique(return_inverse=True)
        own, _ = nearest_vectors(self.at(found), self.train(), 2)  # the first is the image itself, or a copy of it
        return Nearness(distances * self.scale, places, own[back, 1] * self.scale)


def audit(
    samples: Iterable[Batch],
    datamodule: Any,
    network: nn.Module | None = None,
    *,
    split: str = "test",
    rows: int = 12,
    device: torch.device | str = "cpu",
) -> Audit:
    """Compare generated images with the training images, and real test images for calibration.

    The first `LIMIT` samples and test images are compared with all training images. Memory does not grow with the
    number of training images, whose features are in a temporary file.

    Args:
        samples: uint8 ``(N, C, H, W)``, of a model or a set of images.
        datamodule: The data that the model was trained on: ``spec``, ``split(name)`` and ``real_batches(name)``.
        network: A feature extractor on `device`, for distances of features too; None: pixels alone.
        split: Real images that no model was trained on.
        rows: Rows of samples in the picture; test images have a third as many.
        device: Where to compute features.

    Raises:
        InputError: If images differ in size from the training images, or there are too few of any kind.
    """
    train, shape = datamodule.split("train"), datamodule.spec.shape
    fake = _gathered(samples, shape, "the samples")
    real = _gathered(datamodule.real_batches(split, limit=LIMIT), shape, f"the {split} split")
    if len(fake) < 2 or not len(real) or len(train) < 2:
        raise InputError(
            f"A memorization audit needs samples, real {split} images and training images, some hundreds of each; got "
            f"{len(fake)}, {len(real)} and {len(train)}."
        )
    spaces = [_pixels(datamodule)] + ([] if network is None else [_features(datamodule, network, device)])
    neighbors = min(NEIGHBORS, len(train))
    images = torch.cat([fake, real])
    found = {space.name: space.nearness(images, neighbors) for space in spaces}
    of_fake, of_real = (
        {name: nearness.of(rows) for name, nearness in found.items()}
        for rows in (slice(len(fake)), slice(len(fake), None))
    )
    among = nearest_vectors(fake.flatten(1), [fake.flatten(1)], 2)[0][:, 1] * spaces[0].scale
    values, tests = judge(of_fake, of_real, among)
    protocol = {
        "n_fake": len(fake),
        "n_real": len(real),
        "n_train": len(train),
        "real": f"{datamodule.spec.name}/{split}",
        "fingerprint": datamodule.spec.fingerprint,
        "extractor": None if network is None else network.name,
        "extractor_hash": None if network is None else network.hash,
        "closeness": f"distance to the nearest training image over the mean of the {neighbors} nearest",
        "quantile": QUANTILE,
        "false_alarm_rate": LEVEL,
        "duplicate": f"root mean square difference of at most {TWIN:g} gray level",
        "quantisation": "8 bits",
        "tests": tests,
    }

    def smallest_p_values(side: dict[str, Nearness]) -> Tensor:
        return torch.stack([rank_p_values(side[name].closeness, of_real[name].closeness) for name in found]).amin(dim=0)

    suspicion = smallest_p_values(of_fake)
    bands = _bands("sample", fake, of_fake, suspicion, rows, train)
    bands += _bands(split, real, of_real, smallest_p_values(of_real), -(-rows // 3), train)
    verdict = "memorized" if values["memorised"] else "no sign of memorization"
    title = f"{verdict}: the most suspicious of {len(fake)} samples, then of {len(real)} {split} images"
    return Audit(values, protocol, draw_sheet(bands, title, datamodule.spec.attribution), suspicion)


def _gathered(batches: Iterable[Batch], shape: tuple[int, ...], called: str) -> Tensor:
    """Return the first `LIMIT` images, uint8 ``(n, C, H, W)``, with the channels of the training images."""
    found: list[Tensor] = []
    for batch in batches:
        if batch.images.shape[2:] != torch.Size(shape[1:]):
            sizes = ("x".join(map(str, size)) for size in (batch.images.shape[2:], shape[1:]))
            raise InputError(
                "A memorization audit compares pixel by pixel: {} have images of {} (height x width), the training "
                "images {}: set data.image_size.".format(called, *sizes)
            )
        found.append(match_channels(batch.images.cpu(), shape[0]))
        if sum(map(len, found)) >= LIMIT:
            break
    return torch.cat(found)[:LIMIT] if found else torch.zeros(0, *shape, dtype=torch.uint8)


def _pixels(datamodule: Any) -> _Space:
    train = datamodule.split("train")
    return _Space(
        "pixels",
        lambda images: images.flatten(1),
        lambda: (batch.images.flatten(1) for batch in datamodule.real_batches("train")),
        lambda places: train.batch(0, places).images.flatten(1),
        torch.Size(datamodule.spec.shape).numel() ** -0.5,
    )


def _features(datamodule: Any, network: nn.Module, device: torch.device | str) -> _Space:
    def of(images: Tensor) -> Tensor:
        return torch.cat([extract(network, part, device)[0].float().cpu() for part in images.split(_BLOCK)])

    with tempfile.TemporaryFile() as file:
        for batch in datamodule.real_batches("train"):
            file.write(of(batch.images).numpy().tobytes())
        file.flush()
        # the file has no name, and is gone with the array
        train = torch.from_numpy(np.memmap(file, np.float32, "r+").reshape(-1, network.num_features))
    return _Space(network.name, of, lambda: train.split(_BLOCK), lambda places: train[places])


def _bands(
    what: str, images: Tensor, found: dict[str, Nearness], suspicion: Tensor, rows: int, train: Any
) -> list[list[Panel]]:
    """Return a row of panels for each of the most suspicious images, the closest of equally suspicious ones first.

    It shows the image itself, then its nearest training images with their distances.
    """
    closest = torch.stack([nearness.closeness for nearness in found.values()]).amin(dim=0)
    order = closest.argsort(stable=True)
    order = order[suspicion[order].argsort(stable=True)]
    bands = []
    for row, i in enumerate(order[:rows].tolist()):
        names, p = [f"{what} {i}"], [f"p {float(suspicion[i]):.2g}"]
        band = [Panel(images[i][None], 1, "", names, p)]
        for space, nearness in found.items():
            caption = "" if row else "nearest by pixels (gray levels)" if space == "pixels" else f"nearest by {space}"
            places, distances = nearness.places[i, :_SHOWN], nearness.distances[i, :_SHOWN].tolist()
            texts = [f"{distance:.3g}" for distance in distances]
            band.append(Panel(train.batch(0, places).images, len(places), caption, (), texts))
        bands.append(band)
    return bands
