"""Checkpoint files: whole or not there, plain data or refused."""

from __future__ import annotations

import builtins
import errno
import io
import os
import pickle
import pickletools
import shutil
import stat
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.modules.checkpoint import check_fits, read_checkpoint, state_differences
from lit_aigc.runs.checkpoint import AtomicCheckpointIO, latest_checkpoint
from lit_aigc.train.run import train


def content(value: float = 1.0, size: int = 10) -> dict:
    return {"state_dict": {"weight": torch.full((size,), value)}, "lit_aigc": {"counters": {"batches": 3}}}


def write(path: Path, value: float = 1.0, size: int = 10) -> None:
    AtomicCheckpointIO().save_checkpoint(content(value, size), path)


def value_in(path: Path) -> float:
    return float(read_checkpoint(path)["state_dict"]["weight"][0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Shell:
    """Unpickles to a call of the shell."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


# -- writing


def test_the_last_but_one_stays(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    for value in (1.0, 2.0, 3.0):
        write(folder / "last.ckpt", value)
    write(folder / "best.ckpt", 7.0)
    assert names(folder) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert [value_in(folder / f"{name}.ckpt") for name in ("best", "last", "previous")] == [7.0, 3.0, 2.0]


class FullDisk(io.RawIOBase):
    """A file that takes only so many bytes."""

    def __init__(self, path: Path, room: int):
        super().__init__()
        self.file, self.room = open(path, "wb"), room  # noqa: SIM115

    def writable(self):
        return True

    def write(self, data):
        if self.file.tell() + len(data) > self.room:
            self.file.write(bytes(data)[: self.room - self.file.tell()])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def fileno(self):
        return self.file.fileno()

    def close(self):
        self.file.close()
        super().close()


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("room", [0, 100, 20_000, 40_000])
def test_a_disk_that_fills_up_half_way_leaves_the_older_files(tmp_path, monkeypatch, room, name):
    folder = tmp_path / "run" / "checkpoints"
    for file in ("last.ckpt", "last.ckpt", "best.ckpt"):
        write(folder / file, 1.0, 10_000)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    original = Path.open

    def open_full(self, mode="r", *args, **kwargs):
        return FullDisk(self, room) if "w" in mode else original(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(InputError) as error:
            write(folder / name, 2.0, 10_000)
    message = str(error.value)
    for part in (str(folder / name), "can't be written", "No space left", "are kept", f"resume={tmp_path / 'run'}"):
        assert part in message
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write(folder / name, 2.0, 10_000)
    assert value_in(folder / name) == 2.0


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_at_the_last_moment_leaves_the_older_files(tmp_path, monkeypatch, step):
    folder = tmp_path / "run" / "checkpoints"
    for value in (1.0, 2.0):
        write(folder / "last.ckpt", value)

    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"lit_aigc.runs.checkpoint.os.{step}", fail)
        with pytest.raises(InputError, match="Input/output error"):
            write(folder / "last.ckpt", 3.0)
    assert names(folder) == ["last.ckpt", "previous.ckpt"]
    assert value_in(folder / "last.ckpt") == 2.0


def test_the_folder_is_synced_after_the_last_rename(tmp_path, monkeypatch):
    """Else a power cut could take the names back."""
    steps, fsync, replace = [], os.fsync, os.replace

    def sync(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr("lit_aigc.runs.checkpoint.os.fsync", sync)
    monkeypatch.setattr("lit_aigc.runs.checkpoint.os.replace", lambda *paths: steps.append("rename") or replace(*paths))
    for value in (1.0, 2.0):
        write(tmp_path / "last.ckpt", value)
    assert steps == ["file", "rename", "folder", "file", "rename", "rename", "folder"]


def test_a_crash_between_the_two_renames_leaves_the_one_before(tmp_path, monkeypatch):
    folder = tmp_path / "run" / "checkpoints"
    for value in (1.0, 2.0):
        write(folder / "last.ckpt", value)
    done = []
    original = os.replace

    def once(*args):
        if done:
            raise KeyboardInterrupt
        done.append(original(*args))

    with monkeypatch.context() as patch:
        patch.setattr("lit_aigc.runs.checkpoint.os.replace", once)
        with pytest.raises(KeyboardInterrupt):
            write(folder / "last.ckpt", 3.0)
    assert names(folder) == ["previous.ckpt"]
    path, found = latest_checkpoint(tmp_path / "run")
    assert path.name == "previous.ckpt"
    assert float(found["state_dict"]["weight"][0]) == 2.0


def test_what_a_killed_write_left_goes_with_the_next(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".last.ckpt.123.tmp").write_bytes(b"half")
    write(folder / "last.ckpt", 1.0)
    assert names(folder) == ["last.ckpt"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(InputError, match="can't be written"):
        write(tmp_path / "checkpoints" / "last.ckpt")


# -- reading


def test_every_checkpoint_of_a_run_is_plain_data(tiny_run):
    found = sorted((tiny_run / "checkpoints").glob("*.ckpt"))
    assert {path.name for path in found} == {"last.ckpt", "previous.ckpt"}
    for path in found:
        checkpoint = torch.load(path, weights_only=True)
        assert {"state_dict", "optimizer_states", "loops", "lit_aigc"} <= set(checkpoint)
        with zipfile.ZipFile(path) as archive:
            (data,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
            called = {
                argument for opcode, argument, _ in pickletools.genops(archive.read(data)) if opcode.name == "GLOBAL"
            }
        assert {name.partition(" ")[0] for name in called} <= {"torch", "torch._utils", "collections"}


def test_a_checkpoint_counts(tiny_run):
    checkpoint = read_checkpoint(tiny_run / "checkpoints" / "last.ckpt")
    counters = checkpoint["lit_aigc"]["counters"]
    assert (counters["batches"], counters["samples_seen"], counters["progress"]) == (4, 32, 1.0)
    assert checkpoint["lit_aigc"]["model"]["_target_"] == "lit_aigc.modules.gan.GAN"


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tiny_run, tmp_path, keep):
    whole = (tiny_run / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / "last.ckpt"
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(InputError, match=r"last.ckpt is damaged or holds more than plain data, and was not loaded"):
        read_checkpoint(path)


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("value", [{"state_dict": {}}, {"lit_aigc": {}}, [1, 2], torch.zeros(2), {}])
def test_what_is_not_a_checkpoint_of_ours(tmp_path, value):
    torch.save(value, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="is not a checkpoint of lit_aigc"):
        read_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("way", ["torch", "legacy", "pickle", "in_the_counters"])
def test_a_hostile_checkpoint_is_refused_with_nothing_run(tmp_path, way):
    canary, path = tmp_path / "canary", tmp_path / "last.ckpt"
    hostile = {**content(), "callbacks": Shell(canary)}
    if way == "pickle":
        path.write_bytes(pickle.dumps(hostile, protocol=2))
    elif way == "in_the_counters":
        torch.save({**content(), "lit_aigc": {"counters": Shell(canary)}}, path)
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=way == "torch")
    with pytest.raises(InputError, match="damaged or holds more than plain data"):
        read_checkpoint(path)
    assert not canary.exists()
    pickle.loads(path.read_bytes()) if way == "pickle" else torch.load(path, weights_only=False)  # it would have sung
    assert canary.exists()


def test_a_hostile_checkpoint_does_not_run_when_a_run_is_resumed(command, tiny_run, tmp_path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    for name in ("last.ckpt", "previous.ckpt"):
        hostile = {**torch.load(run / "checkpoints" / name, weights_only=True), "x": Shell(tmp_path / "canary")}
        torch.save(hostile, run / "checkpoints" / name)
    outcome = command("train", f"resume={run}", "budget.batches=8")
    assert outcome.code == 2
    assert "was not loaded" in outcome.err
    assert not (tmp_path / "canary").exists()


def test_a_damaged_last_gives_way_to_the_previous_with_a_warning(tmp_path):
    folder = tmp_path / "checkpoints"
    for value in (1.0, 2.0):
        write(folder / "last.ckpt", value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest_checkpoint(tmp_path)[0].name == "last.ckpt"
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged .*Resuming from .*previous.ckpt"):
        path, found = latest_checkpoint(tmp_path)
    assert path.name == "previous.ckpt"
    assert float(found["state_dict"]["weight"][0]) == 1.0


def test_a_run_goes_on_from_the_previous_checkpoint_and_reads_each_file_once(tiny, tmp_path, monkeypatch):
    opened = []

    def watched(path, mode="r", *rest, original=io.open, **options):
        if str(path).endswith(".ckpt") and "r" in mode:
            opened.append(Path(path).name)
        return original(path, mode, *rest, **options)

    arguments = [*tiny, f"run_dir={tmp_path / 'run'}", "validations=2", "budget.batches=8"]
    train(load("train", [*arguments, "pause_after.batches=6"]))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = read_checkpoint(last.with_name("previous.ckpt"))["lit_aigc"]["counters"]["batches"]
    assert before < 6
    last.write_bytes(last.read_bytes()[:1000])
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", watched)
    with pytest.warns(UserWarning, match="Resuming from"):
        run = train(load("train", [f"resume={tmp_path / 'run'}"]))
    assert opened == ["last.ckpt", "previous.ckpt"]
    assert (run.summary["status"], run.summary["batches"], run.summary["samples_seen"]) == ("done", 8, 64)
    assert read_checkpoint(last)["lit_aigc"]["counters"]["batches"] == 8


def test_a_run_without_checkpoints(tmp_path):
    assert latest_checkpoint(tmp_path) is None


def test_all_checkpoints_damaged(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"(?s)last.ckpt.*previous.ckpt.*Start a new run"):
        latest_checkpoint(tmp_path)


# -- fitting


def test_a_checkpoint_of_another_model_is_refused():
    module = nn.Linear(2, 3)
    check_fits({"state_dict": module.state_dict()}, module, "x.ckpt")
    with pytest.raises(InputError) as error:
        check_fits({"state_dict": nn.Linear(2, 4).state_dict()}, module, "x.ckpt")
    assert str(error.value).splitlines() == [
        "x.ckpt is a checkpoint of another model:",
        "  weight: (4, 2) there, (3, 2) here",
        "  bias: (4,) there, (3,) here",
    ]


def test_differences_are_named_and_not_too_many():
    ours = {name: torch.zeros(1) for name in "abcd"}
    theirs = {name: torch.zeros(1) for name in "defg"}
    assert state_differences(ours, ours) == []
    assert state_differences(ours, theirs) == [
        "  a: missing there", "  b: missing there", "  c: missing there", "  e: not in this model",
        "  f: not in this model", "  and 1 more",
    ]  # fmt: skip
