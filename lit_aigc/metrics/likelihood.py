"""The likelihood that a model with latent variables gives to images, estimated by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from lit_aigc.errors import InputError
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch


@torch.inference_mode()
def evaluate_likelihood(
    module: Any, images: Iterable[Batch], samples: int, *, seed: int = 0
) -> tuple[dict[str, float], dict[str, Any]]:
    """Estimate the mean NLL of images by importance sampling (Burda, Grosse and Salakhutdinov, 2016).

    Image i, and all noise for it, depend on (seed, i) alone, so the batch size makes no difference beyond rounding.

    Args:
        module: A `lit_aigc.modules.capabilities.HasLikelihood`, such as `lit_aigc.modules.vae.VAE`, with the
            weights to measure.
        images: uint8, and their labels for a conditional model; `start` is the place of the first among all.
        samples: Latents per image.
        seed: Seed of the latents, and of the binarization if pixels are binarized.

    Returns:
        ``nll`` in nats per image: in expectation an upper bound, which falls to the true value with more samples;
        ``nll_standard_error``, over the images; ``elbo`` in nats per image, from the first latent of each; if the
        likelihood is discrete ``nll_bits_per_dim``, the NLL in bits (``bits_per_dim`` of training is that of the ELBO).
        And the protocol.

    Raises:
        InputError: If there are fewer than two images, or a likelihood is not finite.
    """
    noise = Noise(seed).stream("likelihood")
    found = []
    for batch in images:
        x = batch.images.to(module.device, torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)
        own = noise.skip(batch.start)
        x = module.observed(x, own)
        found.append(module.log_likelihood(x, batch.labels, samples=samples, noise=own).cpu())
        if not torch.isfinite(found[-1]).all():
            raise InputError(
                f"The likelihood of images among {batch.start} to {batch.start + len(x) - 1} is not finite (NaN or "
                "infinite)."
            )
    n = sum(map(len, found))
    if n < 2:
        raise InputError(f"A test likelihood and its standard error need two images or more, not {n}.")
    estimates, bounds = torch.cat(found).unbind(dim=1)  # (n,) float64 each
    nll = -float(estimates.mean())
    values = {
        "nll": nll,
        "nll_standard_error": float(estimates.std()) / math.sqrt(n),
        "elbo": float(bounds.mean()),
    }
    likelihood = module.network.likelihood
    if likelihood.discrete:
        values["nll_bits_per_dim"] = nll / (math.prod(module.spec.shape) * math.log(2))
    protocol = {
        "images": n,
        "samples": samples,
        "likelihood": type(likelihood).__name__,
        "bound": "upper bound on the negative log-likelihood, in expectation",
        "binarisation": f"random, seed {seed}" if getattr(likelihood, "binarize", False) else "none",
        "sample_seed": seed,
        "precision": "float32 network, float64 sums",
    }
    return values, protocol
