"""The base of callbacks that show samples: which models they apply to, when they run, and where their files go."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from lit_aigc.errors import check
from lit_aigc.files import check_keep, name_at, thin_out
from lit_aigc.loggers.base import log_picture
from lit_aigc.media.images import save_png


class OfModality(Callback):
    """A callback for models of one modality, which leaves all others alone.

    Attributes:
        modality: As in `lit_aigc.spec.DataSpec`.
    """

    modality: ClassVar[str]

    def fits(self, module: Any) -> bool:
        """Return whether this callback applies to a model."""
        return module.spec.modality == self.modality

    def at_the_end(self, trainer: Trainer, module: Any) -> bool:
        """Return whether something is due when training stops: not where it only pauses, and on one process."""
        return trainer.is_global_zero and module.progress >= 1 and self.fits(module)


@dataclasses.dataclass(eq=False)
class AtValidation(OfModality):
    """Writes ``samples/<samples_seen><suffix>`` at every validation, on rank 0 only, and sends it to the loggers.

    A subclass implements `draw`, and `show` where it draws anything but a picture.

    Args:
        keep: Most files to keep on disk, spread over the run; at least 2.

    Attributes:
        suffix: End of the files' names.
        key: Name of what the loggers get.

    Raises:
        InputError: If `keep` is out of range.
    """

    suffix: ClassVar[str] = ".png"
    key: ClassVar[str] = "samples"

    keep: int = 200

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, write and log."""
        if not trainer.is_global_zero or trainer.sanity_checking or not self.fits(pl_module):
            return
        drawn = self.draw(trainer, pl_module)
        folder = Path(trainer.default_root_dir) / "samples"
        self.show(trainer, pl_module, drawn, folder / name_at(int(pl_module.samples_seen), self.suffix))
        thin_out(folder, self.suffix, self.keep)

    def draw(self, trainer: Trainer, module: Any) -> Any:
        """Return the picture for the module as it is now, with averaged weights where it has any."""
        raise NotImplementedError

    def show(self, trainer: Trainer, module: Any, drawn: Any, path: Path) -> None:
        """Write what was drawn, and send it to the loggers."""
        show_picture(trainer, module, drawn, path, self.key)


def check_at_least(callback: Callback, least: Mapping[str, int], advice: str = "") -> None:
    """Check the options of a callback against the least value of each, by name.

    Raises:
        InputError: If one is smaller; ends with the advice.
    """
    values = {name: getattr(callback, name) for name in least}
    check(*((name, values[name], values[name] >= bound, f"{bound} or more{advice}") for name, bound in least.items()))


def show_picture(trainer: Trainer, module: Any, picture: Image.Image, path: Path, key: str) -> None:
    """Write a picture as a PNG, and send it to the loggers."""
    save_png(picture, path)
    log_picture(trainer.loggers, key, np.asarray(picture), int(module.samples_seen))


def moment(module: Any) -> str:
    """Return the title of what shows a model during training."""
    return f"{int(module.samples_seen):,} samples seen"


@contextlib.contextmanager
def looking_at(module: Any) -> Iterator[None]:
    """Inside, a module has its averaged weights and is in evaluation mode; its modes and random state stay."""
    devices = [module.device] if torch.device(module.device).type == "cuda" else []
    with torch.random.fork_rng(devices), module.averaged(), module.evaluating(), torch.no_grad():
        yield
