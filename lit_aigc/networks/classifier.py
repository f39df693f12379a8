"""A small convolutional classifier, for accuracy and as a frozen feature extractor of grayscale images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Classifier(nn.Module):
    """Six 3x3 convolutions with batch normalization, three of them with stride 2, mean pooling and one linear layer.

    Designed for 28 to 32 px; larger images work too, and are pooled over more positions.

    Args:
        shape: ``(C, H, W)`` of one image, at least 8 px on each side.
        num_classes: Number of logits.
        width: Channels of the first layers; the features have four times as many.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.num_features = 4 * width
        self.body = nn.Sequential(
            *_block(shape[0], width),
            *_block(width, width, stride=2),
            *_block(width, 2 * width),
            *_block(2 * width, 2 * width, stride=2),
            *_block(2 * width, 4 * width),
            *_block(4 * width, 4 * width, stride=2),
        )
        self.head = nn.Linear(self.num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` in [-1, 1] to the last hidden activations ``(N, num_features)``, all >= 0."""
        return self.body(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` in [-1, 1] to logits ``(N, num_classes)``."""
        return self.head(torch.dropout(self.features(x), 0.2, self.training))
