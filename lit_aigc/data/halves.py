"""Halves of a training split: one trains the classifiers that metrics use, the other is the metrics' reference."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lit_aigc.data.loaders import ResidentImages
from lit_aigc.data.sources import Mnist5k, Preparation, SourceImages, TorchvisionImages
from lit_aigc.errors import check


class HalfOfTraining(TorchvisionImages):
    """One half of an official training split as ``train``; the official test split as ``val`` and as ``test``.

    Nothing should be selected by ``val``: it shows the test accuracy during training.

    Args:
        dataset: A name of `TorchvisionImages`.
        half: ``first`` or ``second``.
        without_mnist5k: Leave out the digits of the `Mnist5k` source (equal in every pixel), so that they stay unseen.

    Raises:
        InputError: If an option is unknown.
    """

    def __init__(self, dataset: str, half: str = "first", without_mnist5k: bool = False) -> None:
        check(("HalfOfTraining: half", half, half in ("first", "second"), "first or second"))
        super().__init__(dataset)
        self.half, self.without_mnist5k = half, without_mnist5k
        self.name += f"_{half}_half"

    def read(self, root: str | None, preparation: Preparation) -> SourceImages:
        """See `lit_aigc.data.sources.ImageSource`."""
        whole = super().read(root, preparation)
        train, val, test = whole.splits.values()
        pixels, labels = torch.cat([train.pixels, val.pixels]), torch.cat([train.labels, val.labels])
        middle = len(pixels) // 2
        chosen = slice(0, middle) if self.half == "first" else slice(middle, None)
        half = ResidentImages(pixels[chosen], labels[chosen])
        if self.without_mnist5k:
            half = _without(half, Mnist5k().read(None, preparation).splits.values())
        return SourceImages({"train": half, "val": test, "test": test}, whole.class_names)


def _without(images: ResidentImages, others: Iterable[ResidentImages]) -> ResidentImages:
    known = {digest for split in others for digest in split.item_digests()}
    kept = [index for index, digest in enumerate(images.item_digests()) if digest not in known]
    return images.subset(torch.tensor(kept))
