"""The trials of a search, on trainings that only write what a training leaves behind."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lit_aigc.errors import InputError
from lit_aigc.machine.lock import is_held
from lit_aigc.machine.signals import StopSignals
from lit_aigc.sweep.plan import Plan
from lit_aigc.sweep.running import Trials, gpu_names, shares, too_busy
from lit_aigc.sweep.trials import SweepFolder, best_trial

HALVING = {"type": "hyperband", "min_iter": 1, "eta": 2}


@dataclasses.dataclass
class Started:
    """What a search has started, and how many at a time."""

    arguments: list
    environments: list
    trainings: list
    most_at_a_time: int = 0


@pytest.fixture
def start(training):
    """Starts `Training` in place of processes; ``start.make`` may be another one."""

    def run(arguments, log, environment):
        found = run.make(list(arguments))
        run.started.arguments.append(list(arguments))
        run.started.environments.append(dict(environment))
        run.started.trainings.append(found)
        alive = sum(t.code is None for t in run.started.trainings)
        run.started.most_at_a_time = max(run.started.most_at_a_time, alive)
        return found

    run.make, run.started = training, Started([], [], [])
    return run


@pytest.fixture
def search_of(tmp_path, start):
    """``search_of(sweep, count=3)``: a search in the test's folder, at each call as after a new start."""

    def make(sweep, count, parallel=1, stop=None, wait=lambda: None, retry=False, idle=None):
        folder = SweepFolder(tmp_path / "search", {"sweep": sweep.content, "seed": 0})
        folder.claim()
        plan = Plan(sweep, folder, (), (), parallel, seed=0, validations=4, asked_count=count)
        trials = Trials(plan, plan.recall(retry), start, stop, wait, said.append, idle)
        return folder, trials

    said = make.said = []
    return make


def finish(search_of, *arguments, **options):
    folder, trials = search_of(*arguments, **options)
    try:
        complete = trials.run()
    finally:
        folder.release()
    return folder, complete


def test_trials_are_run_and_recorded(sweep, search_of, start):
    folder, complete = finish(search_of, sweep(), 5, parallel=2)
    assert complete
    assert [trial.number for trial in folder.trials] == [0, 1, 2, 3, 4]
    assert start.started.most_at_a_time == 2
    for trial, made in zip(folder.trials, start.started.trainings, strict=True):
        assert made.options["model.lr"] == str(trial.values["model.lr"])
        assert (made.options["seed"], made.folder) == ("3", folder.run_dir(trial))
        assert (trial.status, trial.samples_seen, trial.train_seconds) == ("done", 40, 1.5)
        assert trial.curve == [made.elbo(step) for step in (1, 2, 3, 4)]
        assert trial.value == trial.curve[-1]
    on_disk = json.loads(folder.record.read_text())["trials"]
    assert on_disk == [dataclasses.asdict(trial) for trial in folder.trials]
    best = best_trial(folder.trials, sweep())
    assert best.value == max(trial.value for trial in folder.trials)


def test_the_same_command_again_does_nothing_and_a_larger_count_goes_on(sweep, search_of, start):
    finish(search_of, sweep(), 3)
    before, _ = finish(search_of, sweep(), 3)
    assert len(start.started.trainings) == 3
    folder, _ = finish(search_of, sweep(), 5)
    assert len(start.started.trainings) == 5
    assert folder.trials[:3] == before.trials


def test_a_search_in_two_parts_equals_one(sweep, search_of, tmp_path):
    parts, _ = finish(search_of, sweep(), 2)
    parts, _ = finish(search_of, sweep(), 4)
    (tmp_path / "search").rename(tmp_path / "parts")
    whole, _ = finish(search_of, sweep(), 4)
    assert whole.trials == parts.trials


