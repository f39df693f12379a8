import builtins
import importlib
import json
import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.loggers.base import log_picture, log_texts, run_logger
from lit_aigc.loggers.csv import CsvLogger
from lit_aigc.loggers.tensorboard import TensorBoardLogger
from lit_aigc.loggers.wandb import WandbLogger
from lit_aigc.runs.folder import in_sweep
from lit_aigc.train import run as training

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
TEXTS = ["ROMEO:\n# <b>I</b>\n", "*two*"]
CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "logger").glob("*.yaml"))
CONFIG = {"model": {"networks": {"channels": [32, 64]}}, "seed": 3}


def wandb_records(run_dir):
    """The records of a run's offline files: protobuf messages in LevelDB's log format behind a header of 7 bytes."""
    import wandb

    wandb.teardown()  # waits until its process has written everything
    return [record for path in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb")) for record in _records(path)]


def _records(path):
    from wandb.proto import wandb_internal_pb2

    data, position, parts, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:  # the rest of a block, too short for a record's header
            position += room
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def history(records):
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            rows.append({(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item})
    return rows


def test_wandb_offline_writes_numbers_pictures_and_the_nested_config(tmp_path):
    logger = WandbLogger(str(tmp_path / "run"), project="p", group="g", tags=["t"], mode="offline")
    logger.log_hyperparams(CONFIG)
    logger.log_metrics({"train/d_loss": torch.tensor(0.5), "fid_mnist_classifier": 3.25}, step=640)
    logger.log_picture("samples", PICTURE, 640)
    logger.log_picture("grey", PICTURE[..., :1], 640)
    log_texts([logger], "texts", TEXTS, 640)
    logger.log_summary({"status": "done"})
    run_id = logger.version
    logger.finalize("success")
    assert logger.version == run_id, "a run stays open until close, for the bundle and the summary"
    logger.close(0)

    records = wandb_records(tmp_path / "run")
    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"][:1]
    assert (run.project, run.run_group, list(run.tags), run.run_id) == ("p", "g", ["t"], run_id)
    assert run.display_name == "run"
    rows = history(records)
    assert rows[0]["samples_seen"] == 640
    assert rows[0]["train/d_loss"] == 0.5
    assert rows[0]["fid_mnist_classifier"] == 3.25
    assert (rows[1]["samples.width"], rows[1]["samples.height"], rows[1]["samples_seen"]) == (6, 4, 640)
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*/files/media/images/*.png"))) == 2
    (table,) = (tmp_path / "run").glob("wandb/offline-run-*/files/media/table/texts*.json")
    assert json.loads(table.read_text()) == {"columns": ["text"], "data": [[text] for text in TEXTS]}
    assert rows[3]["samples_seen"] == 640
    metrics = {
        r.metric.name or r.metric.glob_name: r.metric for r in records if r.WhichOneof("record_type") == "metric"
    }
    assert metrics["*"].step_metric == "samples_seen"
    configs = [i for r in records if r.WhichOneof("record_type") == "config" for i in r.config.update]
    written = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in configs}
    assert written["model"] == CONFIG["model"]
    (exit_record,) = [r.exit for r in records if r.WhichOneof("record_type") == "exit"]
    assert exit_record.exit_code == 0


@pytest.mark.parametrize("exit_code", [1, 75])
def test_wandb_learns_how_a_run_ended(tmp_path, exit_code):
    logger = WandbLogger(str(tmp_path), mode="offline")
    logger.log_metrics({"x": 1.0}, step=1)
    if exit_code == 1:
        logger.finalize("failed")
    logger.close(exit_code)
    records = wandb_records(tmp_path)
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [exit_code]
    assert any(r.WhichOneof("record_type") == "preempting" for r in records) == (exit_code == 75)


@pytest.mark.parametrize(("stopped", "exit_code"), [(True, 0), (False, 75), (None, 75)])
def test_a_trial_that_the_sweep_stops_is_finished_and_not_preempted(tmp_path, monkeypatch, stopped, exit_code):
    import wandb
    from wandb.apis.public import sweeps

    def asked(api, sweep, specs, *, entity, project):
        if stopped is None:
            raise OSError("no answer")
        other = {"name": "other", "shouldStop": True, "stopped": True}
        return {"runs": [other, {"name": "mine", "shouldStop": stopped, "stopped": False}]}

    monkeypatch.setattr(wandb, "Api", lambda: None)
    monkeypatch.setattr(sweeps, "_sweep_with_runs", asked)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    logger = WandbLogger(str(tmp_path), mode="offline")
    logger.log_metrics({"x": 1.0}, step=1)
    assert logger.version == "mine"
    logger.close(75)
    records = wandb_records(tmp_path)
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [exit_code]
    assert any(r.WhichOneof("record_type") == "preempting" for r in records) == (exit_code == 75)


def test_wandb_continues_the_run_of_a_run_folder(tmp_path, monkeypatch):
    def start(**options):
        logger = WandbLogger(str(tmp_path), mode="disabled", **options)
        return logger._known_id()

    assert start() is None
    first = WandbLogger(str(tmp_path), mode="offline")
    first.log_metrics({"x": 1.0}, step=1)
    run_id = first.version
    first.close(0)
    assert start() == run_id
    monkeypatch.setenv("WANDB_RUN_ID", "from_the_agent")
    assert start() == "from_the_agent"
    assert start(id="mine") == "mine"


def test_loggers_learn_that_a_run_failed_after_its_last_batch(tmp_path, tiny, monkeypatch):
    told = []
    monkeypatch.setattr(CsvLogger, "close", lambda self, exit_code: told.append(exit_code), raising=False)
    monkeypatch.setattr(training, "print_results", lambda *results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.train(load("train", [*tiny, f"run_dir={tmp_path / 'run'}"]))
    assert told == [1]


def test_wandb_goes_on_after_a_signal_that_its_own_process_took_for_its_end(tmp_path):
    """As SLURM sends it, to every process of a job; what comes after lands in the same run."""
    logger = WandbLogger(str(tmp_path), mode="offline")
    logger.log_metrics({"x": 1.0}, step=1)
    run_id = logger.version
    children = [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    services = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().startswith("wandb-core")]
    assert services
    for pid in services:
        os.kill(pid, signal.SIGTERM)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    logger.log_metrics({"x": 2.0}, step=2)
    assert logger.version == run_id
    logger.close(75)
    rows = history(wandb_records(tmp_path))
    assert {(row["x"], row["samples_seen"]) for row in rows} == {(1, 1), (2, 2)}  # the first may be there twice


def test_wandb_mode_is_checked(tmp_path):
    with pytest.raises(InputError, match=r"mode=offlin: expected online, offline"):
        WandbLogger(str(tmp_path), mode="offlin")


def test_wandb_that_cannot_start_is_bad_input(tmp_path, monkeypatch):
    import wandb

    def init(**options):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(InputError, match=r"No API key(.|\n)*logger\.wandb\.mode=offline"):
        _ = WandbLogger(str(tmp_path), mode="online").experiment


def test_a_sweep_agent_is_recognized_and_gives_the_project(tmp_path, monkeypatch):
    assert not in_sweep()
    assert WandbLogger(str(tmp_path), project="mine")._init["project"] == "mine"
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert in_sweep()
    assert WandbLogger(str(tmp_path), project="mine")._init["project"] is None


def read_tensorboard(logger):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(logger.log_dir or logger.save_dir)
    events.Reload()
    return events


def test_tensorboard_has_scalars_and_pictures_at_samples_seen(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_hyperparams(CONFIG)
    logger.log_metrics({"train/d_loss": 0.5}, step=640)
    logger.log_metrics({"train/d_loss": torch.tensor(0.25)}, step=1280)
    log_picture([logger], "samples", PICTURE, 640)
    log_texts([logger], "texts", TEXTS, 640)
    logger.close(0)
    events = read_tensorboard(logger)
    assert [(e.step, e.value) for e in events.Scalars("train/d_loss")] == [(640, 0.5), (1280, 0.25)]
    (image,) = events.Images("samples")
    assert (image.step, image.height, image.width) == (640, 4, 6)
    assert any("config" in tag for tag in events.Tags()["tensors"])
    (text,) = events.Tensors("texts/text_summary")
    (markdown,) = text.tensor_proto.string_val
    assert text.step == 640
    assert markdown.decode() == "    ROMEO:\n    # <b>I</b>\n\n---\n\n    *two*"


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path):
    for resumed_at, steps in ((None, (1, 2, 3)), (1, (2, 4))):
        logger = TensorBoardLogger(str(tmp_path))
        if resumed_at is not None:
            logger.truncate(resumed_at)
        for step in steps:
            logger.log_metrics({"x": step * (10.0 if resumed_at else 1.0)}, step=step)
        logger.close(0)
    assert [(e.step, e.value) for e in read_tensorboard(logger).Scalars("x")] == [(1, 1.0), (2, 20.0), (4, 40.0)]


def test_missing_tensorboard_names_the_pip_command(tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorboard":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'lit-aigc\[tensorboard\]'"):
        TensorBoardLogger(str(tmp_path))


def test_pictures_and_texts_reach_lightnings_own_loggers_and_pass_over_others(tmp_path):
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.loggers import TensorBoardLogger as Lightnings

    theirs = Lightnings(str(tmp_path / "theirs"))
    both = [CSVLogger(str(tmp_path / "csv")), theirs]
    log_picture(both, "samples", PICTURE, 7)
    log_texts(both, "texts", TEXTS, 7)
    theirs.experiment.flush()
    events = read_tensorboard(theirs)
    assert [event.step for event in (*events.Images("samples"), *events.Tensors("texts/text_summary"))] == [7, 7]


def test_any_logger_takes_what_ours_take(tmp_path):
    """Lightning's have none of these methods; one of the user's own may have some."""
    from lightning.pytorch.loggers import CSVLogger

    class Own(CSVLogger):
        closed = None

        def close(self, exit_code):
            self.closed = exit_code

    own = Own(str(tmp_path / "own"))
    for logger in (CSVLogger(str(tmp_path / "theirs")), own):
        adapted = run_logger(logger)
        adapted.truncate(3)
        adapted.log_bundle(tmp_path, name="bundle")
        adapted.log_summary({"fid": 1.0})
        adapted.close(75)
    assert own.closed == 75
    ours = TensorBoardLogger(str(tmp_path))
    assert run_logger(ours) is ours and ours.name == "tensorboard"


def test_only_rank_0_starts_anything(tmp_path, monkeypatch):
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    for logger in (WandbLogger(str(tmp_path), mode="offline"), TensorBoardLogger(str(tmp_path))):
        logger.log_hyperparams(CONFIG)
        logger.log_metrics({"x": 1.0}, step=1)
        log_picture([logger], "samples", PICTURE, 1)
        log_texts([logger], "texts", TEXTS, 1)
        logger.finalize("failed")
        logger.close(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_each_logger_config_gives_what_the_constructor_takes(tmp_path, file):
    ((name, node),) = yaml.safe_load(file.read_text()).items()
    module, _, attribute = node.pop("_target_").rpartition(".")
    logger = getattr(importlib.import_module(module), attribute)(run_dir=str(tmp_path), **node)
    assert logger.name == name
