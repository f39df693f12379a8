from __future__ import annotations

import pytest
import torch

from lit_aigc.networks.classifier import Classifier


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 64, 48)])
def test_shapes(shape):
    network = Classifier(shape, num_classes=7, width=8).eval()
    x = torch.randn(3, *shape)
    assert network.features(x).shape == (3, 32) == (3, network.num_features)
    assert network(x).shape == (3, 7)


def test_logits_are_linear_in_the_features():
    network = Classifier((1, 28, 28), num_classes=4, width=8).eval()
    x = torch.randn(5, 1, 28, 28)
    assert torch.equal(network(x), network.head(network.features(x)))
    assert (network.features(x) >= 0).all()


def test_evaluation_treats_each_image_alone():
    network = Classifier((1, 28, 28), num_classes=4, width=8).eval()
    x = torch.randn(5, 1, 28, 28)
    assert torch.allclose(network(x)[2:3], network(x[2:3]), atol=1e-5)
