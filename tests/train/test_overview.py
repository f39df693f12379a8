"""What `train` says before the first batch."""

from __future__ import annotations

import re

import pytest

from tests.conftest import TINY
from tests.reliability.runs import arguments


def said(out: str) -> dict[str, str]:
    """The facts above the first blank line, by their word."""
    lines = out.partition("\n\n")[0].splitlines()
    return dict(re.split(r"  +", line, maxsplit=1) for line in lines)


def test_a_run_of_images_says_what_it_is(command, tmp_path):
    outcome = command("train", *TINY, "budget.batches=1", "seed=7", f"run_dir={tmp_path}/run")
    facts = said(outcome.out)
    assert facts.pop("device").startswith("CPU, ")
    assert facts == {
        "experiment": "dcgan_mnist5k, seed 7",
        "data": "mnist5k; images 4,000 train, 500 val, 500 test; 28x28, gray; 10 classes",
        "generator": "Generator, 7,168 parameters",
        "discriminator": "Discriminator, 6,369 parameters",
        "precision": "32-true",
        "budget": "1 batches, 8 in a batch",
        "run folder": str(tmp_path / "run"),
    }
    assert outcome.out.index("run folder") < outcome.out.index("samples_seen")


@pytest.mark.parametrize("family", ["gpt", "seq2seq"])
def test_a_run_of_text_says_its_tokens(command, tmp_path, monkeypatch, family):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outcome = command("train", *arguments(family, tmp_path), "budget.batches=1", f"run_dir={tmp_path}/run")
    facts = said(outcome.out)
    assert re.fullmatch(
        r"\w+; tokens [\d,]+ train, [\d,]+ val, [\d,]+ test; vocabulary \d+, context \d+; from .*", facts["data"]
    )
    assert "parameters" in facts["network"]
