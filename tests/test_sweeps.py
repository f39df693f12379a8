"""Every file in sweeps/: its parameters compose and build, its metric is one that the runs log, its budgets end."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
import yaml

from lit_aigc.build import build, resolve
from lit_aigc.callbacks.clock import Budget
from lit_aigc.config.agent_values import overrides_of_agent
from lit_aigc.config.compose import load
from lit_aigc.config.overrides import in_hydras_grammar
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml
from lit_aigc.loggers.csv import read_metrics
from lit_aigc.spec import DataSpec
from lit_aigc.train.run import train

SWEEPS = Path(__file__).parents[1] / "sweeps"
FILES = sorted(SWEEPS.glob("*.yaml"))
COMMAND = ["${env}", "${interpreter}", "-m", "lit_aigc.train", "${args_no_hyphens}"]
each_sweep = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def values(parameter: dict) -> list:
    """What to try of a parameter: all its values, or the ends of its range and a point in between."""
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return parameter["values"]
    low, high = parameter["min"], parameter["max"]
    logarithmic = parameter["distribution"] == "log_uniform_values"
    assert logarithmic or parameter["distribution"] == "uniform"
    return [low, math.sqrt(low * high) if logarithmic else (low + high) / 2, high]


def trials(sweep: dict) -> list[dict]:
    """Trials in which each value to try comes up at least once."""
    choices = {key: values(parameter) for key, parameter in sweep["parameters"].items()}
    longest = max(map(len, choices.values()))
    return [{key: tried[i % len(tried)] for key, tried in choices.items()} for i in range(longest)]


def at(config: dict, key: str) -> object:
    """The value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


