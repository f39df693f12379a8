"""Images from a bundle: samples as PNG files, pictures of its latent space, or codes of other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.generate.labels import condition_of
from lit_aigc.generate.latents import encode, explore
from lit_aigc.generate.run import check_whole
from lit_aigc.media.images import decode, make_grid, sample_name, save_images, save_png, to_uint8
from lit_aigc.media.sample_folder import check_origin, described, origin
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import Bundle

SAMPLES, COLUMNS = 64, 8  # by default
GRID = "grid.png"


def write(bundle: Bundle, config: Mapping[str, Any], directory: Path) -> str:
    """Write samples, pictures of the latent space, or codes.

    Returns:
        What was written, in words.

    Raises:
        InputError: If an option is wrong, or the model can't do what is asked for.
    """
    options = config["image"]
    check_whole(options, {"columns": 1, "directions": 1, "interpolate": 1}, "image")
    latent = options["directions"] or options["interpolate"]
    if options["encode"] and latent:
        raise InputError("image.encode goes without directions and interpolate: ask for them one after the other.")
    config = {**config, "image": {**options, "columns": options["columns"] or COLUMNS}, "n": config["n"] or SAMPLES}
    if latent:
        explore(bundle, config, directory)
        return "pictures of the latent space are"
    if options["encode"]:
        encode(bundle, config, directory)
        return "codes.npz, reconstructions.png and map.png are"
    write_samples(bundle, config, directory)
    return f"{config['n']} samples and {GRID} are"


def sample(
    bundle: Bundle, n: int, noise: Noise, label: int | str | Sequence[int | str] | None = None
) -> list[Image.Image]:
    """Draw images; see `lit_aigc.generate.run.sample`."""
    return decode(_draw(bundle, n, noise, label), bundle.module)


def _draw(bundle: Bundle, n: int, noise: Noise, label: int | str | Sequence[int | str] | None) -> Tensor:
    return bundle.module.sample(n, condition=condition_of(label, n, bundle.spec), noise=noise)


def write_samples(bundle: Bundle, config: Mapping[str, Any], directory: Path) -> None:
    """Write samples as PNG files, a grid of them, and ``samples.json``, which says what they are.

    Raises:
        InputError: If the folder holds other samples, with which these would be mixed.
    """
    n, start, seed, label = config["n"], config["start"], config["seed"], config["image"]["label"]
    samples = origin(bundle.manifest, seed, label)
    check_origin(directory, samples)
    levels = to_uint8(_draw(bundle, n, Noise(seed, start), label), bundle.spec.value_range)
    names = [sample_name(start + i) for i in range(n)]
    with described(directory, samples, names, overview=GRID):
        save_images(levels, directory, start=start)
        save_png(make_grid(levels, config["image"]["columns"]), directory / GRID)
