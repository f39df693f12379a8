"""Nearest training images: whether a generator invents or repeats what it was shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.spec import Batch

Describe = Callable[[Tensor], Tensor]
"""uint8 images ``(N, C, H, W)`` to features ``(N, d)``."""


@torch.no_grad()
def nearest(
    queries: Tensor, batches: Iterable[Batch], k: int, describe: Describe | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest of a stream of images to each of some others, found by comparing them all.

    Memory is that of the queries and of one batch. Pixel distances are exact: sums of squares of whole numbers.

    Args:
        queries: uint8 ``(n, C, H, W)``.
        batches: The stream: uint8 images, with `start` their place in it.
        k: Number of neighbours.
        describe: The features whose Euclidean distance counts; None: the root mean square of the differences of the
            pixels in grey levels, from 0 for the same image to 255.

    Returns:
        Distances ``(n, k)`` float64, the nearest first, and the places ``(n, k)`` int64 of the neighbours in the
        stream; of two at the same distance the one that came first.

    Raises:
        InputError: If the stream has fewer than k images.
    """
    x = _vectors(queries, describe)  # (n, d)
    squares = x.square().sum(dim=1, keepdim=True)
    distances = x.new_full((len(x), k), torch.inf)
    places = torch.full((len(x), k), -1)
    for batch in batches:
        y = _vectors(batch.images, describe)
        found = (squares - 2.0 * x @ y.T + y.square().sum(dim=1)).clamp_min_(0.0)  # (n, N)
        if describe:  # features aren't whole: what a small difference of large numbers lost is computed again
            closest = found.topk(min(k, len(y)), dim=1, largest=False).indices
            found.scatter_(1, closest, (x[:, None] - y[closest]).square().sum(dim=2))
        joined = torch.cat([distances, found], dim=1)
        order = joined.sort(dim=1, stable=True).indices[:, :k]
        distances = joined.gather(1, order)
        places = torch.where(order < k, places.gather(1, order.clamp_max(k - 1)), batch.start + order - k)
    if len(x) and torch.isinf(distances).any():
        raise InputError(f"There are fewer than {k} images to look for neighbours among: ask for fewer neighbours.")
    scale = 1.0 if describe else queries[0].numel() ** -0.5 if len(x) else 1.0
    return distances.sqrt() * scale, places


def _vectors(images: Tensor, describe: Describe | None) -> Tensor:
    return (describe(images) if describe else images.flatten(1)).cpu().double()
