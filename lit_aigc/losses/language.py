"""What a language model is trained and judged by: nats of tokens, and the figures that their sums give."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LN2 = math.log(2)
_CHUNK = 64


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the log-probability of each target, in nats.

    Logits of lower precision are never copied to float32 as a whole, and their gradient is as precise as they are: with
    a large vocabulary the copies take as long as the matrix product that gives the logits.

    Args:
        logits: ``(N, T, V)`` of any floating type; computed in float32.
        targets: ``(N, T)`` int64.

    Returns:
        ``(N, T)`` float32.
    """
    rows, classes = logits.flatten(0, 1), targets.flatten()
    if logits.device.type == "cpu" and logits.dtype.itemsize < 4:
        nats = _Nats.apply(rows, classes)[0]
    else:
        nats = F.cross_entropy(rows.float(), classes, reduction="none")
    return nats.view_as(targets)


class _Nats(torch.autograd.Function):
    """Cross-entropy of ``(N, V)`` logits, a few rows at a time: what is in float32 stays in the processor's cache."""

    @staticmethod
    def forward(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        nats, probabilities = logits.new_empty(len(logits), dtype=torch.float32), torch.empty_like(logits)
        for chunk in range(0, len(logits), _CHUNK):
            rows = slice(chunk, chunk + _CHUNK)
            exact = logits[rows].float()
            likely = F.softmax(exact, dim=1)
            behind = exact.amax(dim=1) - exact.gather(1, targets[rows, None])[:, 0]
            nats[rows] = behind - likely.amax(dim=1).log()
            probabilities[rows] = likely
        return nats, probabilities

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1], inputs[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # zeros for the probabilities would take as much memory as they do

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor, None]:
        probabilities, targets = ctx.saved_tensors
        gradient = gradient.to(probabilities.dtype)
        slope = probabilities * gradient[:, None]
        slope[torch.arange(len(targets)), targets] -= gradient
        return slope, None


def likelihood_sums(nats: Tensor, targets: Tensor, sizes: Tensor, mask: Tensor | None = None) -> Tensor:
    """What `LikelihoodSums` is made of, as one tensor: to be added up over batches and summed over processes.

    Args:
        nats: ``(N, T)`` of each target.
        targets: ``(N, T)`` int64.
        sizes: ``(V, 2)`` characters and bytes that each id stands for; zeros where that isn't known.
        mask: ``(N, T)`` bool, the targets that count; None: all.

    Returns:
        ``(4,)`` float64: nats, tokens, characters, bytes.
    """
    if mask is not None:
        nats, targets = nats[mask], targets[mask]
    text = sizes.to(targets.device)[targets].flatten(0, -2).sum(dim=0).double()
    tokens = text.new_tensor([targets.numel()])
    return torch.cat([nats.double().sum()[None], tokens, text])


@dataclasses.dataclass(frozen=True)
class LikelihoodSums:
    """The nats of some text, and how much text it is.

    Attributes:
        nats: Minus the log-probability of all of it, the ends of texts included.
        tokens: Number of targets, the ends of texts included.
        characters: Number of characters; 0: not known, as of tokens that don't give the text back.
        bytes: Number of bytes in UTF-8; 0 likewise.
        words: Number of words, the ends of texts included; 0 likewise.
    """

    nats: float
    tokens: float
    characters: float = 0
    bytes: float = 0
    words: float = 0

    def numbers(self, suffix: str = "") -> dict[str, float]:
        """``nats_per_…`` and ``bits_per_…`` of a ``token``, ``char`` and ``byte``, and ``perplexity``, of a word.

        What there is none of has no number. A perplexity too large for a float is infinite.

        Args:
            suffix: Added to each key.
        """
        units = {"token": self.tokens, "char": self.characters, "byte": self.bytes}
        rates = {unit: self.nats / count for unit, count in units.items() if count}
        found = {f"nats_per_{unit}{suffix}": rate for unit, rate in rates.items()}
        found |= {f"bits_per_{unit}{suffix}": rate / LN2 for unit, rate in rates.items()}
        if self.words:
            found[f"perplexity{suffix}"] = _exp(self.nats / self.words)
        return found


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
