"""What an evaluation measures, and what it compares it with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lit_aigc.build import instantiate
from lit_aigc.evaluate.checks import check_needs
from lit_aigc.media.image_sets import ImageSet, open_image_set
from lit_aigc.media.modality import of_modality
from lit_aigc.runs.bundle import Bundle, load_bundle
from lit_aigc.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model or images from elsewhere, and what they are compared with.

    Attributes:
        bundle: The model, or None: then there is `fake`.
        path: The model's folder, as the user gave it.
        fake: Generated images from elsewhere, or None.
        real: Real images from elsewhere, or None.
        datamodule: The data that the config names, or None.
    """

    bundle: Bundle | None = None
    path: str = ""
    fake: ImageSet | None = None
    real: ImageSet | None = None
    datamodule: Any = None

    @property
    def spec(self) -> DataSpec:
        """Facts about a sample and the data it resembles, as far as known."""
        if self.bundle:
            return self.bundle.spec
        return self.datamodule.spec if self.datamodule else DataSpec("image", self.fake.shape)

    @property
    def conditional(self) -> bool:
        """Whether samples can be asked for by class."""
        return bool(self.bundle and self.bundle.module.conditional)

    def names(self) -> dict[str, str]:
        """Return what the results say was measured."""
        if self.bundle:
            measured = {"bundle": self.path, "model": type(self.bundle.module).__name__}
            measured["trained_on"] = self.bundle.manifest["data"]["name"]
        else:
            measured = {"fake": self.fake.path}
        return measured | ({"real": self.real.path} if self.real else {})


def open_subject(config: Mapping[str, Any]) -> Subject:
    """Open what the options name.

    Raises:
        InputError: If something can't be read, is missing, or doesn't fit the rest.
    """
    bundle = load_bundle(config["bundle"], config["trust"], config["device"]) if config["bundle"] else None
    real, fake = (open_image_set(config[key], key) if config[key] else None for key in ("real", "fake"))
    datamodule = None
    if bundle:
        check_needs(config, bundle)
    if config.get("data"):
        datamodule = instantiate(config["data"])
        modality = bundle.spec.modality if bundle else "image"
        of_modality("evaluate", modality).prepare_data(config, datamodule, bundle, fake)
    return Subject(bundle, str(config["bundle"]), fake, real, datamodule)
