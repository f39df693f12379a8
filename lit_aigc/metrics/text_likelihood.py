"""The likelihood of text under a language model; the batches determine how much context each token has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.losses.language import likelihood_sums
from lit_aigc.spec import TextBatch


@torch.inference_mode()
def text_likelihood(module: Any, batches: Iterable[TextBatch], sizes: Tensor) -> Tensor:
    """Return the nats of all targets that count, and how much text they are.

    Args:
        module: A `lit_aigc.modules.language_model.LanguageModel` with the weights to measure, in evaluation mode. The
            state after each batch is passed to the next, for rows that continue.
        batches: Rows of text, each target that counts once.
        sizes: ``(V, 2)`` characters and bytes of each id; zeros if unknown.

    Returns:
        ``(4,)`` float64 as of `lit_aigc.losses.language.likelihood_sums`.

    Raises:
        InputError: If a network with a limited context would have to carry its state, or a likelihood is not finite.
    """
    total = torch.zeros(4, dtype=torch.float64)
    state = None
    for batch in batches:
        if batch.carried and module.network.context:
            raise InputError(
                "The protocol carried needs a network whose state is carried on without limit, such as an LSTM; this "
                f"{type(module.network).__name__} reads {module.network.context} tokens at most: take strided instead."
            )
        batch = TextBatch(*(value.to(module.device) if isinstance(value, Tensor) else value for value in batch))
        nats, state = module.score(batch, state)
        total += likelihood_sums(nats, batch.ids[:, 1:], sizes, batch.mask).cpu()
        if not torch.isfinite(total).all():
            raise InputError(f"The likelihood of text is not finite (NaN or infinite), in rows from {batch.start}.")
    return total
