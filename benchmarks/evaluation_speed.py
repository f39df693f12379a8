"""FID from two folders of PNGs, end to end, compared with torch-fidelity (extra ``[features]``): speed and equality.

Both sides read the same files, compute the 2048 features of the same Inception-v3 (random weights, so that nothing is
downloaded) at the same batch size, and the distance; nothing is cached. The sides alternate within one run, since
machines change their speed from minute to minute. It reports medians of the times and of the ratios of adjacent
turns, in wall-clock time and in processor time, which other programs on the machine disturb less.

    python benchmarks/evaluation_speed.py [images per folder [rounds [batch size [height and width]]]]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch_fidelity
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lit_aigc.build import instantiate
from lit_aigc.config.compose import load
from lit_aigc.evaluate.run import evaluate
from lit_aigc.machine.precision import machine_class
from lit_aigc.media.images import save_images


class _Untrained(FeatureExtractorInceptionV3):
    def load_state_dict(self, *arguments: object) -> None:
        """Nothing: the weights stay as they were drawn."""


def random_weights(folder: Path) -> Path:
    """A weights file of torch-fidelity's kind, drawn so that activations keep their size from layer to layer."""
    torch.save({}, folder / "empty.pth")
    network = _Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth"))
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), folder / "random.pth")
    return folder / "random.pth"


def pictures(n: int, size: int) -> tuple[Tensor, Tensor]:
    """Make digits in a color each, and other digits, blurred: uint8 ``(n, 3, size, size)`` each, n at most 2,250."""
    data = instantiate(load("evaluate", ["data=mnist5k", f"data.image_size={size}"])["data"])
    gray = torch.cat([batch.images for batch in data.real_batches("train", limit=2 * n)]).float()
    colors = torch.rand(len(gray), 3, 1, 1, generator=torch.Generator().manual_seed(0))
    colored = 255.0 - (255.0 - 127.0 * colors) * gray / 255.0
    blurred = F.avg_pool2d(colored[n:], 3, stride=1, padding=1, count_include_pad=False)
    return colored[:n].round().to(torch.uint8), blurred.round().to(torch.uint8)


def timed(function: Callable[[], float]) -> tuple[float, float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - clock, time.process_time() - processor


def main(n: int = 500, rounds: int = 3, batch_size: int = 64, size: int = 32) -> None:
    print(machine_class())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = random_weights(folder)
        for key, images in zip(("real", "fake"), pictures(n, size), strict=True):
            save_images(images, folder / key)
        ask = [f"real={folder / 'real'}", f"fake={folder / 'fake'}", "extractor=inception", f"weights_path={weights}"]
        ask += ["metrics=[fid]", f"batch_size={batch_size}", "cache=false", "floor=false"]

        def ours(*more: str) -> float:
            return evaluate(load("evaluate", [*ask, *more]))["fid_inception"]

        def theirs() -> float:
            return torch_fidelity.calculate_metrics(
                input1=str(folder / "fake"),
                input2=str(folder / "real"),
                cuda=torch.cuda.is_available(),
                fid=True,
                feature_extractor="inception-v3-compat",
                feature_extractor_weights_path=str(weights),
                batch_size=batch_size,
                cache=False,
                verbose=False,
            )["frechet_inception_distance"]

        device = "device=cuda" if torch.cuda.is_available() else "device=cpu"
        sides = {
            "torch-fidelity": theirs,
            "lit_aigc": lambda: ours(device),
            "lit_aigc, bf16": lambda: ours(device, "bf16_features=true"),
        }
        turns = []
        for number in range(rounds):
            turns.append({name: timed(side) for name, side in sides.items()})
            for name, (value, clock, processor) in turns[-1].items():
                print(
                    f"round {number + 1}  {name:>14}: FID {value:.8g} in {clock:.1f} s, {processor:.1f} s of processors"
                )
    first = {name: [turn[name] for turn in turns] for name in sides}
    for name, found in first.items():
        against = first["torch-fidelity"]
        clock, processor = (statistics.median(b[i] / a[i] for a, b in zip(found, against, strict=True)) for i in (1, 2))
        print(
            f"{name:>14}: {2 * n / statistics.median(x[1] for x in found):.1f} images/s, {clock:.2f}x by the clock, "
            f"{processor:.2f}x by processor time; FID differs by {abs(found[0][0] / against[0][0] - 1):.1e}"
        )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)  # of few images: both sides have the same
    main(*map(int, sys.argv[1:]))
