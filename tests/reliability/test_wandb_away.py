"""W&B that can't be reached: training continues and ends, its log can be sent later, and keys stay secret."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest

from lit_aigc.loggers.wandb import WandbLogger
from tests.loggers.test_loggers import history, wandb_records

KEY = "0123456789abcdef" * 2 + "cafecafe"
ANSWERS = {
    "Viewer": {"viewer": {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}"}},
    "RunResumeStatus": {"model": {"bucket": None}},
    "UpsertBucket": {
        "upsertBucket": {
            "inserted": True,
            "bucket": {
                "id": "1", "name": "run", "displayName": "run", "historyLineCount": 0,
                "project": {"id": "1", "name": "lit_aigc", "entity": {"id": "1", "name": "me"}},
            },
        }
    },
}  # fmt: skip


class Service(BaseHTTPRequestHandler):
    """Lets a run begin, and is gone."""

    def do_POST(self) -> None:
        query = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name = next((name for name in ANSWERS if name in query), "")
        answer = json.dumps({"data": ANSWERS.get(name, {})}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if name == "UpsertBucket":
            self.server.socket.close()
            self.server.has_begun.set()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def online(monkeypatch, tmp_path) -> Iterator[pytest.MonkeyPatch]:
    """W&B as a user has it who is logged in, with short waits; its own process is a new one."""
    import wandb

    wandb.teardown()
    settings = {"MODE": "online", "API_KEY": KEY, "BASE_URL": "http://127.0.0.1:9", "ERROR_REPORTING": "false"}
    settings |= {"INIT_TIMEOUT": "1", "FINISH_TIMEOUT": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield monkeypatch
    with contextlib.suppress(ConnectionError):  # its process may have been killed
        wandb.teardown()


@pytest.mark.slow
def test_a_run_that_can_not_reach_wandb_at_its_start_is_made_offline(command, tiny, tmp_path, online):
    with pytest.warns(UserWarning, match=r"can't be reached.*training continues.*wandb sync"):
        outcome = command("train", *tiny, "logger=wandb", f"run_dir={tmp_path}/run")
    assert outcome.code == 0, outcome.err
    records = wandb_records(tmp_path / "run")
    assert [row["samples_seen"] for row in history(records) if "train/d_loss" in row] == [16, 32]
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]
    assert_secret(tmp_path / "run", outcome)


@pytest.mark.slow
def test_a_service_that_vanishes_within_a_run_costs_nothing(command, tiny, tmp_path, online):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.has_begun = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    online.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    with pytest.warns(UserWarning, match=r"has gone.*Send the rest later.*wandb artifact put"):
        outcome = command("train", *tiny, "logger=wandb", f"run_dir={tmp_path}/run")
    assert server.has_begun.is_set() and outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "done"
    assert (tmp_path / "run/bundle/manifest.json").exists()
    (kept,) = (tmp_path / "run/wandb").glob("run-*/run-*.wandb")
    assert b"train/d_loss" in kept.read_bytes()
    assert_secret(tmp_path / "run", outcome)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the process in /proc")
def test_a_killed_process_of_wandb_costs_nothing(command, tiny, tmp_path, online):
    online.setenv("WANDB_MODE", "offline")
    fault = f"{{_target_: tests.reliability.runs.Fault, kind: killed_wandb, once: '{tmp_path}/once'}}"
    outcome = command("train", *tiny, "logger=wandb", f"callbacks.fault={fault}", f"run_dir={tmp_path}/run")
    assert (tmp_path / "once").exists() and outcome.code == 0, outcome.err
    assert (tmp_path / "run/bundle/manifest.json").exists()
    ids = {path.stem.removeprefix("run-") for path in (tmp_path / "run/wandb").rglob("run-*.wandb")}
    assert ids == {(tmp_path / "run/wandb/run_id").read_text()}


def test_wandb_that_has_gone_for_good_ends_no_run(tmp_path, monkeypatch):
    logger = WandbLogger(str(tmp_path), mode="offline")
    monkeypatch.setattr(logger, "_start", Mock(side_effect=ConnectionError("closed")))
    with pytest.warns(UserWarning, match=r"has gone.*closed.*training continues.*wandb sync"):
        logger.log_metrics({"x": 1.0}, step=1)


def assert_secret(folder: Path, outcome) -> None:
    assert KEY not in outcome.out + outcome.err
    holding = [file for file in folder.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    assert not holding


def test_keys_are_in_no_file_of_a_run(command, tiny, tmp_path, monkeypatch):
    """Of one that ends well, and of one that ends with an error."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    more = [*tiny, "logger=wandb", "log_every=1"]
    assert_secret(tmp_path, command("train", *more, f"run_dir={tmp_path}/good"))
    assert (tmp_path / "good/bundle").exists() and list((tmp_path / "good/wandb").rglob("*.wandb"))
    outcome = command(
        "train", *more, "model.generator_optimizer.lr=1.0e+38", "budget.batches=40", f"run_dir={tmp_path}/bad"
    )
    assert outcome.code == 1
    assert_secret(tmp_path, outcome)


def test_a_key_that_gets_into_the_config_is_refused_and_not_repeated(command, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    outcome = command("train", *tiny, "data.root='${oc.env:WANDB_API_KEY}'", f"run_dir={tmp_path}/run")
    assert outcome.code == 2 and "the value of WANDB_API_KEY is in the config" in outcome.err
    assert KEY not in outcome.err and not (tmp_path / "run").exists()
