"""The precision of training, chosen by what this machine does fast."""

from __future__ import annotations

import functools
import time

import torch
from torch import Tensor, nn

AUTO = "auto"
FULL = "32-true"
MIXED = "bf16-mixed"


def fastest_precision(accelerator: str) -> str:
    """The ``trainer.precision`` that trains fastest on an accelerator of this machine.

    bfloat16 on CUDA from compute capability 8.0, float32 on MPS; on a CPU whatever `bf16_slowdown` measures.

    Args:
        accelerator: ``cpu``, ``cuda`` (or ``gpu``) or ``mps``.
    """
    if accelerator in ("cuda", "gpu") and torch.cuda.is_available():
        return MIXED if torch.cuda.get_device_capability() >= (8, 0) else FULL
    return MIXED if accelerator == "cpu" and bf16_slowdown() < 1 else FULL


@functools.cache
def bf16_slowdown() -> float:
    """How many times as long this CPU takes in bfloat16 as in float32: measured once per process.

    A convolution and a matrix product, forward and backward. The flags of the CPU don't decide, since the kernels that
    the installed libraries choose do.

    Returns:
        The geometric mean of both ratios: about 0.7 with bfloat16 instructions, 12 or more without.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 32, 16, 16, generator=generator).to(memory_format=torch.channels_last)
    rows = torch.randn(256, 256, generator=generator)
    convolution = nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1).to(memory_format=torch.channels_last)
    return (_slowdown(convolution, images) * _slowdown(nn.Linear(256, 256), rows)) ** 0.5


def _slowdown(layer: nn.Module, x: Tensor) -> float:
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(4):  # the first of each prepares the kernels
        for bf16, times in seconds.items():
            times.append(_seconds(layer, x, bf16))
    return min(seconds[True][1:]) / min(seconds[False][1:])


def _seconds(layer: nn.Module, x: Tensor, bf16: bool) -> float:
    x = x.detach().requires_grad_()
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = layer(x)
    y.float().square().sum().backward()
    return time.perf_counter() - started
