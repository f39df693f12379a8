"""Codes of real images by an encoder: reconstructions next to the images, and a map of the codes."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lit_aigc.latents.geometry import principal_plane
from lit_aigc.media.fonts import families, readable
from lit_aigc.media.images import to_uint8
from lit_aigc.media.plots import as_png, style_axes
from lit_aigc.media.sheets import Panel
from lit_aigc.modules.capabilities import Encodes, Observes, Reconstructs
from lit_aigc.noise import Noise

_BLOCK = 256
_MOST_COLORS = 20
_OTHERS = "0.75"  # gray, for classes beyond those


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Images and their codes, in memory.

    Attributes:
        images: ``(n, C, H, W)`` uint8, as the model sees them: black and white for binary pixels.
        codes: ``(n, d)`` means of their posteriors.
        labels: ``(n,)`` int64, or None.
    """

    images: Tensor
    codes: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, items: Any) -> Encoded:
        """Return some of the images, by a slice or an index tensor."""
        return Encoded(self.images[items], self.codes[items], None if self.labels is None else self.labels[items])


@torch.no_grad()
def encoded(module: Encodes, images: Tensor, labels: Tensor | None = None, seed: int = 0) -> Encoded:
    """Encode images, block by block.

    Args:
        module: The encoder; one that `Observes` gets what it observes of the images.
        images: ``(n, C, H, W)`` uint8.
        labels: ``(n,)`` int64, required by a conditional model.
        seed: Of the noise of a random binarization; image i gets item i.
    """
    seen, codes = [], []
    for first, x in _blocks(module, images):
        if isinstance(module, Observes):
            x = module.observed(x, Noise(seed, first))
        y = None if labels is None else labels[first : first + _BLOCK].to(module.device)
        codes.append(module.encode(x, y).cpu())
        seen.append(to_uint8(x, module.spec.value_range).cpu().contiguous())
    return Encoded(torch.cat(seen), torch.cat(codes), labels)


@torch.no_grad()
def decoded(module: Encodes, codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Decode codes ``(n, d)`` and classes ``(n,)`` to uint8 images ``(n, C, H, W)`` in main memory."""
    blocks = (
        module.decode(codes[i : i + _BLOCK].to(module.device), None if labels is None else labels[i : i + _BLOCK])
        for i in range(0, len(codes), _BLOCK)
    )
    return torch.cat([to_uint8(block, module.spec.value_range).cpu() for block in blocks])


@torch.no_grad()
def reconstructed(module: Reconstructs, images: Tensor) -> Tensor:
    """Reconstruct images, uint8 ``(n, C, H, W)``, with a module whose codes are no vectors."""
    blocks = [module.reconstruct(x) for _, x in _blocks(module, images)]
    return torch.cat([to_uint8(block, module.spec.value_range).cpu() for block in blocks])


def _blocks(module: Any, images: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the place of each block's first image, and the block in the spec's range on the module's device."""
    low, high = module.spec.value_range
    for first in range(0, len(images), _BLOCK):
        yield first, images[first : first + _BLOCK].to(module.device).float() * ((high - low) / 255) + low


def pairs(images: Tensor, reconstructions: Tensor, columns: int, caption: str = "") -> list[Panel]:
    """Arrange pairs of an image and its reconstruction to its right, row by row, as a band of panels.

    Args:
        images: ``(n, C, H, W)`` uint8.
        reconstructions: As `images`.
        columns: Pairs per row.
        caption: Above the first.
    """
    missing = -len(images) % columns if len(images) > columns else 0
    both = torch.stack([images, reconstructions], dim=1)  # (n, 2, C, H, W)
    both = torch.cat([both, torch.full_like(both[:1], 255).expand(missing, *both.shape[1:])])
    columns = min(columns, len(both))
    return [Panel(both[i::columns].flatten(0, 1), 2, "" if i else caption) for i in range(columns)]


def spread(items: int, n: int) -> Tensor:
    """Return up to n places ``(n,)`` out of `items`, evenly spaced from the first on."""
    return torch.arange(min(n, items)) * items // max(1, min(n, items))


def draw_map(codes: Tensor, labels: Tensor | None, names: Sequence[str], title: str = "") -> Image.Image:
    """Draw codes as points by their first two principal components, colored by class, with a legend.

    Args:
        codes: ``(n, d)``.
        labels: ``(n,)`` int64, or None: all in one color.
        names: A name for each class. If there are many, the largest classes get colors, the others are gray.
        title: A line at the top.
    """
    from matplotlib.figure import Figure

    points, shares = principal_plane(codes)
    figure = Figure(figsize=(7.6 if labels is not None else 6.2, 5.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    order = Noise(0).bits(len(points), 1)[:, 0].argsort()  # so that no class covers all others
    groups = list(_groups(labels, names, len(points)))
    colors: list[Any] = [_OTHERS] * len(points)
    for _, color, members in groups:
        for place in members.tolist():
            colors[place] = color
    size = 16.0 if len(points) <= 1000 else 8.0
    axes.scatter(*points[order].T.tolist(), c=[colors[i] for i in order.tolist()], s=size, alpha=0.75, linewidths=0)
    for name, color, _ in groups if labels is not None else ():
        axes.scatter([], [], color=[color], s=36, label=readable(name))
    if labels is not None:
        font = {"family": families(names), "size": 9}
        axes.legend(prop=font, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
    axes.set_title(title, fontsize=11, loc="left")
    for which, axis, share in zip(("first", "second"), (axes.xaxis, axes.yaxis), shares.tolist(), strict=True):
        axis.set_label_text(f"{which} principal component ({share:.0%} of the variance)", fontsize=9, color="0.35")
    axes.set_aspect("equal", adjustable="datalim")
    style_axes(axes)
    axes.set_axisbelow(True)
    return Image.open(io.BytesIO(as_png(figure))).convert("RGB")


def _groups(labels: Tensor | None, names: Sequence[str], n: int) -> Iterator[tuple[str, Any, Tensor]]:
    """Yield name, color and members of each class that occurs, in the order of the classes."""
    from matplotlib import colormaps

    if labels is None:
        yield "", colormaps["tab10"](0), torch.arange(n)
        return
    counts = torch.bincount(labels, minlength=len(names))
    present = [i for i in range(len(counts)) if counts[i]]
    largest = sorted(present, key=lambda i: (-int(counts[i]), i))
    shown = present if len(present) <= _MOST_COLORS else sorted(largest[: _MOST_COLORS - 1])
    colors = colormaps["tab10" if len(shown) <= 10 else "tab20"].colors
    for color, i in zip(colors, shown, strict=False):
        yield names[i] if i < len(names) else str(i), color, (labels == i).nonzero()[:, 0]
    if len(shown) < len(present):
        yield "others", _OTHERS, torch.isin(labels, torch.tensor(shown), invert=True).nonzero()[:, 0]
