"""Images per second of `lit_aigc.train` on SNGAN and R3GAN, compared with a straightforward implementation.

The plain side has the same layers, losses, penalties, batch size and learning rates, implemented as in the papers:
fp32, NCHW, separate passes for real and for fake images, new images for the generator's step, upsampling and
pooling as separate steps, `torch.nn.utils.parametrizations.spectral_norm`, Adam without fusion. It starts from
the weights of lit_aigc's networks, and its outputs are compared with theirs before anything is timed. Both sides keep
the images in memory.

The sides alternate in turns of a few seconds within one run (see training_speed.py).

    python benchmarks/gan_throughput.py [rounds [batches per turn]]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm
from training_speed import networks, take_turns

from lit_aigc.build import instantiate
from lit_aigc.config.compose import compose

TURN = 24  # batches; a multiple of R3GAN's interval of penalties
OVERRIDES = [
    "validations=0",
    "callbacks.generative_metrics=null",
    "callbacks.sample_grid=null",
    "callbacks.curves=null",
    "callbacks.neighbors=null",
    "monitor=null",
]


class ConditionalNorm(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)

    def forward(self, x, y):
        return self.gain(y)[:, :, None, None] * self.norm(x) + self.bias(y)[:, :, None, None]


class UpBlock(nn.Module):
    def __init__(self, inputs, outputs, classes):
        super().__init__()
        self.first_norm = ConditionalNorm(inputs, classes)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.second_norm = ConditionalNorm(outputs, classes)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x, y):
        h = self.first(F.interpolate(F.relu(self.first_norm(x, y)), scale_factor=2))
        h = self.second(F.relu(self.second_norm(h, y)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2))


class SNGANGenerator(nn.Module):
    def __init__(self, latent_dim, widths, classes, image_channels, size=7):
        super().__init__()
        self.latent_dim = latent_dim
        self.start = (widths[0], size, size)
        self.project = nn.Linear(latent_dim, widths[0] * size * size)
        self.blocks = nn.ModuleList(UpBlock(a, b, classes) for a, b in itertools.pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], image_channels, 3, padding=1)

    def forward(self, z, y):
        x = self.project(z).view(-1, *self.start)
        for block in self.blocks:
            x = block(x, y)
        return torch.tanh(self.to_image(F.relu(self.norm(x))))


class DownBlock(nn.Module):
    def __init__(self, inputs, hidden, outputs, first=False, down=True):
        super().__init__()
        self.is_first, self.down = first, down
        self.first = spectral_norm(nn.Conv2d(inputs, hidden, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(hidden, outputs, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x):
        h = self.second(F.relu(self.first(x if self.is_first else F.relu(x))))
        if not self.down:
            return h + self.shortcut(x)
        short = self.shortcut(F.avg_pool2d(x, 2)) if self.is_first else F.avg_pool2d(self.shortcut(x), 2)
        return F.avg_pool2d(h, 2) + short


class SNGANDiscriminator(nn.Module):
    def __init__(self, widths, classes, image_channels):
        super().__init__()
        self.blocks = nn.Sequential(
            DownBlock(image_channels, widths[0], widths[1], first=True),
            DownBlock(widths[1], widths[1], widths[2]),
            DownBlock(widths[2], widths[2], widths[3], down=False),
        )
        self.logit = spectral_norm(nn.Linear(widths[3], 1))
        self.projection = spectral_norm(nn.Embedding(classes, widths[3]))

    def forward(self, x, y):
        features = F.relu(self.blocks(x)).sum(dim=(2, 3))
        return self.logit(features)[:, 0] + (self.projection(y) * features).sum(dim=1)


class Bottleneck(nn.Module):
    def __init__(self, channels, group_size=16):
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels // group_size)
        self.project = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, x):
        h = F.leaky_relu(self.mix(F.leaky_relu(self.expand(x), 0.2)), 0.2)
        return x + self.project(h)


class R3GANGenerator(nn.Module):
    def __init__(self, latent_dim, widths, blocks, classes, image_channels, size=7):
        super().__init__()
        self.latent_dim = latent_dim
        self.embedding = nn.Embedding(classes, latent_dim)
        self.start = (widths[0], size, size)
        self.project = nn.Linear(2 * latent_dim, widths[0] * size * size)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Bottleneck(w) for _ in range(n))) for w, n in zip(widths, blocks, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in itertools.pairwise(widths))
        self.to_image = nn.ConvTranspose2d(widths[-1], image_channels, 4, stride=2, padding=1)

    def forward(self, z, y):
        x = self.project(torch.cat([z, self.embedding(y)], dim=1)).view(-1, *self.start)
        x = self.stages[0](x)
        for narrow, stage in zip(self.narrow, list(self.stages)[1:], strict=True):
            x = stage(narrow(F.interpolate(x, scale_factor=2, mode="bilinear")))
        return torch.tanh(self.to_image(x))


class R3GANDiscriminator(nn.Module):
    def __init__(self, widths, blocks, classes, image_channels, size=7):
        super().__init__()
        self.pool = nn.Parameter(torch.zeros(widths[-1], size, size))
        layers = [nn.Conv2d(image_channels, widths[0], 4, stride=2, padding=1)]
        for i, (w, n) in enumerate(zip(widths, blocks, strict=True)):
            layers += [Bottleneck(w) for _ in range(n)]
            if i + 1 < len(widths):
                layers += [nn.AvgPool2d(2), nn.Conv2d(w, widths[i + 1], 1, bias=False)]
        self.features = nn.Sequential(*layers)
        self.logit = nn.Linear(widths[-1], 1)
        self.projection = nn.Embedding(classes, widths[-1])

    def forward(self, x, y):
        pooled = (self.features(x) * self.pool).sum(dim=(2, 3))
        return self.logit(pooled)[:, 0] + (self.projection(y) * pooled).sum(dim=1)


PLAIN = {  # the networks of conf/model/{sngan,r3gan}.yaml at 28 px
    "sngan": lambda: (
        SNGANGenerator(64, [128, 64, 16], 10, 1),
        SNGANDiscriminator([16, 32, 64, 128], 10, 1),
    ),
    "r3gan": lambda: (
        R3GANGenerator(64, [128, 64], [2, 1], 10, 1),
        R3GANDiscriminator([32, 128], [1, 2], 10, 1),
    ),
}


def copy_weights(ours: nn.Module, plain: nn.Module) -> None:
    """By name; the only difference is the order of the first map's features, channels last in ours."""
    theirs = dict(ours.named_parameters())
    for name, parameter in plain.named_parameters():
        value = theirs.pop(name).data
        if name.startswith("project."):
            width, height, _ = plain.start
            value = value.unflatten(0, (height, height, width)).movedim(2, 0).flatten(0, 2)
        parameter.data.copy_(value)
    assert not theirs, f"parameters of ours that the plain network lacks: {sorted(theirs)}"


