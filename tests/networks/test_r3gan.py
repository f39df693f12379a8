import pytest
import torch
from torch import nn

from lit_aigc.errors import InputError
from lit_aigc.networks import r3gan
from lit_aigc.networks.layers.pyramid import upsample_bilinear


def test_residual_branches_are_silent_at_initialization():
    for network in (r3gan.Generator((1, 28, 28), channels=16), r3gan.Discriminator((1, 28, 28), channels=16)):
        blocks = [m for m in network.modules() if isinstance(m, r3gan.Bottleneck)]
        assert len(blocks) == 3 * 2
        for block in blocks:
            x = torch.randn(2, block.project.out_channels, 5, 5)
            assert torch.equal(block(x), x)


def test_the_branches_are_scaled_by_the_number_of_blocks():
    """Fixup: blocks^(-1/4) for branches of three layers, over He's sqrt(2 / (1 + slope^2) / fan)."""
    torch.manual_seed(0)
    network = r3gan.Discriminator((1, 28, 28), channels=64, growth=1, blocks=3, group_size=32)
    block = next(m for m in network.modules() if isinstance(m, r3gan.Bottleneck))
    scale = (2 / 1.04) ** 0.5 * 9**-0.25
    assert block.expand.weight.std().item() == pytest.approx(scale * 64**-0.5, rel=0.05)
    assert block.mix.weight.std().item() == pytest.approx(scale * (9 * 32) ** -0.5, rel=0.05)


def test_groups():
    assert r3gan.Bottleneck(32, expansion=2, group_size=16).mix.groups == 4
    assert r3gan.Bottleneck(32, expansion=2, group_size=1).mix.groups == 64
    assert r3gan.Bottleneck(32, expansion=2, group_size=0).mix.groups == 1
    assert r3gan.Bottleneck(4, expansion=2, group_size=16).mix.groups == 1
    with pytest.raises(InputError, match=r"group_size=16.*= 40"):
        r3gan.Bottleneck(20, expansion=2)


def test_no_layer_normalizes():
    network = r3gan.Generator((3, 32, 32), 10, channels=16)
    assert not any("Norm" in type(m).__name__ for m in network.modules())


def test_blocks_of_each_map():
    network = r3gan.Generator((1, 64, 64), channels=16, growth=2, widening=4, blocks=[0, 1, 2])
    assert [(len(stage), stage[0].project.out_channels) for stage in list(network.stages)[:4]] == [
        (2, 64),
        (2, 64),
        (2, 64),
        (1, 32),
    ]
    assert len(network.stages[4]) == 0
    for blocks in ([], [-1]):
        with pytest.raises(InputError, match="blocks"):
            r3gan.Discriminator((1, 28, 28), blocks=blocks)


def test_stride():
    """2: there is no map of the image's size."""
    network = r3gan.Discriminator((1, 28, 28), channels=16, stride=2)
    assert network.features[0](torch.zeros(1, 1, 28, 28)).shape == (1, 16, 14, 14)
    with pytest.raises(InputError, match="stride=3"):
        r3gan.Generator((1, 28, 28), stride=3)


def test_the_head_step_by_step():
    torch.manual_seed(0)
    network = r3gan.Discriminator((1, 28, 28), 3, channels=16, minibatch_group=2)
    nn.init.normal_(network.projection.weight)
    features, y = torch.randn(4, 64, 7, 7), torch.tensor([0, 1, 2, 0])
    deviations = [features[i::2].std(dim=0, correction=0).mean() for i in (0, 1)]
    extra = torch.stack([deviations[i % 2].expand(1, 7, 7) for i in range(4)])
    pooled = torch.einsum("nchw,chw->nc", torch.cat([features, extra], dim=1), network.pool)
    expected = [f @ network.logit.weight[0] + f @ network.projection.weight[c] for f, c in zip(pooled, y, strict=True)]
    torch.testing.assert_close(network.head(features, y), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_the_minibatch_deviation_sees_each_half_of_a_pair_alone():
    torch.manual_seed(0)
    network = r3gan.Discriminator((1, 28, 28), channels=16, minibatch_group=4)
    real, fake = torch.randn(8, 1, 28, 28), torch.zeros(8, 1, 28, 28)
    torch.testing.assert_close(network.pair(real, fake), (network(real), network(fake)), rtol=1e-4, atol=1e-4)


def test_upsampling_to_the_image_starts_bilinear():
    torch.manual_seed(0)
    layer = r3gan.Generator((3, 28, 28), channels=16, stride=2).to_image
    x = torch.randn(2, 16, 14, 14)
    narrow = torch.conv2d(x, layer.weight.sum(dim=(2, 3)).T[:, :, None, None] / 4)
    torch.testing.assert_close(layer(x)[:, :, 1:-1, 1:-1], upsample_bilinear(narrow)[:, :, 1:-1, 1:-1])
