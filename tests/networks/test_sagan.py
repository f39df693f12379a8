import numpy as np
import pytest
import torch

from lit_aigc.networks import sagan


def test_attention_against_numpy():
    torch.manual_seed(0)
    layer = sagan.SelfAttention(8).double().eval()
    torch.nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(2, 8, 4, 6).double()
    query, key, value, out = (
        getattr(layer, name).weight.detach().numpy()[:, :, 0, 0] for name in ("query", "key", "value", "out")
    )
    expected = np.empty((2, 8, 4, 6))
    for n, image in enumerate(x.numpy()):
        keys, values = (
            np.einsum("oc,chw->ohw", w, image).reshape(len(w), 2, 2, 3, 2).max(axis=(2, 4)) for w in (key, value)
        )
        for i in range(4):
            for j in range(6):
                scores = np.exp(np.einsum("c,chw->hw", query @ image[:, i, j], keys))
                seen = np.einsum("hw,chw->c", scores / scores.sum(), values)
                expected[n, :, i, j] = image[:, i, j] + 0.7 * out @ seen
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_attention_starts_as_the_identity_and_can_leave_it():
    layer = sagan.SelfAttention(16)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.gamma.grad != 0


@pytest.mark.parametrize(("size", "expected"), [(28, 14), (32, 16), (64, 16)])
def test_where_attention_sits(size, expected):
    networks = sagan.Generator((1, size, size), channels=4), sagan.Discriminator((1, size, size), channels=4)
    inputs = torch.randn(1, 128), torch.randn(1, 1, size, size)
    for network, x in zip(networks, inputs, strict=True):
        (layer,) = (m for m in network.modules() if isinstance(m, sagan.SelfAttention))
        seen = []
        layer.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out.shape[2:]))
        network.eval()(x)
        assert seen == [(expected, expected)]


def test_both_networks_are_normalized_everywhere():
    for network in (sagan.Generator((1, 28, 28), 3, channels=4), sagan.Discriminator((1, 28, 28), 3, channels=4)):
        kinds = (torch.nn.Conv2d, torch.nn.Linear)
        layers = [m for m in network.modules() if isinstance(m, kinds)]
        assert layers
        assert all(torch.nn.utils.parametrize.is_parametrized(m, "weight") for m in layers)