@pytest.fixture
def agent(monkeypatch):
    """This process as a child of a sweep agent."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")


def test_there_is_a_sweep_for_each_family_and_each_kind_of_search():
    assert {"dcgan_mnist5k", "conv_vae_mnist5k", "vqvae_mnist5k"} <= {file.stem for file in FILES}
    assert {"gpt_tinyshakespeare", "lstm_tinyshakespeare", "seq2seq_multi30k"} <= {file.stem for file in FILES}
    sweeps = [read_yaml(file) for file in FILES]
    assert {sweep["method"] for sweep in sweeps} == {"random", "grid", "bayes"}
    assert any(sweep["method"] == "bayes" and "early_terminate" in sweep for sweep in sweeps)


@each_sweep
def test_a_sweep_is_one_for_wandb(file):
    sweep = read_yaml(file)
    assert re.match(r"# \w.{9,}", file.read_text())
    assert sweep["name"] == file.stem
    assert sweep["command"] == COMMAND
    assert 1 <= sweep["run_cap"] <= 100
    assert set(sweep["metric"]) == {"name", "goal"}
    for parameter in sweep["parameters"].values():
        assert set(parameter) in ({"value"}, {"values"}, {"distribution", "min", "max"})
        assert values(parameter)
    if sweep["method"] == "grid":
        combinations = itertools.product(*map(values, sweep["parameters"].values()))
        assert len(list(combinations)) == sweep["run_cap"]
    # YAML 1.1 reads 1e-4, without a point, as text: a search between texts is none.
    assert not [number for number in re.findall(r"[\w.+-]+", file.read_text()) if re.fullmatch(r"\d+e-?\d+", number)]


@each_sweep
def test_every_value_arrives_and_builds_and_the_metric_is_monitored(file, agent):
    sweep = read_yaml(file)
    for trial in trials(sweep):
        config = load("train", [f"{key}={value}" for key, value in trial.items()])
        for key, value in trial.items():
            found = at(config, key)
            assert (found, type(found)) == (value, type(value))
        assert {"minimize": "min", "maximize": "max"}[sweep["metric"]["goal"]] == config["monitor_mode"]
        assert config["monitor"] == sweep["metric"]["name"]
        Budget(**config["budget"])
        assert (config["budget"]["minutes"] or 0) <= 30
        assert (config["budget"]["samples"] or 0) <= 1_000_000
        if stop := sweep.get("early_terminate"):
            assert stop["type"] == "hyperband"
            assert config["validations"] > stop["min_iter"] * stop["eta"]  # W&B looks one entry past a bracket
        text = DataSpec("text", (config["data"].get("context") or 32,), vocab_size=65)
        image = DataSpec("image", (1, 28, 28), (-1.0, 1.0), 10, tuple("abcdefghij"))
        spec = text if "text" in config["data"]["_target_"] else image
        assert build(resolve(config["model"], spec), spec).configure_optimizers()


@pytest.mark.slow
@pytest.mark.reference_data
@each_sweep
def test_a_run_logs_the_metric(file, reference_data, tmp_path):
    sweep = read_yaml(file)
    experiment = trials(sweep)[0]["experiment"]
    config = load("train", [f"experiment={experiment}", f"run_dir={tmp_path / 'run'}", "trainer.precision=32-true"])
    config |= {"budget": {"minutes": None, "samples": None, "batches": 1}, "validations": 1}
    wanted = {"generative_metrics": {"num_samples": 64}} if sweep["metric"]["name"].startswith("fid") else {}
    config["callbacks"] = {name: {**config["callbacks"][name], **options} for name, options in wanted.items()}
    train(config)
    assert sweep["metric"]["name"] in read_metrics(tmp_path / "run" / "metrics.csv")


# -- what an agent writes


AWKWARD = [
    ("model.recipe.clip_norm", None),
    ("model.generator_optimizer.lr", 1e-5),
    ("model.generator_optimizer.lr", 1e-4),
    ("model.generator_optimizer.betas", [0.0, 0.99]),
    ("model.regularization.clip_weights", None),
    ("model.recipe.compile", False),
    ("callbacks.generative_metrics.metrics", ["fid", "accuracy"]),
    ("callbacks.curves", None),
    ("logger.wandb.notes", 'wide, deep: "100 %" [a] {b} it\'s\\'),
    ("logger.wandb.notes", "1, 2"),
    ("logger.wandb.tags", ["a, b", "it's", 'say "no"', "None", ""]),
    ("monitor", None),
    ("budget.samples", None),
]


@pytest.mark.parametrize(("key", "value"), AWKWARD)
def test_awkward_values(key, value, agent):
    found = at(load("train", ["logger=wandb", f"{key}={value}"]), key)
    assert (found, type(found)) == (value, type(value))


def test_nested_parameters_change_what_they_name_only(agent):
    nested = {"recipe": {"clip_norm": None, "warmup": 0.1}, "generator_optimizer": {"lr": 1e-5}, "loss": "hinge"}
    found = load("train", [f"model={nested}"])["model"]
    expected = load("train", [])["model"]
    expected["recipe"] |= nested["recipe"]
    expected["generator_optimizer"]["lr"] = 1e-5
    expected["loss"] = "hinge"
    assert found == expected


def test_a_text_with_a_comma_is_no_multirun_and_refused_where_a_number_is_due(agent):
    with pytest.raises(InputError, match="seed=1,2: expected a whole number"):
        load("train", ["seed=1,2"])


def test_hydras_own_grammar_still_works_in_the_command_of_a_sweep(agent):
    arguments = ["budget.samples=null", "model.generator_optimizer.betas=[0.1, 0.9]", "budget={batches: 3}"]
    config = load("train", [*arguments, "logger=wandb", "logger.wandb.notes='a, b'"])
    assert config["budget"] == {"minutes": None, "samples": None, "batches": 3}
    assert config["model"]["generator_optimizer"]["betas"] == [0.1, 0.9]
    assert config["logger"]["wandb"]["notes"] == "a, b"


def test_on_the_command_line_none_is_a_word():
    assert load("train", ["monitor=None"])["monitor"] == "None"


@pytest.mark.parametrize("argument", ["--help", "-m", "--config-dir=x", "no_value"])
def test_what_is_no_override_stays(argument):
    assert overrides_of_agent(argument, lambda _: False) == [argument]


def test_plain_values_in_hydras_grammar():
    assert in_hydras_grammar({"lr": 1e-5, "names": ["a, b", None, True]}) == "{lr:1e-05,names:['a, b',null,true]}"
    assert overrides_of_agent("a={}", lambda _: True) == ["a={}"]
    assert overrides_of_agent("a={'b': {'c.d': (1, 2), 'e': {}}}", lambda _: True) == ["a.b.c.d=[1,2]", "a.b.e={}"]
    assert yaml.safe_load("lr: 1e-4") == {"lr": "1e-4"}, "the trap that the files are checked for"
