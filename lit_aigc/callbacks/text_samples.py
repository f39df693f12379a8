"""Samples of text at every validation: the same noise and prompts through a model as it learns."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_aigc.callbacks.base import AtValidation, moment
from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.loggers.base import log_texts
from lit_aigc.modules.language_model import encode_prompt, start_of
from lit_aigc.noise import Noise
from lit_aigc.sampling.text import to_strings
from lit_aigc.sampling.tokens import BOUNDARY, Decoding
from lit_aigc.spec import Condition


@dataclasses.dataclass(eq=False, kw_only=True)
class TextSamples(AtValidation):
    """Writes ``samples/<samples_seen>.txt`` of a language model at every validation, and sends them to the loggers.

    The noise is the same at every validation and in every run, so texts can be compared.

    Args:
        n: Texts per prompt.
        prompts: Beginnings of the texts; by default nothing. For a translator, texts to translate; by default the
            first `originals` of the validation split.
        originals: Their number.
        max_tokens: Most tokens per text; each costs training time.
        temperature: As in `lit_aigc.sampling.tokens.Decoding`.
        top_k: As there.
        top_p: As there.
        seed: Seed of the noise.
        keep: See `AtValidation`.

    Raises:
        InputError: If an option is out of range; when training starts, if a prompt has characters or words that the
            data doesn't have.
    """

    modality = "text"
    suffix = ".txt"

    n: int = 4
    prompts: Sequence[str] = ("",)
    originals: int = 4
    max_tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1 or isinstance(self.prompts, str) or not self.prompts:
            raise InputError(
                f"n={self.n}, prompts={self.prompts}: expected 1 or more texts per prompt, and a list of prompts; "
                "callbacks.text_samples=null switches these texts off."
            )
        self.options = {key: getattr(self, key) for key in ("max_tokens", "temperature", "top_k", "top_p")}
        Decoding(**self.options)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the prompts."""
        if self.fits(pl_module):
            self._encoded(pl_module)

    def draw(self, trainer: Trainer, module: Any) -> list[str]:
        """Return texts of the module as it is now, with averaged weights where it has any, prompt by prompt."""
        prompts = self._encoded(module)
        if module.translates and not any(self.prompts):
            prompts = _originals(trainer.datamodule, self.originals)
        prompts = [prompt for prompt in prompts for _ in range(self.n)]
        with module.averaged():
            condition = Condition(prompts=tuple(prompts))
            drawn = module.sample(len(prompts), condition=condition, noise=Noise(self.seed), **self.options)
        shown = [module.tokenizer.decode(prompt.tolist()) for prompt in prompts]
        starts = [f"{text}\n→ " if module.translates else start_of(text, module) for text in shown]
        return [start + text for start, text in zip(starts, to_strings(drawn, module.tokenizer.decode), strict=True)]

    def show(self, trainer: Trainer, module: Any, drawn: list[str], path: Path) -> None:
        """See the base class."""
        blocks = [f"── {i} ──\n{text}\n" for i, text in enumerate(drawn)]
        write_atomically(path, f"{moment(module)}\n\n" + "\n".join(blocks))
        log_texts(trainer.loggers, self.key, drawn, int(module.samples_seen))

    def _encoded(self, module: Any) -> list[Tensor]:
        return [encode_prompt(prompt, module) for prompt in self.prompts]


def _originals(datamodule: Any, n: int) -> list[Tensor]:
    """Return the ids of the first n source texts of the validation split, without boundaries and padding."""
    rows = itertools.chain.from_iterable(batch.source for batch in datamodule.val_dataloader())
    return [ids[ids != BOUNDARY] for ids in itertools.islice(rows, n)]
