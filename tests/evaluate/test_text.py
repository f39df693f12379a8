from __future__ import annotations

import contextlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_aigc.data.text_batching import CarriedOnce, RowReader, SentencesOnce, WindowsOnce
from lit_aigc.errors import InputError
from lit_aigc.evaluate.text import TextOptions, excerpts, measure, same_size
from lit_aigc.modules.language_model import LanguageModel
from lit_aigc.spec import Texts

CHARACTERS = "\0abcd ."
TRAIN = ["abc dab. " * 40, "cab bad. dab abc. " * 10]
VAL = ["dab cab. cab bad. dab dad. " * 30]


class Tokenizer:
    name, vocab_size, lossless = "character", len(CHARACTERS), True

    def to_dict(self):
        return {"tokenizer": self.name}

    def encode(self, text):
        return np.array([CHARACTERS.index(c) for c in text], dtype=np.int32)

    def decode(self, ids):
        return "".join(CHARACTERS[i] for i in ids if i)

    def sizes(self):
        return np.array([[0, 0]] + [[1, 1]] * (len(CHARACTERS) - 1))


class Words(Tokenizer):
    name, lossless = "word", False


class Uniform:
    context = 0

    def new_cache(self, n):
        return None

    def __call__(self, ids, cache=None):
        return torch.zeros(*ids.shape, len(CHARACTERS))


class Parrot:
    """A model that always says the same, of the training text, and then ends."""

    device = torch.device("cpu")
    score = LanguageModel.score

    def __init__(self, text: str = TRAIN[0][:36]) -> None:
        self.network, self.tokenizer, self.text, self.asked = Uniform(), Tokenizer(), text, []

    def evaluating(self):
        return contextlib.nullcontext()

    def sample(self, n, *, condition, noise, **decoding):
        self.asked.append((n, condition.prompts, noise.start, decoding))
        row = [*self.tokenizer.encode(self.text)][: decoding["max_tokens"]]
        return Texts(torch.tensor([[*row, 0, 3]] * n), torch.tensor([len(row)] * n))


class Data:
    stride, eval_batch_size = None, 2

    def __init__(self, val=VAL, train=TRAIN, originals=(), batching="reshuffled") -> None:
        self.by_split, self.batching, self.tokenizer = {"val": val, "train": train}, batching, Tokenizer()
        self.spec, self.foreign = SimpleNamespace(name="toy", fingerprint="f00", shape=(16,)), originals

    def texts(self, split):
        return iter(self.by_split[split])

    def originals(self, split):
        return iter(self.foreign)

    def tokens(self, split):
        return stream(self.by_split[split])

    def evaluation_batches(self, split, evaluation):
        row, reader = self.tokens(split), RowReader(self.tokens(split))
        rows = {
            "windows": lambda: WindowsOnce(row, 16),
            "strided": lambda: WindowsOnce(row, 16, 8),
            "carried": lambda: CarriedOnce(row, 16, 2),
            "sentences": lambda: SentencesOnce(row, 16),
        }[evaluation]()
        return [reader.batch(start, request) for start, request in rows.requests(2)]


def stream(texts):
    return np.array([0, *(int(i) for text in texts for i in [*Tokenizer().encode(text), 0])], dtype=np.uint16)


def subject(module=None, data=None):
    bundle = SimpleNamespace(module=module or Parrot(), spec=SimpleNamespace(name="toy", shape=(16,)))
    return SimpleNamespace(bundle=bundle, datamodule=data or Data())


def measured(module=None, data=None, **options):
    options = {"texts": 4, "decoding": {"max_tokens": 30}, "prompt_tokens": 8} | options
    return measure({"text": options, "seed": 3}, subject(module, data))


def test_the_likelihood_of_a_uniform_model():
    values, protocol = measured(texts=0, protocols=["windows", "strided", "carried"])
    number = len(VAL[0])
    for suffix in ("", "_strided", "_carried"):
        assert values[f"nats_per_token{suffix}"] == pytest.approx(math.log(7))
        assert values[f"nats_per_char{suffix}"] == pytest.approx(math.log(7) * (number + 1) / number)
        assert values[f"bits_per_byte{suffix}"] == pytest.approx(math.log2(7) * (number + 1) / number)
        facts = protocol[f"likelihood{suffix}"]
        assert (facts["tokens"], facts["characters"], facts["split"]) == (number + 1, number, "toy/val")
        exponent = math.log(7) * (number + 1) / (6 * 30 + 1)
        assert values[f"perplexity{suffix}"] == pytest.approx(math.exp(exponent))
    assert protocol["likelihood"]["context"] == 16
    assert protocol["likelihood_strided"]["stride"] == 8
    assert protocol["likelihood_carried"]["rows"] == 2
    assert "generation" not in protocol


def test_of_word_tokens_a_perplexity_is_per_token_and_nothing_is_per_character():
    module, data = Parrot(), Data()
    module.tokenizer = data.tokenizer = Words()
    values, protocol = measured(module, data, texts=0)
    assert set(values) == {"nats_per_token", "bits_per_token", "perplexity"}
    assert values["perplexity"] == pytest.approx(7)
    assert "characters" not in protocol["likelihood"]


