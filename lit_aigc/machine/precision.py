"""The precision of training, chosen by what this machine does fast, and the meaning of "full precision"."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

AUTO = "auto"
FULL = "32-true"
MIXED = "bf16-mixed"
SLOW = 1.5  # times as long as the alternative, and more, is worth a warning
log = logging.getLogger(__name__)
_FULL_NAMES = {"32": FULL, "64": "64-true", "16": "16-mixed", "bf16": MIXED}  # of the short names of the Trainer


def accelerator_of(name: str) -> str:
    """Return ``cpu``, ``cuda`` or ``mps``: what a Trainer's ``accelerator`` means on this machine."""
    if name in ("gpu", "auto"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return name


def choose_precision(asked: str, accelerator: str, network: nn.Module, kept: str | None = None) -> str:
    """Return the precision to train a network in; log one line per surprise.

    Args:
        asked: ``trainer.precision``: ``auto``, or a choice that is honored.
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        network: The network to train. If this machine can't run one of its layers in bfloat16, float32 is chosen.
        kept: The precision of the run so far, which ``auto`` keeps unless it is slow here; None for a new run.
    """
    asked = _FULL_NAMES.get(asked, asked)
    chosen = asked
    if asked == AUTO:
        chosen = kept if kept and _is_worth_keeping(kept, accelerator) else fastest_precision(accelerator)
    if chosen == MIXED and accelerator == "cpu" and (layer := _unfit_layer(network)):
        chosen = FULL
        log.warning("This CPU can't run %s in bfloat16, so training uses %s.", layer, FULL)
    elif asked != AUTO:
        warn_if_slow(f"trainer.precision={asked}", asked, accelerator, "Set trainer.precision=auto")
    if kept and chosen != kept:
        log.warning(
            f"This run was trained in {kept} so far and resumes in {chosen}: from here on it is not bit-identical to a "
            "run that never stopped."
        )
    return chosen


def _is_worth_keeping(kept: str, accelerator: str) -> bool:
    if accelerator == "cpu":
        return kept in (FULL, MIXED) and slowdown(kept, accelerator) <= SLOW
    return kept in (FULL, fastest_precision(accelerator)) or (accelerator == "cuda" and kept.startswith("16"))


def warn_if_slow(setting: str, precision: str, accelerator: str, advice: str = "Leave it out") -> None:
    """Log one line if a setting asks for a precision that is slow on this machine."""
    if (factor := slowdown(precision, accelerator)) > SLOW:
        fastest = fastest_precision(accelerator)
        log.warning(f"{setting} takes {factor:.1f} times as long on this machine as {fastest}. {advice} to save that.")


def fastest_precision(accelerator: str, fast_bf16: bool | None = None) -> str:
    """Return the ``trainer.precision`` that trains fastest on a machine.

    bfloat16 on CUDA from compute capability 8.0, float32 on MPS; on a CPU whatever `bf16_slowdown` measures.

    Args:
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        fast_bf16: Whether the accelerator is faster in bfloat16; None: look at this machine.
    """
    if accelerator not in ("cpu", "cuda"):
        return FULL
    if fast_bf16 is None and accelerator == "cuda":
        fast_bf16 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    elif fast_bf16 is None:
        fast_bf16 = bf16_slowdown() < 1
    return MIXED if fast_bf16 else FULL


def slowdown(precision: str, accelerator: str, bf16: float | None = None) -> float:
    """Return how many times as long a precision takes as the fastest one; 1 where that isn't known.

    Args:
        precision: A ``trainer.precision``.
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        bf16: How many times as long bfloat16 takes on the CPU as float32; None: as measured here.
    """
    if accelerator != "cpu":
        return 1.0
    bf16 = bf16_slowdown() if bf16 is None else bf16
    return max(1.0, {MIXED: bf16, FULL: 1 / bf16}.get(precision, 1.0))


@functools.cache
def bf16_slowdown() -> float:
    """Measure how many times as long this CPU takes in bfloat16 as in float32, once per process.

    A convolution and a matrix product, forward and backward, decide. The flags of the CPU don't: what counts are the
    kernels that the installed libraries choose.

    Returns:
        The geometric mean of both ratios: about 0.7 with bfloat16 instructions, 12 or more without.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 32, 16, 16, generator=generator).to(memory_format=torch.channels_last)
    rows = torch.randn(256, 256, generator=generator)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        convolution = nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1).to(memory_format=torch.channels_last)
        return (_slowdown(convolution, images) * _slowdown(nn.Linear(256, 256), rows)) ** 0.5


def machine_class() -> str:
    """Describe the machine that a speed was measured on: threads, and how bfloat16 compares on the CPU."""
    pace = "fast" if bf16_slowdown() < 1 else "slow"
    threads = torch.get_num_threads()
    return f"CPU {pace} in bfloat16 (float32 x {bf16_slowdown():.2f}), threads: {threads}, torch {torch.__version__}"


def _slowdown(layer: nn.Module, x: Tensor) -> float:
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(4):  # the first of each prepares the kernels
        for bf16, times in seconds.items():
            started = time.perf_counter()
            _forward_and_backward(layer, x, bf16)
            times.append(time.perf_counter() - started)
    return min(seconds[True][1:]) / min(seconds[False][1:])


def _forward_and_backward(layer: nn.Module, x: Tensor, bf16: bool) -> None:
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = layer(x)
    (y[0] if isinstance(y, tuple) else y).float().square().sum().backward()


def _unfit_layer(network: nn.Module) -> str:
    """Return the kind of a layer that this CPU can't run in bfloat16; oneDNN has recurrent ones on some CPUs only."""
    for kind in (nn.GRU, nn.LSTM):
        if any(type(layer) is kind for layer in network.modules()) and not _runs_in_bf16(kind):
            return kind.__name__
    return ""


@functools.cache
def _runs_in_bf16(kind: type[nn.LSTM] | type[nn.GRU]) -> bool:
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        layer = kind(16, 16, batch_first=True)
        try:
            _forward_and_backward(layer, torch.zeros(2, 4, 16), bf16=True)
        except RuntimeError:  # "could not create a primitive descriptor"
            return False
    return True


@contextlib.contextmanager
def tensor_float32(allowed: bool) -> Iterator[None]:
    """Allow NVIDIA GPUs to round the factors of float32 products to 10 bits (TF32), or forbid it, in a block.

    It is several times faster, and good enough for training. By default torch allows it for convolutions only.
    """
    if not torch.cuda.is_available():
        yield
        return
    matrices, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matrices)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in real float32 in a block: without autocast and TF32."""
    with torch.autocast(device.type, enabled=False), tensor_float32(False):
        yield
