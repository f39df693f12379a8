"""What a user gets wrong: exit code 2, one message that says what, what was expected and what to do; nothing lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_aigc.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Runs without a run_dir go to ``runs/`` of a folder of the test's own, decoded images to a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def image_folder(root: Path, classes: int = 2, each: int = 10, size: int = 28) -> Path:
    """A folder of different grey images, in class folders if there are any classes."""
    level = 0
    for label in range(max(classes, 1)):
        folder = root / f"class{label}" if classes else root
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(each if classes else 3 * each):
            level += 5
            Image.new("L", (size, size), level).save(folder / f"{i}.png")
    return root


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content; locks, which are empty, left out."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def assert_refused(outcome, verb: str, *words: str) -> None:
    """Exit code 2, and one message with these words, without a traceback."""
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err + outcome.out
    assert outcome.err.count(f"lit_aigc.{verb}: ") == 1, outcome.err
    message = outcome.err.partition(f"lit_aigc.{verb}: ")[2]
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


IMAGES = ("data=image_folder", "data.image_size=28", "data.channels=1", "data.batch_size=4", "data.workers=0")


def test_a_misspelt_key(command, tiny):
    outcome = command("train", *tiny, "budget.minuts=1")
    assert_refused(outcome, "train", "'budget.minuts'", "did you mean 'minutes'?")
    assert not Path("runs").exists()


def test_an_unknown_experiment(command):
    assert_refused(command("train", "experiment=dcgan_mnist5"), "train", "dcgan_mnist5", "'dcgan_mnist5k'")
    assert not Path("runs").exists()


def test_a_missing_data_folder(command, tiny):
    outcome = command("train", *tiny, *IMAGES, "data.root=/no/such/folder")
    assert_refused(outcome, "train", "/no/such/folder", "does not exist", "Expected a folder or a .zip")
    assert not Path("runs").exists()


def test_no_data_folder_given(command, tiny):
    assert_refused(command("train", *tiny, *IMAGES), "train", "data.root=PATH")
    assert not Path("runs").exists()


def test_an_empty_data_folder(command, tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = command("train", *tiny, *IMAGES, f"data.root={tmp_path / 'empty'}")
    assert_refused(outcome, "train", "no images", str(tmp_path / "empty"), ".png")
    assert not Path("runs").exists()


def test_a_set_that_is_neither_there_nor_can_be_downloaded(command, tiny, tmp_path):
    outcome = command("train", *tiny, "data=mnist", f"data.root={tmp_path / 'none'}")
    assert_refused(outcome, "train", "mnist", "MNIST/raw/train-images-idx3-ubyte", "data.root=PATH")
    assert not Path("runs").exists()


def test_a_corrupt_image_is_named_and_refused_where_that_is_asked_for(command, tiny, tmp_path):
    root = image_folder(tmp_path / "images")
    (root / "class0" / "broken.png").write_bytes((root / "class0" / "0.png").read_bytes()[:40])
    outcome = command("train", *tiny, *IMAGES, f"data.root={root}", "data.source.corrupt=error")
    assert_refused(outcome, "train", "broken.png", "data.source.corrupt=skip")
    assert not Path("runs").exists()


def test_a_corrupt_image_is_left_out_with_a_warning_by_default(command, tiny, tmp_path):
    root = image_folder(tmp_path / "images")
    (root / "class0" / "broken.png").write_bytes((root / "class0" / "0.png").read_bytes()[:40])
    outcome = command("train", *tiny, *IMAGES, f"data.root={root}", "run_dir=run")
    assert outcome.code == 0, outcome.err
    assert (Path("run") / "bundle" / "manifest.json").exists()


def test_labels_missing_for_a_conditional_model(command, tiny, tmp_path):
    root = image_folder(tmp_path / "images", classes=0)
    outcome = command("train", *tiny, *IMAGES, f"data.root={root}")
    assert_refused(outcome, "train", "labels", "model.conditional=false", "class folders")
    assert not Path("runs").exists()
    assert command("train", *tiny, *IMAGES, f"data.root={root}", "model.conditional=false").code == 0


def test_too_few_images_to_train_on(command, tiny, tmp_path):
    root = image_folder(tmp_path / "three", classes=0, each=1)
    outcome = command("train", *tiny, *IMAGES, f"data.root={root}", "model.conditional=false")
    assert_refused(outcome, "train", "1 image to train on", "1 more in val, 1 in test", "10 or more")
    outcome = command("train", *tiny, "data.batch_size=100_000", "budget.samples=100")
    assert_refused(
        outcome, "train", "data.batch_size=100000", "4000 images to train on", "data.batch_size=4000 or less"
    )
    assert not Path("runs").exists()


def test_an_image_size_that_the_network_cannot_do(command, tiny):
    small = [argument for argument in tiny if not argument.startswith("model")]
    outcome = command("train", *small, "model=dcgan", "data.image_size=30")
    assert_refused(outcome, "train", "30x30", "28, 32 or 64", "data.image_size=32")
    assert not Path("runs").exists()


@pytest.mark.parametrize("size", ["0", "-8", "2.5", "many"])
def test_a_batch_size_that_is_no_positive_number(command, tiny, size):
    assert_refused(command("train", *tiny, f"data.batch_size={size}"), "train", "batch_size", size)
    assert not Path("runs").exists()


def test_a_batch_size_that_the_processes_cannot_share(command, tiny):
    outcome = command("train", *tiny, "trainer.devices=2", "data.batch_size=9")
    assert_refused(outcome, "train", "data.batch_size=9", "2 processes", "8 or 10")
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("choice", ["trainer.accelerator=gpu", "trainer.accelerator=abacus"])
def test_a_device_that_is_not_there(command, tiny, choice):
    assert_refused(command("train", *tiny, choice), "train", choice.partition("=")[2], "devices=1")
    assert not Path("runs").exists()


@pytest.mark.parametrize("devices", ["0", "two", "-3"])
def test_a_number_of_devices_that_is_none(command, tiny, devices):
    assert_refused(command("train", *tiny, f"trainer.devices={devices}"), "train", "devices", devices)
    assert not Path("runs").exists()


@pytest.mark.parametrize("device", ["cuda", "abacus"])
@pytest.mark.parametrize("verb", ["generate", "evaluate"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_after_training(command, tiny_run, verb, device):
    outcome = command(verb, f"bundle={tiny_run / 'bundle'}", f"device={device}", "out=there")
    assert_refused(outcome, verb, f"device={device}", "cpu")
    assert not Path("there").exists()


def test_a_checkpoint_of_another_model(command, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("latent_dim: 4", "latent_dim: 5"))
    before = snapshot(tmp_path / "run")
    outcome = command("train", f"resume={tmp_path / 'run'}", "budget.batches=6")
    assert_refused(outcome, "train", "another model", "generator.layers.0.weight", "(8, 8) there, (8, 10) here")
    assert snapshot(tmp_path / "run") == before


def test_truncated_checkpoints(command, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    for name in ("last.ckpt", "previous.ckpt"):
        file = tmp_path / "run" / "checkpoints" / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    before = snapshot(tmp_path / "run")
    outcome = command("train", f"resume={tmp_path / 'run'}", "budget.batches=6")
    assert_refused(outcome, "train", "last.ckpt", "previous.ckpt", "damaged", "Start a new run")
    assert snapshot(tmp_path / "run") == before


def test_a_bundle_with_a_changed_file(command, tiny_run, tmp_path):
    bundle = Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))
    (bundle / "config.yaml").write_text((bundle / "config.yaml").read_text() + "\n")
    outcome = command("generate", f"bundle={bundle}", "out=there")
    assert_refused(outcome, "generate", "config.yaml", "changed", "again")
    assert not Path("there").exists()


def test_a_folder_that_is_no_bundle(command, tiny_run):
    folder = tiny_run / "checkpoints"
    assert_refused(command("generate", f"bundle={folder}"), "generate", str(folder), "<run folder>/bundle")


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_no_bundle_given(command, verb):
    assert_refused(command(verb), verb, "bundle=", "missing", "--help")


def test_a_run_folder_that_is_in_use(command, tiny, tmp_path):
    holder = RunFolder(tmp_path / "run")
    holder.claim()
    try:
        outcome = command("train", *tiny, f"run_dir={tmp_path / 'run'}")
        assert_refused(outcome, "train", str(tmp_path / "run"), "in use", "run_dir=")
        assert snapshot(tmp_path / "run") == {}
    finally:
        holder.release()


def test_a_run_folder_in_use_is_not_resumed(command, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    before = snapshot(tmp_path / "run")
    holder = RunFolder(tmp_path / "run")
    holder.claim()
    try:
        assert_refused(command("train", f"resume={tmp_path / 'run'}", "budget.batches=6"), "train", "in use")
        assert snapshot(tmp_path / "run") == before
    finally:
        holder.release()


def test_a_run_folder_of_another_run(command, tiny, tiny_run):
    before = snapshot(tiny_run)
    outcome = command("train", *tiny, f"run_dir={tiny_run}")
    assert_refused(outcome, "train", str(tiny_run), "another run", f"resume={tiny_run}", "run_dir=")
    assert snapshot(tiny_run) == before


def test_a_run_folder_that_cannot_be_made(command, tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    outcome = command("train", *tiny, f"run_dir={tmp_path / 'file' / 'run'}")
    assert_refused(outcome, "train", str(tmp_path / "file"), "can't be written", "run_dir=")
    assert (tmp_path / "file").read_text() == "mine"


def test_resuming_what_is_no_run_folder(command, tmp_path):
    outcome = command("train", f"resume={tmp_path}")
    assert_refused(outcome, "train", f"resume={tmp_path}", "config.yaml")


@pytest.mark.parametrize(
    "argument",
    [
        "seed=zero", "log_every=0", "log_every=often", "validations=some", "validations=-1", "checkpoint_seconds=soon",
        "budget.batches=all", "budget.batches=0", "budget.minutes=-1", "budget=5", "pause_after.batches=few",
        "monitor_mode=least", "trust=5",
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind(command, tiny, argument):
    key, _, value = argument.partition("=")
    assert_refused(command("train", *tiny, argument), "train", key, value, "expected")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "argument",
    [
        "model.n_critic=two", "model.n_critic=0", "model.generator.latent_dim=wide", "model.generator.hidden=8",
        "model.recipe.ema_decay=1.5", "model.recipe.warmup=soon", "model.conditional=perhaps", "model.loss=hinges",
        "model.generator_optimizer.name=Adamm", "model.generator_optimizer.learning_rate=1",
        "model.generator_optimizer.lr=fast", "model.generator_optimizer.lr=-1", "model.recipe.schedule=cosin",
    ],
)  # fmt: skip
def test_a_model_option_of_the_wrong_kind(command, tiny, argument):
    key, _, value = argument.partition("=")
    assert_refused(command("train", *tiny, argument), "train", key.rpartition(".")[2] if "name" not in key else value)
    assert not Path("runs").exists()


@pytest.mark.parametrize("group", ["data", "model", "trainer"])
def test_a_part_that_every_run_needs_switched_off(command, group):
    assert_refused(command("train", f"{group}=null"), "train", f"{group}=", "mnist5k" if group == "data" else "")
    assert not Path("runs").exists()


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_a_part_that_no_run_needs_switched_off(command, tiny, group):
    arguments = [argument for argument in tiny if not argument.startswith(group)]
    outcome = command("train", *arguments, f"{group}=null", "run_dir=run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("argument", ["trainer.max_epochs=3", "trainer.max_steps=100"])
def test_a_trainer_option_that_training_sets_itself(command, tiny, argument):
    assert_refused(command("train", *tiny, f"{argument}"), "train", argument.partition("=")[0], "budget")
    assert not Path("runs").exists()


def test_no_budget(command, tiny):
    assert_refused(command("train", *tiny, "budget.batches=null"), "train", "budget.minutes", "budget.samples")
    assert not Path("runs").exists()


def test_missing_weights_of_an_extractor(command, tiny, tmp_path):
    """It shows only when training is about to start: the run folder goes again, so that the same command can follow."""
    arguments = [a for a in tiny if not a.startswith("callbacks.generative_metrics")]
    arguments += [f"callbacks.generative_metrics.weights_path={tmp_path / 'none.pth'}"]
    outcome = command("train", *arguments, "callbacks.generative_metrics.extractor=inception")
    assert_refused(outcome, "train", str(tmp_path / "none.pth"))
    assert not Path("runs").exists()


def test_what_was_in_the_folder_before_stays_when_training_cannot_start(command, tiny, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert command("train", *tiny, "model.n_critic=0", f"run_dir={tmp_path / 'mine'}").code == 2
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_out_folder_that_is_a_file(command, tiny_run):
    Path("taken").write_text("mine")
    outcome = command("generate", f"bundle={tiny_run / 'bundle'}", "n=1", "out=taken")
    assert_refused(outcome, "generate", "taken")
    assert Path("taken").read_text() == "mine"


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more bytes than this to one file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_full_disk_during_a_checkpoint(command, tiny_run, tmp_path, share):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    before = snapshot(run)
    size = (run / "checkpoints" / "last.ckpt").stat().st_size
    with files_of_at_most(int(size * share)):
        outcome = command("train", f"resume={run}", "budget.batches=8")
    assert_refused(outcome, "train", "last.ckpt", "can't be written", "are kept", f"resume={run}")
    after = snapshot(run)
    for name, content in before.items():
        if name.startswith(("checkpoints/", "bundle/")):
            assert after[name] == content, f"{name} was changed"
    assert not [name for name in after if "tmp" in name or "building" in name]
    assert json.loads(after["summary.json"])["status"] == "failed"
    assert command("train", f"resume={run}", "budget.batches=8").code == 0
    assert json.loads(snapshot(run)["summary.json"])["batches"] == 8


def test_a_full_disk_during_the_bundle(command, tiny_run, tmp_path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    before = snapshot(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_aigc.runs.bundle.save", no_space_left)
        outcome = command("train", f"resume={run}", "budget.batches=8")
    assert_refused(outcome, "train", "No space left", "resume=")
    after = snapshot(run)
    assert {k: v for k, v in after.items() if "bundle" in k} == {k: v for k, v in before.items() if "bundle" in k}
    assert command("train", f"resume={run}").code == 0
    assert snapshot(run)["bundle/model.safetensors"] != before["bundle/model.safetensors"]


def no_space_left(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")


def test_a_full_disk_during_metrics(command, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_aigc.loggers.csv.CsvLogger.log_metrics", no_space_left)
    assert_refused(command("train", *tiny, f"run_dir={tmp_path / 'run'}"), "train", "No space left", "resume=")


def test_a_full_disk_during_generation(command, tiny_run):
    with files_of_at_most(400):
        outcome = command("generate", f"bundle={tiny_run / 'bundle'}", "n=2", "out=there")
    assert_refused(outcome, "generate", "can't write", "000000.png")
    assert snapshot(Path("there")) == {}


def test_a_process_of_its_own_leaves_with_2_and_one_line(tiny):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "lit_aigc.train", "experiment=dcgan_mnist5"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lit_aigc.train: experiment=dcgan_mnist5 is unknown")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
