"""Generating text by the command: prompts, files, what is printed, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.generate.text import read_prompts, visible
from lit_aigc.modules.language_model import LanguageModel
from lit_aigc.modules.translation import Translator
from lit_aigc.networks.encoder_decoder import EncoderDecoder
from lit_aigc.networks.transformer import Transformer
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import Bundle
from lit_aigc.sampling.tokens import Decoding
from lit_aigc.spec import Condition, DataSpec
from lit_aigc.tokenization.tokenizers import CharacterTokenizer, WordTokenizer

PLAY = "ROMEO: To be, or not! That is the question.\nJULIET: a b c\n"


def language_model(tokenizer, text=PLAY, context=16):
    tokenizer.train([text])
    spec = DataSpec("text", (context,), vocab_size=tokenizer.vocab_size)
    torch.manual_seed(0)
    network = Transformer(spec.vocab_size, spec.shape, width=16, layers=1, heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module = LanguageModel(network, spec).eval()
    module.tokenizer = tokenizer
    return module


@pytest.fixture
def module(monkeypatch):
    """The model in the bundle that commands of this test read."""
    made = language_model(CharacterTokenizer())
    monkeypatch.setattr("lit_aigc.generate.run.load_bundle", lambda *asked: Bundle(made, made.spec, {}))
    return made


@pytest.fixture
def ask(command, module, tmp_path):
    def run(*arguments):
        return command("generate", "bundle=x", f"out={tmp_path / 'out'}", *arguments)

    return run


def files(folder):
    return {file.name: file.read_bytes().decode() for file in sorted(folder.iterdir())}


def drawn(module, prompt, index=0, seed=0, **options):
    ids = torch.tensor(module.tokenizer.encode(prompt), dtype=torch.int64)
    texts = module.sample(1, condition=Condition(prompts=(ids,)), noise=Noise(seed, index), **options)
    return module.tokenizer.decode(texts.ids[0, : int(texts.lengths)].tolist())


def test_files_and_what_is_printed(ask, module, tmp_path):
    outcome = ask("prompt=ROMEO:", "n=3", "max_tokens=20", "temperature=0.8", "top_k=5", "seed=2", "start=4")
    assert outcome.code == 0, outcome.err
    expected = {
        f"{i:06d}.txt": "ROMEO:" + drawn(module, "ROMEO:", i, 2, max_tokens=20, temperature=0.8, top_k=5)
        for i in (4, 5, 6)
    }
    assert files(tmp_path / "out") == expected
    assert len(set(expected.values())) == 3
    for name, text in expected.items():
        assert f"── {name}, from 'ROMEO:' ──\n{text}\n" in outcome.out
    assert outcome.out.endswith(f"3 texts are in {tmp_path / 'out'}\n")


def test_without_a_prompt_texts_start_at_their_beginning(ask, module, tmp_path):
    for arguments in ((), ("prompt=",)):
        outcome = ask("max_tokens=9", *arguments)
        assert "── 000000.txt ──\n" in outcome.out and "1 text is in" in outcome.out
        assert files(tmp_path / "out") == {"000000.txt": drawn(module, "", max_tokens=9)}


def test_a_prompt_is_free_text(ask, tmp_path):
    assert ask("prompt=To be, or not!", "max_tokens=1").code == 0
    assert files(tmp_path / "out")["000000.txt"].startswith("To be, or not!")


def test_many_prompts(ask, module, tmp_path):
    (tmp_path / "prompts.txt").write_text("ROMEO:\n\nJULIET: a\n")
    outcome = ask(f"prompts={tmp_path / 'prompts.txt'}", "n=2", "max_tokens=8")
    assert outcome.code == 0, outcome.err
    texts = files(tmp_path / "out")
    for i, prompt in enumerate(["ROMEO:", "ROMEO:", "JULIET: a", "JULIET: a"]):
        assert texts[f"{i:06d}.txt"] == prompt + drawn(module, prompt, i, max_tokens=8)


def test_a_stream_is_the_text_of_the_file(ask, module, tmp_path):
    outcome = ask("prompt=ROMEO:", "stream=true", "max_tokens=30", "seed=1")
    assert outcome.code == 0, outcome.err
    text = "ROMEO:" + drawn(module, "ROMEO:", seed=1, max_tokens=30)
    assert files(tmp_path / "out") == {"000000.txt": text}
    assert outcome.out == f"{text}\n1 text is in {tmp_path / 'out'}\n"


@pytest.mark.parametrize(
    ("argument", "stop"),
    [
        ("stop=T", ["T"]),
        ("stop=['z, y',T]", ["T"]),
        (r"stop=\n", ["\n"]),
        (r"stop=[T, '\n']", ["T", "\n"]),
        ("stop='\n'", ["\n"]),
    ],
)
def test_stop_strings_on_the_command_line(ask, module, tmp_path, argument, stop):
    ways = {"max_tokens": 60, "temperature": 20.0}  # all characters come
    texts = ((seed, drawn(module, "R", seed=seed, **ways)) for seed in range(100))
    seed, whole = next((seed, text) for seed, text in texts if all(string in text for string in stop))
    outcome = ask("prompt=R", argument, f"seed={seed}", *(f"{name}={value}" for name, value in ways.items()))
    assert outcome.code == 0, outcome.err
    assert files(tmp_path / "out")["000000.txt"] == "R" + whole[: min(map(whole.index, stop))]


def test_words_are_separated_from_their_prompt(monkeypatch, command, tmp_path):
    module = language_model(WordTokenizer(minimum_frequency=1), "the cat sat on the mat . " * 3)
    monkeypatch.setattr("lit_aigc.generate.run.load_bundle", lambda *asked: Bundle(module, module.spec, {}))
    for stream in ("false", "true"):
        ask = ["prompt=the cat", "max_tokens=3", f"stream={stream}", "seed=1"]
        outcome = command("generate", "bundle=x", f"out={tmp_path}", *ask)
        text = files(tmp_path)["000000.txt"]
        assert text == "the cat " + drawn(module, "the cat", seed=1, max_tokens=3)
        assert text in outcome.out


def test_a_long_prompt_keeps_its_last_part_with_a_notice(ask, module, tmp_path):
    outcome = ask("prompt=To be, or not! That is the", "max_tokens=3", "temperature=0")
    assert outcome.code == 0
    assert "has 26 tokens: the model, whose context is 16, continues from the last 15" in outcome.err
    assert files(tmp_path / "out")["000000.txt"].startswith("To be, or not! That is the")
    assert ask("prompt=To be, or not!", "max_tokens=3").err == ""


def test_a_translator_gets_what_it_translates(command, monkeypatch, tmp_path):
    tokenizer = CharacterTokenizer()
    tokenizer.train([PLAY])
    spec = DataSpec("text", (16,), vocab_size=tokenizer.vocab_size)
    torch.manual_seed(0)
    module = Translator(
        EncoderDecoder(spec.vocab_size, width=16, encoder_layers=1, decoder_layers=1, heads=2), spec
    ).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module.tokenizer = tokenizer
    monkeypatch.setattr("lit_aigc.generate.run.load_bundle", lambda *asked: Bundle(module, spec, {}))
    ask = ["bundle=x", f"out={tmp_path}", "beams=3", "max_tokens=12"]
    outcome = command("generate", *ask, "prompt=That is")
    assert outcome.code == 0, outcome.err
    translation = drawn(module, "That is", beams=3, max_tokens=12)
    assert files(tmp_path) == {"000000.txt": translation}
    assert f"── 000000.txt, from 'That is' ──\n{translation}\n" in outcome.out
    refused = command("generate", *ask)
    assert refused.code == 2 and "This model translates: give what to translate" in refused.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prompt=RøMEO Ω"], "The prompt 'RøMEO Ω' has what the model never saw in training: 'ø', 'Ω'"),
        (["temperature=-1"], "temperature=-1: expected 0 (the best token) or more"),
        (["top_p=0", "max_tokens=0"], "max_tokens=0: expected a whole number, 1 or more\ntop_p=0: expected"),
        (["beams=2", "top_k=3"], "beams=2: expected 1"),
        (["n=2", "temperature=0"], "n=2: temperature=0 and beams give the same text each time"),
        (["n=2", "beams=2"], "n=2: temperature=0 and beams"),
        (["n=2", "stream=true"], "stream=true prints one text"),
        (["n=0"], "n=0: expected a whole number, 1 or more"),
        (["stop=[]", "stop=''"], "stop=('',): expected strings that are not empty"),
        (["prompts=nowhere.txt"], "prompts=nowhere.txt can't be read"),
        (["label=0"], "image.label: "),
        (["interpolate=2", "directions=1"], "image.directions, image.interpolate: "),
        (["promt=a"], "unknown key 'promt', did you mean 'prompt'?"),
    ],
)
def test_what_is_refused(ask, tmp_path, arguments, expected):
    outcome = ask(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"lit_aigc.generate: {expected}")
    assert not (tmp_path / "out").exists()


def test_files_of_prompts_that_are_refused(tmp_path):
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "latin").write_bytes("Romeo é\n".encode("latin-1"))
    for name, expected in (("empty", "is empty"), ("latin", "UTF-8"), ("", "can't be read")):
        with pytest.raises(InputError, match=expected):
            read_prompts(None, str(tmp_path / name))
    with pytest.raises(InputError, match="give one of them"):
        read_prompts("a", str(tmp_path / "empty"))


def test_what_a_terminal_would_obey_is_shown():
    assert visible("a\x1b[2Jb\r\n\tc\x7f\x9b") == "a␛[2Jb␍\n\tc␡\ufffd"


def test_the_options_of_decoding_are_keys_of_the_config():
    assert set(load("generate", ["bundle=x"])["text"]["decoding"]) == {
        field.name for field in dataclasses.fields(Decoding)
    }


def test_options_have_their_own_names_and_short_ones():
    short = ["prompt=To be, or not!", "stream=true", "max_tokens=3", "stop=a"]
    nested = ["text.prompt=To be, or not!", "text.stream=true", "text.decoding.max_tokens=3", "text.decoding.stop=a"]
    assert load("generate", ["bundle=x", *short]) == load("generate", ["bundle=x", *nested])
    assert load("generate", ["bundle=x", *short])["text"]["prompt"] == "To be, or not!"
