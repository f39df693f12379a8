"""Training as a whole: counting, resuming, surviving, several processes."""

import contextlib
import csv
import json
import logging
import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from lit_aigc.build import build, resolve
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.loggers.csv import read_metrics
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.runs.checkpoint import latest_checkpoint
from lit_aigc.spec import DataSpec
from lit_aigc.train.failures import TrainingFailed
from lit_aigc.train.run import run, train
from tests import processes
from tests.equality import assert_equal

ROOT = Path(__file__).parents[2]
SMALL_DCGAN = [
    "model=dcgan",
    "model.generator.channels=4",
    "model.generator.latent_dim=8",
    "model.discriminator.channels=4",
]


@pytest.fixture
def small(tiny):
    """Arguments of a short training of a real DCGAN, BatchNorm and all."""
    return [a for a in tiny if not a.startswith("model")] + SMALL_DCGAN


def start(arguments, *more):
    return train(load("train", [*arguments, *more]))


def checkpoint(folder, name="last.ckpt"):
    return torch.load(Path(folder) / "checkpoints" / name, weights_only=True)


def time_of_writing(path):
    """In nanoseconds; None for a file that isn't there at the moment."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns


def logged(folder):
    """The columns and rows of metrics.csv as text, without the clock."""
    with (Path(folder) / "metrics.csv").open() as file:
        reader = csv.reader(file)
        columns = next(reader)
        kept = [i for i, column in enumerate(columns) if column != "train_seconds"]
        return [[row[i] for i in kept] for row in [columns, *reader]]


@pytest.mark.parametrize(("n_critic", "updates"), [(1, 10), (5, 2)])
def test_all_counters_count_batches(small, tmp_path, n_critic, updates):
    finished = start(
        small,
        f"run_dir={tmp_path}/run",
        f"model.n_critic={n_critic}",
        "budget.batches=10",
        "validations=2",
        "log_every=5",
    )
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["batches"], summary["samples_seen"], summary["generator_updates"]) == (10, 80, updates)
    assert finished.module.ema.updates == updates
    assert finished.module.validations == 2
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))
    assert [int(row["samples_seen"]) for row in rows] == [40, 80]
    first, second = (float(row["train_seconds"]) for row in rows)
    assert 0 < first < second <= summary["train_seconds"]
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt"}


@pytest.mark.parametrize("more", [["model.n_critic=1"], ["model.n_critic=3"], ["model.recipe.accumulate=2"]])
def test_ten_batches_equal_five_and_five(small, tmp_path, more, capsys):
    """Weights, optimizers, averages, counters and logged values, to the bit; log windows and epochs cross the pause."""
    more = [*more, "budget.batches=10", "log_every=3", "model.recipe.schedule=cosine", "data.augment=[random_shift]"]
    start(small, f"run_dir={tmp_path}/whole", *more)
    first = start(small, f"run_dir={tmp_path}/parts", *more, "pause_after.batches=5")
    assert first.exit_code == 75
    assert f"resume with  python -m lit_aigc.train resume={tmp_path}/parts" in capsys.readouterr().out
    assert first.summary["status"] == "paused"
    second = train(load("train", [f"resume={tmp_path}/parts"]))
    assert second.exit_code == 0
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    for key in ("state_dict", "optimizer_states", "lit_aigc", "callbacks"):
        assert_equal(whole[key], parts[key], key)
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_resuming_may_extend_the_budget_but_not_change_the_model(small, tmp_path):
    start(small, f"run_dir={tmp_path}/run", "budget.batches=4")
    longer = train(load("train", [f"resume={tmp_path}/run", "budget.batches=6"]))
    assert longer.module.batches == 6
    with pytest.raises(Exception, match="can't change when a run is resumed"):
        load("train", [f"resume={tmp_path}/run", "model.n_critic=2"])


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_budget_that_is_used_up_is_refused_and_nothing_changes(tiny, tmp_path):
    run = tmp_path / "run"
    start(tiny, f"run_dir={run}", "pause_after.batches=2")
    before = contents(run)
    for argument, message in (
        ("budget.batches=1", "budget.batches=1: the run has trained on 2 batches already"),
        ("budget.samples=15", "budget.samples=15: the run has seen 16 samples already"),
    ):
        with pytest.raises(InputError, match=f"{message}.*\nNothing was changed"):
            train(load("train", [f"resume={run}", argument]))
    assert contents(run) == before
    assert train(load("train", [f"resume={run}", "budget.batches=2"])).summary["status"] == "done"  # it ends here

    before = contents(run)
    for argument in ("budget.samples=8", "budget.minutes=10"):  # with 2 batches, which are used up
        with pytest.raises(InputError, match=r"budget\.batches=2: the run has trained on 2 batches already"):
            train(load("train", [f"resume={run}", argument]))
    assert contents(run) == before


def test_a_learning_rate_that_a_new_budget_moves_is_told(tiny, tmp_path, caplog):
    schedule = [
        "model.recipe.schedule=linear",
        "model.discriminator_optimizer.lr=0.5",
        "model.generator_optimizer.lr=0.1",
    ]
    start(tiny, f"run_dir={tmp_path}/run", *schedule)
    train(load("train", [f"resume={tmp_path}/run"]))
    assert "learning rate" not in caplog.text
    longer = train(load("train", [f"resume={tmp_path}/run", "budget.batches=5"]))
    (line,) = (line for line in caplog.messages if "learning rate" in line)
    assert "it was 0 and resumes at 0.02 and 0.1, where the linear schedule is after 80% of the new" in line
    assert [group["lr"] for optimizer in longer.trainer.optimizers for group in optimizer.param_groups] == [
        pytest.approx(0.1), pytest.approx(0.02),
    ]  # fmt: skip


def test_a_run_that_is_done_stays_as_it_is(small, tmp_path):
    start(small, f"run_dir={tmp_path}/run", "budget.batches=4")
    before = checkpoint(tmp_path / "run")["state_dict"]
    again = train(load("train", [f"resume={tmp_path}/run"]))
    assert (again.exit_code, again.module.batches) == (0, 4)
    assert_equal(before, checkpoint(tmp_path / "run")["state_dict"])


def test_wall_seconds_are_of_all_starts_and_never_fewer_than_train_seconds(tiny, tmp_path):
    """The first start took 50 s before it called `train`, the second 7."""
    began = time.monotonic()
    first = train(load("train", [*tiny, f"run_dir={tmp_path}/run", "pause_after.batches=2"]), started=began - 50)
    assert 50 <= first.startup_seconds <= first.summary["wall_seconds"] + 1e-3
    again = time.monotonic()
    second = train(load("train", [f"resume={tmp_path}/run"]), started=again - 7).summary
    assert 57 <= second["wall_seconds"] <= 57 + time.monotonic() - began
    assert second["train_seconds"] <= second["wall_seconds"]

    old = checkpoint(tmp_path / "run")  # one that doesn't hold the time of earlier starts
    old["callbacks"].pop("Clock")
    old["lit_aigc"]["counters"]["train_seconds"] = 1000.0
    torch.save(old, tmp_path / "run/checkpoints/last.ckpt")
    third = train(load("train", [f"resume={tmp_path}/run", "budget.batches=6"])).summary
    assert 1000 < third["train_seconds"] <= third["wall_seconds"]


def test_accumulation_equals_the_whole_batch(tiny, tmp_path):
    """Without BatchNorm, to rounding."""
    for parts in (1, 2, 4):
        start(tiny, f"run_dir={tmp_path}/{parts}", f"model.recipe.accumulate={parts}", "budget.batches=6")
    one = checkpoint(tmp_path / "1")["state_dict"]
    for parts in (2, 4):
        for name, tensor in checkpoint(tmp_path / str(parts))["state_dict"].items():
            torch.testing.assert_close(tensor, one[name], atol=1e-5, rtol=1e-5)


def test_the_learning_rate_follows_the_schedule_and_is_logged(tiny, tmp_path):
    config = load("train", [*tiny, f"run_dir={tmp_path}/run", "budget.batches=4", "log_every=1"])
    config["model"]["recipe"] = {"schedule": "linear", "warmup": 0.5, "final": 0.0}
    config["model"]["generator_optimizer"] = {"name": "Adam", "lr": 0.2}
    config["model"]["discriminator_optimizer"] = {"name": "SGD", "lr": 0.1}
    finished = train(config)
    curves = read_metrics(tmp_path / "run/metrics.csv")
    assert curves["train/d_lr"][1] == pytest.approx([0.0, 0.05, 0.1, 0.05])
    assert curves["train/g_lr"][1] == pytest.approx([0.0, 0.1, 0.2, 0.1])
    used = [group["lr"] for optimizer in finished.trainer.optimizers for group in optimizer.param_groups]
    assert used == [curves["train/d_lr"][1][-1], curves["train/g_lr"][1][-1]]


def test_a_window_that_the_end_cuts_short_is_logged(tiny, tmp_path):
    """And a run that is extended from there logs the same whole windows as one that was that long from the start."""
    start(tiny, f"run_dir={tmp_path}/short", "budget.batches=3", "log_every=5")
    start(tiny, f"run_dir={tmp_path}/each", "budget.batches=7", "log_every=1")
    start(tiny, f"run_dir={tmp_path}/long", "budget.batches=7", "log_every=5")
    names = ("train/d_loss", "train/g_loss")
    each, short, long = (
        {n: read_metrics(tmp_path / run / "metrics.csv")[n] for n in names} for run in ("each", "short", "long")
    )
    for name in names:
        losses = each[name][1]
        assert short[name][0] == [24]
        assert short[name][1] == pytest.approx([sum(losses[:3]) / 3])
        assert long[name][0] == [40, 56]
        assert long[name][1] == pytest.approx([sum(losses[:5]) / 5, sum(losses[5:]) / 2])
    train(load("train", [f"resume={tmp_path}/short", "budget.batches=7"]))
    extended = read_metrics(tmp_path / "short/metrics.csv")["train/d_loss"]
    assert extended == ([24, 40, 56], [short["train/d_loss"][1][0], *long["train/d_loss"][1]])


def test_clipping_bounds_the_step(tiny, tmp_path):
    """SGD with rate 1 moves each network by at most the clipped norm."""
    options = ["generator_optimizer", "discriminator_optimizer"]
    config = load("train", [*tiny, f"run_dir={tmp_path}/run", "budget.batches=1"])
    config["model"] |= {name: {"name": "SGD", "lr": 1.0} for name in options}
    config["model"]["recipe"] = {"clip_norm": 1e-3}
    finished = train(config)
    torch.manual_seed(config["seed"])
    fresh = build(resolve(config["model"], finished.datamodule.spec), finished.datamodule.spec)
    for name in ("generator", "discriminator"):
        moved = [
            a - b
            for a, b in zip(getattr(finished.module, name).parameters(), getattr(fresh, name).parameters(), strict=True)
        ]
        norm = torch.cat([m.flatten() for m in moved]).norm().item()
        assert norm == pytest.approx(1e-3, rel=1e-2)


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, tmp_path, capsys):
    arguments = [*tiny, f"run_dir={tmp_path}/run", "budget.batches=40", "checkpoint_seconds=0", "log_every=1"]
    config = load("train", arguments)
    config["model"]["generator_optimizer"] = {"name": "SGD", "lr": 1e30}
    assert run(config) == 1
    message = capsys.readouterr().err
    assert "diverged" in message
    assert "last good checkpoint is kept" in message
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "failed"
    kept = checkpoint(tmp_path / "run") if (tmp_path / "run/checkpoints/last.ckpt").exists() else {"state_dict": {}}
    assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


def test_bf16_trains_and_differs_from_fp32_only_by_rounding(small, tmp_path):
    runs = [
        start(small, f"run_dir={tmp_path}/{p}", f"trainer.precision={p}", "budget.batches=2")
        for p in ("32-true", "bf16-mixed")
    ]
    full, half = (run.module.generator.project.weight for run in runs)
    assert full.dtype == half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 5e-3


def test_the_bundle_holds_the_averaged_weights(tiny, tmp_path):
    finished = start(tiny, f"run_dir={tmp_path}/run", "model.generator_optimizer.lr=0.01", "budget.batches=20")
    bundle = load_bundle(tmp_path / "run/bundle").module
    with finished.module.averaged():
        averaged = finished.module.sample(3, noise=Noise(0))
    assert torch.equal(bundle.sample(3, noise=Noise(0)), averaged)
    assert not torch.equal(finished.module.sample(3, noise=Noise(0)), averaged)


def test_init_from_starts_at_the_weights_of_a_bundle(tiny, tmp_path):
    start(tiny, f"run_dir={tmp_path}/first")
    config = load("train", [*tiny, f"run_dir={tmp_path}/second", f"init_from={tmp_path}/first/bundle"])
    config["model"] |= {name: {"name": "SGD", "lr": 0.0} for name in ("generator_optimizer", "discriminator_optimizer")}
    second = train(config)
    assert_equal(load_bundle(tmp_path / "first/bundle").module.state_dict(), second.module.state_dict())


def test_early_stopping_on_a_monitor_ends_the_run_as_done(tiny, tmp_path):
    stopper = "lightning.pytorch.callbacks.EarlyStopping, monitor: is_mnist_classifier, mode: max"
    finished = start(
        tiny,
        f"run_dir={tmp_path}/run",
        "callbacks.generative_metrics={_target_: lit_aigc.callbacks.generative_metrics.GenerativeMetrics,"
        " extractor: mnist_classifier, num_samples: 64, metrics: [is]}",
        f"callbacks.early_stopping={{_target_: {stopper}, min_delta: 100, patience: 1}}",
        "budget.batches=40",
        "validations=20",
    )
    assert finished.module.batches == 4  # the first validation sets the mark, the second doesn't beat it
    assert finished.summary["status"] == "done"
    assert (tmp_path / "run/bundle/manifest.json").exists()


def test_checkpoints_hold_the_model_and_nothing_of_the_metrics(tiny, tmp_path):
    finished = start(
        tiny,
        f"run_dir={tmp_path}/run",
        "callbacks.generative_metrics={_target_: lit_aigc.callbacks.generative_metrics.GenerativeMetrics,"
        " extractor: mnist_classifier, num_samples: 64, metrics: [is]}",
    )
    saved = checkpoint(tmp_path / "run")
    names = saved["state_dict"]
    rebuilt = build(saved["lit_aigc"]["model"], DataSpec.from_dict(saved["lit_aigc"]["spec"]))
    rebuilt.load_state_dict(names)
    assert torch.equal(rebuilt.sample(3, noise=Noise(0)), finished.module.sample(3, noise=Noise(0)))
    assert {name.split(".")[0] for name in names} == {"generator", "discriminator"}
    assert finished.summary["is_mnist_classifier"] == finished.module.results["is_mnist_classifier"]


def test_fp16_without_a_gpu_is_refused_before_training(tiny, tmp_path):
    with pytest.raises(InputError, match="needs a GPU"):
        start(tiny, f"run_dir={tmp_path}/run", "trainer.precision=16-mixed")
    assert not (tmp_path / "run/config.yaml").exists()


def command(*arguments):
    return [sys.executable, "-m", "lit_aigc.train", *arguments]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def wait_for(process, happened):
    """Until something has happened, or the process has ended."""
    while process.is_alive() and not happened():
        process.join(0.02)


@pytest.mark.slow
def test_kill_9_leaves_a_checkpoint_that_goes_on(small, tmp_path):
    """Killed at random moments, a checkpoint after each batch: what is there loads, and the end is the same."""
    more = ["budget.batches=60", "checkpoint_seconds=0"]
    start(small, f"run_dir={tmp_path}/whole", *more)
    chance = random.Random(0)
    arguments = [*small, f"run_dir={tmp_path}/killed", *more]
    last, last_batches = tmp_path / "killed/checkpoints/last.ckpt", 0
    for _ in range(6):
        process = processes.start_training(*arguments)
        seen = time_of_writing(last)
        wait_for(process, lambda seen=seen: time_of_writing(last) not in (None, seen))
        process.join(chance.random() * 0.3)
        process.kill()
        if processes.end(process) == [0]:
            break
        batches = latest_checkpoint(tmp_path / "killed")[1]["lit_aigc"]["counters"]["batches"]
        assert batches >= last_batches
        last_batches = batches
        arguments = [f"resume={tmp_path}/killed"]
    start([f"resume={tmp_path}/killed"])
    assert last_batches > 0
    assert_equal(checkpoint(tmp_path / "whole")["state_dict"], checkpoint(tmp_path / "killed")["state_dict"])


def test_sigterm_pauses_at_a_batch_boundary(small, tmp_path):
    """Exit code 75, a checkpoint, and the same end as without the signal."""
    more = ["budget.batches=2000", "checkpoint_seconds=0"]
    process = processes.start_training(*small, f"run_dir={tmp_path}/run", *more)
    wait_for(process, (tmp_path / "run/checkpoints/last.ckpt").exists)
    process.terminate()
    assert processes.end(process) == [75]
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "paused"
    batches = checkpoint(tmp_path / "run")["lit_aigc"]["counters"]["batches"]
    assert 0 < batches < 2000
    end = f"pause_after.batches={batches}"
    assert start(small, f"run_dir={tmp_path}/whole", "budget.batches=2000", end).exit_code == 75
    assert_equal(checkpoint(tmp_path / "whole")["state_dict"], checkpoint(tmp_path / "run")["state_dict"])


def test_two_processes_equal_one_on_the_joined_batch(tiny, tmp_path, monkeypatch):
    """Weights to 1e-5 (a network without BatchNorm), samples and FID the same; the command line is unchanged."""
    metrics = [
        "callbacks.generative_metrics={_target_: lit_aigc.callbacks.generative_metrics.GenerativeMetrics,"
        " extractor: mnist_classifier, reference: shipped, num_samples: 300, metrics: [fid, kid, is], every: 2}",
        "monitor=fid_mnist_classifier",
        "validations=3",
        "budget.batches=6",
        "model.n_critic=2",
    ]
    arguments = [*tiny, *metrics]
    assert start(arguments, f"run_dir={tmp_path}/1").exit_code == 0
    monkeypatch.chdir(tmp_path)
    words = command(*arguments, f"run_dir={tmp_path}/2", "trainer.devices=2")
    subprocess.run(words, env=environment(), check=True, timeout=300)
    one, two = checkpoint(tmp_path / "1"), checkpoint(tmp_path / "2")
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], tensor, atol=1e-5, rtol=1e-5)
    assert one["lit_aigc"]["counters"]["samples_seen"] == two["lit_aigc"]["counters"]["samples_seen"] == 48
    first, second = (json.loads((tmp_path / d / "summary.json").read_text()) for d in ("1", "2"))
    for key in ("fid_mnist_classifier", "kid_mnist_classifier", "is_mnist_classifier"):
        assert second[key] == pytest.approx(first[key], rel=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}  # no stray folders
    assert (tmp_path / "2/checkpoints/best.ckpt").exists()


def test_known_noise_of_several_processes_is_not_shown(monkeypatch):
    def noisy(*_: object, **__: object) -> None:
        warnings.warn("torch.distributed.nn.functional.all_gather is deprecated, use another.", FutureWarning, 2)
        warnings.warn("something new", FutureWarning, stacklevel=2)
        raise TrainingFailed("enough")

    monkeypatch.setattr("lit_aigc.train.run._open_folder", noisy)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert run({}) == 1
    assert [str(warning.message) for warning in seen] == ["something new"]
    assert not logging.getLogger("lightning.fabric.utilities.distributed").isEnabledFor(logging.INFO)


@pytest.mark.slow
def test_a_multirun_on_two_processes_makes_two_run_folders(tiny, tmp_path):
    arguments = [*tiny, "-m", "seed=1,2", "trainer.devices=2"]
    subprocess.run(command(*arguments), env=environment(), cwd=tmp_path, check=True, timeout=600)
    runs = list((tmp_path / "runs").rglob("summary.json"))
    assert len(runs) == 2
    assert sorted(json.loads(path.read_text())["seed"] for path in runs) == [1, 2]
    assert all(json.loads(path.read_text())["status"] == "done" for path in runs)


def test_a_disk_that_stays_full_costs_no_checkpoint(tiny, tmp_path, monkeypatch):
    """Even the summary can't be written any more: what was saved before is kept all the same."""
    from lit_aigc.runs import folder as run_folder
    from lit_aigc.runs.checkpoint import AtomicCheckpointIO

    write, saved = AtomicCheckpointIO.save_checkpoint, []

    def fills_up(self, *arguments, **options):
        if len(saved) == 2:
            monkeypatch.setattr(run_folder, "write_atomically", full)
            raise InputError("The checkpoint can't be written (disk full).")
        saved.append(write(self, *arguments, **options))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", fills_up)
    with pytest.raises(InputError, match="disk full"):
        start(tiny, f"run_dir={tmp_path}/run", "checkpoint_seconds=0", "validations=0")
    assert checkpoint(tmp_path / "run")["lit_aigc"]["counters"]["batches"] == 2
