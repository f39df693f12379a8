"""Samples from a bundle, written by the file of its modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_aigc.errors import InputError, check
from lit_aigc.files import check_writable
from lit_aigc.media.modality import of_modality
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import Bundle, load_bundle


def generate(config: Mapping[str, Any]) -> Path:
    """Write what the config asks for, and print where it is.

    Args:
        config: As ``conf/generate.yaml``, with a section of options per modality.

    Returns:
        The folder.

    Raises:
        InputError: If the bundle can't be read, or can't do what is asked for.
    """
    check_whole(config, {"n": 1, "start": 0})
    directory = Path(config["out"])
    if all((directory / name).is_file() for name in ("manifest.json", "spec.json")):
        raise InputError(f"out={directory} is the folder of a bundle: choose another folder for the samples.")
    check_writable(directory, "out", folder=True)
    bundle = load_bundle(config["bundle"], config["trust"], config["device"])
    modality = bundle.spec.modality
    for section in config.keys() - {modality}:
        if isinstance(config[section], Mapping) and (given := list(_given(config[section], section))):
            raise InputError(
                f"{', '.join(given)}: for models of modality {section}. This bundle generates {modality}: leave it out."
            )
    written = of_modality("generate", modality).write(bundle, config, directory)
    print(f"{written} in {directory}")
    if bundle.spec.attribution:
        print(f"data: {bundle.spec.attribution}")
    return directory


def sample(bundle: Bundle, n: int, *, seed: int = 0, start: int = 0, **options: Any) -> list[Any]:
    """Draw samples of a bundle as Python objects.

    Args:
        bundle: The bundle.
        n: Number of samples.
        seed: Seed of the noise: sample i depends on (seed, i) only.
        start: Index of the first sample.
        options: For images ``label``, a class index or name, or a list of n; for text ``prompt``, and the options of
            decoding, such as ``temperature``.

    Returns:
        Pillow images, or strings that begin with the prompt.

    Raises:
        InputError: If the model can't do what is asked for.
    """
    return of_modality("generate", bundle.spec.modality).sample(bundle, n, Noise(seed, start), **options)


def check_whole(options: Mapping[str, Any], least: Mapping[str, int], section: str = "") -> None:
    """Check that options are whole numbers, or None.

    Args:
        options: The options.
        least: Smallest value of each to be checked.
        section: Name of the section in which they are.

    Raises:
        InputError: If some are not.
    """
    prefix, conditions = f"{section}." if section else "", []
    for key, smallest in least.items():
        right = options[key] is None or (type(options[key]) is int and options[key] >= smallest)
        conditions.append((f"{prefix}{key}", options[key], right, f"a whole number, {smallest} or more, or null"))
    check(*conditions)


def _given(options: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the dotted names of the options that are set."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _given(value, f"{path}.{key}")
        elif value is not None and value is not False:
            yield f"{path}.{key}"
