"""TextData: its spec, its cache, its batches on any number of ranks, resuming, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_aigc.build import instantiate
from lit_aigc.data.corpora import Corpus, Multi30k, PyDocs, TinyShakespeare
from lit_aigc.data.text import TextData
from lit_aigc.data.text_cleaning import Cleaning
from lit_aigc.data.text_files import TextFiles
from lit_aigc.data.text_pieces import Piece
from lit_aigc.errors import InputError
from lit_aigc.spec import TextBatch
from lit_aigc.tokenization.tokenizers import BytePairTokenizer, ByteTokenizer, CharacterTokenizer, WordTokenizer

SPLITS = ("train", "val", "test")


@dataclasses.dataclass
class Made:
    """Documents from nowhere."""

    train: tuple[str, ...] = tuple(f"train text {i} " * (1 + i % 3) for i in range(50))
    val: tuple[str, ...] = tuple(f"held out {i}" for i in range(9))
    test: tuple[str, ...] = ("a test", "", "another ¡test!")
    originals: bool = False
    name: str = "made"

    def problems(self, root: str | None) -> list[str]:
        return []

    def read(self, root: str | None) -> Corpus:
        texts = {split: getattr(self, split) for split in SPLITS}
        splits = {split: lambda texts=texts[split]: map(Piece, texts) for split in SPLITS}
        originals = {split: lambda texts=texts[split]: (Piece(f"<{text}>") for text in texts) for split in SPLITS}
        return Corpus(splits, repr(self), originals if self.originals else {})


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lit_aigc" / "text"


def make(source: object = None, tokenizer: object = None, **options: object) -> TextData:
    options = {"context": 12, "batch_size": 8, "eval_batch_size": 3, **options}
    return TextData(source or Made(), tokenizer or CharacterTokenizer(), **options)


def at(data: TextData, rank: int, world_size: int) -> TextData:
    """The data module as it is on one of several ranks."""
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, training=False)
    return data


def targets(batch: TextBatch) -> list[int]:
    found = batch.ids[:, 1:]
    return (found if batch.mask is None else found[batch.mask]).flatten().tolist()


def test_the_spec_is_there_before_any_trainer() -> None:
    data = make()
    spec = data.spec
    assert (spec.modality, spec.shape, spec.name) == ("text", (12,), "made")
    assert spec.vocab_size == data.tokenizer.vocab_size
    assert spec.value_range == (0, spec.vocab_size - 1)
    assert len(spec.fingerprint) == 32


def test_a_split_is_its_documents_between_boundaries() -> None:
    data = make()
    for split in SPLITS:
        ids = data.tokens(split)
        assert ids[0] == ids[-1] == 0
        parts = np.split(ids, np.flatnonzero(ids == 0)[1:])[:-1]
        assert [data.tokenizer.decode(part) for part in parts] == list(getattr(Made(), split))
    assert data.report["train_tokens"] == sum(map(len, Made().train))
    assert data.report["documents"] == 62
    with pytest.raises(InputError, match="there is train, val, test"):
        data.tokens("valid")


def test_the_tokenizer_learns_from_training_only() -> None:
    data = make()
    _ = data.spec
    assert data.tokenizer.unknown("train held ¡") == ["h", "l", "d", "¡"]


def test_a_given_tokenizer_is_taken_as_it_is() -> None:
    tokenizer = CharacterTokenizer()
    tokenizer.train(["held out train text 0123456789"])
    data = make()
    data.use_tokenizer(tokenizer)
    assert data.spec.vocab_size == tokenizer.vocab_size != make().spec.vocab_size
    assert data.tokenizer is tokenizer
    assert data.tokenizer.decode(data.tokens("val")[:11]) == "held out 0"
    with pytest.raises(RuntimeError):
        data.use_tokenizer(tokenizer)


def test_the_text_is_encoded_once(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    first = make()
    _ = first.spec
    monkeypatch.setattr(CharacterTokenizer, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(CharacterTokenizer, "encode", lambda *_: pytest.fail("encoded again"))
    again = make(batching="crops", batch_size=2, context=5, seed=9)
    assert np.array_equal(again.tokens("val"), first.tokens("val"))
    assert again.report == first.report
    assert list(again.texts("test")) == list(first.texts("test")) == ["a test", "another ¡test!"]
    for other in (make(Made(test=("x",))), make(cleaning=Cleaning()), make(tokenizer=WordTokenizer())):
        if not isinstance(other.tokenizer, WordTokenizer):
            with pytest.raises(pytest.fail.Exception):
                _ = other.spec
        else:
            _ = other.spec
    assert len([place for place in cache_folder.iterdir() if place.is_dir()]) == 2


def test_the_fingerprint_is_of_content_tokenizer_and_preparation() -> None:
    assert make().spec.fingerprint == make(seed=5, batch_size=2, batching="crops").spec.fingerprint
    others = [
        make(Made(test=("x",))),
        make(Made(val=("x",))),
        make(tokenizer=WordTokenizer()),
        make(tokenizer=ByteTokenizer()),
        make(context=13),
        make(cleaning=Cleaning()),
    ]
    assert len({data.spec.fingerprint for data in [make(), *others]}) == 7


@pytest.mark.parametrize("batching", ["crops", "reshuffled", "carried", "sentences"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_and_resuming(batching: str, world_size: int) -> None:
    whole = list(itertools.islice(make(batching=batching).train_dataloader(), 20))
    ranks = [at(make(batching=batching), rank, world_size) for rank in range(world_size)]
    for data in ranks:
        data.start_batch = 7
    for expected, *parts in zip(whole[7:], *[data.train_dataloader() for data in ranks], strict=False):
        assert torch.equal(torch.cat([part.ids for part in parts]), expected.ids)
        assert parts[0].start == expected.start
        assert {part.carried for part in parts} == {expected.carried}


@pytest.mark.parametrize("evaluation", ["windows", "strided", "carried", "sentences"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_target_of_a_split_counts_once(evaluation: str, world_size: int) -> None:
    for name in SPLITS:
        found = []
        for rank in range(world_size):
            data = at(make(evaluation=evaluation), rank, world_size)
            loader = data.evaluation_batches(name, rank, world_size)
            if name != "train":
                loader = data.val_dataloader() if name == "val" else data.test_dataloader()
            parts = list(loader)
            assert len(parts) == len(loader) > 0
            found += itertools.chain.from_iterable(map(targets, parts))
        assert sorted(found) == sorted(data.tokens(name)[1:].tolist())


def test_a_protocol_can_be_asked_for_by_name() -> None:
    data = make(stride=3)
    assert next(iter(data.evaluation_batches("val"))).mask is None
    strided = list(data.evaluation_batches("val", evaluation="strided"))
    assert strided[1].mask.sum(1).tolist() == [3, 3, 3]
    with pytest.raises(InputError, match="expected windows, strided, carried, sentences"):
        data.evaluation_batches("val", evaluation="sliding")


def test_sentences_need_no_context() -> None:
    data = make(tokenizer=ByteTokenizer(), batching="sentences", context=None)
    assert data.spec.shape == (max(len(text.encode()) for text in Made().train) + 1,)
    assert data.evaluation == "sentences"
    first = next(iter(data.val_dataloader()))
    assert [data.tokenizer.decode(row) for row in first.ids.numpy()] == ["held out 0", "held out 1", "held out 2"]


def test_translations_come_with_their_originals() -> None:
    data = make(Made(originals=True), batching="sentences", context=None)
    for batch in [*itertools.islice(data.train_dataloader(), 5), *data.test_dataloader()]:
        for ids, source, real in zip(batch.ids, batch.source, batch.source_mask, strict=True):
            assert data.tokenizer.decode(source.numpy()) == f"<{data.tokenizer.decode(ids.numpy())}>"
            assert source[real][-1] == 0
            assert real.sum() == real.int().argmin() or real.all()
    assert data.tokenizer.unknown("<") == []  # both sides are learned from
    assert list(data.originals("test")) == ["<a test>", "<>", "<another ¡test!>"]
    assert list(make().originals("test")) == []
    with pytest.raises(InputError, match="translations need"):
        _ = make(Made(originals=True), batching="crops").spec


def test_cleaning_is_over_all_splits_and_told(caplog: pytest.LogCaptureFixture) -> None:
    source = Made(train=("one two", "one\x00 two", "three", "caf\udce9", "four!"), val=("three", "val"), test=("Four",))
    data = make(source, cleaning=Cleaning(), context=3)
    assert list(data.texts("train")) == ["one two", "caf\ufffd"]
    assert list(data.texts("val")) == ["three", "val"]
    assert (data.report["exact_duplicates"], data.report["near_duplicates"], data.report["invalid_bytes"]) == (2, 1, 1)
    told = " ".join(caplog.messages)
    assert "2 documents are exact duplicates of others, 1 documents are near duplicates" in told
    assert "1 bytes are not UTF-8" in told


def test_files_that_are_no_text_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(8):
        (tmp_path / f"{number}.bin").write_bytes(b"\0" + bytes([number]))
        (tmp_path / f"{number}.txt").write_text(f"text {number}\n" * 40)
    _ = make(TextFiles(), root=str(tmp_path)).spec
    (told,) = [message for message in caplog.messages if "left out" in message]
    assert "8 files that are not UTF-8 text (0.bin, 1.bin, 2.bin, 3.bin, 4.bin and 3 more)" in told


def test_a_test_that_is_the_validation_text_is_stored_once(tmp_path: Path, cache_folder: Path) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("To be or not to be. " * 50)
    data = make(TinyShakespeare(), root=str(tmp_path), cleaning=Cleaning(near_duplicates=None))
    assert np.array_equal(data.tokens("test"), data.tokens("val"))
    assert len(data.tokens("train")) == 901  # a boundary before it, none where it was cut
    assert list(data.texts("test")) == list(data.texts("val"))
    assert len(list(cache_folder.rglob("*.uint16"))) == 2


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer, ByteTokenizer, BytePairTokenizer])
def test_lossless_tokens_say_what_the_text_says(tokenizer: type) -> None:
    options = {"vocab_size": 300} if tokenizer is BytePairTokenizer else {}
    data = make(PyDocs(), tokenizer(**options))
    for split in SPLITS:
        assert data.tokenizer.decode(data.tokens(split).astype(np.int64)) == "".join(data.texts(split))


def test_a_text_larger_than_the_memory_it_takes(tmp_path: Path) -> None:
    line = np.random.default_rng(0).integers(97, 123, 50_000_000, dtype=np.uint8)
    line[::9] = 32
    (tmp_path / "one_line.txt").write_bytes(line.tobytes())
    data = make(TextFiles(), ByteTokenizer(), root=str(tmp_path / "one_line.txt"), batching="crops")
    data.use_tokenizer(ByteTokenizer())  # loading one reserves 32 MiB
    tracemalloc.start()
    _ = data.spec
    batches = list(itertools.islice(data.train_dataloader(), 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert data.report["train_tokens"] + data.report["val_tokens"] + data.report["test_tokens"] == 50_000_000
    assert np.array_equal(data.tokens("train")[1:1001] - 1, line[:1000])
    assert all(batch.ids.shape == (8, 13) for batch in batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, r"data\.context is 0, expected a whole number, 1 or more"),
        ({"context": None}, r"data\.context=null"),
        ({"batch_size": 0, "eval_batch_size": 2.5}, r"(?s)data\.batch_size is 0.*data\.eval_batch_size is 2\.5"),
        ({"batching": "buckets"}, r"data\.batching=buckets: expected crops, reshuffled, carried, sentences"),
        ({"evaluation": "sliding"}, r"data\.evaluation=sliding"),
        ({"evaluation": "strided", "stride": 13}, r"data\.stride=13 is more than data\.context=12"),
        ({"source": TextFiles()}, r"set data\.root=PATH"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Made(train=()), {}, r"no text in the split train \(documents 12"),
        (Made(val=("", "")), {}, "no text in the split val"),
        (Made(train=("same",), test=("same",)), {"cleaning": Cleaning()}, "split train .*exact_duplicates 1"),
        (Made(train=("short",)), {}, r"6 tokens of training text are fewer than data\.context=12"),
        (
            Made(train=("short",)),
            {"batching": "carried"},
            r"6 tokens of training text are fewer than data\.batch_size=8",
        ),
    ],
)
def test_too_little_text_is_refused(source: Made, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = make(source, **options).spec


def test_a_held_out_split_may_be_shorter_than_the_context() -> None:
    (batch,) = make(Made(val=("text",)), context=100).val_dataloader()
    assert batch.ids.shape == (1, 101)
    assert batch.mask.sum() == 5


def test_processes_that_cannot_share_are_refused() -> None:
    with pytest.raises(InputError, match=r"data\.batch_size=8 is the number of rows .* 3 processes; use 6 or 9"):
        make().check_world_size(3)
    with pytest.raises(InputError, match="1 windows of val are too few for 2 processes"):
        at(make(Made(val=("abc",))), 0, 2).val_dataloader()


def test_it_is_built_from_a_config() -> None:
    node = {
        "_target_": "lit_aigc.data.text.TextData",
        "source": {"_target_": "lit_aigc.data.corpora.PyDocs"},
        "tokenizer": {"_target_": "lit_aigc.tokenization.tokenizers.WordTokenizer", "minimum_frequency": 2},
        "cleaning": {"near_duplicates": None, "min_characters": 20},
    }
    data = instantiate(node)
    assert data.cleaning == Cleaning(near_duplicates=None, min_characters=20)
    assert data.spec.vocab_size > 1000


@pytest.mark.reference_data
def test_words_of_multi30k(reference_data: Path) -> None:
    data = make(
        Multi30k("de", "en"),
        WordTokenizer(2),
        root=str(reference_data),
        batching="sentences",
        context=None,
        batch_size=64,
    )
    batches = list(itertools.islice(data.train_dataloader(), 450))
    real = sum(int(batch.mask.sum()) for batch in batches)
    assert real / sum(batch.mask.numel() for batch in batches) > 0.9  # 0.45 without buckets
    assert sum(len(batch.ids) for batch in data.test_dataloader()) == 1000
    assert len(list(data.originals("test"))) == len(list(data.texts("test"))) == 1000