def test_a_parrot_is_found_out():
    module = Parrot()
    values, protocol = measured(module)
    assert values["self_bleu"] == pytest.approx(100) and values["self_bleu_real"] < 100
    assert values["copied_4grams"] == values["copied_8grams"] == 1
    assert values["copied_8grams_real"] < values["copied_4grams_real"] < 1
    assert values["longest_copy"] > values["longest_copy_real"] > 0
    assert values["distinct_2"] < values["distinct_2_real"]
    assert values["repetition"] > 0
    assert {f"{key}_real" for key in values if key.startswith("distinct") and not key.endswith("_real")} <= set(values)
    facts = protocol["generation"]
    assert (facts["texts"], facts["prompt_tokens"], facts["temperature"], facts["sample_seed"]) == (4, 8, 1.0, 3)
    ((n, prompts, start, decoding),) = module.asked
    assert (n, start, decoding["max_tokens"], decoding["temperature"]) == (4, 0, 30, 1.0)
    assert [len(prompt) for prompt in prompts] == [8] * 4


def test_a_text_ends_at_the_boundary():
    values, _ = measured(Parrot("ab"))
    assert values["longest_copy"] == 2  # not the tokens after the end


def test_real_text_as_samples_gives_the_figures_of_real_text():
    data = Data()
    taken = excerpts(stream(VAL), TextOptions(texts=4, decoding={"max_tokens": 30}, prompt_tokens=8))

    class Real(Parrot):
        def sample(self, n, **_):
            return Texts(torch.tensor(np.stack([e.rest for e in taken])), torch.full((n,), 30))

    values, _ = measured(Real(), data)
    own = {key: value for key, value in values.items() if f"{key}_real" in values}
    assert len(own) == 8
    assert own == {key: values[f"{key}_real"] for key in own}


def asked(texts, max_tokens, prompt_tokens=None):
    return TextOptions(texts=texts, decoding={"max_tokens": max_tokens}, prompt_tokens=prompt_tokens)


def test_excerpts_of_many_texts_are_their_beginnings():
    texts = [np.arange(1, 4 + i) for i in range(10)]
    row = np.concatenate([np.zeros(1, int), *(np.append(ids, 0) for ids in texts)])
    found = excerpts(row, asked(5, 4))
    assert [len(e.prompt) for e in found] == [0] * 5
    assert [e.rest.tolist() for e in found] == [texts[i][:4].tolist() for i in (0, 2, 4, 6, 8)]


def test_excerpts_of_one_text_are_evenly_from_all_of_it():
    row = np.arange(101)
    found = excerpts(row, asked(4, 10, 5))
    assert [int(e.prompt[0]) for e in found] == [1, 26, 51, 76]
    assert all(np.array_equal(e.rest, np.arange(e.prompt[-1] + 1, e.prompt[-1] + 11)) for e in found)
    assert len(excerpts(row, asked(50, 20, 5))) == 4  # more would overlap
    assert len(excerpts(row, asked(50, 16))[0].prompt) == 32
    with pytest.raises(InputError, match="39 tokens, too few"):
        excerpts(row[:40], asked(4, 30, 5))
    with pytest.raises(InputError, match="0 tokens"):
        excerpts(row[:1], TextOptions())


def test_a_part_goes_no_further_than_the_end_of_its_text():
    row = np.array([0, *range(1, 7), 0, *range(7, 15), 0])
    found = excerpts(row, asked(3, 6, 2))
    assert [e.prompt.tolist() for e in found] == [[1, 2], [8, 9]]
    assert [e.rest.tolist() for e in found] == [[3, 4, 5, 6], [10, 11, 12, 13, 14]]


def test_both_sides_have_as_many_words():
    left, right = same_size(["a b c d e", "a", "x, y"], ["k l", "m n o p", ""])
    assert left == ["", "x,", "a b c d"]
    assert right == ["", "k l", "m n o p"]


def test_translations_are_measured_by_bleu():
    texts = ["abc dab bad cab.", "abc dab bad cab."]
    module = Parrot(texts[0])
    values, protocol = measured(module, Data(val=texts, originals=["ab", "cd"], batching="sentences"))
    assert values == {"bleu": pytest.approx(100)}
    assert "tok:13a" in protocol["bleu"]["signature"]
    assert [prompt.tolist() for prompt in module.asked[0][1]] == [[1, 2], [3, 4]]


def test_sentences_are_scored_one_by_one():
    data = Data(val=["abc.", "dab bad", "cab"], batching="sentences")
    values, protocol = measured(data=data, texts=0)
    assert values["nats_per_token"] == pytest.approx(math.log(7))
    assert protocol["likelihood"]["tokens"] == 4 + 7 + 3 + 3
    assert protocol["likelihood"]["protocol"] == "each sentence on its own"
    with pytest.raises(InputError, match="separate sentences"):
        measured(data=data, texts=0, protocols=["strided"])


def test_other_tokens_than_the_models_are_refused():
    data = Data()
    data.tokenizer = Words()
    with pytest.raises(InputError, match="has other tokens"):
        measured(data=data)


def test_another_context_than_the_models_is_refused():
    data = Data()
    data.spec.shape = (8,)
    with pytest.raises(InputError, match=r"set data.context=16"):
        measured(data=data)


def test_data_is_needed():
    bare = subject()
    bare.datamodule = None
    with pytest.raises(InputError, match="add data=NAME, such as data=toy"):
        measure({"text": {}, "seed": 0}, bare)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("split", "train"),
        ("protocols", "windows"),
        ("protocols", ["window"]),
        ("texts", 1),
        ("texts", 2.5),
        ("prompt_tokens", -1),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(InputError, match=f"text.{option}="):
        TextOptions(**{option: value})


def test_decoding_is_checked_too():
    with pytest.raises(InputError, match="temperature=-1"):
        TextOptions(decoding={"temperature": -1})
