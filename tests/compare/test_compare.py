"""The list of runs and its verb: what is trained, kept, skipped, gone on with, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from lit_aigc.compare import running
from lit_aigc.compare.plan import Comparison
from lit_aigc.compare.records import SAMPLES
from lit_aigc.compare.report import Report, markers
from lit_aigc.compare.running import run_list
from lit_aigc.config.compose import compose, load
from lit_aigc.config.overrides import folder_options
from lit_aigc.errors import InputError
from lit_aigc.train.run import train

ROOT = Path(__file__).parents[2]
TINY = """# @package _global_
# a GAN so small that it trains in no time
defaults:
  - override /data: mnist5k
  - override /model: mlp_gan

model:
  generator: {hidden: [8], latent_dim: 4}
  discriminator: {hidden: [8]}
data: {batch_size: 8}
trainer: {accelerator: cpu, devices: 1}
validations: 2
log_every: 1
monitor: accuracy_mnist_classifier
monitor_mode: max
callbacks:
  progress: null
  sample_grid: null
  curves: null
  generative_metrics: {extractor: mnist_classifier, num_samples: 32, metrics: [accuracy]}
"""
KEY = "accuracy_mnist_classifier"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def code(monkeypatch):
    """The version of the code, which stands still while a test runs: ``code[0] = "2222222"`` is a commit."""
    version = ["1111111"]
    monkeypatch.setattr(running, "code_version", lambda folders=(): version[0])
    return version


@pytest.fixture
def own(tmp_path):
    """A config folder with the experiments tiny_a, tiny_b, and tiny_bad, which diverges."""
    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)
    (folder / "tiny_a.yaml").write_text(TINY)
    (folder / "tiny_b.yaml").write_text(TINY.replace("latent_dim: 4", "latent_dim: 2"))
    (folder / "tiny_bad.yaml").write_text(TINY.replace("\nmodel:", "\nmodel:\n  generator_optimizer: {lr: 1.0e+30}"))
    (folder / "tiny_32.yaml").write_text(TINY.replace("data: {", "data: {image_size: 32, "))
    (folder / "tiny_fid.yaml").write_text(TINY.replace("monitor: accuracy", "monitor: fid"))
    (folder / "tiny_blind.yaml").write_text(TINY.replace("monitor: accuracy_mnist_classifier", "monitor: null"))
    return folder.parent


class InThisProcess:
    """Trains here, which saves the start of a process; `script` has exit codes to give instead of training."""

    def __init__(self, *script):
        self.stopped = False
        self.calls = []
        self.script = list(script)

    def __call__(self, arguments):
        self.calls.append(list(arguments))
        if self.script:
            code, words = self.script.pop(0)
            return code, words
        try:
            return train(load("train", arguments)).exit_code, ""
        except InputError as error:
            return 2, str(error)
        except Exception as error:
            return 1, str(error)


def comparison(own, *experiments, seeds=(0,), overrides=(), batches=2):
    return Comparison(experiments, seeds, {"batches": batches}, tuple(overrides), Path("results"), (own,))


def test_a_run_leaves_one_record_and_is_not_done_again(own, code, capsys):
    plan, trainer = comparison(own, "tiny_a", "tiny_b", seeds=(0, 3)), InThisProcess()
    records, stopped = run_list(plan, trainer)
    assert not stopped
    assert [(r["experiment"], r["seed"]) for r in records] == [
        *(("tiny_a", 0), ("tiny_b", 0)),  # the first seed of all, then the second
        *(("tiny_a", 3), ("tiny_b", 3)),
    ]
    assert len(trainer.calls) == 4
    again, _ = run_list(plan, trainer)
    assert again == records
    assert len(trainer.calls) == 4
    assert "[4/4] tiny_b, seed 3: is there, results/tiny_b.2batches.seed3.1111111.json" in capsys.readouterr().out

    record = json.loads(Path("results/tiny_a.2batches.seed3.1111111.json").read_text())
    summary = json.loads(Path("runs/compare/tiny_a.2batches.seed3.1111111/summary.json").read_text())
    assert record == records[2]
    assert record["metrics"][KEY] == summary[KEY]
    assert not {"seed", "batches", "train_seconds"} & set(record["metrics"])
    for key in ("protocol", "samples_seen", "train_seconds", "samples_per_second"):
        assert record[key] == summary[key]
    assert (record["status"], record["exit_code"], record["commit"]) == ("done", 0, "1111111")
    assert (record["monitor"], record["monitor_mode"], record["data"]) == (KEY, "max", "mnist5k")
    assert (record["budget"], record["overrides"], record["samples_seen"]) == ({"batches": 2}, [], 16)
    assert {"cpu", "cores", "torch"} <= set(record["machine"])
    curve = record["curve"]
    assert curve["samples_seen"] == [8, 16]
    assert 0 < curve["train_seconds"][0] < curve["train_seconds"][1] <= record["train_seconds"]
    assert curve[KEY][-1] == summary[KEY]


def test_samples_and_real_images_are_kept_as_rows(own, code):
    (record,) = run_list(comparison(own, "tiny_a"), InThisProcess())[0]
    samples, real = (Image.open(Path("results") / record[name]) for name in ("samples", "real"))
    assert samples.size == real.size == (28 * SAMPLES, 28)
    from lit_aigc.build import instantiate

    pictures = instantiate(compose("train", ["data=mnist5k"])["data"])
    batches = list(pictures.real_batches("val"))
    seven = next(b.images[i, 0] for b in batches for i in range(len(b.images)) if int(b.labels[i]) == 7)
    import numpy as np

    assert np.array_equal(np.asarray(real)[:, 7 * 28 : 8 * 28], seven.numpy()), "image i is of class i % 10"


def test_another_commit_budget_or_override_is_another_run(own, code):
    trainer = InThisProcess()
    run_list(comparison(own, "tiny_a"), trainer)
    run_list(comparison(own, "tiny_a", batches=3), trainer)
    run_list(comparison(own, "tiny_a", overrides=["validations=1"]), trainer)
    code[0] = "2222222"
    run_list(comparison(own, "tiny_a"), trainer)
    assert len(trainer.calls) == 4
    assert {file.stem for file in Path("results").glob("*.json")} == {
        "tiny_a.2batches.seed0.1111111",
        "tiny_a.3batches.seed0.1111111",
        "tiny_a.2batches.validations=1.seed0.1111111",
        "tiny_a.2batches.seed0.2222222",
    }


def test_a_run_that_fails_is_recorded_and_the_list_goes_on(own, code):
    plan, trainer = comparison(own, "tiny_bad", "tiny_a"), InThisProcess()
    records, stopped = run_list(plan, trainer)
    assert [r["status"] for r in records] == ["failed", "done"]
    assert not stopped
    assert "Training diverged: the norm of the weights" in records[0]["error"]
    assert records[0]["samples_seen"] == 8
    assert f"tiny_bad, seed 0, failed: {records[0]['error'][:20]}" in Report(records, plan, None, None).failures()[0]
    run_list(plan, trainer)
    assert len(trainer.calls) == 2, "a crash is a result"
    run_list(plan, trainer, retry=True)
    assert len(trainer.calls) == 3
    assert not any(argument.startswith("resume=") for argument in trainer.calls[-1])


def test_bad_input_and_kills_are_tried_again(own, code):
    plan = comparison(own, "tiny_a", "tiny_b")
    records, _ = run_list(plan, InThisProcess((2, "no data there"), (-9, "ended by SIGKILL")))
    assert [(r["status"], r["error"]) for r in records] == [("failed", "no data there"), ("failed", "ended by SIGKILL")]
    again, _ = run_list(plan, InThisProcess())
    assert [r["status"] for r in again] == ["done", "done"]
    assert len(list(Path("results").glob("*.json"))) == 2


def test_an_interrupted_run_goes_on(own, code):
    paused = comparison(own, "tiny_a", "tiny_b", overrides=["pause_after.batches=1"])
    trainer = InThisProcess()
    assert run_list(paused, trainer) == ([], True)
    assert not list(Path("results").glob("*.json"))
    records, stopped = run_list(comparison(own, "tiny_a", overrides=["pause_after.batches=1"]), trainer)
    assert not stopped
    assert "resume=runs/compare/" in trainer.calls[1][-1]
    assert (records[0]["status"], records[0]["samples_seen"]) == ("done", 16)
    assert records[0]["curve"]["samples_seen"] == [8, 16]


def test_a_run_that_was_done_before_its_record_is_only_read(own, code):
    plan, trainer = comparison(own, "tiny_a"), InThisProcess()
    run_list(plan, trainer)
    Path("results/tiny_a.2batches.seed0.1111111.json").unlink()
    assert run_list(plan, trainer)[0][0]["status"] == "done"
    assert len(trainer.calls) == 1


def test_after_a_signal_nothing_new_starts(own, code):
    plan, trainer = comparison(own, "tiny_a", "tiny_b"), InThisProcess()
    run_list(comparison(own, "tiny_a"), trainer)
    trainer.stopped = True
    records, stopped = run_list(plan, trainer)
    assert ([r["experiment"] for r in records], stopped, len(trainer.calls)) == (["tiny_a"], True, 1)
    trainer.script = [(-15, "ended by SIGTERM")]  # it came before the training could handle it
    assert running._run(plan, "tiny_b", 0, "1111111", trainer) is None


def test_identities_are_short_file_names_and_all_different(own):
    def identity(*overrides, budget=None):
        return Comparison(("a",), (0,), budget or {"minutes": 10}, overrides).identity("a", 0, "66a8c5b")

    assert identity() == "a.10min.seed0.66a8c5b"
    assert identity(budget={"minutes": 0.5, "samples": 10_000_000}) == "a.0.5min-10000000samples.seed0.66a8c5b"
    assert identity("validations=10") == "a.10min.validations=10.seed0.66a8c5b"
    odd = [identity("x=[1, 2]"), identity("x=[1,_2]"), identity("x='a/b'"), identity("x=" + "y" * 300)]
    assert len(set(odd)) == 4
    assert all(len(name) < 150 and not set(name) & set("/[]' ") for name in odd)


def test_overrides_reach_training_as_they_are_typed(own):
    typed = "overrides=[validations=10,model.generator.hidden=[8,8],data.augment=null,'data.root=a, b']"
    config = compose("compare", ["experiments=[tiny_a]", typed, "budget.batches=2"])
    assert config["overrides"] == [
        *("validations=10", "model.generator.hidden=[8,8]", "data.augment=null", "data.root=a, b")
    ]
    assert compose("compare", ["experiments=[tiny_a]", "overrides=[]"])["overrides"] == []
    arguments = Comparison(("tiny_a",), (0,), {"batches": 2}, ("model.generator.hidden=[8,8]",), folders=(own,))
    words = [*folder_options(arguments.folders), *arguments.train_arguments("tiny_a", 5, Path("x, y"))]
    composed = compose("train", words)
    assert composed["model"]["generator"]["hidden"] == [8, 8]
    assert (composed["seed"], composed["run_dir"]) == (5, "x, y")
    assert composed["budget"] == {"minutes": None, "samples": None, "batches": 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "experiments= is missing"),
        (["experiments=tiny_a"], "experiments=tiny_a: expected a list of names"),
        (["experiments=[]"], "expected a list of names"),
        (["experiments=[tiny_a,tiny_aa]"], "experiment 'tiny_aa' is unknown, did you mean 'tiny_a'?"),
        (["experiments=[tiny_a,tiny_a]"], "tiny_a more than once"),
        (["experiments=[tiny_a]", "budget.batches=null"], "No budget: set budget.minutes"),
        (["experiments=[tiny_a]", "budget.minutes=-1"], "budget.minutes=-1: expected a positive number"),
        (["experiments=[tiny_a]", "seeds=0"], "seeds=0: expected how many"),
        (["experiments=[tiny_a]", "seeds=[1,1]"], "seeds=[1, 1]: expected how many"),
        (["experiments=[tiny_a]", "seeds=few"], "seeds=few: expected how many"),
        (["experiments=[tiny_a]", "baseline=tiny_b"], "baseline=tiny_b is none of the experiments"),
        (["experiments=[tiny_a]", "overrides=[seed=1]"], "overrides can't set seed"),
        (["experiments=[tiny_a]", "overrides=[budget.samples=1]"], "overrides can't set budget.samples"),
        (["experiments=[tiny_a]", "overrides=[fast]"], "overrides has 'fast': expected key=value"),
        (["experiments=[tiny_a]", "overrides=[validation=3]"], "did you mean 'validations'?"),
        (["experiments=[tiny_a]", "overrides=[validations=0]"], "never validates"),
        (["experiments=[tiny_a]", "name=a/b"], "name=a/b: expected letters"),
        (["experiments=[tiny_a]", "write=[none.md]"], "none.md can't be read"),
        (["experiments=[tiny_a]", "seed=1"], "unknown key 'seed', did you mean 'seeds'?"),
        (["experiments=[tiny_a,tiny_32]"], "data.image_size: tiny_a has 28; tiny_32 has 32"),
        (["experiments=[tiny_a,tiny_fid]"], "monitor: tiny_a has accuracy_mnist_classifier; tiny_fid has fid_mnist"),
        (["experiments=[tiny_blind]"], "tiny_blind has no monitor: give metric="),
        (["experiments=[tiny_a]", "report_only=true"], "results has no record of tiny_a"),
    ],
)
def test_what_is_refused_before_anything_trains(command, own, monkeypatch, arguments, expected):
    monkeypatch.setattr(subprocess, "Popen", None)
    outcome = command("compare", f"--config-dir={own}", "budget.batches=2", *arguments)
    assert outcome.code == 2, outcome
    assert outcome.err.count("lit_aigc.compare: ") == 1
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
    assert not Path("results").exists()
    assert not Path("runs").exists()


def test_the_verb_writes_what_the_records_say(command, own, code, monkeypatch):
    trainer = InThisProcess()
    monkeypatch.setattr("lit_aigc.runs.processes.TrainingProcesses.__call__", lambda self, a: trainer(a))
    begin, end = markers("tiny")
    Path("results.md").write_text(f"{begin}\n{end}\n")
    arguments = ["--config-dir", str(own), "experiments=[tiny_a,tiny_bad]", "seeds=1", "budget.batches=2"]
    arguments += ["baseline=tiny_a", "name=tiny", "write=[results.md]", "images=pictures"]
    outcome = command("compare", *arguments)
    assert outcome.code == 1, "one failed"
    assert len(trainer.calls) == 2
    written = Path("results.md").read_text()
    value = json.loads(Path("results/tiny_a.2batches.seed0.1111111.json").read_text())["metrics"][KEY]
    assert f"| tiny_a (baseline) | {value:.3g}" in written
    assert "tiny_bad, seed 0, failed: " in written
    assert "'experiments=[tiny_a,tiny_bad]' seeds=1 budget.batches=2 baseline=tiny_a name=tiny" in written
    assert Path("pictures/compare_tiny.png").exists()

    code[0] = "2222222"  # of whatever commit
    Path("results.md").write_text(f"{begin}\n{end}\n")
    outcome = command("compare", *arguments, "report_only=true", "seeds=null")
    assert outcome.code == 1
    assert len(trainer.calls) == 2
    again = Path("results.md").read_text()
    assert "report_only" not in again
    assert again.replace("'seeds=null' ", "").replace(" seeds=null", "") == written


@pytest.mark.slow
@pytest.mark.parametrize("when", ["while it starts", "while it trains"])
def test_as_a_command_it_stops_at_ctrl_c_and_goes_on(own, when):
    """As in a terminal, where the signal reaches the training as well."""
    command = [sys.executable, "-m", "lit_aigc.compare", f"--config-dir={own}", "experiments=[tiny_a]"]
    command += ["budget.batches=100000", "overrides=[validations=2,log_every=10]"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with Path("out.txt").open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        list(Path("runs").glob("compare/*/metrics.csv"))
        if when == "while it trains"
        else "training" in Path("out.txt").read_text()
    ):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 75, Path("out.txt").read_text()
    assert "Paused: repeat the command to resume." in Path("out.txt").read_text()
    assert "Traceback" not in Path("out.txt").read_text()
    states = [json.loads(file.read_text())["status"] for file in Path("runs").glob("compare/*/summary.json")]
    assert states == (["paused"] if when == "while it trains" else [])
    assert not list(Path("results").glob("*.json"))
