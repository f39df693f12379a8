"""Images or texts from a bundle, pictures of its latent space, codes of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.spec import Condition, DataSpec

IMAGES = 64  # by default
GRID = "grid.png"


def generate(config: dict[str, Any]) -> Path:
    """Write samples, named by their index, or pictures of the latent space, or codes; and say what is where.

    Returns:
        The folder.

    Raises:
        InputError: If the bundle can't be read, or is asked for something that it can't do.
    """
    from lit_aigc.files import check_writable
    from lit_aigc.generate.text import OPTIONS, write_texts
    from lit_aigc.runs.bundle import load_bundle

    wrong = [
        f"{key}={config[key]}: expected {expected}"
        for key, least, expected in (
            ("n", 1, "a whole number, 1 or more, or null"),
            ("start", 0, "0 or more"),
            ("columns", 1, "1 or more"),
            ("directions", 1, "a whole number, 1 or more, or null"),
            ("interpolate", 1, "a whole number, 1 or more, or null"),
        )
        if config[key] is not None and (type(config[key]) is not int or config[key] < least)
    ]
    if config["encode"] and (config["directions"] or config["interpolate"]):
        wrong.append("encode goes without directions and interpolate: ask for them one after the other.")
    if all((Path(config["out"]) / name).is_file() for name in ("manifest.json", "spec.json")):
        wrong.append(f"out={config['out']} is the folder of a bundle: choose another folder for the samples.")
    if wrong:
        raise InputError("\n".join(wrong))
    directory = Path(config["out"])
    check_writable(directory, "out", folder=True)
    bundle = load_bundle(config["bundle"], config["trust"], config["device"])
    if bundle.spec.attribution:
        print(f"data: {bundle.spec.attribution}")
    if bundle.spec.modality == "text":
        _refuse(config, ("label", "directions", "interpolate", "encode"), "models of images", "texts")
        write_texts(bundle, config, directory)
        return directory
    _refuse(config, OPTIONS, "language models", "images")
    config = config | {"n": config["n"] or IMAGES}
    what = f"{config['n']} samples and grid.png"
    if config["directions"] or config["interpolate"]:
        explore(bundle, config, directory)
        what = "pictures of the latent space"
    elif config["encode"]:
        encode(bundle, config, directory)
        what = "codes.npz, reconstructions.png and map.png"
    else:
        write_images(bundle, config, directory)
    print(f"{what} are in {directory}")
    return directory


def _refuse(config: dict[str, Any], keys: Sequence[str], whose: str, kind: str) -> None:
    if given := [key for key in keys if config[key] is not None and config[key] is not False]:
        raise InputError(f"{', '.join(given)}: for {whose}. This bundle generates {kind}: leave that out.")


def write_images(bundle: Any, config: dict[str, Any], directory: Path) -> None:
    """Write samples as PNG files, a grid of them, and ``samples.json``, which says what they are.

    Raises:
        InputError: If the folder holds other samples, which these would be mixed with.
    """
    from lit_aigc.media.images import make_grid, sample_name, save_images, save_png, to_uint8
    from lit_aigc.media.sample_folder import check_origin, described, origin
    from lit_aigc.noise import Noise

    samples = origin(bundle.manifest, config)
    check_origin(directory, samples)
    condition = condition_of(config["label"], config["n"], bundle.spec)
    images = bundle.module.sample(config["n"], condition=condition, noise=Noise(config["seed"], config["start"]))
    levels = to_uint8(images, bundle.spec.value_range)
    names = [sample_name(config["start"] + i) for i in range(config["n"])]
    with described(directory, samples, names, overview=GRID):
        save_images(levels, directory, start=config["start"])
        save_png(make_grid(levels, config["columns"]), directory / GRID)


def explore(bundle: Any, config: dict[str, Any], directory: Path) -> None:
    """Draw directions of the latent space and interpolations, and write the facts about directions beside them."""
    import json

    from lit_aigc.files import write_atomically
    from lit_aigc.latents.explorer import STARTS, Explorer, classifier_of
    from lit_aigc.media.images import save_png

    explorer = Explorer(bundle.module, config["seed"], config["start"])
    written: dict[str, Any] = {}
    if config["directions"]:
        condition = condition_of(config["label"], STARTS, bundle.spec)
        written["directions.png"], facts = explorer.principal(config["directions"], condition)
        if explorer.classes:
            written["classes.png"] = explorer.between_classes()
        elif classifier := classifier_of(bundle, config["extractor"]):
            written["classes.png"], facts["classes"] = explorer.class_means(classifier.to(config["device"]))
        written["directions.json"] = facts | {"seed": config["seed"]}
    if rows := config["interpolate"]:
        condition = condition_of(config["label"], rows, bundle.spec)
        written["interpolations.png"] = explorer.interpolations(rows, config["columns"], condition)
    for name, content in written.items():
        if name.endswith(".json"):
            write_atomically(directory / name, json.dumps(content, indent=2) + "\n")
        else:
            save_png(content, directory / name)


def encode(bundle: Any, config: dict[str, Any], directory: Path) -> None:
    """Write the codes of a folder's images, the images beside their reconstructions, and a map of the codes.

    Raises:
        InputError: If the model has no encoder or needs classes that are not given, or the images can't be read.
    """
    import io

    import numpy as np
    import torch

    from lit_aigc.files import write_atomically
    from lit_aigc.latents.codes import decoded, draw_map, encoded, has_codes, pairs, spread
    from lit_aigc.media.image_files import read_folder
    from lit_aigc.media.images import save_png
    from lit_aigc.media.sheets import draw_sheet

    module, spec = bundle.module, bundle.spec
    if not has_codes(module):
        raise InputError(f"encode needs a model with an encoder, such as a VAE: {type(module).__name__} has none.")
    images, names = read_folder(config["encode"], spec.shape)
    groups = [name.partition("/")[0] if "/" in name else "" for name in names]
    labels = None
    if module.conditional:
        labels = _classes_of_folders(config["label"], groups, spec).labels
    elif config["label"] is not None:
        raise InputError("This model is unconditional: its encoder takes no label. Leave the label out.")
    known = encoded(module, images, labels, config["seed"])
    shown = known[spread(len(known), config["n"])]
    band = pairs(shown.images, decoded(module, shown.codes, shown.labels), config["columns"])
    few = f"{len(shown)} of {len(known):,}" if len(shown) < len(known) else f"{len(known)}"
    sheet = draw_sheet([band], f"{few} images, each with its reconstruction at its right")
    folders, title = sorted(set(groups)), f"{len(known):,} images by their codes"
    kinds = torch.tensor([folders.index(group) for group in groups]) if len(folders) > 1 else None
    picture = draw_map(known.codes, kinds, [folder or "." for folder in folders], title)
    buffer = io.BytesIO()
    np.savez(buffer, codes=known.codes.numpy(), names=np.array(names))
    write_atomically(directory / "codes.npz", buffer.getvalue())
    save_png(sheet, directory / "reconstructions.png")
    save_png(picture, directory / "map.png")


def _classes_of_folders(label: int | str | Sequence[int | str] | None, folders: list[str], spec: DataSpec) -> Condition:
    """The class of each image: the one asked for, or else the one that its folder is named after."""
    if label is not None:
        return condition_of(label, len(folders), spec)
    unknown = sorted({folder or "." for folder in folders if folder not in spec.class_names})
    if unknown:
        raise InputError(
            f"This model is conditional, and no class is named like the folder {unknown[0]!r}: give label=..., or sort "
            f"the images into folders named after the classes ({', '.join(spec.class_names)})."
        )
    return condition_of(folders, len(folders), spec)


def condition_of(label: int | str | Sequence[int | str] | None, n: int, spec: DataSpec) -> Condition | None:
    """The condition for n samples of one class, of a class each, or (None) the model's default.

    Raises:
        InputError: If a class is unknown, or there are not as many as samples.
    """
    import torch

    if label is None:
        return None
    labels = list(label) if isinstance(label, (list, tuple)) else [label] * n
    if len(labels) != n:
        raise InputError(f"label has {len(labels)} entries for n={n} samples: give one class, or one a sample.")
    return Condition(torch.tensor([_class_index(entry, spec) for entry in labels]))


def _class_index(entry: int | str, spec: DataSpec) -> int:
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < spec.num_classes:
        return entry
    if str(entry) in spec.class_names:
        return spec.class_names.index(str(entry))
    if not spec.num_classes:
        raise InputError("This model has no classes: leave label out.")
    names = [name for label, name in enumerate(spec.class_names) if name != str(label)]
    hint = did_you_mean(str(entry), names)
    if not hint.startswith(","):
        hint = f"; known: {', '.join([f'0 to {spec.num_classes - 1}', *sorted(names)])}"
    raise InputError(f"label={entry} is unknown{hint}")
