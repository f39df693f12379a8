"""Samples of text at every validation: the same noise and prompts through a model that learns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.files import check_keep, name_at, thin_out, write_atomically
from lit_aigc.loggers.base import log_texts
from lit_aigc.modules.prompts import encode_prompt, start_of
from lit_aigc.modules.translation import Translator
from lit_aigc.noise import Noise
from lit_aigc.sampling.text import written
from lit_aigc.sampling.tokens import BOUNDARY, Decoding
from lit_aigc.spec import Condition


class TextSamples(Callback):
    """Writes ``samples/<samples_seen>.txt`` of a language model at every validation, and sends them to the loggers.

    Drawn with averaged weights on rank 0 alone. The noise is the same at every validation and in every run, so that
    texts can be compared. A model of anything but text gets nothing.

    Args:
        n: Texts of each prompt.
        prompts: What texts begin with; by default nothing. For a translator what it translates; by default the first
            `originals` of the validation split.
        originals: Their number.
        max_tokens: Most tokens of each; they cost time of training.
        temperature: As in `lit_aigc.sampling.tokens.Decoding`.
        top_k: As there.
        top_p: As there.
        seed: Seed of the noise.
        keep: The most files to keep on the disk, spread over the run; at least 2.

    Raises:
        InputError: If an option is out of range; when training starts, if a prompt has what the data have not.
    """

    def __init__(
        self,
        n: int = 4,
        prompts: Sequence[str] = ("",),
        originals: int = 4,
        max_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        keep: int = 200,
    ) -> None:
        super().__init__()
        check_keep(keep)
        self.keep = keep
        if n < 1 or isinstance(prompts, str) or not prompts:
            raise InputError(
                f"n={n}, prompts={prompts}: expected 1 or more of each of a list of prompts; "
                "callbacks.text_samples=null switches these texts off."
            )
        self.n = n
        self.prompts = tuple(prompts)
        self.originals = originals
        self.options: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        Decoding(**self.options)
        self.noise = Noise(seed)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the prompts."""
        if pl_module.spec.modality == "text":
            self._encoded(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample, write and log."""
        if not trainer.is_global_zero or trainer.sanity_checking or pl_module.spec.modality != "text":
            return
        prompts = self._encoded(pl_module)
        if isinstance(pl_module, Translator) and not any(self.prompts):
            prompts = _originals(trainer.datamodule, self.originals)
        texts, seen = self.texts(pl_module, prompts), int(pl_module.samples_seen)
        lines = [f"── {i} ──\n{text}\n" for i, text in enumerate(texts)]
        samples = Path(trainer.default_root_dir) / "samples"
        write_atomically(samples / name_at(seen, ".txt"), f"{seen:,} samples seen\n\n" + "\n".join(lines))
        thin_out(samples, ".txt", self.keep)
        log_texts(trainer.loggers, "samples", texts, seen)

    def texts(self, module: Any, prompts: Sequence[Tensor]) -> list[str]:
        """Texts of the module as it is now, with their prompts; all of the first prompt first."""
        prompts = [prompt for prompt in prompts for _ in range(self.n)]
        with module.averaged():
            condition = Condition(prompts=tuple(prompts))
            drawn = module.sample(len(prompts), condition=condition, noise=self.noise, **self.options)
        shown = [module.tokenizer.decode(prompt.tolist()) for prompt in prompts]
        starts = [f"{text}\n→ " if isinstance(module, Translator) else start_of(text, module) for text in shown]
        return [start + text for start, text in zip(starts, written(drawn, module.tokenizer.decode), strict=True)]

    def _encoded(self, module: Any) -> list[Tensor]:
        return [encode_prompt(prompt, module) for prompt in self.prompts]


def _originals(datamodule: Any, n: int) -> list[Tensor]:
    """The first n texts of the validation split that there are translations of, without boundaries and padding."""
    rows = itertools.chain.from_iterable(batch.source for batch in datamodule.val_dataloader())
    return [ids[ids != BOUNDARY] for ids in itertools.islice(rows, n)]
