"""The likelihood that a language model gives to text, by a protocol of how much context each token is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.losses.language import likelihood_sums, token_nats
from lit_aigc.spec import TextBatch

ROWS = 32  # windows at a time
PIECE = 512  # tokens at a time where the state is carried


def running_text(batches: Iterable[TextBatch]) -> Tensor:
    """The text whose consecutive windows some batches hold.

    Args:
        batches: Rows in order, of which each goes on where the last one ended.

    Returns:
        ``(L + 1,)`` int64: the id before the first target, and all L targets.

    Raises:
        InputError: If the rows are separate texts, each padded, rather than windows of one.
    """
    pieces: list[Tensor] = []
    ended = False
    for batch in batches:
        for row, ids in enumerate(batch.ids):
            count = len(ids) - 1 if batch.mask is None else int(batch.mask[row].sum())
            if count and ended:
                raise InputError(
                    "These are separate texts, each of which is given its own context: the protocols strided and "
                    "carried are of one running text. Ask for windows alone."
                )
            ended = count < len(ids) - 1
            pieces += [] if pieces else [ids[:1]]
            pieces.append(ids[1 : count + 1])
    if not pieces:
        raise InputError("There is no text to measure the likelihood of.")
    return torch.cat(pieces)


def windows(ids: Tensor, context: int, stride: int | None = None, rows: int = ROWS) -> Iterator[TextBatch]:
    """Windows of a running text in which each token is a target that counts exactly once.

    Args:
        ids: ``(L + 1,)`` as `running_text` gives it.
        context: Tokens that a window reads; shorter at the end of the text.
        stride: Targets of each window that count, its last ones (of the first window all): each of them is given at
            least ``context - stride`` tokens before it. None: `context`, windows that don't overlap.
        rows: Windows in a batch.

    Raises:
        InputError: If the stride is not from 1 to `context`.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise InputError(f"stride={stride}: expected 1 to the context of the model, {context}.")
    last, known = len(ids) - 1, context - stride
    starts = torch.arange(0, max(last - known, 1), stride)
    for first in range(0, len(starts), rows):
        start = starts[first : first + rows, None]
        at = start + torch.arange(context + 1)  # (rows, context + 1) places in the text; at its end the row is padded
        target = at[:, 1:]
        mask = (target <= last) & ((target > start + known) | (start == 0))
        yield TextBatch(torch.where(at <= last, ids[at.clamp(max=last)], 0), mask, first)


@torch.inference_mode()
def window_sums(module: Any, batches: Iterable[TextBatch], sizes: Tensor) -> Tensor:
    """The sums of `lit_aigc.losses.language.likelihood_sums` over batches, each row on its own.

    Args:
        module: A language model with ``network(ids) -> logits``, in evaluation mode.
        batches: Rows of text.
        sizes: ``(V, 2)`` characters and bytes of each id.

    Returns:
        ``(4,)`` float64.

    Raises:
        InputError: If a likelihood is not finite.
    """
    total = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        ids = batch.ids.to(module.device)
        mask = None if batch.mask is None else batch.mask.to(module.device)
        nats = token_nats(module.network(ids[:, :-1]), ids[:, 1:])
        total += _finite(likelihood_sums(nats, ids[:, 1:], sizes, mask).cpu())
    return total


@torch.inference_mode()
def carried_sums(module: Any, ids: Tensor, sizes: Tensor, piece: int = PIECE) -> Tensor:
    """The same of a running text that a network reads once, from its beginning, with its state carried all along.

    Args:
        module: A language model with ``network(ids, cache) -> logits`` and ``network.new_cache(1)``.
        ids: ``(L + 1,)`` as `running_text` gives it.
        sizes: ``(V, 2)`` characters and bytes of each id.
        piece: Tokens read at a time; changes no number.

    Returns:
        ``(4,)`` float64.

    Raises:
        InputError: If the network can't read on for ever, or a likelihood is not finite.
    """
    if module.network.context:
        raise InputError(
            f"The protocol carried needs a network whose state is carried for ever, such as an LSTM; this one, a "
            f"{type(module.network).__name__}, reads {module.network.context} tokens at most: take strided instead."
        )
    cache = module.network.new_cache(1)
    total = torch.zeros(4, dtype=torch.float64)
    for start in range(0, len(ids) - 1, piece):
        read = ids[None, start : start + piece + 1].to(module.device)
        nats = token_nats(module.network(read[:, :-1], cache), read[:, 1:])
        total += _finite(likelihood_sums(nats, read[:, 1:], sizes).cpu())
    return total


def _finite(sums: Tensor) -> Tensor:
    if not torch.isfinite(sums).all():
        raise InputError("The likelihood of some text is not finite (NaN or infinite).")
    return sums
