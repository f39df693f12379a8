"""Inception-v3, which FID was defined on: torch-fidelity's port of the TensorFlow network of 2015-12-05."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision
from lit_aigc.metrics.features.resizing import IN_WORDS, RESIZES, match_channels

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


def downloaded_weights() -> Path:
    """Return the path of the downloaded weights, in torch's cache folder."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


class Inception(nn.Module):
    """The 2048 pooled features and the 1008 logits without bias of images resized to 299 px.

    The layers are torch-fidelity's, with each batch normalization folded into the convolution before it and in the
    channels_last memory format: the same numbers up to float32 rounding, in less time.

    Its name, and so the key of each metric, is ``inception`` with TensorFlow's resizing and includes any other
    resizing, as in ``inception_clean``, because the numbers are not comparable.

    Args:
        weights_path: The weights file of torch-fidelity; None: the one in torch's cache folder, downloaded if absent.
        resize: ``tensorflow``, ``legacy`` or ``clean``, as in `lit_aigc.metrics.features.resizing`.

    Raises:
        InputError: If torch-fidelity isn't installed, the weights can't be obtained, or the resizing is unknown.
    """

    SIZE = 299

    def __init__(self, weights_path: str | Path | None = None, resize: str = "tensorflow") -> None:
        super().__init__()
        if resize not in RESIZES:
            raise InputError(f"resize={resize}: expected one of {', '.join(RESIZES)}.")
        try:
            from torch_fidelity import feature_extractor_inceptionv3 as fidelity
        except ImportError as error:
            raise InputError(
                "The extractor 'inception' needs torch-fidelity: run  pip install 'lit_aigc[features]'  (or "
                "pip install torch-fidelity ), or choose mnist_classifier or fashion_mnist_classifier."
            ) from error
        content = _read(weights_path, fidelity.URL_INCEPTION_V3)
        where = weights_path or "the downloaded weights"
        try:
            # torch-fidelity itself unpickles without restrictions: make sure that the file holds tensors only
            torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            network = fidelity.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=io.BytesIO(content)
            )
        except Exception as error:
            raise InputError(
                f"{where}: not the weights of torch-fidelity's Inception-v3 ({str(error).splitlines()[0]}). "
                f"Expected {Path(fidelity.URL_INCEPTION_V3).name} from {fidelity.URL_INCEPTION_V3}."
            ) from error
        self.name = "inception" if resize == "tensorflow" else f"inception_{resize}"
        self.num_features = 2048
        self.num_classes = 1008
        self.hash = hashlib.sha256(content).hexdigest()
        self.protocol = {"resize": f"{IN_WORDS[resize]}, to {self.SIZE}x{self.SIZE}"}
        self.resize = RESIZES[resize]
        *layers, _pooling, head = network.children()  # in the order in which they are applied
        self.layers = nn.Sequential(*layers)
        for convolution in (each for each in self.layers.modules() if isinstance(each, fidelity.BasicConv2d)):
            convolution.conv = fuse_conv_bn_eval(convolution.conv, convolution.bn)
            convolution.bn = nn.Identity()
        self.layers.to(memory_format=torch.channels_last)
        self.head = head.weight  # (1008, 2048)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 ``(N, 1|3, H, W)`` to features ``(N, 2048)`` and logits ``(N, 1008)``, float32."""
        levels = self.resize(match_channels(images, 3), self.SIZE, self.SIZE)
        x = ((levels - 128.0) / 128.0).contiguous(memory_format=torch.channels_last)
        features = self.layers(x).float().mean(dim=(2, 3))
        with full_precision(images.device):
            return features, F.linear(features, self.head)


def _read(weights_path: str | Path | None, url: str) -> bytes:
    """Return the content of the weights file; download it unless a path is given or it is in torch's cache."""
    if weights_path is not None:
        if not Path(weights_path).is_file():
            raise InputError(f"weights_path: there is no file {weights_path}. Expected {Path(url).name} from {url}.")
        return Path(weights_path).read_bytes()
    path = downloaded_weights()
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rpartition("-")[2]  # the name ends with the first digits of the sha256
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except Exception as error:
            raise InputError(
                f"The weights of the extractor 'inception' can't be downloaded ({error}). Download {url} elsewhere, "
                f"and put it at {path}, or give its path as weights_path=."
            ) from error
    return path.read_bytes()
