"""Likelihoods of images given a decoder's output: Bernoulli, Gaussian, or a mixture of discretized logistics.

Images are in [-1, 1] throughout. Log-probabilities are in nats per image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import check
from lit_aigc.networks.layers.densities import bernoulli_log_prob, normal_log_prob
from lit_aigc.noise import Noise

LEVELS = 256


class Likelihood(nn.Module):
    """A distribution of images given parameter maps.

    Attributes:
        discrete: Whether it gives probabilities, which can be stated in bits, rather than densities.
    """

    discrete = True

    def maps(self, channels: int) -> int:
        """Return the number of parameter maps for images of this many channels: the decoder's output channels."""
        return channels

    def observe(self, images: Tensor, noise: Noise) -> Tensor:
        """Return what is modeled of images ``(N, C, H, W)``: the images, or a random rounding of them."""
        return images

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Map parameters ``(N, maps, H, W)`` and observed images ``(N, C, H, W)`` to log-probabilities ``(N,)``."""
        raise NotImplementedError

    def mean(self, parameters: Tensor) -> Tensor:
        """Map ``(N, maps, H, W)`` to the expected images ``(N, C, H, W)``."""
        raise NotImplementedError

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """Map ``(N, maps, H, W)`` to images ``(N, C, H, W)``, image i drawn with item i of the noise."""
        raise NotImplementedError


class Bernoulli(Likelihood):
    """Independent pixels, on or off; parameters are logits.

    Args:
        binarize: Sample each pixel with its gray level as probability, again each time the image is seen (dynamic
            binarization; Salakhutdinov and Murray, 2008). Otherwise gray levels in [0, 1] are the targets, as in the
            textbook VAE: the cross-entropy is then not a log-probability of anything, but it is widely reported.
    """

    def __init__(self, binarize: bool = False) -> None:
        super().__init__()
        self.binarize = binarize
        self.discrete = binarize

    def observe(self, images: Tensor, noise: Noise) -> Tensor:
        """Return random black and white images, or the images."""
        if not self.binarize:
            return images
        chance = noise.uniform(len(images), *images.shape[1:], device=images.device)
        return torch.where(2 * chance - 1 < images, 1.0, -1.0).contiguous(memory_format=torch.channels_last)

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """See `Likelihood`."""
        target = (images.float() + 1) / 2
        return bernoulli_log_prob(parameters.float(), target).flatten(1).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """See `Likelihood`."""
        return 2 * torch.sigmoid(parameters.float()) - 1

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """Return black and white images."""
        chance = noise.uniform(len(parameters), *parameters.shape[1:], device=parameters.device)
        return torch.where(chance < torch.sigmoid(parameters.float()), 1.0, -1.0)


class Gaussian(Likelihood):
    """Independent normal pixels; the parameters are means and, with `variance` ``pixel``, log-variances.

    Args:
        variance: ``fixed`` at 1; ``shared``: learned, one for all pixels (Rybkin, Daniilidis and Levine, "Simple and
            effective VAE training with calibrated decoders", 2021); ``pixel``: predicted for each pixel.

    Raises:
        InputError: If `variance` is unknown.
    """

    discrete = False

    def __init__(self, variance: str = "shared") -> None:
        super().__init__()
        known = variance in ("fixed", "shared", "pixel")
        check(("likelihood.variance", variance, known, "fixed, shared or pixel"))
        self.variance = variance
        self.log_var = nn.Parameter(torch.zeros(())) if variance == "shared" else None

    def maps(self, channels: int) -> int:
        """See `Likelihood`."""
        return channels * (2 if self.variance == "pixel" else 1)

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """See `Likelihood`; a density."""
        mean, log_var = self._split(parameters)
        return normal_log_prob(images.float(), mean, log_var).flatten(1).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """See `Likelihood`."""
        return self._split(parameters)[0]

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """See `Likelihood`."""
        mean, log_var = self._split(parameters)
        return mean + noise.normal(len(mean), *mean.shape[1:], device=mean.device) * (0.5 * log_var).exp()

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        parameters = parameters.float()
        if self.variance == "pixel":
            mean, log_var = parameters.chunk(2, dim=1)
            # At least one gray level: a density has no upper bound.
            return mean, log_var.clamp(min=2 * math.log(1 / LEVELS))
        return parameters, parameters.new_zeros(()) if self.log_var is None else self.log_var


class DiscretizedLogisticMixture(Likelihood):
    """A mixture of logistics for the 256 levels of a pixel (Salimans et al., "PixelCNN++", 2017, section 2.1).

    All channels of a pixel share a mixture component; given the component, the mean of a channel depends linearly on
    the channels before it (section 2.2). Probabilities of the 256 levels sum to 1.

    Args:
        components: Number of components.

    Raises:
        InputError: If there are none.
    """

    _LOG_SCALES = (-7.0, 7.0)  # from a tenth of a level to where nearly all mass is at the ends of the range

    def __init__(self, components: int = 5) -> None:
        super().__init__()
        check(("likelihood.components", components, components >= 1, "1 or more"))
        self.components = components

    def maps(self, channels: int) -> int:
        """Return the number of maps: per component a logit, mean and log-scale per channel, coefficients per pair."""
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """See `Likelihood`."""
        x = images.float()[:, None]  # (N, 1, C, H, W)
        logits, means, log_scales, coefficients = self._split(parameters)
        columns = x.unbind(2)  # (N, 1, H, W) each
        means = torch.stack([self._mean(means, coefficients, columns, c) for c in range(len(columns))], dim=2)
        scale = torch.exp(-log_scales)
        upper = scale * (x - means + 1 / (LEVELS - 1))
        lower = scale * (x - means - 1 / (LEVELS - 1))
        below_upper, above_lower = F.logsigmoid(upper), F.logsigmoid(-lower)
        # log(sigmoid(upper) - sigmoid(lower)) cancels if both are near 0 or 1; these terms are stable.
        width = 2 / (LEVELS - 1) * scale
        between = below_upper + above_lower + torch.log(-torch.expm1(-width))
        # The first and the last level extend to infinity.
        log_p = torch.where(x > 1 - 1 / LEVELS, above_lower, between)
        log_p = torch.where(x < -1 + 1 / LEVELS, below_upper, log_p)
        log_p = log_p.sum(dim=2) + F.log_softmax(logits, dim=1)  # (N, K, H, W)
        return torch.logsumexp(log_p, dim=1).flatten(1).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """See `Likelihood`; the mean of the components' means, before they are clipped to the range."""
        logits, means, _, coefficients = self._split(parameters)
        columns: list[Tensor] = []
        for channel in range(means.shape[2]):  # means are linear in earlier channels, so expectations are too
            columns.append(self._mean(means, coefficients, columns, channel))
        weights = F.softmax(logits, dim=1)
        return torch.stack([(weights * column).sum(dim=1) for column in columns], dim=1).clamp(-1, 1)

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """See `Likelihood`; not rounded to the levels."""
        logits, means, log_scales, coefficients = self._split(parameters)
        n, k, channels, height, width = means.shape
        chance = noise.stream("component").uniform(n, k, height, width, device=logits.device).clamp(1e-7, 1 - 1e-7)
        chosen = (logits - torch.log(-torch.log(chance))).argmax(dim=1, keepdim=True)  # Gumbel-max, (N, 1, H, W)
        u = noise.stream("logistic").uniform(n, channels, height, width, device=logits.device).clamp(1e-5, 1 - 1e-5)
        columns: list[Tensor] = []
        for channel in range(channels):
            mean = self._mean(means, coefficients, columns, channel).gather(1, chosen)
            scale = log_scales[:, :, channel].gather(1, chosen).exp()
            quantile = torch.logit(u[:, channel : channel + 1])
            columns.append((mean + scale * quantile).clamp(-1, 1))
        return torch.cat(columns, dim=1)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (N, K, H, W), means and log-scales (N, K, C, H, W), coefficients (N, K, pairs, H, W)."""
        channels = next(c for c in range(1, 65) if self.maps(c) >= parameters.shape[1])
        parts = parameters.float().unflatten(1, (self.components, -1))
        pairs = channels * (channels - 1) // 2
        logits, means, log_scales, coefficients = parts.split([1, channels, channels, pairs], dim=2)
        return logits[:, :, 0], means, log_scales.clamp(*self._LOG_SCALES), torch.tanh(coefficients)

    def _mean(self, means: Tensor, coefficients: Tensor, before: Sequence[Tensor], channel: int) -> Tensor:
        """Return the mean (N, K, H, W) of a channel, given the earlier ones."""
        mean = means[:, :, channel]
        first = channel * (channel - 1) // 2
        for earlier in range(channel):
            mean = mean + coefficients[:, :, first + earlier] * before[earlier]
        return mean
