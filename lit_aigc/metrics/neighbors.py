"""Find the nearest training images: does a generator invent, or repeat what it was shown?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.spec import Batch

Describe = Callable[[Tensor], Tensor]
"""uint8 images ``(N, C, H, W)`` to features ``(N, d)``."""

_PAIRS, _COLUMNS = 2**20, 4096  # distances, and vectors of the stream, in memory at a time
_NUMBERS = 2**24  # numbers of vectors in memory at a time as floats, on either side
_EXACT = 1024  # products of numbers from -128 to 127 whose sum is a whole number of float32: 1024 * 128**2 = 2**24


def nearest(
    queries: Tensor, batches: Iterable[Batch], k: int, describe: Describe | None = None
) -> tuple[Tensor, Tensor]:
    """Find the k nearest images of a stream for each query, see `nearest_vectors`.

    Args:
        queries: uint8 ``(n, C, H, W)``.
        batches: The stream: uint8 images.
        k: Number of neighbors.
        describe: Returns the features whose Euclidean distance counts; None: the root mean square of the differences of
            the pixels in gray levels, from 0 for the same image to 255.

    Returns:
        Distances ``(n, k)`` float64, the nearest first, and the places ``(n, k)`` int64 of the neighbors in the
        stream.

    Raises:
        InputError: If the stream has fewer than k images.
    """
    if describe:
        return nearest_vectors(describe(queries), (describe(batch.images) for batch in batches), k)
    distances, places = nearest_vectors(queries.flatten(1), (batch.images.flatten(1) for batch in batches), k)
    return distances * queries[0].numel() ** -0.5 if len(queries) else distances, places


@torch.no_grad()
def nearest_vectors(queries: Tensor, blocks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest vectors of a stream for each query, by comparing them all.

    Memory is that of the queries and of a part of the stream of fixed size. Distances of uint8 vectors are exact:
    products of matrices in float32 whose sums are whole numbers below 2^24. Others are computed in float64, those of
    the neighbors once more from differences, so that equal vectors are at distance 0.

    Args:
        queries: ``(n, d)``, uint8 or floats.
        blocks: The stream: ``(N, d)`` of the same type, of any N.
        k: Number of neighbors.

    Returns:
        Euclidean distances ``(n, k)`` float64, the nearest first, and the places ``(n, k)`` int64 of the neighbors in
        the stream; of two at the same distance, the one that came first.

    Raises:
        InputError: If the stream has fewer than k vectors.
    """
    squares, places = nearest_squares(queries.cpu(), blocks, k)
    return squares.sqrt(), places


def nearest_squares(queries: Tensor, blocks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Find the same as `nearest_vectors`, with squared distances, on the device of the queries."""
    n, device, whole = len(queries), queries.device, queries.dtype == torch.uint8
    distances = torch.full((n, k), torch.inf, dtype=torch.float64, device=device)
    places = torch.full((n, k), -1, device=device)
    start = 0
    for block in _joined(blocks):
        y = _numbers(block.to(device))
        lengths = _squares(y)
        step = max(1, min(_PAIRS // len(y), _NUMBERS // y.shape[1]))
        for rows in map(slice, range(0, n, step), range(step, n + step, step)):
            x = _numbers(queries[rows])
            found = (_squares(x)[:, None] + lengths - 2.0 * _products(x, y)).clamp_min_(0.0)  # (rows, N)
            close, at = _smallest(found, min(k, len(y)), whole)
            if not whole:  # recompute what a small difference of large numbers lost
                close = torch.stack([(x - y[column]).square().sum(dim=1) for column in at.T], dim=1)
            close, order = torch.cat([distances[rows], close], dim=1).sort(dim=1, stable=True)
            distances[rows] = close[:, :k]
            places[rows] = torch.cat([places[rows], at + start], dim=1).gather(1, order[:, :k])
        start += len(y)
    if n and start < k:
        raise InputError(f"There are fewer than {k} images to look for neighbors among: ask for fewer neighbors.")
    return distances, places


def _numbers(vectors: Tensor) -> Tensor:
    """Return uint8 as float32 from -128 to 127, others as float64."""
    return vectors.float() - 128.0 if vectors.dtype == torch.uint8 else vectors.double()


def _squares(x: Tensor) -> Tensor:
    """Return squared lengths ``(n,)`` float64."""
    return x.double().square().sum(dim=1)


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner products ``(n, N)`` float64 of all pairs; exact for whole numbers."""
    if x.dtype == torch.float64:
        return x @ y.T
    return sum((a @ b.T).double() for a, b in zip(x.split(_EXACT, dim=1), y.split(_EXACT, dim=1), strict=True))


def _smallest(found: Tensor, k: int, whole: bool) -> tuple[Tensor, Tensor]:
    """Return the k smallest of each row, ascending, and their places; of equal whole numbers, the first ones."""
    if not whole:
        return found.topk(k, dim=1, largest=False)
    n = found.shape[1]
    keys = found.mul_(n).add_(torch.arange(n))  # whole numbers below 2**53, all different
    keys = keys.topk(k, dim=1, largest=False).values
    close = keys.div(n, rounding_mode="floor")
    return close, (keys - close * n).long()


def _joined(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the same stream in blocks of an efficient size."""
    held: list[Tensor] = []
    for block in blocks:
        most = max(1, min(_COLUMNS, _NUMBERS // block.shape[1]))
        for part in block.split(most):
            if sum(map(len, held)) + len(part) > most:
                yield torch.cat(held)
                held = []
            held.append(part)
    if held:
        yield torch.cat(held)
