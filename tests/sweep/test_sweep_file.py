"""Sweep files: what of W&B's format is understood, and what is refused in one message."""

from __future__ import annotations

import pytest

from lit_aigc.config.overrides import in_hydras_grammar, split_arguments
from lit_aigc.errors import InputError
from lit_aigc.sweep.sweep_file import Halving, read_sweep

COMMAND = ["${env}", "${interpreter}", "-m", "lit_aigc.train", "experiment=vae_mnist5k", "${args_no_hyphens}"]


def refusal(path):
    with pytest.raises(InputError) as error:
        read_sweep(path)
    return str(error.value)


def test_a_file_with_all_that_wandb_knows_of(sweep):
    found = sweep(
        program="lit_aigc.train",
        name="n",
        description="d",
        project="p",
        entity="e",
        command=COMMAND,
        method="bayes",
        metric={"name": "fid", "goal": "minimize", "target": 0.5},
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
        run_cap=7,
    )
    assert (found.method, found.metric, found.goal, found.target) == ("bayes", "fid", "minimize", 0.5)
    assert (found.halving, found.run_cap) == (Halving(2, 2), 7)
    assert found.arguments({"model.lr": 0.01, "model.width": 8}) == [
        "experiment=vae_mnist5k",
        "seed=3",
        "model.lr=0.01",
        "model.width=8",
    ]


def test_halving_from_the_longest_run(sweep):
    longest = {"type": "hyperband", "max_iter": 27, "s": 2}
    assert sweep(early_terminate=longest).halving == Halving(3, 3)
    assert sweep(early_terminate={**longest, "s": 9}).halving == Halving(1, 3)
    assert sweep().halving is None


def test_goal_and_metric_have_defaults(sweep):
    assert sweep(metric={"name": "loss"}).goal == "minimize"
    assert sweep(metric=None).metric is None


def test_a_grid_is_every_combination_once(sweep):
    parameters = {"a": {"values": ["x", "y"]}, "b": {"min": 1, "max": 3}, "c": {"value": 0}}
    found = sweep(method="grid", parameters=parameters)
    assert [found.values(point) for point in found.grid()] == [{"a": a, "b": b} for a in "xy" for b in (1, 2, 3)]


def test_what_is_better(sweep):
    assert sweep().is_better(2, 1) and not sweep().is_better(1, 1)
    assert sweep(metric={"name": "loss"}).is_better(1, 2)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        3,
        -2,
        1e-05,
        1e22,
        0.1,
        "dcgan",
        "a/b.c",
        "a, b",
        "it's",
        "",
        [],
        [1, "x, y", None],
        {"a": [1]},
    ],
)
def test_values_come_out_of_hydras_grammar_as_they_went_in(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    _, (argument,) = split_arguments([f"key={in_hydras_grammar(value)}"])
    (override,) = OverridesParser.create().parse_overrides([argument])
    found = override.value()
    plain = found.text if hasattr(found, "text") else found
    assert repr(plain if not isinstance(plain, list) else [getattr(v, "text", v) for v in plain]) == repr(value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metod": "grid"}, "unknown key 'metod', did you mean 'method'?"),
        ({"method": None}, "method is None, expected one of random, grid, bayes"),
        ({"method": "grid"}, "parameters.model.lr: a grid needs values"),
        ({"metric": "elbo"}, "expected name and goal"),
        ({"metric": {"name": "x", "goal": "max"}}, "expected minimize or maximize"),
        ({"metric": {"name": "x", "aim": 1}}, "metric: unknown key 'aim'"),
        ({"metric": {"name": "x", "target": "low"}}, "metric.target is 'low'"),
        ({"early_terminate": {"type": "envelope"}}, "expected {type: hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate.max_iter is None"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "early_terminate.min_iter is 0"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}}, "early_terminate.eta is 1"),
        ({"run_cap": 0}, "run_cap is 0"),
        ({"command": ["python", "other.py"]}, "runs python -m lit_aigc.train"),
        ({"command": ["torchrun", "-m", "lit_aigc.train"]}, "runs python -m lit_aigc.train"),
        ({"command": [*COMMAND, "--seed=1"]}, "'--seed=1' is not of the form key=value"),
        ({"parameters": {"run_dir": {"values": ["a", "b"]}}}, "run_dir can't be set by a sweep"),
        ({"command": [*COMMAND, "resume=x"]}, "resume can't be set by a sweep"),
    ],
)
def test_what_is_refused(sweep_file, changes, expected):
    assert expected in refusal(sweep_file(**changes))


def test_all_problems_come_in_one_message(sweep_file):
    message = refusal(sweep_file(method="magic", run_cap=-1, parameters={"a": {"min": 1}}))
    assert len(message.splitlines()) == 4 and message.startswith(str(sweep_file()))


def test_a_file_that_runs_code_runs_none(tmp_path):
    (tmp_path / "bad.yaml").write_text(f"!!python/object/apply:os.system ['touch {tmp_path / 'canary'}']\n")
    assert "bad.yaml can't be read" in refusal(tmp_path / "bad.yaml")
    assert not (tmp_path / "canary").exists()
    assert "can't be read" in refusal(tmp_path / "missing.yaml")
