"""FSDP is the training that DDP is, each process with a part of it: on two processes of CPUs, and on two GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.networks.encoder_decoder import EncoderDecoder
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.train.run import train as train_here
from lit_aigc.train.sharding import with_parameters
from tests.cluster.runs import checkpoint, environment, train
from tests.equality import assert_equal
from tests.reliability.runs import arguments

FSDP = "trainer.strategy={_target_: lit_aigc.train.sharding.Sharded}"
GPT = ("data=pydocs", "model=gpt")
WITNESS = "callbacks.witness={_target_: witness.Witness}"
SAMPLES = (
    "callbacks.text_samples={_target_: lit_aigc.callbacks.text_samples.TextSamples, n: 2, max_tokens: 12, originals: 2}"
)
CONFIGS = {
    "gpt": (
        *("model.network.layers=2", "model.network.heads=2", "model.recipe.ema_decay=0.9", "model.recipe.ema_every=2"),
        *("model.recipe.clip_norm=0.5", "model.recipe.accumulate=2", "monitor=nats_per_token", SAMPLES),
    ),
    "seq2seq": ("model.matrix_optimizer=null", "monitor=nats_per_token", SAMPLES),  # its output is its embedding
}


def close(one: object, other: object, path: str) -> None:
    """To rounding."""
    if isinstance(one, torch.Tensor):
        assert type(one) is type(other)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5, msg=lambda text: f"{path}: {text}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5, rel=1e-5), path
    else:
        assert one == other, path


def assert_same_end(one: Path, other: Path) -> None:
    """Weights, states of the optimizers, averages, counters and results, to rounding."""
    for key in ("state_dict", "optimizer_states", "lit_aigc"):
        assert_equal(checkpoint(one)[key], checkpoint(other)[key], key, close)


@pytest.fixture(scope="module")
def by_ddp(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[list[str], Path]]:
    """``by_ddp(family)``: the command line of a training on two processes, and its run folder under DDP."""
    runs: dict[str, tuple[list[str], Path]] = {}

    def run(family: str) -> tuple[list[str], Path]:
        if family not in runs:
            folder = tmp_path_factory.mktemp(family)
            command = [*arguments(family, folder), *CONFIGS[family], "budget.batches=6", "trainer.devices=2"]
            train(folder, *command, WITNESS, f"run_dir={folder}/run")
            runs[family] = command, folder / "run"
        return runs[family]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["gpt", *(pytest.param(name, marks=pytest.mark.long) for name in CONFIGS if name != "gpt")]
)
def test_two_processes_equal_two_of_ddp(by_ddp, tmp_path, family):
    """With averaged weights, Muon, clipping, accumulation, dropout, validation and samples of the first process."""
    command, wanted = by_ddp(family)
    run = tmp_path / "run"
    train(tmp_path, *command, "trainer=fsdp", WITNESS, f"run_dir={run}")
    assert_same_end(wanted, run)
    assert (run / "checkpoints/best.ckpt").exists()
    texts = sorted((wanted / "samples").iterdir())
    assert len(texts) == 2 and all((run / "samples" / t.name).read_text() == t.read_text() for t in texts)

    bundles = [load_bundle(folder / "bundle").module for folder in (wanted, run)]
    assert_equal(*(dict(module.state_dict()) for module in bundles), same=close)
    if family == "seq2seq":
        assert bundles[1].network.head.weight is bundles[1].network.embedding.weight

    whole, *parts = (json.loads((path / f"held-{rank}.json").read_text()) for path, rank in
                     ((wanted, 0), (run, 0), (run, 1)))  # fmt: skip
    assert all(part["whole"] == whole["whole"] == whole["weights"] for part in parts)
    for what in ("weights", "states", "average"):
        assert whole[what] > 0 and sum(part[what] for part in parts) == pytest.approx(whole[what], rel=0.01), what
        assert all(part[what] < 0.6 * whole[what] for part in parts), what


@pytest.mark.long
@pytest.mark.slow
def test_a_run_goes_on_under_either_strategy(by_ddp, tmp_path):
    """Two batches in parts, two under DDP, the rest in parts again: the checkpoints are ordinary ones."""
    command, wanted = by_ddp("gpt")
    run = f"{tmp_path}/run"
    for start, code in (
        ([*command, FSDP, f"run_dir={run}", "pause_after.batches=2"], 75),
        ([f"resume={run}", "trainer.strategy=auto", "pause_after.batches=2"], 75),
        ([f"resume={run}", FSDP], 0),
    ):
        words = [sys.executable, "-m", "lit_aigc.train", *start]
        assert subprocess.run(words, env=environment(), cwd=tmp_path, timeout=600, check=False).returncode == code
    assert_same_end(wanted, tmp_path / "run")


@pytest.mark.long
@pytest.mark.slow
def test_gradients_sent_as_bf16_differ_by_rounding_only(by_ddp, tmp_path):
    """And not by nothing: the setting has arrived. Momentum is what one batch's gradient has left."""
    command, _ = by_ddp("gpt")
    ends = []
    for gradients in ("fp32", "bf16"):
        run = tmp_path / gradients
        train(
            tmp_path, *command, "budget.batches=1", FSDP.replace("}", f", gradients: {gradients}}}"), f"run_dir={run}"
        )
        ends.append(checkpoint(run)["optimizer_states"][0]["state"][0]["exp_avg"])
    assert 0 < (ends[0] - ends[1]).abs().max() < 0.01 * ends[0].abs().max()


