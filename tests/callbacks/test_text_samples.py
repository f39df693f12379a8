"""Samples of text at validation, and that what is of images steps aside for text."""

from __future__ import annotations

import contextlib
import types

import pytest
import torch

from lit_aigc.callbacks.generative_metrics import GenerativeMetrics
from lit_aigc.callbacks.neighbors import NearestNeighbors
from lit_aigc.callbacks.reconstructions import Reconstructions
from lit_aigc.callbacks.sample_grid import SampleGrid
from lit_aigc.callbacks.text_samples import TextSamples
from lit_aigc.errors import InputError
from lit_aigc.noise import Noise
from lit_aigc.spec import DataSpec, TextBatch, Texts
from lit_aigc.tokenization.tokenizers import CharacterTokenizer


class Model:
    """Writes the last letter of its prompt as often as its noise says, in capitals without averaged weights."""

    samples_seen = 640
    progress = 1.0
    spec = DataSpec("text", (8,), vocab_size=5)
    translates = False

    def __init__(self):
        self.tokenizer = CharacterTokenizer()
        self.tokenizer.train(["abAB"])
        self.live = True
        self.asked = []

    @contextlib.contextmanager
    def averaged(self):
        self.live = False
        yield
        self.live = True

    def sample(self, n, *, condition, noise, **options):
        self.asked.append((n, noise, options))
        lengths = noise.integers(n, 3) + 1
        letters = [self.tokenizer.decode(prompt.tolist()[-1:]) or "a" for prompt in condition.prompts]
        text = "".join(letters).upper() if self.live else "".join(letters)
        ids = torch.from_numpy(self.tokenizer.encode(text)).long()[:, None].expand(n, 3)
        return Texts(torch.where(torch.arange(3) < lengths[:, None], ids, 0), lengths)


class TextLogger:
    def __init__(self):
        self.texts = []

    def log_texts(self, key, texts, step):
        self.texts.append((key, texts, step))


def make_trainer(folder, **facts):
    known = {"default_root_dir": str(folder), "is_global_zero": True, "sanity_checking": False}
    return types.SimpleNamespace(**known | facts, loggers=[TextLogger()])


def test_texts_of_the_averaged_weights_are_written_and_logged(tmp_path):
    model, trainer = Model(), make_trainer(tmp_path)
    TextSamples(n=2, prompts=["", "ab"], max_tokens=7, temperature=0.5, seed=3).on_validation_end(trainer, model)
    counts = (Noise(3).integers(4, 3) + 1).tolist()
    expected = ["a" * counts[0], "a" * counts[1], "ab" + "b" * counts[2], "ab" + "b" * counts[3]]
    assert trainer.loggers[0].texts == [("samples", expected, 640)]
    (path,) = (tmp_path / "samples").iterdir()
    assert path.name == "0000000640.txt"
    shown = "\n".join(f"── {i} ──\n{text}\n" for i, text in enumerate(expected))
    assert path.read_text(encoding="utf-8") == f"640 samples seen\n\n{shown}"
    assert model.live, "left with live weights"
    ((n, noise, options),) = model.asked
    assert (n, noise) == (4, Noise(3))
    assert options == {"max_tokens": 7, "temperature": 0.5, "top_k": None, "top_p": 1.0}


@pytest.mark.parametrize("facts", [{"is_global_zero": False}, {"sanity_checking": True}])
def test_only_rank_0_writes_and_not_in_the_sanity_check(tmp_path, facts):
    model = Model()
    TextSamples().on_validation_end(make_trainer(tmp_path, **facts), model)
    assert model.asked == [] and not list(tmp_path.iterdir())


class Translating(Model):
    """Says the last letter of what it translates."""

    translates = True


def test_a_translator_translates_the_first_validation_texts(tmp_path):
    model = Translating()
    a, b = (int(model.tokenizer.encode(letter)[0]) for letter in "ab")
    batches = [TextBatch(None, None, 0, source=torch.tensor([[a, b, 0, 0], [b, b, a, 0]]))] * 2
    trainer = make_trainer(tmp_path, datamodule=types.SimpleNamespace(val_dataloader=lambda: batches))
    TextSamples(n=1, originals=3).on_validation_end(trainer, model)
    one, two, three = (Noise(0).integers(3, 3) + 1).tolist()
    expected = ["ab\n→ " + "b" * one, "bba\n→ " + "a" * two, "ab\n→ " + "b" * three]
    assert trainer.loggers[0].texts == [("samples", expected, 640)]


def test_models_of_images_get_no_text(tmp_path):
    model = Model()
    model.spec = DataSpec("image", (1, 8, 8))
    callback = TextSamples(prompts=["é"])
    callback.on_fit_start(make_trainer(tmp_path), model)
    callback.on_validation_end(make_trainer(tmp_path), model)
    assert model.asked == [] and not list(tmp_path.iterdir())


def test_wrong_options_show_before_training(tmp_path):
    with pytest.raises(InputError, match="never saw in training: 'é'"):
        TextSamples(prompts=["a", "é"]).on_fit_start(make_trainer(tmp_path), Model())
    for options in ({"n": 0}, {"prompts": []}, {"prompts": "ROMEO:"}):
        with pytest.raises(InputError, match=r"callbacks\.text_samples=null"):
            TextSamples(**options)
    with pytest.raises(InputError, match="top_p=0"):
        TextSamples(top_p=0)


@pytest.mark.parametrize(
    "callback",
    [SampleGrid(), Reconstructions(), GenerativeMetrics(), NearestNeighbors()],
    ids=lambda callback: type(callback).__name__,
)
def test_what_is_of_images_steps_aside_for_text(tmp_path, callback):
    model, trainer = Model(), make_trainer(tmp_path)
    model.encode = model.decode = model.reconstruct = None
    callback.setup(trainer, model, "fit")
    callback.on_validation_epoch_end(trainer, model)
    callback.on_validation_end(trainer, model)
    callback.on_train_end(trainer, model)
    assert model.asked == [] and not list(tmp_path.iterdir())
    assert getattr(callback, "_network", None) is None
    assert not hasattr(callback, "summary") or callback.summary() == {}
