"""Images per second of `lit_aigc.train` on DCGAN, 32 px, 32 channels, batch 64, compared with two equivalent loops.

* plain: in the style of common GAN examples: DataLoader with per-sample transforms, NCHW, fp32,
  ``.item()`` every step.
* bare: PyTorch alone with the optimizations of lit_aigc (images resident as uint8, channels_last, fused Adam, the same
  precision, EMA): the difference between the two is the framework's overhead.

The sides alternate in turns of a few seconds within one run, since machines change their speed from minute to minute.
It reports medians of the rates and of the ratios of adjacent turns.

    python benchmarks/training_speed.py [rounds] [precision]
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

import lightning as L
import torch
from torch.nn import functional as F
from torchvision import transforms

from lit_aigc.build import build, instantiate, resolve
from lit_aigc.config.compose import compose
from lit_aigc.machine.precision import fastest_precision, machine_class
from lit_aigc.train.run import train

TURN = 60  # batches
OVERRIDES = [
    "data.image_size=32",
    "model.generator.channels=32",
    "model.discriminator.channels=32",
    "validations=0",
    "callbacks.generative_metrics=null",
    "callbacks.sample_grid=null",
    "callbacks.curves=null",
    "callbacks.neighbors=null",
    "monitor=null",
]


class Turns(L.Callback):
    """Time turns of lit_aigc's own training, and run turns of the other sides in between."""

    def __init__(self, others: dict[str, Iterator[None]], rounds: int, length: int):
        self.others = others
        self.rates = {name: [] for name in ("lit_aigc", *others)}
        self.rounds = rounds
        self.length = length

    def on_train_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, *args):
        if pl_module.batches % self.length:
            return
        self.rates["lit_aigc"].append(time.perf_counter() - self.start)
        for name, side in self.others.items():
            start = time.perf_counter()
            next(side)
            self.rates[name].append(time.perf_counter() - start)
            time.sleep(0.3)  # let a DataLoader's workers fill their queue outside of any turn
        trainer.should_stop = len(self.rates["lit_aigc"]) > self.rounds  # the first is a warm-up
        self.start = time.perf_counter()


def networks(config, spec):
    torch.manual_seed(0)
    module = build(resolve(config["model"], spec), spec)
    return module.generator, module.discriminator


def bare(config, datamodule) -> Iterator[None]:
    generator, discriminator = networks(config, datamodule.spec)
    generator.to(memory_format=torch.channels_last)
    discriminator.to(memory_format=torch.channels_last)
    pixels = torch.cat([b.images for b in datamodule.real_batches("train")]).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.cat([b.labels for b in datamodule.real_batches("train")])
    options = {"lr": 5e-4, "betas": (0.5, 0.999), "fused": True}
    d_optimizer = torch.optim.Adam(discriminator.parameters(), **options)
    g_optimizer = torch.optim.Adam(generator.parameters(), **options)
    averaged = [p.detach().clone() for p in generator.parameters()]
    size = config["data"]["batch_size"]
    bf16 = config["trainer"]["precision"] == "bf16-mixed"

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False)

    order = torch.randperm(len(pixels))
    position = 0
    for batch in itertools.count(1):
        if position + size > len(order):
            order, position = torch.randperm(len(pixels)), 0
        chosen = order[position : position + size]
        position += size
        real, y = pixels[chosen].float().mul_(2 / 255).sub_(1), labels[chosen]
        with autocast():
            fake = generator(torch.randn(size, generator.latent_dim), y)
            pair = discriminator.pair(real, fake.detach().float(), y)
            real_logits, fake_logits = (logits.float() for logits in pair)
            loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        d_optimizer.zero_grad()
        loss.backward()
        d_optimizer.step()
        discriminator.requires_grad_(False)
        with autocast():
            loss = F.softplus(-discriminator(fake, y).float()).mean()
        g_optimizer.zero_grad()
        loss.backward()
        g_optimizer.step()
        discriminator.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, list(generator.parameters()), 0.001)
        if batch % TURN == 0:
            yield


class Digits(torch.utils.data.Dataset):
    """One image at a time, transformed one at a time."""

    def __init__(self, datamodule):
        self.images = torch.cat([b.images for b in datamodule.real_batches("train")])
        self.labels = torch.cat([b.labels for b in datamodule.real_batches("train")])
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.Resize(32),
                transforms.CenterCrop(32),
                transforms.ToTensor(),
                transforms.Normalize((0.5,), (0.5,)),
            ]
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), self.labels[index]


def plain(config, datamodule) -> Iterator[None]:
    generator, discriminator = (n.to(memory_format=torch.contiguous_format) for n in networks(config, datamodule.spec))
    size = config["data"]["batch_size"]
    loader = torch.utils.data.DataLoader(
        Digits(datamodule), batch_size=size, shuffle=True, num_workers=2, drop_last=True
    )
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = torch.nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(size), torch.zeros(size)
    batch = 0
    while True:
        for real, y in loader:
            discriminator.zero_grad()
            logits = discriminator(real, y)
            real_loss = criterion(logits, ones)
            real_loss.backward()
            real_mean = logits.mean().item()
            fake = generator(torch.randn(size, generator.latent_dim), y)
            logits = discriminator(fake.detach(), y)
            fake_loss = criterion(logits, zeros)
            fake_loss.backward()
            fake_mean = logits.mean().item()
            d_optimizer.step()
            generator.zero_grad()
            logits = discriminator(fake, y)
            loss = criterion(logits, ones)
            loss.backward()
            g_optimizer.step()
            _ = real_mean, fake_mean, logits.mean().item(), real_loss.item() + fake_loss.item(), loss.item()
            batch += 1
            if batch % TURN == 0:
                yield


def take_turns(config, others: dict[str, Iterator[None]], rounds: int, length: int = TURN) -> None:
    """Train a config in turns of `length` batches alternating with other loops, and print the rates."""
    turns = Turns(others, rounds, length)
    globals()["the_turns"] = lambda: turns  # a target for the config
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            config
            | {
                "run_dir": f"{folder}/run",
                "budget": {"minutes": None, "samples": None, "batches": 10**9},
                "callbacks": config["callbacks"] | {"turns": {"_target_": f"{__name__}.the_turns"}},
            }
        )
    images = length * config["data"]["batch_size"]
    rates = {name: [images / seconds for seconds in taken[1:]] for name, taken in turns.rates.items()}
    print(f"\n{machine_class()}, training in {run.precision}")
    print(f"{'side':<10}{'images/s':>10}   lowest to highest of {rounds} turns of {length} batches")
    for name, each in rates.items():
        print(f"{name:<10}{statistics.median(each):>10.0f}   {min(each):.0f} to {max(each):.0f}")
    for name in reversed(others):
        ratios = sorted(a / b for a, b in zip(rates["lit_aigc"], rates[name], strict=True))
        print(f"lit_aigc / {name}: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    precision = sys.argv[2] if len(sys.argv) > 2 else fastest_precision("cpu")
    config = compose("train", [*OVERRIDES, f"trainer.precision={precision}"])
    datamodule = instantiate(config["data"])
    take_turns(config, {"bare": bare(config, datamodule), "plain": plain(config, datamodule)}, rounds)


if __name__ == "__main__":
    main()
