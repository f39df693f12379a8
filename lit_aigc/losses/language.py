"""The loss of language models in nats per token, and the figures that follow from its sums."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LN2 = math.log(2)
_LARGEST = math.log(sys.float_info.max)  # above this, exp overflows
_CHUNK = 64


def token_nats(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return minus the log-probability of each target, in nats.

    Logits of lower precision are never copied to float32 as a whole, and their gradient has their precision: with
    a large vocabulary the copies take as long as the matrix product that computes the logits.

    Args:
        logits: ``(N, T, V)`` of any floating type; computed in float32.
        targets: ``(N, T)`` int64.
        label_smoothing: Share of the target distribution that is spread over all tokens (Szegedy et al., 2016).

    Returns:
        ``(N, T)`` float32.
    """
    rows, classes = logits.flatten(0, 1), targets.flatten()
    if not label_smoothing and logits.device.type == "cpu" and logits.dtype.itemsize < 4:
        nats = _Nats.apply(rows, classes)[0]
    else:
        nats = F.cross_entropy(rows.float(), classes, reduction="none", label_smoothing=label_smoothing)
    return nats.view_as(targets)


class _Nats(torch.autograd.Function):
    """Cross-entropy of ``(N, V)`` logits, a few rows at a time, so that the float32 part stays in the CPU's cache."""

    @staticmethod
    def forward(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        nats = logits.new_empty(len(logits), dtype=torch.float32)
        probabilities = torch.empty_like(logits)
        for chunk in range(0, len(logits), _CHUNK):
            rows = slice(chunk, chunk + _CHUNK)
            exact = logits[rows].float()
            p = F.softmax(exact, dim=1)
            # -log p(target) = -log max(p) + (max logit - target's logit), which stays precise if p(target) underflows.
            behind = exact.amax(dim=1) - exact.gather(1, targets[rows, None])[:, 0]
            nats[rows] = behind - p.amax(dim=1).log()
            probabilities[rows] = p
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
        # The gradient with respect to the logits is p - onehot(target).
        slope = probabilities * gradient[:, None]
        slope[torch.arange(len(targets)), targets] -= gradient
        return slope, None


def likelihood_sums(nats: Tensor, targets: Tensor, sizes: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return what `likelihood_figures` takes as one tensor, to be added up over batches and processes.

    Args:
        nats: ``(N, T)``, of each target.
        targets: ``(N, T)`` int64.
        sizes: ``(V, 2)``, number of characters and bytes of each id; zeros if unknown.
        mask: ``(N, T)`` bool, the targets that count; None: all.

    Returns:
        ``(4,)`` float64: nats, tokens, characters, bytes.
    """
    if mask is not None:
        nats, targets = nats[mask], targets[mask]
    text = sizes.to(targets.device)[targets].flatten(0, -2).sum(dim=0).double()
    tokens = text.new_tensor([targets.numel()])
    return torch.cat([nats.double().sum()[None], tokens, text])


def likelihood_figures(
    nats: float, tokens: float, characters: float = 0, size: float = 0, words: float = 0, suffix: str = ""
) -> dict[str, float]:
    """Return the nats and bits of some text per unit of its length, and the perplexity per word.

    Args:
        nats: Minus the log-probability of the whole text, including the ends of texts.
        tokens: Number of targets, including the ends of texts.
        characters: Number of characters; 0 if unknown, as when tokens don't decode to the original text.
        size: Number of bytes in UTF-8; 0 if unknown.
        words: Number of words, including the ends of texts; 0 if unknown.
        suffix: Added to each key.

    Returns:
        ``nats_per_…`` and ``bits_per_…`` for ``token``, ``char`` and ``byte``, and ``perplexity``. Unknown units are
        left out. A perplexity too large for a float is infinite.
    """
    rates = {unit: nats / n for unit, n in (("token", tokens), ("char", characters), ("byte", size)) if n}
    values = {f"nats_per_{unit}{suffix}": rate for unit, rate in rates.items()}
    values |= {f"bits_per_{unit}{suffix}": rate / LN2 for unit, rate in rates.items()}
    if words:
        exponent = nats / words
        values[f"perplexity{suffix}"] = math.exp(exponent) if exponent <= _LARGEST else math.inf
    return values
