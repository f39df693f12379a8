"""Translation: one text is written from another, by an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lit_aigc.errors import InputError, check
from lit_aigc.losses.language import token_nats
from lit_aigc.modules.base import Recipe
from lit_aigc.modules.language_model import LanguageModel, beginnings
from lit_aigc.networks.encoder_decoder import ConditionalLanguageModel
from lit_aigc.noise import Noise
from lit_aigc.sampling.decoding import ROWS, generate
from lit_aigc.sampling.tokens import Decoding
from lit_aigc.spec import Condition, DataSpec, TextBatch, Texts

_BOUNDARY = 0


class Translator(LanguageModel):
    """Cross-entropy of the next token of a translation, given the original.

    Args:
        network: Such as `lit_aigc.networks.encoder_decoder.EncoderDecoder`.
        spec: The facts of the data.
        optimizer: See `LanguageModel`.
        matrix_optimizer: See `LanguageModel`.
        label_smoothing: Share of the target distribution that is spread over all tokens in training (Szegedy et al.,
            2016).
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If the data is not text, or an option is out of range.
    """

    translates = True

    def __init__(
        self,
        network: nn.Module,
        spec: DataSpec,
        optimizer: Mapping[str, Any] | None = None,
        matrix_optimizer: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.1,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(network, spec, optimizer, matrix_optimizer, recipe=recipe)
        check(("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "a share in [0, 1)"))
        self.label_smoothing = label_smoothing

    def score(self, batch: TextBatch, state: None = None, label_smoothing: float = 0.0) -> tuple[Tensor, None]:
        """Return the nats ``(N, T)`` of the targets of a batch, given their sources; see `LanguageModel.score`."""
        if batch.source is None:
            raise InputError("A translator needs data with originals, such as data=multi30k_en_de.")
        logits = self.network(batch.ids[:, :-1], batch.source, batch.source_mask)
        return token_nats(logits, batch.ids[:, 1:], label_smoothing), None

    def _write(self, prompts: Sequence[Tensor], decoding: Decoding, noise: Noise) -> Texts:
        """Translate the originals, which are the prompts, a block at a time."""
        rows = max(1, ROWS // decoding.beams)
        translations: list[Tensor] = []
        for first in range(0, len(prompts), rows):
            block = prompts[first : first + rows]
            texts = generate(*self._start(block), decoding, noise.skip(first), self._decode())
            translations += [ids[:length] for ids, length in zip(texts.ids, texts.lengths, strict=True)]
        lengths = torch.tensor([len(ids) for ids in translations])
        return Texts(pad_sequence(translations, batch_first=True), lengths)

    def condition_of(self, batch: TextBatch) -> Condition:
        """Return the originals of a batch, without the boundaries at their ends."""
        rows = zip(batch.source, batch.source_mask, strict=True)
        return Condition(prompts=tuple(ids[own][:-1] for ids, own in rows))

    def _start(self, originals: Sequence[Tensor]) -> tuple[ConditionalLanguageModel, Sequence[Tensor]]:
        """Return a network that writes translations of originals, from the start."""
        edge = torch.full((1,), _BOUNDARY)
        framed = [torch.cat([ids.cpu(), edge]) for ids in originals]  # as the data have them
        source = pad_sequence(framed, batch_first=True)
        lengths = torch.tensor([len(ids) for ids in framed])
        seen = torch.arange(source.shape[1]) < lengths[:, None]
        writer = ConditionalLanguageModel(self.network, source.to(self.device), seen.to(self.device))
        return writer, beginnings(len(framed))
