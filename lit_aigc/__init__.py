"""lit_aigc: an experiment framework for generative models on PyTorch Lightning.

`__all__` is the public Python API; docs/python.md shows how it is used. Names are imported when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {  # name: (module, name there)
    "Condition": ("spec", "Condition"),
    "DataSpec": ("spec", "DataSpec"),
    "InputError": ("errors", "InputError"),
    "Noise": ("noise", "Noise"),
    "build_data": ("train.run", "build_data"),
    "build_module": ("train.run", "build_module"),
    "compose": ("config.compose", "load"),
    "decode": ("media.modality", "decode"),
    "fit": ("train.run", "train"),
    "load_bundle": ("runs.bundle", "load_bundle"),
    "measure": ("evaluate.run", "evaluate"),
    "sample": ("generate.run", "sample"),
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
