"""A hierarchy of latents, from a vector for the whole image to maps for its parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.networks.latent import Code, Inference, LatentModel, checked_latent_dim
from lit_aigc.networks.layers.conditioning import class_embedding, with_classes
from lit_aigc.networks.layers.densities import kl_standard_normal, normal_log_prob
from lit_aigc.networks.layers.pyramid import doubling, halving, stages
from lit_aigc.networks.likelihood import Likelihood

_LARGEST_LOG_VAR = 6.0


class Hierarchical(LatentModel):
    """Ladder of latents in the manner of Sønderby et al. (2016), NVAE (Vahdat and Kautz, 2020) and VDVAE (Child, 2021).

    A bottom-up pass extracts features of the image at each size. The top-down pass starts with a vector of latents and
    goes from the smallest map to the largest. At each size it samples groups of latents, whose prior depends on all
    latents before, and whose posterior also depends on the features of the image. Latents are in the units of their
    prior: ``z`` is standard normal under the prior, and a posterior is a shift and a scale of that.

    Args:
        shape: ``(C, H, W)`` of the images.
        likelihood: Likelihood of images.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the vector at the top.
        channels: Width of the largest feature map, half the size of the image; each smaller map is twice as wide.
        map_latents: Channels of latents in each group of the smallest map, halved at each larger one; or one number
            per map size, the smallest first.
        groups: Groups of latents at each size.
        blocks: Residual blocks of the bottom-up pass at each size.

    Raises:
        InputError: If the size of the images isn't supported, or an option is out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        likelihood: Likelihood,
        num_classes: int = 0,
        latent_dim: int = 32,
        channels: int = 48,
        map_latents: int | Sequence[int] = 8,
        groups: int = 1,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        checked_latent_dim(latent_dim)
        smallest, doublings = stages(shape)

        # One number stands for a sequence that halves at each size, down to 1.
        if isinstance(map_latents, int):
            map_latents = [max(map_latents >> level, min(map_latents, 1)) for level in range(doublings)]
        if len(map_latents) != doublings or min(map_latents) < 1 or min(groups, channels) < 1 or blocks < 0:
            raise InputError(
                f"map_latents={list(map_latents)}, groups={groups}, channels={channels}, blocks={blocks}: images of "
                f"{shape[1]}x{shape[2]} have maps of {doublings} sizes; expected {doublings} numbers of latents of 1 "
                "or more, groups and channels of 1 or more, and blocks of 0 or more."
            )
        self.likelihood = likelihood
        widths = [channels << level for level in reversed(range(doublings))]  # the smallest map first
        sizes = [smallest << level for level in range(doublings)]
        self.start = (widths[0], smallest, smallest)
        self.embedding = class_embedding(num_classes, latent_dim)
        classes = latent_dim * bool(num_classes)

        # Bottom-up: from the image to features of each size, and on to the vector's posterior.
        self.stem = halving(shape[0], channels)
        self.up_blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)), nn.SiLU()) for width in reversed(widths)
        )
        self.shrink = nn.ModuleList(halving(large, small) for large, small in itertools.pairwise(reversed(widths)))
        features = widths[0] * smallest**2  # of the smallest map
        self.top = _two_layers(features + classes, 4 * widths[0], 2 * latent_dim)

        # Top-down: from the vector through the groups of each size to the likelihood's parameters.
        self.project = _two_layers(latent_dim + classes, 4 * widths[0], features)
        self.groups = nn.ModuleList(
            nn.ModuleList(Group(width, latents) for _ in range(groups))
            for width, latents in zip(widths, map_latents, strict=True)
        )
        self.grow = nn.ModuleList(doubling(small, large) for small, large in itertools.pairwise(widths))
        last = max(channels // 2, 8)
        self.output = nn.Sequential(
            nn.SiLU(), doubling(channels, last), nn.SiLU(), nn.Conv2d(last, likelihood.maps(shape[0]), 3, padding=1)
        )

        # All latents of an image lie in one vector: first that of the top, then each group's map, flattened.
        self._parts = [
            (latents, size, size) for latents, size in zip(map_latents, sizes, strict=True) for _ in range(groups)
        ]
        self._lengths = [latent_dim, *(latents * size**2 for latents, size, _ in self._parts)]
        self.latent_dim = sum(self._lengths)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Code:
        """Return mean and log-variance of the vector at the top, then features, the smallest map first."""
        x = self.stem(x)
        features = []
        for level, blocks in enumerate(self.up_blocks):
            x = blocks(x if level == 0 else self.shrink[level - 1](x))
            features.append(x)
        mean, log_var = self.top(with_classes(x.flatten(1), self.embedding, y)).float().chunk(2, dim=1)
        return mean, _bounded(log_var), *reversed(features)

    def infer(self, code: Code, eps: Tensor, y: Tensor | None = None) -> Inference:
        """See `LatentModel`; each map of latents is a group, and so is the vector."""
        mean, log_var, *features = code
        vector_eps, *map_eps = eps.split(self._lengths, dim=1)
        samples = [_sample_posterior(mean, log_var, vector_eps)]
        x = self._start(samples[0].z, y)
        index = 0  # of the group, over all sizes
        for level, groups in enumerate(self.groups):
            if level:
                x = self.grow[level - 1](x)
            for group in groups:
                group_eps = map_eps[index].unflatten(1, self._parts[index])  # (N, latents, size, size)
                x, sample = group.infer(x, features[level], group_eps)
                samples.append(sample)
                index += 1
        z = torch.cat([sample.z.flatten(1) for sample in samples], dim=1)  # (N, latent_dim)
        kl = torch.stack([sample.kl for sample in samples], dim=1)  # (N, 1 + number of groups)
        log_ratio = torch.stack([sample.log_ratio for sample in samples], dim=1).sum(dim=1)  # (N,)
        return Inference(self.output(x), z, kl, log_ratio)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `LatentModel`."""
        vector, *maps = z.split(self._lengths, dim=1)
        x = self._start(vector, y)
        index = 0
        for level, groups in enumerate(self.groups):
            if level:
                x = self.grow[level - 1](x)
            for group in groups:
                x = group.generate(x, maps[index].unflatten(1, self._parts[index]))
                index += 1
        return self.output(x)

    def _start(self, vector: Tensor, y: Tensor | None) -> Tensor:
        x = self.project(with_classes(vector, self.embedding, y)).unflatten(1, self.start)
        return x.contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """A residual branch of two 3x3 convolutions, initially the identity.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width, H, W)`` to the same shape."""
        return x + self.layers(x)


class PosteriorSample(NamedTuple):
    """Latents of a group: values in the units of the prior, KL and log ratio ``(N,)`` in nats."""

    z: Tensor
    kl: Tensor
    log_ratio: Tensor


class Group(nn.Module):
    """One map of latents: its prior given the map so far, its posterior given the features of the image as well.

    Args:
        width: Channels of the maps.
        latents: Channels of the latents.
    """

    def __init__(self, width: int, latents: int) -> None:
        super().__init__()
        self.prior = nn.Sequential(nn.SiLU(), nn.Conv2d(width, 2 * latents, 3, padding=1))
        self.join = nn.Conv2d(2 * width, width, 1)
        self.posterior = nn.Sequential(ResidualBlock(width), nn.SiLU(), nn.Conv2d(width, 2 * latents, 3, padding=1))
        self.inject = nn.Conv2d(latents, width, 1)
        self.block = ResidualBlock(width)
        for last in (self.prior[-1], self.posterior[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def infer(self, x: Tensor, features: Tensor, eps: Tensor) -> tuple[Tensor, PosteriorSample]:
        """Sample the posterior, and return the next map and the sample.

        Args:
            x: The map so far, ``(N, width, H, W)``.
            features: Features of the image, of the same shape.
            eps: Standard normal, ``(N, latents, H, W)``.
        """
        h = self.join(torch.cat([x, features], dim=1))
        shift, log_var = self.posterior(h).float().chunk(2, dim=1)
        sample = _sample_posterior(shift, _bounded(log_var), eps)
        return self.generate(x, sample.z), sample

    def generate(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the next map, given ``x`` (N, width, H, W) and latents ``z`` (N, latents, H, W) in prior units."""
        mean, log_var = self.prior(x).float().chunk(2, dim=1)
        latents = mean + (0.5 * _bounded(log_var)).exp() * z
        return self.block(x + self.inject(latents.to(x.dtype)))


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


def _bounded(log_var: Tensor) -> Tensor:
    """Bound log-variances smoothly, so that no scale overflows or vanishes."""
    return _LARGEST_LOG_VAR * torch.tanh(log_var / _LARGEST_LOG_VAR)


def _sample_posterior(mean: Tensor, log_var: Tensor, eps: Tensor) -> PosteriorSample:
    """Sample from N(mean, exp(log_var)), where the prior is N(0, 1)."""
    z = mean + (0.5 * log_var).exp() * eps
    zero = z.new_zeros(())
    kl = kl_standard_normal(mean, log_var)
    log_ratio = normal_log_prob(z, mean, log_var) - normal_log_prob(z, zero, zero)
    return PosteriorSample(z, kl.flatten(1).sum(dim=1), log_ratio.flatten(1).sum(dim=1))