def test_a_stop_pauses_what_runs_and_the_next_start_goes_on(sweep, search_of, start):
    stop, waits = StopSignals(), []

    def wait():
        waits.append(True)
        stop.received = "SIGTERM" if len(waits) >= 6 else None  # the first two are done, two more have begun

    folder, complete = finish(search_of, sweep(), 6, parallel=2, stop=stop, wait=wait)
    assert not complete
    assert [trial.status for trial in folder.trials] == ["done", "done", "running", "running"]
    assert not any(is_held(folder.run_dir(trial)) for trial in folder.trials)
    begun = len(start.started.arguments)

    folder, complete = finish(search_of, sweep(), 6, parallel=2)
    assert complete
    assert {trial.status for trial in folder.trials} == {"done"} and len(folder.trials) == 6
    again = start.started.arguments[begun:]
    assert again[:2] == [[f"resume={folder.run_dir(trial)}"] for trial in folder.trials[2:4]]
    assert all(
        f"run_dir={folder.run_dir(trial)}" in args for trial, args in zip(folder.trials[4:], again[2:], strict=True)
    )


def test_the_worse_trials_are_given_up(sweep, search_of, start):
    folder, complete = finish(search_of, sweep(early_terminate=HALVING), 8)
    assert complete
    pruned = [trial for trial in folder.trials if trial.status == "pruned"]
    assert 2 <= len(pruned) < 8
    for trial in pruned:
        made = start.started.trainings[trial.number]
        assert made.terminated and len(trial.curve) < 4
        assert trial.value == trial.curve[-1]
    best = max(training.elbo(4) for training in start.started.trainings)
    assert best_trial(folder.trials, sweep()).value == best


def test_what_has_been_given_up_stays_so_when_the_search_is_killed_at_that_moment(sweep, search_of, start, training):
    class Killed(BaseException):
        pass

    class Stubborn(training):
        def terminate(self):
            raise Killed

    start.make = Stubborn
    plan = sweep(early_terminate=HALVING)
    with pytest.raises(Killed):
        finish(search_of, plan, 8)
    start.started.trainings[-1].free()
    start.make, begun = training, len(start.started.trainings)
    folder, _ = finish(search_of, plan, begun)
    assert folder.trials[-1].status == "pruned" and folder.trials[-1].value == folder.trials[-1].curve[-1]
    assert len(start.started.trainings) == begun


def test_a_failure_is_recorded_and_the_search_goes_on(sweep, search_of, start, training):
    class Sometimes(training):
        def poll(self):
            if self.lr > 0.01:
                (self.folder / "summary.json").write_text('{"status": "failed", "error": "TrainingDiverged: NaN"}')
                self.free()
                self.code = 1
                return 1
            return super().poll()

    start.make = Sometimes
    folder, complete = finish(search_of, sweep(), 8)
    assert complete
    failed = [trial for trial in folder.trials if trial.status == "failed"]
    assert 0 < len(failed) < 8
    assert all(trial.values["model.lr"] > 0.01 and trial.value is None for trial in failed)
    assert {trial.error for trial in failed} == {"TrainingDiverged: NaN"}
    assert any("TrainingDiverged: NaN" in line for line in search_of.said)

    start.make = training
    folder, _ = finish(search_of, sweep(), 8, retry=True)
    assert {trial.status for trial in folder.trials} == {"done"}
    assert not any("resume=" in word for words in start.started.arguments[8:] for word in words)


@pytest.mark.parametrize(
    ("code", "summary", "log", "expected"),
    [
        (2, None, "Some warning\nlit_aigc.train: data.root=x is not a folder.\n", "data.root=x is not a folder."),
        (1, None, "", "exit code 1"),
        (-9, '{"status": "running"}', "step 1\n", "ended by SIGKILL"),
        (0, '{"status": "done", "fid": 1.5}', "", "elbo was not measured, or is no finite number; measured: fid"),
        (0, '{"status": "done", "elbo": NaN}', "", "elbo was not measured, or is no finite number; measured: elbo"),
    ],
)
def test_why_a_trial_failed(sweep, search_of, start, training, code, summary, log, expected):
    class Failing(training):
        def poll(self):
            self.metrics.unlink(missing_ok=True)
            if summary:
                (self.folder / "summary.json").write_text(summary)
            self.folder.with_suffix(".log").write_text(log)
            self.free()
            self.code = code
            return code

    start.make = Failing
    folder, complete = finish(search_of, sweep(), 9)
    assert complete
    assert [trial.error for trial in folder.trials] == [expected] * 3, "three failures with nothing else end a search"


