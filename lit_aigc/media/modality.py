"""The file of a modality in each package: found by its name, so that nothing else asks which modality there is.

For ``image`` that is ``images.py`` in `generate`, `evaluate` and `media`, for ``text`` it is ``text.py``. A file in
``media/`` says how samples are shown:

* ``UNIT``: what the sizes of splits count.
* ``PICTURES``: whether samples can be shown as one picture.
* ``EXAMPLE``: arguments of ``python -m lit_aigc.generate`` on a model card.
* ``describe(spec)``: the shape of a sample, in words.
* ``decode(samples, module)``: samples of a module as Python objects, such as pictures or strings.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

from lit_aigc.errors import InputError

PACKAGE = "lit_aigc"


def of_modality(package: str, modality: str) -> ModuleType:
    """Import the file of a package that is about a modality.

    Args:
        package: A package of this one, such as ``"generate"``.
        modality: As in `lit_aigc.spec.DataSpec`.

    Raises:
        InputError: If the package has no such file.
    """
    for name in (modality, f"{modality}s"):
        path = f"{PACKAGE}.{package}.{name}"
        if importlib.util.find_spec(path) is not None:
            return importlib.import_module(path)
    raise InputError(f"modality {modality!r}: lit_aigc.{package} has no file {modality}.py for it yet.")


def decode(samples: Any, module: Any) -> list[Any]:
    """Turn what ``module.sample`` returned into Pillow images or strings, by the modality of the module's data."""
    return of_modality("media", module.spec.modality).decode(samples, module)
