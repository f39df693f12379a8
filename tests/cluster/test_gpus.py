"""Two GPUs train as one does on the joined batch. Written without any at hand: never run so far."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cluster.runs import checkpoint, train
from tests.reliability.runs import arguments

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

FP32 = ("trainer.accelerator=gpu", "trainer.precision=32-true", "budget.batches=3")
GPT = (
    "model.network.dropout=0",
    "model.matrix_optimizer=null",
    "model.optimizer={name: SGD, lr: 0.1, betas: null, fused: false}",
)
GANS = {
    "dcgan": ("model=dcgan", "model.generator.channels=8", "model.discriminator.channels=8"),
    "sngan": ("model=sngan", "model.generator.channels=4", "model.discriminator.channels=4"),  # conditional BatchNorm
}
STEPS = [
    f"model.{network}_optimizer={{name: SGD, lr: 0.01, betas: null}}" for network in ("generator", "discriminator")
]


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # TF32 would round more than the processes do


def weights(folder: Path, name: str, *words: str) -> dict[str, torch.Tensor]:
    """What a training ends with."""
    train(folder, *words, f"run_dir={folder}/{name}")
    return checkpoint(folder / name)["state_dict"]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((tensor.float() - other[name].float()).abs().max()) for name, tensor in one.items())


@pytest.mark.parametrize("trainer", ["cluster", "fsdp"])
def test_a_transformer(tmp_path, trainer):
    """By NCCL; the validation and a checkpoint in the middle included."""
    words = [*arguments("gpt", tmp_path), *GPT, *FP32]
    one = weights(tmp_path, "one", *words, "trainer=gpu", "trainer.devices=1")
    two = weights(tmp_path, "two", *words, f"trainer={trainer}", "trainer.devices=2")
    assert largest_difference(one, two) < 1e-5


@pytest.mark.parametrize("family", GANS)
def test_sync_batchnorm_sees_the_joined_batch(tmp_path, family):
    """Weights and running statistics; and each process alone with its half would be something else."""
    words = [*arguments("gan", tmp_path), *GANS[family], *STEPS, *FP32, "trainer=gpu", "model.recipe.ema_decay=0"]
    one = weights(tmp_path, "one", *words, "trainer.devices=1")
    two = weights(tmp_path, "two", *words, "trainer.devices=2", "trainer.sync_batchnorm=true")
    apart = weights(tmp_path, "apart", *words, "trainer.devices=2", "trainer.sync_batchnorm=false")
    assert largest_difference(one, two) < 1e-4
    assert largest_difference(one, apart) > 1e-3
