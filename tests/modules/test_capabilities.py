"""What each family can do, as the protocols see it."""

from __future__ import annotations

import inspect

import pytest

from lit_aigc.augmentation.images import AdaptiveAugment, DiffAugment
from lit_aigc.modules import capabilities
from lit_aigc.modules.classifier import ImageClassifier
from lit_aigc.modules.gan import GAN
from lit_aigc.modules.language_model import LanguageModel
from lit_aigc.modules.translation import Translator
from lit_aigc.modules.vae import VAE
from lit_aigc.modules.vae_gan import VAEGAN
from lit_aigc.modules.vqvae import VQVAE
from lit_aigc.networks import dcgan, mlp, r3gan, sagan, sngan

PROTOCOLS = [
    kind for _, kind in inspect.getmembers(capabilities, inspect.isclass) if kind.__module__ == capabilities.__name__
]
ABILITIES = {
    GAN: "Decodes Interpolates",
    VAE: "Decodes Encodes HasLikelihood Interpolates Observes",
    VAEGAN: "Decodes Encodes Interpolates",
    VQVAE: "Reconstructs",
    LanguageModel: "",
    Translator: "",
    ImageClassifier: "",
    AdaptiveAugment: "Adapts",
    DiffAugment: "",
    **dict.fromkeys([each.Discriminator for each in (dcgan, mlp, r3gan, sagan, sngan)], "HasFeatures JudgesPairs"),
}


@pytest.mark.parametrize("kind", ABILITIES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_what_a_class_can_do(kind):
    blank = kind.__new__(kind)  # as instances are; attributes of the constructor are none of a protocol's methods
    if kind in (GAN, VAE, VAEGAN):
        object.__setattr__(blank, "latent_dim", 2)
    assert " ".join(each.__name__ for each in PROTOCOLS if isinstance(blank, each)) == ABILITIES[kind]