@torch.no_grad()
def compare(ours: tuple[nn.Module, nn.Module], plain: tuple[nn.Module, nn.Module]) -> None:
    """Check that both sides compute the same images and logits, with spectral norms that have converged."""
    for network in (*ours, *plain):
        for module in network.modules():
            if parametrize.is_parametrized(module):
                with torch.enable_grad():
                    for _ in range(100):
                        _ = module.weight
        network.eval()
    z, y = torch.randn(8, ours[0].latent_dim), torch.arange(8)
    images = [generator(z, y) for generator in (ours[0], plain[0])]
    logits = [discriminator(images[0], y) for discriminator in (ours[1], plain[1])]
    torch.testing.assert_close(*images, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(*logits, rtol=1e-2, atol=1e-3)
    for network in (*ours, *plain):
        network.train()


def penalty(logits, images):
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


def plain(name: str, config, datamodule, length: int) -> Iterator[None]:
    ours = networks(config, datamodule.spec)
    generator, discriminator = PLAIN[name]()
    for mine, theirs in zip(ours, (generator, discriminator), strict=True):
        copy_weights(mine, theirs)
    compare(ours, (generator, discriminator))
    model, size = config["model"], config["data"]["batch_size"]
    optimizers = []
    for which, network in (("generator", generator), ("discriminator", discriminator)):
        options = {key: value for key, value in model[f"{which}_optimizer"].items() if key != "name"}
        optimizers.append(torch.optim.Adam(network.parameters(), **options | {"betas": tuple(options["betas"])}))
    g_optimizer, d_optimizer = optimizers
    batches = list(datamodule.real_batches("train"))
    pixels = torch.cat([b.images for b in batches]).float() / 127.5 - 1.0
    labels = torch.cat([b.labels for b in batches])
    weights = model["regularization"]
    relativistic = model["loss"] == "relativistic"
    for batch in itertools.count():
        chosen = torch.randint(len(pixels), (size,))
        real, y = pixels[chosen], labels[chosen]

        d_optimizer.zero_grad()
        with torch.no_grad():
            fake = generator(torch.randn(size, generator.latent_dim), y)
        penalized = weights["r1"] > 0 and batch % weights["every"] == 0
        real.requires_grad_(penalized)
        fake.requires_grad_(penalized)
        real_logits, fake_logits = discriminator(real, y), discriminator(fake, y)
        if relativistic:
            loss = F.softplus(fake_logits - real_logits).mean()
        else:
            loss = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        if penalized:
            loss = loss + weights["every"] * weights["r1"] * penalty(real_logits, real)
            loss = loss + weights["every"] * weights["r2"] * penalty(fake_logits, fake)
        loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        discriminator.requires_grad_(False)
        fake_logits = discriminator(generator(torch.randn(size, generator.latent_dim), y), y)
        if relativistic:
            with torch.no_grad():
                real_logits = discriminator(real, y)
            loss = F.softplus(real_logits - fake_logits).mean()
        else:
            loss = -fake_logits.mean()
        loss.backward()
        g_optimizer.step()
        discriminator.requires_grad_(True)
        if (batch + 1) % length == 0:
            yield


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    length = int(sys.argv[2]) if len(sys.argv) > 2 else TURN
    for name in PLAIN:
        print(f"\n{name}")
        config = compose("train", [f"model={name}", *OVERRIDES])
        datamodule = instantiate(config["data"])
        take_turns(config, {"plain": plain(name, config, datamodule, length)}, rounds, length)


if __name__ == "__main__":
    main()
