"""Text to ids and back: exactly for characters, bytes and byte pairs, readably for words; damaged files are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_aigc.errors import InputError
from lit_aigc.tokenization.tokenizers import (
    TOKENIZER_FILE,
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
)

ROOT = Path(__file__).parents[2]
TEXTS = [
    "To be, or not to be: that is the question.\n\nWhether 'tis nobler in the mind to suffer\n",
    "def identity(x):\n    return x  # the same\n\n\nthe thing\nthe other thing\n",
    "Grüße aus Köln, 東京 und Ελλάδα 🙂 the end\n",
]
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
MIXED = st.lists(st.one_of(st.sampled_from([*TEXTS, "the ", " ", "\n", "<|endoftext|>"]), UNICODE)).map("".join)


def trained(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.train(TEXTS)
    return tokenizer


LOSSLESS = [trained(CharacterTokenizer()), ByteTokenizer(), trained(BytePairTokenizer(300)), BytePairTokenizer()]
WORDS = [
    trained(WordTokenizer()),
    trained(WordTokenizer(language="any", lower=False)),
    trained(WordTokenizer(language="tokenized")),
]
EVERY = [*LOSSLESS, *WORDS]
NAMES = [f"{index}_{tokenizer.name}" for index, tokenizer in enumerate(EVERY)]
lossless = pytest.mark.parametrize("tokenizer", LOSSLESS, ids=NAMES[: len(LOSSLESS)])
every = pytest.mark.parametrize("tokenizer", EVERY, ids=NAMES)


# -- round trips


@lossless
@given(text=MIXED)
def test_any_unicode_comes_back_exactly_and_its_sizes_add_up(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.sizes()[ids].sum(axis=0).tolist() == [len(text), len(text.encode())]


@lossless
def test_characters_from_everywhere_come_back(tokenizer):
    strided = [*range(0, 0xD800, 11), *range(0xE000, 0x110000, 11)]
    text = "".join(map(chr, [*strided, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xFFFF, 0x10000, 0x10FFFF]))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@every
@given(text=MIXED)
def test_no_text_is_encoded_to_the_boundary(tokenizer, text):
    ids = tokenizer.encode(text + "<|endoftext|>")
    assert ids.min() > 0 and ids.max() < tokenizer.vocab_size


@every
@given(data=st.data())
def test_any_ids_decode_to_text_that_can_be_written(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    text = tokenizer.decode(ids)
    text.encode()
    assert text == tokenizer.decode(np.array(ids)) == tokenizer.decode([0, *(id for id in ids if id), 0])


@every
def test_ids_of_another_tokenizer_are_refused(tokenizer):
    for id in (-1, tokenizer.vocab_size):
        with pytest.raises(InputError, match=f"{id} is not an id of this {tokenizer.name}"):
            tokenizer.decode([1, id])


@every
def test_an_empty_text_has_no_ids(tokenizer):
    ids = tokenizer.encode("")
    assert ids.shape == (0,) and ids.dtype == np.int32
    assert tokenizer.decode([]) == tokenizer.decode([0, 0]) == ""


@every
def test_a_lone_surrogate_is_refused(tokenizer):
    for text in ("ab\ud800", "ab\udcff", "ab\ude42\ud83d"):
        with pytest.raises(InputError, match=r"Character 2 of the text is '\\ud.*not Unicode"):
            tokenizer.encode(text)
        with pytest.raises(InputError, match="surrogate"):
            type(tokenizer)().train(["fine", text])


@every
def test_sizes_are_those_of_what_an_id_stands_for(tokenizer):
    sizes = tokenizer.sizes()
    assert sizes.shape == (tokenizer.vocab_size, 2) and sizes.dtype == np.int64
    assert sizes[0].tolist() == [0, 0]
    assert (sizes[:, 0] <= sizes[:, 1]).all()


# -- characters


def test_characters_are_in_order_after_the_digits():
    tokenizer = CharacterTokenizer()
    assert tokenizer.vocab_size == 33
    tokenizer.train(["cab", "é"])
    assert tokenizer.vocab_size == 37
    assert tokenizer.encode("abcé").tolist() == [33, 34, 35, 36]
    assert tokenizer.sizes()[33:].tolist() == [[1, 1], [1, 1], [1, 1], [1, 2]]


def test_a_character_that_training_never_saw_is_written_as_the_digits_of_its_bytes():
    tokenizer = CharacterTokenizer()
    tokenizer.train(["ab"])
    assert tokenizer.unknown("a€b€Z") == ["€", "Z"]
    high, low = 1, 17
    euro = [high + 0xE, low + 0x2, high + 0x8, low + 0x2, high + 0xA, low + 0xC]  # E2 82 AC
    assert tokenizer.encode("a€b").tolist() == [33, *euro, 34]
    assert tokenizer.sizes()[euro].tolist() == [[1, 1], [0, 0], [0, 1], [0, 0], [0, 1], [0, 0]]
    assert tokenizer.decode(euro[:4]) == "\ufffd"
    assert tokenizer.decode([33, euro[0], 34]) == "a\ufffdb"  # one digit alone
    assert tokenizer.decode([euro[1], euro[0], 33]) == "\ufffd\ufffda"  # in the wrong order
    assert tokenizer.decode([euro[2], euro[3], *euro]) == "\ufffd€"


def test_training_again_replaces_what_was_learned():
    for tokenizer in (CharacterTokenizer(), WordTokenizer(), BytePairTokenizer(300)):
        tokenizer.train(["something else altogether"] * 3)
        assert trained(tokenizer).to_dict() == trained(type(tokenizer)(**options_of(tokenizer))).to_dict()


def options_of(tokenizer: Tokenizer) -> dict:
    return {"vocab_size": tokenizer.largest} if isinstance(tokenizer, BytePairTokenizer) else {}


# -- bytes


def test_bytes_are_their_values_and_one():
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 257
    assert tokenizer.encode("aé").tolist() == [98, 0xC3 + 1, 0xA9 + 1]
    assert tokenizer.decode([0xC3 + 1, 98]) == "\ufffda"
    assert tokenizer.sizes()[[98, 0xC4, 0xAA]].tolist() == [[1, 1], [1, 1], [0, 1]]


# -- words


def test_words_are_those_of_torchtext_the_frequent_first():
    tokenizer = WordTokenizer()
    tokenizer.train(["The dog, the cat.", "A dog; the end"])
    assert tokenizer.to_dict()["words"] == ["the", "dog", ",", ".", "a", "cat", "end"]
    ids = tokenizer.encode("The CAT, a bird.")
    assert ids.tolist() == [2, 7, 4, 6, 1, 5]
    assert tokenizer.decode([0, *ids, 0]) == "the cat, a <unk>."
    assert tokenizer.unknown("the bird and the bird") == ["bird", "and"]
    assert tokenizer.sizes()[2:5].tolist() == [[3, 3], [3, 3], [1, 1]]
    assert not tokenizer.lossless and tokenizer.separator == " "


def test_rare_words_and_those_past_the_size_are_unknown():
    tokenizer = WordTokenizer(minimum_frequency=2)
    tokenizer.train(["a a a b b c"])
    assert tokenizer.to_dict()["words"] == ["a", "b"]
    tokenizer = WordTokenizer(vocab_size=3)
    tokenizer.train(["a a a b b c"])
    assert tokenizer.vocab_size == 3 and tokenizer.unknown("a b c") == ["b", "c"]
    with pytest.raises(InputError, match="No word of the text occurs 9 times"):
        WordTokenizer(minimum_frequency=9).train(["a a a"])


def test_words_of_other_languages_and_of_tokenized_text():
    tokenizer = WordTokenizer(language="any", lower=False)
    tokenizer.train(["Zwei Männer grüßen: „Wie geht's?“ Zwei."])
    assert tokenizer.unknown("zwei Männer, geht's") == ["zwei", ","]
    assert tokenizer.decode(tokenizer.encode("Zwei Männer grüßen : Wie geht's ?")) == "Zwei Männer grüßen: Wie geht's?"
    tokenizer = WordTokenizer(language="tokenized")
    tokenizer.train(["He said @-@ <unk> ( no ) , didn 't he"])
    text = "he said @-@ <unk> ( no ) , didn 't he"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown(text) == []


@pytest.mark.parametrize("tokenizer", WORDS, ids=["basic_english", "any", "tokenized"])
@given(data=st.data())
def test_known_words_come_back_from_what_they_are_decoded_to(tokenizer, data):
    words = st.integers(2, tokenizer.vocab_size - 1)
    ids = data.draw(st.lists(words))
    assert tokenizer.encode(tokenizer.decode(ids)).tolist() == ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_frequency": 0}, "minimum_frequency=0: expected at least 1"),
        ({"vocab_size": 2}, "vocab_size=2: expected at least 3"),
        ({"language": "klingon"}, "language=klingon: expected one of basic_english, any, tokenized"),
        ({"lower": False}, "set language=any"),
    ],
)
def test_word_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        WordTokenizer(**options)


# -- byte pairs


def test_byte_pairs_join_what_is_frequent():
    tokenizer = BytePairTokenizer(260)
    tokenizer.train(["banana banana banana"])
    pieces = [tokenizer.decode([id]) for id in range(257, tokenizer.vocab_size)]
    assert pieces == ["an", "ban", "ana"]  # of equal frequency, the pair of the smaller ids
    assert tokenizer.encode("banana").tolist() == [258, 259]
    assert tokenizer.sizes()[257:].tolist() == [[2, 2], [3, 3], [3, 3]]


def test_the_boundary_in_a_text_is_text():
    tokenizer = BytePairTokenizer(400)
    tokenizer.train(["<|endoftext|>" * 50])
    assert tokenizer.decode(tokenizer.encode("<|endoftext|>")) == "<|endoftext|>"
    assert 0 not in tokenizer.encode("a<|endoftext|>b")


def test_byte_pairs_are_the_same_in_any_order_and_process():
    expected = LOSSLESS[2].to_dict()
    tokenizer = BytePairTokenizer(300)
    tokenizer.train(reversed(TEXTS))
    assert tokenizer.to_dict() == expected
    code = (
        "import json, sys; from lit_aigc.tokenization.tokenizers import BytePairTokenizer;"
        "tokenizer = BytePairTokenizer(300);"
        "tokenizer.train(json.loads(sys.argv[1])); print(json.dumps(tokenizer.to_dict()))"
    )
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-c", code, json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("size", [256, 0, -1, (1 << 20) + 1])
def test_byte_pairs_need_a_sensible_size(size):
    with pytest.raises(InputError, match="expected 257"):
        BytePairTokenizer(size)


# -- training


@pytest.mark.parametrize("kind", [CharacterTokenizer, ByteTokenizer, WordTokenizer, BytePairTokenizer])
def test_training_needs_text(kind):
    for texts in ([], [""], iter(["", ""])):
        with pytest.raises(InputError, match="There is no text to train the tokenizer on"):
            kind().train(texts)
    with pytest.raises(TypeError, match="not one text"):
        kind().train("text")


@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer, BytePairTokenizer])
def test_texts_may_be_a_generator(kind):
    tokenizer = kind()
    tokenizer.train(text for text in TEXTS)
    assert tokenizer.to_dict() == trained(kind()).to_dict()


# -- files


@every
@given(text=MIXED)
@settings(max_examples=30)
def test_a_saved_tokenizer_is_the_same(tmp_path_factory, tokenizer, text):
    directory = tmp_path_factory.getbasetemp() / "saved"
    tokenizer.save(directory)
    loaded = load_tokenizer(directory)
    assert type(loaded) is type(tokenizer)
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert (loaded.sizes() == tokenizer.sizes()).all()
    assert [path.name for path in directory.iterdir()] == [TOKENIZER_FILE]


def test_where_no_tokenizer_is(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
            load_tokenizer(place)


def file(kind: str, **facts) -> str:
    return json.dumps({"format": 1, "tokenizer": kind, **facts})


WORD = {"language": "basic_english", "lower": True}


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "3", "null", '"text"', "{}", "[" * 100_000, '{"format": 1}',
        '{"format": 2, "tokenizer": "byte"}',
        '{"tokenizer": "byte"}', file("os.system"), file("lit_aigc.tokenization.tokenizers.ByteTokenizer"),
        file([]), file({}),
        file(None), file("character"), file("character", characters="ba"), file("character", characters="aa"),
        file("character", characters=["a"]), file("character", characters=3), file("character", characters="\ud800"),
        file("character", characters=None), file("word"), file("word", **WORD), file("word", **WORD, words="ab"),
        file("word", **WORD, words={"a": 1}), file("word", **WORD, words=["a", "a"]), file("word", **WORD, words=[1]),
        file("word", **WORD, words=["a b"]), file("word", **WORD, words=[""]), file("word", **WORD, words=["<unk>"]),
        file("word", **WORD, words=["<|endoftext|>"]), file("word", **WORD, words=["\ud800"]),
        file("word", language="os", lower=True, words=["a"]), file("word", language=["any"], lower=True, words=["a"]),
        file("word", language="any", lower="yes", words=["a"]), file("word", words=["a"], lower=True),
        file("byte_pair"), file("byte_pair", pairs=3), file("byte_pair", pairs=[[1]]), file("byte_pair", pairs=["ab"]),
        file("byte_pair", pairs=[[1, 2, 3]]), file("byte_pair", pairs=[[1, 257]]), file("byte_pair", pairs=[[0, 1]]),
        file("byte_pair", pairs=[[-1, 1]]), file("byte_pair", pairs=[[1.0, 2]]), file("byte_pair", pairs=[[True, 2]]),
        file("byte_pair", pairs=[[10**30, 2]]), file("byte_pair", pairs={"ab": 1}),
        file("byte_pair", pairs=[[1, 1], *([id, id] for id in range(257, 400))]),  # 2 to the power of 144 bytes
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / TOKENIZER_FILE).write_text(content)
    with pytest.raises(InputError, match=r"The tokenizer .*tokenizer\.json can't be read: .+"):
        load_tokenizer(tmp_path)


def test_a_huge_file_or_vocabulary_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_aigc.tokenization.tokenizers._LARGEST_FILE", 1 << 20)
    LOSSLESS[0].save(tmp_path)
    with (tmp_path / TOKENIZER_FILE).open("a") as opened:
        opened.write(" " * (1 << 20))
    with pytest.raises(InputError, match="larger than 1 MB"):
        load_tokenizer(tmp_path)
    monkeypatch.setattr("lit_aigc.tokenization.tokenizers._MOST_IDS", 100)
    (tmp_path / TOKENIZER_FILE).write_text(file("word", **WORD, words=[str(number) for number in range(99)]))
    with pytest.raises(InputError, match="more than 100 ids"):
        load_tokenizer(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / TOKENIZER_FILE).write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="can't be read"):
        load_tokenizer(tmp_path)


def test_importing_it_imports_neither_torch_nor_the_libraries():
    code = (
        "import sys, lit_aigc.tokenization.tokenizers; print({'torch', 'torchtext', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"
