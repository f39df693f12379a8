"""The inception score (Salimans et al., 2016, arXiv:1606.03498) on the logits of any classifier."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_aigc.errors import InputError


class InceptionScore(Metric):
    """``exp(E KL(p(y|x) || p(y)))`` over one split: all samples at once, in float64 sums of constant size.

    Args:
        num_classes: Number of logits.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("probabilities", torch.zeros(num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("negative_entropy", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor) -> None:
        """Adds the logits ``(N, k)`` of N samples."""
        log_p = logits.double().log_softmax(dim=1)
        p = log_p.exp()
        self.count += len(p)
        self.probabilities += p.sum(dim=0)
        self.negative_entropy += torch.special.xlogy(p, p).sum()

    def compute(self) -> float:
        """The score over all processes: 1 for samples that all look the same, k at best."""
        count = int(self.count)
        if count < 1:
            raise InputError("An inception score needs at least 1 sample, got none.")
        marginal = self.probabilities / count
        return float((self.negative_entropy / count - torch.special.xlogy(marginal, marginal).sum()).exp())
