"""The latent space of a bundle: pictures of directions and interpolations, and codes of a folder of images."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.generate.labels import condition_of
from lit_aigc.latents.codes import decoded, draw_map, encoded, pairs, spread
from lit_aigc.latents.explorer import STARTS, Explorer
from lit_aigc.media.image_files import read_folder
from lit_aigc.media.images import save_png
from lit_aigc.media.sheets import draw_sheet
from lit_aigc.metrics.features.extractors import SHIPPED, extractor
from lit_aigc.metrics.generative import extractor_of_training
from lit_aigc.modules.capabilities import Encodes
from lit_aigc.runs.bundle import Bundle
from lit_aigc.spec import DataSpec


def explore(bundle: Bundle, config: Mapping[str, Any], directory: Path) -> None:
    """Draw directions of the latent space and interpolations, and write the facts about the directions."""
    options = config["image"]
    explorer = Explorer(bundle.module, config["seed"], config["start"])
    pictures = {}
    if k := options["directions"]:
        condition = condition_of(options["label"], STARTS, bundle.spec)
        pictures["directions.png"], facts = explorer.principal(k, condition)
        if explorer.classes:
            pictures["classes.png"] = explorer.between_classes()
        elif classifier := classifier_of(bundle, options["extractor"]):
            pictures["classes.png"], facts["classes"] = explorer.class_means(classifier.to(config["device"]))
        facts["seed"] = config["seed"]
    if rows := options["interpolate"]:
        condition = condition_of(options["label"], rows, bundle.spec)
        pictures["interpolations.png"] = explorer.interpolations(rows, options["columns"], condition)
    for name, picture in pictures.items():
        save_png(picture, directory / name)
    if k:
        write_atomically(directory / "directions.json", json.dumps(facts, indent=2) + "\n")


def classifier_of(bundle: Bundle, name: str | None) -> nn.Module | None:
    """Return a classifier of the classes of a bundle's data, if there is one.

    Args:
        bundle: The bundle.
        name: Name of an extractor with logits; None: the one that training measured with, if it fits and is shipped.

    Raises:
        InputError: If the one asked for has other classes.
    """
    of_training = extractor_of_training(bundle.manifest["protocol"])
    if name is None and of_training not in SHIPPED:
        return None
    found = extractor(name or of_training)
    if 0 < found.num_classes == bundle.spec.num_classes:
        return found
    if name is None:
        return None
    raise InputError(
        f"extractor={name} has {found.num_classes or 'no'} classes, the data has {bundle.spec.num_classes or 'none'}: "
        "give a classifier of the data, or leave the extractor out."
    )


def encode(bundle: Bundle, config: Mapping[str, Any], directory: Path) -> None:
    """Write the codes of a folder's images, the images next to their reconstructions, and a map of the codes.

    Raises:
        InputError: If the model has no encoder or needs classes that are not given, or the images can't be read.
    """
    module, spec, options = bundle.module, bundle.spec, config["image"]
    if not isinstance(module, Encodes):
        raise InputError(f"encode needs a model with an encoder, such as a VAE: {type(module).__name__} has none.")
    images, names = read_folder(options["encode"], spec.shape)
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    labels = None
    if module.conditional:
        labels = _labels(options["label"], folders, spec)
    elif options["label"] is not None:
        raise InputError("This model is unconditional: its encoder takes no label. Leave the label out.")
    known = encoded(module, images, labels, config["seed"])
    shown = known[spread(len(known), config["n"])]
    band = pairs(shown.images, decoded(module, shown.codes, shown.labels), options["columns"])
    few = f"{len(shown)} of {len(known):,}" if len(shown) < len(known) else f"{len(known)}"
    sheet = draw_sheet([band], f"{few} images, each with its reconstruction to its right")
    groups, title = sorted(set(folders)), f"{len(known):,} images by their codes"
    members = torch.tensor([groups.index(folder) for folder in folders]) if len(groups) > 1 else None
    picture = draw_map(known.codes, members, [group or "." for group in groups], title)
    buffer = io.BytesIO()
    np.savez(buffer, codes=known.codes.numpy(), names=np.array(names))
    write_atomically(directory / "codes.npz", buffer.getvalue())
    save_png(sheet, directory / "reconstructions.png")
    save_png(picture, directory / "map.png")


def _labels(label: int | str | Sequence[int | str] | None, folders: list[str], spec: DataSpec) -> Tensor:
    """Return the class of each image: the one asked for, or else the one its folder is named after."""
    unknown = sorted({folder or "." for folder in folders if folder not in spec.class_names})
    if label is None and unknown:
        raise InputError(
            f"This model is conditional, and no class is named like the folder {unknown[0]!r}: give label=..., or sort "
            f"the images into folders named after the classes ({', '.join(spec.class_names)})."
        )
    return condition_of(folders if label is None else label, len(folders), spec).labels
