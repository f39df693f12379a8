"""Statistics over a batch of images, as a discriminator's feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError


class MinibatchStd(nn.Module):
    """Appends a channel with the standard deviation over a group of images.

    Karras et al., "Progressive growing of GANs", 2018, section 3: for each channel and position the deviation over the
    group, and of these the mean, repeated at every position of every image in the group. A generator that makes one
    picture over and over shows itself by a small value.

    Image i is in group ``i mod (number of groups)``. A batch that the group's size does not divide has fewer, larger
    groups, as equal as can be: every image is in one, and a batch smaller than two groups is one group. A group of one
    image has deviation 0.

    Args:
        group: Images in a group, at least.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        if group < 1:
            raise InputError(f"MinibatchStd: group={group}: expected a number of images, 1 or more.")
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C + 1, H, W)``; the statistic is computed in float32."""
        groups = max(len(x) // self.group, 1)
        if len(x) % groups == 0:
            deviations = _deviation(x.unflatten(0, (-1, groups))).repeat(len(x) // groups)
        else:
            index = torch.arange(len(x), device=x.device) % groups
            deviations = torch.stack([_deviation(x[index == i][:, None])[0] for i in range(groups)])[index]
        channel = deviations.to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, channel], dim=1)


def _deviation(x: Tensor) -> Tensor:
    """``(group, groups, C, H, W)`` to ``(groups,)``: deviations over the group, their mean over all else."""
    variance = x.float().var(dim=0, correction=0)
    return (variance + 1e-8).sqrt().flatten(1).mean(dim=1)  # the root's derivative at 0 is infinite