def test_a_training_that_outlived_its_search_is_waited_for(sweep, search_of, start, training):
    """The search was killed outright; its training runs on and ends by itself."""
    folder, trials = search_of(sweep(), 1)
    trials._fill()
    folder.release()
    orphan = start.started.trainings[0]
    finish(search_of, sweep(), 1, wait=orphan.poll)
    assert len(start.started.trainings) == 1
    folder, _ = finish(search_of, sweep(), 1)
    assert (folder.trials[0].status, folder.trials[0].value) == ("done", orphan.elbo(4))


def test_a_target_ends_the_search(sweep, search_of):
    plan = sweep(metric={"name": "elbo", "goal": "maximize", "target": -0.5})
    folder, complete = finish(search_of, plan, 50)
    values = [trial.value for trial in folder.trials]
    assert complete and len(values) < 50
    assert values[-1] >= -0.5 > max(values[:-1], default=-9)


def test_one_search_at_a_time_and_of_one_kind(sweep, search_of, tmp_path):
    folder, _ = search_of(sweep(), 1)
    with pytest.raises(InputError, match=r"in use by another process.*name="):
        search_of(sweep(), 1)
    folder.release()
    finish(search_of, sweep(), 1)
    with pytest.raises(InputError, match=r"another search \(sweep differs\)"):
        search_of(sweep(method="bayes"), 1)
    (tmp_path / "search" / "trials.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        search_of(sweep(), 1)


def test_trials_at_a_time_share_cores_and_gpus():
    assert shares(0, 1, {}, 8, 8, ["0", "1"]) == {}
    assert shares(0, 2, {}, 8, 8, []) == {"OMP_NUM_THREADS": "4"}
    assert shares(1, 3, {}, 2, 2, ["0"]) == {"OMP_NUM_THREADS": "1"}
    assert shares(1, 2, {"OMP_NUM_THREADS": "8"}, 8, 8, ["0", "1", "2", "3"]) == {"CUDA_VISIBLE_DEVICES": "1,3"}
    assert shares(2, 3, {"OMP_NUM_THREADS": "8"}, 8, 8, ["4", "5"]) == {"CUDA_VISIBLE_DEVICES": "4"}
    assert gpu_names({"CUDA_VISIBLE_DEVICES": "2,5"}) == ["2", "5"] and gpu_names({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_trials_share_the_idle_cores(sweep, search_of, start, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert shares(0, 1, {}, 5, 8, []) == {"OMP_NUM_THREADS": "5"}
    assert shares(0, 2, {}, 5, 8, []) == {"OMP_NUM_THREADS": "2"}
    assert shares(0, 2, {}, 0, 8, []) == {"OMP_NUM_THREADS": "1"}
    assert too_busy(2, 2, 8) == ""
    assert too_busy(2, 1, 8).startswith("1 of 8 cores are idle, and parallel=2")
    _, trials = search_of(sweep(), 1, idle=0)
    trials._fill()
    assert start.started.environments[0]["OMP_NUM_THREADS"] == "1"


def test_a_trial_is_a_run_of_its_own(sweep, search_of, start, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "of-the-caller")
    monkeypatch.setenv("LIT_AIGC_CONFIG", "of-the-caller")
    monkeypatch.setenv("WANDB_MODE", "offline")
    finish(search_of, sweep(), 1)
    (environment,) = start.started.environments
    assert not {"WANDB_RUN_ID", "LIT_AIGC_CONFIG"} & set(environment)
    assert environment["WANDB_MODE"] == "offline"
