"""What a search leaves: the table, the best config as an experiment, the picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lit_aigc.config.compose import compose
from lit_aigc.errors import InputError
from lit_aigc.machine.lock import lock
from lit_aigc.sweep.picture import best_so_far, shown_range, side_by_side
from lit_aigc.sweep.plan import Plan
from lit_aigc.sweep.report import Report
from lit_aigc.sweep.trials import Trial

FILE = {
    "method": "random",
    "metric": {"name": "elbo", "goal": "maximize"},
    "command": ["${env}", "${interpreter}", "-m", "lit_aigc.train", "log_every=7", "${args_no_hyphens}"],
    "parameters": {
        "experiment": {"value": "vae_mnist5k"},
        "model": {"values": ["vae", "conv_vae"]},
        "model.recipe.clip_norm": {"distribution": "log_uniform_values", "min": 0.01, "max": 10},
        "data.batch_size": {"values": [32, 64, 128]},
        "callbacks.sample_grid": {"value": None},
        "data.augment": {"values": [[], ["random_shift"]]},
    },
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan_of(content=FILE, **changes):
    Path("search.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    given = {"file": "search.yaml", "count": 4, "parallel": 1, "overrides": [], "seed": 0, "name": None}
    return Plan.from_config({**given, **changes})


def with_trials(plan):
    drawn = [(0, 0.1, 0, 0), (1, 0.5, 2, 1), (1, 2.0, 1, 0), (0, 1.0, 1, 1), (0, 9.0, 1, 1)]
    names = [parameter.name for parameter in plan.sweep.parameters]
    for number, draw in enumerate(drawn):
        place = dict(zip(names, draw, strict=True))
        plan.folder.trials.append(Trial(number, place, plan.sweep.values(place)))
    first, best, pruned, failed, _ = plan.folder.trials
    first.status, first.value, first.curve, first.train_seconds, first.samples_seen = (
        "done",
        -120.5,
        [-130.0],
        75.0,
        640,
    )
    best.status, best.value, best.curve = "done", -104.25, [-110.0, -104.25]
    pruned.status, pruned.value, pruned.curve = "pruned", -90.0, [-90.0]  # of a pruned trial no value is the best
    failed.status, failed.error = "failed", "TrainingDiverged: a, b"
    return Report(plan)


def test_the_table(capsys):
    report = with_trials(plan_of(overrides=["budget.samples=640"]))
    rows = list(csv.DictReader(io.StringIO(report.table())))
    assert [row["status"] for row in rows] == ["done", "done", "pruned", "failed", "paused"]
    assert rows[1] == {
        "trial": "1",
        "status": "done",
        "elbo": "-104.25",
        "model": "conv_vae",
        "model.recipe.clip_norm": "0.5",
        "data.batch_size": "128",
        "data.augment": "['random_shift']",
        "validations": "2",
        "samples_seen": "",
        "train_seconds": "",
        "error": "",
        "run_dir": "runs/sweeps/search/trials/0001",
    }
    assert (rows[3]["error"], rows[0]["train_seconds"]) == ("TrainingDiverged: a, b", "75.0")
    assert [trial.number for trial in report.trials] == [1, 0, 2, 4, 3]
    running = report.folder.run_dir(report.folder.trials[4])
    running.mkdir(parents=True)
    with (running / ".lock").open("w") as file:
        lock(file)  # as a training does that has outlived its search
        assert list(csv.DictReader(io.StringIO(report.table())))[4]["status"] == "running"
    report.show()
    shown = capsys.readouterr().out
    assert "paused" in shown and "running" not in shown
    assert "elbo ↑" in shown and "clip_norm" in shown and "1:15" in shown
    assert "trial 3 failed: TrainingDiverged: a, b" in shown


def test_the_best_config_is_an_experiment_that_gives_the_same_config(capsys):
    plan = plan_of(overrides=["budget.samples=640", "logger=tensorboard"])
    report = with_trials(plan)
    report.write()
    printed = capsys.readouterr().out
    assert "python -m lit_aigc.train --config-dir=runs/sweeps/search/conf experiment=best" in printed
    text = Path("runs/sweeps/search/conf/experiment/best.yaml").read_text()
    assert text.splitlines()[1] == "# the best of the sweep search: elbo -104.25, trial 1 of 5"
    again = compose("train", ["--config-dir=runs/sweeps/search/conf", "experiment=best"])
    trial = compose("train", plan.trial_arguments(report.best.values))
    del trial["logger"]  # where a trial was recorded is no part of the result
    assert again == {**trial, "experiment": "best"}
    assert Path("runs/sweeps/search/table.csv").read_text() == report.table()


def test_without_a_trial_that_is_done_there_is_no_best_config():
    report = with_trials(plan_of())
    for trial in report.folder.trials:
        trial.status, trial.value = "failed", None
    report = Report(report.plan)
    report.write()
    assert report.best is None
    assert {path.name for path in Path("runs/sweeps/search").iterdir()} == {"table.csv"}


def test_the_picture_shows_every_trial():
    report = with_trials(plan_of())
    report.write()
    image = Image.open("runs/sweeps/search/search.png").convert("RGB")
    assert image.width > 1000 and image.height > 600
    colours = {colour for _, colour in image.getcolors(1 << 24)}
    for wanted in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):  # done, failed, best
        assert any(sum(abs(a - b) for a, b in zip(colour, wanted, strict=True)) < 12 for colour in colours)


def test_trials_of_one_choice_stand_around_its_tick():
    assert side_by_side([0, 2]) == [0, 2]
    assert side_by_side([1, 0, 1, 1]) == pytest.approx([0.9, 0, 1.0, 1.1])
    crowd = side_by_side([3] * 30)
    assert sum(crowd) / 30 == pytest.approx(3) and max(crowd) < 3.3 and len(set(crowd)) == 30


def test_the_axis_of_the_metric_leaves_out_what_went_astray():
    (low, high), logarithmic = shown_range([1.0, 1.1, 1.2, 1.3, 1.4, 900.0], "minimize")
    assert low < 1.0 and 1.4 < high < 3 and not logarithmic
    (low, high), _ = shown_range([-1.0, -1.1, -1.2, -1.3, -1.4, -900.0], "maximize")
    assert -3 < low < -1.4 and high > -1.0
    assert shown_range([1.0, 5.0, 20.0], "minimize")[1]
    assert shown_range([2.0], "minimize")[0] == pytest.approx((1.9, 2.1))


def test_the_best_so_far():
    trials = [Trial(i, {}, {}, "done" if i != 2 else "pruned", value) for i, value in enumerate([3.0, 4.0, 0.5, 2.0])]
    assert best_so_far(trials, "minimize") == ([0, 1, 3], [3.0, 3.0, 2.0])
    assert best_so_far(trials, "maximize") == ([0, 1, 3], [3.0, 4.0, 4.0])


def test_the_metric_is_the_experiments_monitor_if_the_file_names_none():
    plan = plan_of({**FILE, "metric": None})
    assert (plan.sweep.metric, plan.sweep.goal, plan.validations) == ("elbo", "maximize", 4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"count": 0}, "count is 0"),
        ({"parallel": 0}, "parallel is 0"),
        ({"name": "a/b"}, "name=a/b"),
        ({"overrides": ["seed"]}, "expected key=value"),
        ({"overrides": ["run_dir=x"]}, "overrides can't set run_dir"),
        ({"overrides": ["data.batch_size=2"]}, "overrides sets data.batch_size, which the sweep file searches"),
        ({"overrides": ["budget.sample=2"]}, "unknown key 'budget.sample'"),
        ({"overrides": ["validations=0"]}, "validations=0"),
        ({"count": None}, "count= is missing"),
        ({"file": "missing.yaml"}, "missing.yaml can't be read"),
    ],
)
def test_what_is_refused_before_anything_trains(changes, expected):
    with pytest.raises(InputError, match=expected):
        plan_of(**changes)
    assert not Path("runs").exists()
