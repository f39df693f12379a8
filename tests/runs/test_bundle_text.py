"""Bundles of models of text carry their tokenizer."""

from __future__ import annotations

import hashlib
import json

import pytest

from lit_aigc.build import build, resolve
from lit_aigc.config.compose import compose
from lit_aigc.errors import InputError
from lit_aigc.runs.bundle import load_bundle, save_bundle
from lit_aigc.spec import DataSpec
from lit_aigc.tokenization.tokenizers import BytePairTokenizer, ByteTokenizer, CharacterTokenizer, WordTokenizer

TEXTS = ["To be, or not to be: that is the question.", "Grüße, 東京 🙂"]
KINDS = (CharacterTokenizer, ByteTokenizer, WordTokenizer, BytePairTokenizer)


@pytest.fixture
def save(tiny, tmp_path):
    """From a tokenizer to a bundle that holds it; the network doesn't matter here."""
    config = resolve(compose("train", tiny)["model"], DataSpec("image", (1, 28, 28), num_classes=10))

    def save(tokenizer):
        tokenizer.train(TEXTS)
        spec = DataSpec("text", (256,), num_classes=10, vocab_size=tokenizer.vocab_size, name="sonnets")
        module = build(config, spec)
        module.tokenizer = tokenizer
        return save_bundle(tmp_path / "bundle", module, config, spec, {"samples_seen": 5, "seed": 1})

    return save


def seal(directory):
    """Write the hash of the tokenizer as it is now into the manifest, as an attacker would."""
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"]["tokenizer.json"] = hashlib.sha256((directory / "tokenizer.json").read_bytes()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))


def refusal(directory):
    with pytest.raises(InputError) as error:
        load_bundle(directory)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_brings_its_tokenizer_back(save, kind):
    tokenizer = kind()
    loaded = load_bundle(save(tokenizer)).module.tokenizer
    assert type(loaded) is kind
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.encode("to be, 東").tolist() == tokenizer.encode("to be, 東").tolist()


def test_the_tokenizer_is_in_the_manifest_and_a_changed_one_is_refused(save):
    directory = save(CharacterTokenizer())
    assert "tokenizer.json" in json.loads((directory / "manifest.json").read_text())["files"]
    text = (directory / "tokenizer.json").read_text(encoding="utf-8")
    (directory / "tokenizer.json").write_text(text + " ", encoding="utf-8")
    assert "changed after it was written: tokenizer.json" in refusal(directory)
    (directory / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(directory)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1, "tokenizer": "os.system"}', '{"_target_": "os.system"}'])
def test_a_damaged_tokenizer_with_right_hashes_is_refused(save, content):
    directory = save(CharacterTokenizer())
    (directory / "tokenizer.json").write_text(content)
    seal(directory)
    assert "tokenizer.json can't be read" in refusal(directory)


def test_the_tokenizer_of_another_model_is_refused(save):
    directory = save(CharacterTokenizer())
    ByteTokenizer().save(directory)
    seal(directory)
    assert "it has 257 ids, and the model was trained on" in refusal(directory)


def test_the_card_says_how_to_generate_text(save):
    tokenizer = CharacterTokenizer()
    card = (save(tokenizer) / "README.md").read_text(encoding="utf-8")
    assert 'python -m lit_aigc.generate bundle=. prompt="..." n=4 max_tokens=300' in card
    assert f"`sonnets` (vocabulary {tokenizer.vocab_size:,}, context 256" in card


def test_a_model_of_images_has_no_tokenizer(tiny_run):
    assert not (tiny_run / "bundle" / "tokenizer.json").exists()
    assert load_bundle(tiny_run / "bundle").module.tokenizer is None
    assert "bundle=. n=64 out=samples" in (tiny_run / "bundle" / "README.md").read_text(encoding="utf-8")
