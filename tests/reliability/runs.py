"""What the tests of this folder share: small runs of each family, faults to inject, comparison bit for bit."""

from __future__ import annotations

import contextlib
import csv
import gzip
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import Image

from lit_aigc.noise import Noise
from tests.equality import assert_equal

FAULT = "tests.reliability.runs.Fault"
OFF = tuple(
    f"callbacks.{name}=null"
    for name in (
        "progress", "sample_grid", "text_samples", "reconstructions", "generative_metrics", "neighbours", "curves",
    )
)  # fmt: skip
IMAGES = (
    "experiment=null", "data=image_folder", "data.image_size=28", "data.channels=1", "data.batch_size=6",
    "data.eval_batch_size=8", "data.resident_gib=0", "data.workers=0", "trainer.accelerator=cpu", "trainer.devices=1",
    "trainer.precision=32-true", *OFF, "log_every=3", "validations=2", "budget.batches=8",
)  # fmt: skip
TEXT = (
    "experiment=null", "data.batch_size=4", "data.eval_batch_size=8", "trainer.accelerator=cpu", "trainer.devices=1",
    "trainer.precision=32-true", *OFF, "log_every=3", "validations=2", "budget.batches=8",
)  # fmt: skip
SUMS = (
    "data=text_files", "data.cleaning=null", "data.context=12", "~data.tokenizer.vocab_size",
    "data.tokenizer._target_=lit_aigc.tokenization.tokenizers.CharacterTokenizer",
)  # fmt: skip
MODELS = {
    "gan": (
        "model=dcgan", "model.generator.channels=4", "model.generator.latent_dim=8", "model.discriminator.channels=4",
        "model.n_critic=2", "data.augment=[random_shift]", "model.recipe.schedule=cosine",
    ),
    "vae": ("model=vae", "model.network.encoder.latent_dim=4", "model.network.encoder.hidden=[8]",
            "model.network.decoder.hidden=[8]"),
    "vqvae": (
        "model=vqvae", "model.network.quantizer.codes=16", "model.network.quantizer.dim=4",
        "model.network.encoder.channels=4", "model.network.encoder.blocks=1", "model.network.decoder.channels=4",
        "model.network.decoder.blocks=1", "model.network.prior.width=8", "model.network.prior.layers=1",
        "model.network.prior.heads=2",
    ),
    "vae_gan": ("model=vae_gan", "model.network.encoder.latent_dim=4", "model.network.encoder.channels=4",
                "model.network.encoder.hidden=8", "model.discriminator.channels=4"),
    "classifier": ("model=classifier", "model.network.width=4"),
    "gpt": ("model=gpt", "model.network.width=16", "model.network.layers=1", "model.network.heads=2",
            "model.network.ngrams=[2]", "model.network.ngram_buckets=64", "model.network.dropout=0.1", *SUMS),
    "lstm": ("model=lstm", "model.network.width=8", "model.network.dropout=0.2",
             "model.network.weight_drop=0.2", "model.network.ngrams=[2]", "model.network.ngram_buckets=64",
             "data.batching=carried", "model.recipe.ema_decay=0.9", *SUMS),
    "seq2seq": ("data=multi30k_en_de", "model=seq2seq", "data.tokenizer.vocab_size=300", "model.network.width=16",
                "model.network.encoder_layers=1", "model.network.decoder_layers=1", "model.network.heads=2",
                "model.network.dropout=0.1"),
}  # fmt: skip
READS_TEXT = ("gpt", "lstm", "seq2seq")


def image_folder(root: Path, each: int = 25) -> Path:
    """Two classes of grey noise, all images different."""
    pixels = Noise(0).integers(2 * each * 784, 256).to(torch.uint8).view(2, each, 28, 28)
    for label, images in enumerate(pixels):
        (root / f"class{label}").mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image.numpy()).save(root / f"class{label}" / f"{i}.png")
    return root


def arguments(family: str, folder: Path) -> list[str]:
    """The command line of a run of a family, less than a second long, on data that are put into the folder."""
    if family not in READS_TEXT:
        root = folder / "images"
        return [*IMAGES, *MODELS[family], f"data.root={root if root.exists() else image_folder(root)}"]
    draw = random.Random(0)
    (folder / "multi30k").mkdir(exist_ok=True)
    words = {"one": "eins", "two": "zwei", "dogs": "Hunde", "cats": "Katzen", "run": "laufen"}
    for split, n in (("train", 200), ("val", 13), ("test_2016_flickr", 9)):
        rows = [draw.choices(list(words), k=draw.randrange(1, 5)) for _ in range(n)]
        for language, texts in {"en": rows, "de": [[words[word] for word in row] for row in rows]}.items():
            lines = "".join(" ".join(row) + "\n" for row in texts)
            (folder / f"multi30k/{split}.{language}.gz").write_bytes(gzip.compress(lines.encode()))
    pairs = [(draw.randrange(10), draw.randrange(10)) for _ in range(300)]
    (folder / "sums.txt").write_text("".join(f"{a}+{b}={a + b}\n" for a, b in pairs))
    return [*TEXT, *MODELS[family], f"data.root={folder if family == 'seq2seq' else folder / 'sums.txt'}"]


def checkpoint(run_dir: Path) -> dict[str, Any]:
    """The content of ``last.ckpt``."""
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizers, averages, counters, results and logged values, bit for bit; all but the clock."""
    first, second = checkpoint(one), checkpoint(other)
    for key in ("state_dict", "optimizer_states", "lit_aigc"):
        assert_equal(first[key], second[key], key)
    assert _logged(one) == _logged(other)


def _logged(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "train_seconds"} for row in csv.DictReader(file)]


class Fault(L.Callback):
    """Does something bad once, at the start of a batch; `kind` is the name of a method.

    Args:
        kind: What.
        once: A file that is made when it happens, and keeps it from happening again.
        batch: How many batches come before.
        path: What it happens to.
    """

    def __init__(self, kind: str, once: str, batch: int = 2, path: str = "") -> None:
        self.kind, self.once, self.batch, self.path = kind, Path(once), batch, path

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if pl_module.batches == self.batch and not self.once.exists():
            self.once.touch()
            getattr(self, self.kind)(pl_module)

    def too_much_memory(self, module: L.LightningModule) -> None:
        torch.empty(2**60)

    def too_much_memory_in_python(self, module: L.LightningModule) -> None:
        bytearray(2**62)

    def killed_worker(self, module: L.LightningModule) -> None:
        for child in multiprocessing.active_children():
            child.kill()
            child.join()

    def vanished_files(self, module: L.LightningModule) -> None:
        shutil.move(self.path, f"{self.path}.away")

    def killed_wandb(self, module: L.LightningModule) -> None:
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError):  # it has ended
                ours = int(status.read_text().rpartition(")")[2].split()[1]) == os.getpid()
                if ours and b"wandb-core" in status.with_name("cmdline").read_bytes():
                    os.kill(int(status.parent.name), signal.SIGKILL)

    def sigterm(self, module: L.LightningModule) -> None:
        _signal_within_the_batch(module, signal.SIGTERM)

    def sigusr1(self, module: L.LightningModule) -> None:
        _signal_within_the_batch(module, signal.SIGUSR1)


def _signal_within_the_batch(module: L.LightningModule, number: int) -> None:
    """Send this process a signal when the first part of the batch, and nothing else of it, has been done."""
    backward = module.manual_backward

    def first(loss: torch.Tensor) -> None:
        backward(loss)
        del module.manual_backward  # the method of the class again
        os.kill(os.getpid(), number)

    module.manual_backward = first
