"""The training of translators, through real runs."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.spec import Condition
from lit_aigc.train.run import train

ROOT = Path(__file__).parents[2]
WORDS = {"one": "eins", "two": "zwei", "three": "drei", "dogs": "Hunde", "cats": "Katzen", "run": "laufen"}
SMALL = (
    "experiment=null", "data=multi30k_en_de", "model=seq2seq", "data.tokenizer.vocab_size=300",
    "model.network.width=16", "model.network.encoder_layers=1", "model.network.decoder_layers=1",
    "model.network.heads=2", "model.network.dropout=0.1", "data.batch_size=8", "data.eval_batch_size=8",
    "callbacks=null", "budget.batches=6", "monitor=nats_per_token", "log_every=2", "validations=1",
    "trainer.precision=32-true",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Arguments of a small data set of translations, word for word."""
    draw = random.Random(0)
    (tmp_path / "multi30k").mkdir()
    for split, n in (("train", 400), ("val", 13), ("test_2016_flickr", 9)):
        rows = [draw.choices(list(WORDS), k=draw.randrange(1, 5)) for _ in range(n)]
        sides = {"en": rows, "de": [[WORDS[word] for word in row] for row in rows]}
        for language, texts in sides.items():
            content = "".join(" ".join(row) + "\n" for row in texts)
            (tmp_path / f"multi30k/{split}.{language}.gz").write_bytes(gzip.compress(content.encode()))
    return [*SMALL, f"data.root={tmp_path}"]


def start(arguments: list[str], *more: str):
    return train(load("train", [*arguments, *more]))


def assert_same_state(one: dict, other: dict, **tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


def test_it_learns_to_translate_and_its_bundle_does(data, tmp_path):
    more = (
        "budget.batches=350",
        "model.label_smoothing=0",
        "data.batch_size=32",
        "model.network.dropout=0",
        "model.network.width=32",
    )
    start(data, *more, "model.recipe.ema_decay=0", f"run_dir={tmp_path}/run")
    module = load_bundle(tmp_path / "run/bundle").module
    originals = ("two dogs run", "cats run", "run three cats one")
    prompts = tuple(torch.from_numpy(module.tokenizer.encode(text)).long() for text in originals)
    texts = module.sample(3, condition=Condition(prompts=prompts), noise=Noise(0), beams=3, max_tokens=20)
    made = [module.tokenizer.decode(ids[:n].tolist()) for ids, n in zip(texts.ids, texts.lengths, strict=True)]
    right = [[WORDS[word] for word in text.split()] for text in originals]
    assert (
        sum(a == b for text, row in zip(made, right, strict=True) for a, b in zip(text.split(), row, strict=False)) > 6
    )
    streamed = "".join(module.stream(prompts[0], noise=Noise(0), temperature=0, max_tokens=20))
    greedy = module.sample(1, condition=Condition(prompts=prompts[:1]), noise=Noise(0), temperature=0, max_tokens=20)
    assert streamed == module.tokenizer.decode(greedy.ids[0, : greedy.lengths[0]].tolist())


def test_the_validation_is_of_every_token_given_its_original(data, tmp_path):
    run = start(data, f"run_dir={tmp_path}/run")
    tokenizer, nats, tokens = run.module.tokenizer, 0.0, 0
    pairs = zip(run.datamodule.texts("val"), run.datamodule.originals("val"), strict=True)
    with torch.no_grad(), run.module.averaged(), run.module.evaluating():
        for text, original in pairs:
            ids = torch.tensor([0, *tokenizer.encode(text), 0])[None]
            source = torch.tensor([*tokenizer.encode(original), 0])[None]
            logits = run.module.network(ids[:, :-1], source, torch.ones_like(source, dtype=torch.bool))
            nats += F.cross_entropy(logits[0].double(), ids[0, 1:], reduction="sum").item()
            tokens += ids.shape[1] - 1
    assert run.summary["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-5)


def test_resumes_to_the_bit(data, tmp_path):
    more = ["budget.batches=8", "model.recipe.accumulate=2"]
    whole = start(data, *more, f"run_dir={tmp_path}/whole")
    start(data, *more, f"run_dir={tmp_path}/parts", "pause_after.batches=3")
    run = train(load("train", [f"resume={tmp_path}/parts"]))
    assert_same_state(whole.module.state_dict(), run.module.state_dict())
    assert_same_state(whole.module.ema.state_dict()["shadow"], run.module.ema.state_dict()["shadow"])


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_batch(data, tmp_path):
    more = ["budget.batches=4", "model.network.dropout=0", "model.matrix_optimizer=null", "model.recipe.warmup=0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    arguments = [*data, *more, f"run_dir={tmp_path}/2", "trainer.devices=2"]
    subprocess.run(
        [sys.executable, "-m", "lit_aigc.train", *arguments], env=environment, cwd=tmp_path, check=True, timeout=300
    )
    one = start(data, *more, f"run_dir={tmp_path}/1")
    two = torch.load(tmp_path / "2/checkpoints/last.ckpt", weights_only=True)
    assert_same_state(one.module.state_dict(), two["state_dict"], rtol=1e-3, atol=1e-4)
    assert two["lit_aigc"]["results"]["nats_per_token"] == pytest.approx(one.summary["nats_per_token"], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.label_smoothing=1.0",), "label_smoothing=1.0"),
        (("data=multi30k", "~data.tokenizer.vocab_size"), "data with originals"),
    ],
)
def test_what_does_not_fit_is_told(data, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        start(data, *arguments, f"run_dir={tmp_path}/run")


def test_a_translation_needs_an_original(data, tmp_path):
    run = start(data, f"run_dir={tmp_path}/run", "budget.batches=1", "validations=0")
    with pytest.raises(InputError, match="0 prompts for 2 texts"):
        run.module.sample(2, noise=Noise(0))
