"""The inception score (Salimans et al., 2016, arXiv:1606.03498) on the logits of any classifier."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.metrics.base import Figure, SampleMetric
from lit_aigc.metrics.resampling import weights


class InceptionScore(SampleMetric):
    """``exp(E KL(p(y|x) || p(y)))`` over one split: all samples at once, in float64 sums of constant size.

    Args:
        num_classes: Number of logits.
    """

    name = "is"
    figures = (Figure("is", "inception score", "on the classes of the extractor", "higher"),)
    takes = ("logits",)
    drawn_from = "logits"
    least = 1.0
    has_floor = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("probabilities", torch.zeros(num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("negative_entropy", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def create(cls, extractor: nn.Module, *_: Any) -> Self:
        """Make the metric for the logits of an extractor."""
        return cls(extractor.num_classes)

    collector = create

    @classmethod
    def between(cls, first: InceptionScore, second: InceptionScore) -> float:
        """Return the score of one half; the other plays no part."""
        return first.compute()

    def update(self, logits: Tensor) -> None:
        """Add the logits ``(N, k)`` of N samples."""
        log_p = logits.double().log_softmax(dim=1)
        p = log_p.exp()
        self.count += len(p)
        self.probabilities += p.sum(dim=0)
        self.negative_entropy += torch.special.xlogy(p, p).sum()

    def compute(self) -> float:
        """Return the score over all processes: 1 for samples that all look the same, k at best."""
        count = int(self.count)
        if count < 1:
            raise InputError("An inception score needs at least 1 sample, got none.")
        marginal = self.probabilities / count
        return float((self.negative_entropy / count - torch.special.xlogy(marginal, marginal).sum()).exp())

    def draws(self, kept: Tensor, resamples: int, *, seed: int = 0) -> Tensor:
        """Return the scores of sets drawn from logits."""
        log_p = kept.double().log_softmax(dim=1)
        p = log_p.exp()
        negative_entropy = torch.special.xlogy(p, p).sum(dim=1)
        w = torch.stack(list(weights(len(p), resamples, seed))).to(p) / len(p)  # (resamples, n)
        marginal = w @ p
        return (w @ negative_entropy - torch.special.xlogy(marginal, marginal).sum(dim=1)).exp().cpu()