def test_a_bias_starts_from_the_frequencies_of_the_tokens(tmp_path):
    """It is whole then; one process is enough to have it in parts later."""
    more = [
        "model.start_from_frequencies=true",
        "model.network.head_bias=true",
        "model.optimizer.lr=0",
        "validations=0",
    ]
    command = [*arguments("gpt", tmp_path), *more, "model.matrix_optimizer=null", "budget.batches=1"]
    whole = train_here(load("train", [*command, f"run_dir={tmp_path}/whole"]))
    try:
        parts = train_here(load("train", [*command, FSDP, f"run_dir={tmp_path}/parts"]))
    finally:
        torch.distributed.destroy_process_group()
    assert whole.module.network.head.bias.any()
    assert_equal(*(dict(run.module.state_dict()) for run in (whole, parts)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model=dcgan"], "trainer=fsdp splits transformers .*: take trainer=cluster"),
        (["data=pydocs", "model=lstm"], "trainer=fsdp splits transformers .*: take trainer=cluster"),
        ([*GPT, "model.optimizer={name: Adafactor, betas: null}"], "can't split optimizer Adafactor: take AdamW"),
        ([*GPT, "model.optimizer={name: SGD, betas: null}"], "a fused SGD: set model.optimizer.fused=false"),
        ([*GPT, f"{FSDP[:-1]}, gradients: fp8}}"], "gradients=fp8: expected fp32 or bf16"),
        ([*GPT, f"{FSDP[:-1]}, minutes: 0}}"], "minutes=0: expected .*above 0"),
    ],
)
def test_what_cannot_be_split_is_refused_before_training(tiny, tmp_path, more, message):
    kept = [a for a in tiny if not a.startswith(("data", "model", "callbacks"))]
    strategy = [] if more[-1].startswith("trainer.strategy") else [FSDP]
    config = load("train", [*kept, "experiment=null", "callbacks=null", *more, *strategy, f"run_dir={tmp_path}/run"])
    with pytest.raises(InputError, match=message):
        train_here(config)
    assert not (tmp_path / "run").exists()


def test_a_copy_with_other_parameters_is_tied_as_the_original_is():
    network = EncoderDecoder(20, width=8, encoder_layers=1, decoder_layers=1, heads=2)
    network.register_buffer("seen", torch.ones(3))
    empty = with_parameters(network, lambda _, weight: weight.to("meta"))
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    own = dict(network.named_parameters())
    other = with_parameters(empty, lambda name, _: 2 * own[name].detach())
    assert other.head.weight is other.embedding.weight and other.seen is network.seen
    assert other.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, 2 * own[name]) for name, tensor in other.named_parameters())
    assert network.head.weight is own["embedding.weight"] and isinstance(network.head.weight, nn.Parameter)
