"""`recipe.compile` compiles what it can, as one graph each, and refuses the rest. No C++ compiler is asked for here."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.train.run import Run, train
from tests.equality import assert_equal
from tests.reliability.runs import arguments

COMPILE = "model.recipe.compile=true"
SAME = "budget.batches=2", "log_every=1", "validations=1", "trainer.precision=32-true"
SHARDED = "trainer.strategy={_target_: lit_aigc.train.sharding.Sharded}"
NO_DROPOUT = "model.network.dropout=0"


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch):
    """``graphs()``: how many were made. They run eagerly here; one that would have to be broken up is an error."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def start(family: str, folder: Path, name: str, *more: str) -> Run:
    return train(load("train", [*arguments(family, folder), *SAME, *more, f"run_dir={folder}/{name}"]))


def close(one: object, other: object, path: str) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=path)


@pytest.mark.parametrize(("family", "more", "made"), [
    ("gpt", (NO_DROPOUT, "model.network.layers=2"), 1),  # equal blocks share one
    ("seq2seq", (NO_DROPOUT,), 2),
    ("classifier", (), 1),
])  # fmt: skip
def test_a_compiled_network_trains_as_an_eager_one(graphs, tmp_path, family, more, made):
    eager = start(family, tmp_path, "eager", *more)
    assert graphs() == 0
    compiled = start(family, tmp_path, "compiled", *more, COMPILE)
    assert graphs() >= made
    assert_equal(*(dict(run.module.state_dict()) for run in (eager, compiled)), same=close)
    assert_equal(eager.module.results, compiled.module.results, same=close)


def test_compiled_blocks_may_be_split_among_processes(graphs, tmp_path):
    """One process will do."""
    whole = start("gpt", tmp_path, "whole", NO_DROPOUT)
    try:
        parts = start("gpt", tmp_path, "parts", NO_DROPOUT, COMPILE, SHARDED)
    finally:
        torch.distributed.destroy_process_group()
    assert graphs() > 0
    assert_equal(*(dict(run.module.state_dict()) for run in (whole, parts)), same=close)


def test_what_has_no_blocks_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"blocks of a transformer .* Recurrent has none: set model.recipe.compile="):
        start("lstm", tmp_path, "run", COMPILE)
    assert not (tmp_path / "run").exists()
