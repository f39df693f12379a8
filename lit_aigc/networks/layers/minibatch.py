"""Statistics over a batch of images, as a feature for discriminators."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_aigc.errors import check


class MinibatchStd(nn.Module):
    """Append a channel with the standard deviation over a group of images.

    Karras et al., "Progressive growing of GANs", 2018, section 3: the standard deviation over the group of each channel
    and position, averaged, and repeated at every position of every image in the group. The value is small for a
    generator that draws one picture over and over.

    Image i is in group ``i mod (number of groups)``. If the batch isn't a multiple of the group size, there are fewer
    and larger groups, as equal as possible; a batch smaller than two groups is one group. A group of one
    image has deviation 0.

    Args:
        group: Smallest number of images per group.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        check(("minibatch_group", group, group >= 1, "a number of images, 1 or more"))
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C + 1, H, W)``; the statistic is computed in float32."""
        groups = max(len(x) // self.group, 1)
        if len(x) % groups == 0:
            deviations = _deviation(x.unflatten(0, (-1, groups))).repeat(len(x) // groups)
        else:
            index = torch.arange(len(x), device=x.device) % groups
            deviations = torch.stack([_deviation(x[index == i][:, None])[0] for i in range(groups)])[index]
        channel = deviations.to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, channel], dim=1)


def _deviation(x: Tensor) -> Tensor:
    """Map ``(group, groups, C, H, W)`` to ``(groups,)``: the mean of all deviations over each group."""
    variance = x.float().var(dim=0, correction=0)
    return (variance + 1e-8).sqrt().flatten(1).mean(dim=1)  # the root's derivative at 0 is infinite
