"""Seconds for ten epochs of the VAE 784-400-20 on Fashion-MNIST by `lit_aigc.train`, compared with equivalent loops.

* plain: in the style of the common VAE example: torchvision's data set, whose images become tensors one
  by one, a DataLoader, fp32, ``.item()`` every step. Its DataLoader has no worker, as is the default, or two.
* bare: PyTorch alone with the optimizations of lit_aigc (images resident as uint8, fused Adam, the same
  precision): the difference between the two is the framework's overhead.

All have 400 hidden units, 20 latents, batches of 128 and Adam with a learning rate of 1e-3, and see 60,000 images per
epoch. The sides alternate in turns of one epoch within one run, since machines change their speed from minute to
minute. The seconds of lit_aigc are its ``train_seconds``, with a validation at the end, minus the turns of the others;
those of the others include only training. Then the negative ELBO of the 10,000 test images is computed for each side in
the same way: gray levels as probabilities, the KL in closed form, one latent per image, fp32.

    LIT_AIGC_DATA=FOLDER python benchmarks/vae_speed.py [epochs]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from lit_aigc.build import build, instantiate, resolve
from lit_aigc.config.compose import compose
from lit_aigc.machine.precision import MIXED, fastest_precision, machine_class
from lit_aigc.train.run import train

EPOCH = 60_000
BATCH = 128
DRAWING = ("generative_metrics", "sample_grid", "reconstructions", "curves", "neighbors")
QUIET = [f"callbacks.{name}=null" for name in DRAWING]


class Turns(L.Callback):
    """Before each epoch of lit_aigc, gives the other sides an epoch each, and times them."""

    def __init__(self, others: dict[str, Iterator[None]]):
        self.others = others
        self.seconds = dict.fromkeys(others, 0.0)
        self.epochs = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.samples_seen < self.epochs * EPOCH:
            return
        self.epochs += 1
        for name, side in self.others.items():
            start = time.perf_counter()
            next(side)
            self.seconds[name] += time.perf_counter() - start


class Plain(nn.Module):
    """The textbook network, written out."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(784, 400)
        self.mean = nn.Linear(400, 20)
        self.log_var = nn.Linear(400, 20)
        self.decoder_hidden = nn.Linear(20, 400)
        self.pixels = nn.Linear(400, 784)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.hidden(x.view(-1, 784)))
        mean, log_var = self.mean(h), self.log_var(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        return torch.sigmoid(self.pixels(F.relu(self.decoder_hidden(z)))), mean, log_var

    def loss(self, x: Tensor) -> Tensor:
        """Negative ELBO of images ``(N, 1, 28, 28)`` in [0, 1], summed."""
        chance, mean, log_var = self(x)
        cross_entropy = F.binary_cross_entropy(chance, x.view(-1, 784), reduction="sum")
        return cross_entropy - 0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())


def plain(network: Plain, root: str, workers: int) -> Iterator[None]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    images = datasets.FashionMNIST(root, train=True, transform=transforms.ToTensor())
    loader = DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=workers)
    while True:
        network.train()
        total = 0.0
        for x, _ in loader:
            optimizer.zero_grad()
            loss = network.loss(x)
            loss.backward()
            total += loss.item()
            optimizer.step()
        yield


def bare(network: nn.Module, pixels: Tensor) -> Iterator[None]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    order = torch.randperm(len(pixels))
    position = seen = 0
    while True:
        while seen < EPOCH:
            if position + BATCH > len(order):
                order, position = torch.randperm(len(pixels)), 0
            x = pixels[order[position : position + BATCH]].float().mul_(2 / 255).sub_(1)
            position, seen = position + BATCH, seen + BATCH
            with torch.autocast("cpu", torch.bfloat16, enabled=fastest_precision("cpu") == MIXED):
                loss = negative_elbo(network, x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seen -= EPOCH
        yield


def negative_elbo(network: nn.Module, x: Tensor) -> Tensor:
    """``(N,)`` of images in [-1, 1], by a network of lit_aigc."""
    drawn = network(x, torch.randn(len(x), 1, network.latent_dim))
    return drawn.kl.sum(dim=1) - network.likelihood.log_prob(drawn.parameters, x)


@torch.inference_mode()
def tested(summed: Callable[[Tensor], Tensor], images: Tensor) -> float:
    torch.manual_seed(0)
    return sum(float(summed(part)) for part in images.split(500)) / len(images)


def main() -> None:
    print(machine_class())
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    root = os.environ["LIT_AIGC_DATA"]
    config = compose("train", ["experiment=vae_fashion_mnist", f"data.root={root}", f"data.batch_size={BATCH}", *QUIET])
    datamodule = instantiate(config["data"])
    pixels, test = (torch.cat([b.images for b in datamodule.real_batches(split)]) for split in ("train", "test"))

    torch.manual_seed(0)
    ours = build(resolve(config["model"], datamodule.spec), datamodule.spec).network
    textbook = {"plain": Plain(), "plain, 2 workers": Plain()}
    turns = Turns(
        {"bare": bare(ours, pixels)}
        | {name: plain(network, root, 2 * ("workers" in name)) for name, network in textbook.items()}
    )
    globals()["the_turns"] = lambda: turns  # a target for the config
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            config
            | {
                "run_dir": f"{folder}/run",
                "budget": {"minutes": None, "samples": epochs * EPOCH, "batches": None},
                "callbacks": config["callbacks"] | {"turns": {"_target_": f"{__name__}.the_turns"}},
            }
        )
    seconds = {"lit_aigc": run.module.train_seconds - sum(turns.seconds.values()), **turns.seconds}
    gray = test / 255
    elbos = {
        "lit_aigc": tested(lambda x: negative_elbo(run.module.network.eval(), 2 * x - 1).sum(), gray),
        "bare": tested(lambda x: negative_elbo(ours.eval(), 2 * x - 1).sum(), gray),
        **{name: tested(network.eval().loss, gray) for name, network in textbook.items()},
    }
    print(f"\n{epochs} epochs of 60,000 images, {torch.get_num_threads()} threads")
    print(f"{'side':<18}{'seconds':>9}{'ms/batch':>10}{'/ lit_aigc':>12}   test -ELBO (nats)")
    for name, each in seconds.items():
        batch = 1000 * each * BATCH / (epochs * EPOCH)
        print(f"{name:<18}{each:>9.1f}{batch:>10.2f}{each / seconds['lit_aigc']:>12.2f}   {elbos[name]:.2f}")


if __name__ == "__main__":
    main()
