"""Former names of keys and choices are understood wherever a config comes from."""

import pytest

from lit_aigc.config import aliases
from lit_aigc.config.aliases import current_override, rename_keys
from lit_aigc.config.compose import compose, load
from lit_aigc.files import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("override", "today"),
    [
        ("callbacks.neighbours=null", "callbacks.neighbors=null"),
        ("++callbacks.neighbours.rows=3", "++callbacks.neighbors.rows=3"),
        ("~callbacks.neighbours", "~callbacks.neighbors"),
        ("callbacks.neighbours.neighbours=4", "callbacks.neighbors.neighbors=4"),
        ("callbacks.neighboursome=1", "callbacks.neighboursome=1"),
        ("model=hvae_colour", "model=hvae_color"),
        ("model=vae,hvae_colour", "model=vae,hvae_color"),
        ("run_dir=hvae_colour", "run_dir=hvae_colour"),
        ("--config-dir=callbacks.neighbours", "--config-dir=callbacks.neighbours"),
    ],
)
def test_an_override_gets_the_names_of_today(override, today):
    assert current_override("train", override) == today


def test_keys_belong_to_a_verb():
    assert current_override("evaluate", "callbacks.neighbours=null") == "callbacks.neighbours=null"


def test_the_command_line_takes_former_names():
    former = compose("train", ["model=hvae_colour", "callbacks.neighbours.rows=3"])
    assert former == compose("train", ["model=hvae_color", "callbacks.neighbors.rows=3"])
    assert former["callbacks"]["neighbors"]["rows"] == 3
    assert compose("train", ["callbacks.neighbours=null"])["callbacks"]["neighbors"] is None


@pytest.fixture
def own(tmp_path):
    """A config folder whose experiment names what has another name today."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "old.yaml").write_text(
        "# @package _global_\n# former names\ndefaults:\n  - override /data: cifar10\n"
        "  - override /model: hvae_colour\n  - _self_\n\nbudget: {batches: 1}\n"
        "callbacks: {neighbours: {rows: 3, num_samples: 99, neighbours: 5}}\n"
    )
    return [f"--config-dir={tmp_path}", "experiment=old"]


def test_configs_of_users_take_former_names_and_the_command_line_wins(own):
    config = compose("train", own)
    assert config["model"] == compose("train", ["model=hvae_color"])["model"]
    assert "neighbours" not in config["callbacks"]
    neighbors = config["callbacks"]["neighbors"]
    assert (neighbors["rows"], neighbors["num_samples"], neighbors["neighbors"]) == (3, 99, 5)
    assert "neighbours" not in neighbors
    for name in ("neighbors", "neighbours"):
        neighbors = compose("train", [*own, f"callbacks.{name}.rows=4"])["callbacks"]["neighbors"]
        assert (neighbors["rows"], neighbors["num_samples"]) == (4, 99)
        assert compose("train", [*own, f"callbacks.{name}=null"])["callbacks"]["neighbors"] is None


def test_saved_configs_take_former_names(tmp_path):
    config = compose("train", ["callbacks.neighbors.rows=3"])
    config["callbacks"]["neighbours"] = config["callbacks"].pop("neighbors")
    write_yaml(config, tmp_path / "config.yaml")
    resumed = load("train", [f"resume={tmp_path}"])
    assert resumed["callbacks"]["neighbors"]["rows"] == 3
    assert "neighbours" not in resumed["callbacks"]
    assert "neighbours" in read_yaml(tmp_path / "config.yaml")["callbacks"]


def test_a_flat_key_may_become_a_nested_one(monkeypatch):
    monkeypatch.setattr(aliases, "KEYS", {"generate": {"top_k": "text.top_k", "text.top_k": "text.k"}})
    assert current_override("generate", "top_k=3") == "text.k=3"
    assert rename_keys("generate", {"top_k": 3, "text": {"n": 1}}) == {"text": {"n": 1, "k": 3}}
    assert rename_keys("generate", {"top_k": 3}) == {"text": {"k": 3}}
    assert rename_keys("generate", {"top_k": 3, "text": {"k": 4}}, {"text.k"}) == {"text": {"k": 4}}
    assert rename_keys("generate", {"seed": 3}) == {"seed": 3}


@pytest.mark.parametrize("group", aliases.CHOICES)
def test_a_former_choice_means_one_that_is_there(group):
    for old, new in aliases.CHOICES[group].items():
        assert compose("train", [f"{group}={old}"]) == compose("train", [f"{group}={new}"])
