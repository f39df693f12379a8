"""The training of language models, through real runs."""

from __future__ import annotations

import copy
import csv
import itertools
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
from lit_aigc.losses.language import token_nats
from lit_aigc.noise import Noise
from lit_aigc.optimization.optimizers import hidden_matrices
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.spec import Condition
from lit_aigc.tokenization.tokenizers import CharacterTokenizer
from lit_aigc.train.run import train

ROOT = Path(__file__).parents[2]
GPT = (
    "model=gpt", "model.network.width=16", "model.network.layers=1", "model.network.heads=2",
    "model.network.ngrams=[2]", "model.network.ngram_buckets=64", "model.network.dropout=0.1",
)  # fmt: skip
LSTM = (
    "model=lstm", "model.network.width=8", "model.network.dropout=0.2",
    "model.network.weight_drop=0.2", "model.network.ngrams=[2, 3]", "model.network.ngram_buckets=64",
    "model.network.ngram_dropout=0", "data.batching=carried", "model.recipe.ema_decay=0.9",
)  # fmt: skip
FAMILIES = {"gpt": GPT, "lstm": LSTM, "gru": (*LSTM, "model.network.cell=gru")}


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Arguments of a small text data set: sums, so that there is something to learn."""
    draw = random.Random(0)
    pairs = [(draw.randrange(10), draw.randrange(10)) for _ in range(400)]
    (tmp_path / "sums.txt").write_text("".join(f"{a}+{b}={a + b}\n" for a, b in pairs))
    return [
        "experiment=null", "data=text_files", f"data.root={tmp_path}/sums.txt", "data.cleaning=null",
        "data.tokenizer._target_=lit_aigc.tokenization.tokenizers.CharacterTokenizer", "~data.tokenizer.vocab_size",
        "data.context=12", "data.batch_size=4", "data.eval_batch_size=8", "callbacks=null", "budget.batches=6",
        "trainer.precision=32-true",
        "monitor=nats_per_char", "log_every=2", "validations=1",
    ]  # fmt: skip


def start(arguments: list[str], *more: str):
    return train(load("train", [*arguments, *more]))


def assert_same_state(one: dict, other: dict, **tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_and_leaves_a_bundle_that_writes_the_same(data, tmp_path, family):
    run = start(data, *FAMILIES[family], f"run_dir={tmp_path}/run")
    assert run.exit_code == 0
    row = {k: v for r in csv.DictReader((tmp_path / "run/metrics.csv").open()) for k, v in r.items() if v}
    assert float(row["train/loss"]) > 0 and float(row["train/grad_norm"]) > 0
    bundle = load_bundle(tmp_path / "run/bundle")
    assert bundle.spec.modality == "text" and bundle.module.tokenizer.encode("1+1").tolist()
    prompts = tuple(torch.from_numpy(run.module.tokenizer.encode(p)).long() for p in ("1+", "", "12=1"))
    with run.module.averaged():
        wanted = run.module.sample(3, condition=Condition(prompts=prompts), noise=Noise(0), max_tokens=20)
    written = bundle.module.sample(3, condition=Condition(prompts=prompts), noise=Noise(0), max_tokens=20)
    assert torch.equal(written.ids, wanted.ids) and torch.equal(written.lengths, wanted.lengths)
    alone = bundle.module.sample(1, condition=Condition(prompts=prompts[2:]), noise=Noise(0, 2), max_tokens=20)
    assert torch.equal(alone.ids[0, : alone.lengths[0]], written.ids[2, : written.lengths[2]])
    streamed = "".join(bundle.module.stream(prompts[0], noise=Noise(0), max_tokens=20))
    assert streamed == bundle.module.tokenizer.decode(written.ids[0, : written.lengths[0]].tolist())


def test_it_learns(data, tmp_path):
    more = ("budget.batches=80", "data.batch_size=16", "model.network.dropout=0", "model.network.width=32")
    run = start(data, *GPT, *more, f"run_dir={tmp_path}/run")
    assert run.summary["nats_per_char"] < 1.7  # of 12 characters; all alike would be 2.48


@pytest.mark.parametrize("family", FAMILIES)
def test_the_validation_scores_each_character_once(data, tmp_path, family):
    run = start(data, *FAMILIES[family], f"run_dir={tmp_path}/run")
    text = "".join(run.datamodule.texts("val"))
    stream = torch.tensor(run.datamodule.tokens("val").astype(int))
    nats = 0.0
    with torch.no_grad(), run.module.averaged(), run.module.evaluating():
        for first in range(0, len(stream) - 1, 12):
            ids = stream[first : first + 13]
            logits = run.module.network(ids[None, :-1])
            nats += F.cross_entropy(logits[0].double(), ids[1:], reduction="sum").item()
    summary = run.summary
    assert summary["nats_per_char"] == pytest.approx(nats / len(text), rel=1e-5)
    assert summary["nats_per_token"] == pytest.approx(nats / (len(stream) - 1), rel=1e-5)
    assert summary["bits_per_byte"] == pytest.approx(nats / len(text.encode()) / 0.6931471805599453, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_resumes_to_the_bit(data, tmp_path, family):
    """Also in the middle of an epoch, with the state that is carried on, and where the batch grows."""
    more = [*FAMILIES[family], "budget.batches=9", "model.batch_ramp=[[0.0, 4], [0.4, 2]]"]
    whole = start(data, *more, f"run_dir={tmp_path}/whole")
    for parts in (2, 5, None):
        pause = [f"pause_after.batches={parts}"] if parts else []
        if (tmp_path / "parts").exists():
            run = train(load("train", [f"resume={tmp_path}/parts", *pause]))
        else:
            run = start(data, *more, f"run_dir={tmp_path}/parts", *pause)
    assert (run.module.batches, run.module.generator_updates) == (9, 26)
    assert_same_state(whole.module.state_dict(), run.module.state_dict())
    if whole.module.ema:
        assert_same_state(whole.module.ema.state_dict()["shadow"], run.module.ema.state_dict()["shadow"])
    assert whole.summary["nats_per_char"] == run.summary["nats_per_char"]


@pytest.mark.parametrize("family", ["gpt", "lstm", "sentences"])
def test_parts_of_a_batch_are_the_batch(data, tmp_path, family):
    sentences = ("data.source.documents=lines", "data.batching=sentences", "data.evaluation=sentences")
    more = [*FAMILIES.get(family, (*LSTM, *sentences)), "budget.batches=4", "validations=0", "model.network.dropout=0"]
    more += ["model.network.weight_drop=0"] if family != "gpt" else ["model.matrix_optimizer=null"]
    more += ["trainer.precision=32-true"]  # in bfloat16 the parts are rounded otherwise
    runs = [start(data, *more, f"run_dir={tmp_path}/{n}", f"model.recipe.accumulate={n}") for n in (1, 2)]
    one, two = (run.module.network.state_dict() for run in runs)
    assert_same_state(one, two, rtol=1e-3, atol=1e-4)


def test_a_carried_state_goes_on_from_batch_to_batch(data, tmp_path):
    more = ("model.network.dropout=0", "model.network.weight_drop=0", "model.optimizer.lr=0", "validations=0")
    run = start(data, *LSTM, *more, f"run_dir={tmp_path}/run", "budget.batches=3", "log_every=1")
    batches = iter(run.datamodule.train_dataloader())
    rows = [next(batches) for _ in range(3)]
    joined = torch.cat([rows[0].ids, *(batch.ids[:, 1:] for batch in rows[1:])], dim=1)
    with torch.no_grad(), run.module.evaluating():
        nats = token_nats(run.module.network(joined[:, :-1]), joined[:, 1:])
    logged = [float(r["train/loss"]) for r in csv.DictReader((tmp_path / "run/metrics.csv").open())]
    assert logged == pytest.approx([part.mean().item() for part in nats.split(12, dim=1)], rel=1e-4)


@pytest.mark.parametrize("evaluation", ["windows", "strided", "carried"])
def test_a_protocol_that_gives_more_context_has_its_name_in_the_figures(data, tmp_path, evaluation):
    more = [*LSTM, f"data.evaluation={evaluation}", f"run_dir={tmp_path}/run"]
    if evaluation == "windows":
        run, suffix = start(data, *more), ""
    else:
        with pytest.raises(InputError, match=f"is not measured, did you mean 'nats_per_char_{evaluation}'"):
            start(data, *more)
        run, suffix = start(data, *more, f"monitor=nats_per_char_{evaluation}"), f"_{evaluation}"
    assert {name for name in run.summary if name.startswith("nats_per_char")} == {f"nats_per_char{suffix}"}
    assert (tmp_path / "run/checkpoints/best.ckpt").exists()


@pytest.mark.parametrize("family", ["gpt", "lstm"])
def test_a_new_network_may_start_from_the_frequencies_of_the_tokens(data, tmp_path, family):
    more = [*FAMILIES[family], "model.start_from_frequencies=true", "model.optimizer.lr=0", "budget.batches=2"]
    more += ["model.network.soft_cap=0", "model.network.head_bias=true"] if family == "gpt" else []
    run = start(data, *more, f"run_dir={tmp_path}/run")
    tokens = torch.from_numpy(run.datamodule.tokens("train")[1:].astype(int))
    counts = torch.bincount(tokens, minlength=run.module.spec.vocab_size)
    bias = run.module.network.head.bias.detach()
    torch.testing.assert_close(bias.softmax(dim=0), (counts + 0.5) / (counts + 0.5).sum())
    torch.testing.assert_close(bias.logsumexp(dim=0), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert all(name.startswith("network.") for name in run.module.state_dict())

    started = start(data, *more, f"run_dir={tmp_path}/more", f"init_from={tmp_path}/run/bundle")
    assert torch.equal(started.module.network.head.bias, bias)
    with torch.no_grad():
        bias[0] = 7.0
    started.module.network.head.bias.data.copy_(bias)
    object.__setattr__(started.module.spec, "token_counts", None)  # what has learned something asks for no counts
    started.module.setup("fit")
    assert started.module.network.head.bias[0] == 7.0


@pytest.mark.parametrize("masked", [False, True])
def test_a_ramp_that_does_not_divide_the_batch_takes_all_updates_and_logs_the_loss(data, tmp_path, masked):
    """That is the mean over all targets, as the same weights (the rate is 0) have it on the whole batch."""
    rows = ["1+1+1+1+1+"[: i % 10 + 1] + "\n" for i in range(60)]  # of unequal length
    (tmp_path / "sums.txt").write_text("".join(rows))
    sentences = ("data.source.documents=lines", "data.batching=sentences", "data.evaluation=sentences")
    more = [*GPT, *(sentences if masked else ()), "data.batch_size=9", "budget.batches=2", "log_every=1"]
    more += ["model.network.dropout=0", "model.optimizer.lr=0", "model.matrix_optimizer.lr=0", "validations=0"]
    more += ["model.start_from_frequencies=true", "model.network.head_bias=true"]  # so that tokens differ
    more += ["trainer.precision=32-true"]  # rounding would hide what is tested
    run = start(data, *more, "model.batch_ramp=[[0.0, 4]]", f"run_dir={tmp_path}/run")
    assert run.module.generator_updates == 8
    logged = [float(r["train/loss"]) for r in csv.DictReader((tmp_path / "run/metrics.csv").open())]
    batches = list(itertools.islice(run.datamodule.train_dataloader(), 2))
    assert any(batch.mask is not None and not batch.mask.all() for batch in batches) == masked
    for batch, loss in zip(batches, logged, strict=True):
        with torch.no_grad():
            nats = token_nats(run.module.network(batch.ids[:, :-1]), batch.ids[:, 1:])
        assert loss == pytest.approx((nats[batch.mask] if masked else nats).mean().item(), rel=1e-5)


def test_the_sizes_of_tokens_are_taken_once_from_each_tokenizer(data, tmp_path, monkeypatch):
    taken = []
    sizes = CharacterTokenizer.sizes
    monkeypatch.setattr(CharacterTokenizer, "sizes", lambda self: taken.append(self) or sizes(self))
    run = start(data, *GPT, f"run_dir={tmp_path}/run", "validations=3")
    batches = list(run.datamodule.val_dataloader())
    assert len(batches) > 1 and len(taken) == 1
    run.module.tokenizer = other = copy.deepcopy(run.module.tokenizer)
    for batch in batches[:2]:
        run.module.validation_step(batch, 0)
    assert len(taken) == 2 and taken[1] is other


def test_frequencies_need_a_bias(data, tmp_path):
    with pytest.raises(InputError, match="head_bias=true"):
        start(data, *GPT, "model.start_from_frequencies=true", f"run_dir={tmp_path}/run")


def test_muon_gets_the_hidden_matrices_alone(data, tmp_path):
    run = start(data, *GPT, f"run_dir={tmp_path}/run", "budget.batches=1")
    rest, matrices = run.trainer.optimizers
    assert type(matrices).__name__ == "Muon"
    network = run.module.network
    found = {id(p) for group in matrices.param_groups for p in group["params"]}
    assert found == {id(p) for p in hidden_matrices(network, network.vocab_size)}
    assert len(found) == 4 and id(network.head.weight) not in found and id(network.embedding.weight) not in found
    others = {id(p) for group in rest.param_groups for p in group["params"]}
    assert not found & others and len(found | others) == len(list(network.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt", "lstm", "sentences"])
def test_two_processes_equal_one_on_the_joined_batch(data, tmp_path, family):
    """The loss over rows of different lengths, the state that is carried on, and the validation included."""
    sentences = ("data.source.documents=lines", "data.batching=sentences", "data.evaluation=sentences")
    more = [*FAMILIES.get(family, (*LSTM, *sentences)), "budget.batches=4", "model.network.dropout=0"]
    more += ["model.network.weight_drop=0"] if family != "gpt" else ["model.matrix_optimizer=null"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    arguments = [*data, *more, f"run_dir={tmp_path}/2", "trainer.devices=2"]
    subprocess.run(
        [sys.executable, "-m", "lit_aigc.train", *arguments], env=environment, cwd=tmp_path, check=True, timeout=300
    )
    one = start(data, *more, f"run_dir={tmp_path}/1")
    two = torch.load(tmp_path / "2/checkpoints/last.ckpt", weights_only=True)
    assert_same_state(one.module.state_dict(), two["state_dict"], rtol=1e-3, atol=1e-4)
    for name in ("nats_per_char", "nats_per_token"):
        assert two["lit_aigc"]["results"][name] == pytest.approx(one.summary[name], rel=1e-4)
    if family == "lstm":
        carried = torch.load(tmp_path / "1/checkpoints/last.ckpt", weights_only=True)["carried"]
        assert torch.equal(carried["tail"], two["carried"]["tail"]) and len(carried["tail"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data.batching=carried",), "carried needs a recurrent network"),
        (("model.batch_ramp=[[0.5, 2], [0.1, 1]]",), "batch_ramp.*rising"),
        (("model.batch_ramp=[[0.0, 1], [0.5, 5]]",), "batch_ramp .* 5 updates, .* 4 rows .* larger data.batch_size"),
        (("model.matrix_optimizer.name=Moun",), "did you mean 'Muon'"),
        (("data=mnist5k",), "models tokens"),
    ],
)
def test_what_does_not_fit_is_told(data, tmp_path, arguments, message):
    chosen = [a for a in data if not a.startswith(("data", "~data"))] if "data=mnist5k" in arguments else data
    with pytest.raises(InputError, match=message):
        start(chosen, *GPT, *arguments, f"run_dir={tmp_path}/run")


def test_prompts_must_be_as_many_as_texts(data, tmp_path):
    run = start(data, *GPT, f"run_dir={tmp_path}/run", "budget.batches=1", "validations=0")
    with pytest.raises(InputError, match="1 prompts for 2 texts"):
        run.module.sample(2, condition=Condition(prompts=(torch.tensor([40]),)), noise=Noise(0))
